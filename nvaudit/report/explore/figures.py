"""The front of KPP against cost, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvaudit.report.explore.result import COSTS, ExploredPoint, ExploreReport, cost_text
from nvaudit.report.plots import axis, colour, label, layout, percent_axis, plotly_graphs
from nvaudit.report.wording import interval_text, kpp_name, limit_text, si_scale, value_text


def front_figure(report: ExploreReport) -> Any:
    """Draw the points: the front as steps with intervals, what was thrown out at what its KPP is at best."""
    go = plotly_graphs()
    figure = go.Figure()
    for trace in _traces(report):
        figure.add_scatter(**trace)
    _, unit = _scale(report)
    shapes = []
    if report.min_kpp is not None:
        shapes.append({
            "type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": report.min_kpp, "y1": report.min_kpp,
            "line": {"color": colour("undecided"), "width": 1.5, "dash": "dot"},
        })  # fmt: skip
    figure.update_layout(
        **layout(
            height=520,
            xaxis=axis(f"{COSTS[report.against][1]}, {unit}", type="log"),
            yaxis=axis(f"{kpp_name(report.percentile)} {report.metric}", nticks=8,
                       **percent_axis(report.metric_info.unit)),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            shapes=shapes,
            margin={"l": 8, "r": 12, "t": 64, "b": 8},
        )
    )  # fmt: skip
    return figure


def _scale(report: ExploreReport) -> tuple[float, str]:
    """Factor and unit of the axis of costs: the cheapest point is at least 1."""
    if report.against == "area":
        return 1e6, "mm²"
    least = min((point.costs(report.against) for point in report.points), default=1.0)
    return si_scale(least, COSTS[report.against][2])


def _traces(report: ExploreReport) -> list[dict[str, Any]]:
    front = report.on_front
    out = [p for p in report.points if p.status in ("dominated", "below") and _height(p) is not None]
    traces = [
        _markers(report, out, "thrown out: at best", "band", "triangle-down-open", 8),
        {
            **_markers(report, front, "the front", "worst", "circle", 11),
            "mode": "lines+markers", "line": {"color": colour("worst"), "width": 2, "shape": "hv"},
            "error_y": _errors(front),
        },
    ]  # fmt: skip
    if report.recommended is not None:
        chosen = [report.point(report.recommended)]
        traces.append(_markers(report, chosen, "recommended", "pass", "circle-open", 22, width=3))
    if report.baseline is not None and _height(report.baseline.point) is not None:
        traces.append(_markers(report, [report.baseline.point], "baseline", "second", "square", 11))
    return [trace for trace in traces if trace["x"]]


def _height(point: ExploredPoint) -> float | None:
    return point.at_most if point.kpp is None else point.kpp.value


def _markers(
    report: ExploreReport, points: Sequence[ExploredPoint], name: str, role: str, symbol: str, size: int,
    width: float = 1.5,
) -> dict[str, Any]:  # fmt: skip
    factor, _ = _scale(report)
    line = {"width": width, "color": colour("chips" if role == "band" else role)}
    return {
        "x": [factor * point.costs(report.against) for point in points],
        "y": [_height(point) for point in points],
        "name": name, "mode": "markers",
        "marker": {"symbol": symbol, "size": size, "color": line["color"], "line": line},
        "text": [_hover(report, point) for point in points],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip


def _errors(points: Sequence[ExploredPoint]) -> dict[str, Any]:
    """Give intervals as plotly's error bars; an end that is missing is not drawn."""
    kpps = [point.kpp for point in points if point.kpp is not None]
    return {
        "type": "data", "symmetric": False, "color": colour("worst"), "thickness": 1.5, "width": 4,
        "array": [0.0 if each.high is None else each.high - each.value for each in kpps],
        "arrayminus": [0.0 if each.low is None else each.value - each.low for each in kpps],
    }  # fmt: skip


def _hover(report: ExploreReport, point: ExploredPoint) -> str:
    """Explain a point where a reader looks at it."""
    unit = report.metric_info.unit
    lines = [f"<b>{axis_} {label(value)}</b>" for axis_, value in point.varied.items()]
    name = kpp_name(report.percentile)
    if point.kpp is not None:
        ends = interval_text(point.kpp.low, point.kpp.high, unit)
        lines.append(f"{name} {value_text(point.kpp.value, unit)} {ends}")
    elif point.at_most is not None:
        lines.append(f"{name} about {limit_text(round(point.at_most, 4), unit)} at best: thrown out after "
                     f"{point.chips} chips")  # fmt: skip
    lines.append(", ".join(f"{COSTS[cost][1]} {cost_text(point, cost)}" for cost in COSTS))
    if point.cost is not None and point.cost.energy_by_component:
        parts = sorted(point.cost.energy_by_component.items(), key=lambda part: -part[1])[:3]
        total = sum(point.cost.energy_by_component.values()) or 1.0
        lines.append("energy: " + ", ".join(f"{what} {100 * part / total:.0f} %" for what, part in parts))
    if point.tied_with is not None:
        lines.append(f"not surely better than {label(report.point(point.tied_with).label)}")
    return "<br>".join(lines)

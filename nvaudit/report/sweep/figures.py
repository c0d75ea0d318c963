"""The picture of a sweep: KPP with its interval over one axis, a line for each value of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvaudit.report.plots.figures import plotly_graphs
from nvaudit.report.plots.theme import axis, colour, label, layout, percent_axis
from nvaudit.report.sweep.result import SweepAxis, SweepReport, settings_text, value_words
from nvaudit.report.wording import interval_text, kpp_name, value_text

_ROLES = ("chips", "worst", "second", "pass", "undecided", "fail", "ideal")
_DASHES = ("solid", "dash", "dot")
_SYMBOLS = ("circle", "diamond", "square", "x")
_LINES_PX, _HEIGHT_PX = 10, 460
_MOST_TICKS = 10


def axis_along(axes: Sequence[SweepAxis]) -> SweepAxis:
    """Choose the axis that lines run along: one of a quantity, with the most values."""
    return max(axes, key=lambda one: (one.numeric, one.name == "time_s", len(one.values)))


def sweep_lines(report: SweepReport) -> Any:
    """Draw the KPP of every audit that was run."""
    go, along = plotly_graphs(), axis_along(report.axes)
    figure, lines = go.Figure(), _lines(report, along)
    info = report.ran[0][1].metric_info
    for number, (name, points) in enumerate(lines.items()):
        role = colour(_ROLES[number % len(_ROLES)])
        kpps = [kpp for _, _, kpp in points]
        figure.add_scatter(
            x=[x for x, _, _ in points], y=[kpp.value for kpp in kpps], name=label(name) or "KPP",
            mode="lines+markers",
            line={"color": role, "width": 2, "dash": _DASHES[number // len(_ROLES) % len(_DASHES)]},
            marker={"color": role, "size": 8, "symbol": _SYMBOLS[number % len(_SYMBOLS)]},
            error_y={
                "type": "data", "symmetric": False, "color": role, "thickness": 1.4, "width": 4,
                "array": [0.0 if kpp.high is None else kpp.high - kpp.value for kpp in kpps],
                "arrayminus": [0.0 if kpp.low is None else kpp.value - kpp.low for kpp in kpps],
            },
            text=[
                f"{label(text)}<br>{value_text(kpp.value, info.unit)} "
                f"{interval_text(kpp.low, kpp.high, info.unit)}"
                for _, text, kpp in points
            ],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    title = f"{kpp_name(report.ran[0][1].kpp[0].percentile)} {report.metric}"
    figure.update_layout(
        **layout(
            height=_HEIGHT_PX + _LINES_PX * len(lines),
            xaxis=axis(along.words, **_ticks(along)),
            yaxis=axis(title, nticks=8, **percent_axis(info.unit)),
            showlegend=len(lines) > 1,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 40, "b": 8},
        )
    )
    return figure


def _ticks(along: SweepAxis) -> dict[str, Any]:
    """Ticks at the values; where these are no quantities, at equal distances in the order given."""
    if along.numeric:
        few = len(along.values) <= _MOST_TICKS
        return {"tickvals": list(along.values)} if few else {"nticks": 8}
    return {
        "tickvals": list(range(len(along.values))),
        "ticktext": [label(value_words(along.name, value), 18) for value in along.values],
        "range": [-0.3, len(along.values) - 0.7],
    }


def _lines(report: SweepReport, along: SweepAxis) -> dict[str, list[tuple[float, str, Any]]]:
    """Points of each line by its name: place, name of the audit, KPP; in ascending order."""
    lines: dict[str, list[tuple[float, str, Any]]] = {}
    for audit, found in report.ran:
        rest = {name: value for name, value in audit.settings.items() if name != along.name}
        value = audit.settings[along.name]
        x = float(value) if along.numeric and value is not None else float(along.values.index(value))
        lines.setdefault(settings_text(rest), []).append((x, audit.text, found.kpp[0]))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in lines.items()}

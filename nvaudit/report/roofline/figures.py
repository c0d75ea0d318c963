"""The metric against the number of levels per cell: what limits (S Fig. 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvaudit.report.plots.figures import plotly_graphs
from nvaudit.report.plots.theme import axis, colour, layout, percent_axis
from nvaudit.report.roofline.result import ChipsPoint, RooflineReport, measure_name


def roofline_figure(report: RooflineReport) -> Any:
    """Draw ceilings, and what the chips reach with the bands of their intervals, over the levels."""
    go = plotly_graphs()
    unit, levels = report.metric_info.unit, report.levels
    x = [level.levels for level in levels]
    figure = go.Figure()
    name = measure_name(report)
    noisy = [("device variation", "chips", "band", [level.device for level in levels])]
    both = [level.both for level in levels if level.both is not None]
    if both:
        noisy.append(("device variation and ADC", "worst", "worst-band", both))
    for title, _, band, points in noisy:
        figure.add_scatter(**_band(x, points, report, title, band))
    ceilings = [("quantised", "ideal", "dot", [level.quantised for level in levels])]
    adc = [level.adc for level in levels if level.adc is not None]
    if adc:
        ceilings.append(("ADC", "second", "dash", adc))
    for title, role, dash, values in ceilings:
        figure.add_scatter(**_line(x, values, title, role, dash, unit))
    for title, role, _, points in noisy:
        values = [point.at(report.rank_by).value for point in points]
        figure.add_scatter(**_line(x, values, f"{title}: {name}", role, "solid", unit))
        other = "mean" if report.rank_by == "kpp" else "KPP"
        rest = [point.mean if report.rank_by == "kpp" else point.kpp.value for point in points]
        figure.add_scatter(**_line(x, rest, f"{title}: {other}", role, "dot", unit))
    figure.update_layout(
        **layout(
            height=460,
            xaxis=axis("levels per cell", type="log", tickvals=x, ticktext=[str(value) for value in x]),
            yaxis=axis(report.metric, nticks=7, **percent_axis(unit)),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 64, "b": 8},
        )
    )
    return figure


def _line(
    x: Sequence[int], values: Sequence[float], title: str, role: str, dash: str, unit: str
) -> dict[str, Any]:
    shown = ":.4~%" if unit == "fraction" else ":.5~g"
    return {
        "x": list(x), "y": list(values), "name": title, "mode": "lines+markers",
        "line": {"color": colour(role), "width": 2.5, "dash": dash},
        "marker": {"color": colour(role), "size": 8},
        "hovertemplate": f"%{{x}} levels: {title} %{{y{shown}}}<extra></extra>",
    }  # fmt: skip


def _band(
    x: Sequence[int], points: Sequence[ChipsPoint], report: RooflineReport, title: str, band: str
) -> dict[str, Any]:
    """Draw an interval as an area; an end that is missing lies at the value."""
    ranges = [point.at(report.rank_by) for point in points]
    upper = [interval.value if interval.high is None else interval.high for interval in ranges]
    lower = [interval.value if interval.low is None else interval.low for interval in ranges]
    return {
        "x": [*x, *reversed(x)], "y": [*upper, *reversed(lower)], "name": f"{title}: interval",
        "mode": "lines", "fill": "toself", "fillcolor": colour(band), "opacity": 0.7,
        "line": {"width": 0, "color": colour(band)}, "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip

"""The metric against the spread of the devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvaudit.report.plots.figures import plotly_graphs
from nvaudit.report.plots.theme import axis, colour, layout, percent_axis
from nvaudit.report.sections import SweepPoint
from nvaudit.report.wording import kpp_name, limit_text

_ROLES = ("worst", "second", "undecided", "fail")


def sweep_figure(
    points: Sequence[SweepPoint],
    thresholds: Sequence[float],
    quantised: float,
    name: str,
    unit: str,
    wanted_by: str = "--html",
) -> Any:
    """Draw mean and KPP with its interval over σ.

    Parameters
    ----------
    points : sequence of SweepPoint
    thresholds : sequence of float
        Drawn as horizontal lines.
    quantised : float
        The metric without noise, drawn as a horizontal line.
    name : str
        Of the metric.
    unit : str
    wanted_by : str
        The option that asks for a figure, for the message if plotly is missing.

    Returns
    -------
    plotly.graph_objects.Figure

    Raises
    ------
    OptionError
        If plotly is not installed.
    """
    go = plotly_graphs(wanted_by)
    points = sorted(points, key=lambda point: point.sigma)
    sigmas = [point.sigma for point in points]
    shown = ":.4~%" if unit == "fraction" else ":.5~g"
    figure = go.Figure()
    traces: list[tuple[str, str, list[float], tuple[list[float], list[float]] | None]]
    traces = [("mean", "chips", [point.trials.mean for point in points], None)]
    for index, first in enumerate(points[0].kpp[: len(_ROLES)]):
        results = [point.kpp[index] for point in points]
        values = [result.value for result in results]
        up = [0.0 if r.high is None else r.high - r.value for r in results]
        down = [0.0 if r.low is None else r.value - r.low for r in results]
        traces.append((kpp_name(first.percentile), _ROLES[index], values, (up, down)))
    for title, role, values, error in traces:
        bars = None if error is None else {
            "type": "data", "symmetric": False, "array": error[0], "arrayminus": error[1],
            "color": colour(role), "thickness": 1.8, "width": 5,
        }  # fmt: skip
        figure.add_scatter(
            x=sigmas, y=values, name=title, mode="lines+markers", error_y=bars,
            line={"color": colour(role), "width": 2.5, "dash": "solid" if error else "dot"},
            marker={"color": colour(role), "size": 8, "symbol": "circle" if error is None else "diamond"},
            hovertemplate=f"σ %{{x:~g}}: {title} %{{y{shown}}}<extra></extra>",
        )  # fmt: skip
    lines = [(quantised, "without noise", "ideal", "dot")]
    lines += [(value, f"threshold {limit_text(value, unit)}", "fail", "dash") for value in thresholds]
    figure.update_layout(
        **layout(
            xaxis=axis(f"σ, {points[0].sigma_unit.replace('_', ' ')}", nticks=8),
            yaxis=axis(name, nticks=7, **percent_axis(unit)),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            shapes=[_line(*line) for line in lines],
            annotations=[_name(*line) for line in lines],
            margin={"l": 8, "r": 12, "t": 40, "b": 8},
        )
    )
    return figure


def _line(value: float, _: str, role: str, dash: str) -> dict[str, Any]:
    return {
        "type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": value, "y1": value,
        "line": {"color": colour(role), "width": 1.5, "dash": dash}, "layer": "below",
    }  # fmt: skip


def _name(value: float, text: str, role: str, _: str) -> dict[str, Any]:
    return {
        "x": 1, "xref": "paper", "xanchor": "right", "y": value, "yanchor": "bottom", "text": text,
        "showarrow": False, "font": {"color": colour(role), "size": 12},
    }  # fmt: skip

"""The metric against the share of the weights that are write-verified."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from nvaudit.report.plots import axis, colour, layout, percent_axis, plotly_graphs
from nvaudit.report.wording import kpp_name, limit_text
from nvaudit.report.write_verify.result import VerifyReport, share_words

_GAP = 0.15
"""Least distance of two ticks, as a part of the axis, so that their names do not touch on a phone."""


def verify_figure(report: VerifyReport) -> Any:
    """Draw KPP with its interval and mean over the share, the target and the plan.

    Shares lie at their square roots: most are small, and none, which a logarithm has no place for, is one.
    """
    go = plotly_graphs()
    figure = go.Figure()
    for trace in (_band(report), *_levels(report), *_lines(report), *_plan(report)):
        figure.add_scatter(**trace)
    ticks = share_ticks(report.curve[-1].share)
    figure.update_layout(
        **layout(
            height=460,
            xaxis=axis(
                "share verified",
                tickvals=[math.sqrt(share) for share in ticks],
                ticktext=[share_words(share) for share in ticks],
            ),
            yaxis=axis(report.metric, nticks=7, **percent_axis(report.metric_info.unit)),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            shapes=_plan_line(report),
            margin={"l": 8, "r": 12, "t": 64, "b": 8},
        )
    )
    return figure


def share_ticks(largest: float) -> list[float]:
    """Shares that the axis names: none, the largest, and round ones between that lie far enough apart.

    Parameters
    ----------
    largest : float
        The end of the axis, 0 to 1.

    Returns
    -------
    list of float
        Ascending.

    Examples
    --------
    >>> share_ticks(1.0)
    [0.0, 0.05, 0.2, 0.5, 1.0]
    """
    if largest == 0:
        return [0.0]
    ticks, end = [largest], math.sqrt(largest)
    for power in range(0, -9, -1):
        for step in (5, 2, 1):
            share = step * 10.0**power
            place = math.sqrt(share)
            if share < largest and min(math.sqrt(ticks[-1]) - place, place) >= _GAP * end:
                ticks.append(round(share, 9))
    return [0.0, *reversed(ticks)]


def _places(report: VerifyReport) -> list[float]:
    """Where the shares lie on the axis."""
    return [math.sqrt(point.share) for point in report.curve]


def _band(report: VerifyReport) -> dict[str, Any]:
    """Draw the interval of the KPP as an area; an end that is missing lies at the value."""
    x, kpps = _places(report), [point.kpp for point in report.curve]
    upper = [one.value if one.high is None else one.high for one in kpps]
    lower = [one.value if one.low is None else one.low for one in kpps]
    return {
        "x": [*x, *reversed(x)], "y": [*upper, *reversed(lower)], "name": "interval",
        "mode": "lines", "fill": "toself", "fillcolor": colour("worst-band"), "opacity": 0.7,
        "line": {"width": 0, "color": colour("worst-band")}, "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip


def _levels(report: VerifyReport) -> Iterator[dict[str, Any]]:
    """Draw what does not depend on the share; as curves, since axes reach for these and not for shapes."""
    levels = [("without noise", report.quantised, "ideal", "dot")]
    if report.target is not None:
        name = f"target {limit_text(report.target, report.metric_info.unit)}"
        levels.append((name, report.target, "fail", "dash"))
    for name, value, role, dash in levels:
        yield {
            "x": [0.0, _places(report)[-1]], "y": [value, value], "name": name, "mode": "lines",
            "line": {"color": colour(role), "width": 1.8, "dash": dash}, "hoverinfo": "skip",
        }  # fmt: skip


def _lines(report: VerifyReport) -> Iterator[dict[str, Any]]:
    """Draw mean and KPP."""
    curve = report.curve
    name = kpp_name(curve[0].kpp.percentile)
    shown = ":.4~%" if report.metric_info.unit == "fraction" else ":.5~g"
    for title, values, role, symbol, dash in (
        ("mean", [point.mean for point in curve], "chips", "circle", "dot"),
        (name, [point.kpp.value for point in curve], "worst", "diamond", "solid"),
    ):
        yield {
            "x": _places(report), "y": values, "name": title, "mode": "lines+markers",
            "text": [share_words(point.share) for point in curve],
            "line": {"color": colour(role), "width": 2.5, "dash": dash},
            "marker": {"color": colour(role), "size": 8, "symbol": symbol},
            "hovertemplate": f"%{{text}} verified: {title} %{{y{shown}}}<extra></extra>",
        }  # fmt: skip


def _plan(report: VerifyReport) -> Iterator[dict[str, Any]]:
    """Draw a ring around the KPP of the plan, if there is one."""
    if report.choice is not None:
        yield {
            "x": [math.sqrt(report.choice.share)], "y": [report.choice.kpp], "mode": "markers",
            "name": f"plan: {share_words(report.choice.share)}", "hoverinfo": "skip",
            "marker": {"color": colour("pass"), "size": 18, "symbol": "circle-open", "line": {"width": 3}},
        }  # fmt: skip


def _plan_line(report: VerifyReport) -> list[dict[str, Any]]:
    """Mark the share of the plan over the whole height."""
    if report.choice is None:
        return []
    x = math.sqrt(report.choice.share)
    return [
        {
            "type": "line", "x0": x, "x1": x, "xref": "x", "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": colour("pass"), "width": 1.8, "dash": "dash"}, "layer": "below",
        }
    ]  # fmt: skip

"""Where the metric goes: from ideal to the worst chips, and by tensor, noise term and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nvaudit.report.plots import axis, colour, label, layout, percent_axis, plotly_graphs

MAX_BARS = 24
"""A chart of parts shows at most this many; the table beside it has more."""


@dataclass(frozen=True)
class WaterfallBar:
    """A bar of the waterfall: the level that a step of the mapping leads to."""

    name: str
    value: float
    text: str


@dataclass(frozen=True)
class RankingBar:
    """A bar of a ranking, with its interval if there is one."""

    name: str
    value: float
    low: float | None
    high: float | None


def waterfall_figure(steps: Sequence[WaterfallBar], name: str, unit: str, better: bool) -> Any:
    """Draw how the metric falls from one step to the next.

    Parameters
    ----------
    steps : sequence of WaterfallBar
        The first stands on the axis, each further one hangs from the one before.
    name : str
        Of the metric.
    better : bool
        Whether a higher metric is better.
    """
    go = plotly_graphs()
    values = [step.value for step in steps]
    changes = [values[0], *(after - before for before, after in pairwise(values))]
    worse, good = ("decreasing", "increasing") if better else ("increasing", "decreasing")
    names = [step.name.replace(", ", ",<br>") for step in steps]
    spread = (max(values) - min(values)) or abs(values[0]) or 1.0
    bar = go.Waterfall(
        x=names, y=changes, measure=["absolute", *["relative"] * (len(steps) - 1)],
        text=[step.text for step in steps], textposition="outside", constraintext="none", cliponaxis=False,
        textfont={"size": 12}, width=0.62,
        totals={"marker": {"color": colour("ideal")}},
        connector={"line": {"color": colour("muted"), "width": 1, "dash": "dot"}},
        hoverinfo="text",
        **{worse: {"marker": {"color": colour("worst")}}, good: {"marker": {"color": colour("chips")}}},
    )  # fmt: skip
    figure = go.Figure([bar])
    # From zero where that still shows the steps; else from a little below them, which the caption says.
    base = waterfall_base(values)
    figure.update_layout(
        **layout(
            xaxis=axis("", tickangle=0, showgrid=False, ticks="", tickfont={"size": 12}),
            yaxis=axis(name, range=[base, max(values) + 0.15 * spread], nticks=6, **percent_axis(unit)),
            margin={"l": 8, "r": 12, "t": 24, "b": 8},
        )
    )
    return figure


def waterfall_base(values: Sequence[float]) -> float:
    """Where the axis of a waterfall begins: at zero unless its steps would then be too small to see.

    Examples
    --------
    >>> waterfall_base([0.9, 0.5]), round(waterfall_base([0.98, 0.97]), 3)
    (0.0, 0.966)
    """
    low, high = min(values), max(values)
    return 0.0 if low < 0 or high - low > 0.25 * high else max(0.0, low - 0.4 * (high - low))


def parts_figure(parts: Sequence[RankingBar], title: str, scale: float) -> Any:
    """Draw a ranking as horizontal bars with intervals.

    Parameters
    ----------
    parts : sequence of RankingBar
        The first is drawn at the top; at most ``MAX_BARS`` are.
    title : str
        Of the x-axis, with the unit.
    scale : float
        Factor to that unit.
    """
    go = plotly_graphs()
    shown = list(parts[:MAX_BARS])
    values = [scale * part.value for part in shown]
    up = [0.0 if p.high is None else scale * (p.high - p.value) for p in shown]
    down = [0.0 if p.low is None else scale * (p.value - p.low) for p in shown]
    places = list(range(len(shown)))
    bar = go.Bar(
        x=values, y=places, orientation="h", marker={"color": colour("chips")},
        error_x={"type": "data", "symmetric": False, "array": up, "arrayminus": down,
                 "color": colour("ink"), "thickness": 1.5, "width": 4},
        hovertemplate="%{x:.3~f}<extra></extra>",
    )  # fmt: skip
    figure = go.Figure([bar])
    figure.update_layout(
        **layout(
            xaxis=axis(title, zeroline=True, zerolinecolor=colour("muted"), nticks=6),
            yaxis=axis(
                "", tickmode="array", tickvals=places, ticktext=[label(part.name, 28) for part in shown],
                autorange="reversed", showgrid=False, ticks="",
            ),
            bargap=0.35,
            height=70 + 30 * len(shown),
        )
    )  # fmt: skip
    return figure


def classes_figure(
    labels: Sequence[str], quantised: Sequence[float], worst: Sequence[float], kpp: str, name: str, unit: str,
) -> Any:  # fmt: skip
    """Draw each class: without noise, and its KPP.

    Parameters
    ----------
    kpp : str
        Name of the percentile.
    name : str
        Of the metric.
    """
    go = plotly_graphs()
    shown = slice(0, MAX_BARS)
    places = list(range(len(labels[shown])))
    form = ":.4~%" if unit == "fraction" else ":.5~g"
    figure = go.Figure()
    for place, first, second in zip(places, quantised, worst, strict=False):
        figure.add_scatter(
            x=[first, second], y=[place, place], mode="lines", showlegend=False, hoverinfo="skip",
            line={"color": colour("line"), "width": 3},
        )  # fmt: skip
    for title, values, role, symbol in (
        ("quantised", quantised[shown], "ideal", "circle"),
        (kpp, worst[shown], "worst", "diamond"),
    ):
        figure.add_scatter(
            x=values, y=places, name=title, mode="markers",
            marker={"color": colour(role), "size": 10, "symbol": symbol},
            hovertemplate=f"{title} %{{x{form}}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        **layout(
            xaxis=axis(name, nticks=6, **percent_axis(unit)),
            yaxis=axis(
                "class", tickmode="array", tickvals=places, ticktext=list(labels[shown]),
                autorange="reversed", ticks="",
            ),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            margin={"l": 8, "r": 12, "t": 36, "b": 8},
            height=110 + 26 * len(places),
        )
    )  # fmt: skip
    return figure

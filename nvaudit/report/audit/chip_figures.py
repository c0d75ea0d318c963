"""Pictures of the chips: a histogram, the yield curve, and the metric over the spread of the devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.report.histogram import bin_values
from nvaudit.report.plots import axis, colour, flag, layout, percent_axis, plotly_graphs
from nvaudit.report.sections import SweepPoint
from nvaudit.report.wording import kpp_name, limit_text
from nvaudit.stats.binomial import clopper_pearson

MAX_STEPS = 400
"""A yield curve with more steps is drawn through fewer points; none is off by more than 1 / 400."""

_BINS = 56
_STRIP = 0.05
_SWEPT = ("worst", "second", "undecided", "fail")


@dataclass(frozen=True)
class Mark:
    """A value to point at.

    Attributes
    ----------
    role : str
        Of the palette.
    low, high : float or None
        Ends of its interval.
    """

    value: float
    text: str
    role: str
    low: float | None = None
    high: float | None = None
    dash: str = "solid"


@dataclass(frozen=True)
class Known:
    """The chips that are known exactly, ascending.

    Attributes
    ----------
    values : ndarray, float64, shape (chip,)
    weights : ndarray, float64, shape (chip,)
        How many chips each stands for.
    """

    values: Floats
    weights: Floats

    @classmethod
    def of(cls, values: Sequence[float | None], weights: Sequence[float] | None) -> Known:
        """Leave out the chips that were stopped early; they are in the others' weights."""
        every = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        shares = np.ones(len(every)) if weights is None else np.asarray(weights, dtype=np.float64)
        order = np.argsort(every, kind="stable")[: int(np.isfinite(every).sum())]
        return cls(every[order], shares[order])


@dataclass(frozen=True)
class Curve:
    """A yield curve: the share of the chips that reach each requirement."""

    required: Floats
    share: Floats
    low: Floats | None = None
    high: Floats | None = None


def histogram_figure(chips: Known, marks: Sequence[Mark], name: str, unit: str, step: float) -> Any:
    """Draw how many chips have which metric.

    Parameters
    ----------
    name : str
        Of the metric.
    step : float
        Resolution of the metric, 0 if it has none.
    """
    go = plotly_graphs()
    centres, width, counts = _bins(chips, step)
    bars = go.Bar(
        x=centres, y=counts, width=width, marker={"color": colour("chips"), "line": {"width": 0}},
        hovertemplate=f"%{{x{':.4~%' if unit == 'fraction' else ':.5~g'}}}: %{{y:.4~g}} chips<extra></extra>",
    )  # fmt: skip
    reach = [float(centres[0] - width / 2), float(centres[-1] + width / 2)]
    figure = go.Figure([bars])
    figure.update_layout(
        **_marked(marks, reach, unit, name),
        bargap=0,
        yaxis=axis("chips", rangemode="tozero", tickformat="~g"),
    )
    return figure


def yield_figure(curve: Curve, marks: Sequence[Mark], name: str, unit: str, better: bool) -> Any:
    """Draw the share of the chips that reach a requirement, against the requirement.

    Parameters
    ----------
    marks, name, unit
        As in :func:`histogram_figure`.
    better : bool
        Whether a higher metric is better.
    """
    go = plotly_graphs()
    figure = go.Figure()
    if curve.low is not None and curve.high is not None:
        figure.add_scatter(
            x=np.concatenate([curve.required, curve.required[::-1]]),
            y=np.concatenate([curve.high, curve.low[::-1]]),
            mode="lines", line={"width": 0, "shape": "linear"}, fill="toself", fillcolor=colour("band"),
            hoverinfo="skip",
        )  # fmt: skip
    shown = ":.4~%" if unit == "fraction" else ":.5~g"
    reach = "at least" if better else "at most"
    figure.add_scatter(
        x=curve.required, y=curve.share, mode="lines",
        # A chip on the requirement reaches it: the step comes just behind it.
        line={"color": colour("chips"), "width": 2.5, "shape": "vh" if better else "hv"},
        hovertemplate=f"{reach} %{{x{shown}}}: %{{y:.4~%}} of the chips<extra></extra>",
    )  # fmt: skip
    ends = [float(curve.required.min()), float(curve.required.max())]
    figure.update_layout(
        **_marked(marks, ends, unit, f"required {name}"),
        yaxis=axis("share of the chips", range=[-0.02, 1.02], tickformat=".0%"),
    )
    return figure


def yield_curve(chips: Known, better: bool, confidence: float | None) -> Curve:
    """Work out the share of the chips that reach each requirement: 1 − F just below it.

    Parameters
    ----------
    better : bool
        Whether a higher metric is better.
    confidence : float or None
        Of a pointwise Clopper-Pearson band; None for no band. Only for chips of weight 1.

    Returns
    -------
    Curve
        One point for each value that occurs, ascending.
    """
    values, first = np.unique(chips.values, return_index=True)
    # Weight of all chips before the i-th, the values ascending. Equal values are one step of the curve,
    # from the first of them to behind the last.
    below = np.concatenate([[0.0], np.cumsum(chips.weights)])
    total = below[-1]
    last = np.concatenate([first[1:], [len(chips.values)]])
    reaching = total - below[first] if better else below[last]
    keep = _few(reaching, total)
    values, reaching = values[keep], reaching[keep]
    share = reaching / total
    if confidence is None:
        return Curve(values, share)
    bounds = [clopper_pearson(int(count), int(total), confidence) for count in reaching]
    low, high = np.array(bounds).T
    return Curve(values, share, low, high)


def _few(reaching: Floats, total: float) -> NDArray[np.intp]:
    """Choose points so that the curve moves by little between two of them."""
    if len(reaching) <= MAX_STEPS:
        return np.arange(len(reaching))
    # One point for each 400th of the chips, and both ends.
    _, first = np.unique(np.floor(reaching / total * MAX_STEPS), return_index=True)
    return np.unique(np.concatenate([first, [0, len(reaching) - 1]]))


def _bins(chips: Known, step: float) -> tuple[Floats, float, Floats]:
    """Centres, common width and counts of the bars."""
    low, high = float(chips.values[0]), float(chips.values[-1])
    if low == high:
        width = step or max(abs(low), 1.0) / 100
        return np.array([low]), width, np.array([chips.weights.sum()])
    bins = bin_values(chips.values, _BINS, step, weights=chips.weights)
    centres = np.asarray(bins.start + bins.width * (np.arange(len(bins.counts)) + 0.5), dtype=np.float64)
    return centres, bins.width, bins.counts


def _marked(marks: Sequence[Mark], reach: list[float], unit: str, title: str) -> dict[str, Any]:
    """Layout with an x-axis that reaches all marks nearby, and the marks."""
    near = reach[1] - reach[0]
    # A mark far away must not squeeze the chips into one bar.
    shown = [mark for mark in marks if reach[0] - 1.5 * near <= mark.value <= reach[1] + 1.5 * near]
    ends = [v for m in shown for v in (m.value, m.low, m.high) if v is not None] + reach
    low, high = min(ends), max(ends)
    pad = 0.03 * ((high - low) or abs(high) or 1.0)
    shapes, notes = [], []
    for mark in shown:
        shapes += _interval(mark, low - pad, high + pad)
    for row, mark in enumerate(shown):
        left = mark.value > (low + high) / 2
        parts = flag(mark.value, mark.text, row, mark.role, left=left, dash=mark.dash)
        shapes.append(parts["shape"])
        notes.append(parts["annotation"])
    return layout(
        xaxis=axis(title, range=[low - pad, high + pad], nticks=6, showgrid=False, **percent_axis(unit)),
        shapes=shapes,
        annotations=notes,
        margin={"l": 8, "r": 12, "t": 16 + 20 * len(shown), "b": 8},
    )


def _interval(mark: Mark, low: float, high: float) -> list[dict[str, Any]]:
    """Shade an interval; a missing end is a low strip to the end of the axis."""
    if mark.low is None and mark.high is None:
        return []
    ends = [mark.value if mark.low is None else mark.low, mark.value if mark.high is None else mark.high]
    bands = [(*ends, 1.0)]
    if mark.low is None:
        bands.append((low, mark.value, _STRIP))
    if mark.high is None:
        bands.append((mark.value, high, _STRIP))
    return [
        {
            "type": "rect", "x0": left, "x1": right, "y0": 0, "y1": top, "xref": "x", "yref": "paper",
            "fillcolor": colour("worst-band"), "line": {"width": 0}, "layer": "below",
        }
        for left, right, top in bands
    ]  # fmt: skip


def sweep_figure(
    points: Sequence[SweepPoint],
    thresholds: Sequence[float],
    quantised: float,
    name: str,
    unit: str,
) -> Any:
    """Draw mean and KPP with its interval over σ.

    Parameters
    ----------
    thresholds : sequence of float
        Drawn as horizontal lines.
    quantised : float
        The metric without noise, drawn as a horizontal line.
    name : str
        Of the metric.
    """
    go = plotly_graphs()
    points = sorted(points, key=lambda point: point.sigma)
    sigmas = [point.sigma for point in points]
    shown = ":.4~%" if unit == "fraction" else ":.5~g"
    figure = go.Figure()
    traces: list[tuple[str, str, list[float], tuple[list[float], list[float]] | None]]
    traces = [("mean", "chips", [point.trials.mean for point in points], None)]
    for index, first in enumerate(points[0].kpp[: len(_SWEPT)]):
        results = [point.kpp[index] for point in points]
        values = [result.value for result in results]
        up = [0.0 if r.high is None else r.high - r.value for r in results]
        down = [0.0 if r.low is None else r.value - r.low for r in results]
        traces.append((kpp_name(first.percentile), _SWEPT[index], values, (up, down)))
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
            shapes=[_level_line(*line) for line in lines],
            annotations=[_level_name(*line) for line in lines],
            margin={"l": 8, "r": 12, "t": 40, "b": 8},
        )
    )
    return figure


def _level_line(value: float, _: str, role: str, dash: str) -> dict[str, Any]:
    return {
        "type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": value, "y1": value,
        "line": {"color": colour(role), "width": 1.5, "dash": dash}, "layer": "below",
    }  # fmt: skip


def _level_name(value: float, text: str, role: str, _: str) -> dict[str, Any]:
    return {
        "x": 1, "xref": "paper", "xanchor": "right", "y": value, "yanchor": "bottom", "text": text,
        "showarrow": False, "font": {"color": colour(role), "size": 12},
    }  # fmt: skip

"""What an audit says of chips beyond the sample: extrapolated, or estimated by splitting."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.report.audit.chip_figures import Known
from nvaudit.report.document import Block, Figure, KeyFigure, Number, Paragraph, Section, Table
from nvaudit.report.plots import axis, colour, layout, percent_axis, plotly_graphs
from nvaudit.report.rare import RareTail
from nvaudit.report.result import AuditReport
from nvaudit.report.tails import TailResult
from nvaudit.report.wording import (
    confidence_text,
    count_text,
    interval_text,
    kpp_name,
    odds,
    value_text,
)


def beyond_section(report: AuditReport) -> Section | None:
    """Percentiles beyond the sample."""
    unit = report.metric_info.unit
    lines = [line for tail in report.tail for line in tail_lines(tail, unit)]
    blocks: list[Block] = [Paragraph(f"{line.removesuffix('.')}.") for line in lines]
    if report.rare:
        blocks += _rare_blocks(report)
    return Section("tail", "Beyond the sample", tuple(blocks)) if blocks else None


def rare_numbers(report: AuditReport) -> Iterator[KeyFigure]:
    """Rare chips among the headline's figures."""
    for one in report.rare:
        name = f"{odds(one.probability)}, by splitting"
        if one.value is None:
            yield KeyFigure(name, "no estimate", one.note)
            continue
        ends = interval_text(one.low, one.high, report.metric_info.unit)
        note = f"{ends}, {confidence_text(one.confidence)} confidence, asymptotic"
        yield KeyFigure(name, value_text(one.value, report.metric_info.unit), note)


def tail_lines(result: TailResult, unit: str) -> list[str]:
    """Say an extrapolated percentile with what it rests on, or why there is none."""
    name = f"{kpp_name(result.percentile)} ({odds(result.percentile / 100)})"
    if result.refusal is not None:
        return [f"{name}: no estimate: {result.refusal.reason}; {result.refusal.advice}"]
    if result.value is None or result.goodness is None:  # an estimate has both
        return []
    return [
        f"{name}, extrapolated: {value_text(result.value, unit)} "
        f"{interval_text(result.low, result.high, unit)}, {confidence_text(result.confidence)} confidence: "
        f"generalised Pareto law fitted to the worst {result.tail_chips} of "
        f"{count_text(result.trials, 'chip')} (goodness p = {result.goodness:.2f})",
        f"It holds if rarer chips follow the law of these: a fault that strikes less than about 1 chip in "
        f"{result.trials // 3:,} may have left no trace in this run.",
    ]


def _rare_blocks(report: AuditReport) -> Iterator[Block]:
    unit, first = report.metric_info.unit, report.rare[0]
    tail = report.rare_tail
    how = f"{count_text(first.runs, 'independent run')} of splitting, {first.evaluations:,} chips evaluated"
    if tail is not None:
        how += (
            f": {count_text(tail.levels, 'level')}, {tail.states:,} chips of each run at each, "
            f"{tail.acceptance:.0%} of the moves accepted"
        )
    yield Paragraph(f"{how}.")
    rows = tuple(
        (
            Number(one.probability, odds(one.probability)),
            "no estimate" if one.value is None else Number(one.value, value_text(one.value, unit)),
            "" if one.value is None else interval_text(one.low, one.high, unit),
            one.note,
        )
        for one in report.rare
    )
    caption = (
        f"The {report.metric} that so few chips do not reach; intervals "
        f"{confidence_text(first.confidence)}, from the spread of the runs."
    )
    yield Table("rare", caption, ("how rare", report.metric, "interval", "checked"), rows, numeric=(0, 1))
    if tail is not None and tail.points and any(one.value is not None for one in report.rare):
        yield _tail_figure(report, tail)


def _tail_figure(report: AuditReport, tail: RareTail) -> Figure:
    unit, last = report.metric_info.unit, tail.points[-1]
    words = (
        f"From 1 chip in 10 to {odds(last.probability)}, {report.metric} goes from "
        f"{value_text(tail.points[0].value, unit)} to {value_text(last.value, unit)}."
    )
    rows = tuple(
        (
            Number(point.probability, f"{point.probability:.2g}"),
            Number(point.value, value_text(point.value, unit)),
            interval_text(point.low, point.high, unit),
        )
        for point in tail.points
    )
    numbers = Table(
        "rare-tail",
        "Points of the tail",
        ("share of the chips", report.metric, "interval"),
        rows,
        numeric=(0, 1),
    )
    plain = Known.of(report.trials.values, report.trials.weights)
    draw = partial(
        rare_figure, tail, plain, report.tail, report.metric, unit, report.metric_info.higher_is_better
    )
    return Figure("rare", words, draw, numbers, legend="Band: the interval at each point, from the runs.")


def rare_figure(
    tail: RareTail, plain: Known, fits: tuple[TailResult, ...], name: str, unit: str, better: bool
) -> Any:
    """Draw the metric over the share of worse chips: sampled, extrapolated, by splitting."""
    go = plotly_graphs()
    figure = go.Figure()
    shown = ":.4~%" if unit == "fraction" else ":.5~g"
    share = [point.probability for point in tail.points]
    values = [point.value for point in tail.points]
    low = [point.value if point.low is None else point.low for point in tail.points]
    high = [point.value if point.high is None else point.high for point in tail.points]
    figure.add_scatter(
        x=[*share, *share[::-1]], y=[*high, *low[::-1]], mode="lines", line={"width": 0}, fill="toself",
        fillcolor=colour("band"), hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=share, y=values, mode="lines", name="splitting", line={"color": colour("worst"), "width": 2.5},
        hovertemplate=f"%{{x:.2~g}} of the chips: %{{y{shown}}}<extra>splitting</extra>",
    )  # fmt: skip
    x, y = _sampled(plain, better)
    figure.add_scatter(
        x=x, y=y, mode="markers", name="sampled", marker={"color": colour("chips"), "size": 5},
        hovertemplate=f"%{{x:.2~g}} of the chips: %{{y{shown}}}<extra>sampled</extra>",
    )  # fmt: skip
    fitted = [fit for fit in fits if fit.value is not None]
    if fitted:
        figure.add_scatter(
            x=[fit.percentile / 100 for fit in fitted], y=[fit.value for fit in fitted], mode="markers",
            name="extrapolated", marker={"color": colour("second"), "size": 9, "symbol": "diamond"},
            error_y={
                "type": "data", "symmetric": False,
                "array": [_apart(fit.high, fit.value) for fit in fitted],
                "arrayminus": [_apart(fit.low, fit.value) for fit in fitted],
            },
            hovertemplate=f"%{{x:.2~g}} of the chips: %{{y{shown}}}<extra>extrapolated</extra>",
        )  # fmt: skip
    figure.update_layout(
        **layout(
            xaxis=axis(
                "share of the chips that are worse",
                type="log",
                autorange="reversed",
                exponentformat="power",
                dtick=1,
            ),
            yaxis=axis(name, **percent_axis(unit)),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        )
    )
    return figure


def _apart(end: float | None, value: float | None) -> float:
    return 0.0 if end is None or value is None else abs(end - value)


def _sampled(plain: Known, better: bool) -> tuple[Floats, Floats]:
    """Share of the sample that is as bad, and the metric, of the worst tenth of the chips."""
    values = plain.values if better else plain.values[::-1]
    weights = plain.weights if better else plain.weights[::-1]
    share = np.cumsum(weights) / max(float(weights.sum()), 1.0)
    kept = share <= 0.1
    # One point for each value: of ties the last says how many chips are as bad.
    last = np.append(values[1:] != values[:-1], True)
    return share[kept & last], values[kept & last]

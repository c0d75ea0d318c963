"""Percentiles beyond the sample: a generalised-Pareto tail fit, its interval, and when it refuses.

Of the nested tails that fit (:mod:`nvaudit.stats.nested_tails`), the largest gives the value.
The interval holds the profile-likelihood intervals of all tails between it and a third of it, so that it is
wider where the answer depends on where the tail begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nvaudit.errors import OptionError
from nvaudit.report.wording import count_text
from nvaudit.stats.binomial import (
    check_confidence,
    check_percentile,
    interval_ranks,
    trials_for_bound,
)
from nvaudit.stats.gpd import FloatArray, quantile, quantile_interval
from nvaudit.stats.kpp import chip_values
from nvaudit.stats.nested_tails import (
    FEWEST,
    LEVEL,
    Candidate,
    Grid,
    accepted,
    make_grid,
    nested_tails,
    tail_chips,
)
from nvaudit.stats.tail_result import TailRefusal, TailResult

REACH = 10
"""A percentile may lie so many times beyond the worst chip: at least 1/10 chip is expected below it."""

_JOINED = 3
"""The interval joins tails down to such a part of the largest."""


@dataclass(frozen=True)
class _Question:
    percentile: float
    confidence: float
    trials: int


def metric_steps(values: ArrayLike, images: int) -> int | None:
    """Steps per unit of a metric: ``images`` where every value is a multiple of 1/images, else None.

    Examples
    --------
    >>> metric_steps([0.9, 0.915], 200), metric_steps([0.9, 0.9151], 200)
    (200, None)
    """
    steps = np.asarray(values, dtype=np.float64) * images
    return images if np.allclose(steps, np.rint(steps), rtol=0, atol=1e-6) else None


def known_worst(low: FloatArray, high: FloatArray, higher_is_better: bool) -> FloatArray:
    """Metric of the chips that are surely the worst, where some chips were stopped early.

    Parameters
    ----------
    low, high : ndarray, float64, shape (trial,)
        Between them lies each chip's metric; equal where it is known exactly.
    higher_is_better : bool

    Returns
    -------
    ndarray, float64, shape (chip,)
        For :func:`tail_kpp`: every chip that is not among them is surely better.

    Examples
    --------
    >>> import numpy as np
    >>> known_worst(np.array([0.2, 0.5, 0.3, 0.9]), np.array([0.2, 1.0, 0.3, 0.9]), True).tolist()
    [0.2, 0.3]
    """
    exact = low == high
    if higher_is_better:
        worst: FloatArray = low[exact & (low < low[~exact].min(initial=np.inf))]
    else:
        worst = high[exact & (high > high[~exact].max(initial=-np.inf))]
    return worst


def tail_kpp(
    worst: ArrayLike,
    trials: int,
    percentile: float,
    confidence: float,
    higher_is_better: bool,
    *,
    steps: int | None = None,
    worst_possible: float | None = None,
) -> TailResult:
    """Estimate a percentile that lies beyond the sample, or refuse.

    Parameters
    ----------
    worst : array_like, shape (chip,)
        Metric of the worst chips in any order, or of all. No other chip is worse than any of them;
        :func:`tail_chips` says how many are of use.
    trials : int
        Chips in all, ≥ ``len(worst)``.
    percentile : float
        0-100, counted from the worst chip.
    confidence : float
        Of the two-sided interval.
    higher_is_better : bool
        False for a loss.
    steps : int, optional
        The metric is a multiple of 1/steps, as an accuracy over so many images; None if continuous.
    worst_possible : float, optional
        Value that the metric cannot pass, such as 0 for an accuracy.

    Returns
    -------
    TailResult

    Raises
    ------
    DataError
        If there are no values or one is not finite.
    OptionError
        If the percentile, the confidence or the number of trials makes no sense.

    References
    ----------
    Coles, An Introduction to Statistical Modeling of Extreme Values (2001), chapter 4; choice of the
    threshold by sequential goodness tests after Bader, Yan and Zhang, Annals of Applied Statistics 12
    (2018) 310, here from the smallest tail upwards.
    """
    check_percentile(percentile)
    check_confidence(confidence)
    values = chip_values(worst)
    if trials < values.size:
        raise OptionError(f"{values.size} worst chips of {trials} trials: give the number of all chips")
    if steps is not None and metric_steps(values, steps) is None:
        raise OptionError(f"the metric is not a multiple of 1/{steps}: leave steps out")
    question = _Question(percentile, confidence, trials)
    refusal = _out_of_reach(question)
    if refusal is not None:
        return _refused(question, refusal)
    grid = make_grid(values, trials, higher_is_better, steps)
    limit = math.inf if worst_possible is None else grid.sign * (worst_possible - grid.origin) / grid.step
    tails = nested_tails(np.sort(grid.units(values))[::-1], trials, limit)
    usable = accepted(tails)
    if not usable or usable[-1].tail.size < 2 * FEWEST:
        return _refused(question, _unusable(question, tails, values.size))
    return _estimate(question, usable, grid, limit)


def _refused(question: _Question, refusal: TailRefusal) -> TailResult:
    return TailResult(
        percentile=question.percentile,
        confidence=question.confidence,
        trials=question.trials,
        refusal=refusal,
    )


def _out_of_reach(question: _Question) -> TailRefusal | None:
    percentile, trials = question.percentile, question.trials
    if interval_ranks(float(percentile), trials, float(question.confidence))[0] is not None:
        return TailRefusal(
            code="inside",
            reason=f"{trials:,} chips bound this percentile without assuming any law",
            advice=f"ask for it with --percentile {percentile:.10g}",
        )
    least = math.ceil(1 / (REACH * check_percentile(percentile)))
    if trials < least:
        return TailRefusal(
            code="too_far",
            reason=f"it lies more than {REACH} times beyond {count_text(trials, 'chip')}",
            advice=f"use at least {least:,} trials",
        )
    return None


def _unusable(question: _Question, tails: Sequence[Candidate], known: int) -> TailRefusal:
    trials = question.trials
    if tail_chips(trials) <= 2 * FEWEST:
        return TailRefusal(
            code="few_chips",
            reason=f"{count_text(trials, 'chip')} have too short a tail to fit",
            advice=f"use at least {8 * FEWEST:,} trials",
        )
    if known <= 2 * FEWEST:
        return TailRefusal(
            code="few_chips",
            reason=f"only the {known:,} worst chips are known exactly, and the fit needs {2 * FEWEST + 1}",
            advice="evaluate every chip on every image (--exhaustive)",
        )
    surely = trials_for_bound(question.percentile, question.confidence, sided=2)
    rejected = next((c for c in tails if c.goodness < LEVEL), None)
    if rejected is None:
        return TailRefusal(
            code="too_coarse",
            reason="the worst chips take too few different values to see their law",
            advice=f"use more images, or {surely:,} trials, which bound it without assuming any law",
        )
    return TailRefusal(
        code="misfit",
        reason=f"the worst {rejected.tail.size} chips do not follow one smooth law (generalised Pareto; "
        f"Anderson-Darling p = {rejected.goodness:.2g}), as when some chips fail in a way of their own",
        advice=f"use {surely:,} trials, which bound it without assuming any law",
    )


def _estimate(question: _Question, usable: Sequence[Candidate], grid: Grid, limit: float) -> TailResult:
    prob = float(check_percentile(question.percentile))
    best = usable[-1]
    joined = [c for c in usable if c.tail.size >= best.tail.size / _JOINED]
    ends = [
        c.start + end
        for c in joined
        for end in quantile_interval(c.tail, c.found, prob, question.confidence, limit - c.start)
    ]
    low, high = sorted((grid.value(min(ends)), grid.value(max(ends))))
    return TailResult(
        percentile=question.percentile,
        confidence=question.confidence,
        trials=question.trials,
        value=grid.value(min(best.start + quantile(best.tail, best.found, prob), limit)),
        low=low,
        high=high,
        tail_chips=best.tail.size,
        threshold=grid.origin + grid.sign * grid.step * best.start,
        shape=best.found.shape,
        scale=best.found.scale * grid.step,
        goodness=best.goodness,
        joined=tuple(c.tail.size for c in joined),
    )

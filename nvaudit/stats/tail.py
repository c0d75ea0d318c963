"""Percentiles beyond the sample: a generalised-Pareto tail fit, its interval, and when it refuses.

The worst chips are cut into nested tails, each 1/√2 of the next larger one. From the smallest upwards each
must pass the goodness test; the first that fails, and all larger ones, are left out. The tests of the few
tails that are too small to be used alone decide whether anything is left; a later rejection only shortens
the tail that is used. Of the tails that are left, the largest gives the value.
The interval holds the profile-likelihood intervals of all tails between it and a third of it, so that it is
wider where the answer depends on where the tail begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from nvaudit.arrays import Floats
from nvaudit.errors import OptionError
from nvaudit.stats.binomial import (
    check_confidence,
    check_percentile,
    interval_ranks,
    trials_for_bound,
)
from nvaudit.stats.gpd import Fit, Tail, fit_tail, goodness, quantile, quantile_interval
from nvaudit.stats.kpp import chip_values

LEVEL = 0.05
"""A tail whose goodness has a smaller p-value is rejected."""

FEWEST = 20
"""Chips in the smallest tail."""

_TAIL = 80  # chips in the largest tail of few chips; of more it grows, its share shrinks: trials^(2/3)
_FINE = 1000  # steps in which a continuous metric is read, from the threshold to the tail's median


REACH = 10
"""A percentile may lie so many times beyond the worst chip: at least 1/10 chip is expected below it."""

_JOINED = 3
"""The interval joins tails down to such a part of the largest."""


@dataclass(frozen=True)
class TailEstimate:
    """A percentile beyond the sample.

    Attributes
    ----------
    value, low, high : float
        Extrapolated, in the metric's unit, with its interval.
    tail_chips : int
        Worst chips that the value is fitted to.
    threshold : float
        Of the metric, where that tail begins.
    shape, scale : float
        ξ, and σ in the metric's unit.
    goodness : float
        p-value of the Anderson-Darling test.
    joined : tuple of int
        Sizes of the tails whose intervals are joined.
    """

    value: float
    low: float
    high: float
    tail_chips: int
    threshold: float
    shape: float
    scale: float
    goodness: float
    joined: tuple[int, ...]


RefusalCode: TypeAlias = Literal["inside", "too_far", "few_chips", "too_coarse", "misfit"]


@dataclass(frozen=True)
class NoTail:
    """Why there is no estimate.

    Attributes
    ----------
    code : str
        ``inside``: the chips bound the percentile without a law; ``too_far``: fewer than 1/10 chip is
        expected beyond the worst; ``few_chips``: too short a tail, or too few chips known exactly;
        ``too_coarse``: the worst chips take too few values; ``misfit``: they follow no smooth law.
    needed : int or None
        Trials that give an answer; None where more trials are not the way.
    known : int or None
        Worst chips known exactly, where these are too few.
    tail_chips : int or None
        Size of the tail that does not fit.
    goodness : float or None
        Its p-value.
    """

    code: RefusalCode
    needed: int | None = None
    known: int | None = None
    tail_chips: int | None = None
    goodness: float | None = None


def metric_steps(values: ArrayLike, images: int) -> int | None:
    """Steps per unit of a metric: ``images`` where every value is a multiple of 1/images, else None.

    Examples
    --------
    >>> metric_steps([0.9, 0.915], 200), metric_steps([0.9, 0.9151], 200)
    (200, None)
    """
    steps = np.asarray(values, dtype=np.float64) * images
    return images if np.allclose(steps, np.rint(steps), rtol=0, atol=1e-6) else None


def known_worst(low: Floats, high: Floats, higher_is_better: bool) -> Floats:
    """Metric of the chips that are surely the worst, where some chips were stopped early.

    Parameters
    ----------
    low, high : ndarray, float64, shape (trial,)
        Between them lies each chip's metric; equal where it is known exactly.

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
        worst: Floats = low[exact & (low < low[~exact].min(initial=np.inf))]
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
) -> TailEstimate | NoTail:
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
    refusal = _out_of_reach(percentile, confidence, trials)
    if refusal is not None:
        return refusal
    grid = make_grid(values, trials, higher_is_better, steps)
    limit = math.inf if worst_possible is None else grid.sign * (worst_possible - grid.origin) / grid.step
    tails = nested_tails(np.sort(grid.units(values))[::-1], trials, limit)
    usable = accepted(tails)
    if not usable or usable[-1].tail.size < 2 * FEWEST:
        return _unusable(tails, values.size, percentile, confidence, trials)
    return _estimate(usable, grid, limit, percentile, confidence)


def _out_of_reach(percentile: float, confidence: float, trials: int) -> NoTail | None:
    if interval_ranks(float(percentile), trials, float(confidence))[0] is not None:
        return NoTail("inside")
    # Below the worst of n chips lie k/100·n chips in the mean: at least 1/REACH of one.
    least = math.ceil(1 / (REACH * check_percentile(percentile)))
    return NoTail("too_far", needed=least) if trials < least else None


def _unusable(
    tails: Sequence[TailFit], known: int, percentile: float, confidence: float, trials: int
) -> NoTail:
    # A tail is a quarter of the chips at most, and 2 · FEWEST of them are the least that is used.
    if tail_chips(trials) <= 2 * FEWEST:
        return NoTail("few_chips", needed=8 * FEWEST)
    if known <= 2 * FEWEST:
        return NoTail("few_chips", known=known)
    bounding = trials_for_bound(percentile, confidence, sided=2)
    rejected = next((c for c in tails if c.goodness < LEVEL), None)
    if rejected is None:
        return NoTail("too_coarse", needed=bounding)
    return NoTail("misfit", needed=bounding, tail_chips=rejected.tail.size, goodness=rejected.goodness)


def _estimate(
    usable: Sequence[TailFit], grid: MetricSteps, limit: float, percentile: float, confidence: float
) -> TailEstimate:
    prob = float(check_percentile(percentile))
    best = usable[-1]
    # A fit's own interval says nothing of the choice of threshold; the union over thresholds does.
    joined = [c for c in usable if c.tail.size >= best.tail.size / _JOINED]
    ends = [
        c.start + end
        for c in joined
        for end in quantile_interval(c.tail, c.fit, prob, confidence, limit - c.start)
    ]
    low, high = sorted((grid.value(min(ends)), grid.value(max(ends))))
    return TailEstimate(
        value=grid.value(min(best.start + quantile(best.tail, best.fit, prob), limit)),
        low=low,
        high=high,
        tail_chips=best.tail.size,
        threshold=grid.origin + grid.sign * grid.step * best.start,
        shape=best.fit.shape,
        scale=best.fit.scale * grid.step,
        goodness=best.goodness,
        joined=tuple(c.tail.size for c in joined),
    )


@dataclass(frozen=True)
class MetricSteps:
    """The steps of the metric: units count them, and larger is worse.

    Attributes
    ----------
    origin, step : float
        In the metric's unit.
    steps : int or None
        The metric is a multiple of 1/steps; None if continuous.
    sign : int
        1 for a loss, -1 where higher is better.
    """

    origin: float
    step: float
    steps: int | None
    sign: int

    def units(self, values: Floats) -> Floats:
        """Whole numbers of steps, but for rounding."""
        units: Floats = self.sign * (values - self.origin) / self.step
        return units

    def value(self, units: float) -> float:
        """Turn a quantile in units into one of the metric."""
        if self.steps is not None:
            # The quantile of the metric is the rounded quantile of what lies beneath.
            # Adding 0.0 turns −0.0 into 0.0.
            return self.sign * round(units) / self.steps + 0.0
        return self.origin + self.sign * self.step * units


@dataclass(frozen=True)
class TailFit:
    """A tail, where it begins (in units), its fit, and the fit's p-value."""

    tail: Tail
    start: float
    fit: Fit
    goodness: float


def tail_chips(trials: int) -> int:
    """Worst chips that must be known exactly for :func:`tail_kpp` to use all it can.

    Examples
    --------
    >>> tail_chips(1000), tail_chips(300)
    (101, 76)
    """
    # One chip more than the tail holds: the tail begins beyond it.
    return int(min(max(round(trials ** (2 / 3)), _TAIL), trials // 4)) + 1


def make_grid(values: Floats, trials: int, higher_is_better: bool, steps: int | None) -> MetricSteps:
    """Find the steps; a continuous metric is read in steps far finer than its tail."""
    sign = -1 if higher_is_better else 1
    if steps is not None:
        return MetricSteps(0.0, 1 / steps, steps, sign)
    ordered = np.sort(sign * values)[::-1]
    last = min(tail_chips(trials), ordered.size) - 1
    spread = ordered[last // 2] - ordered[last]
    step = float(spread if spread > 0 else ordered[0] - ordered[last]) / _FINE
    return MetricSteps(sign * float(ordered[last]), step or 1.0, None, sign)


def nested_tails(units: Floats, trials: int, limit: float) -> list[TailFit]:
    """Fit the tails; those too coarse to be tested are left out.

    Parameters
    ----------
    units : ndarray, float64, shape (chip,)
        Of the worst chips, or all; worst first.
    trials : int
        Chips in all.
    limit : float
        Worst possible value, in units; its cell has no end.

    Returns
    -------
    list of TailFit
        Smallest tail first.
    """
    units = np.rint(units)
    size: float = min(tail_chips(trials), units.size) - 1
    candidates: dict[int, TailFit] = {}
    while size >= FEWEST:
        # A value u stands for the cell from u − ½ to u + ½. The tail begins at a cell's edge, so that equal
        # values are all inside or all outside; the cell of the worst possible value holds whatever lies
        # beyond it.
        start = float(units[int(size)]) + 0.5
        beyond, counts = np.unique(units[units > start] - start - 0.5, return_counts=True)
        if counts.sum() >= FEWEST and int(counts.sum()) not in candidates:
            upper = np.where(beyond + start + 0.5 >= limit - 1e-6, np.inf, beyond + 1)
            tail = Tail(np.stack([beyond, upper]), counts.astype(np.float64), 1.0, trials)
            law = fit_tail(tail)
            p_value = goodness(tail, law)
            if p_value is not None:
                candidates[tail.size] = TailFit(tail, start, law, p_value)
        size /= math.sqrt(2)
    return [candidates[key] for key in sorted(candidates)]


def accepted(candidates: list[TailFit]) -> list[TailFit]:
    """Tails below the first that does not fit."""
    first = next((i for i, c in enumerate(candidates) if c.goodness < LEVEL), len(candidates))
    return list(candidates[:first])

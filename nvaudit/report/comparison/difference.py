"""Differences between the KPPs of two models, also where chips were stopped early or are not the same.

Three intervals, each with at least the stated confidence:

``chips``
    Every chip of both is known, and there are as many. The chips are compared one by one, as
    :mod:`nvaudit.stats.paired` does; that holds whether the two models see the same chips,
    other ones, or chips that share a part of their devices. The more they share, the narrower it is.
``intervals``
    The chips of the two are independent, and not all are known, or too few for the first. The two intervals
    of the KPPs are put together as the ends of independent intervals are: their distances from the values add
    as squares (Zou and Donner, Statistics in Medicine 27 (2008) 1693).
``bounds``
    The chips depend on each other in a way that is not known chip by chip. The allowed error is shared
    between a bound of the one KPP and a bound of the other: right for every dependence, and the widest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.report.paired import Difference, difference
from nvaudit.report.result import AuditReport
from nvaudit.stats.binomial import at_least, at_most, first_true, within
from nvaudit.stats.kpp import KppResult
from nvaudit.stats.paired import kpp_difference, mean_difference
from nvaudit.stats.ranks import rank_ranges

Relation: TypeAlias = Literal["same", "partly_shared", "independent"]
IntervalMethod: TypeAlias = Literal["chips", "intervals", "bounds"]


_STOPPED = "chips were stopped early; compare with --exhaustive"
_NUMBERS = "not the same number of chips"


@dataclass(frozen=True)
class ChipSample:
    """The chips of one model, with the worst first where their order is asked for.

    Attributes
    ----------
    values : ndarray, float64, shape (trial,)
        NaN where a chip was stopped early.
    result : KppResult
        Its KPP.
    known : int
        So many of the worst chips are surely all known.
    shift : int
        So many of these may have been stopped wrongly.
    """

    values: Floats
    result: KppResult
    known: int
    shift: int

    @property
    def complete(self) -> bool:
        """Whether every chip is known."""
        return self.known == self.values.size

    @classmethod
    def of(cls, report: AuditReport) -> ChipSample:
        """Take the chips of a report, for its first percentile."""
        values = np.asarray(report.trials.values, dtype=np.float64)  # null becomes NaN
        result = report.kpp[0]
        if np.isfinite(values).all():
            return cls(values, result, values.size, 0)
        percentiles = [each.percentile for each in report.kpp]
        own = rank_ranges(percentiles, values.size, result.confidence)[0]
        # Of ranks below the smallest percentile all chips were run on every sample; elsewhere chips were
        # stopped on both sides, and which ones is not in a report.
        return cls(values, result, own.last + 1 if own.worst_too else 0, own.shift)


def difference_of_kpp(
    before: ChipSample, after: ChipSample, relation: Relation, confidence: float, higher_is_better: bool
) -> tuple[Difference, IntervalMethod]:
    """KPP after minus KPP before, with its interval.

    Parameters
    ----------
    before, after : ChipSample
        For the same percentile.
    relation : Relation
        Of their chips.
    confidence : float
        Two-sided, equal tails.

    Returns
    -------
    difference : Difference
    method : {"chips", "intervals", "bounds"}
        See the head of this file.
    """
    if before.complete and after.complete and before.values.size == after.values.size:
        percentile = before.result.percentile
        estimate = kpp_difference(before.values, after.values, percentile, confidence, higher_is_better)
        paired = difference(estimate, before.values.size)
        if paired.low is not None or relation != "independent":
            return paired, "chips"
    if relation == "independent":
        return independent_difference(before.result, after.result), "intervals"
    return bounded_difference(before, after, confidence, higher_is_better), "bounds"


def difference_of_mean(before: ChipSample, after: ChipSample, confidence: float, value: float) -> Difference:
    """Mean after minus mean before.

    Parameters
    ----------
    value : float
        The difference of the reported means: what is given where the chips give no interval.

    Returns
    -------
    Difference
        With an interval only where every chip of both is known.
    """
    if not (before.complete and after.complete):
        return Difference(value=value, low=None, high=None, missing=_STOPPED)
    if before.values.size != after.values.size:
        return Difference(value=value, low=None, high=None, missing=_NUMBERS)
    return difference(mean_difference(before.values, after.values, confidence), before.values.size)


def independent_difference(before: KppResult, after: KppResult) -> Difference:
    """KPP after minus KPP before where the chips of the two are independent.

    Parameters
    ----------
    before, after : KppResult
        With intervals of the same confidence.

    References
    ----------
    G. Y. Zou and A. Donner, Statistics in Medicine 27 (2008) 1693, equation 3.
    """
    value = after.value - before.value
    ends = (before.low, before.high, after.low, after.high)
    if any(end is None for end in ends):
        return _without(value, before, after)
    low_1, high_1, low_2, high_2 = (float(end) for end in ends if end is not None)
    return Difference(
        value=value,
        # The upper end of a difference needs the upper end of the one and the lower end of the other: each
        # distance is taken on the side that makes the difference extreme, so that a lopsided interval stays
        # lopsided.
        low=value - math.hypot(after.value - low_2, high_1 - before.value),
        high=value + math.hypot(high_2 - after.value, before.value - low_1),
    )


def bounded_difference(
    before: ChipSample, after: ChipSample, confidence: float, higher_is_better: bool
) -> Difference:
    """KPP after minus KPP before, however their chips depend on each other.

    Returns
    -------
    Difference
        Without an interval where too few chips are known.
    """
    value = after.result.value - before.result.value
    if min(before.known, after.known) == 0:
        return Difference(value=value, low=None, high=None, missing=_STOPPED)
    error = (1 - confidence) / 2
    rise = _largest_gap(before, after, error, higher_is_better)
    fall = _largest_gap(after, before, error, higher_is_better)
    if rise is None or fall is None:
        return _without(value, before.result, after.result)
    # The gap is measured in the direction of "better"; for a loss that is downwards.
    ends = (-fall, rise) if higher_is_better else (-rise, fall)
    return Difference(value=value, low=ends[0] + 0.0, high=ends[1] + 0.0)


def _without(value: float, *results: KppResult) -> Difference:
    needed = max(result.trials_for_worst_bound for result in results)
    few = min(result.trials for result in results) < needed
    why = f"needs {needed:,} chips" if few else "too few chips"
    return Difference(value=value, low=None, high=None, missing=why)


def _largest_gap(lower: ChipSample, upper: ChipSample, error: float, higher_is_better: bool) -> float | None:
    """By how much the second percentile may be better than the first, with a one-sided error."""
    percentile = lower.result.percentile
    # Two statements, each about one model, are both right with the sum of their errors at most
    # (Bonferroni), whatever the dependence. What the first does not use up is left for the second.
    best, spent = _best_rank(percentile, upper.values.size, error / 2, min(upper.known, upper.values.size))
    worst = _worst_rank(percentile, lower.values.size, error - spent)
    # A chip stopped wrongly is missing among the known ones, so the value at rank r of these may be that of
    # rank r + shift. In `upper` that errs to the safe side, in `lower` it must be allowed for.
    worst -= lower.shift
    if best is None or not 1 <= worst <= lower.known:
        return None
    return _ranked(upper, best, higher_is_better) - _ranked(lower, worst, higher_is_better)


def _ranked(sample: ChipSample, rank: int, higher_is_better: bool) -> float:
    """Value at a rank from the worst (1-based), so that more is better."""
    known = sample.values[np.isfinite(sample.values)]
    return float(np.sort(known if higher_is_better else -known)[rank - 1])


@lru_cache(maxsize=256)
def _best_rank(percentile: float, n: int, error: float, known: int) -> tuple[int | None, float]:
    """Rank that is surely not below the percentile, and the error that this takes.

    Where that rank is not known the last known one must do, which takes more of the error.
    """
    prob = percentile / 100
    # s chips or more below the percentile, of n: if that is improbable, the chip at rank s is not below it.
    rank = first_true(lambda s: within(at_least(s, n, prob), error), 1, n)
    if rank is None or rank > known:
        rank = known
    spent = at_least(rank, n, prob)
    # Never more than an interval of a KPP spends on this side, or nothing is left for the other.
    return (rank, spent) if spent < 2 * error else (None, 0.0)


@lru_cache(maxsize=256)
def _worst_rank(percentile: float, n: int, error: float) -> int:
    """Rank that is surely not above the percentile; 0 if there is none."""
    prob = percentile / 100
    # Fewer than r chips below the percentile: if that is improbable, the chip at rank r is not above it.
    # The probability grows with r, so all ranks before the first that is too probable are good.
    too_far = first_true(lambda r: not within(at_most(r - 1, n, prob), error), 1, n)
    return n if too_far is None else too_far - 1

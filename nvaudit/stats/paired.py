"""Differences between two audits of the same chips: of the mean and of the KPP, with intervals.

The interval of the KPP difference inverts an exact test. Let q be the true percentile before and s the one
after. Three facts hold with known probabilities whatever the distributions and however the chips are paired:
q is not below an order statistic of the first values; s is not above one of the second; and of the chips that
are on different sides ("after" below s but "before" above q, or the reverse) the first kind is no more than a
fair coin allows, since both percentiles leave the same share of the chips below them (McNemar). The bound is
the largest s − q for which no fact is violated. Coverage is at least nominal for any number of chips, with
ties too; the closer the pairing, the fewer chips change sides and the narrower the interval.

The interval of the mean difference is the union of Student's t and Hall's skewness-corrected t: symmetric
and skewed differences are both covered. Both choices were made by measured coverage against bootstrap
intervals and others; see ``benchmarks/paired_coverage.py``.

References: Q. McNemar, Psychometrika 12 (1947) 153; P. Hall, J. R. Stat. Soc. B 54 (1992) 221.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from nvaudit.arrays import Floats
from nvaudit.errors import DataError
from nvaudit.stats.binomial import (
    at_least,
    at_most,
    check_percentile,
    first_true,
    trials_for_bound,
    within,
)
from nvaudit.stats.kpp import chip_values, kpp_index

FEWEST_CHIPS = 20
"""Below this the interval of a mean has measurably less than its nominal coverage."""

FEWEST_DIFFERING = 4
"""Chips that must depart from the most common difference before a mean has an interval."""

_WORST, _BEST, _SIDES = 0.5, 0.1, 0.4
"""How the error of a bound is split over the three facts; the first as for the interval of a single KPP."""


@dataclass(frozen=True)
class NoInterval:
    """Why the chips give no interval.

    Attributes
    ----------
    code : str
        ``few_chips``: it needs more; ``same``: all have the same difference; ``few_depart``: too few depart
        from the most common one; ``unbounded``: there is no bound on one side.
    count : int
        Chips needed (``few_chips``) or chips that depart (``few_depart``), else 0.
    """

    code: Literal["few_chips", "same", "few_depart", "unbounded"]
    count: int = 0


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; ``low`` and ``high`` are None where ``missing`` says why."""

    value: float
    low: float | None = None
    high: float | None = None
    missing: NoInterval | None = None


def paired_values(before: ArrayLike, after: ArrayLike) -> tuple[Floats, Floats]:
    """Check that two audits have the same chips, and every one of them.

    Parameters
    ----------
    before, after : array_like, shape (trial,)
        Metric of each chip; the same chip at the same place; None where it is not known.

    Returns
    -------
    before, after : ndarray, float64, shape (trial,)

    Raises
    ------
    DataError
        If a value is missing or not finite, or the two have not the same chips.
    """
    first, second = _complete(before), _complete(after)
    if first.size != second.size:
        raise DataError(
            f"{first.size} chips before and {second.size} after: differences are paired; give the same chips"
        )
    return first, second


def _complete(values: ArrayLike) -> Floats:
    """Values of all chips."""
    if isinstance(values, Sequence):
        for trial, value in enumerate(values):
            if value is None:
                raise DataError(
                    f"the metric of trial {trial} is not known exactly (its chip stopped early): paired "
                    "differences need every chip on every image; audit with --exhaustive"
                )
    return chip_values(values)


def mean_difference(before: Floats, after: Floats, confidence: float) -> Estimate:
    """Mean of paired differences with its interval.

    Parameters
    ----------
    before, after : ndarray, float64, shape (trial,)
        The same chip at the same place.
    confidence : float
        Two-sided.

    Returns
    -------
    Estimate
        Without an interval for fewer than 20 chips, or where fewer than 4 of them depart from the most
        common difference: then rare chips decide, and these have not been seen.
    """
    differences, n = after - before, before.size
    value = float(differences.mean())
    if n < FEWEST_CHIPS:
        return Estimate(value, missing=NoInterval("few_chips", FEWEST_CHIPS))
    departing = _departing(differences, before, after)
    if departing < FEWEST_DIFFERING:
        return Estimate(
            value, missing=NoInterval("few_depart", departing) if departing else NoInterval("same")
        )
    low, high = _mean_interval(differences, confidence)
    return Estimate(value, low, high)


def _departing(differences: Floats, before: Floats, after: Floats) -> int:
    """Chips whose difference is not the most common one, rounding aside (0.95 − 0.94 is not 0.96 − 0.95)."""
    step = 1e-12 * max(float(np.abs(before).max()), float(np.abs(after).max()), 1e-300)
    return differences.size - int(np.unique(np.rint(differences / step), return_counts=True)[1].max())


def _mean_interval(values: Floats, confidence: float) -> tuple[float, float]:
    """The union of Student's t and Hall's transformed t."""
    n, mean = values.size, float(values.mean())
    spread = float(values.std(ddof=1))
    skew = float(np.mean(((values - mean) / spread) ** 3))
    quantile = float(stdtrit(n - 1, (1 + confidence) / 2))
    root = math.sqrt(n)
    bend = skew / root

    def straightened(t: float) -> float:
        # Inverse of t + γt²/(3√n) + γ²t³/(27n) + γ/(6√n), which has next to no skewness.
        return 3 / bend * (math.cbrt(1 + bend * (t - bend / 6)) - 1) if abs(bend) > 1e-9 else t

    unit = spread / root
    # (mean − μ) / unit ≤ t turned round for μ: the upper quantile gives the lower end. Positive skewness of
    # the differences so reaches further up than Student's t does.
    return (
        mean - unit * max(quantile, straightened(quantile)),
        mean - unit * min(-quantile, straightened(-quantile)),
    )


def kpp_difference(
    before: Floats, after: Floats, percentile: float, confidence: float, higher_is_better: bool
) -> Estimate:
    """KPP after minus KPP before, with its interval.

    Parameters
    ----------
    before, after : ndarray, float64, shape (trial,)
        The same chip at the same place.
    confidence : float
        Two-sided, equal tails; at least this, whatever the distribution.

    Returns
    -------
    Estimate
        Without an interval where the chips do not bound a KPP on its worst side.
    """
    if not higher_is_better:  # the worst are the largest: turn both, so that before and after change places
        before, after = -after, -before
    prob, error = float(check_percentile(percentile)), (1 - confidence) / 2
    index = kpp_index(percentile, before.size)
    value = float(np.partition(after, index)[index] - np.partition(before, index)[index])
    high = _shift_bound(before, after, prob, error)
    # The lower bound of after − before is minus the upper bound of before − after.
    low = _shift_bound(after, before, prob, error)
    if high is None or low is None:
        needed = chips_for_kpp_difference(percentile, confidence)
        few = before.size < needed
        return Estimate(value, missing=NoInterval("few_chips", needed) if few else NoInterval("unbounded"))
    return Estimate(value, 0.0 - low, high)


def chips_for_kpp_difference(percentile: float, confidence: float) -> int:
    """Chips that give an interval of a KPP difference.

    Examples
    --------
    >>> chips_for_kpp_difference(1, 0.95)
    437
    """
    return trials_for_bound(percentile, 1 - (1 - confidence) * _WORST, sided=2)


def difference_ranks(percentile: float, trials: int, confidence: float) -> tuple[int | None, int | None]:
    """Ranks between which a KPP difference looks at either side; 1-based from the worst, None: no bound.

    Examples
    --------
    >>> difference_ranks(1, 1000, 0.95)
    (4, 21)
    """
    return _ranks(float(check_percentile(percentile)), trials, (1 - confidence) / 2)


def _shift_bound(before: Floats, after: Floats, prob: float, error: float) -> float | None:
    """Largest shift of the lower percentile that the chips do not refute, with a one-sided error."""
    worst, best = _ranks(prob, before.size, error)
    if worst is None or best is None:
        return None
    order = np.argsort(after, kind="stable")[:best]
    ceiling, paired = after[order], before[order]
    left = np.searchsorted(ceiling, ceiling, "left")  # chips strictly below each candidate for s
    bound = -math.inf
    # q and s leave the same share of the chips: P(after < s) ≤ prob ≤ P(before ≤ q). Less what both have in
    # common, P(after < s, before > q) ≤ P(after ≥ s, before ≤ q): of the chips that change sides, "up" is
    # no more likely than "down". q grows, so once the largest s − q cannot beat the bound, no later q can.
    for q in np.unique(np.sort(before)[worst - 1 :]):
        if ceiling[-1] - q <= bound:
            break
        rising = np.concatenate([[0], np.cumsum(paired > q)])
        up = rising[left]
        below = int(np.count_nonzero(before <= q))
        # left − up chips are below s and not above q; of all chips not above q the others went down.
        s = _last_accepted(up, below - (left - up), error * _SIDES)
        bound = max(bound, float(ceiling[s] - q))
    return bound


def _last_accepted(up: NDArray[np.int64], down: NDArray[np.int64], error: float) -> int:
    """Last candidate for which the chips that changed sides still look like a fair coin.

    ``up`` grows and ``down`` falls along the candidates, so the tails fall. The first is always accepted: no
    chip lies below it.
    """

    def refuted(index: int) -> bool:
        rise, fall = int(up[index]), int(down[index])
        return at_least(rise, rise + fall, 0.5) <= error

    refused = first_true(refuted, 0, len(up) - 1)
    return len(up) - 1 if refused is None else max(refused - 1, 0)


@lru_cache(maxsize=64)
def _ranks(prob: float, n: int, error: float) -> tuple[int | None, int | None]:
    """Ranks (1-based) below and above a percentile, each with its part of a one-sided error."""
    too_far = first_true(lambda r: not within(at_most(r - 1, n, prob), error * _WORST), 1, n)
    worst = n if too_far is None else too_far - 1
    return worst or None, first_true(lambda s: within(at_least(s, n, prob), error * _BEST), 1, n)

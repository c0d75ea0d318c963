"""Exact binomial statistics: ranks of order-statistic intervals and Clopper-Pearson bounds.

``X`` is binomial with ``n`` draws and probability ``p`` throughout. Its tails are regularised incomplete
beta functions: P(X ≥ s) = I_p(s, n - s + 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from scipy.special import betainc, betaincc, betaincinv

from nvaudit.errors import OptionError

# Rounding of the incomplete beta function; a tail that equals the allowed error is allowed.
_SLACK = 1 + 1e-12


def check_percentile(percentile: float) -> Fraction:
    """Probability of a percentile, exact for the number as the user wrote it (0.29 is 29/100).

    Raises
    ------
    OptionError
        If the percentile is not between 0 and 100, both excluded.
    """
    if not 0 < percentile < 100:
        raise OptionError(f"a percentile must be more than 0 and less than 100, got {percentile:g}")
    return exact_prob(percentile)


def exact_prob(percentile: float) -> Fraction:
    """Percentile / 100 without binary rounding."""
    return Fraction(str(float(percentile))) / 100


def check_confidence(confidence: float) -> None:
    """Refuse a confidence that is not in [0.5, 1).

    Raises
    ------
    OptionError
        With the value.
    """
    if not 0.5 <= confidence < 1:
        raise OptionError(f"a confidence must be at least 0.5 and less than 1, got {confidence:g}")


def at_most(count: float, n: float, prob: float) -> float:
    """P(X ≤ count); real ``count`` and ``n`` interpolate."""
    return 1.0 if count >= n else float(betaincc(count + 1, n - count, prob))


def at_least(count: float, n: float, prob: float) -> float:
    """P(X ≥ count); real ``count`` and ``n`` interpolate."""
    return 1.0 if count <= 0 else float(betainc(count, n - count + 1, prob))


def within(tail: float, error: float) -> bool:
    """Whether a tail probability is at most the allowed error."""
    return tail <= error * _SLACK


def first_true(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """Smallest integer in [low, high] for which a monotone predicate holds, or None."""
    if low > high or not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


@lru_cache(maxsize=4096)
def interval_ranks(percentile: float, n: int, confidence: float) -> tuple[int | None, int | None]:
    """Ranks of the order statistics that enclose a percentile, whatever the distribution.

    Parameters
    ----------
    percentile : float
        0-100, counted from the first value in sorted order.
    n : int
        Number of independent values.
    confidence : float
        Two-sided; half of the error on each side.

    Returns
    -------
    first, last : int or None, 1-based
        The interval is [X_(first), X_(last)]; None where n values give no bound on that side. Ties only
        make the interval cover more often.

    References
    ----------
    Exact binomial order-statistic interval, e.g. Conover, Practical Nonparametric Statistics, §3.2.

    Examples
    --------
    >>> interval_ranks(1, 1000, 0.95)
    (4, 18)
    >>> interval_ranks(1, 300, 0.95)
    (None, 8)
    """
    prob = float(check_percentile(percentile))
    check_confidence(confidence)
    error = (1 - confidence) / 2
    # X_(r) > Q needs fewer than r values at or below Q; X_(s) < Q needs at least s values below Q.
    # The first tail grows with r and the second falls with s: the largest r and the smallest s that are
    # allowed give the narrowest interval.
    too_far = first_true(lambda r: not within(at_most(r - 1, n, prob), error), 1, n)
    first = n if too_far is None else too_far - 1
    last = first_true(lambda s: within(at_least(s, n, prob), error), 1, n)
    return first or None, last


def clopper_pearson(count: int, n: int, confidence: float, sided: int = 2) -> tuple[float, float]:
    """Exact bounds of a probability after ``count`` successes in ``n`` trials.

    Parameters
    ----------
    confidence : float
        Of the interval (``sided=2``, equal tails) or of each bound by itself (``sided=1``).
    sided : {1, 2}

    Returns
    -------
    low, high : float

    References
    ----------
    Clopper and Pearson, Biometrika 26 (1934) 404.

    Examples
    --------
    >>> low, high = clopper_pearson(0, 299, 0.95, sided=1)
    >>> low, round(high, 6)
    (0.0, 0.009969)
    """
    check_confidence(confidence)
    # low solves P(X ≥ count; p) = error and high P(X ≤ count; p) = error: both tails are incomplete beta
    # functions of p, so the roots are quantiles of beta laws. At 0 and n successes one of them has no root.
    error = (1 - confidence) / sided
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, error))
    high = 1.0 if count == n else float(betaincinv(count + 1, n - count, 1 - error))
    return low, high


def trials_for_bound(percentile: float, confidence: float, sided: int = 1) -> int:
    """Trials that give a distribution-free bound on the worst side of a percentile.

    Parameters
    ----------
    percentile : float
        0-100, both excluded.
    sided : {1, 2}
        1: only this bound is wanted; 2: it is one end of an equal-tailed interval.

    Returns
    -------
    int
        Smallest n with (1 - k/100)^n ≤ error of this bound.

    Raises
    ------
    OptionError
        If the percentile, the confidence or ``sided`` makes no sense.

    Examples
    --------
    >>> trials_for_bound(1, 0.95), trials_for_bound(1, 0.95, sided=2)
    (299, 368)
    """
    prob = float(check_percentile(percentile))
    check_confidence(confidence)
    if sided not in (1, 2):
        raise OptionError(f"a bound is one- or two-sided: sided must be 1 or 2, got {sided}")
    error = (1 - confidence) / sided
    guess = max(1, math.ceil(math.log(error) / math.log1p(-prob)))
    # The logarithms round; the tail itself decides between neighbours.
    first = first_true(lambda n: within(at_most(0, n, prob), error), max(1, guess - 2), guess + 2)
    return guess if first is None else first


_NO_ACCURACY = frozenset({"agreement", "cer", "wer", "map", "map50", "miou", "f1", "f1_micro"})
"""Fractions that are no share of samples that are right, by labels."""


def standard_error(nominal: float, images: int, metric: str, unit: str) -> float | None:
    """Binomial standard error of a nominal accuracy: the evaluation set is finite too.

    None for what is no accuracy against labels, where it would say nothing.
    """
    if unit != "fraction" or metric in _NO_ACCURACY:
        return None
    return math.sqrt(nominal * (1 - nominal) / images)

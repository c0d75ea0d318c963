"""K-th percentile performance (KPP) with an exact interval, and the yield at a threshold."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from nvaudit.errors import DataError, OptionError
from nvaudit.stats.binomial import (
    check_confidence,
    check_percentile,
    clopper_pearson,
    exact_prob,
    interval_ranks,
    trials_for_bound,
)

_ASCENDING = "sorted(a)[int(k/100·N)], 0-based, ascending (TRICE, Algorithm 2)"
_DESCENDING = (
    "sorted(a)[int(k/100·N)], 0-based, descending: the largest are the worst (TRICE, Algorithm 2, for a loss)"
)


class KppResult(BaseModel):
    """A percentile of the chips, counted from the worst chip, with its interval.

    Ranks are 1-based from the worst chip: ascending where higher is better, descending for a loss. The
    bound that few trials cannot give is the one on the worst side: ``low`` where higher is better,
    ``high`` for a loss.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    percentile: float = Field(gt=0, lt=100)
    value: float
    low: float | None = Field(description="Lower end of the interval; null where the trials give none.")
    high: float | None = Field(description="Upper end of the interval; null where the trials give none.")
    confidence: float = Field(description="Two-sided, equal tails, distribution-free.")
    trials: int = Field(ge=1)
    definition: str
    worst_bound_missing: bool = Field(description="True where low (for a loss: high) is null.")
    trials_for_worst_bound: int = Field(description="Trials that give the two-sided bound on the worst side.")
    rank: int = Field(description="Of value; 1-based from the worst chip.")
    low_rank: int | None = Field(description="Of low; 1-based from the worst chip.")
    high_rank: int | None = Field(description="Of high; 1-based from the worst chip.")
    width: float = Field(
        default=0.0,
        description="How far the value may be from the one of every chip on every sample: by the ranks that "
        "chips stopped wrongly may shift it. 0: it is the same.",
    )


class YieldResult(BaseModel):
    """Share of the chips that reach a threshold, with its Clopper-Pearson interval."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    threshold: float = Field(description="In the metric's own unit; accuracies are 0 to 1.")
    direction: Literal["at_least", "at_most"]
    share: float
    low: float
    high: float
    confidence: float = Field(description="Two-sided, equal tails, exact.")
    passing: int = Field(ge=0)
    trials: int = Field(ge=1)


def chip_values(values: ArrayLike) -> NDArray[np.float64]:
    """Check the metric of each chip and give it as an array.

    Parameters
    ----------
    values : array_like, shape (trial,)

    Returns
    -------
    ndarray, float64, shape (trial,)

    Raises
    ------
    DataError
        If there is no trial, more than one axis, or a value that is not finite.
    """
    array: NDArray[Any] = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise DataError(f"the metric of the chips: got shape {array.shape}: give one number for each trial")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise DataError(
            f"the metric of trial {bad[0]} is {array[bad[0]]}: a percentile needs finite numbers; "
            "choose a metric that stays finite, such as top1"
        )
    return array


def kpp_index(percentile: float, n: int) -> int:
    """Index of the KPP among ``n`` sorted values.

    Parameters
    ----------
    percentile : float
        k, 0-100.
    n : int
        Number of trials, ≥ 1.

    Returns
    -------
    int, 0-based
        int(k/100·n), computed without rounding, at most n - 1.

    Raises
    ------
    OptionError
        If k is outside 0-100 or n is below 1.

    References
    ----------
    TRICE, Algorithm 2, line 10.

    Examples
    --------
    >>> kpp_index(29, 100), int(0.29 * 100)
    (29, 28)
    """
    if not 0 <= percentile <= 100:
        raise OptionError(f"a percentile must be in 0-100, got {percentile:g}")
    if n < 1:
        raise OptionError(f"a percentile needs at least 1 trial, got {n}")
    return min(int(exact_prob(percentile) * n), n - 1)


def kpp(values: ArrayLike, percentile: float, confidence: float, higher_is_better: bool) -> KppResult:
    """K-th percentile performance with its exact, distribution-free interval.

    Parameters
    ----------
    values : array_like, shape (trial,)
        Metric of each simulated chip over the whole evaluation set.
    percentile : float
        k, between 0 and 100: the share of the chips, in percent, that are worse.
    confidence : float
        Of the two-sided interval, equal tails.
    higher_is_better : bool
        False for a loss: the worst chips are then the largest values.

    Returns
    -------
    KppResult
        ``low`` ≤ ``value`` ≤ ``high`` where they exist. Valid with ties.

    Raises
    ------
    DataError
        If there are no values or one is not finite.
    OptionError
        If the percentile or the confidence makes no sense.

    References
    ----------
    TRICE, Algorithm 2; interval as in :func:`nvaudit.stats.binomial.interval_ranks`.

    Examples
    --------
    >>> result = kpp(range(1000), 1, 0.95, higher_is_better=True)
    >>> result.low, result.value, result.high
    (3.0, 10.0, 17.0)
    """
    check_percentile(percentile)
    check_confidence(confidence)
    worst_first = np.sort(chip_values(values))
    if not higher_is_better:
        worst_first = worst_first[::-1]
    return kpp_of_ranks(worst_first, percentile, confidence, higher_is_better)


def kpp_of_ranks(
    worst_first: NDArray[np.float64],
    percentile: float,
    confidence: float,
    higher_is_better: bool,
    shift: tuple[int, int] = (0, 0),
) -> KppResult:
    """K-th percentile performance from sorted values, of which only the ranks that it needs must be right.

    Parameters
    ----------
    worst_first : ndarray, float64, shape (trial,)
    percentile, confidence, higher_is_better
        As in :func:`kpp`.
    shift : tuple of int
        Ranks by which everything may be too good, and too bad: the interval is taken wider by them.
    """
    n = worst_first.size
    worst, best = interval_ranks(float(percentile), n, float(confidence))
    # s chips on the wrong side move an order statistic by at most s ranks: the true a_(r) lies between
    # ranks r − s and r + s of what was found, so each end moves outwards by the shift of its side and the
    # interval keeps its coverage.
    if worst is not None:
        worst = max(1, worst - shift[0])
    if best is not None:
        best = min(n, best + shift[1])
    low_rank, high_rank = (worst, best) if higher_is_better else (best, worst)
    index = kpp_index(percentile, n)
    spread = worst_first[min(n - 1, index + shift[1])] - worst_first[max(0, index - shift[0])]
    return KppResult(
        percentile=percentile,
        value=float(worst_first[index]),
        width=float(abs(spread)),
        low=None if low_rank is None else float(worst_first[low_rank - 1]),
        high=None if high_rank is None else float(worst_first[high_rank - 1]),
        confidence=confidence,
        trials=n,
        definition=_ASCENDING if higher_is_better else _DESCENDING,
        worst_bound_missing=worst is None,
        trials_for_worst_bound=trials_for_bound(percentile, confidence, sided=2),
        rank=index + 1,
        low_rank=low_rank,
        high_rank=high_rank,
    )


def yield_at(values: ArrayLike, threshold: float, confidence: float, higher_is_better: bool) -> YieldResult:
    """Share of the chips at or above a threshold (at or below, for a loss).

    Parameters
    ----------
    values : array_like, shape (trial,)
    threshold : float
        In the metric's own unit.
    confidence : float
        Of the two-sided Clopper-Pearson interval.

    Raises
    ------
    DataError
        If there are no values or one is not finite.
    OptionError
        If the threshold is not finite or the confidence makes no sense.
    """
    array = chip_values(values)
    passing = int(np.count_nonzero(reaches(array, threshold, higher_is_better)))
    return yield_of(passing, array.size, threshold, confidence, higher_is_better)


def yield_of(
    passing: int, trials: int, threshold: float, confidence: float, higher_is_better: bool
) -> YieldResult:
    """Yield from a count; see :func:`yield_at`."""
    low, high = clopper_pearson(passing, trials, confidence)
    return YieldResult(
        threshold=threshold,
        direction="at_least" if higher_is_better else "at_most",
        share=passing / trials,
        low=low,
        high=high,
        confidence=confidence,
        passing=passing,
        trials=trials,
    )


def reaches(values: NDArray[np.float64], threshold: float, higher_is_better: bool) -> NDArray[np.bool_]:
    """Which chips reach a threshold; a chip exactly on it does.

    Raises
    ------
    OptionError
        If the threshold is not finite.
    """
    if not np.isfinite(threshold):
        raise OptionError(f"a threshold must be a finite number, got {threshold}")
    return values >= threshold if higher_is_better else values <= threshold

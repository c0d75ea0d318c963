"""Differences of paired chips as a report holds them, and the words for a missing interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from nvaudit.report.sections import ReportPart
from nvaudit.stats.binomial import check_confidence, check_percentile
from nvaudit.stats.paired import Estimate, NoInterval, kpp_difference, mean_difference, paired_values


class Difference(ReportPart):
    """A difference, after minus before, in the metric's unit, with its interval."""

    value: float
    low: float | None = Field(description="Lower end of the interval; null where the chips give none.")
    high: float | None = Field(description="Upper end of the interval; null where the chips give none.")
    missing: str | None = Field(default=None, description="Why there is no interval.")


class PairedDifference(ReportPart):
    """How the same chips changed: after minus before, in the metric's unit."""

    chips: int = Field(ge=1)
    differing: int = Field(ge=0, description="Chips whose value changed.")
    confidence: float = Field(description="Two-sided, equal tails, of each interval by itself.")
    mean: Difference
    percentile: float = Field(gt=0, lt=100)
    kpp: Difference = Field(description="KPP after minus KPP before; not the KPP of the differences.")


def paired_difference(
    before: ArrayLike, after: ArrayLike, percentile: float, confidence: float, higher_is_better: bool
) -> PairedDifference:
    """Compare two audits chip by chip.

    Parameters
    ----------
    before, after : array_like, shape (trial,)
        Metric of each chip; the same chip at the same place.
    percentile : float
        k of the KPP, between 0 and 100, counted from the worst chip.
    confidence : float
        Of each interval.

    Raises
    ------
    DataError
        If a value is missing or not finite, or the two have not the same chips.
    OptionError
        If the percentile or the confidence makes no sense.

    Examples
    --------
    >>> result = paired_difference(range(1000), range(5, 1005), 1, 0.95, higher_is_better=True)
    >>> result.mean.value, result.kpp.value
    (5.0, 5.0)
    """
    check_percentile(percentile)
    check_confidence(confidence)
    first, second = paired_values(before, after)
    return PairedDifference(
        chips=first.size,
        differing=int(np.count_nonzero(first != second)),
        confidence=confidence,
        mean=difference(mean_difference(first, second, confidence), first.size),
        percentile=percentile,
        kpp=difference(kpp_difference(first, second, percentile, confidence, higher_is_better), first.size),
    )


def difference(estimate: Estimate, chips: int) -> Difference:
    """Put an estimate from so many chips into a report, with the words for a missing interval."""
    missing = None if estimate.missing is None else _missing_text(estimate.missing, chips)
    return Difference(value=estimate.value, low=estimate.low, high=estimate.high, missing=missing)


def _missing_text(gap: NoInterval, chips: int) -> str:
    return {
        "few_chips": f"needs {gap.count:,} chips",
        "same": "all chips have the same difference",
        "few_depart": f"only {gap.count} of {chips:,} chips depart from the common difference",
        "unbounded": "too few chips",
    }[gap.code]

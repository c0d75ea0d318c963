"""What limits a number of levels: the device, the converters, both, or neither (S section 6.3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy.special import ndtri

from nvaudit.spec import RooflineMeasure
from nvaudit.stats.kpp import KppResult

LimitedBy = Literal["device", "adc", "both", "neither"]
MEASURES: tuple[RooflineMeasure, ...] = ("kpp", "mean")

DEFAULT_MARGIN = 0.01
"""Of a fraction: one point. Of any other metric: this share of the quantised model's value."""


@dataclass(frozen=True)
class Range:
    """A value of noisy chips with its interval; an end that the trials do not give is None."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Roof:
    """The four values of one number of levels.

    Attributes
    ----------
    quantised : float
        Neither device variation nor converters.
    device : Range
        Device variation alone.
    adc : float or None
        Converters alone; None where there are none.
    both : Range or None
        Both; None where there are no converters.
    """

    quantised: float
    device: Range
    adc: float | None
    both: Range | None


def range_of_kpp(kpp: KppResult) -> Range:
    """Give a KPP with its interval."""
    return Range(kpp.value, kpp.low, kpp.high)


def range_of_mean(mean: float, error: float | None, confidence: float) -> Range:
    """Give a mean with its normal interval; one chip gives none.

    Parameters
    ----------
    error : float or None
        Standard error of the mean.
    confidence : float
        Two-sided.
    """
    if error is None:
        return Range(mean, None, None)
    half = float(ndtri(0.5 + confidence / 2)) * error
    return Range(mean, mean - half, mean + half)


def default_margin(unit: str, quantised: float) -> float:
    """Give the loss below which nothing is said to limit: one point, or 1 % of a value with another unit."""
    return DEFAULT_MARGIN if unit == "fraction" else DEFAULT_MARGIN * abs(quantised)


def limit_of(device_loss: float, adc_loss: float | None, loss: float, margin: float) -> LimitedBy:
    """Say what limits.

    Parameters
    ----------
    device_loss, adc_loss, loss : float
        What device variation alone, the converters alone (None: there are none) and both together cost
        against the quantised model; positive is worse.
    margin : float
        Losses up to it do not count, and losses that differ by no more are alike.

    Returns
    -------
    {"device", "adc", "both", "neither"}

    Examples
    --------
    >>> limit_of(0.2, 0.03, 0.21, 0.01), limit_of(0.001, 0.03, 0.03, 0.01), limit_of(0.008, 0.007, 0.02, 0.01)
    ('device', 'adc', 'both')
    """
    if adc_loss is None:
        return "device" if device_loss > margin else "neither"
    # Two losses that each do not count may count together; then neither can be left out.
    if max(device_loss, adc_loss) <= margin:
        return "both" if loss > margin else "neither"
    if abs(device_loss - adc_loss) <= margin:
        return "both"
    return "device" if device_loss > adc_loss else "adc"


def judge(roof: Roof, margin: float, higher_is_better: bool) -> tuple[LimitedBy, bool]:
    """Say what limits a number of levels, and whether both ends of the interval say the same.

    Parameters
    ----------
    margin : float
        In the metric's unit.

    Returns
    -------
    limit : LimitedBy
    settled : bool
        False where more chips may change it. A bound that is missing on the worst side counts as the worst
        there can be; without one on the other side nothing is settled.
    """
    sign = 1.0 if higher_is_better else -1.0

    def at(device: float, both: float) -> LimitedBy:
        adc = None if roof.adc is None else sign * (roof.quantised - roof.adc)
        return limit_of(sign * (roof.quantised - device), adc, sign * (roof.quantised - both), margin)

    both = roof.both or roof.device
    limit = at(roof.device.value, both.value)
    device_ends, both_ends = (_worst_and_best(each, higher_is_better) for each in (roof.device, both))
    # As the losses grow the answer moves one way (neither or adc, both, device), so what it is at both ends
    # it is between them. The converters alone are one model without noise: no interval.
    best = device_ends[1], both_ends[1]
    if best[0] is None or best[1] is None:
        return limit, False
    return limit, at(device_ends[0], both_ends[0]) == limit == at(best[0], best[1])


def _worst_and_best(interval: Range, higher_is_better: bool) -> tuple[float, float | None]:
    """Give the ends of an interval; a missing one on the worst side as infinitely bad."""
    if higher_is_better:
        return (-math.inf if interval.low is None else interval.low), interval.high
    return (math.inf if interval.high is None else interval.high), interval.low

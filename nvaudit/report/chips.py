"""What was found of the chips of an operating point, also where not every chip saw every sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.stats.kpp import KppResult, kpp_of_ranks
from nvaudit.stats.ranks import RankRange


@dataclass(frozen=True)
class GateCount:
    """What a gate counted that drew chips until it was decided.

    Attributes
    ----------
    stopped : str
        Why no more chips were drawn.
    """

    failures: int
    trials: int
    stopped: str


@dataclass(frozen=True)
class Chips:
    """The chips of an operating point.

    Attributes
    ----------
    low, high : ndarray, float64, shape (trial,)
        Between them lies each chip's metric; equal where it is known exactly.
    images : int
        Inferences made.
    estimate : ndarray, float64, shape (trial,), or None
        Unbiased estimates of the metric; None where every chip is known exactly.
    pilots : int
        The first chips, known exactly whatever they are like.
    ranges : tuple of RankRange
        Ranks that are right; none where all are.
    error : float
        Chance that the ranks are off by more than the shift.
    gate : GateCount or None
        Of a gate that drew the chips.
    unraced : ndarray, bool, shape (trial,), or None
        Of races that were ended early: the chips that were run on every sample whatever they are like.
    decisive : tuple of ndarray, or None
        Of races: ``low`` and ``high`` from the evidence that a KPP may rest on.
    """

    low: Floats
    high: Floats
    images: int
    estimate: Floats | None = None
    pilots: int = 0
    ranges: tuple[RankRange, ...] = ()
    error: float = 0.0
    gate: GateCount | None = None
    unraced: NDArray[np.bool_] | None = None
    decisive: tuple[Floats, Floats] | None = None

    @classmethod
    def known(cls, values: Floats, images: int, gate: GateCount | None = None) -> Chips:
        """Chips of which each was run on every sample."""
        return cls(values, values, images, gate=gate)

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Which chips are known exactly."""
        return np.asarray(self.low == self.high)

    @property
    def mean(self) -> float:
        """Mean metric, unbiased."""
        if self.estimate is None:
            return float(self.low.mean())
        return float(np.nanmean(self.estimate))  # NaN: a chip that was begun when the run was ended

    def limits(self) -> tuple[Floats, Floats]:
        """Between what the metric of each chip surely lies: at or beyond the values of decisive ranks.

        Chips that race may be stopped wrongly, but no more of them than the shift of a rank says that have
        a place on its other side; infinite where nothing is sure.
        """
        low, high = np.full(len(self.low), -np.inf), np.full(len(self.low), np.inf)
        if self.decisive is not None and self.unraced is None:
            ordered = np.sort(self.low)
            for rank in self.ranges:
                worst, best = (float(ordered[place]) for place in rank.decisive)
                low[self.decisive[0] >= best] = np.maximum(low[self.decisive[0] >= best], best)
                if not rank.worst_too:
                    high[self.decisive[1] <= worst] = np.minimum(high[self.decisive[1] <= worst], worst)
        return np.where(self.exact, self.low, low), np.where(self.exact, self.high, high)

    def weights(self) -> Floats | None:
        """How many chips each exactly known one stands for; None if each for itself.

        Post-stratified: between the wanted ranks, where chips were stopped, the pilots stand for all.
        """
        exact = self.exact
        if exact.all():
            return None
        ordered = np.sort(self.low)
        cuts = sorted({float(ordered[rank]) for r in self.ranges for rank in (r.first, r.last)})
        # A stopped chip lies above its lower limit, or below its upper one.
        place = np.where(np.isfinite(self.low), self.low, np.nextafter(self.high, -np.inf))
        region = np.where(exact, np.searchsorted(cuts, place, "left"), np.searchsorted(cuts, place, "right"))
        pilot = np.arange(len(exact)) < self.pilots
        weights = np.zeros(len(exact))
        for index in np.unique(region):
            members = region == index
            _share(weights, members, exact, pilot, self.low)
        return weights


def _share(
    weights: Floats,
    members: NDArray[np.bool_],
    exact: NDArray[np.bool_],
    pilot: NDArray[np.bool_],
    values: Floats,
) -> None:
    """Give a region's chips to those that stand for them."""
    count = int(members.sum())
    # In a region where some chips were stopped, those run to the end are not a fair sample of it: they are
    # the ones close to the edge. Only the pilots were run whatever they are like, so they stand for all of
    # them.
    for able in (members & exact if (members <= exact).all() else members & pilot, members & exact):
        if able.any():
            weights[able] += count / able.sum()
            return
    # Nobody in the region: the nearest chip that is known stands for it.
    known = np.flatnonzero(exact)
    middle = float(np.median(values[members]))
    weights[known[np.argmin(np.abs(values[known] - middle))]] += count


def weighted_std(values: Floats, weights: Floats | None) -> float:
    """Standard deviation of the chips."""
    if len(values) < 2:
        return 0.0
    if weights is None:
        return float(values.std(ddof=1))
    mean = np.average(values, weights=weights)
    total = float(weights.sum())
    # The weights are counts of chips, which add up to all: the divisor is N − 1 as without weights.
    return float(np.sqrt(np.average(np.square(values - mean), weights=weights) * total / (total - 1)))


def worst_first(chips: Chips, higher_is_better: bool) -> Floats:
    """Metrics in order; only the wanted ranks are right."""
    return np.sort(chips.low) if higher_is_better else np.sort(chips.high)[::-1]


def kpp_of_chips(chips: Chips, percentile: float, confidence: float, higher_is_better: bool) -> KppResult:
    """K-th percentile performance of an operating point.

    Where races were ended early, the ranks that the chips until then need are not the ranks that were raced
    for. The KPP then rests on every chip that was begun if its rank is settled; an end of its interval that
    is not settled comes from the chips that saw every sample whatever they are like, and so does the KPP
    itself if it is not settled. Each end may thus come from two places, which share its error.
    """
    unraced = chips.unraced
    if unraced is None or chips.decisive is None:
        ordered = worst_first(chips, higher_is_better)
        return kpp_of_ranks(
            ordered, percentile, confidence, higher_is_better, shift_at(chips.ranges, percentile)
        )
    pilots = np.sort(chips.low[unraced])  # only a fraction is raced for, and more of it is better
    rank = next(r for r in chips.ranges if r.percentile == percentile)
    low, high = np.sort(chips.low), np.sort(chips.high)
    decisive_low, decisive_high = np.sort(chips.decisive[0]), np.sort(chips.decisive[1])
    # A chip that was begun and not finished may lie anywhere: the value is then between two.
    worst, best = decisive_low[rank.decisive[0]], decisive_high[rank.decisive[1]]
    if not np.isfinite([worst, best, low[rank.index]]).all():
        return kpp_of_ranks(pilots, percentile, confidence, True)
    # Two statements for each end, of which one is used: each has half the error that is allowed.
    half = (1 + confidence) / 2
    estimate = kpp_of_ranks(low, percentile, half, True, shift_at(chips.ranges, percentile))
    fallback = kpp_of_ranks(pilots, percentile, half, True)
    ends: dict[str, float | int | None] = {"width": float(best - worst)}
    for side, values in (("low", low), ("high", high)):
        place = getattr(estimate, f"{side}_rank")
        if place is not None:
            end = float(values[place - 1])
            ends |= {side: end} if np.isfinite(end) else {side: getattr(fallback, side), f"{side}_rank": None}
    missing = ends.get("low", estimate.low) is None
    return estimate.model_copy(update={**ends, "confidence": confidence, "worst_bound_missing": missing})


def shift_at(ranges: Sequence[RankRange], percentile: float) -> tuple[int, int]:
    """Ranks by which a KPP may be too good, and too bad."""
    for item in ranges:
        if item.percentile == percentile:
            return item.shift, 0 if item.worst_too else item.shift
    return 0, 0

"""What was found of the chips of an operating point, also where not every chip saw every sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.report.statistics.ranks import RankRange

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GateCount:
    """What a gate counted that drew chips until it was decided.

    Attributes
    ----------
    failures, trials : int
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
        Chance that the ranks are off by more than the slack.
    gate : GateCount or None
        Of a gate that drew the chips.
    """

    low: Floats
    high: Floats
    images: int
    estimate: Floats | None = None
    pilots: int = 0
    ranges: tuple[RankRange, ...] = ()
    error: float = 0.0
    gate: GateCount | None = None

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
        return float((self.low if self.estimate is None else self.estimate).mean())

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
    return float(np.sqrt(np.average(np.square(values - mean), weights=weights) * total / (total - 1)))


def worst_first(chips: Chips, higher_is_better: bool) -> Floats:
    """Metrics in order; only the wanted ranks are right."""
    return np.sort(chips.low) if higher_is_better else np.sort(chips.high)[::-1]


def slack_at(ranges: Sequence[RankRange], percentile: float) -> tuple[int, int]:
    """Ranks by which a KPP may be too good, and too bad."""
    for item in ranges:
        if item.percentile == percentile:
            return item.slack, 0 if item.whole else item.slack
    return 0, 0

"""Which ranks of the chips a report needs, and with what error a chip may be left out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import betaincinv

from nvaudit.stats.binomial import interval_ranks
from nvaudit.stats.kpp import kpp_index

RACE_ERROR = 0.1
"""Share of an interval's error that races may add to it: more wrong stops than the stated shift."""

LOOSE_ERROR = 0.1
"""Chance of a wrong stop beside the KPP itself: it can only make the interval wider."""

TOLERANCE = 0.1
"""Ranks that races may shift the KPP by, as a share of the ranks of its interval."""

_FEW = 0.06
"""Share of the chips up to which the worst of them are all wanted."""


@dataclass(frozen=True)
class RankRange:
    """Ranks around one KPP; 0-based from the worst chip.

    Attributes
    ----------
    index : int
        Of the KPP.
    first, last : int
        Ends of its interval; the KPP itself where the interval has no end. Widened by the shift where wrong
        stops could make the interval too short.
    shift : int
        Ranks that chips stopped wrongly may shift the KPP by.
    worst_too : bool
        All chips below it are wanted too.
    """

    percentile: float
    index: int
    first: int
    last: int
    shift: int
    worst_too: bool

    @property
    def decisive(self) -> tuple[int, int]:
        """Ranks that a wrong stop would falsify, both ends included."""
        return self.index - self.shift, self.index + (0 if self.worst_too else self.shift)


def rank_ranges(
    percentiles: Sequence[float], trials: int, confidence: float, share: float = TOLERANCE
) -> tuple[RankRange, ...]:
    """Ranks that some KPPs with their intervals need.

    Parameters
    ----------
    percentiles : sequence of float
        0-100, both excluded.
    share : float
        Slack as a share of the interval's ranks; 0 leaves none.

    Returns
    -------
    tuple of RankRange
        In the order given. The shift never takes the lower end of an interval away.

    Examples
    --------
    >>> rank_ranges([1], 1000, 0.95)
    (RankRange(percentile=1, index=10, first=2, last=17, shift=1, worst_too=True),)
    """
    ranges = []
    for percentile in percentiles:
        low, high = interval_ranks(percentile, trials, confidence)
        index = kpp_index(percentile, trials)
        first = index if low is None else low - 1
        last = index if high is None else high - 1
        shift = min(int(share * (last - first)), first)
        # Where all worse chips are wanted too, a race can let a chip go upwards only: a wrong stop makes
        # what was found too good, never too bad, and only the worse side of the interval needs the slack.
        worst_too = percentile == min(percentiles) and last < _FEW * trials
        last = last if worst_too else min(last + shift, trials - 1)
        ranges.append(RankRange(percentile, index, first - shift, last, shift, worst_too))
    return tuple(ranges)


def partial_range(
    percentile: float, trials: int, confidence: float, shift: int, worst_too: bool
) -> RankRange:
    """Ranks that a KPP of the first chips of a longer race needs; see :func:`rank_ranges`.

    Parameters
    ----------
    shift : int
        Ranks that chips stopped wrongly may shift the KPP by.
    worst_too : bool
        All chips below it are known too.
    """
    low, high = interval_ranks(percentile, trials, confidence)
    index = kpp_index(percentile, trials)
    first = index if low is None else max(0, low - 1 - shift)
    last = index if high is None else min(trials - 1, high - 1 + (0 if worst_too else shift))
    return RankRange(percentile, index, first, last, min(shift, index), worst_too)


def tail_range(chips: int) -> RankRange:
    """Ranks of the worst chips, all of them wanted."""
    return RankRange(percentile=0.0, index=chips - 1, first=0, last=chips - 1, shift=0, worst_too=True)


def allowed_error(chips: int, shift: int, error: float) -> float:
    """Chance of a wrong stop that each of some chips may have.

    Parameters
    ----------
    chips : int
        That could be stopped wrongly.
    shift : int
        Wrong stops that do no harm.
    error : float
        Chance of more of them.

    Returns
    -------
    float
        Largest ε with P(Binomial(chips, ε) > shift) ≤ error; chips are raced on samples of their own, so
        their wrong stops are independent.

    Examples
    --------
    >>> round(allowed_error(100, 0, 0.001) * 1e5, 2)
    1.0
    """
    # P(Binomial(n, ε) > s) = I_ε(s + 1, n − s), which is inverted for ε. It is held at ½: some evidence is
    # always asked for.
    if shift >= chips:
        return 0.5
    return min(0.5, float(betaincinv(shift + 1, chips - shift, error)))


def blocks(pilots: int, trials: int) -> Sequence[range]:
    """Trials in blocks: the pilots first, then each block as long as all before it.

    Examples
    --------
    >>> blocks(16, 100)
    [range(0, 16), range(16, 32), range(32, 64), range(64, 100)]
    """
    ranges, start = [], 0
    while start < trials:
        stop = min(trials, max(pilots, 2 * start))
        ranges.append(range(start, stop))
        start = stop
    return ranges

"""Which ranks of the chips a report needs, and with what error a chip may be left out of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import betaincinv

from nvaudit.stats.binomial import interval_ranks
from nvaudit.stats.kpp import kpp_index

RACE_ERROR = 0.1
"""Share of an interval's error that races may add to it: more wrong stops than the stated slack."""

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
        Ends of its interval; the KPP itself where the interval has no end. Widened by the slack where wrong
        stops could make the interval too short.
    slack : int
        Ranks that chips stopped wrongly may shift the KPP by.
    whole : bool
        All chips below it are wanted too.
    """

    percentile: float
    index: int
    first: int
    last: int
    slack: int
    whole: bool

    @property
    def sure(self) -> tuple[int, int]:
        """Ranks that a wrong stop would falsify, both ends included."""
        return self.index - self.slack, self.index + (0 if self.whole else self.slack)


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
        In the order given. The slack never takes the lower end of an interval away.

    Examples
    --------
    >>> rank_ranges([1], 1000, 0.95)
    (RankRange(percentile=1, index=10, first=2, last=17, slack=1, whole=True),)
    """
    found = []
    for percentile in percentiles:
        low, high = interval_ranks(percentile, trials, confidence)
        index = kpp_index(percentile, trials)
        first = index if low is None else low - 1
        last = index if high is None else high - 1
        slack = min(int(share * (last - first)), first)
        whole = percentile == min(percentiles) and last < _FEW * trials
        last = last if whole else min(last + slack, trials - 1)
        found.append(RankRange(percentile, index, first - slack, last, slack, whole))
    return tuple(found)


def partial_range(percentile: float, trials: int, confidence: float, slack: int, whole: bool) -> RankRange:
    """Ranks that a KPP of the first chips of a longer race needs; see :func:`rank_ranges`.

    Parameters
    ----------
    slack : int
        Ranks that chips stopped wrongly may shift the KPP by.
    whole : bool
        All chips below it are known too.
    """
    low, high = interval_ranks(percentile, trials, confidence)
    index = kpp_index(percentile, trials)
    first = index if low is None else max(0, low - 1 - slack)
    last = index if high is None else min(trials - 1, high - 1 + (0 if whole else slack))
    return RankRange(percentile, index, first, last, min(slack, index), whole)


def tail_range(chips: int) -> RankRange:
    """Ranks of the worst chips, all of them wanted."""
    return RankRange(percentile=0.0, index=chips - 1, first=0, last=chips - 1, slack=0, whole=True)


def allowed_error(chips: int, slack: int, error: float) -> float:
    """Chance of a wrong stop that each of some chips may have.

    Parameters
    ----------
    chips : int
        That could be stopped wrongly.
    slack : int
        Wrong stops that do no harm.
    error : float
        Chance of more of them.

    Returns
    -------
    float
        Largest ε with P(Binomial(chips, ε) > slack) ≤ error; chips are raced on samples of their own, so
        their wrong stops are independent.

    Examples
    --------
    >>> round(allowed_error(100, 0, 0.001) * 1e5, 2)
    1.0
    """
    if slack >= chips:
        return 0.5
    return min(0.5, float(betaincinv(slack + 1, chips - slack, error)))


def blocks(pilots: int, trials: int) -> Sequence[range]:
    """Trials in blocks: the pilots first, then each block as long as all before it.

    Examples
    --------
    >>> blocks(16, 100)
    [range(0, 16), range(16, 32), range(32, 64), range(64, 100)]
    """
    found, start = [], 0
    while start < trials:
        stop = min(trials, max(pilots, 2 * start))
        found.append(range(start, stop))
        start = stop
    return found

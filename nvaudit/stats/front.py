r"""The Pareto front of KPP against cost, exactly as from every chip of every point, for a part of the chips.

Every point of a design space has a cost, known beforehand, and a KPP: of its N chips the one at rank
r = int(k/100 · N) from the worst, 0-based. A point is on the front if no other one costs no more and has no
smaller KPP, one of the two strictly. Points are taken in ascending order of cost, so one is on the front
if and only if its KPP beats b, the best KPP of all cheaper ones (:func:`pareto_front`).

That a point does not beat b needs few chips: as soon as r + 1 of its N chips, whichever they are, are found
not to beat b, its KPP does not either, and no statistics are involved. Chips may therefore be looked at in
any order, the likely worst first (:func:`elimination_rule`). Only the points of the front itself need every
chip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nvaudit.arrays import Floats
from nvaudit.stats.binomial import interval_ranks
from nvaudit.stats.kpp import kpp_index
from nvaudit.stats.paired import Estimate, difference_ranks, kpp_difference
from nvaudit.stats.ranks import RankRange


def pareto_front(costs: ArrayLike, values: ArrayLike) -> tuple[int, ...]:
    """Find the points that no other one dominates.

    Parameters
    ----------
    costs, values : array_like, shape (point,)
        A lower cost and a higher value are better.

    Returns
    -------
    tuple of int
        Ascending in cost and in value; of points with equal cost and value the first.

    Examples
    --------
    >>> pareto_front([1, 2, 3, 3, 2], [0.5, 0.4, 0.9, 0.8, 0.7])
    (0, 4, 2)
    """
    cost, value = np.asarray(costs, np.float64), np.asarray(values, np.float64)
    front: list[int] = []
    # The best of equal cost comes first, and of those the first that was given: lexsort is stable.
    for i in np.lexsort((-value, cost)).tolist():
        if not front or value[i] > value[front[-1]]:
            front.append(i)
    return tuple(front)


@dataclass(frozen=True)
class EliminationRule:
    """When a point is thrown out.

    Attributes
    ----------
    need : int
        Chips that must be found not to beat the bar.
    trials : int
        Chips of each point.
    """

    need: int
    trials: int

    def block(self, misses: int, seen: int) -> int:
        """How many chips are looked at next; 0 where the point is out, or every chip was looked at."""
        if misses >= self.need:
            return 0
        # Fewer cannot be enough. Blocks that grow with what was seen keep many workers busy, and look at a
        # quarter more than chips one by one at most.
        return min(max(self.need - misses, seen // 4), self.trials - seen)


def elimination_rule(percentile: float, trials: int) -> EliminationRule:
    """Settle how points are thrown out.

    Parameters
    ----------
    percentile : float
        0-100, of the KPP.
    trials : int
        Chips of each point.

    Examples
    --------
    >>> elimination_rule(1, 1000)
    EliminationRule(need=11, trials=1000)
    """
    need = kpp_index(percentile, trials) + 1
    return EliminationRule(need, trials)


def shared_error(error: float, number: int) -> float:
    """Error of the ``number``-th of any number of questions, from 1, which together stay within ``error``.

    Examples
    --------
    >>> round(sum(shared_error(0.01, i) for i in range(1, 10_000)), 6)
    0.009999
    """
    return error / (number * (number + 1))


def front_range(percentile: float, trials: int, confidence: float) -> RankRange:
    """Ranks of a point of the front that its KPP, the interval of it and paired differences need.

    All chips below are wanted too, so a chip can only be let go upwards; none may be wrongly, whatever its
    rank among them, so the last of these ranks is decisive.
    """
    index = kpp_index(percentile, trials)
    _, interval = interval_ranks(percentile, trials, confidence)
    _, paired = difference_ranks(percentile, trials, confidence)
    last = max(index, *(index if rank is None else rank - 1 for rank in (interval, paired)))
    return RankRange(percentile, last, 0, last, shift=0, worst_too=True)


def known_below(low: ArrayLike, high: ArrayLike) -> Floats:
    """Cut the chips of a race at the value below which every one is known exactly.

    Parameters
    ----------
    low, high : array_like, shape (trial,)
        Between them lies the metric of each chip; equal where it is known.

    Returns
    -------
    ndarray, float64, shape (trial,)
        ``min(metric, cut)``: order statistics below the cut are those of all chips.
    """
    lower, upper = np.asarray(low, np.float64), np.asarray(high, np.float64)
    open_ = lower < upper
    return np.minimum(lower, lower[open_].min()) if open_.any() else lower


def front_difference(cheaper: Floats, dearer: Floats, percentile: float, confidence: float) -> Estimate:
    """KPP of the dearer of two points less that of the cheaper, on the same chips.

    Parameters
    ----------
    cheaper, dearer : ndarray, float64, shape (trial,)
        As :func:`known_below` gives them; a higher value is better.

    Returns
    -------
    Estimate
        Its interval is that of :func:`nvaudit.stats.paired.kpp_difference`, or wider. Nothing is surely
        better where its lower end is not above 0: a tie.
    """
    # A bound there is the largest s − q over percentiles q before and s after that the chips do not refute.
    # With everything cut at c, q = c comes with the largest s at hand: no q beyond has a larger s − q.
    return kpp_difference(cheaper, dearer, percentile, confidence, higher_is_better=True)


def worst_chips_first(known: Sequence[Floats], trials: int) -> NDArray[np.intp]:
    """Order chips by how bad they were at the points of the front that are most alike.

    Parameters
    ----------
    known : sequence of ndarray, shape (trial,)
        Metrics of all chips at points measured before, the most similar point last; see
        :func:`known_below`. A higher value is better.

    Returns
    -------
    ndarray of int, shape (trial,)
        Chips that are alike in all of them stay in their order.
    """
    if not known:
        return np.arange(trials)
    return np.asarray(np.lexsort([np.arange(trials), *known]))

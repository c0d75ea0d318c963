"""What is recommended of a front: the cheapest point that is enough, or that none is surely better than."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nvaudit.exploration.search import SearchedPoint
from nvaudit.stats.front import front_difference
from nvaudit.stats.gate import Gate, decide_count


@dataclass(frozen=True)
class DesignChoice:
    """A recommended point; ``passes`` is whether its gate does, None without a gate."""

    point: int
    passes: bool | None


def tied_with(
    result: SearchedPoint, front: Sequence[SearchedPoint], percentile: float, confidence: float
) -> int | None:
    """Find the cheapest point of the front that a dearer one is not surely better than; None: there is none.

    Where the chips are too few for an interval of a difference, nothing is said to be a tie.
    """
    for other in front[: front.index(result)]:
        if result.known is None or other.known is None:
            continue
        change = front_difference(other.known.low, result.known.low, percentile, confidence)
        if change.low is not None and change.low <= 0:
            return other.point
    return None


def gate_of(
    result: SearchedPoint, floor: float, threshold: float, percentile: float, confidence: float
) -> Gate:
    """Decide the gate of a point of the front; ``floor`` is the threshold where larger is better."""
    assert result.known is not None
    # The KPP reaches the floor, so the chips below it are all among those that are known exactly.
    misses = int(np.count_nonzero(result.known.low < floor))
    return decide_count(misses, len(result.known.low), threshold, percentile, confidence)


def recommend(
    front: Sequence[SearchedPoint], ties: dict[int, int | None], gates: dict[int, Gate]
) -> DesignChoice | None:
    """Choose.

    Parameters
    ----------
    front : sequence of SearchedPoint
        Ascending in cost.
    ties : mapping of int to (int or None)
        As :func:`tied_with` gives them, by point.
    gates : mapping of int to Gate
        By point; empty where no KPP is asked for.

    Returns
    -------
    Choice or None
        With a gate the cheapest point that passes it, else the cheapest that reaches it; without one the
        cheapest that the best is not surely better than. None where the front is empty.
    """
    if not front:
        return None
    if gates:
        passing = next((result for result in front if gates[result.point].verdict == "pass"), None)
        return DesignChoice((passing or front[0]).point, passing is not None)
    best = front[-1].point
    tie = ties.get(best)
    return DesignChoice(best if tie is None else tie, None)

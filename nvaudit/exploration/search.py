"""The search: points by ascending cost, each against the best KPP of all cheaper ones; and the choice.

See :mod:`nvaudit.stats.front` for why this gives the front of every chip of every point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.errors import OptionError
from nvaudit.stats.front import (
    EliminationRule,
    front_difference,
    known_below,
    shared_error,
    worst_chips_first,
)
from nvaudit.stats.gate import Gate, decide_count
from nvaudit.stats.kpp import kpp_index

FrontPlace = Literal["front", "dominated", "below", "not_reached", "invalid"]


class ImpossiblePointError(OptionError):
    """A point turned out, when it was prepared, to be one that the model or the device cannot have."""


class SearchEnded(Exception):
    """The time was over before all chips of a point were looked at that had to be."""


class Judged(NamedTuple):
    """What was found of a chip: whether its metric is below the bar for certain, and about what it is."""

    misses: bool
    value: float


class KnownChips(NamedTuple):
    """The chips of a point; their metric lies between ``low`` and ``high``, equal where it is known.

    ``whole`` is False where the run of the chips ended because the point was out.
    """

    low: Floats
    high: Floats
    whole: bool


class AuditedPoint(Protocol):
    """A point whose chips can be run; larger metrics are better."""

    @property
    def images(self) -> int:
        """Inferences so far."""

    def judge(self, trials: Sequence[int], bar: float) -> dict[int, Judged]:
        """Say of chips whether their metric is certainly below a bar."""

    def measure(self, bar: float, enough: int, error: float, order: Sequence[int]) -> KnownChips:
        """Run all chips as far as the KPP needs; no further once ``enough`` of them are below the bar.

        ``order`` has every chip, the likely worst first.
        """


@dataclass(frozen=True)
class Wanted:
    """What the search is for.

    Attributes
    ----------
    floor : float
        KPP that a point must reach to be on the front; minus infinity for none.
    rule : EliminationRule or None
        None: every chip of every point is run.
    error : float
        Chance that the measurements of the front, all together, are wrong.
    """

    floor: float
    percentile: float
    trials: int
    rule: EliminationRule | None
    error: float


@dataclass(frozen=True)
class SearchedPoint:
    """What became of a point.

    Attributes
    ----------
    kpp : float or None
        Of all chips; None where the point was thrown out before all were run.
    at_most : float
        The KPP is about this at most: of the chips that were looked at, the one at its rank.
    against : int or None
        Of a dominated point: the cheaper one that it does not beat.
    chips, images : int
        That were looked at.
    measured : bool
        Whether it was tried to run all its chips.
    """

    point: int
    place: FrontPlace
    kpp: float | None
    at_most: float
    against: int | None
    chips: int
    images: int
    known: KnownChips | None = field(default=None, repr=False)
    measured: bool = False
    reason: str = ""


def search_front(
    order: Sequence[int],
    costs: Sequence[float],
    wanted: Wanted,
    opened: Callable[[int], AbstractContextManager[AuditedPoint]],
    alike: Callable[[int, int], int] = lambda one, other: 0,
    told: Callable[[SearchedPoint], None] = lambda result: None,
    due: Callable[[], bool] = lambda: False,
) -> list[SearchedPoint]:
    """Find what is on the front.

    Parameters
    ----------
    order : sequence of int
        Points, cheapest first.
    costs : sequence of float
        By point.
    opened : callable
        Gives a point for auditing; it raises ImpossiblePointError where the point cannot be.
    alike : callable
        How much two points have in common: chips are looked at in the order of the most similar point.
    told : callable
        Told of every point that is done.
    due : callable
        Whether no further point may be begun. As points come by ascending cost, the front is then whole up to
        the cost of the first that is not reached.

    Returns
    -------
    list of SearchedPoint
        In the given order.
    """
    results: list[SearchedPoint] = []
    front: list[SearchedPoint] = []
    left = list(order)
    while left and not due():
        # Of equal cost the point that is most alike to the best so far: it is likely the better one, and only
        # the best of equal cost is on the front.
        equal = [point for point in left if costs[point] == costs[left[0]]] if front else left[:1]
        point = max(equal, key=lambda one: alike(front[-1].point, one)) if front else left[0]
        left.remove(point)
        number = 1 + sum(result.measured for result in results)
        try:
            with opened(point) as audited:
                result = _place(point, audited, front, wanted, alike, shared_error(wanted.error, number))
        except ImpossiblePointError as error:
            result = SearchedPoint(point, "invalid", None, math.nan, None, 0, 0, reason=str(error))
        except SearchEnded:
            left.append(point)
            break
        if result.place == "front":
            front.append(result)
        results.append(result)
        told(result)
    results += [SearchedPoint(point, "not_reached", None, math.nan, None, 0, 0) for point in left]
    results.sort(key=lambda result: order.index(result.point))
    return [_later(result, front, costs) for result in results]


def _later(result: SearchedPoint, front: Sequence[SearchedPoint], costs: Sequence[float]) -> SearchedPoint:
    """A point that one of equal cost has beaten after it is off the front."""
    if result.place != "front":
        return result
    after = front[front.index(result) + 1 :]
    beaten = next((other for other in after if costs[other.point] == costs[result.point]), None)
    return result if beaten is None else replace(result, place="dominated", against=beaten.point)


def _place(
    point: int,
    audited: AuditedPoint,
    front: Sequence[SearchedPoint],
    wanted: Wanted,
    alike: Callable[[int, int], int],
    error: float,
) -> SearchedPoint:
    """Throw a point out, or measure it."""
    best = front[-1] if front else None
    # Equality with a cheaper point does not beat it; equality with the floor reaches it.
    beaten = -math.inf if best is None or best.kpp is None else float(np.nextafter(best.kpp, np.inf))
    bar, rule = max(wanted.floor, beaten), wanted.rule
    index = kpp_index(wanted.percentile, wanted.trials)
    off = SearchedPoint(
        point, "below" if best is None else "dominated", None, math.nan,
        None if best is None else best.point, 0, 0,
    )  # fmt: skip
    order = _order(point, front, alike, wanted.trials)
    if rule is not None and bar > -math.inf:
        seen = _judged(audited, bar, rule, order)
        if sum(judged.misses for judged in seen) >= rule.need:
            # Of a chip that was stopped there is only an estimate, which may lie beyond the bar.
            about = min(float(np.sort([judged.value for judged in seen])[index]), bar)
            return replace(off, at_most=about, chips=len(seen), images=audited.images)
    known = audited.measure(bar, wanted.trials + 1 if rule is None else index + 1, error, order)
    if not known.whole:
        chips = int(np.count_nonzero(np.isfinite(known.low) | np.isfinite(known.high)))
        at_most = float(np.sort(known.high)[index])
        return replace(off, at_most=at_most, chips=chips, images=audited.images, measured=True)
    cut = known_below(known.low, known.high)
    value = float(np.sort(cut)[index])
    on_all = replace(
        off, kpp=value, at_most=value, chips=wanted.trials, images=audited.images, measured=True,
        known=KnownChips(cut, known.high, True),
    )  # fmt: skip
    return on_all if value < bar else replace(on_all, place="front", against=None)


def _order(
    point: int, front: Sequence[SearchedPoint], alike: Callable[[int, int], int], trials: int
) -> list[int]:
    """Chips in the order in which they are judged: the likely worst first."""
    nearest = sorted(front, key=lambda result: alike(result.point, point))
    known = [result.known.low for result in nearest if result.known is not None]
    return [int(chip) for chip in worst_chips_first(known, trials)]


def _judged(audited: AuditedPoint, bar: float, rule: EliminationRule, chips: Sequence[int]) -> list[Judged]:
    """Judge chips until enough of them are below the bar, or it is no use."""
    seen: list[Judged] = []
    while size := rule.block(sum(judged.misses for judged in seen), len(seen)):
        block = chips[len(seen) : len(seen) + size]
        judged = audited.judge(block, bar)
        seen += [judged[chip] for chip in block]
    return seen


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

"""The gate of an operating point: chips are drawn until it is decided, each sees only what it must."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nvaudit.perturb.race import RACED_SHARE, Band, Edge, RaceTask
from nvaudit.report.chips import GateCount
from nvaudit.stats.anytime import PASS_LEAK, fail_leak, sequential_verdict
from nvaudit.stats.gate import Verdict

FIRST_BLOCK = 16
_BLOCK = 64
"""Chips are drawn in blocks, the first ones small: enough to keep many workers busy, few too many."""


@dataclass(frozen=True)
class GateQuestion:
    """What a gate asks, and how long it may take.

    Attributes
    ----------
    threshold : float or None
        None: chips are drawn for another gate only.
    percentiles : tuple of float
        Every one of them must be decided.
    most : int
        Chips drawn at most.
    minutes : float or None
        Time after which no more chips are drawn.
    """

    threshold: float | None
    percentiles: tuple[float, ...]
    confidence: float
    most: int
    minutes: float | None


def gate_task(difficulty: str, identity: int, samples: int, question: GateQuestion) -> RaceTask:
    """Race of a chip against the gate's threshold."""
    # A chip called "below" by mistake is a passing one taken for a failure, "above" the reverse: each edge
    # has the chance by which sequential_verdict moves p₀. That of the smallest percentile is small enough
    # for all.
    assert question.threshold is not None
    leak = fail_leak(min(question.percentiles))
    band = Band((Edge(question.threshold, leak),), (Edge(question.threshold, PASS_LEAK),))
    return RaceTask("gate", difficulty, identity, (band,), math.ceil(RACED_SHARE * samples))


def blocks(most: int) -> Iterator[int]:
    """How many chips are drawn when the gate is looked at, each time.

    The first are few because a bad model fails within them, later blocks no larger than keeps the workers
    busy. Looking after every block costs nothing: verdicts hold at any stopping time.
    """
    drawn = 0
    while drawn < most:
        drawn = min(most, drawn + max(FIRST_BLOCK, min(_BLOCK, drawn)))
        yield drawn


def draw_until_decided(
    question: GateQuestion,
    judge: Callable[[range], list[bool]],
    others: Callable[[], set[Verdict]] = set,
    time_over: Callable[[], bool] = lambda: False,
) -> GateCount:
    """Draw chips until every percentile is decided, or chips or time run out.

    Parameters
    ----------
    judge : callable
        Says of each of some chips whether it misses the threshold; of fewer where the run is to end.
    others : callable
        Verdicts, by the chips drawn, of gates that are decided by the same chips.
    time_over : callable
        Whether the time of the run is over, beside that of the question.

    Returns
    -------
    GateCount
        The chips drawn are the first ones; only with a time limit does their number depend on speed.
    """
    begin, minutes = time.monotonic(), question.minutes
    over = "" if minutes is None else f"{minutes:g} minutes are over (--max-minutes)"

    def late() -> bool:
        return minutes is not None and (time_over() or time.monotonic() - begin > 60 * minutes)

    drawn = failures = 0
    for stop in blocks(question.most):
        judged = judge(range(drawn, stop))
        failures += sum(judged)
        if len(judged) < stop - drawn:
            why = "the run was interrupted" if not late() else over
            return GateCount(failures, drawn + len(judged), why)
        drawn = stop
        verdicts = others()
        if question.threshold is not None:
            verdicts |= {
                sequential_verdict(failures, drawn, percentile, question.confidence)
                for percentile in question.percentiles
            }
        if "undecided" not in verdicts or "fail" in verdicts:
            return GateCount(failures, drawn, "another gate has failed")
        if late():
            return GateCount(failures, drawn, over)
    return GateCount(failures, drawn, f"{drawn:,} chips were drawn, as many as were allowed")

"""The gate of an operating point: chips are drawn until it is decided, each sees only what it must."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from nvaudit.perturb.race import Band, Edge, RaceTask
from nvaudit.report.chips import GateCount
from nvaudit.stats.anytime import PASS_LEAK, fail_leak, sequential_verdict

FIRST_BLOCK = 16
_BLOCK = 64
"""Chips are drawn in blocks, the first ones small: enough to keep many workers busy, few too many."""

_MOST = 0.7


@dataclass(frozen=True)
class GateQuestion:
    """What a gate asks, and how long it may take.

    Attributes
    ----------
    percentiles : tuple of float
        Every one of them must be decided.
    most : int
        Chips drawn at most.
    minutes : float or None
        Time after which no more chips are drawn.
    """

    threshold: float
    percentiles: tuple[float, ...]
    confidence: float
    most: int
    minutes: float | None


def gate_task(difficulty: str, identity: int, samples: int, question: GateQuestion) -> RaceTask:
    """Race of a chip against the gate's threshold."""
    # A chip called "below" by mistake is a passing one taken for a failure, "above" the reverse: each edge
    # has the chance by which sequential_verdict moves p₀. That of the smallest percentile is small enough
    # for all.
    leak = fail_leak(min(question.percentiles))
    band = Band((Edge(question.threshold, leak),), (Edge(question.threshold, PASS_LEAK),))
    return RaceTask("gate", difficulty, identity, (band,), math.ceil(_MOST * samples))


def draw_until_decided(question: GateQuestion, judge: Callable[[range], list[bool]]) -> GateCount:
    """Draw chips until every percentile is decided, or chips or time run out.

    Parameters
    ----------
    judge : callable
        Says of each of some chips whether it misses the threshold; of fewer where the run is to end.

    Returns
    -------
    GateCount
        The chips drawn are the first ones; only with a time limit does their number depend on speed.
    """
    begin = time.monotonic()
    drawn = failures = 0
    while True:
        stop = min(question.most, drawn + max(FIRST_BLOCK, min(_BLOCK, drawn)))
        judged = judge(range(drawn, stop))
        failures += sum(judged)
        if len(judged) < stop - drawn:
            return GateCount(failures, drawn + len(judged), "the run was interrupted")
        drawn = stop
        # Looking after every block costs nothing: the verdict holds at any stopping time. The first chips
        # are few because a bad model fails within them, later blocks no larger than keeps the workers busy.
        verdicts = {
            sequential_verdict(failures, drawn, percentile, question.confidence)
            for percentile in question.percentiles
        }
        if "undecided" not in verdicts or "fail" in verdicts:
            return GateCount(failures, drawn, "another percentile has failed")
        if drawn >= question.most:
            return GateCount(failures, drawn, f"{drawn:,} chips were drawn, as many as were allowed")
        if question.minutes is not None and time.monotonic() - begin > 60 * question.minutes:
            return GateCount(failures, drawn, f"{question.minutes:g} minutes are over (--max-minutes)")

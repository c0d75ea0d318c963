"""Monte-Carlo: many chips, side by side, in any order, with the same result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.engine import Outcome
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.record import ChipRecord
from nvaudit.perturb.workers import WorkerPool

Progress = Callable[[str, int, int], None]
"""Told (what, done, total)."""

_QUEUED_PER_WORKER = 4
_TIMED_S = 1.0
"""A round of chips of at least this length tells how long one takes."""

_LONG_S = 10.0
"""Beside this, starting a worker takes no time."""


@dataclass(frozen=True)
class TrialTable:
    """The metric of every chip.

    Attributes
    ----------
    values : ndarray, float64, shape (point, trial)
    images : int
        Inferences made.
    chip_seconds : float
        Median seconds of one chip inside a worker.
    wall_seconds : float
    """

    values: NDArray[np.float64]
    images: int
    chip_seconds: float
    wall_seconds: float


@dataclass
class _Tally:
    """What is known of the chips so far."""

    values: NDArray[np.float64]
    done: NDArray[np.bool_]
    seconds: list[float] = field(default_factory=list)
    images: int = 0

    @classmethod
    def of(cls, points: int, trials: int, rows: NDArray[Any] | None) -> _Tally:
        """Begin with what a record has of these chips."""
        tally = cls(np.full((points, trials), np.nan), np.zeros((points, trials), dtype=np.bool_))
        if rows is not None:
            rows = rows[(rows["trial"] < trials) & (rows["point"] < points)]
            place = rows["point"].astype(np.intp), rows["trial"].astype(np.intp)
            tally.values[place], tally.done[place] = rows["value"], True
            tally.seconds.extend(rows["seconds"].tolist())
            tally.images = int(rows["images"].sum())
        return tally

    def note(self, point: int, trial: int, outcome: Outcome) -> None:
        """Enter a finished chip."""
        self.values[point, trial], self.done[point, trial] = outcome.value, True
        self.seconds.append(outcome.seconds)
        self.images += outcome.images


def run_trials(
    pool: WorkerPool,
    workers: int,
    metric: Metric,
    keep: str | None,
    points: int,
    trials: int,
    progress: Progress = lambda what, done, total: None,
    order: NDArray[np.integer] | None = None,
    record: ChipRecord | None = None,
) -> TrialTable:
    """Run every chip at every operating point.

    Parameters
    ----------
    pool : WorkerPool
        Whose workers run the chips.
    workers : int
        How many it has: decides how far ahead calls are queued.
    metric : Metric
        What is measured.
    keep : str or None
        File of the nominal outputs that the metric compares with.
    points, trials : int
        Operating points and chips at each.
    progress : callable
        Told of every finished chip; begins with those that the record has.
    order : ndarray of int, optional
        Order in which the chips are run; it has no influence on the values.
    record : ChipRecord, optional
        Chips that it has are not run again; the others are entered as they finish.

    Returns
    -------
    TrialTable
    """
    total = points * trials
    sequence = range(total) if order is None else order.tolist()
    tally = _Tally.of(points, trials, None if record is None else record.rows)
    begin = time.perf_counter()
    todo = (index for index in sequence if not tally.done.flat[index])
    running: dict[Future[Outcome], int] = {}

    def submit(limit: int) -> None:
        for index in islice(todo, limit):
            point, trial = divmod(index, trials)
            running[pool.submit(f"trial {trial}", "chip", metric, keep, point, trial)] = index

    if tally.seconds:
        progress("chips", len(tally.seconds), total)
    submit(_QUEUED_PER_WORKER * max(1, workers))
    while running:
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            point, trial = divmod(running.pop(future), trials)
            outcome = future.result()
            if record is not None:
                record.add(point, trial, outcome)
            tally.note(point, trial, outcome)
        submit(len(finished))
        progress("chips", len(tally.seconds), total)
    return TrialTable(
        tally.values, tally.images, float(np.median(tally.seconds)), time.perf_counter() - begin
    )


@dataclass(frozen=True)
class Pace:
    """How fast chips go: ``seconds`` for each, all workers together, measured on ``chips`` of them."""

    chips: int
    seconds: float


def time_chips(pool: WorkerPool, workers: int, metric: Metric, keep: str | None, point: int) -> Pace:
    """Measure how fast chips go, by a few of them.

    Parameters
    ----------
    pool, workers, metric, keep
        As in :func:`run_trials`.
    point : int
        The operating point.

    Returns
    -------
    Pace
        The first round, one chip for each worker, starts the workers. It counts only if it takes so long
        that this does not matter; else rounds follow, each longer than the one before, up to a second.
    """
    size = max(1, workers)
    seconds = _round(pool, metric, keep, point, size)
    if seconds < _LONG_S:
        size *= 2
        seconds = _round(pool, metric, keep, point, size)
    while seconds < _TIMED_S:
        size *= min(16, 1 + math.ceil(_TIMED_S / seconds))
        seconds = _round(pool, metric, keep, point, size)
    return Pace(size, seconds / size)


def _round(pool: WorkerPool, metric: Metric, keep: str | None, point: int, size: int) -> float:
    """Seconds that some chips take."""
    begin = time.perf_counter()
    futures = [pool.submit(f"trial {trial}", "chip", metric, keep, point, trial) for trial in range(size)]
    for future in futures:
        future.result()
    return time.perf_counter() - begin

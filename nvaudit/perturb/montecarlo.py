"""Monte-Carlo: many chips, side by side, in any order, with the same result."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.engine import Outcome
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.workers import WorkerPool

Progress = Callable[[str, int, int], None]
"""Told (what, done, total)."""

_QUEUED_PER_WORKER = 4


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


def run_trials(
    pool: WorkerPool,
    workers: int,
    metric: Metric,
    keep: str | None,
    points: int,
    trials: int,
    progress: Progress = lambda what, done, total: None,
    order: NDArray[np.integer] | None = None,
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
        Told of every finished chip.
    order : ndarray of int, optional
        Order in which the chips are run; it has no influence on the values.

    Returns
    -------
    TrialTable
    """
    total = points * trials
    sequence = range(total) if order is None else order.tolist()
    values = np.full((points, trials), np.nan)
    seconds: list[float] = []
    images = 0
    begin = time.perf_counter()
    todo = iter(sequence)
    running: dict[Future[Outcome], int] = {}

    def submit(limit: int) -> None:
        for index in islice(todo, limit):
            point, trial = divmod(index, trials)
            running[pool.submit(f"trial {trial}", "chip", metric, keep, point, trial)] = index

    submit(_QUEUED_PER_WORKER * max(1, workers))
    while running:
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            index = running.pop(future)
            outcome = future.result()
            values[divmod(index, trials)] = outcome.value
            images += outcome.images
            seconds.append(outcome.seconds)
        submit(len(finished))
        progress("chips", len(seconds), total)
    return TrialTable(values, images, float(np.median(seconds)), time.perf_counter() - begin)

"""The loss at every point of the grid, side by side, in any order, with the same result."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.engine import Outcome
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.record import ChipRecord
from nvaudit.perturb.schedule import Progress, completed, quiet
from nvaudit.perturb.workers import Pool


@dataclass(frozen=True)
class LossGrid:
    """Where the loss is evaluated.

    Attributes
    ----------
    span : float
        The grid reaches from −span to span along both directions, in lengths of the weights' filters.
    points : int
        Along each direction.
    pairs : int
        Pairs of directions, each with the whole grid.
    """

    span: float
    points: int
    pairs: int

    def axis(self) -> NDArray[np.float64]:
        """Coordinates along a direction, symmetric to the last bit; the middle of an odd number is 0."""
        # Whole numbers ±k over the same divisor are mirror images exactly; start + i·step rounds
        # differently at the two ends, and may leave the middle beside 0.
        steps = 2 * np.arange(self.points) - (self.points - 1)
        return np.asarray(self.span * (steps / (self.points - 1)))


@dataclass(frozen=True)
class LossTable:
    """The loss at every point.

    Attributes
    ----------
    axis : ndarray, float64, shape (a,)
        Coordinates along both directions.
    losses : ndarray, float64, shape (pair, a, a)
        First along x, then along y.
    images : int
        Inferences made.
    point_seconds : float
        Median seconds of one point inside a worker.
    """

    axis: NDArray[np.float64]
    losses: NDArray[np.float64]
    images: int
    point_seconds: float


def run_grid(
    pool: Pool,
    metric: Metric,
    keep: str | None,
    grid: LossGrid,
    progress: Progress = quiet,
    record: ChipRecord | None = None,
    task: int = 1,
) -> LossTable:
    """Evaluate every point.

    Parameters
    ----------
    pool : Pool
        Its setup is a :class:`nvaudit.perturb.landscape.workload.Plane`.
    metric : Metric
        The loss.
    keep : str or None
        File of what the loss compares with; None: the labels of the data.
    progress : callable
        Told of every finished point.
    record : ChipRecord, optional
        Points that it has are not run again; the others are entered as they finish.
    task : int
        What the losses depend on beside the identity of the record; see :func:`task_digest`.
    """
    axis = grid.axis()
    total = grid.pairs * grid.points**2
    losses = np.empty((grid.pairs, grid.points**2))
    seconds: list[float] = []
    images = 0

    def submit(call: tuple[int, int]) -> Future[Outcome]:
        pair, index = call
        a, b = divmod(index, grid.points)
        what = f"point {index} of direction pair {pair}"
        return pool.submit(what, "point", metric, keep, pair, float(axis[a]), float(axis[b]))

    def known(call: tuple[int, int]) -> Outcome | None:
        return None if record is None else record.find(*call, task)

    todo = deque(product(range(grid.pairs), range(grid.points**2)))
    for (pair, index), outcome, recorded in completed(pool, todo, submit, known):
        if record is not None and not recorded:
            record.add(pair, index, outcome, task)
        losses[pair, index] = outcome.value
        seconds.append(outcome.seconds)
        images += outcome.images
        progress("loss landscape", len(seconds), total)
    shape = (grid.pairs, grid.points, grid.points)
    return LossTable(axis, losses.reshape(shape), images, float(np.median(seconds)))


def task_digest(metric: Metric, grid: LossGrid, images: int) -> int:
    """Name what the loss at a numbered point depends on, beside model, data, seed and batch size.

    Parameters
    ----------
    images : int
        Samples that are used.

    Returns
    -------
    int
        63 bits, never 0, which in a record stands for a chip.
    """
    loss = (metric.kind, metric.class_axis, metric.scale, metric.against)
    text = repr(("landscape", loss, grid.span, grid.points, images))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1 | 1

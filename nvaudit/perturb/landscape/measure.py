"""Measure a landscape: settle the loss, then evaluate it over the planes.

Every point of the grid is a call of its own; they run side by side, in any order, with the same result.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from nvaudit.data import Dataset
from nvaudit.data.spec import NO_NUMBERS
from nvaudit.model import LoadedModel, Rebatch
from nvaudit.perturb.apart import BATCH
from nvaudit.perturb.landscape.loss import Loss, settle_loss
from nvaudit.perturb.landscape.spec import LandscapeSpec
from nvaudit.perturb.landscape.workload import Plane, PlaneRequest, build_plane
from nvaudit.perturb.metrics import Metric, Reading
from nvaudit.perturb.outcome import Outcome, Probe
from nvaudit.perturb.pools import open_pool
from nvaudit.perturb.prepare import original_batch
from nvaudit.perturb.providers import Ran
from nvaudit.perturb.reading import read_output
from nvaudit.perturb.record import ChipRecord
from nvaudit.perturb.schedule import Ending, Progress, completed, quiet
from nvaudit.perturb.stop import Stop
from nvaudit.perturb.workers import Pool


class LandscapeEnded(Exception):
    """The run ended before the first pair of directions was whole."""


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
    stop: Stop | None = None,
    least: int = 1,
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
    stop : Stop, optional
        Ends it early: the table is then of the first pairs that are whole.
    least : int
        So many are made even where the time is over.

    Raises
    ------
    LandscapeEnded
        If no pair could be made.
    """
    axis, stop, each_pair = grid.axis(), Stop() if stop is None else stop, grid.points**2
    losses = np.full((grid.pairs, each_pair), np.nan)
    done = np.zeros(grid.pairs, int)
    outcomes: list[Outcome] = []

    def submit(call: tuple[int, int]) -> Future[Outcome]:
        pair, (a, b) = call[0], divmod(call[1], grid.points)
        what = f"point {call[1]} of direction pair {pair}"
        return pool.submit(what, "point", metric, keep, pair, float(axis[a]), float(axis[b]))

    def known(call: tuple[int, int]) -> Outcome | None:
        return None if record is None else record.find(*call, task)

    def due(call: tuple[int, int]) -> bool:
        if done[:least].sum() < least * each_pair:
            return False
        # A pair that would not be whole in time is of no use, so it is not begun.
        each = median([one.seconds for one in outcomes[-99:]] or [0.0]) / pool.width
        return stop.due((each_pair - done[call[0]]) * each)

    todo, ending = deque(product(range(grid.pairs), range(each_pair))), Ending(due, drain_s=stop.drain_s)
    for (pair, index), outcome, recorded in completed(pool, todo, submit, known, ending):
        if record is not None and not recorded:
            record.add(pair, index, outcome, task)
        losses[pair, index] = outcome.value
        done[pair] += 1
        outcomes.append(outcome)
        progress("loss landscape", len(outcomes), grid.pairs * each_pair)
    whole = int(np.cumprod(done == each_pair).sum())
    if not whole:
        raise LandscapeEnded
    table = losses[:whole].reshape(whole, grid.points, grid.points)
    images, seconds = sum(one.images for one in outcomes), median(one.seconds for one in outcomes)
    return LossTable(axis, table, images, seconds)


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


@dataclass(frozen=True)
class LandscapeSubject:
    """What a landscape is about, settled.

    Attributes
    ----------
    output : str
        Which output the loss reads.
    """

    loaded: LoadedModel
    rebatch: Rebatch
    dataset: Dataset
    output: str

    def read(self, rebatch: Rebatch, probe: Probe) -> Reading:
        """What the graph proves of the output."""
        rank = probe.output.ndim
        return read_output(self.loaded, rebatch, self.output, rank, self.dataset, probe.rows > 1)


@dataclass(frozen=True)
class MeasuredLandscape:
    """What was measured.

    Attributes
    ----------
    nominal : float
        Loss of the unmodified model.
    images : int
        Samples that were used.
    """

    loss: Loss
    nominal: float
    table: LossTable
    images: int
    notes: tuple[str, ...]
    seconds: float
    ran: Ran


def measure(
    spec: LandscapeSpec,
    subject: LandscapeSubject,
    folder: Path,
    progress: Progress = quiet,
    *,
    tolerance: float,
    on_event: Callable[[str], None] = lambda text: None,
    record: ChipRecord | None = None,
    stop: Stop | None = None,
    least: int = 1,
) -> MeasuredLandscape:
    """Evaluate the loss over the planes.

    Parameters
    ----------
    folder : Path
        Where working files may be made.
    progress : callable
        Called with (what, done, total).
    tolerance : float
        Largest difference, relative to the largest output, that re-batching may make.
    on_event : callable
        Told in plain words when a worker was replaced.
    record : ChipRecord, optional
        Points that it has are not run again; the others are entered.
    stop : Stop, optional
        Ends it early; see :func:`run_grid`.
    least : int
        As of :func:`run_grid`.

    Raises
    ------
    LandscapeEnded
        If no pair of directions could be made.
    NvauditError
        If the model has no weights to move, the loss does not fit its outputs, or it overflows.
    """
    begin = time.perf_counter()
    notes: tuple[str, ...] = ()
    for attempt, rebatch in enumerate(_batchings(subject)):
        place = folder / f"landscape-{attempt}"
        place.mkdir()
        request = PlaneRequest(
            subject.loaded, rebatch, subject.dataset, spec.images, subject.output,
            spec.batch_size or BATCH, spec.batch_norm, spec.seed, spec.provider,
        )  # fmt: skip
        plane = build_plane(request, place)
        progress("running the unmodified model", 0, 1)
        with open_pool(spec.workers, spec.dask, plane, plane.base.folder, on_event) as pool:
            probe: Probe = pool.submit("the first batch", "probe").result()
            # The next round takes the model as it is, one original batch at a time; the error is not
            # measured there.
            if probe.rebatch_error is not None and probe.rebatch_error > tolerance:
                moved = f"it moved the outputs by {probe.rebatch_error:.1e} of their range"
                notes = (f"re-batching was undone: {moved}",)
                continue
            kind = "none" if subject.dataset.label_kind in NO_NUMBERS else subject.dataset.label_kind
            labels = None if kind == "none" or plane.base.labels is None else plane.base.labels.open()
            reading = subject.read(rebatch, probe)
            loss = settle_loss(spec.loss, probe.output, labels, kind, spec.class_axis, reading)
            keep = _reference(pool, plane, loss, place)
            nominal: float = pool.submit("the unmodified model", "unmoved", loss.metric, keep).result()
            grid, images = LossGrid(spec.span, spec.grid, spec.pairs), plane.base.count
            task = task_digest(loss.metric, grid, images)
            table = run_grid(pool, loss.metric, keep, grid, progress, record, task, stop, least)
        return MeasuredLandscape(loss, nominal, table, images, notes, time.perf_counter() - begin, probe.ran)
    raise AssertionError("a model that is not re-batched has no error of re-batching")


def _batchings(subject: LandscapeSubject) -> tuple[Rebatch, ...]:
    """Re-batched if that is possible, else, or if it moves the outputs, as the model is."""
    if subject.rebatch.status != "rebatched":
        return (subject.rebatch,)
    size = original_batch(subject.loaded, subject.rebatch)
    return (subject.rebatch, replace(subject.rebatch, status="fixed", fixed_batch=size))


def _reference(pool: Pool, plane: Plane, loss: Loss, folder: Path) -> str | None:
    """Keep what the loss needs of the unmodified model's outputs, if it does."""
    if loss.keep is None:
        return None
    keep = str(folder / "nominal.npy")
    pool.submit("the unmodified model", "nominal", loss.keep, keep, plane.base.ideal).result()
    return keep

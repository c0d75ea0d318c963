"""Measure a landscape: settle the loss, then evaluate it over the planes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from nvaudit.data import Dataset
from nvaudit.data.spec import NO_NUMBERS
from nvaudit.model import LoadedModel, Rebatch
from nvaudit.perturb.apart import BATCH
from nvaudit.perturb.engine import Probe
from nvaudit.perturb.landscape.loss import Loss, settle_loss
from nvaudit.perturb.landscape.run import LossGrid, LossTable, run_grid, task_digest
from nvaudit.perturb.landscape.spec import LandscapeSpec
from nvaudit.perturb.landscape.workload import Plane, PlaneRequest, build_plane
from nvaudit.perturb.metrics import Reading
from nvaudit.perturb.pools import open_pool
from nvaudit.perturb.prepare import original_batch
from nvaudit.perturb.providers import Ran
from nvaudit.perturb.reading import read_output
from nvaudit.perturb.record import ChipRecord
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.workers import Pool


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

    Raises
    ------
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
            labels, kind = plane.base.labels, subject.dataset.label_kind
            if kind in NO_NUMBERS:
                labels, kind = None, "none"
            reading = subject.read(rebatch, probe)
            loss = settle_loss(
                spec.loss, probe.output, None if labels is None else labels.open(), kind, spec.class_axis,
                reading,
            )  # fmt: skip
            keep = _reference(pool, plane, loss, place)
            nominal: float = pool.submit("the unmodified model", "unmoved", loss.metric, keep).result()
            grid, images = LossGrid(spec.span, spec.grid, spec.pairs), plane.base.count
            task = task_digest(loss.metric, grid, images)
            table = run_grid(pool, loss.metric, keep, grid, progress, record, task)
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

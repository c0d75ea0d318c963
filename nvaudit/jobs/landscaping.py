"""The use case: the loss landscape of a model, and its roughness."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit._version import __version__
from nvaudit.data import load_dataset
from nvaudit.files import holding_inputs
from nvaudit.keywords import takes_old, takes_options
from nvaudit.model import analyse_batch, constants
from nvaudit.model.runtime import runtime
from nvaudit.perturb.apart import BATCH, settle_cut
from nvaudit.perturb.landscape.measure import LandscapeSubject, MeasuredLandscape, measure
from nvaudit.perturb.landscape.spec import LandscapeSpec, make_landscape_spec
from nvaudit.perturb.landscape.workload import fixed_tensors, moved_weights
from nvaudit.perturb.lock import lock_folder
from nvaudit.perturb.pools import check_pool
from nvaudit.perturb.record import Identity, Input, open_record
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.stop import Stop, TimeLimit
from nvaudit.report.landscape.result import (
    LandscapeHashes,
    LandscapeReport,
    LossInfo,
    Surface,
    headline,
    pair_fits,
)
from nvaudit.report.sections import DataInfo, LossSurface, ModelInfo, Roughness, RuntimeInfo, TimeBox
from nvaudit.session import REBATCH_TOLERANCE, Session, input_specs, load_runnable, rules_for, settle_output
from nvaudit.stats.roughness import roughness
from nvaudit.task_options import TaskOptions


@takes_old(output="output_name")
@takes_options(LandscapeSpec)
def landscape(
    model: str | Path,
    data: str | Path | None = None,
    *,
    progress: Progress = quiet,
    resume: str | Path | None = None,
    **options: Any,
) -> LandscapeReport:
    """Measure the loss landscape of an ONNX model around its weights, and its roughness.

    Parameters
    ----------
    model : str or Path
        An ONNX file.
    data : str or Path, optional
        Evaluation data; without it ``MODEL.npz`` beside the model, else the unmodified model on synthetic
        inputs is the reference.
    progress : callable or bool
        Called with (what, done, total); True shows a bar.
    resume : str or Path, optional
        A folder that keeps finished points: a run that was cut off goes on where it was.
    **options
        The fields of :class:`LandscapeSpec`.

    Raises
    ------
    NvauditError
        If anything about the input is wrong.
    """
    return run_landscape(make_landscape_spec(model=model, data=data, **options), progress, resume)


def run_landscape(
    spec: LandscapeSpec, progress: Progress = quiet, resume: str | Path | None = None
) -> LandscapeReport:
    """Run a specification; as :func:`landscape`."""
    limit = TimeLimit.of_run(spec.max_minutes)
    begin, share, stop = limit.begin, limit.share(), Stop()
    stop.end_in(None if share is None else 60 * share)
    events: list[str] = []
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        stack.enter_context(holding_inputs())
        progress("reading model and data", 0, 1)
        check_pool(spec.dask)
        loaded = load_runnable(spec.model, spec.seed)
        rebatch = analyse_batch(loaded.model)
        output, notes = settle_output(loaded, spec.output_name)
        notes += loaded.notes
        data = None if spec.data is None else Path(spec.data)
        metric = {"mse": "mse", "binary_cross_entropy": "multilabel"}.get(spec.loss or "")
        dataset = load_dataset(
            data, input_specs(loaded, rebatch), model_path=loaded.path, limit=spec.limit, seed=spec.seed,
            scratch=folder, rules=rules_for(loaded, output, metric, spec.ignore_labels, TaskOptions()),
        )  # fmt: skip
        cut = settle_cut(loaded, rebatch, dataset, output, spec.batch_size, spec.provider)
        notes += cut.notes
        if spec.batch_size is None:
            spec = spec.model_copy(update={"batch_size": cut.batch if cut.dataset.together else BATCH})
        subject = LandscapeSubject(loaded, cut.rebatch, cut.dataset, output)
        record = None
        if resume is not None:
            stack.enter_context(lock_folder(Path(resume)))
            record = stack.enter_context(open_record(Path(resume), _identity(spec, subject)))
        measured = measure(
            spec,
            subject,
            folder,
            progress,
            tolerance=REBATCH_TOLERANCE,
            on_event=events.append,
            record=record,
            stop=stop,
        )
    seconds = {"total": time.perf_counter() - begin, "landscape": measured.seconds}
    return landscape_report(spec, subject, measured, seconds, notes=notes, events=events)


def session_landscape(
    session: Session, progress: Progress = quiet, resume: Path | None = None, stop: Stop | None = None
) -> LandscapeReport:
    """Measure the landscape of a session's model on its data, with the default settings.

    Parameters
    ----------
    session : Session
        Settled; its device does not matter.
    progress : callable
        Called with (what, done, total).
    resume : Path, optional
        A folder that keeps finished points, locked by the caller.
    stop : Stop, optional
        Ends it early: the landscape is then of fewer pairs of directions.

    Raises
    ------
    LandscapeEnded
        If there was no time for a pair of directions.
    ModelError
        If the model has no weights to move, or the loss overflows.
    """
    begin = time.perf_counter()
    run = session.spec
    spec = make_landscape_spec(
        model=run.model,
        data=run.data,
        seed=run.seed,
        output_name=session.workload.output,
        class_axis=run.class_axis,
        ignore_labels=run.ignore_labels,
        limit=run.limit,
        batch_size=run.batch_size,
        provider=run.provider,
        workers=run.workers,
        dask=run.dask,
        max_minutes=run.max_minutes,
    )
    subject = LandscapeSubject(session.loaded, session.rebatch, session.dataset, session.workload.output)
    folder = Path(session.workload.folder)
    with ExitStack() as stack:
        record = None
        if resume is not None:
            resume.mkdir(exist_ok=True)
            record = stack.enter_context(open_record(resume, _identity(spec, subject)))
        measured = measure(
            spec,
            subject,
            folder,
            progress,
            tolerance=REBATCH_TOLERANCE,
            on_event=session.events.append,
            record=record,
            stop=stop,
            least=0,
        )
    return landscape_report(spec, subject, measured, {"total": time.perf_counter() - begin})


def median_surface(report: LandscapeReport) -> LossSurface:
    """Give the surface of the direction pair whose roughness is the median one, as an example of them all."""
    order = sorted(range(len(report.fits)), key=lambda pair: report.fits[pair].roughness)
    # The lower of the two middle ones where the number is even: a surface that was measured, not a mean.
    pair = order[(len(order) - 1) // 2]
    return LossSurface(
        roughness=report.fits[pair].roughness,
        axis=report.surface.axis,
        losses=report.surface.losses[pair],
    )


def _identity(spec: LandscapeSpec, subject: LandscapeSubject) -> Identity:
    """Everything that the loss at a point depends on."""
    inputs = {
        "model": Input(name=str(subject.loaded.path), sha256=subject.loaded.digest),
        "data": Input(name=subject.dataset.source, sha256=subject.dataset.digest),
    }
    versions = {"nvaudit": __version__, "numpy": np.__version__, "onnxruntime": runtime().__version__}
    return Identity(inputs=inputs, options=spec.point_options(), versions=versions)


def landscape_report(
    spec: LandscapeSpec,
    subject: LandscapeSubject,
    measured: MeasuredLandscape,
    timing: Mapping[str, float],
    *,
    notes: Sequence[str] = (),
    events: Sequence[str] = (),
) -> LandscapeReport:
    """Put what was measured into a report.

    Parameters
    ----------
    timing : mapping of str to float
        Seconds.
    """
    table, metric, dataset, loaded = (
        measured.table, measured.loss.metric, subject.dataset, subject.loaded
    )  # fmt: skip
    score, pairs = roughness(table.axis, table.axis, table.losses), len(table.losses)
    boxed = None
    if pairs < spec.pairs and spec.max_minutes is not None:
        whole = (timing["total"] + measured.seconds * (spec.pairs / pairs - 1)) / 60
        boxed = TimeBox(
            minutes=spec.max_minutes,
            done=pairs,
            wanted=spec.pairs,
            what="direction pair",
            whole_minutes=whole,
        )
    summary = Roughness(
        value=score.value,
        spread=score.spread,
        pairs=pairs,
        grid=spec.grid,
        span=spec.span,
        images=measured.images,
        batch_norm=spec.batch_norm,
        loss=measured.loss.name,
    )
    tensors = constants(loaded)
    weights = moved_weights(tensors)
    label_free = dataset.label_kind == "none"
    return LandscapeReport(
        nvaudit_version=__version__,
        headline=headline(summary, label_free, measured.loss.caution),
        label_free=label_free,
        roughness=summary,
        loss=LossInfo(
            name=measured.loss.name, unit=metric.unit, against=metric.against, assumed=measured.loss.assumed,
            nominal=measured.nominal,
        ),
        fits=pair_fits(score, table.losses),
        surface=Surface(axis=table.axis.tolist(), losses=table.losses.tolist()),
        moved=tuple(weight.key for weight in weights),
        moved_numbers=sum(math.prod(weight.shape) for weight in weights),
        fixed=fixed_tensors(tensors),
        data=DataInfo(**dataset.facts()),
        model=ModelInfo(**loaded.facts(), batching=subject.rebatch.reason),
        runtime=RuntimeInfo(**asdict(measured.ran)),
        timing={**timing, "point_median": table.point_seconds},
        run=spec.model_dump(mode="json"),
        hashes=LandscapeHashes(model=loaded.digest, data=dataset.digest),
        events=tuple(events),
        time_boxed=boxed,
        notes=(*notes, *measured.notes, *(() if boxed is None else (boxed.text,))),
    )  # fmt: skip

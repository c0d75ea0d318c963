"""Chips once more, each corrected by what its layers make of a few unlabelled samples."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nvaudit.data import Dataset
from nvaudit.errors import ModelError, OptionError
from nvaudit.jobs.measuring import Measurement, measure_chips
from nvaudit.model import build_template
from nvaudit.model.rescale.centre import Centres, find_centres, watched_means
from nvaudit.model.rescale.chip_correction import ChipCorrection, MeanAndSpread, chip_correction
from nvaudit.perturb.lock import lock_folder
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.record import Identity, Input, open_record
from nvaudit.perturb.schedule import Progress
from nvaudit.perturb.session import open_session, run_session
from nvaudit.perturb.stop import Stop
from nvaudit.perturb.workload import CorrectionGraph, Workload, save_array
from nvaudit.remapping.activations import activation_sizes
from nvaudit.session import Session
from nvaudit.spec import RunSpec

FOLDER = "calibrated"
"""Of the corrected chips, in the folder of a run that can be resumed."""


@dataclass(frozen=True)
class Calibrated:
    """Chips that were corrected.

    Attributes
    ----------
    norms : tuple of str
        Batch normalisations whose statistics were corrected, by what they make.
    layers : tuple of str
        Weights with a gain and a bias behind each output channel.
    left : mapping of str to str
        Weights whose results were not corrected, each with the reason.
    """

    measurement: Measurement
    norms: tuple[str, ...]
    layers: tuple[str, ...]
    left: dict[str, str]


def check_calibration(spec: RunSpec) -> None:
    """Refuse what has no clear meaning with two KPPs, before anything is read.

    Raises
    ------
    OptionError
    """
    if spec.calibrate_chips is None:
        if spec.calibrate_data is not None:
            raise OptionError(
                "--calibrate-data: only with --calibrate-chips N, the number of samples for each chip"
            )
        return
    if spec.min_kpp is not None:
        raise OptionError(
            "--min-kpp and --calibrate-chips: a gate decides about one KPP, and there would be two; run the "
            "gate without --calibrate-chips, or read calibrated.points of the report"
        )


def calibrate_chips(
    session: Session,
    metric: Metric,
    keep: str | None,
    progress: Progress,
    resume: Path | None,
    stop: Stop,
    minutes: float | None,
) -> Calibrated:
    """Measure the chips of an audit again, each corrected.

    Parameters
    ----------
    session : Session
        Of the audit; its chips are drawn from the same streams.
    keep : str or None
        File of the nominal outputs that the metric compares with.
    resume : Path or None
        The run's folder.
    minutes : float or None
        What is left of the time.

    Raises
    ------
    ModelError
        If the model cannot be corrected.
    """
    workload, prepared, left = correction_of(session)
    corrected = replace(session, workload=workload)
    with ExitStack() as stack:
        record = None
        if resume is not None:
            folder = resume / FOLDER
            folder.mkdir(exist_ok=True)
            stack.enter_context(lock_folder(folder))
            record = stack.enter_context(open_record(folder, _identity(session, metric)))
        pool = stack.enter_context(corrected.pool())

        def tell(what: str, done: int, total: int) -> None:
            progress(f"corrected {what}", done, total)

        with stop.waited_for():
            measurement = measure_chips(pool, corrected, metric, keep, tell, record, stop, minutes)
    return Calibrated(measurement, prepared.norms, prepared.layers, left)


def _identity(session: Session, metric: Metric) -> Identity:
    """What corrected chips depend on: as of an audit's chips, and the calibration samples."""
    base, path = session.identity(metric), session.spec.calibrate_data
    if path is None or session.calibration is None:
        return base
    more = {"calibration": Input(name=path, sha256=session.calibration.digest)}
    return base.model_copy(update={"inputs": {**base.inputs, **more}})


def refuse_coupled(session: Session, by: str) -> None:
    """Refuse a model whose calibration samples cannot be run all at once.

    Raises
    ------
    ModelError
        Beginning with the model and what was asked for.
    """
    path, batch = session.loaded.path, session.workload.template.batch
    if session.rebatch.coupled:
        raise ModelError(
            f"{path}: {by}: samples of a batch influence each other, so that a chip on other samples is "
            "another chip; leave it out"
        )
    if batch is not None:
        raise ModelError(
            f"{path}: {by}: the model takes {batch} at a time, and means are taken over all calibration "
            "samples at once; export it with a free batch size"
        )


def correction_of(session: Session) -> tuple[Workload, ChipCorrection, dict[str, str]]:
    """The workload whose chips are corrected one by one, what of them is, and what is left and why."""
    centres, prepared = _prepared(session)
    return _workload(session, prepared), prepared, _left(centres, prepared)


def _left(centres: Centres, prepared: ChipCorrection) -> dict[str, str]:
    """Weights whose results are not corrected, each with the reason."""
    left = dict(centres.refused)
    for key, spot in {spot.key: spot for spot in centres.spots}.items():
        behind_norm = spot.into == "norm" and prepared.norms
        if not behind_norm and key not in prepared.layers:
            left[key] = "what it makes is not in the graph that runs on chips"
    return left


def _prepared(session: Session) -> tuple[Centres, ChipCorrection]:
    """Find where the model can be corrected, and prepare its template for it."""
    samples, work = session.calibration, session.workload
    assert samples is not None
    path = session.loaded.path
    refuse_coupled(session, "--calibrate-chips")
    keys = [tensor.key for tensor in work.tensors]
    seen = activation_sizes(session.loaded, samples, session.rebatch, work.provider)
    centres = find_centres(session.loaded.model, keys, seen)
    clean = _clean_moments(session, centres, samples)
    # A channel that overflows in the ideal model has no mean to come back to.
    finite = {name: pair for name, pair in clean.items() if all(np.isfinite(part).all() for part in pair)}
    correction = chip_correction(Path(work.template.path).read_bytes(), centres, finite)
    if not correction.places:
        raise ModelError(
            f"{path}: --calibrate-chips: the model has no batch normalisation by stored statistics and no "
            "layer whose outputs can be corrected; leave it out"
        )
    return centres, correction


def _clean_moments(session: Session, centres: Centres, samples: Dataset) -> dict[str, MeanAndSpread]:
    """Mean and variance of each channel in the ideal model, on the calibration samples."""
    free = session.rebatch.status == "rebatched"
    # No open places: the ideal model, re-batched as the chips' template is.
    template = build_template(session.loaded, [], batch="free" if free else "keep")
    graph, names = watched_means(template.proto, centres, norms=True, clean=None)
    opened = open_session(graph, template.digital, session.workload.provider)
    wanted = [name for pair in names.values() for name in pair]
    if not wanted:
        return {}
    feeds = {name: np.asarray(array, order="C") for name, array in samples.inputs.items()}
    moments = [array.astype(np.float64) for array in run_session(opened, wanted, feeds)]
    return {name: (moments[2 * i], moments[2 * i + 1]) for i, name in enumerate(names)}


def _workload(session: Session, prepared: ChipCorrection) -> Workload:
    """The workload of an audit with a template that is corrected chip by chip."""
    work, samples = session.workload, session.calibration
    assert samples is not None
    folder = Path(work.folder)
    files = {}
    for name, data in (("finder", prepared.finder), ("corrected", prepared.template)):
        files[name] = folder / f"{name}.onnx"
        files[name].write_bytes(data)
    inputs = {
        name: save_array(folder, f"calibration-{i}", array, samples.batch_axes.get(name))
        for i, (name, array) in enumerate(samples.inputs.items())
    }
    correction = CorrectionGraph(str(files["finder"]), prepared.places, inputs)
    return replace(work, template=replace(work.template, path=str(files["corrected"])), correction=correction)

"""The use case: from a specification to a report."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nvaudit import __version__
from nvaudit.data import Dataset, InputSpec, load_dataset
from nvaudit.device import (
    DeviceProfile,
    OperatingPoint,
    load_profile,
    operating_point,
    override_profile,
    profile_digest,
)
from nvaudit.errors import EngineError, ModelError, OptionError
from nvaudit.findings import tensor_rows
from nvaudit.mapping.crossbar import Crossbar
from nvaudit.mapping.select import Decision, select
from nvaudit.model import LoadedModel, Rebatch, analyse_batch, constants, load_model
from nvaudit.perturb.engine import QUANTISED, Outcome
from nvaudit.perturb.metrics import Metric, resolve_metric
from nvaudit.perturb.montecarlo import Progress, TrialTable, run_trials
from nvaudit.perturb.prepare import Placement, Request, build_workload, original_batch
from nvaudit.perturb.workers import WorkerPool
from nvaudit.perturb.workload import Workload
from nvaudit.report.result import AuditReport
from nvaudit.report.summary import Measured, Questions, summarise
from nvaudit.spec import RunSpec, make_spec

REBATCH_TOLERANCE = 1e-3
"""Largest difference, relative to the largest output, that re-batching may make by rounding."""


def default_workers() -> int:
    """Processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _quiet(what: str, done: int, total: int) -> None:
    """Tell nobody."""


def audit(
    model: str | Path,
    device: str | Path = "rram",
    data: str | Path | None = None,
    *,
    progress: Progress = _quiet,
    **options: Any,
) -> AuditReport:
    """Audit an ONNX model on a device.

    Parameters
    ----------
    model : str or Path
        An ONNX file.
    device : str or Path
        Name of a bundled profile, or a profile file.
    data : str or Path, optional
        Evaluation data; without it ``MODEL.npz`` beside the model, else the audit is label-free.
    progress : callable
        Called with (what, done, total).
    **options
        The fields of :class:`nvaudit.spec.RunSpec`.

    Returns
    -------
    AuditReport

    Raises
    ------
    NvauditError
        If anything about the input is wrong.
    """
    spec = make_spec(model=model, device=device, data=data, **options)
    return run_audit(spec, progress)


@dataclass
class Session:
    """What an audit has settled so far."""

    spec: RunSpec
    loaded: LoadedModel
    profile: DeviceProfile
    points: tuple[OperatingPoint, ...]
    decisions: tuple[Decision, ...]
    rebatch: Rebatch
    dataset: Dataset
    workload: Workload
    notes: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add up the seconds of a phase."""
        begin = time.perf_counter()
        yield
        self.timing[what] = self.timing.get(what, 0.0) + time.perf_counter() - begin


def settle_device(spec: RunSpec) -> tuple[DeviceProfile, tuple[OperatingPoint, ...]]:
    """Profile and operating points of a run."""
    profile = load_profile(spec.device)
    if spec.cell_bits is not None or spec.bits is not None or spec.encoding is not None:
        profile = override_profile(
            profile, cell_bits=spec.cell_bits, weight_bits=spec.bits, encoding=spec.encoding
        )
    sigmas: Sequence[float | None] = spec.sigmas or (None,)
    points = tuple(
        operating_point(profile, sigma, spec.sigma_unit, spec.time_s, spec.enable, spec.disable)
        for sigma in sigmas
    )
    return profile, points


def settle_output(loaded: LoadedModel, wanted: str | None) -> tuple[str, list[str]]:
    """Which output is scored, and a note where that was our choice."""
    names = [output.name for output in loaded.outputs]
    if not names:
        raise ModelError(f"{loaded.path}: the model has no outputs")
    if wanted is not None:
        if wanted not in names:
            raise OptionError(f"--output {wanted!r} is not an output; the model has {', '.join(names)}")
        return wanted, []
    if len(names) == 1:
        return names[0], []
    return names[0], [f"the model has {len(names)} outputs; scored: '{names[0]}' (choose with --output)"]


def input_specs(loaded: LoadedModel, rebatch: Rebatch) -> tuple[InputSpec, ...]:
    """What the data must provide."""
    return tuple(
        InputSpec(spec.name, spec.dtype, spec.shape, rebatch.batch_axes.get(spec.name))
        for spec in loaded.inputs
    )


def prepare(spec: RunSpec, folder: Path, *, rebatching: bool = True) -> Session:
    """Read everything, decide everything, and write the workload; nothing has run yet."""
    profile, points = settle_device(spec)
    loaded = load_model(spec.model)
    rebatch = analyse_batch(loaded.model)
    if rebatch.status == "rebatched" and not rebatching:
        rebatch = replace(rebatch, status="fixed", fixed_batch=original_batch(loaded, rebatch))
    output, notes = settle_output(loaded, spec.output)
    decisions = select(constants(loaded), spec.layers, spec.digital)
    if not any(d.mapped for d in decisions):
        raise ModelError(
            f"{loaded.path}: no tensor would be mapped to the array, so there is nothing to audit; "
            "`nvaudit inspect` lists every tensor with its reason"
        )
    dataset = load_dataset(
        Path(spec.data) if spec.data is not None else None,
        input_specs(loaded, rebatch),
        model_path=loaded.path,
        limit=spec.limit,
        seed=spec.seed,
        scratch=folder,
    )
    placement = Placement(
        profile.weight_bits, profile.cell_bits, profile.encoding, spec.scale == "per_channel"
    )
    request = Request(
        loaded=loaded,
        rebatch=rebatch,
        decisions=decisions,
        points=points,
        how=placement,
        dataset=dataset,
        output=output,
        batch=min(spec.batch_size, dataset.count),
        seed=spec.seed,
        every_device=spec.every_device,
        provider=spec.provider,
    )
    workload = build_workload(request, folder)
    return Session(spec, loaded, profile, points, decisions, rebatch, dataset, workload, notes)


def run_audit(spec: RunSpec, progress: Progress = _quiet) -> AuditReport:
    """Run a specification.

    Raises
    ------
    NvauditError
        If anything about the input is wrong.
    """
    begin = time.perf_counter()
    with _scratch_folder() as folder:
        progress("reading model and data", 0, 1)
        session = prepare(spec, folder)
        session.timing["prepare"] = time.perf_counter() - begin
        report = _measure(session, folder, progress)
        if report is None:
            first, folder = session, folder / "fixed"
            folder.mkdir()
            session = prepare(spec, folder, rebatching=False)
            session.notes.append(first.notes[-1])
            session.events.extend(first.events)
            session.timing["prepare"] = time.perf_counter() - begin
            report = _measure(session, folder, progress)
        assert report is not None
    return report


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A folder for the run's working files, gone afterwards."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="nvaudit-", ignore_cleanup_errors=True)
    except OSError as error:
        raise EngineError(
            f"cannot make a folder for the run's working files: {error.strerror or error}; "
            "set TMPDIR to a folder that can be written"
        ) from error
    with folder as path:
        yield Path(path)


def _measure(session: Session, folder: Path, progress: Progress) -> AuditReport | None:
    """Run ideal, quantised and noisy; None if re-batching turned out to change the outputs."""
    spec, workload = session.spec, session.workload
    begin = time.perf_counter()
    with WorkerPool(spec.workers, workload, session.events.append) as pool:
        progress("running the unmodified model", 0, 1)
        with session.timed("ideal"):
            probe = pool.submit("the first batch", "probe").result()
            if probe.rebatch_error is not None and probe.rebatch_error > REBATCH_TOLERANCE:
                session.notes.append(
                    f"re-batching was undone: it moved the outputs by {probe.rebatch_error:.1e} "
                    "of their range"
                )
                return None
            metric = resolve_metric(
                spec.metric, probe.output, session.dataset.labels, session.dataset.label_kind, spec.class_axis
            )
            check_thresholds(spec, metric)
            keep = str(folder / "nominal.npy") if metric.against == "nominal" else None
            nominal: Outcome = pool.submit(
                "the unmodified model", "nominal", metric, keep, workload.ideal
            ).result()
        with session.timed("quantised"):
            quantised: Outcome = pool.submit(
                "the quantised model", "chip", metric, keep, 0, QUANTISED
            ).result()
        with session.timed("chips"):
            table = run_trials(pool, spec.workers, metric, keep, len(session.points), spec.trials, progress)
    session.timing["total"] = session.timing.get("prepare", 0.0) + time.perf_counter() - begin
    return _report(session, metric, nominal.value, quantised.value, table)


def check_thresholds(spec: RunSpec, metric: Metric) -> None:
    """Refuse a threshold that no value of the metric can be on either side of, such as 90 for 90 %.

    Raises
    ------
    OptionError
        Naming it.
    """
    if metric.unit != "fraction":
        return
    gate = () if spec.min_kpp is None else (spec.min_kpp,)
    for option, values in (("--min-kpp", gate), ("--yield-at", spec.yield_at)):
        for value in values:
            if not 0 <= value <= 1:
                hint = f"; for {value:g} % write {value / 100:g}" if 1 < value <= 100 else ""
                raise OptionError(f"{option} {value:g}: {metric.name} is a fraction from 0 to 1{hint}")


def _report(
    session: Session, metric: Metric, nominal: float, quantised: float, table: TrialTable
) -> AuditReport:
    spec, dataset = session.spec, session.dataset
    worst = max(session.points, key=lambda point: point.sigma)  # what stands at the top of the report
    rows = tensor_rows(
        session.decisions,
        {tensor.key: tensor for tensor in session.workload.tensors},
        worst,
        Crossbar(*spec.crossbar),
    )
    session.timing["chip_median"] = table.chip_seconds
    measured = Measured(
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        unit=metric.unit,
        assumed=metric.assumed,
        nominal=nominal,
        quantised=quantised,
        values=table.values,
        images=table.images,
        images_exhaustive=len(session.points) * spec.trials * dataset.count,
        sigmas=tuple(point.sigma for point in session.points),
        sigma_unit=session.points[0].sigma_unit,
    )
    return summarise(
        measured,
        Questions(spec.percentiles, spec.confidence, spec.yield_at, spec.min_kpp),
        tensors=rows,
        data={
            "source": dataset.source,
            "count": dataset.count,
            "label_kind": dataset.label_kind,
            "skipped": [list(item) for item in dataset.skipped],
            "notes": list(dataset.notes),
        },
        model={
            "path": str(session.loaded.path),
            "opset": session.loaded.opset,
            "inputs": [f"{i.name} {i.dtype} {list(i.shape or ())}" for i in session.loaded.inputs],
            "outputs": [f"{o.name} {o.dtype} {list(o.shape or ())}" for o in session.loaded.outputs],
            "batching": session.rebatch.reason,
        },
        device=session.profile.model_dump(mode="json"),
        operating_point={
            "time_s": worst.time_s,
            "terms": [term.name for term in worst.terms],
        },
        timing=session.timing,
        run=spec.model_dump(mode="json"),
        hashes={
            "model": session.loaded.digest,
            "data": dataset.digest,
            "device": profile_digest(session.profile),
        },
        events=session.events,
        notes=[*session.notes, *_mapping_notes(session)],
        nvaudit_version=__version__,
    )


def _mapping_notes(session: Session) -> list[str]:
    notes = []
    narrow = sorted({t.array.narrow_top for t in session.workload.tensors if t.array.narrow_top})
    for bits in narrow:
        notes.append(
            f"{session.profile.weight_bits} weight bits do not divide into the cell bits: the top slice "
            f"holds {bits} bit{'s' if bits > 1 else ''}"
        )
    frozen = [t.key for t in session.workload.tensors if t.freeze_read]
    if frozen and session.workload.read_noise:
        notes.append(
            "read noise is drawn once per chip instead of per inference for "
            + ", ".join(frozen)
            + " (its operator cannot take it as an output term)"
        )
    zero = [t.key for t in session.workload.tensors if t.peak_code == 0]
    if zero:
        notes.append("all-zero weights carry no noise: " + ", ".join(zero))
    if session.rebatch.coupled:
        notes.append(
            f"samples of a batch influence each other in this model: results hold for --batch-size "
            f"{session.workload.batch}"
        )
    return notes

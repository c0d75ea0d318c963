"""The use case: train a model for a device, write it back as ONNX, and compare the same chips."""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nvaudit._version import __version__
from nvaudit.device import profile_digest
from nvaudit.errors import OptionError
from nvaudit.files import check_inputs, check_product, holding_inputs
from nvaudit.jobs.auditing import run_audit
from nvaudit.jobs.harden_job import HardenJob, prepare_job, write_samples
from nvaudit.jobs.landscaping import run_landscape
from nvaudit.jobs.verifying import run_verify_plan
from nvaudit.keywords import takes_old, takes_options
from nvaudit.mapping.mapping_file import MappingFile, mapping_beside, mapping_data, write_mapping
from nvaudit.model import load_model
from nvaudit.model.message import whole_message
from nvaudit.model.update import update_values
from nvaudit.perturb.landscape.spec import make_landscape_spec
from nvaudit.perturb.lock import lock_folder
from nvaudit.perturb.prepare import original_batch
from nvaudit.perturb.record import Identity, Input
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.session import open_session
from nvaudit.perturb.stop import TimeLimit
from nvaudit.report.hardening.result import (
    HardenHashes,
    HardenReport,
    TrainingInfo,
    beyond_limit,
    harden_report,
    rougher_but_better,
    training_info,
)
from nvaudit.report.result import AuditReport, boxed_together
from nvaudit.report.sections import TimeBox
from nvaudit.report.write_verify.result import VerifyReport
from nvaudit.retrain.available import require_device, require_torch
from nvaudit.retrain.feed import Feed, as_array
from nvaudit.retrain.options import make_harden_spec
from nvaudit.retrain.spec import HardenSpec
from nvaudit.spec import RunSpec
from nvaudit.write_verify.spec import VerifyOptions, VerifySpec

if TYPE_CHECKING:
    from nvaudit.retrain.executor.module import Executor
    from nvaudit.retrain.vat import Judge

_PARITY_SAMPLES = 16

_TRAINED = 0.6
"""Share of ``--max-minutes`` that training may take."""

_FIRST_MEASURED = 0.1
"""Share of that which the first measurement of a roughness may take; there are four at least."""


@takes_old(output="out")
@takes_options(HardenSpec)
def harden(
    model: str | Path,
    device: str | Path = "rram",
    data: str | Path | None = None,
    *,
    out: str | Path,
    progress: Progress = quiet,
    resume: str | Path | None = None,
    **options: Any,
) -> HardenReport:
    """Train an ONNX model to survive a device, and write it as the same ONNX with other weights.

    Parameters
    ----------
    model : str or Path
        An ONNX file; it is not changed.
    device : str or Path
        Name of a bundled profile, or a profile file.
    data : str or Path, optional
        Data to train on; without it ``MODEL.npz`` beside the model.
    out : str or Path
        The ONNX file to write.
    progress : callable or bool
        Called with (what, done, total); True shows a bar.
    resume : str or Path, optional
        A folder that keeps checkpoints: a run that was cut off goes on where it was.
    **options
        The fields of :class:`nvaudit.retrain.spec.HardenSpec`.

    Raises
    ------
    NvauditError
        If anything about the input is wrong, torch is missing, or training diverges.
    """
    spec = make_harden_spec(model=model, device=device, data=data, **options)
    return run_hardening(spec, Path(out), progress, resume)


def run_hardening(
    spec: HardenSpec, output: Path, progress: Progress = quiet, resume: str | Path | None = None
) -> HardenReport:
    """Run a specification; as :func:`harden`."""
    limit = TimeLimit.of_run(spec.max_minutes)
    begin = limit.begin
    inputs = {
        "the model": spec.model,
        "the data": spec.data if spec.data is not None else str(Path(spec.model).with_suffix(".npz")),
        "--val-data": spec.val_data,
        "--test-data": spec.test_data,
        "the device profile": spec.device,
        "--mapping": spec.mapping,
    }
    check_product(output, inputs)
    version = require_torch(spec.method)
    require_device(spec.provider)
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        stack.enter_context(holding_inputs())
        folder = None if resume is None else Path(resume)
        if folder is not None:
            stack.enter_context(lock_folder(folder))
        progress("reading model and data", 0, 1)
        job = prepare_job(spec, scratch)
        if _has_mapping(job):
            check_product(mapping_beside(output), inputs, "the mapping file of -o")
        if spec.provider != "cpu":  # before training, not in the audits after it
            open_session(whole_message(job.loaded), {}, spec.provider)
        job, executor = _executor(job)
        job = replace(job, notes=(*job.notes, *_held(executor)))
        audit_data = write_samples(job, executor, scratch / "samples.npz", job.test)
        timing = {"prepare": time.perf_counter() - begin}
        room = limit.share(_TRAINED)
        judge = _judge(job, executor, scratch, room) if spec.method == "stability-vat" else None
        deadline = math.inf if room is None else time.perf_counter() + 60 * room
        training, scoring = _train(job, executor, version, folder, progress, judge, deadline)
        timing["training"] = time.perf_counter() - begin - timing["prepare"]
        hardened = scratch / "hardened.onnx"
        update_values(job.loaded, executor.values(), hardened)
        audits = [
            _audit(job, path, audit_data, progress, place, limit.share(0.5 if given else 1), given=given)
            for path, place, given in (
                (job.loaded.path, None if folder is None else folder / "before", True),
                (hardened, None if folder is None else folder / _after(training), False),
            )
        ]
        timing["audits"] = time.perf_counter() - begin - sum(timing.values())
        plan = _verify_plan(job, hardened, audit_data, output, progress)
        # The model is written once more, from the same values: the audited copy lies in the scratch folder,
        # and nothing may stand at the output path before the inputs are known to be what was trained on.
        check_inputs()
        update_values(job.loaded, executor.values(), output)
        if _has_mapping(job):  # beside the model, where an audit of it finds them
            write_mapping(mapping_beside(output), _mapping(job, output))
    timing["scoring"] = scoring  # a part of the training
    timing["total"] = time.perf_counter() - begin
    report = _boxed(_report(job, audits, training, output, timing), audits, limit)
    return report if plan is None else report.model_copy(update={"verify_plan": plan})


def _boxed(report: HardenReport, audits: Sequence[AuditReport], limit: TimeLimit) -> HardenReport:
    """Say where the time was over: in training, in the audits."""
    training, boxed = report.training, boxed_together(limit.minutes, audits)
    boxes = [] if boxed is None else [boxed]
    if limit.minutes is not None and training is not None and len(training.history) < training.epochs:
        done, wanted = len(training.history), training.epochs
        boxes.insert(0, TimeBox(minutes=limit.minutes, done=done, wanted=wanted, what="epoch"))
    if not boxes:
        return report
    notes = (*(box.text for box in boxes), *report.notes)
    return report.model_copy(update={"time_boxed": boxes[0], "notes": notes})


def _after(training: TrainingInfo) -> str:
    """Name of the folder that keeps the audit of the result: another candidate is another model."""
    if training.kept_candidate is None:
        return "after"
    return f"after-sigma-{training.candidates[training.kept_candidate].sigma:g}"


def _executor(job: HardenJob) -> tuple[HardenJob, Executor]:
    """The job with what it trains, and the model in torch, which agrees with ONNX Runtime on the data."""
    from nvaudit.retrain.executor.checks import check_finite, check_gradient, check_parity
    from nvaudit.retrain.executor.module import build_executor

    executor = build_executor(job.loaded, outputs=(job.output,))
    job = _trained(job, executor)
    count = original_batch(job.loaded, job.rebatch) or _PARITY_SAMPLES
    data, rows = job.train
    first = Feed(data, rows).take(rows[:count]).inputs
    check_finite(executor, first, job.output)
    check_parity(executor, job.loaded, {name: as_array(value) for name, value in first.items()})
    idle = check_gradient(executor, first, job.output)
    if idle:
        names = ", ".join(map(repr, idle))
        job = replace(job, notes=(*job.notes, f"no gradient of {job.output!r} reaches {names}: not trained"))
    return job, executor


def _trained(job: HardenJob, executor: Executor) -> HardenJob:
    """Leave out the weights that the trained output does not depend on.

    Raises
    ------
    OptionError
        If one is of a type that torch cannot train, or none is left.
    """
    for weight in job.weights:
        kind = executor.untrainable.get(weight.key)
        if kind is not None:
            raise OptionError(
                f"{job.loaded.path}: weight {weight.key!r} is stored as {kind}, which has no gradient and no "
                f"grid of whole numbers; keep it as it is with --digital {weight.key}, harden the model from "
                "before it was cast, or use --method remap"
            )
    there = set(executor.mapped)
    left = tuple(weight for weight in job.weights if weight.key in there)
    if not left:
        raise OptionError(
            f"{job.loaded.path}: the output {job.output!r} depends on no weight on the array; choose another "
            "with --output-name"
        )
    if len(left) == len(job.weights):
        return job
    names = ", ".join(repr(weight.key) for weight in job.weights if weight.key not in there)
    note = f"the trained output {job.output!r} does not depend on {names}: written back as they are"
    splits = tuple(split for split in job.splits if split.key in there)
    return replace(job, weights=left, splits=splits, notes=(*job.notes, note))


def _held(executor: Executor) -> list[str]:
    """Say which computed weights training leaves alone."""
    if not executor.held:
        return []
    return [
        "not trained, as torch lacks an operator that computes them from what the file stores (noise is on "
        "them all the same): " + ", ".join(executor.held)
    ]


_LOSS = {"mse": "mse", "multilabel": "binary_cross_entropy"}
"""Losses of landscapes that take labels as a metric does."""


def _judge(job: HardenJob, executor: Executor, scratch: Path, minutes: float | None) -> Judge:
    """What measures the roughness of the network in training: as a file, on the validation samples.

    Within ``minutes`` for the training, by as many pairs of directions as the first measurement had time for:
    networks are compared along the same ones.
    """
    data = write_samples(job, executor, scratch / "validation.npz", job.val)
    spec = make_landscape_spec(
        model=job.loaded.path, data=data, seed=job.spec.seed, output_name=job.output,
        class_axis=job.spec.class_axis, ignore_labels=job.spec.ignore_labels, workers=job.spec.workers,
        loss=_LOSS.get(job.spec.metric or ""),
    )  # fmt: skip

    if minutes is not None:
        spec = spec.model_copy(update={"max_minutes": minutes * _FIRST_MEASURED})

    def judge() -> tuple[float, float | None]:
        nonlocal spec
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            path = Path(folder) / "candidate.onnx"
            update_values(job.loaded, executor.values(), path)
            roughness = run_landscape(spec.model_copy(update={"model": str(path)}), quiet).roughness
        spec = spec.model_copy(update={"pairs": roughness.pairs, "max_minutes": None})
        return roughness.value, roughness.spread

    return judge


def _train(
    job: HardenJob,
    executor: Executor,
    version: str,
    folder: Path | None,
    progress: Progress,
    judge: Judge | None,
    deadline: float,
) -> tuple[TrainingInfo, float]:
    """Train in place; how it went, and the seconds that scores took."""
    from nvaudit.retrain.checkpoint import CheckpointFolder
    from nvaudit.retrain.run import train_network
    from nvaudit.retrain.subject import TrainingSubject

    spec = job.spec
    subject = TrainingSubject(
        weights=job.weights,
        layouts={weight.key: executor.stored_layout(weight.key) for weight in job.weights},
        point=job.point,
        train=job.train[0],
        train_rows=job.train[1],
        val=job.val[0],
        val_rows=job.val[1],
        output=job.output,
        batch_axis=job.batch_axis,
        vat_points=job.vat_points,
        splits=job.splits,
        codes=job.codes,
        digital_outliers=job.digital_outliers,
        read=job.reading,
    )
    checkpoints = None if folder is None else CheckpointFolder(folder, _identity(job, version))
    state, facts = train_network(executor, subject, spec, progress, checkpoints, judge, deadline)
    info = training_info(
        state.history,
        facts,
        samples=len(job.train[1]),
        validation_samples=len(job.val[1]),
        epochs=spec.run_epochs,
    )
    return info, float(facts["score_seconds"])


def _identity(job: HardenJob, version: str) -> Identity:
    """Everything that the trained weights depend on."""
    inputs = {
        "model": Input(name=str(job.loaded.path), sha256=job.loaded.digest),
        "data": Input(name=job.train[0].source, sha256=job.train[0].digest),
        "validation data": Input(name=job.val[0].source, sha256=job.val[0].digest),
        "device": Input(name=job.point.profile.name, sha256=profile_digest(job.point.profile)),
    }
    if _has_mapping(job):
        mapping = _mapping(job, job.loaded.path).model_dump_json().encode()
        inputs["codes"] = Input(name=job.codes_asked, sha256=hashlib.sha256(mapping).hexdigest())
    versions = {"nvaudit": __version__, "numpy": np.__version__, "torch": version}
    return Identity(inputs=inputs, options=job.spec.training_options(), versions=versions)


def _audit(
    job: HardenJob,
    model: Path,
    data: Path,
    progress: Progress,
    folder: Path | None,
    minutes: float | None,
    *,
    given: bool,
) -> AuditReport:
    spec = _audit_spec(job, model, data, given=given).model_copy(update={"max_minutes": minutes})
    report = run_audit(spec, progress, folder)
    # The files of samples and codes are gone afterwards: they are the user's.
    changed: dict[str, object] = {"data": report.data.model_copy(update={"source": job.test[0].source})}
    if report.codes is not None:
        changed["codes"] = report.codes.model_copy(update={"asked": job.codes_asked})
    return report.model_copy(update=changed)


def _audit_spec(job: HardenJob, model: Path, data: Path, *, given: bool = False) -> RunSpec:
    spec = job.spec
    if job.test[0].labels is None and spec.metric == "agreement":
        spec = spec.model_copy(update={"metric": None})  # the labels are the given model's decisions
    audit = spec.audit_spec(model, str(data), (), given=given)
    if job.test[0].together:
        audit = audit.model_copy(update={"batch_size": job.test[0].together})
    if job.codes is None:
        return audit.model_copy(update={"digital_outliers": job.digital_outliers})
    # Both models have the codes that were chosen for the given one: as the file beside the result says.
    own = {"code": None, "devices_per_weight": None, "allocate": None, "encoding": None}
    return audit.model_copy(update={**own, "mapping": str(_codes_file(job, model, data))})


def _codes_file(job: HardenJob, model: Path, data: Path) -> Path:
    """The mapping file of a model of the audits, in the folder of their samples."""
    path = data.parent / f"{'given' if model == job.loaded.path else model.stem}.mapping.json"
    if not path.exists():
        write_mapping(path, _mapping(job, model))
    return path


def _has_mapping(job: HardenJob) -> bool:
    """Whether weights lie otherwise than all in slices."""
    return job.codes is not None or job.digital_outliers is not None


def _mapping(job: HardenJob, model: Path) -> MappingFile:
    codes, point = job.codes, job.point
    return mapping_data(
        {} if codes is None else codes.of,
        model_sha256=load_model(model).digest,
        device=point.profile.name,
        sigma=point.sigma,
        variance=() if codes is None else tuple(codes.rounded_by.tolist()),
        nearest=() if codes is None else codes.nearest,
        digital_outliers=job.digital_outliers,
    )


def _verify_plan(
    job: HardenJob, model: Path, data: Path, output: Path, progress: Progress
) -> VerifyReport | None:
    """Plan the write-verify of the hardened model on the samples of the audits, if asked for.

    The plan is made from working files that are gone afterwards; it names what the user has instead: the
    hardened model, and where its samples are from.
    """
    if not job.spec.verify_plan:
        return None
    plan = run_verify_plan(VerifySpec(_audit_spec(job, model, data), VerifyOptions()), None, progress)
    source = job.test[0].source
    return plan.model_copy(
        update={
            "model": None if plan.model is None else plan.model.model_copy(update={"path": str(output)}),
            "data": plan.data.model_copy(update={"source": source}),
            "run": {**plan.run, "model": str(output), "data": source},
            "ranked_by": plan.ranked_by.replace(str(data), source),
        }
    )


def _report(
    job: HardenJob, audits: list[AuditReport], training: TrainingInfo, output: Path, timing: dict[str, float]
) -> HardenReport:
    before, after = audits
    notes = [*job.notes, *job.train[0].notes]
    if job.spec.test_data is None and (training.kept == "best" or job.spec.method == "trice"):
        notes.append(
            "the audits run on the samples that the training chose its result by, which flatters it a "
            "little; --test-data gives them others"
        )
    better = before.metric_info.higher_is_better
    gain = after.kpp[0].value - before.kpp[0].value
    if (gain if better else -gain) < 0:
        notes.append(
            "the hardened model is worse than the given one on the samples of the audits: train on more "
            "samples or longer, with a lower --lr, with --keep better (the given model is then the result "
            "where it is the better one), or use --method remap, which needs no training"
        )
    if beyond_limit(training):
        notes.append(
            "training cost more without noise than --max-clean-loss allows, so the given model's own weights "
            "are the result: train on more samples, or more gently (a lower --lr, a higher --clip-weights)"
            + (", or let --keep best choose among the epochs" if training.kept == "better" else "")
        )
    elif training.kept_epoch == 0 and training.epochs:
        notes.append(
            "no epoch surpassed the given model on the validation samples, so its own weights are the result"
        )
    notes += rougher_but_better(training, before.metric_info, job.spec.percentile)
    if job.spec.ternary:
        notes.append(
            f"the given model is mapped at the profile's {before.device.get('weight_bits')} bits, the "
            "hardened one at 1 magnitude bit: its weights are −a, 0 and a"
        )
    return harden_report(
        before,
        after,
        job.spec.yield_at,
        job.test[0].labels is None,
        nvaudit_version=__version__,
        method=job.spec.method,
        training=training,
        hardened=str(output),
        timing=timing,
        run=job.spec.model_dump(mode="json"),
        hashes=HardenHashes(
            model=job.loaded.digest,
            hardened=after.hashes.model,
            data=job.train[0].digest,
            device=profile_digest(job.point.profile),
        ),
        events=(*before.events, *after.events),
        notes=tuple(dict.fromkeys(notes)),
    )

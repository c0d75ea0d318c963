"""The use case: several models on one device, ranked (stability-based model selection)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit._version import __version__
from nvaudit.data import Dataset
from nvaudit.errors import DataError, OptionError
from nvaudit.files import check_writable, holding_inputs, write_text_atomic
from nvaudit.jobs.auditing import run_audit
from nvaudit.jobs.candidates import ComparisonPlan, Named, plan_comparison
from nvaudit.jobs.several import OneOfSeveral, estimate, shared_by, slug
from nvaudit.keywords import takes_old, takes_options
from nvaudit.perturb.pools import check_pool
from nvaudit.perturb.record import forgiven
from nvaudit.perturb.schedule import Progress, labelled, quiet
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.stop import TimeLimit
from nvaudit.report.comparison.build import Entry, compare_reports
from nvaudit.report.comparison.conditions import (
    ConditionValues,
    check_comparable,
    check_same,
    conditions_of,
    point_conditions,
)
from nvaudit.report.comparison.result import ComparisonReport
from nvaudit.report.jsontext import to_json
from nvaudit.report.result import AuditReport, boxed_together, from_json
from nvaudit.session import Session, prepare
from nvaudit.spec import RunSpec

REPORT_FILE = "report.json"
"""In the folder of a model, once its audit is finished."""

_NO_INFLUENCE = frozenset({"workers", "dask", "max_minutes"})


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it runs; ``settled``: options as the run has them, given or not."""

    labels: str | None
    hashes: Mapping[str, str | None]
    conditions: ConditionValues
    settled: Mapping[str, int | str | None]


@takes_old(output="output_name")
@takes_options(RunSpec)
def compare(
    models: Sequence[Named],
    device: Named = "rram",
    data: Named | Mapping[str, Named] | None = None,
    *,
    rank_by: str = "kpp",
    baseline: Named | None = None,
    progress: Progress = quiet,
    resume: Named | None = None,
    reports: Named | None = None,
    **options: Any,
) -> ComparisonReport:
    """Audit several models under the same conditions and rank them.

    Parameters
    ----------
    models : sequence of str or Path
        ONNX files, and reports (``.json``) of earlier audits, which are not run again.
    device : str or Path
        Name of a bundled profile, or a profile file.
    data : str or Path, or mapping of str to str or Path, optional
        Evaluation data of all models, or of each by its path or name; a model that is left out has
        ``MODEL.npz`` beside it, or else is audited label-free.
    rank_by : {"kpp", "mean", "nominal", "yield", "roughness", "size"}
    baseline : str or Path, optional
        Path or name of the model that the others are compared with; without it the chosen one.
    progress : callable or bool
        Called with (what, done, total); True shows a bar.
    resume : str or Path, optional
        A folder with a folder for each model: a comparison that was cut off goes on where it was, and
        models that are finished are not run again.
    reports : str or Path, optional
        A folder for the report of each model.
    **options
        The fields of :class:`nvaudit.spec.RunSpec`, the same for all models.

    Raises
    ------
    NvauditError
        If anything about the input is wrong; all models and data are read before the first one runs.
    """
    plan = plan_comparison(
        models,
        device=device,
        data=None if isinstance(data, Mapping) else data,
        data_for=data if isinstance(data, Mapping) else None,
        rank_by=rank_by,
        baseline=baseline,
        options=options,
    )
    return run_comparison(
        plan, progress, None if resume is None else Path(resume), None if reports is None else Path(reports)
    )


@holding_inputs()
def run_comparison(
    plan: ComparisonPlan,
    progress: Progress = quiet,
    resume: Path | None = None,
    reports: Path | None = None,
    on_estimate: Callable[[str], None] | None = None,
) -> ComparisonReport:
    """Run a plan; as :func:`compare`.

    Parameters
    ----------
    on_estimate : callable, optional
        Told in words how long it will take, before it begins; without it nothing is timed.
    """
    limit, events = TimeLimit.of_run(_minutes_of(plan)), list[str]()
    if reports is not None:
        _make_folder(reports)
    checked = _check_models(plan, progress)
    entries = {name: Entry(plan.reports[name], None, plan.files[name]) for name in plan.reports}
    several = [OneOfSeveral(name, spec) for name, spec in plan.specs.items()]
    with shared_by(several, events):
        if several and on_estimate is not None:
            on_estimate(estimate(several, limit.minutes, progress))
        for number, (name, spec) in enumerate(plan.specs.items(), 1):
            folder = None if resume is None else resume / _folder_name(name, spec)
            label = f"{name} ({number} of {len(plan.specs)})"
            share = limit.share(1 / (len(plan.specs) - number + 1))
            timed = spec.model_copy(update={"max_minutes": share, "trials": spec.trials})
            report = _run(timed, checked[name], labelled(progress, label), folder)
            report = report.model_copy(update={"events": (*report.events, *events)})
            events.clear()
            entries[name] = Entry(report, checked[name].labels)
            if reports is not None:
                write_text_atomic(reports / f"{slug(name)}.json", to_json(report) + "\n")
    comparison = compare_reports(
        {name: entries[name] for name in plan.order},
        plan.rank_by,
        plan.baseline,
        version=__version__,
        timing={"total": 60 * limit.spent},
    )
    boxed = boxed_together(limit.minutes, [entries[name].report for name in plan.specs])
    if boxed is None:
        return comparison
    return comparison.model_copy(update={"time_boxed": boxed, "notes": (boxed.text, *comparison.notes)})


def _minutes_of(plan: ComparisonPlan) -> float | None:
    """The time of all audits together."""
    return next((spec.max_minutes for spec in plan.specs.values()), None)


def _check_models(plan: ComparisonPlan, progress: Progress) -> dict[str, ModelFacts]:
    """Read every model with its data, so that a bad one is found before the first one runs."""
    checked: dict[str, ModelFacts] = {}
    for spec in list(plan.specs.values())[:1]:
        check_pool(spec.dask)
    for number, (name, spec) in enumerate(plan.specs.items()):
        progress("reading models and data", number, len(plan.specs))
        with scratch_folder() as folder:
            session = prepare(spec, folder)
            checked[name] = ModelFacts(
                _labels_digest(session.dataset),
                session.hashes(),
                _conditions(session),
                {"batch_size": session.spec.batch_size, "mapping": session.spec.mapping},
            )
    every = {name: conditions_of(report) for name, report in plan.reports.items()}
    every |= {name: check.conditions for name, check in checked.items()}
    (first, mine), *others = every.items()
    for name, other in others:
        # Reports of earlier audits may differ in device, sigma, time; what is run now stands under one.
        (check_same if plan.specs else check_comparable)(first, mine, name, other)
    return checked


def _conditions(session: Session) -> ConditionValues:
    """What is known before the run of what must be equal."""
    point, spec = session.points[0], session.spec
    return {
        **point_conditions(
            session.profile.model_dump(mode="json"),
            point.sigma,
            point.sigma_unit,
            point.time_s,
            [term.name for term in point.terms],
        ),
        "percentile": spec.percentiles[0],
        "confidence": spec.confidence,
        "labels": "none" if session.dataset.label_kind == "none" else "there",
    }


def _labels_digest(dataset: Dataset) -> str | None:
    """SHA-256 of the labels, the same whatever integer type they have."""
    if dataset.labels is None:
        return None
    labels = np.asarray(dataset.labels)
    # uint8 labels of one file and int64 of another are the same labels.
    labels = labels.astype(np.int64 if labels.dtype.kind in "iub" else labels.dtype, copy=False)
    head = f"{labels.dtype.str} {labels.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(labels).tobytes()).hexdigest()


def _run(spec: RunSpec, checked: ModelFacts, progress: Progress, folder: Path | None) -> AuditReport:
    """Audit one model, or give its finished audit."""
    if folder is None:
        return run_audit(spec, progress)
    kept = folder / REPORT_FILE
    finished = _finished(kept, spec, checked)
    if finished is not None:
        return finished
    report = run_audit(spec, progress, folder)
    with forgiven(folder):
        write_text_atomic(kept, to_json(report) + "\n")
    return report


def _finished(path: Path, spec: RunSpec, checked: ModelFacts) -> AuditReport | None:
    """Give the report of the same run; None if there is none."""
    if spec.metric is not None and ":" in spec.metric:  # the user's code may have changed
        return None
    try:
        report = from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError, DataError):
        return None
    # Workers and clusters change no value. What was settled where nothing was given (the batch size, say)
    # may: it stands in the report as it was settled.
    options = spec.model_dump(mode="json", exclude=set(_NO_INFLUENCE)) | dict(checked.settled)
    same = (
        report.nvaudit_version == __version__
        and report.time_boxed is None
        and {key: value for key, value in report.run.items() if key not in _NO_INFLUENCE} == options
        and report.hashes.model_dump() == dict(checked.hashes)
    )
    return report if same else None


def _folder_name(name: str, spec: RunSpec) -> str:
    """Name the folder of a model: readable, and the same whatever else is compared with it."""
    digest = hashlib.sha256(str(Path(spec.model).resolve()).encode()).hexdigest()
    return f"{slug(Path(name).stem or 'model')}-{digest[:8]}"


def _make_folder(folder: Path) -> None:
    """Find out before long work whether reports can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise OptionError(f"--reports {folder}: cannot be made: {why}; name another folder") from error
    check_writable(folder / "model.json")

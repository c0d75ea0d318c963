"""The use case: from a specification to a report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit.coverage import Coverage, count_coverage
from nvaudit.device import Normal, OperatingPoint
from nvaudit.errors import DataError, ModelError, OptionError
from nvaudit.jobs.attributing import Ask, AttributionPlan, plan_attribution, run_attribution
from nvaudit.jobs.baselines import settle_baseline
from nvaudit.jobs.calibrating import Calibrated, calibrate_chips, check_calibration
from nvaudit.jobs.costing import session_cost
from nvaudit.jobs.landscaping import median_surface, session_landscape
from nvaudit.jobs.measured import notes_on_chips, run_measured, with_manifest
from nvaudit.jobs.measuring import (
    Measurement,
    fit_default_chips,
    how_it_ended,
    measure_chips,
    sizes_are_free,
    with_time_for,
)
from nvaudit.jobs.rare import RareEnded, check_rare, chips_needed, find_rare, unanswered
from nvaudit.jobs.suggesting import find_remedy
from nvaudit.keywords import takes_old, takes_options
from nvaudit.mapping.tiling import Crossbar
from nvaudit.perturb.engine import QUANTISED, Engine
from nvaudit.perturb.landscape.measure import LandscapeEnded
from nvaudit.perturb.lock import lock_folder
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.moments import device_facts
from nvaudit.perturb.outcome import Outcome, Probe
from nvaudit.perturb.prepare import noisy_in_reading
from nvaudit.perturb.record import ChipRecord, open_record
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.stop import Stop, TimeLimit
from nvaudit.perturb.workers import Pool
from nvaudit.report.attribution.result import AttributionDetail
from nvaudit.report.cost.result import CostInfo
from nvaudit.report.crossbar import CrossbarInfo, partly_converted
from nvaudit.report.device.result import describe_levels
from nvaudit.report.groups import ZeroGroups
from nvaudit.report.result import AuditReport, CalibratedChips, NotCorrected
from nvaudit.report.sections import ReportPart, TensorDecision
from nvaudit.report.summary import MeasuredAudit, Questions, measured_points, summarise
from nvaudit.report.wording import count_text
from nvaudit.session import Session, prepared, run_nominal, run_probe
from nvaudit.spec import RunSpec, axes_of, make_spec
from nvaudit.technology_options import check_technology
from nvaudit.tensor_table import (
    crossbar_info,
    measured_late,
    tensor_rows,
    with_crossbars,
    without_zero_groups,
    zero_groups_found,
)


@takes_old(output="output_name")
@takes_options(RunSpec)
def audit(
    model: str | Path,
    device: str | Path = "rram",
    data: str | Path | None = None,
    *,
    progress: Progress = quiet,
    resume: str | Path | None = None,
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
    progress : callable or bool
        Called with (what, done, total); True shows a bar.
    resume : str or Path, optional
        A folder that keeps finished chips: a run that was cut off goes on where it was.
    **options
        The fields of :class:`nvaudit.spec.RunSpec`.

    Raises
    ------
    NvauditError
        If anything about the input is wrong.
    """
    several, single = axes_of({"model": model, "device": device, "data": data, **options})
    if several:
        names = ", ".join(several)
        raise OptionError(f"{names}: several values are a sweep: nvaudit.sweep takes them; give one here")
    return run_audit(make_spec(**single), progress, resume, alone=True)


def run_audit(
    spec: RunSpec,
    progress: Progress = quiet,
    resume: str | Path | None = None,
    stop: Stop | None = None,
    *,
    alone: bool = False,
) -> AuditReport:
    """Run a specification.

    Parameters
    ----------
    progress : callable
        Called with (what, done, total).
    resume : str or Path, optional
        A folder that keeps finished chips; made if it is missing. It has no influence on results.
    stop : Stop, optional
        Ends the run early: the report is then of the chips that are finished.
    alone : bool
        Whether nothing is held against this audit: it may then be of fewer samples where all are too many.

    Raises
    ------
    KeyboardInterrupt
        If the run is interrupted before the first chip is finished, or without ``stop``.
    NvauditError
        If anything about the input is wrong, the folder is of another run, or another process uses it.
    """
    limit = TimeLimit.of_run(spec.max_minutes)
    check_calibration(spec)
    check_rare(spec)
    spec = with_manifest(spec)
    check_technology(spec, spec.adc_bits, audited=True)
    folder = None if resume is None else Path(resume)
    with ExitStack() as stack:
        if folder is not None:
            stack.enter_context(lock_folder(folder))
        wish = Stop() if stop is None else stop
        free = sizes_are_free(spec)

        def work(session: Session) -> AuditReport | Probe:
            fitting = with_time_for(session, limit.left_s) if alone else session
            # With more time the samples would be others: these chips are of no use then.
            place = folder if fitting is session or free else None
            return _measure(fitting, limit, progress, place, wish, free)

        return prepared(spec, progress, work)


def check_together(spec: RunSpec) -> None:
    """Refuse options that say nothing without another, or contradict one.

    Raises
    ------
    OptionError
        Naming them.
    """
    _check_gate(spec)
    for option, value in (("trials", spec.attribution_trials), ("images", spec.attribution_images)):
        if value is not None and not spec.attribute:
            raise OptionError(f"--attribution-{option} is for an attribution; ask for one with --attribute")


def _check_gate(spec: RunSpec) -> None:
    """Refuse options of a gate where none is decided while chips are drawn."""
    given = {
        "--max-trials": spec.max_trials is not None,
        "--max-minutes": spec.max_minutes is not None and spec.gated,
        "--all-trials": spec.all_trials,
    }
    named = [name for name, there in given.items() if there]
    # Without a gate all chips are drawn anyway, as a report that is to be a baseline should have.
    if not spec.gated and not {*named} <= {"--all-trials"}:
        raise OptionError(f"{named[0]} is for a gate; give one with --min-kpp")
    if (spec.max_drop is None) != (spec.baseline_report is None):
        both = ("--baseline", "--max-drop")[:: 1 if spec.max_drop is None else -1]
        raise OptionError(f"{both[0]}: give {both[1]} too; the gate on a drop needs both")
    if spec.exhaustive and named:
        raise OptionError(f"{named[0]} and --exhaustive: choose one; --exhaustive draws all --trials")
    if spec.all_trials and len(named) > 1:
        raise OptionError(f"--all-trials and {named[0]}: choose one")
    if spec.exhaustive and spec.tolerance is not None:
        raise OptionError("--tolerance and --exhaustive: choose one; --exhaustive makes no races")


def _measure(
    session: Session, limit: TimeLimit, progress: Progress, folder: Path | None, stop: Stop, free: bool
) -> AuditReport | Probe:
    """Run ideal, quantised and noisy; the probe if re-batching turned out to change the outputs."""
    spec, begin = session.spec, limit.begin
    session.timing["prepare"] = time.perf_counter() - begin
    with ExitStack() as stack:
        ask = Ask(spec.attribute, spec.attribution_trials, spec.attribution_images)
        plan = plan_attribution(session, ask) if spec.attribute else None
        pool = stack.enter_context(session.pool())
        progress("running the unmodified model", 0, 1)
        metric = run_probe(pool, session)
        # Re-batching moved the outputs by more than rounding: `prepared` begins again with the model as it
        # is.
        if isinstance(metric, Probe):
            return metric
        baseline = settle_baseline(session, metric)
        record: ChipRecord | None = None
        if folder is not None:
            record = stack.enter_context(open_record(folder, session.identity(metric)))
            session.events.extend(_resumed(record, folder, len(session.points), spec.trials))
        keep = session.reference_file(metric)
        nominal = run_nominal(pool, session, metric)
        with session.timed("quantised"):
            # Through the pool, as chips are: the same graph and cut of the samples, so that the difference
            # to a chip is its noise alone.
            quantised: Outcome = pool.submit(
                "the quantised model", "chip", metric, keep, 0, QUANTISED
            ).result()
            crossbar = None if session.crossbar is None else _with_ideal_converters(session, metric)
        if free:
            fit_default_chips(session, metric, quantised.seconds, pool.width)
        with session.timed("chips"), stop.waited_for():
            # What is asked about the chips afterwards has its share, or there would never be time for it.
            share = limit.share(0.5 if plan is not None else 1.0)
            measurement = measure_chips(pool, session, metric, keep, progress, record, stop, share, baseline)
        rare, measurement = _rare(
            session, pool, metric, keep, measurement, progress, record, stop, limit.share()
        )
        calibrated = None
        with _as_time_permits(
            session, stop, measurement.ended, "chips were not corrected", spec.calibrate_chips is not None
        ):
            if spec.calibrate_chips is not None and not measurement.ended:
                with session.timed("corrected chips"):
                    calibrated = calibrate_chips(session, metric, keep, progress, folder, stop, limit.share())
        read_back = _chips_read_back(session, metric, keep, measurement, stop, progress)
        detail = _attribution(plan, session, pool, metric, progress, stop, limit, measurement)
    landscape: dict[str, Any] = {}
    with _as_time_permits(session, stop, measurement.ended, "the roughness was not measured", spec.roughness):
        if spec.roughness and not measurement.ended and not stop.interrupted:
            with stop.ending_in(limit.share()):
                landscape = _landscape(session, progress, folder, stop)
    landscape = {**landscape, **read_back, **rare}
    if crossbar is not None:
        landscape = {**landscape, "crossbar": crossbar}
    with _as_time_permits(session, stop, False, "the hardware was not costed", bool(spec.technology)):
        if spec.technology is not None and not stop.interrupted:
            with session.timed("hardware cost"):
                landscape = {**landscape, "cost": _cost(session, measurement, progress)}
    with session.timed("products"):
        coverage = count_coverage(session.loaded, session.rebatch, session.decisions, session.dataset)
    session.timing["total"] = time.perf_counter() - begin
    values = (nominal, quantised.value)
    report = _report(session, metric, values, (measurement, calibrated), detail, landscape, coverage, stop)
    if not spec.suggest or stop.interrupted or limit.is_over:
        return report
    return _with_remedy(report, session, metric, measurement.chip_seconds, begin, progress)


def _with_remedy(
    report: AuditReport,
    session: Session,
    metric: Metric,
    chip_seconds: float,
    begin: float,
    progress: Progress,
) -> AuditReport:
    """Add to a report whose gate does not hold what another code would give."""
    start = time.perf_counter()
    remedy = find_remedy(session, metric, chip_seconds, report, begin, progress)
    if remedy is None:
        return report
    end = time.perf_counter()
    timing = {**report.timing, "another code": end - start, "total": end - begin}
    return report.model_copy(update={"remedy": remedy, "timing": timing})


def _chips_read_back(
    session: Session,
    metric: Metric,
    keep: str | None,
    measurement: Measurement,
    stop: Stop,
    progress: Progress,
) -> dict[str, Any]:
    """Run the chips that were read back, if any were given: a field of the report."""
    if session.spec.chip is None:
        return {}
    with _as_time_permits(
        session, stop, measurement.ended, "the chips that were read back were not run", True
    ):
        if not measurement.ended:
            with session.timed("chips read back"):
                measured = run_measured(session, metric, keep, measurement.chips[0], progress)
            session.notes.extend(notes_on_chips(measured, session.dataset.count))
            return {"measured_chips": measured}
    return {}


def _rare(
    session: Session,
    pool: Pool,
    metric: Metric,
    keep: str | None,
    measurement: Measurement,
    progress: Progress,
    record: ChipRecord | None,
    stop: Stop,
    minutes: float | None,
) -> tuple[dict[str, Any], Measurement]:
    """Estimate rare chips, if any are asked for: fields of the report, and how far it came if it ended."""
    spec = session.spec
    if not spec.rare:
        return {}, measurement
    ended = RareEnded(0, chips_needed(spec))
    try:
        if not measurement.ended:
            with session.timed("rare chips"), stop.waited_for(), stop.ending_in(minutes):
                found = find_rare(session, pool, metric, keep, measurement.chips[0], progress, record, stop)
            fields = {"rare": found.chips, "rare_tail": found.tail, "rare_attribution": found.attribution}
            return fields, measurement
    except RareEnded as cut:
        ended = cut
    except KeyboardInterrupt:
        if not stop.interrupted:  # nobody who handles signals has asked for a report
            raise
    why = "the run was interrupted" if stop.interrupted else "the time was over (--max-minutes)"
    why = f"{why} after {ended}"
    session.notes.append(f"rare chips were not estimated: {why}; with --resume the run goes on")
    if not measurement.ended:
        measurement = replace(measurement, rare_ended=(ended.done, ended.wanted))
    return {"rare": unanswered(spec, ended.done, why)}, measurement


@contextmanager
def _as_time_permits(session: Session, stop: Stop, ended: bool, what: str, wanted: bool) -> Iterator[None]:
    """Keep the chips where something after them is interrupted, and say what is missing and why."""
    cut = ended or stop.interrupted
    try:
        yield
    except KeyboardInterrupt:
        if not stop.interrupted:  # nobody who handles signals has asked for a report
            raise
        cut = True
    if cut and wanted:
        why = "the run was interrupted" if stop.interrupted else "the time was over (--max-minutes)"
        session.notes.append(f"{what}: {why}")


def _cost(session: Session, measurement: Measurement, progress: Progress) -> CostInfo:
    """Cost the hardware; energies of chips are those at the largest spread that was measured."""
    points = session.points[: len(measurement.chips)]
    worst = max(range(len(points)), key=lambda number: points[number].sigma)
    chips = measurement.chips[worst]
    known = [float(low) if low == high else None for low, high in zip(chips.low, chips.high, strict=True)]
    return session_cost(session, points[worst], known, progress)


def _with_ideal_converters(session: Session, metric: Metric) -> CrossbarInfo:
    """Describe the crossbars, with what the quantised weights score without converters."""
    assert session.crossbar is not None
    engine = Engine(session.crossbar.plain)
    keep = session.reference_file(metric)
    if keep is not None:  # the chips may run elsewhere, and this file with them
        keep = f"{keep}.here.npy"
        engine.nominal(metric, keep, session.workload.ideal)
    return crossbar_info(session.crossbar, engine.chip(metric, keep, 0, QUANTISED).value)


def _attribution(
    plan: AttributionPlan | None,
    session: Session,
    pool: Pool,
    metric: Metric,
    progress: Progress,
    stop: Stop,
    limit: TimeLimit,
    measurement: Measurement,
) -> AttributionDetail | None:
    """Run an attribution that is asked for, in what is left of the time."""
    if plan is None:
        return None
    detail, over = None, limit.is_over
    with _as_time_permits(session, stop, over, "the attribution was not made", True):
        if not stop.interrupted and not over:
            with stop.ending_in(limit.share()):
                seconds = measurement.chip_seconds
                detail = run_attribution(plan, session, pool, metric, progress, stop, seconds)
    if detail is None and not over and not stop.interrupted:
        session.notes.append(
            f"the attribution was not made: one chip has {len(plan.variants)} variants, for which there was "
            "no time (--max-minutes)"
        )
    return detail


def _landscape(session: Session, progress: Progress, folder: Path | None, stop: Stop) -> dict[str, Any]:
    """Measure the roughness; where that cannot be done the audit stands without it, and says why."""
    with session.timed("roughness"):
        try:
            place = None if folder is None else folder / "landscape"
            report = session_landscape(session, progress, place, stop)
        except LandscapeEnded:
            session.notes.append("the roughness was not measured: the time was over (--max-minutes)")
            return {}
        except (DataError, ModelError, OptionError) as error:
            session.notes.append(f"the roughness was not measured: {error}")
            return {}
    session.notes.extend(note for note in report.notes if note not in session.notes)
    return {"roughness": report.roughness, "landscape": median_surface(report)}


def _resumed(record: ChipRecord, folder: Path, points: int, trials: int) -> list[str]:
    """Say what a record has given."""
    events = record.torn()
    # A chip may have several records, races and a run on every sample: chips are counted, not calls.
    chips = len(np.unique(record.rows[record.rows["trial"] < trials][["point", "trial"]]))
    if chips:
        of_all = count_text(points * trials, "chip")
        events.append(f"resumed: {chips} of {of_all} were read from {folder}")
    return events


def _report(
    session: Session,
    metric: Metric,
    values: tuple[float, float],
    chips: tuple[Measurement, Calibrated | None],
    detail: AttributionDetail | None,
    landscape: Mapping[str, Any],
    coverage: Coverage,
    stop: Stop,
) -> AuditReport:
    spec, dataset = session.spec, session.dataset
    measurement, calibrated = chips
    points = session.points[: len(measurement.chips)]
    worst = max(points, key=lambda point: point.sigma)  # what stands at the top of the report
    rows, groups = _tensors(session, worst, landscape.get("crossbar"))
    session.timing["chip_median"] = measurement.chip_seconds
    measured = MeasuredAudit(
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        unit=metric.unit,
        assumed=metric.assumed,
        nominal=values[0],
        quantised=values[1],
        chips=measurement.chips,
        samples=dataset.count,
        tolerance=spec.tolerance,
        sigmas=tuple(point.sigma for point in points),
        sigma_unit=session.points[0].sigma_unit,
        together=session.workload.batch if session.rebatch.coupled else 0,
        caution=metric.caution,
    )
    questions = Questions(
        spec.percentiles, spec.confidence, spec.yield_at, spec.min_kpp, spec.tail, spec.require_mapped,
        spec.max_drop, {} if measurement.baseline is None else measurement.baseline.values,
    )  # fmt: skip
    return summarise(
        measured,
        questions,
        calibrated=None if calibrated is None else _calibrated(session, calibrated, measured, questions),
        tensors=coverage.rows(rows),
        mapped=coverage.share,
        **_about(session, worst),
        **landscape,
        **how_it_ended(session, measurement, stop),
        baseline=None if measurement.baseline is None else measurement.baseline.info,
        zero_groups=groups,
        attribution=None if detail is None else detail.costs(),
        attribution_detail=detail,
        run=spec.model_dump(mode="json"),
        notes=[
            *session.notes,
            *measurement.notes,
            *_mapping_notes(session),
            *_converter_notes(landscape),
            *_missing_points(session, measurement),
        ],
    )


def _calibrated(
    session: Session, corrected: Calibrated, measured: MeasuredAudit, questions: Questions
) -> CalibratedChips:
    """Describe the corrected chips."""
    chips = corrected.measurement.chips
    sigmas = measured.sigmas[: len(chips)]
    samples = session.calibration
    assert samples is not None
    return CalibratedChips(
        samples=samples.count,
        source=session.spec.calibrate_data or samples.source,
        norms=len(corrected.norms),
        layers=len(corrected.layers),
        left=tuple(NotCorrected(name=name, reason=reason) for name, reason in corrected.left.items()),
        points=measured_points(
            replace(measured, chips=chips, sigmas=sigmas), replace(questions, min_kpp=None, max_drop=None)
        ),
    )


def _converter_notes(facts: Mapping[str, Any]) -> list[str]:
    """Say which weights have no converters."""
    partly = partly_converted(facts.get("crossbar"))
    return [] if partly is None else [partly]


def _missing_points(session: Session, measurement: Measurement) -> list[str]:
    """Say which points of a sweep an interrupted run has not come to."""
    missing = session.points[len(measurement.chips) :]
    if not missing:
        return []
    sigmas = ", ".join(f"{point.sigma:g}" for point in missing)
    return [f"not begun when the run was interrupted: sigma {sigmas}"]


def _tensors(
    session: Session, worst: OperatingPoint, crossbar: ReportPart | None
) -> tuple[list[TensorDecision], ZeroGroups | None]:
    """What became of every tensor, and what groups of zeros save."""
    size = Crossbar(*session.spec.crossbar)
    mapped = {tensor.key: tensor for tensor in session.workload.tensors}
    rows, groups = tensor_rows(session.decisions, mapped, worst, size), None
    weights = (decision.constant.weight for decision in session.decisions)
    keys = [weight.key if weight else "" for weight in weights]
    if session.spec.skip_zero_groups:
        groups = zero_groups_found(session.workload.tensors, size)
        rows = without_zero_groups(rows, keys, groups)
    if isinstance(crossbar, CrossbarInfo):
        rows = with_crossbars(rows, keys, crossbar)
    return rows, groups


def _about(session: Session, worst: OperatingPoint) -> dict[str, Any]:
    """Describe the data and the device, besides what every report says."""
    facts = device_facts(worst)
    return {
        **session.header(),
        "data": session.dataset.facts(),
        "device_levels": describe_levels({row.level: row.g for row in facts.levels}, facts.draws, facts.unit),
        "operating_point": {
            "time_s": worst.time_s,
            "terms": [term.name for term in worst.terms],
            "level_of": worst.level_of,
        },
    }


def _noise_notes(point: OperatingPoint) -> list[str]:
    """Say what changes the noise of a device as its profile has it."""
    notes = [
        f"write-verify: errors of {term.name!r} beyond {term.tolerance:g} ("
        f"{point.sigma_unit if term.unit == 'sigma' else term.unit}) were written again, so devices are "
        "drawn one by one"
        for term in point.terms
        if isinstance(term, Normal) and term.is_truncated
    ]
    if notes:
        notes += measured_late(point.profile)
    if point.drift_compensation:
        notes.append(
            "drift compensation: each tensor of each chip is multiplied by its total conductance before time "
            "acted on it over that after"
        )
    return notes


def _mapping_notes(session: Session) -> list[str]:
    notes = []
    spread = session.profile.top_slice == "window"
    used = "its levels spread over the window" if spread else "and uses only the lowest levels of its cells"
    narrow = sorted({t.array.narrow_top for t in session.workload.tensors if t.array.narrow_top})
    for bits in narrow:
        notes.append(
            f"{session.profile.weight_bits} weight bits do not divide into the cell bits: the top slice "
            f"holds {bits} bit{'s' if bits > 1 else ''}, {used}"
        )
    noisy = noisy_in_reading(session.workload.tensors, session.points)
    frozen = [t.key for t in session.workload.tensors if t.freeze_read and t.key in noisy]
    if frozen:
        notes.append(
            "read noise is drawn once per chip instead of per inference for "
            + ", ".join(frozen)
            + " (its operator cannot take it as an output term)"
        )
    notes += _noise_notes(session.points[0])
    zero = [t.key for t in session.workload.tensors if t.peak_code == 0]
    if zero:
        notes.append("all-zero weights carry no noise: " + ", ".join(zero))
    return notes

"""The use case: which weights to write-verify, and what verifying a share of them gives."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvaudit.coverage import count_coverage
from nvaudit.files import check_product, write_bytes_atomic, writing
from nvaudit.keywords import takes_old, takes_options
from nvaudit.perturb.engine import QUANTISED
from nvaudit.perturb.lock import lock_folder
from nvaudit.perturb.metrics import Metric, check_threshold
from nvaudit.perturb.outcome import Outcome, Probe
from nvaudit.perturb.pools import check_pool
from nvaudit.perturb.record import ChipRecord, open_record
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.workload import save_array
from nvaudit.report.wording import count_text, limit_text
from nvaudit.report.write_verify.result import POINT, VerifyChoice, VerifyReport
from nvaudit.session import (
    Session,
    input_files,
    prepared,
    run_nominal,
    run_probe,
    settle_device,
)
from nvaudit.spec import RunSpec
from nvaudit.stats.kpp import kpp
from nvaudit.write_verify.correction import VerifiedSpread, settle_correction
from nvaudit.write_verify.measure import VerifiedChips, count_of, search_target
from nvaudit.write_verify.ranking import RankedWeights, mask_bytes, rank_weights
from nvaudit.write_verify.reporting import MeasuredPlan, plan_report
from nvaudit.write_verify.resume import plan_identity, ranking_task
from nvaudit.write_verify.spec import VerifyOptions, VerifySpec, make_verify_spec
from nvaudit.write_verify.swim import check_torch, ranking_samples


@takes_old(plan="out", output="output_name")
@takes_options(RunSpec, VerifyOptions)
def verify_plan(
    model: str | Path,
    device: str | Path = "rram",
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    progress: Progress = quiet,
    resume: str | Path | None = None,
    **options: Any,
) -> VerifyReport:
    """Plan which weights to write-verify.

    Parameters
    ----------
    model, device, data, progress
        As of :func:`nvaudit.audit`.
    out : str or Path, optional
        The ``.npz`` file to write: for each initializer on the array a mask of the weights to verify.
    resume : str or Path, optional
        A folder that keeps finished chips and the ranking; made if it is missing. It has no influence on
        results.
    **options
        The fields of :class:`nvaudit.write_verify.spec.VerifyOptions` and of :class:`nvaudit.spec.RunSpec`.

    Raises
    ------
    NvauditError
        If anything about the input is wrong, torch is missing for ``ranking="swim"``, or the folder is of
        another run or in use.
    """
    spec = make_verify_spec(model=model, device=device, data=data, **options)
    return run_verify_plan(
        spec, None if out is None else Path(out), progress, None if resume is None else Path(resume)
    )


@dataclass(frozen=True)
class _PlanJob:
    """What is asked for, and what was settled before the session; ``torch`` is the version that ranks."""

    spec: VerifySpec
    correction: VerifiedSpread
    output: Path | None
    resume: Path | None
    torch: str | None
    begin: float
    progress: Progress


def run_verify_plan(
    spec: VerifySpec, output: Path | None = None, progress: Progress = quiet, resume: Path | None = None
) -> VerifyReport:
    """Run a specification; as :func:`verify_plan`.

    The file is written only if there is a plan: not where no share reaches the target.
    """
    begin = time.perf_counter()
    if output is not None:
        check_product(output, plan_inputs(spec))
    torch = check_torch() if spec.own.ranking == "swim" else None
    _, points = settle_device(spec.run)
    correction = settle_correction(points[0], spec.own.verify_sigma, spec.own.verify_terms)
    check_pool(spec.run.dask)
    job = _PlanJob(spec, correction, output, resume, torch, begin, progress)
    with ExitStack() as stack:
        if resume is not None:
            stack.enter_context(lock_folder(resume))
        return prepared(spec.run, progress, lambda session: _measure(job, session))


def plan_inputs(spec: VerifySpec) -> dict[str, Path]:
    """What a plan reads, with its name in words: no output may be one of these files."""
    inputs = input_files(spec.run)
    if spec.own.sensitivity_data is not None:
        inputs["--sensitivity-data"] = Path(spec.own.sensitivity_data)
    return inputs


def _measure(job: _PlanJob, session: Session) -> VerifyReport | Probe:
    """Rank, run the chips, choose; the probe if re-batching turned out to change the outputs."""
    session.timing["prepare"] = time.perf_counter() - job.begin
    spec, correction = job.spec, job.correction
    folder = Path(session.workload.folder)
    with ExitStack() as stack:
        pool = stack.enter_context(session.pool())
        job.progress("running the unmodified model", 0, 1)
        metric = run_probe(pool, session)
        if isinstance(metric, Probe):
            return metric
        if spec.own.target_kpp is not None:
            check_threshold("--target-kpp", spec.own.target_kpp, metric)
        samples = ranking_samples(session, spec) if spec.own.ranking == "swim" else None
        record: ChipRecord | None = None
        if job.resume is not None:
            identity = plan_identity(session, spec, metric, samples, job.torch)
            record = stack.enter_context(open_record(job.resume, identity))
            session.events.extend(record.torn())
        nominal = run_nominal(pool, session, metric)
        keep = session.reference_file(metric)
        quantised: Outcome = pool.submit("the quantised model", "chip", metric, keep, 0, QUANTISED).result()
        with session.timed("ranking"):
            ranked = rank_weights(spec, session, correction, samples, job.progress, job.resume)
        with writing(folder):
            files = tuple(save_array(folder, f"order-{i}", place) for i, place in enumerate(ranked.place))
        chips = VerifiedChips(
            pool, metric, keep, spec.run.trials, ranked.total, files, correction.residual,
            frozenset(correction.terms), job.progress, record, ranking_task(ranked.place),
        )  # fmt: skip
        with session.timed("chips"):
            choice = _choose(spec, chips, ranked, metric, quantised.value)
    if chips.resumed:
        total = len(chips.values) * chips.trials
        of_all = count_text(total, "chip")
        session.events.append(f"resumed: {chips.resumed} of {of_all} were read from {job.resume}")
    weights = {d.constant.weight.key: d.constant.weight for d in session.decisions if d.constant.weight}
    plan = None if choice is None else job.output
    if plan is not None and choice is not None:
        write_bytes_atomic(plan, mask_bytes(ranked.masks(choice.weights, weights)))
    with session.timed("products"):
        mapped = count_coverage(session.loaded, session.rebatch, session.decisions, session.dataset).share
    session.timing["total"] = time.perf_counter() - job.begin
    measured = MeasuredPlan(
        metric, nominal, quantised.value, correction, ranked, chips.values, choice, weights, plan, mapped
    )
    return plan_report(spec, session, measured)


def _choose(
    spec: VerifySpec, chips: VerifiedChips, ranked: RankedWeights, metric: Metric, quantised: float
) -> VerifyChoice | None:
    """Run the chips at every share asked for, and find the smallest that does."""
    counts = sorted({count_of(share, ranked.total) for share in spec.own.shares})
    for i, count in enumerate(counts):
        chips.run(count, f" ({i + 1} of {len(counts)})")
    sign, target = (1 if metric.higher_is_better else -1), spec.own.target_kpp

    def value(count: int) -> float:
        values = chips.run(count, ", looking for the target")
        return kpp(values, spec.percentile, spec.run.confidence, metric.higher_is_better).value

    if target is not None:
        why = f"the smallest share tried whose KPP reaches {limit_text(target, metric.unit)}"
        enough, short = search_target(counts, lambda count: sign * (value(count) - target) >= 0, ranked.total)
    else:
        margin = POINT if metric.unit == "fraction" else POINT * abs(quantised)
        words = "a point" if metric.unit == "fraction" else f"{margin:.3g}"
        why = f"the smallest share asked for that loses at most {words} of KPP against the largest"
        best = value(counts[-1]) - sign * margin
        reached = {count: sign * (value(count) - best) >= 0 for count in counts}
        enough = next(c for c in counts if all(reached[other] for other in counts if other >= c))
        short = max((count for count in counts if count < enough), default=None)
    if enough is None:
        return None
    devices, every = ranked.devices(enough), ranked.devices(ranked.total)
    return VerifyChoice(
        share=enough / ranked.total,
        weights=enough,
        devices=devices,
        saved=every - devices,
        kpp=value(enough),
        why=why,
        short=None if short is None else short / ranked.total,
    )

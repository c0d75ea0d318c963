"""The use case: what the trials of a specification can say, and what they cost, before they run."""

from __future__ import annotations

import time

from nvaudit.perturb.montecarlo import time_chips
from nvaudit.perturb.outcome import Probe
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.report.plan.result import AuditPlan, Costs, PlannedAudit, make_plan
from nvaudit.session import Session, prepared, run_nominal, run_probe
from nvaudit.spec import RunSpec


def plan_audit(spec: RunSpec, progress: Progress = quiet) -> AuditPlan:
    """Work out what the trials of a specification can say and what they cost.

    The unmodified model and a few chips are run, to measure the time; nothing is audited.

    Parameters
    ----------
    progress : callable
        Called with (what, done, total).

    Raises
    ------
    NvauditError
        If anything about the input is wrong.
    """
    begin = time.perf_counter()
    return prepared(spec, progress, lambda session: _price(session, begin, progress))


def _price(session: Session, begin: float, progress: Progress) -> AuditPlan | Probe:
    """Run ideal and a few chips; the probe if re-batching turned out to change the outputs."""
    spec = session.spec
    with session.pool() as pool:
        progress("running the unmodified model", 0, 1)
        metric = run_probe(pool, session)
        if isinstance(metric, Probe):
            return metric
        nominal = run_nominal(pool, session, metric)
        start = time.perf_counter() - begin
        progress("timing a few chips", 0, 1)
        sigmas = [point.sigma for point in session.points]
        keep = session.reference_file(metric)
        width = pool.width
        pace = time_chips(pool, metric, keep, sigmas.index(max(sigmas)))
    return make_plan(
        PlannedAudit(
            metric=metric.name,
            unit=metric.unit,
            nominal=nominal,
            label_free=session.dataset.label_kind == "none",
            header=session.header() | {"data": session.dataset.facts(), "run": spec.model_dump(mode="json")},
        ),
        Costs(
            images=session.dataset.count,
            points=len(session.points),
            workers=spec.workers if spec.dask is None else width,
            timed=pace.chips,
            chip_s=pace.seconds,
            start_s=start,
        ),
        trials=spec.trials,
        percentiles=spec.percentiles,
        confidence=spec.confidence,
    )

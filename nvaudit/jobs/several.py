"""Several audits as one run: they share what does not change between them, and their time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from nvaudit.errors import NvauditError
from nvaudit.jobs.auditing import run_audit
from nvaudit.jobs.measuring import audit_seconds
from nvaudit.perturb.montecarlo import sample_seconds
from nvaudit.perturb.pools import ManyWorkloads, open_pool
from nvaudit.perturb.schedule import Progress, labelled
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.stop import Stop, TimeLimit
from nvaudit.report.result import AuditReport
from nvaudit.report.wording import count_text, duration_estimate
from nvaudit.session import prepare
from nvaudit.sharing import sharing, sharing_pool
from nvaudit.spec import RunSpec


@dataclass(frozen=True)
class OneOfSeveral:
    """One of the audits, and the name that it goes by in messages, progress and kept folders."""

    name: str
    spec: RunSpec


@dataclass(frozen=True)
class AuditOutcome:
    """What became of one of the audits.

    Attributes
    ----------
    report : AuditReport or None
        None where it was not run.
    why_not : str
        Why it was not run; else empty.
    """

    report: AuditReport | None
    why_not: str = ""


@dataclass(frozen=True)
class SharedLimits:
    """What ends the audits before the last one.

    Attributes
    ----------
    time : TimeLimit
        For all of them; each has its share of what is left.
    option : str
        What set the time, for the words.
    fail_fast : bool
        Whether the rest is left out once one fails.
    """

    time: TimeLimit
    option: str = "--max-minutes"
    fail_fast: bool = False


@contextmanager
def shared_by(audits: Sequence[OneOfSeveral], events: list[str]) -> Iterator[None]:
    """Let audits share the model as it was read, its ideal run, and worker processes.

    Parameters
    ----------
    events : list of str
        Is added to where a worker was lost or replaced.
    """
    with ExitStack() as stack:
        stack.enter_context(sharing())
        workers = {audit.spec.workers for audit in audits}
        if len(workers) == 1 and 0 not in workers and all(audit.spec.dask is None for audit in audits):
            folder = stack.enter_context(scratch_folder())
            pool = open_pool(workers.pop(), None, ManyWorkloads(), str(folder), events.append)
            stack.enter_context(sharing_pool(stack.enter_context(pool)))
        yield


def run_several(
    audits: Sequence[OneOfSeveral],
    progress: Progress,
    resume: Path | None,
    stop: Stop,
    limits: SharedLimits,
) -> Iterator[AuditOutcome]:
    """Run audits one after the other, or say why one is not run.

    Parameters
    ----------
    resume : Path or None
        A folder with a folder for each audit.
    stop : Stop
        Ends the run early: the audit that was running has the chips that are done, those after it none.

    Raises
    ------
    NvauditError
        Naming the audit.
    """
    why_not = ""
    for number, audit in enumerate(audits):
        spec = audit.spec.model_copy(update={"trials": audit.spec.trials})  # the same for all
        share = limits.time.share(1 / (len(audits) - number))
        if share is not None and not why_not:
            if limits.time.is_over:
                why_not = f"the time was over ({limits.option})"
            spec = spec.model_copy(update={"max_minutes": min(share, spec.max_minutes or share)})
        if why_not:
            yield AuditOutcome(None, why_not)
            continue
        label = labelled(progress, f"{audit.name} ({number + 1} of {len(audits)})")
        try:
            report = run_audit(spec, label, None if resume is None else resume / slug(audit.name), stop)
        except NvauditError as error:
            raise type(error)(f"{audit.name}: {error}") from error
        except KeyboardInterrupt:
            if not stop.interrupted or not number:
                raise
            why_not = "the run was interrupted"
            yield AuditOutcome(None, why_not)
            continue
        yield AuditOutcome(report)
        if stop.interrupted:
            why_not = "the run was interrupted"
        elif limits.fail_fast and report.verdict == "fail":
            why_not = f"{audit.name} has failed (--fail-fast)"


def estimate(audits: Sequence[OneOfSeveral], minutes: float | None, progress: Progress) -> str:
    """Say about how long audits take together, by a few samples of each model's first one and of the last.

    Parameters
    ----------
    minutes : float or None
        For all of them.
    """
    of_model = {(audit.spec.model, audit.spec.data): audit for audit in audits[::-1]}
    timed = list({audit.name: audit for audit in (*of_model.values(), audits[-1])}.values())
    seconds: dict[str, float] = {}
    for number, audit in enumerate(timed):
        progress("timing a few samples", number, len(timed))
        with scratch_folder() as folder:
            session = prepare(audit.spec, folder)
            seconds[audit.name] = audit_seconds(
                session, sample_seconds(session.workload), audit.spec.most_trials
            )
    each = {
        key: fmean(seconds[a.name] for a in timed if (a.spec.model, a.spec.data) == key) for key in of_model
    }
    total = sum(each[audit.spec.model, audit.spec.data] for audit in audits)
    chips = max(audit.spec.most_trials for audit in audits)
    about = f"about {duration_estimate(total)}"
    if minutes is not None and total > 60 * minutes:
        about += f", of which {minutes:g} min are given"
    text = f"{count_text(len(audits), 'audit')} of {count_text(chips, 'chip')}: {about}"
    return f"{text} (by a few samples; gates end sooner)"


def check_inputs(audits: Sequence[OneOfSeveral], progress: Progress) -> None:
    """Read every model with its data once, so that a bad one is found before the first audit runs."""
    first = {(audit.spec.model, audit.spec.data): audit for audit in audits[::-1]}
    for number, audit in enumerate(reversed(first.values())):
        progress("reading models and data", number, len(first))
        try:
            with scratch_folder() as folder:
                prepare(audit.spec, folder)
        except NvauditError as error:
            raise type(error)(f"{audit.name}: {error}") from error


def slug(name: str) -> str:
    """Make a file name of a name; different names give different ones."""
    plain = re.sub(r"[^\w.+-]+", "_", name).strip("._") or "model"
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

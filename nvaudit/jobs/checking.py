"""The use case: a matrix of models, devices and conditions, audited as one with one gate."""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from nvaudit._version import __version__
from nvaudit.errors import NvauditError, OptionError
from nvaudit.files import holding_inputs
from nvaudit.jobs.auditing import check_together
from nvaudit.jobs.several import OneOfSeveral, SharedLimits, check_inputs, estimate, run_several, shared_by
from nvaudit.keywords import takes_options
from nvaudit.perturb.pools import check_pool
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.stop import Stop, TimeLimit
from nvaudit.report.check.result import AuditName, CheckReport, NamedAudit, check_report
from nvaudit.session import settle_device
from nvaudit.spec import AXIS_KEYS, NAME_KEYS, CheckOptions, RunSpec, default_workers, flag

AxisEntry = str | Path | Mapping[str, Any]
"""What stands on an axis: a path or a name, or a table with options of its own."""


_Source: TypeAlias = tuple[tuple[str, int], Mapping[str, Any]]
"""Options of an entry of an axis or of an exception, and where it stands."""


@dataclass(frozen=True)
class MatrixAudit:
    """One audit of the matrix."""

    name: AuditName
    spec: RunSpec


@dataclass(frozen=True)
class CheckPlan:
    """What is run.

    Attributes
    ----------
    audits : tuple of MatrixAudit
        All models' audits together, in the order of the file.
    skipped : tuple of str
        Names of audits that an exception leaves out.
    left_out : tuple of str
        Names of the others that ``--only`` leaves out.
    """

    audits: tuple[MatrixAudit, ...]
    skipped: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    options: CheckOptions = field(default_factory=CheckOptions)


@takes_options(RunSpec)
def check(
    models: Sequence[AxisEntry],
    devices: Sequence[AxisEntry] = ("rram",),
    conditions: Sequence[Mapping[str, Any]] = (),
    exceptions: Sequence[Mapping[str, Any]] = (),
    *,
    progress: Progress = quiet,
    resume: str | Path | None = None,
    only: Sequence[str] = (),
    total_minutes: float | None = None,
    fail_fast: bool = False,
    **options: Any,
) -> CheckReport:
    """Audit every model on every device under every condition.

    Parameters
    ----------
    models, devices : sequence
        Paths of models and profiles, or tables with the options that hold for one alone:
        ``{"path": "m.onnx", "min_kpp": 0.9}``, ``{"profile": "pcm", "time_s": 3600}``.
    conditions : sequence of mapping
        Options of each with its ``name``; none: one condition without options.
    exceptions : sequence of mapping
        Options for the audits of some ``model``, ``device``, ``condition`` (a name or several; left out:
        any), or ``skip=True``, which leaves them out.
    resume : str or Path, optional
        A folder that keeps finished chips: a matrix that was cut off goes on where it was.
    only : sequence of str
        Globs of the names of audits that are run.
    total_minutes : float, optional
        Time of the whole matrix.
    fail_fast : bool
        Leave the rest out once an audit fails.
    **options
        Fields of :class:`nvaudit.spec.RunSpec` for all audits. What stands in a model's table wins over
        these, a device's over a model's, a condition's over both, and an exception over all.

    Raises
    ------
    NvauditError
        If anything about the input is wrong; everything is read before the first audit runs.
    """
    own = CheckOptions.validated({"only": only, "total_minutes": total_minutes, "fail_fast": fail_fast})
    given = {"workers": default_workers(), "roughness": False, "suggest": False, **options}
    plan = plan_check(models, devices, conditions, exceptions, general=given, options=own)
    return run_check(plan, progress, None if resume is None else Path(resume))


def plan_check(
    models: Sequence[AxisEntry],
    devices: Sequence[AxisEntry],
    conditions: Sequence[Mapping[str, Any]],
    exceptions: Sequence[Mapping[str, Any]] = (),
    *,
    general: Mapping[str, Any],
    forced: Mapping[str, Any] | None = None,
    options: CheckOptions | None = None,
    where: Callable[..., str] = lambda *place: "",
) -> CheckPlan:
    """Make the audits of a matrix.

    Parameters
    ----------
    models, devices, conditions, exceptions
        As :func:`check`.
    general : mapping
        Options of all audits that do not have their own.
    forced : mapping
        Options of all audits, whatever they have.
    where : callable
        Says where something stands, for the beginning of a message: of an axis, a place on it, and a key.

    Raises
    ------
    NvauditError
        If names are missing or given twice, an exception is for no audit, or the options of an audit make no
        sense together.
    """
    options = CheckOptions() if options is None else options
    axes = (
        _axis("models", models, where),
        _axis("devices", devices, where),
        _axis("conditions", conditions or [{"name": ""}], where),
    )
    _check_exceptions(exceptions, axes, where)
    only = options.only or ("*",)
    more = [
        (
            (
                ("exceptions", number),
                {key: value for key, value in exception.items() if key not in NAME_KEYS},
            ),
            exception,
        )
        for number, exception in enumerate(exceptions)
    ]
    audits, skipped, left_out = [], [], []
    for of_axes in itertools.product(*(axis.items() for axis in axes)):
        name = AuditName(**{key: text for key, (text, _) in zip(NAME_KEYS, of_axes, strict=True)})
        sources = [source for _, source in of_axes]
        sources += [source for source, exception in more if _is_for(exception, name)]
        wanted = dict(general)
        for _, entry in sources:
            wanted |= entry
        if wanted.pop("skip", False):
            skipped.append(name.text)
        elif not any(fnmatch.fnmatchcase(name.text, pattern) for pattern in only):
            left_out.append(name.text)
        else:
            try:
                audits.append(MatrixAudit(name, _spec(options, {**wanted, **(forced or {})})))
            except NvauditError as error:
                place = _to_blame(str(error), sources)
                raise type(error)(f"{where(*place)}{name.text}: {error}") from None
    if not audits:
        raise OptionError(where() + _none_left(skipped, left_out))
    return CheckPlan(tuple(audits), tuple(skipped), tuple(left_out), options)


def _axis(axis: str, entries: Sequence[AxisEntry], where: Callable[..., str]) -> dict[str, _Source]:
    """Place and options of every entry of an axis by its name; those of a model or a device name it too."""
    key = AXIS_KEYS[axis]
    by_name: dict[str, _Source] = {}
    if not entries:
        raise OptionError(f"{where(axis)}{axis}: there is none; list at least one")
    tables = [dict(entry) if isinstance(entry, Mapping) else {key: str(entry)} for entry in entries]
    for number, table in enumerate(tables):
        if key not in table:
            raise OptionError(f"{where(axis, number)}{axis}: {table}: has no {key}; give one")
    named = [str(table.get("name") or Path(str(table[key])).stem) for table in tables]
    for number, (table, name) in enumerate(zip(tables, named, strict=True)):
        what = str(table.pop(key))
        if named.count(name) > 1 and "name" not in table:
            name = what
        table.pop("name", None)
        if name in by_name:
            raise OptionError(
                f"{where(axis, number)}{axis}: {name!r} is given twice; give each a name of its own"
            )
        of_axis = {"models": {"model": what}, "devices": {"device": what}}.get(axis, {})
        by_name[name] = ((axis, number), {**of_axis, **table})
    return by_name


def _spec(of_check: CheckOptions, options: Mapping[str, Any]) -> RunSpec:
    """The specification of an audit."""
    spec = RunSpec.validated(options)
    check_together(spec)
    settle_device(spec)
    if of_check.total_minutes is not None and (spec.exhaustive or spec.all_trials):
        which = "--exhaustive" if spec.exhaustive else "--all-trials"
        raise OptionError(f"--total-minutes and {which}: choose one")
    return spec


def _to_blame(message: str, sources: Sequence[_Source]) -> tuple[str | int, ...]:
    """Where the last option stands that a message speaks of; nowhere if it holds for all audits."""
    spoken, first = set(re.findall(r"--[a-z-]+", message)), message.partition(":")[0]
    for place, entry in reversed(sources):
        for key, value in entry.items():
            words = flag(key)
            if words in spoken or words == f"--{first}" or (key == "device" and value in message):
                return place
    return ()


def _none_left(skipped: Sequence[str], left_out: Sequence[str]) -> str:
    parts = [
        f"{', '.join(names)} by {what}"
        for names, what in ((skipped, "skip = true"), (left_out, "--only"))
        if names
    ]
    return f"no audit is left to run: left out are {'; '.join(parts)}; change that"


def _is_for(exception: Mapping[str, Any], name: AuditName) -> bool:
    return all(getattr(name, key) in _several(exception[key]) for key in NAME_KEYS if key in exception)


def _several(value: Any) -> Sequence[str]:
    return (value,) if isinstance(value, str) else tuple(value)


def _check_exceptions(
    exceptions: Sequence[Mapping[str, Any]],
    axes: Sequence[Mapping[str, _Source]],
    where: Callable[..., str],
) -> None:
    """Refuse an exception for a name that no axis has: it would say nothing."""
    for number, exception in enumerate(exceptions):
        for key, axis in zip(NAME_KEYS, axes, strict=True):
            for name in _several(exception.get(key, ())):
                if name not in axis:
                    known = ", ".join(axis)
                    raise OptionError(
                        f"{where('exceptions', number, key)}exceptions: {key} {name!r} is none of {known}"
                    )


@holding_inputs()
def run_check(
    plan: CheckPlan,
    progress: Progress = quiet,
    resume: Path | None = None,
    stop: Stop | None = None,
    on_estimate: Callable[[str], None] | None = None,
) -> CheckReport:
    """Run a plan; as :func:`check`.

    Parameters
    ----------
    stop : Stop, optional
        Ends the run early: the report then has the audits that are done, and the chips of the one that was
        running.
    on_estimate : callable, optional
        Told in words how long it will take, before it begins; without it nothing is timed.
    """
    limit = TimeLimit.of_run(plan.options.total_minutes)
    stop = Stop() if stop is None else stop
    several = [OneOfSeveral(audit.name.text, audit.spec) for audit in plan.audits]
    limits = SharedLimits(limit, "--total-minutes", plan.options.fail_fast)
    events: list[str] = []
    check_pool(plan.audits[0].spec.dask)
    with shared_by(several, events):
        check_inputs(several, progress)
        if on_estimate is not None:
            on_estimate(estimate(several, limit.minutes, progress))
        ran = list(run_several(several, progress, resume, stop, limits))
    return check_report(
        tuple(
            NamedAudit(
                name=audit.name,
                gated=audit.spec.gated or audit.spec.require_mapped is not None,
                report=one.report,
                why_not=one.why_not,
            )
            for audit, one in zip(plan.audits, ran, strict=True)
        ),
        skipped=plan.skipped,
        left_out=plan.left_out,
        interrupted=stop.interrupted,
        nvaudit_version=__version__,
        timing={"total": 60 * limit.spent},
        events=tuple(events),
    )

"""The use case: a matrix of models, devices and conditions, audited as one with one gate."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from nvaudit.spec import AXIS_KEYS, NAME_KEYS, CheckOptions, RunSpec, default_workers

AxisEntry = str | Path | Mapping[str, Any]
"""What stands on an axis: a path or a name, or a table with options of its own."""


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
    audits : tuple of Cell
        All models' audits together, in the order of the file.
    left_out : tuple of str
        Names of audits that an exception or ``--only`` leaves out.
    """

    audits: tuple[MatrixAudit, ...]
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

    Raises
    ------
    OptionError
        If names are missing or given twice, an exception is for no audit, or the options of an audit make no
        sense together.
    """
    options = CheckOptions() if options is None else options
    axes = (
        _axis("models", models),
        _axis("devices", devices),
        _axis("conditions", conditions or [{"name": ""}]),
    )
    _check_exceptions(exceptions, axes)
    only = options.only or ("*",)
    audits, left_out = [], []
    for model, of_model in axes[0].items():
        for device, of_device in axes[1].items():
            for condition, of_condition in axes[2].items():
                name = AuditName(model=model, device=device, condition=condition)
                wanted = {**general, **of_model, **of_device, **of_condition}
                for exception in exceptions:
                    if _is_for(exception, name):
                        wanted |= {key: value for key, value in exception.items() if key not in NAME_KEYS}
                if wanted.pop("skip", False) or not any(fnmatch.fnmatchcase(name.text, g) for g in only):
                    left_out.append(name.text)
                    continue
                spec = _spec(name, {**wanted, **(forced or {})})
                if options.total_minutes is not None and (spec.exhaustive or spec.all_trials):
                    which = "--exhaustive" if spec.exhaustive else "--all-trials"
                    raise OptionError(f"{name.text}: --total-minutes and {which}: choose one")
                audits.append(MatrixAudit(name, spec))
    if not audits:
        raise OptionError(
            f"no audit is left to run: all of {', '.join(left_out)} are left out; change --only or the "
            "exceptions"
        )
    return CheckPlan(tuple(audits), tuple(left_out), options)


def _axis(axis: str, entries: Sequence[AxisEntry]) -> dict[str, dict[str, Any]]:
    """Options of every entry of an axis by its name; those of a model or a device name it too."""
    key, by_name = AXIS_KEYS[axis], {}
    if not entries:
        raise OptionError(f"{axis}: there is none; list at least one")
    tables = [dict(entry) if isinstance(entry, Mapping) else {key: str(entry)} for entry in entries]
    for table in tables:
        if key not in table:
            raise OptionError(f"{axis}: {table}: has no {key}; give one")
    named = [str(table.get("name") or Path(str(table[key])).stem) for table in tables]
    for table, name in zip(tables, named, strict=True):
        what = str(table.pop(key))
        if named.count(name) > 1 and "name" not in table:
            name = what
        table.pop("name", None)
        if name in by_name:
            raise OptionError(f"{axis}: {name!r} is given twice; give each a name of its own")
        of_axis = {"models": {"model": what}, "devices": {"device": what}}.get(axis, {})
        by_name[name] = {**of_axis, **table}
    return by_name


def _spec(name: AuditName, options: Mapping[str, Any]) -> RunSpec:
    """The specification of an audit; what is wrong with it is said with its name."""
    try:
        spec = RunSpec.validated(options)
        check_together(spec)
        settle_device(spec)
    except NvauditError as error:
        raise type(error)(f"{name.text}: {error}") from None
    return spec


def _is_for(exception: Mapping[str, Any], name: AuditName) -> bool:
    return all(getattr(name, key) in _several(exception[key]) for key in NAME_KEYS if key in exception)


def _several(value: Any) -> Sequence[str]:
    return (value,) if isinstance(value, str) else tuple(value)


def _check_exceptions(exceptions: Sequence[Mapping[str, Any]], axes: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an exception for a name that no axis has: it would say nothing."""
    for exception in exceptions:
        for key, axis in zip(NAME_KEYS, axes, strict=True):
            for name in _several(exception.get(key, ())):
                if name not in axis:
                    raise OptionError(f"exceptions: {key} {name!r} is none of {', '.join(axis)}")


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
        left_out=plan.left_out,
        interrupted=stop.interrupted,
        nvaudit_version=__version__,
        timing={"total": 60 * limit.spent},
        events=tuple(events),
    )

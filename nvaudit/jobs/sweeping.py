"""The use case: one model under every combination of several values of options, as one table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit._version import __version__
from nvaudit.errors import NvauditError, OptionError
from nvaudit.files import holding_inputs
from nvaudit.jobs.auditing import check_together
from nvaudit.jobs.planning import plan_audit
from nvaudit.jobs.several import OneOfSeveral, SharedLimits, check_inputs, run_several, shared_by
from nvaudit.keywords import takes_options
from nvaudit.perturb.pools import check_pool
from nvaudit.perturb.schedule import Progress, quiet
from nvaudit.perturb.stop import Stop, TimeLimit
from nvaudit.report.sweep.result import (
    SweepAxis,
    SweepReport,
    SweptAudit,
    SweptValue,
    settings_text,
    sweep_report,
    swept_value,
)
from nvaudit.report.wording import count_text, duration_estimate
from nvaudit.session import check_converters, settle_device
from nvaudit.spec import SWEPT, RunSpec, axes_of, default_workers, flag
from nvaudit.technology_options import check_technology

MAX_AUDITS = 500
"""Combinations of one sweep: its report holds the chips of every one."""

_TIMED = 5
"""Combinations of which a few chips are timed before a sweep."""

_OF_ONE_POINT = ("attribute", "baseline_report", "chip", "mapping", "rare")
"""Options that say something of one operating point, or of one way to lay weights out."""


@dataclass(frozen=True)
class SweepPlan:
    """What is run.

    Attributes
    ----------
    axes : tuple of SweepAxis
    audits : tuple of (dict, RunSpec)
        Settings and specification of every combination, the last axis fastest.
    minutes : float or None
        For all of them.
    """

    axes: tuple[SweepAxis, ...]
    audits: tuple[tuple[dict[str, SweptValue], RunSpec], ...]
    minutes: float | None

    @property
    def several(self) -> list[OneOfSeveral]:
        """The audits by their names."""
        return [OneOfSeveral(settings_text(settings), spec) for settings, spec in self.audits]


@takes_options(RunSpec, swept=True)
def sweep(
    model: str | Path,
    device: str | Path | Sequence[str | Path] = "rram",
    data: str | Path | None = None,
    *,
    progress: Progress = quiet,
    resume: str | Path | None = None,
    **options: Any,
) -> SweepReport:
    """Audit a model under every combination of several values of options.

    Parameters
    ----------
    model : str or Path
        An ONNX file.
    device : str or Path, or a sequence of such
        Name of a bundled profile, or a profile file.
    data : str or Path, optional
        As in :func:`nvaudit.audit`.
    progress : callable or bool
        Called with (what, done, total); True shows a bar.
    resume : str or Path, optional
        A folder that keeps finished chips: a sweep that was cut off goes on where it was.
    **options
        The fields of :class:`nvaudit.spec.RunSpec`; those of a sweep may be lists, or text as on the command
        line: ``adc_bits="4:8"``, ``time=["0", "1y"]``, ``crossbar=["64x64", "128x128"]``.

    Raises
    ------
    NvauditError
        If anything about the input is wrong, no option has several values, or a combination makes no sense.
    """
    for name in SWEPT:
        value = device if name == "device" else options.get(name)
        if isinstance(value, list | tuple) and not value:
            raise OptionError(f"{name}: is an empty list; give at least one value, or leave it out")
    own = {"workers": default_workers(), "roughness": False, "suggest": False}
    plan = plan_sweep({**own, **options, "model": model, "device": device, "data": data})
    if plan is None:
        raise OptionError(
            "sweep: no option has several values; give lists, such as adc_bits=[4, 6, 8], or call audit()"
        )
    return run_sweep(plan, progress, None if resume is None else Path(resume))


def plan_sweep(options: Mapping[str, Any]) -> SweepPlan | None:
    """Make the audits of a sweep; None where every option has one value at most.

    Parameters
    ----------
    options : mapping
        Fields of :class:`RunSpec`; those of ``SWEPT`` may be tuples or lists of values. Several sigmas are an
        axis only beside another one: alone they are one audit at several points.

    Raises
    ------
    OptionError
        Naming options that make no sense together, in words those of the first such combination.
    """
    axes, fixed = axes_of(options)
    if not axes:
        return None
    _check_axes(axes, fixed)
    number = math.prod(len(values) for values in axes.values())
    if number > MAX_AUDITS:
        sizes = " · ".join(f"{len(values)} of {flag(name)}" for name, values in axes.items())
        raise OptionError(
            f"the sweep has {number:,} combinations ({sizes}), more than {MAX_AUDITS}; give fewer values"
        )
    audits = []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        settings = {_called(name): swept_value(name, value) for name, value in chosen.items()}
        audits.append((settings, _spec(fixed, chosen, settings_text(settings))))
    minutes = audits[0][1].max_minutes  # of all together: each has its share
    audits = [(settings, spec.model_copy(update={"max_minutes": None})) for settings, spec in audits]
    return SweepPlan(
        tuple(
            SweepAxis(name=_called(name), values=tuple(swept_value(name, value) for value in values))
            for name, values in axes.items()
        ),
        tuple(audits),
        minutes,
    )


def _called(name: str) -> str:
    return "sigma" if name == "sigmas" else name


def _check_axes(axes: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any]) -> None:
    """Refuse what would be the same chips again, or says something of one point only."""
    for name in _OF_ONE_POINT:
        if fixed.get(name):
            raise OptionError(
                f"{flag(name)} and several values of {', '.join(map(flag, axes))}: choose one; "
                f"{flag(name)} is for one combination"
            )
    converted = [bits for bits in axes.get("adc_bits", (fixed.get("adc_bits"),)) if bits is not None]
    if not converted:
        for name in ("crossbar", "dac_bits", "adc_range"):
            if name in axes and not (name == "crossbar" and fixed.get("skip_zero_groups")):
                raise OptionError(
                    f"{flag(name)} {_values_text(name, axes[name])}: without --adc-bits all of these are the "
                    "same chips; give --adc-bits too"
                )


def _values_text(name: str, values: Sequence[Any]) -> str:
    return ",".join(str(swept_value(name, value)) for value in values)


def _spec(fixed: Mapping[str, Any], chosen: Mapping[str, Any], name: str) -> RunSpec:
    """The specification of a combination; what is wrong with it is said with its name."""
    chosen = {**chosen, **({"sigmas": (chosen["sigmas"],)} if "sigmas" in chosen else {})}
    ideal = chosen.get("adc_bits", 0) is None
    kept = {key: value for key, value in fixed.items() if not (ideal and key in ("dac_bits", "adc_range"))}
    try:
        spec = RunSpec.validated({**kept, **chosen})
        check_together(spec)
        check_converters(spec)
        check_technology(spec, spec.adc_bits, audited=True)
        settle_device(spec)
    except NvauditError as error:
        raise type(error)(f"{name}: {error}") from None
    return spec


@holding_inputs()
def run_sweep(
    plan: SweepPlan,
    progress: Progress = quiet,
    resume: Path | None = None,
    stop: Stop | None = None,
    on_estimate: Callable[[str], None] | None = None,
) -> SweepReport:
    """Run a plan; as :func:`sweep`.

    Parameters
    ----------
    stop : Stop, optional
        Ends the run early: the report then has the audits that are done, and the chips of the one that was
        running.
    on_estimate : callable, optional
        Told in words how long it will take, before it begins; without it nothing is timed.
    """
    limit, stop = TimeLimit.of_run(plan.minutes), Stop() if stop is None else stop
    several = plan.several
    events: list[str] = []
    check_pool(several[0].spec.dask)
    with shared_by(several, events):
        check_inputs(several, progress)
        if on_estimate is not None:
            on_estimate(_estimate(plan, progress))
        ran = list(run_several(several, progress, resume, stop, SharedLimits(limit)))
    audits = [
        SweptAudit(
            settings=settings,
            gated=spec.gated or spec.require_mapped is not None,
            report=one.report,
            why_not=one.why_not,
        )
        for (settings, spec), one in zip(plan.audits, ran, strict=True)
    ]
    return sweep_report(
        plan.axes,
        audits,
        interrupted=stop.interrupted,
        nvaudit_version=__version__,
        timing={"total": 60 * limit.spent},
        events=tuple(events),
    )


def _estimate(plan: SweepPlan, progress: Progress) -> str:
    """Say how long a sweep takes at most, by a few chips of combinations that cost as the others do."""
    alike: dict[str, list[RunSpec]] = {}
    for settings, spec in plan.audits:
        alike.setdefault(settings_text(_costing(settings)), []).append(spec)
    groups = list(alike.values())
    chosen = sorted({round(i * (len(groups) - 1) / (_TIMED - 1)) for i in range(_TIMED)})
    seconds = []
    for number, group in enumerate(chosen):
        progress("timing a few chips", number, len(chosen))
        seconds.append(plan_audit(groups[group][0]).given.seconds or 0.0)
    # A group between two that were timed costs about what lies between these.
    each = np.interp(range(len(groups)), chosen, seconds)
    total = float(sum(cost * len(group) for cost, group in zip(each, groups, strict=True)))
    chips = max(spec.most_trials for _, spec in plan.audits)
    text = f"{count_text(len(plan.audits), 'audit')} of {count_text(chips, 'chip')}: about "
    if plan.minutes is not None and total > 60 * plan.minutes:
        return f"{text}{duration_estimate(total)}, of which --max-minutes leaves {plan.minutes:g} min"
    timed = count_text(len(chosen), "combination")
    return f"{text}{duration_estimate(total)} at most (by a few chips of {timed}; races and gates end sooner)"


def _costing(settings: Mapping[str, SweptValue]) -> dict[str, SweptValue]:
    """What the time of a chip depends on: not how strong its noise is, or how fine its converters."""
    costing = {name: value for name, value in settings.items() if name not in ("sigma", "time_s", "seed")}
    return {
        name: "ideal" if value is None else "given" if name in ("adc_bits", "dac_bits") else value
        for name, value in costing.items()
    }

"""The use case: accuracy against the number of levels per cell, and what limits it (S section 6.3.2)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from nvaudit._version import __version__
from nvaudit.device import DeviceProfile, load_profile
from nvaudit.errors import OptionError, ProfileError
from nvaudit.files import holding_inputs
from nvaudit.jobs.auditing import run_audit
from nvaudit.jobs.several import OneOfSeveral, estimate, shared_by
from nvaudit.keywords import takes_old, takes_options
from nvaudit.mapping.mapping_file import mapping_beside, read_mapping
from nvaudit.model import load_model
from nvaudit.perturb.pools import check_pool
from nvaudit.perturb.schedule import Progress, labelled, quiet
from nvaudit.perturb.settle_codes import find_mapping
from nvaudit.perturb.stop import TimeLimit
from nvaudit.report.result import AuditReport, boxed_together
from nvaudit.report.roofline.build import Asked, LevelAudits, make_roofline
from nvaudit.report.roofline.result import RooflineReport, SkippedLevel
from nvaudit.session import check_converters, settle_device
from nvaudit.spec import MAX_CELL_BITS, NOT_OF_A_ROOFLINE, RooflineOptions, RunSpec, flag, make_spec
from nvaudit.technology_options import TechnologyOptions, check_technology

CONVERTERS = ("adc_bits", "dac_bits", "adc_range")
"""Options of the run specification that are about converters; without the first they are ideal."""

_WITH_CONVERTERS = (*CONVERTERS, *TechnologyOptions.model_fields)
"""Options that only the audit with converters takes."""

_OVER = "the time was over (--max-minutes)"

ANALOG_BITS = (1, 2, 3, 4)
"""What an analog device is cut into by default."""


@dataclass(frozen=True)
class RooflinePlan:
    """What is run.

    Attributes
    ----------
    ideal : dict of int to RunSpec
        With ideal converters, by bits per cell.
    converted : dict of int to RunSpec
        With the converters asked for; empty where none are.
    """

    ideal: dict[int, RunSpec]
    converted: dict[int, RunSpec]
    skipped: tuple[SkippedLevel, ...]
    asked: Asked
    notes: tuple[str, ...]


@takes_old(output="output_name")
@takes_options(RunSpec)
def roofline(
    model: str | Path,
    device: str | Path = "rram",
    data: str | Path | None = None,
    *,
    cell_bits: Iterable[int] | None = None,
    rank_by: str = "kpp",
    margin: float | None = None,
    progress: Progress = quiet,
    resume: str | Path | None = None,
    **options: Any,
) -> RooflineReport:
    """Audit a model with several numbers of levels per cell, without and with converters.

    Parameters
    ----------
    model, device, data, progress
        As of :func:`nvaudit.audit`.
    cell_bits : iterable of int, optional
        Bits per cell, 1 to 8; 2^bits levels each. Without it 1 … the profile's, or 1 … 4 of an analog device.
    rank_by : {"kpp", "mean"}
        What the verdicts and the best number of levels go by.
    margin : float, optional
        Losses up to it do not count, in the metric's unit. Without it 0.01 of a fraction, or 1 % of the
        quantised model's value.
    resume : str or Path, optional
        A folder with a folder for each audit, which keep finished chips.
    **options
        The fields of :class:`nvaudit.spec.RunSpec`, the same for all levels. With ``adc_bits`` every level is
        audited twice, with ideal converters and with these, on the same chips.

    Raises
    ------
    NvauditError
        If anything about the input is wrong, or the profile can do none of the levels.

    References
    ----------
    G. Krishnan et al., IEEE Transactions on Computers, 2022, section 6.3.2 and Fig. 10.
    """
    plan = plan_roofline(
        model, device, data, cell_bits=cell_bits, rank_by=rank_by, margin=margin, options=options
    )
    return run_roofline(plan, progress, None if resume is None else Path(resume))


def plan_roofline(
    model: str | Path,
    device: str | Path,
    data: str | Path | None,
    *,
    cell_bits: Iterable[int] | None = None,
    rank_by: str = "kpp",
    margin: float | None = None,
    options: Mapping[str, Any],
) -> RooflinePlan:
    """Settle what is run; as :func:`roofline`. Read are the profile, and the mapping file if there is one."""
    _check_options(options)
    own = RooflineOptions.validated({"cell_bits": cell_bits, "rank_by": rank_by, "margin": margin})
    everything = {**options, "roughness": False}
    base = make_spec(model=model, device=device, data=data, **everything)
    _check_point(base)
    check_converters(base)
    check_technology(base, base.adc_bits, audited=True)
    profile = load_profile(base.device)
    settle_device(base)  # what is wrong whatever the levels
    converters = _converters(base)
    plain = {name: value for name, value in everything.items() if name not in _WITH_CONVERTERS}
    ideal, skipped = {}, []
    held = _levels_of_mapping(base)
    for bits in _bits(own.cell_bits, profile):
        if held is not None and held[1] != 2**bits:
            reason = (
                f"the codes of {held[0]} are for devices of {held[1]} levels; --code auto chooses codes for "
                "every number of levels, --code slices has none"
            )
            skipped.append(SkippedLevel(levels=2**bits, cell_bits=bits, reason=reason))
            continue
        spec = make_spec(
            model=model,
            device=device,
            data=data,
            **{**plain, "cell_bits": bits},
        )
        try:
            settle_device(spec)
        except ProfileError as error:
            skipped.append(SkippedLevel(levels=2**bits, cell_bits=bits, reason=str(error)))
            continue
        ideal[bits] = spec
    if not ideal:
        reasons = "; ".join(f"{each.levels} levels: {each.reason}" for each in skipped)
        raise ProfileError(f"none of the numbers of levels can be run: {reasons}")
    converted = {}
    if converters:
        chosen = {name: getattr(base, name) for name in _WITH_CONVERTERS}
        converted = {bits: make_spec(**{**spec.model_dump(), **chosen}) for bits, spec in ideal.items()}
    asked = Asked(own.rank_by, own.margin, converters or None)
    return RooflinePlan(ideal, converted, tuple(skipped), asked, tuple(_notes(base, profile, ideal)))


@holding_inputs()
def run_roofline(
    plan: RooflinePlan,
    progress: Progress = quiet,
    resume: Path | None = None,
    on_estimate: Callable[[str], None] | None = None,
) -> RooflineReport:
    """Run a plan; as :func:`roofline`.

    Parameters
    ----------
    on_estimate : callable, optional
        Told in words how long it will take, before it begins; without it nothing is timed.
    """
    first = next(iter(plan.ideal.values()))
    limit, events = TimeLimit.of_run(first.max_minutes), list[str]()
    check_pool(first.dask)
    runs = [
        (bits, what, run)
        for bits, ideal in plan.ideal.items()
        # Converters first: whether there is anything to convert turns out there.
        for what, run in (("adc", plan.converted.get(bits)), ("ideal", ideal))
        if run is not None
    ]
    reports: dict[tuple[int, str], AuditReport] = {}
    left_out, quickest = list[SkippedLevel](), math.inf
    several = [OneOfSeveral(f"{2**bits} levels, {what}", run) for bits, what, run in runs]
    with shared_by(several, events):
        if on_estimate is not None:
            on_estimate(estimate(several, limit.minutes, progress))
        for done, (bits, what, run) in enumerate(runs):
            # A level that would be late with one chip is named instead; there is one at least.
            begun = {level for level, _ in reports}
            if reports and bits not in begun and limit.left_s < quickest:
                if what == "ideal":
                    left_out.append(SkippedLevel(levels=2**bits, cell_bits=bits, reason=_OVER))
                continue
            began = time.perf_counter()
            words = "with converters" if what == "adc" else "ideal converters"
            label = f"{2**bits} levels, {words} ({done + 1} of {len(runs)})"
            folder = None if resume is None else resume / f"{2**bits}-levels" / what
            share = limit.share(1 / (len(runs) - done))
            timed = run.model_copy(update={"max_minutes": share, "trials": run.trials})
            report = run_audit(timed, labelled(progress, label), folder)
            reports[bits, what] = report.model_copy(update={"events": (*report.events, *events)})
            events.clear()
            quickest = min(quickest, time.perf_counter() - began)
    audits = [
        LevelAudits(bits, reports[bits, "ideal"], reports.get((bits, "adc")))
        for bits in plan.ideal
        if (bits, "ideal") in reports
    ]
    roofline = make_roofline(
        audits,
        (*plan.skipped, *left_out),
        plan.asked,
        version=__version__,
        notes=(*load_model(first.model, first.seed).notes, *plan.notes),
        seconds=60 * limit.spent,
    )
    every = [report for one in audits for report in (one.converted, one.ideal) if report is not None]
    boxed = boxed_together(limit.minutes, every)
    if boxed is None:
        return roofline
    return roofline.model_copy(update={"time_boxed": boxed, "notes": (boxed.text, *roofline.notes)})


def _levels_of_mapping(spec: RunSpec) -> tuple[str, int] | None:
    """The mapping file that holds for the model, and the levels of its devices; None without one."""
    if spec.mapping is None and (spec.code is not None or not mapping_beside(Path(spec.model)).is_file()):
        return None
    path = find_mapping(spec, load_model(spec.model, spec.seed))[0].mapping
    return None if path is None else (path, len(read_mapping(Path(path)).level_variance))


def bits_of_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """Give bits per cell of numbers of levels.

    Raises
    ------
    OptionError
        If one is not a power of two from 2 to 256: a cell holds whole bits.

    Examples
    --------
    >>> bits_of_levels((2, 16))
    (1, 4)
    """
    for count in levels:
        if not 2 <= count <= 2**MAX_CELL_BITS or count & (count - 1):
            raise OptionError(
                f"--levels: got {count}: a cell holds whole bits of a weight; use powers of two from 2 to "
                f"{2**MAX_CELL_BITS}"
            )
    return tuple(count.bit_length() - 1 for count in levels)


def _bits(asked: tuple[int, ...] | None, profile: DeviceProfile) -> tuple[int, ...]:
    """Settle the bits per cell, ascending, each once."""
    if asked is not None:
        return tuple(sorted(set(asked)))
    return ANALOG_BITS if profile.cell_bits is None else tuple(range(1, profile.cell_bits + 1))


def _check_options(options: Mapping[str, Any]) -> None:
    for name in NOT_OF_A_ROOFLINE:
        if name in options:
            raise OptionError(
                f"{flag(name)}: a roofline does not take it; audit one number of levels with it"
            )


def _check_point(spec: RunSpec) -> None:
    if len(spec.sigmas) > 1:
        raise OptionError(f"--sigma: got {len(spec.sigmas)} values; a roofline stands at one operating point")
    if len(spec.percentiles) > 1:
        raise OptionError(f"--percentile: got {len(spec.percentiles)} values; a roofline has one")
    if spec.sigma_unit == "weight_max":
        raise OptionError(
            "--sigma-unit weight_max: variation of whole weights does not know cells, so every number of "
            "levels would be the same; use level or full_scale"
        )


def _converters(spec: RunSpec) -> dict[str, JsonValue]:
    """Give the options of the converters asked for, and of their crossbar, by name on the command line."""
    if spec.adc_bits is None:
        return {}
    options = spec.model_dump(mode="json")
    return {flag(name): options[name] for name in ("crossbar", *CONVERTERS) if options[name] is not None}


def _own_spacings(spec: RunSpec, profile: DeviceProfile) -> tuple[float, int] | None:
    """Give sigma and the number of spacings where it is in those of the profile's own levels, else None."""
    knob = profile.sigma
    if spec.sigma_unit is not None or knob is None or knob.unit != "level" or profile.cell_bits is None:
        return None
    return (spec.sigmas[0] if spec.sigmas else knob.default), 2**profile.cell_bits - 1


def _notes(spec: RunSpec, profile: DeviceProfile, ideal: Mapping[int, RunSpec]) -> Iterable[str]:
    own, spacings = profile.cell_bits, _own_spacings(spec, profile)
    if spacings is not None and any(bits != own for bits in ideal):
        yield (
            f"the device stays the same: sigma {spacings[0]:g} is in spacings of the profile's "
            f"{spacings[1] + 1} levels at every number of levels (--sigma-unit level takes it in those of "
            "the cells in use)"
        )
    elif spec.sigma_unit == "level":
        yield "sigma is in level spacings at every number of levels: the more levels, the better the device"
    if own is None:
        yield "the device is analog: cutting its window into levels changes neither its laws nor its window"
        return
    between = [str(2**bits) for bits in ideal if bits < own and own % bits]
    levels_laws = '"kind":"levels"' in profile.model_dump_json()
    if between and levels_laws:
        yield (
            f"{', '.join(between)} levels do not lie on the profile's {2**own}: what the profile gives for "
            "each level is interpolated between its neighbours"
        )

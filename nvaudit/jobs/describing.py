"""The use case: what profiles of devices and of technologies say, and what a device makes of a weight."""

from __future__ import annotations

from dataclasses import asdict

from nvaudit._version import __version__
from nvaudit.cost.peak import peaks_of
from nvaudit.device import DeviceProfile, Read, load_profile, profile_digest, profile_names
from nvaudit.errors import OptionError
from nvaudit.jobs.costing import INPUT_BITS
from nvaudit.mapping.tiling import Crossbar
from nvaudit.perturb.moments import device_facts
from nvaudit.report.device.result import (
    DeviceReport,
    LevelSpread,
    ProfileList,
    ProfileSummary,
    SigmaRange,
    WeightSpread,
    describe_levels,
)
from nvaudit.report.sections import InputHashes
from nvaudit.report.technology.result import (
    PeakInfo,
    TechnologyList,
    TechnologyNumber,
    TechnologyReport,
    TechnologySummary,
)
from nvaudit.report.wording import count_text, sigma_text
from nvaudit.session import point_info, settle_device
from nvaudit.spec import RunSpec
from nvaudit.technology import Technology, load_technology, quantities, technology_names


def list_profiles() -> ProfileList:
    """List the bundled profiles."""
    profiles = [load_profile(name) for name in profile_names()]
    return ProfileList(
        nvaudit_version=__version__,
        headline=count_text(len(profiles), "bundled device profile"),
        profiles=tuple(map(_device_summary, profiles)),
    )


def _device_summary(profile: DeviceProfile) -> ProfileSummary:
    knob = profile.sigma
    return ProfileSummary(
        name=profile.name,
        description=profile.description,
        technology=profile.technology,
        cell_bits=profile.cell_bits,
        encoding=profile.encoding,
        sigma=None
        if knob is None
        else SigmaRange(default=knob.default, min=knob.min, max=knob.max, unit=knob.unit),
        unit="level" if profile.window is None else profile.window.unit,
        changes_with_time=any(term.enabled and term.is_timed for term in profile.noise),
        read_noise=any(term.enabled and isinstance(term, Read) for term in profile.noise),
    )


def describe_device(spec: RunSpec) -> DeviceReport:
    """Say what a profile makes of a weight at one operating point.

    Raises
    ------
    OptionError
        If several are asked for.
    """
    _, points = settle_device(spec)
    if len(points) > 1:
        raise OptionError(f"--sigma: show one operating point at a time, got {len(points)}")
    facts = device_facts(points[0])
    point = facts.point
    profile = point.profile.model_dump(mode="json")
    where = sigma_text(point.sigma, point.sigma_unit, point.level_of)
    return DeviceReport(
        nvaudit_version=__version__,
        headline=f"{point.profile.name}, {where}: weight sigma {facts.weight.rms:.4g} of max|W|",
        device=profile,
        operating_point=point_info(point),
        hashes=InputHashes(device=profile_digest(point.profile)),
        profile=profile,
        sigma=point.sigma,
        sigma_unit=point.sigma_unit,
        level_of=point.level_of,
        time_s=point.time_s,
        unit=facts.unit,
        weight_bits=facts.bits,
        slices=facts.slices,
        levels=tuple(LevelSpread(**asdict(level)) for level in facts.levels),
        weight_sigma=WeightSpread(**asdict(facts.weight)),
        moments=facts.how,
        laws=describe_levels({row.level: row.g for row in facts.levels}, facts.draws, facts.unit),
    )


_OPTIONAL = ("dac", "buffer", "htree", "noc", "digital")


def list_technologies() -> TechnologyList:
    """List the bundled technologies."""
    technologies = [load_technology(name) for name in technology_names()]
    return TechnologyList(
        nvaudit_version=__version__,
        headline=count_text(len(technologies), "bundled technology", "bundled technologies"),
        technologies=tuple(map(summary_of, technologies)),
    )


def summary_of(technology: Technology) -> TechnologySummary:
    """What a technology is, in short."""
    return TechnologySummary(
        name=technology.name,
        description=technology.description,
        node_nm=technology.node_nm,
        adc=technology.adc.kind,
        adc_bits=technology.adc.bits,
        input_mode=technology.input_mode,
        missing=tuple(name for name in _OPTIONAL if getattr(technology, name) is None),
    )


def describe_technology(technology: Technology, spec: RunSpec) -> TechnologyReport:
    """Say what a technology states, and what it takes when all of it is in use."""
    device, _ = settle_device(spec)
    low, high = technology.adc.bits
    adc_bits = min(max(8, low), high) if spec.adc_bits is None else spec.adc_bits
    inputs, size = spec.dac_bits or INPUT_BITS, Crossbar(*spec.crossbar)
    peaks = peaks_of(technology, device, size, adc_bits, inputs)
    peak = tuple(
        PeakInfo(
            name=one.name,
            power_w=one.power_w,
            area_m2=one.area_m2,
            operations_per_s=one.operations_per_s,
            operations_per_j=one.operations_per_s / one.power_w if one.power_w else 0.0,
        )
        for one in peaks
    )
    return TechnologyReport(
        nvaudit_version=__version__,
        headline=f"{technology.name}: {technology.description}",
        technology=technology.model_dump(mode="json"),
        summary=summary_of(technology),
        numbers=tuple(
            TechnologyNumber(
                path=path,
                value=one.value,
                unit=one.unit,
                low=one.valid[0],
                high=one.valid[1],
                evidence=one.evidence,
                source=one.source,
                note=one.note,
            )
            for path, one in quantities(technology).items()
        ),
        peak=peak,
        peak_at=f"Crossbars of {size.rows}x{size.cols} with {adc_bits}-bit ADCs and {inputs}-bit inputs, "
        f"weights of {device.weight_bits} bits on devices of {device.name} all in use; what is moved between "
        "tiles and what devices take only where the technology states it for itself",
    )

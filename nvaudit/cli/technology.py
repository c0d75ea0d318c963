"""`nvaudit technology`: list, show, validate."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from nvaudit._version import __version__
from nvaudit.cli.once import OnceGroup
from nvaudit.cli.options import FilePath, spec_options
from nvaudit.cli.output import printing
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.cli.say import say
from nvaudit.cost.peak import peaks_of
from nvaudit.errors import OptionError
from nvaudit.jobs.costing import INPUT_BITS
from nvaudit.mapping.tiling import Crossbar
from nvaudit.report.kinds import print_report
from nvaudit.report.technology.result import (
    PeakInfo,
    TechnologyList,
    TechnologyNumber,
    TechnologyReport,
    TechnologySummary,
)
from nvaudit.report.wording import count_text
from nvaudit.session import settle_device
from nvaudit.spec import RunSpec, make_spec
from nvaudit.technology import Technology, load_technology, quantities, technology_names

_OPTIONAL = ("dac", "buffer", "htree", "noc", "digital")


@click.group("technology", cls=OnceGroup)
def technology_group() -> None:
    """List, show and validate technology profiles."""


@technology_group.command("list")
@output_options("technologies")
def list_command(outputs: tuple[Output, ...]) -> None:
    """List the bundled technologies."""
    check_outputs(outputs, {})
    found = [load_technology(name) for name in technology_names()]
    listed = TechnologyList(
        nvaudit_version=__version__,
        headline=count_text(len(found), "bundled technology", "bundled technologies"),
        technologies=tuple(map(_summary, found)),
    )
    hand_out(listed, outputs, partial(print_report, listed))


def _summary(technology: Technology) -> TechnologySummary:
    return TechnologySummary(
        name=technology.name,
        description=technology.description,
        node_nm=technology.node_nm,
        adc=technology.adc.kind,
        adc_bits=technology.adc.bits,
        input_mode=technology.input_mode,
        missing=tuple(name for name in _OPTIONAL if getattr(technology, name) is None),
    )


@technology_group.command("show")
@click.argument("profile", metavar="NAME|FILE")
@spec_options(
    RunSpec,
    only=("device", "bits", "cell_bits", "encoding", "crossbar", "adc_bits", "dac_bits"),
    own={
        "adc_bits": {"help": "Bits of the ADCs.", "unset": "8, or the nearest that the technology knows"},
        "dac_bits": {"help": "Bits of the inputs.", "unset": "8"},
        "crossbar": {"help": "Crossbar size."},
    },
)
@output_options("technology")
def show_command(profile: str, outputs: tuple[Output, ...], **options: Any) -> None:
    """Show every number of a technology with its source, and what it takes when all of it is in use."""
    check_outputs(outputs, {"the technology": Path(profile)})
    technology = load_technology(profile)
    spec = make_spec(model="-", **options)
    shown = _report(technology, spec)
    hand_out(shown, outputs, partial(print_report, shown))


def _report(technology: Technology, spec: RunSpec) -> TechnologyReport:
    """Write a technology down."""
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
        summary=_summary(technology),
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


@technology_group.command("validate")
@click.argument("file", type=FilePath())
def validate_command(file: Path) -> None:
    """Check a technology FILE; exit 2 and say what is wrong if it is not valid."""
    try:
        there = file.is_file()
    except OSError as error:  # a name that no file can have
        raise OptionError(f"{str(file)[:60]}…: {error.strerror}; name a JSON profile") from error
    if not there:
        raise OptionError(f"{file}: no such file; name a JSON profile")
    technology = load_technology(file)
    missing = _summary(technology).missing
    rest = f"; not modelled: {', '.join(missing)}" if missing else ""
    with printing():
        say(f"{file}: valid: {technology.name}, {len(quantities(technology))} numbers{rest}")

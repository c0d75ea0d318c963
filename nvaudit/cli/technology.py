"""`nvaudit technology`: list, show, validate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nvaudit.cli.once import OnceGroup
from nvaudit.cli.options import FilePath, spec_options
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.cli.say import printing, say
from nvaudit.files import check_there
from nvaudit.spec import RunSpec, make_spec


@click.group("technology", cls=OnceGroup)
def technology_group() -> None:
    """List, show and validate technology profiles."""


@technology_group.command("list")
@output_options("technologies")
def list_command(outputs: tuple[Output, ...]) -> None:
    """List the bundled technologies."""
    from nvaudit.jobs.describing import list_technologies

    check_outputs(outputs, {})
    listed = list_technologies()
    hand_out(listed, outputs)


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
    from nvaudit.jobs.describing import describe_technology
    from nvaudit.technology import load_technology

    check_outputs(outputs, {"the technology": Path(profile)})
    shown = describe_technology(load_technology(profile), make_spec(model="-", **options))
    hand_out(shown, outputs)


@technology_group.command("validate")
@click.argument("file", type=FilePath())
def validate_command(file: Path) -> None:
    """Check a technology FILE; exit 2 and say what is wrong if it is not valid."""
    from nvaudit.jobs.describing import summary_of
    from nvaudit.technology import load_technology, quantities

    check_there(file)
    technology = load_technology(file)
    missing = summary_of(technology).missing
    rest = f"; not modelled: {', '.join(missing)}" if missing else ""
    with printing():
        say(f"{file}: valid: {technology.name}, {len(quantities(technology))} numbers{rest}")

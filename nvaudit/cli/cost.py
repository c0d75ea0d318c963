"""`nvaudit cost`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import ModelPath, spec_options
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.options import CodeOptions, ConverterOptions, DeviceOptions, MappingOptions
from nvaudit.spec import RunSpec, make_spec
from nvaudit.technology_options import TechnologyOptions

_TAKEN = (
    *(
        name
        for part in (DeviceOptions, MappingOptions, CodeOptions, ConverterOptions, TechnologyOptions)
        for name in part.model_fields
        if name != "adc_range"
    ),
    *("digital_outliers", "chip", "skip_zero_groups", "data", "limit", "seed", "provider"),
)


@click.command("cost", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(
    RunSpec,
    only=_TAKEN,
    own={
        "technology": {
            "help": "The circuits around the devices: a bundled technology (see `nvaudit technology list`) "
            "or a technology file.",
            "unset": "it must be given",
        },
        "input_mode": {
            "help": "How inputs drive rows: bit after bit, as one voltage, or as one pulse of proportional "
            "length. An audit simulates one voltage.",
            "unset": "the technology's",
        },
        "energy_chips": {
            "help": "Also work out the energy on the first N simulated chips: its mean and its spread."
        },
        "chip": {
            "help": "Also work out the energy on chips whose conductances were read back: a folder in the "
            "form that `nvaudit map` writes, or a table row,column,conductance for a model on one crossbar."
        },
        "adc_bits": {"help": "Bits of the ADCs.", "unset": "it must be given"},
        "dac_bits": {"help": "Bits of the inputs.", "unset": "8"},
        "crossbar": {"help": "Crossbar size."},
        "data": {
            "help": "Samples that the inputs of the layers are measured on, as for `audit`.",
            "unset": "MODEL.npz beside the model; without it an assumption is stated",
        },
        "seed": {"help": "Same seed, same chips."},
        "sigmas": {"help": "Device variation in the profile's unit, for --energy-chips.", "metavar": "S"},
    },
)
@output_options("cost")
@quiet_option()
def cost_command(model: Path, outputs: tuple[Output, ...], quiet: bool, **options: Any) -> None:
    """Say what MODEL costs in hardware: energy, latency and area, by layer and by component."""
    from nvaudit.jobs.costing import run_cost
    from nvaudit.session import input_files

    spec = make_spec(model=model, **options)
    check_outputs(outputs, input_files(spec))
    with ProgressDisplay(quiet) as progress:
        report = run_cost(spec, progress)
    hand_out(report, outputs)

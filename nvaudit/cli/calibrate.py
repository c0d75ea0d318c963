"""`nvaudit calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FilePath, ModelPath, spec_options
from nvaudit.cli.outputs import CommandProduct, Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.errors import EXIT_OK
from nvaudit.files import check_product
from nvaudit.spec import RunSpec

if TYPE_CHECKING:
    from nvaudit.jobs.chip_calibrating import Method


_CHIP = CommandProduct("CHIP.onnx", "Where the corrected chip goes.", required=True)


@click.command("calibrate", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@click.option("--chip", type=FilePath(), required=True, metavar="FOLDER",
              help="The chip that was read back, as for `audit`.")  # fmt: skip
@click.option("--name", metavar="NAME", help="Which chip of the folder.  [default: the only one]")
@click.option("--data", metavar="PATH", help="Unlabelled samples to correct by.  [default: some of "
              "the test data, which are then not scored]")  # fmt: skip
@click.option("--test-data", metavar="PATH", help="What the chip is scored on, before and after.  [default: "
              "MODEL.npz beside the model]")  # fmt: skip
@click.option("--samples", type=click.IntRange(2), default=100, show_default=True, metavar="N",
              help="Samples to correct by.")  # fmt: skip
@click.option("--method", type=click.Choice(["least_squares", "moments"]), default="least_squares",
              show_default=True, help="Gain and offset of each output that bring results nearest to the "
              "ideal ones, layer by layer; or mean and spread as of those, which normalisations take "
              "up.")  # fmt: skip
@spec_options(
    RunSpec,
    only={"limit", "output_name", "class_axis", "metric", "seed", "provider"},
    own={"output_name": {"was": ()}},
)
@output_options("calibrate", product=_CHIP)
@quiet_option()
def calibrate_command(
    model: Path,
    chip: Path,
    out: Path,
    outputs: tuple[Output, ...],
    data: str | None,
    test_data: str | None,
    method: Method,
    quiet: bool,
    **options: Any,
) -> int:
    """Correct one chip that was read back digitally, and write it as an ordinary ONNX model."""
    from nvaudit.jobs.chip_calibrating import calibrate_chip

    inputs = {"the model": model, "the data": data, "the test data": test_data}
    check_product(out, inputs)
    read = {name: Path(path) for name, path in inputs.items() if path}
    _CHIP.check(out, read)
    check_outputs(outputs, read, product=out)
    with ProgressDisplay(quiet) as progress:
        report = calibrate_chip(
            model, chip, out, data=data, test_data=test_data, method=method, progress=progress, **options
        )
    hand_out(report, outputs)
    return EXIT_OK

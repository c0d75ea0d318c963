"""`nvaudit map`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import ONE_SIGMA, FilePath, ModelPath, TypedOption, spec_options
from nvaudit.cli.outputs import CommandProduct, Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.errors import EXIT_GATE, EXIT_OK, OptionError
from nvaudit.files import check_folder
from nvaudit.mapping.manifest import names_written
from nvaudit.mapping.spec import MapOptions
from nvaudit.options import OF_A_MAPPING, DataOptions
from nvaudit.spec import RunSpec

_FOLDER = CommandProduct(
    "FOLDER", "The folder of the arrays; made whole or not at all.  [default: with --check none]"
)


@click.command("map", cls=OnceCommand)
@click.argument("model", type=ModelPath(), required=False)
@click.option("--check", "checked", type=FilePath(), metavar="FOLDER", cls=TypedOption,
              help="Put the arrays of a mapping together again: do they compute what the quantised model "
              "does, bit for bit?  [default: not]")  # fmt: skip
@spec_options(MapOptions)
@spec_options(
    RunSpec,
    only={*OF_A_MAPPING, *DataOptions.model_fields, "provider"},
    own={
        **ONE_SIGMA,
        "output_name": {"was": ()},
        "data": {
            "help": "Samples for the ranges of converters and for --check, as for `audit`.",
            "unset": "MODEL.npz beside the model, or made-up samples",
        },
    },
)
@output_options("map", product=_FOLDER, gate=True)
@click.option("--overwrite", is_flag=True, help="Replace a folder that `map` has written.")
@quiet_option()
def map_command(
    model: Path | None,
    checked: Path | None,
    out: Path | None,
    outputs: tuple[Output, ...],
    overwrite: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Write what every device of MODEL is to hold, crossbar by crossbar, for who programs the chip."""
    from nvaudit.jobs.deploying import MapSpec, map_model
    from nvaudit.session import input_files

    if (checked is None) == (out is None):
        raise OptionError("give -o FOLDER to write a mapping, or --check FOLDER to check one")
    if checked is not None:
        return _check(model, checked, outputs, quiet, options)
    if model is None or out is None:
        raise OptionError("MODEL: missing; name an .onnx file")
    spec = MapSpec.validated({"model": model, **options})
    _FOLDER.check(out, input_files(spec))
    check_outputs(outputs, input_files(spec))
    check_folder(out, overwrite, names_written)
    with ProgressDisplay(quiet) as progress:
        report = map_model(spec, out, progress)
    hand_out(report, outputs)
    return EXIT_OK


def _check(
    model: Path | None, folder: Path, outputs: tuple[Output, ...], quiet: bool, options: dict[str, Any]
) -> int:
    """Check a mapping; how it was made stands in it, so that other options have no say."""
    from nvaudit.jobs.deploying import MapSpec
    from nvaudit.jobs.reassembling import check_mapping

    own = {name: options[name] for name in (*DataOptions.model_fields, "provider")}
    own = {name: value for name, value in own.items() if value not in (None, ())}
    defaults = MapSpec.model_fields
    for name, value in options.items():
        if name in defaults and name not in own and value not in (None, (), defaults[name].default):
            raise OptionError(
                f"{MapSpec.flag(name)} and --check: choose one; how it was mapped stands in the manifest"
            )
    check_outputs(outputs, {"the model": Path(model)} if model is not None else {})
    with ProgressDisplay(quiet) as progress:
        report = check_mapping(folder, model, progress=progress, **own)
    hand_out(report, outputs)
    return EXIT_OK if report.check is None or report.check.holds else EXIT_GATE

"""`nvaudit inspect`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FilePath, ModelPath, spec_options
from nvaudit.cli.outputs import OldJson, Output, check_outputs, hand_out, output_options
from nvaudit.errors import EXIT_GATE, EXIT_OK, OptionError
from nvaudit.files import check_product
from nvaudit.report.jsontext import escape_hidden
from nvaudit.spec import INSPECTED, RunSpec, make_spec

if TYPE_CHECKING:
    from nvaudit.report.inspection.result import InspectReport


def _rows_json(report: InspectReport) -> str:
    rows = [row.model_dump(mode="json") for row in report.tensors]
    return escape_hidden(json.dumps(rows, indent=2))


@click.command("inspect", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(RunSpec, only=INSPECTED)
@output_options("inspect", gate=True, old_json=OldJson("the list of tensors", _rows_json))
@click.option(
    "--write-mapping",
    "write_mapping_to",
    type=FilePath(),
    metavar="FILE",
    help="Write the codes of --code as a mapping file, such as MODEL.mapping.json.  [default: none]",
)
@click.option("--all", "every", is_flag=True, help="List every constant, also where there are more than 40.")
def inspect_command(
    model: Path, outputs: tuple[Output, ...], write_mapping_to: Path | None, every: bool, **options: Any
) -> int:
    """Say which initializers and constants of MODEL are mapped or digital, and why; count its products."""
    from nvaudit.jobs.inspecting import inspect
    from nvaudit.report.inspection.document import print_all
    from nvaudit.report.kinds import print_report
    from nvaudit.session import input_files

    spec = make_spec(model=model, **options)
    check_outputs(outputs, input_files(spec))
    if write_mapping_to is not None:
        _check_mapping(write_mapping_to, outputs, input_files(spec))
    inspection = inspect(spec, write_mapping_to)
    hand_out(inspection, outputs, print_all if every else print_report)
    gate = inspection.mapped_gate
    return EXIT_GATE if gate is not None and gate.verdict == "fail" else EXIT_OK


def _check_mapping(path: Path, outputs: Sequence[Output], inputs: dict[str, Path]) -> None:
    """Find out beforehand that a mapping file can be written; the model's own may be replaced."""
    inputs.pop("the mapping file")
    check_product(path, inputs, "--write-mapping")
    for output in outputs:
        if not output.to_stdout and os.path.realpath(output.path) == os.path.realpath(path):
            raise OptionError(f"{output.option} and --write-mapping: both are {path}; choose two paths")

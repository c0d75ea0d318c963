"""`nvaudit inspect`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from nvaudit._version import __version__
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FilePath, ModelPath, spec_options
from nvaudit.cli.outputs import OldJson, Output, check_outputs, hand_out, output_options
from nvaudit.coverage import Coverage, count_coverage, declared_coverage
from nvaudit.data import load_dataset
from nvaudit.device import profile_digest
from nvaudit.errors import EXIT_GATE, EXIT_OK, NvauditError, OptionError
from nvaudit.files import check_product, holding_inputs
from nvaudit.mapping.mapping_file import mapping_data, write_mapping
from nvaudit.mapping.select import Decision, select
from nvaudit.mapping.tiling import Crossbar
from nvaudit.model import LoadedModel, Rebatch, analyse_batch, constants, load_model
from nvaudit.options import CodeOptions, MappingOptions
from nvaudit.perturb.choose_codes import ChosenCodes
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.perturb.settle_codes import find_mapping, notes_on_codes, settle_codes
from nvaudit.report.inspection.result import InspectReport, inspect_report
from nvaudit.report.jsontext import escape_hidden
from nvaudit.report.kinds import print_report
from nvaudit.report.mapped import judge_share
from nvaudit.report.sections import InputHashes
from nvaudit.session import (
    input_files,
    input_specs,
    settle_device,
)
from nvaudit.spec import RunSpec, make_spec
from nvaudit.tensor_table import codes_info, inspect_rows

_TAKEN = (
    "device",
    *(name for part in (MappingOptions, CodeOptions) for name in part.model_fields if name != "scale"),
    "crossbar",
    "require_mapped",
)
_ASKED = ("model", *_TAKEN)


def _rows_json(report: InspectReport) -> str:
    rows = [row.model_dump(mode="json") for row in report.tensors]
    return escape_hidden(json.dumps(rows, indent=2))


@click.command("inspect", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(RunSpec, only=_TAKEN)
@output_options("inspect", gate=True, old_json=OldJson("the list of tensors", _rows_json))
@click.option(
    "--write-mapping",
    "write_mapping_to",
    type=FilePath(),
    metavar="FILE",
    help="Write the codes of --code as a mapping file, such as MODEL.mapping.json.  [default: none]",
)
def inspect_command(
    model: Path, outputs: tuple[Output, ...], write_mapping_to: Path | None, **options: Any
) -> int:
    """List every initializer and constant of MODEL: mapped or digital, and why; and count its products."""
    spec = make_spec(model=model, **options)
    check_outputs(outputs, input_files(spec))
    if write_mapping_to is not None:
        _check_mapping(write_mapping_to, outputs, input_files(spec))
    profile, points = settle_device(spec)
    with holding_inputs():
        loaded = load_model(model)
        rebatch = analyse_batch(loaded.model)
        decisions = select(constants(loaded), spec.layers, spec.digital)
        spec, notes = find_mapping(spec, loaded)
        codes = settle_codes(spec, points, decisions)
        notes += notes_on_codes(codes, decisions)
        rows = inspect_rows(
            decisions,
            profile,
            Crossbar(*spec.crossbar),
            profile.weight_bits,
            profile.cell_bits,
            profile.encoding,
            codes,
        )
        coverage = _coverage(loaded, rebatch, decisions)
    if write_mapping_to is not None:
        _write_mapping(write_mapping_to, codes, loaded)
    rows = coverage.rows(rows)
    gate = judge_share(coverage.share, spec.require_mapped)
    status = EXIT_GATE if gate is not None and gate.verdict == "fail" else EXIT_OK
    inspection = inspect_report(
        nvaudit_version=__version__,
        model={**loaded.facts(), "batching": rebatch.reason},
        device=profile.model_dump(mode="json"),
        hashes=InputHashes(model=loaded.digest, device=profile_digest(profile)),
        run={name: value for name, value in spec.model_dump(mode="json").items() if name in _ASKED},
        ir_version=loaded.ir_version,
        crossbar=spec.crossbar,
        tensors=tuple(rows),
        mapped=coverage.share,
        mapped_gate=gate,
        codes=codes_info(codes, _sizes(decisions), spec.code or spec.mapping or ""),
        notes=tuple(notes),
    )
    hand_out(inspection, outputs, partial(print_report, inspection))
    return status


def _sizes(decisions: Sequence[Decision]) -> dict[str, int]:
    """Weights of each tensor on the array."""
    mapped = (decision.constant for decision in decisions if decision.mapped)
    return {constant.weight.key: constant.size for constant in mapped if constant.weight is not None}


def _check_mapping(path: Path, outputs: Sequence[Output], inputs: dict[str, Path]) -> None:
    """Find out beforehand that a mapping file can be written; the model's own may be replaced."""
    inputs.pop("the mapping file")
    check_product(path, inputs, "--write-mapping")
    for output in outputs:
        if not output.to_stdout and os.path.realpath(output.path) == os.path.realpath(path):
            raise OptionError(f"{output.option} and --write-mapping: both are {path}; choose two paths")


def _write_mapping(path: Path, codes: ChosenCodes | None, loaded: LoadedModel) -> None:
    if codes is None or codes.point is None:
        raise OptionError("--write-mapping: there are no codes to write; give --code")
    data = mapping_data(
        codes.of,
        model_sha256=loaded.digest,
        device=codes.point.profile.name,
        sigma=codes.point.sigma,
        variance=tuple(codes.variance.tolist()),
    )
    write_mapping(path, data)


def _coverage(loaded: LoadedModel, rebatch: Rebatch, decisions: Sequence[Decision]) -> Coverage:
    """Count products on the declared sizes; where these do not say enough, on data, as an audit would.

    The data are those beside the model, or else made up. Without any that can be fed some stay uncounted.
    """
    coverage, more = declared_coverage(loaded, rebatch, decisions)
    if not more:
        return coverage
    try:
        with scratch_folder() as folder:
            specs = input_specs(loaded, rebatch)
            dataset = load_dataset(None, specs, model_path=loaded.path, limit=1, scratch=folder)
            return count_coverage(loaded, rebatch, decisions, dataset)
    except (NvauditError, MemoryError):  # a model fixed at more samples than fit cannot be fed either
        return coverage

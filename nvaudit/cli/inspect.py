"""`nvaudit inspect`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from nvaudit._version import __version__
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import ModelPath, spec_options
from nvaudit.cli.outputs import OldJson, Output, check_outputs, hand_out, output_options
from nvaudit.coverage import Coverage, count_coverage, declared_coverage
from nvaudit.data import load_dataset
from nvaudit.device import profile_digest
from nvaudit.errors import EXIT_GATE, EXIT_OK, NvauditError
from nvaudit.files import holding_inputs
from nvaudit.mapping.select import Decision, select
from nvaudit.mapping.tiling import Crossbar
from nvaudit.model import LoadedModel, Rebatch, analyse_batch, constants, load_model
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.report.inspection.result import InspectReport, inspect_report
from nvaudit.report.jsontext import escape_hidden
from nvaudit.report.kinds import print_report
from nvaudit.report.mapped import judge_share
from nvaudit.report.sections import InputHashes
from nvaudit.session import input_specs, settle_codes, settle_device
from nvaudit.spec import RunSpec, make_spec
from nvaudit.tensor_table import inspect_rows

_OF_THE_MAPPING = (
    *("bits", "cell_bits", "encoding", "top_slice", "code", "devices_per_weight", "allocate"),
    *("layers", "digital", "crossbar"),
)

_ASKED = ("model", "device", *_OF_THE_MAPPING, "require_mapped")


def _rows_json(found: InspectReport) -> str:
    rows = [row.model_dump(mode="json") for row in found.tensors]
    return escape_hidden(json.dumps(rows, indent=2))


@click.command("inspect", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(RunSpec, only=("device", *_OF_THE_MAPPING, "require_mapped"))
@output_options("inspect", gate=True, old_json=OldJson("the list of tensors", _rows_json))
def inspect_command(model: Path, outputs: tuple[Output, ...], **options: Any) -> int:
    """List every initializer and constant of MODEL: mapped or digital, and why; and count its products."""
    spec = make_spec(model=model, **options)
    check_outputs(outputs, {"the model": model, "the device profile": Path(spec.device)})
    profile, points = settle_device(spec)
    with holding_inputs():
        loaded = load_model(model)
        rebatch = analyse_batch(loaded.model)
        decisions = select(constants(loaded), spec.layers, spec.digital)
        rows = inspect_rows(
            decisions,
            profile,
            Crossbar(*spec.crossbar),
            profile.weight_bits,
            profile.cell_bits,
            profile.encoding,
            settle_codes(spec, points, decisions),
        )
        coverage = _coverage(loaded, rebatch, decisions)
    rows = coverage.rows(rows)
    gate = judge_share(coverage.share, spec.require_mapped)
    status = EXIT_GATE if gate is not None and gate.verdict == "fail" else EXIT_OK
    found = inspect_report(
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
    )
    hand_out(found, outputs, partial(print_report, found))
    return status


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

"""`nvaudit inspect`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import ModelPath, spec_options
from nvaudit.cli.output import echo_json, printing
from nvaudit.coverage import Coverage, count_coverage, declared_coverage
from nvaudit.data import load_dataset
from nvaudit.errors import EXIT_GATE, EXIT_OK, NvauditError
from nvaudit.files import holding_inputs
from nvaudit.findings import inspect_rows
from nvaudit.mapping.select import Decision, select
from nvaudit.mapping.tiling import Crossbar
from nvaudit.model import LoadedModel, Rebatch, analyse_batch, constants, load_model
from nvaudit.perturb.scratch import scratch_folder
from nvaudit.report.inspection import render_inspect
from nvaudit.report.jsontext import escape_hidden
from nvaudit.report.mapped import judge_share
from nvaudit.session import input_specs, settle_codes, settle_device
from nvaudit.spec import RunSpec, make_spec

_OF_THE_MAPPING = (
    *("bits", "cell_bits", "encoding", "top_slice", "code", "devices_per_weight", "allocate"),
    *("layers", "digital", "crossbar"),
)


@click.command("inspect", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(RunSpec, only=("device", *_OF_THE_MAPPING, "require_mapped"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def inspect_command(model: Path, as_json: bool, **options: Any) -> int:
    """List every initializer and constant of MODEL: mapped or digital, and why; and count its products."""
    spec = make_spec(model=model, **options)
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
    if as_json:
        with printing():
            echo_json(escape_hidden(json.dumps([row.model_dump(mode="json") for row in rows], indent=2)))
        return status
    header = [
        f"{model}: opset {loaded.opset}, IR {loaded.ir_version}, {rebatch.reason}",
        f"device {profile.name}: {profile.weight_bits} weight bits, "
        + (f"{profile.cell_bits} bits per cell" if profile.cell_bits else "analog cells")
        + f", {profile.encoding}, crossbars of {spec.crossbar[0]}x{spec.crossbar[1]}",
    ]
    with printing() as console:
        render_inspect(rows, header, console, coverage.share, gate)
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

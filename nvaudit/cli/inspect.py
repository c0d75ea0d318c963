"""`nvaudit inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nvaudit.cli.options import FilePath, device_options, select_options
from nvaudit.cli.output import printing
from nvaudit.findings import inspect_rows
from nvaudit.mapping.crossbar import Crossbar
from nvaudit.mapping.select import select
from nvaudit.model import analyse_batch, constants, load_model
from nvaudit.report.inspection import render_inspect
from nvaudit.session import settle_device
from nvaudit.spec import make_spec


@click.command("inspect")
@click.argument("model", type=FilePath())
@device_options()
@select_options()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def inspect_command(
    model: Path,
    device: str,
    bits: int | None,
    cell_bits: int | None,
    encoding: str | None,
    top_slice: str | None,
    layers: tuple[str, ...],
    digital: tuple[str, ...],
    crossbar: tuple[int, int],
    as_json: bool,
) -> None:
    """List every initializer and constant of MODEL: mapped or digital, and why."""
    spec = make_spec(
        model=model,
        device=device,
        bits=bits,
        cell_bits=cell_bits,
        encoding=encoding,
        top_slice=top_slice,
        crossbar=crossbar,
    )
    profile, _ = settle_device(spec)
    loaded = load_model(model)
    rebatch = analyse_batch(loaded.model)
    decisions = select(constants(loaded), layers, digital)
    rows = inspect_rows(
        decisions, profile, Crossbar(*crossbar), profile.weight_bits, profile.cell_bits, profile.encoding
    )
    if as_json:
        with printing():
            click.echo(json.dumps([row.model_dump(mode="json") for row in rows], indent=2))
        return
    header = [
        f"{model}: opset {loaded.opset}, IR {loaded.ir_version}, {rebatch.reason}",
        f"device {profile.name}: {profile.weight_bits} weight bits, "
        + (f"{profile.cell_bits} bits per cell" if profile.cell_bits else "analog cells")
        + f", {profile.encoding}, crossbars of {crossbar[0]}x{crossbar[1]}",
    ]
    with printing() as console:
        render_inspect(rows, header, console)

"""`nvaudit devices`: list, show, validate, fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nvaudit.cli.once import OnceGroup
from nvaudit.cli.options import FilePath, spec_options
from nvaudit.cli.output import echo_json, printing
from nvaudit.cli.outputs import Product, product_option
from nvaudit.cli.say import say
from nvaudit.device import (
    DeviceProfile,
    dump_profile,
    fit_profile,
    load_profile,
    operating_point,
    profile_names,
)
from nvaudit.errors import OptionError
from nvaudit.files import write_text_atomic
from nvaudit.options import DeviceOptions, MappingOptions
from nvaudit.perturb.device_facts import DeviceFacts, device_facts
from nvaudit.report.device_plot import plot_html, plot_lines
from nvaudit.report.jsontext import escape_hidden
from nvaudit.report.wording import duration_text, sigma_text
from nvaudit.session import settle_device
from nvaudit.spec import make_spec


@click.group("devices", cls=OnceGroup)
def devices_group() -> None:
    """List, show, validate and fit device profiles."""


@devices_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(as_json: bool) -> None:
    """List the bundled profiles."""
    profiles = [load_profile(name) for name in profile_names()]
    if as_json:
        with printing():
            echo_json(
                escape_hidden(
                    json.dumps([{"name": p.name, "description": p.description} for p in profiles], indent=2)
                )
            )
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("profile", no_wrap=True)
    for title in ("technology", "bits/cell", "encoding", "sigma: default, range"):
        table.add_column(title, overflow="fold")
    for p in profiles:
        cell = str(p.cell_bits) if p.cell_bits else "analog"
        table.add_row(*map(Text, (p.name, p.technology, cell, p.encoding, _knob(p))))
    with printing() as console:
        console.print(table)


def _knob(profile: DeviceProfile) -> str:
    knob = profile.sigma
    return f"{knob.default:g}, {knob.min:g} … {knob.max:g} {knob.unit}" if knob else "fixed"


@devices_group.command("show")
@click.argument("profile", metavar="NAME|FILE")
@spec_options(
    MappingOptions,
    DeviceOptions,
    without=("device", "scale", "layers", "digital"),
    own={"sigmas": {"help": "Device variation in the profile's unit.", "metavar": "S"}},
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--plot", is_flag=False, flag_value="-", metavar="[FILE.html]",
              help="Draw the law of every level: in the terminal, or into FILE.html.")  # fmt: skip
def show_command(
    profile: str,
    as_json: bool,
    plot: str | None,
    **options: Any,
) -> None:
    """Show a profile: sigma of every level, and what it makes of a weight."""
    if as_json and plot == "-":
        raise OptionError("--json and --plot both print; use one of them, or give --plot a FILE.html")
    device, points = settle_device(make_spec(model="-", device=profile, **options))
    if len(points) > 1:
        raise OptionError(f"--sigma: show one operating point at a time, got {len(points)}")
    point = points[0]
    facts = device_facts(point)
    with printing() as console:
        if as_json:
            echo_json(escape_hidden(json.dumps(facts.as_json(), indent=2)))
        else:
            _print(facts, console)
        if plot == "-":
            for line in plot_lines(facts.draws, facts.unit):
                say(line)
    if plot is not None and plot != "-":
        title = f"{device.name}, {sigma_text(point.sigma, point.sigma_unit, point.level_of)}"
        write_text_atomic(Path(plot), plot_html(facts.draws, facts.unit, title))
        say(f"plot: {plot}", err=as_json)


def _age(profile: DeviceProfile) -> str:
    if profile.measured_after_s is None:
        return "does not matter"
    return f"always {duration_text(profile.measured_after_s)} after programming, as it was measured"


def _print(facts: DeviceFacts, console: Console) -> None:
    p, point = facts.point.profile, facts.point
    window = f"{p.window.min:g} … {p.window.max:g} {facts.unit}" if p.window else "in level units"
    cells = f"{p.cell_bits} bits per cell" if p.cell_bits else "analog cells (one holds the whole code)"
    sigma = sigma_text(point.sigma, point.sigma_unit, point.level_of)
    lines = [
        (p.name, f"{p.technology}: {p.description}"),
        (
            "source",
            f"{p.source.citation} ({p.source.where})" + (f", doi:{p.source.doi}" if p.source.doi else ""),
        ),
        ("fit", p.source.fit),
        ("valid", p.valid_range),
        ("window", window),
        ("cells", f"{cells}, {p.encoding}, default H = {p.weight_bits}"),
        ("sigma", f"{sigma.removeprefix('sigma ')}  ({_knob(p)})"),
        ("time", f"{point.time_s:g} s since programming" if p.time else _age(p)),
        ("terms", ", ".join(f"{t.name} ({t.kind})" for t in point.terms) or "none"),
    ]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for i, line in enumerate(lines):  # Text: brackets in a profile are no markup
        grid.add_row(Text(line[0], style="" if i else "bold"), Text(line[1]))
    console.print(grid)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("level", f"g, {facts.unit}", "shift, levels", "σ, levels", "σ, of full scale",
                  f"σ, {facts.unit}", "σ, of g"):  # fmt: skip
        table.add_column(title, justify="right")
    for row in facts.levels:
        table.add_row(
            f"{row.level}",
            f"{row.g:.4g}",
            f"{row.shift_levels:+.4g}",
            f"{row.sigma_levels:.4g}",
            f"{row.sigma_full_scale:.4g}",
            f"{row.sigma_g:.4g}",
            f"{row.sigma_relative:.4g}" if row.sigma_relative is not None else "—",
        )
    console.print(table)
    w = facts.weight
    console.print(
        f"weight sigma, H = {facts.bits}, {facts.slices} slice{'s' if facts.slices > 1 else ''}, "
        f"{p.encoding}: {w.rms:.4g} of max|W| (rms over all codes; {w.low:.4g} … {w.high:.4g})",
        highlight=False,
    )
    if w.shift > 0.01 * w.rms:
        console.print(
            f"mean shift of a weight: {w.shift:.4g} of max|W| (rms over all codes)", highlight=False
        )
    if facts.how == "sampled":
        console.print("moments estimated from a million draws: no closed form", style="dim", highlight=False)


@devices_group.command("validate")
@click.argument("file", type=FilePath())
def validate_command(file: Path) -> None:
    """Check a profile FILE; exit 2 and say what is wrong if it is not valid."""
    try:
        there = file.is_file()
    except OSError as error:  # a name that no file can have
        raise OptionError(f"{str(file)[:60]}…: {error.strerror}; name a JSON profile") from error
    if not there:
        raise OptionError(f"{file}: no such file; name a JSON profile")
    profile = load_profile(file)
    facts = device_facts(operating_point(profile))
    terms = f"{len(profile.noise)} noise term{'' if len(profile.noise) == 1 else 's'}"
    with printing():
        say(
            f"{file}: valid: {profile.name}, {terms}, weight sigma {facts.weight.rms:.4g} of max|W| "
            "at its default"
        )


@devices_group.command("fit")
@click.argument("csv", type=FilePath())
@product_option(Product("PROFILE.json", "Where the profile goes.", was=("--output",), required=True))
@click.option("--name", help="Name of the profile.  [default: that of the output file]")
@click.option("--unit", type=click.Choice(["level", "full_scale", "us", "na", "s"]), default="us",
              show_default=True, help="Unit of the conductances in CSV.")  # fmt: skip
@click.option(
    "--window",
    nargs=2,
    type=float,
    metavar="MIN MAX",
    help="Conductance of the lowest and top level.  [default: their measured means]",
)
@click.option("--technology", default="measured device", show_default=True, help="What the device is.")
@click.option("--citation", help="Where the measurement is published.  [default: the name of CSV]")
@click.option("--encoding", type=click.Choice(["sign_magnitude", "differential", "offset"]),
              default="sign_magnitude", show_default=True, help="How signs are stored.")  # fmt: skip
@click.option("--bits", "weight_bits", type=click.IntRange(1, 14), default=8, show_default=True,
              help="Default magnitude bits of a weight.")  # fmt: skip
def fit_command(csv: Path, out: Path, name: str | None, **options: Any) -> None:
    """Make a profile from measurements: CSV with columns level,mean,std or level,value."""
    profile = fit_profile(csv, name or out.stem, **options)
    write_text_atomic(out, dump_profile(profile))
    with printing():
        say(f"{out}: {profile.name}, {profile.source.fit}")

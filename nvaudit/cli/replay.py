"""`nvaudit replay`."""

from __future__ import annotations

from pathlib import Path

import click

from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FilePath, watchdog_option
from nvaudit.cli.outputs import CommandProduct, product_option
from nvaudit.cli.report import read_report
from nvaudit.cli.say import printing, say
from nvaudit.errors import OptionError
from nvaudit.files import check_product


@click.command("replay", cls=OnceCommand)
@click.argument("report", type=FilePath())
@product_option(CommandProduct("CHIP.onnx", "The ONNX file to write.", was=("--output",), required=True))
@click.option("--trial", type=click.IntRange(0), metavar="N", help="Which chip.  [default: the worst]")
@click.option("--worst", is_flag=True, help="The worst chip of the report (the default).")
@click.option(
    "--rare",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="P",
    help="The rare chip that an audit with --rare P has found.  [default: none]",
)
@click.option("--sigma", type=float, help="Which point of a sweep.  [default: the largest sigma]")
@watchdog_option()
@click.option(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Run the written file on the report's data and compare.",
)
def replay_command(
    report: Path,
    out: Path,
    trial: int | None,
    worst: bool,
    rare: float | None,
    sigma: float | None,
    check: bool,
) -> None:
    """Write one simulated chip of REPORT.json as an ordinary ONNX model."""
    from nvaudit.jobs.replaying import replay

    given = [("--worst", worst), ("--trial", trial is not None), ("--rare", rare is not None)]
    named = [name for name, there in given if there]
    if len(named) > 1:
        raise OptionError(f"{' and '.join(named)}: choose one")
    check_product(out, {} if str(report) == "-" else {"the report": report})
    done = replay(read_report(report), out, trial=trial, rare=rare, sigma=sigma, check=check)
    if done.reported is None:
        outcome = "stopped early in the report" + (
            "" if done.measured is None else f"; the file measures {done.measured!r}"
        )
    else:
        outcome = f"reported {done.reported!r}" + (
            "" if done.measured is None else "; the file measures the same"
        )
    with printing():
        chip = f"chip {done.trial}" if rare is None else f"a chip of 1 in {1 / rare:,.0f}"
        say(f"{done.path}: {chip} at sigma {done.sigma:g}, {outcome}")

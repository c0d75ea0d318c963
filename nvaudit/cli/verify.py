"""`nvaudit verify-plan`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click

from nvaudit.auditing import default_workers
from nvaudit.cli.options import (
    FilePath,
    converter_options,
    device_options,
    flatten,
    point_options,
    run_options,
    select_options,
)
from nvaudit.cli.output import echo_json, printing
from nvaudit.cli.progress import ProgressDisplay
from nvaudit.errors import EXIT_GATE, EXIT_OK, OptionError
from nvaudit.files import write_text_atomic
from nvaudit.report.verify import VerifyReport, verify_json
from nvaudit.report.verify_text import render_verify
from nvaudit.verify.spec import IMAGES, SHARES, TRIALS, make_verify_spec
from nvaudit.verifying import check_output, run_verify_plan


class SharesType(click.ParamType[Any]):
    """Shares with commas, ``0.01,0.1,1``."""

    name = "S,S,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Read the numbers."""
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            found = (math.nan,)
        if not all(0 <= share <= 1 for share in found):
            self.fail(f"{value!r} are not shares from 0 to 1; write e.g. 0.01,0.1,1", param, ctx)
        return found


_DEFAULT_SHARES = ",".join(f"{share:g}" for share in SHARES)


@click.command("verify-plan")
@click.argument("model", type=FilePath())
@device_options()
@point_options(sweep=False)
@click.option("--ranking", type=click.Choice(["swim", "magnitude", "random"]), default="swim",
              show_default=True, help="Which weights come first: swim: expected increase of the loss, second "
              "derivative × variance (needs torch); magnitude: the largest; random.")  # fmt: skip
@click.option("--shares", type=SharesType(), default=_DEFAULT_SHARES, show_default=True,
              help="Shares of the weights that are verified in turn; 0 is always among them.")  # fmt: skip
@click.option("--target-kpp", type=float, metavar="T", help="Find the smallest share whose KPP reaches T; "
              "exit code 1 if none does.  [default: the smallest of --shares that loses at most a point "
              "against the largest]")  # fmt: skip
@click.option("--verify-sigma", type=click.FloatRange(0), default=0.0, show_default=True, metavar="S",
              help="Spread that verifying leaves, in the unit of --sigma.")  # fmt: skip
@click.option("--verify-term", "verify_terms", multiple=True, metavar="TERM", help="Noise term that "
              "verifying reduces; repeatable.  [default: all normal, lognormal and table terms]")  # fmt: skip
@click.option("--sensitivity-images", type=click.IntRange(1), default=IMAGES, show_default=True, metavar="N",
              help="Samples that the swim ranking looks at.")  # fmt: skip
@click.option("--sensitivity-data", type=FilePath(), help="Other samples for the swim ranking.  "
              "[default: from the evaluation data]")  # fmt: skip
@select_options()
@converter_options()
@click.option("--data", type=FilePath(), help="Evaluation data, as for `audit`.  [default: MODEL.npz beside "
              "the model; without it the plan is label-free]")  # fmt: skip
@click.option("--trials", "-n", type=click.IntRange(1), default=TRIALS, show_default=True,
              help="Simulated chips, the same at every share.")  # fmt: skip
@click.option("--percentile", "-k", type=float, default=1.0, show_default=True,
              help="Percentile of the KPP.")  # fmt: skip
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of every interval.")
@click.option("--metric", help="As for `audit`.  [default: by the labels and outputs]")
@run_options()
@click.option("-o", "--plan", type=FilePath(), metavar="PLAN.npz", help="Write for each initializer a mask "
              "of the weights to verify.  [default: not]")  # fmt: skip
@click.option("--report", type=FilePath(), metavar="FILE.json", help="Write the plan as JSON; - writes it to "
              "standard output, and the text to standard error.  [default: only the text]")  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def verify_command(
    sigmas: tuple[tuple[float, ...], ...],
    percentile: float,
    workers: int | None,
    plan: Path | None,
    report: Path | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Plan which weights of MODEL to write-verify: what a share of them gives, and which they are."""
    options |= {
        "sigmas": flatten(sigmas),
        "percentiles": (percentile,),
        "workers": default_workers() if workers is None else workers,
    }
    spec = make_verify_spec(**options)
    if plan is not None and str(plan) == "-":
        raise OptionError("-o -: masks are binary; name a file, and give --report - for the numbers")
    if report is not None and str(report) != "-":
        if plan is not None and os.path.realpath(plan) == os.path.realpath(report):
            raise OptionError(f"-o and --report: both are {plan}; choose two paths")
        check_output(spec, report, "--report")
    with ProgressDisplay(quiet) as progress:
        found = run_verify_plan(spec, plan, progress)
    _hand_out(found, report)
    return EXIT_OK if found.choice is not None else EXIT_GATE


def _hand_out(found: VerifyReport, report: Path | None) -> None:
    """Write the JSON where it is wanted, and print the text where the JSON is not."""
    to_stdout = report is not None and str(report) == "-"
    if report is not None and not to_stdout:
        write_text_atomic(report, verify_json(found) + "\n")
    with printing(stderr=to_stdout) as console:
        if to_stdout:
            echo_json(verify_json(found))
        render_verify(found, console)
        if found.plan is not None:
            click.echo(f"plan: {found.plan}", err=to_stdout)
        if report is not None and not to_stdout:
            click.echo(f"report: {report}")

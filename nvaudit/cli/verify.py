"""`nvaudit verify-plan`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from nvaudit.cli.kept import cache_options, keeping, parameters, take_cache
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import (
    FilePath,
    ModelPath,
    converter_options,
    device_options,
    flatten,
    mapped_option,
    point_options,
    run_options,
    select_options,
)
from nvaudit.cli.outputs import Output, Product, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay
from nvaudit.cli.say import say
from nvaudit.errors import EXIT_GATE, EXIT_OK, OptionError
from nvaudit.jobs.auditing import default_workers
from nvaudit.jobs.verifying import plan_inputs, run_verify_plan
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import print_report
from nvaudit.report.write_verify.result import VerifyReport
from nvaudit.write_verify.resume import KEPT_FILES
from nvaudit.write_verify.spec import IMAGES, SHARES, TRIALS, make_verify_spec


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


_MASKS = Product(
    "PLAN.npz", "Write for each initializer a mask of the weights to verify.  [default: not]", was=("--plan",)
)

_DEFAULT_SHARES = ",".join(f"{share:g}" for share in SHARES)


@click.command("verify-plan", cls=OnceCommand)
@click.argument("model", type=ModelPath())
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
@mapped_option()
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
@output_options("verify-plan", product=_MASKS, gate=True)
@click.option("--resume", type=FilePath(), metavar="DIR", help="Keep finished chips and the ranking in this "
              "folder: the same command goes on where it was cut off.  [default: none is kept]")  # fmt: skip
@cache_options()
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def verify_command(
    sigmas: tuple[tuple[float, ...], ...],
    percentile: float,
    workers: int | None,
    out: Path | None,
    outputs: tuple[Output, ...],
    resume: Path | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Plan which weights of MODEL to write-verify: what a share of them gives, and which they are."""
    cache = take_cache(options)
    options |= {
        "sigmas": flatten(sigmas),
        "percentiles": (percentile,),
        "workers": default_workers() if workers is None else workers,
    }
    spec = make_verify_spec(**options)
    if str(out) == "-":
        raise OptionError("-o -: masks are binary; name a file, and give --report - for the numbers")
    # The masks are written by the run, which has the ranking; here they only take part in the check.
    masks = [] if out is None else [Output("-o", "plan", out, to_json)]
    kept = () if resume is None else tuple(resume / name for name in KEPT_FILES)
    check_outputs([*masks, *outputs], plan_inputs(spec), kept)
    with keeping("finished chips", resume, cache, parameters("shares", "target_kpp")) as work:
        with ProgressDisplay(quiet) as progress:
            found = work.run(lambda folder: run_verify_plan(spec, out, progress, folder))
        hand_out(found, outputs, lambda console: _show(found, console))
        work.done()
    missed = found.mapped_gate is not None and found.mapped_gate.verdict == "fail"
    return EXIT_GATE if found.choice is None or missed else EXIT_OK


def _show(found: VerifyReport, console: Console) -> None:
    print_report(found, console)
    if found.plan is not None:
        say(f"plan: {found.plan}", err=console.stderr)

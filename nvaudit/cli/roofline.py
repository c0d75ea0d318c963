"""`nvaudit roofline`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from nvaudit.cli.kept import cache_options, keeping, parameters, take_cache
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import (
    FilePath,
    ModelPath,
    converter_options,
    device_options,
    flatten,
    point_options,
    run_options,
    select_options,
)
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay
from nvaudit.errors import EXIT_OK, OptionError
from nvaudit.jobs.auditing import default_workers
from nvaudit.jobs.rooflining import RooflinePlan, bits_of_levels, plan_roofline, run_roofline
from nvaudit.report.kinds import print_report
from nvaudit.report.roofline.limits import MEASURES


class NumbersType(click.ParamType[Any]):
    """Whole numbers with commas, or a range, ``1-4``."""

    name = "N,N,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read the numbers."""
        if isinstance(value, tuple):
            return value
        found: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part)
            if not match or int(match[1]) > int(match[2] or match[1]):
                self.fail(f"{value!r} are not whole numbers; write e.g. 1,2,4 or 1-4", param, ctx)
            found.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
        return tuple(found)


@click.command("roofline", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@device_options(cell_bits=False)
@click.option("--cell-bits", type=NumbersType(), metavar="B,B,…", help="Bits per cell, such as 1,2,4 or "
              "1-4.  [default: 1 to the profile's; 1 to 4 for an analog device]")  # fmt: skip
@click.option("--levels", type=NumbersType(), metavar="L,L,…", help="The same as numbers of levels per "
              "cell, powers of two, such as 2,4,16.  [default: those of --cell-bits]")  # fmt: skip
@point_options(sweep=False)
@select_options()
@converter_options()
@click.option("--data", type=FilePath(), help="Evaluation data, as for `audit`.  [default: MODEL.npz beside "
              "the model; without it the roofline is label-free]")  # fmt: skip
@click.option("--trials", "-n", type=click.IntRange(1), default=1000, show_default=True,
              help="Simulated chips of each number of levels.")  # fmt: skip
@click.option("--percentile", "-k", type=float, default=1.0, show_default=True,
              help="Percentile of the KPP.")  # fmt: skip
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of every interval.")
@click.option("--rank", "rank_by", type=click.Choice(MEASURES), default="kpp", show_default=True,
              help="What verdicts and the best number of levels go by.")  # fmt: skip
@click.option("--margin", type=click.FloatRange(0), metavar="W", help="Losses up to this do not count, and "
              "two that differ by no more are alike; in the metric's unit.  [default: one point of a "
              "fraction, else 1 % of the quantised value]")  # fmt: skip
@click.option("--exhaustive", is_flag=True, help="Run every chip on every sample.")
@click.option("--tolerance", type=click.FloatRange(0), metavar="W", help="Largest error that races may "
              "make in a KPP, as for `audit`.  [default: a tenth of the ranks of its interval]")  # fmt: skip
@click.option("--metric", help="As for `audit`.  [default: by the labels and outputs]")
@run_options()
@output_options("roofline", gate=True)
@click.option("--resume", type=FilePath(), metavar="DIR", help="Keep finished chips in this folder: the same "
              "command goes on where it was cut off.  [default: none is kept]")  # fmt: skip
@cache_options()
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def roofline_command(
    model: Path,
    device: str,
    data: Path | None,
    cell_bits: tuple[int, ...] | None,
    levels: tuple[int, ...] | None,
    sigmas: tuple[tuple[float, ...], ...],
    percentile: float,
    rank_by: str,
    margin: float | None,
    workers: int | None,
    outputs: tuple[Output, ...],
    resume: Path | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Audit MODEL with several numbers of levels per cell: which is best, and what limits it."""
    if cell_bits is not None and levels is not None:
        raise OptionError("--cell-bits and --levels: choose one; they say the same")
    cache = take_cache(options)
    options |= {
        "sigmas": flatten(sigmas),
        "percentiles": (percentile,),
        "workers": default_workers() if workers is None else workers,
    }
    plan = plan_roofline(
        model,
        device,
        data,
        cell_bits=cell_bits if levels is None else bits_of_levels(levels),
        rank_by=rank_by,
        margin=margin,
        options=options,
    )
    check_outputs(outputs, _inputs(plan))
    with keeping("finished chips", resume, cache, parameters("rank_by", "margin")) as kept:
        with ProgressDisplay(quiet) as progress:
            found = kept.run(lambda folder: run_roofline(plan, progress, folder))
        hand_out(found, outputs, lambda console: print_report(found, console))
        kept.done()
    return EXIT_OK


def _inputs(plan: RooflinePlan) -> dict[str, Path]:
    """What is read, with its name in words."""
    spec = next(iter(plan.ideal.values()))
    data = Path(spec.model).with_suffix(".npz") if spec.data is None else Path(spec.data)
    return {"the model": Path(spec.model), "the data": data, "the device profile": Path(spec.device)}

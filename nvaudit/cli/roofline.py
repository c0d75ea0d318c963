"""`nvaudit roofline`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nvaudit.cli.kept import cache_options, keeping, parameters, resume_option
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import MINUTES_OF_ALL, ModelPath, many_audits, spec_options, watchdog_option
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.errors import EXIT_OK, OptionError
from nvaudit.spec import NOT_OF_A_ROOFLINE, RooflineOptions, RunSpec, default_workers


@click.command("roofline", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(RooflineOptions)
@spec_options(
    RunSpec,
    without={*NOT_OF_A_ROOFLINE, "skip_zero_groups"},
    own={
        **many_audits("roofline"),
        "trials": {"help": "Simulated chips of each number of levels."},
        "max_minutes": MINUTES_OF_ALL,
        "exhaustive": {"help": "Run every chip on every sample."},
        "tolerance": {"help": "Largest error that races may make in a KPP, as for `audit`."},
    },
)
@watchdog_option()
@output_options("roofline", gate=True)
@resume_option("finished chips")
@cache_options()
@quiet_option()
def roofline_command(
    model: Path,
    device: str,
    data: Path | None,
    cell_bits: tuple[int, ...] | None,
    levels: tuple[int, ...] | None,
    rank_by: str,
    margin: float | None,
    workers: int | None,
    outputs: tuple[Output, ...],
    resume: Path | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Audit MODEL with several numbers of levels per cell: which is best, and what limits it."""
    from nvaudit.jobs.rooflining import bits_of_levels, plan_roofline, run_roofline
    from nvaudit.session import input_files

    if cell_bits is not None and levels is not None:
        raise OptionError("--cell-bits and --levels: choose one; they say the same")
    options["workers"] = default_workers() if workers is None else workers
    plan = plan_roofline(
        model,
        device,
        data,
        cell_bits=cell_bits if levels is None else bits_of_levels(levels),
        rank_by=rank_by,
        margin=margin,
        options=options,
    )
    check_outputs(outputs, input_files(next(iter(plan.ideal.values()))))
    with keeping("finished chips", resume, parameters("rank_by", "margin", "max_minutes")) as kept:
        with ProgressDisplay(quiet, options["max_minutes"]) as progress:
            roofline = kept.run(lambda folder: run_roofline(plan, progress, folder, progress.estimated))
        hand_out(roofline, outputs)
        kept.done_or_boxed(roofline.time_boxed)
    return EXIT_OK

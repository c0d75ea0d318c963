"""`nvaudit explore`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nvaudit.cli.kept import cache_options, keeping, parameters, resume_option
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import ModelPath, many_audits, spec_options, watchdog_option
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.errors import EXIT_GATE, EXIT_OK
from nvaudit.exploration.spec import OF_ONE_AUDIT, ExploreOptions, SpaceOptions
from nvaudit.spec import RunSpec, default_workers


@click.command("explore", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(SpaceOptions, ExploreOptions)
@spec_options(
    RunSpec,
    without=OF_ONE_AUDIT,
    own={
        **many_audits("exploration"),
        "output_name": {"was": ()},
        "technology": {
            "help": "The circuits around the devices: a bundled technology (see `nvaudit technology list`) "
            "or a technology file.",
            "unset": "it must be given",
        },
        "min_kpp": {
            "help": "The front begins at this KPP, and the cheapest point that surely reaches it is "
            "recommended; exit 1 if there is none.",
            "unset": "the whole front",
        },
        "trials": {"help": "Simulated chips of each point."},
        "exhaustive": {"help": "Run every chip of every point on every sample."},
        "max_minutes": {"help": "Time of the whole run: the front is then whole up to a cost."},
    },
)
@watchdog_option()
@output_options("explore", gate=True)
@resume_option("finished chips")
@cache_options()
@quiet_option()
def explore_command(
    model: Path,
    device: str,
    data: Path | None,
    workers: int | None,
    outputs: tuple[Output, ...],
    resume: Path | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Find which crossbars, cells and ADCs give MODEL the best KPP for their cost."""
    from nvaudit.jobs.exploring import plan_exploration, run_exploration
    from nvaudit.session import input_files

    options["workers"] = default_workers() if workers is None else workers
    axes = {name: options.pop(name) or None for name in SpaceOptions.model_fields}
    own = {name: options.pop(name) for name in ExploreOptions.model_fields}
    plan = plan_exploration(model, device, data, axes=axes, own=own, options=options)
    inputs = input_files(plan.base)
    if plan.own.space is not None:
        inputs["the design space"] = Path(plan.own.space)
    check_outputs(outputs, inputs)
    with keeping("finished chips", resume, parameters("against", "baseline", "max_minutes")) as kept:
        with ProgressDisplay(quiet, plan.base.max_minutes) as progress:
            report = kept.run(lambda folder: run_exploration(plan, progress, folder))
        hand_out(report, outputs)
        kept.done_or_boxed(report.time_boxed)
    chosen = None if report.recommended is None else report.point(report.recommended)
    reached = report.min_kpp is None or (chosen is not None and chosen.gate is not None
                                         and chosen.gate.verdict == "pass")  # fmt: skip
    return EXIT_OK if reached and chosen is not None else EXIT_GATE

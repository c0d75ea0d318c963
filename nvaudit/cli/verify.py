"""`nvaudit verify-plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from nvaudit.cli.kept import cache_options, keeping, parameters, take_cache
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FilePath, ModelPath, spec_options, watchdog_option
from nvaudit.cli.outputs import Output, check_outputs, form_options, hand_out
from nvaudit.cli.progress import ProgressDisplay
from nvaudit.cli.say import say
from nvaudit.errors import EXIT_GATE, EXIT_OK, OptionError
from nvaudit.jobs.auditing import default_workers
from nvaudit.jobs.verifying import plan_inputs, run_verify_plan
from nvaudit.report.kinds import print_report
from nvaudit.report.write_verify.result import VerifyReport, verify_json
from nvaudit.spec import RunSpec
from nvaudit.write_verify.kept import KEPT_FILES
from nvaudit.write_verify.spec import OF_ONE_AUDIT, TRIALS, VerifyOptions, make_verify_spec


@click.command("verify-plan", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(
    RunSpec,
    VerifyOptions,
    without={*OF_ONE_AUDIT, "skip_zero_groups"},
    own={
        "sigmas": {"help": "Device variation in the profile's unit.", "metavar": "S"},
        "data": {
            "help": "Evaluation data, as for `audit`.",
            "unset": "MODEL.npz beside the model; without it the plan is label-free",
        },
        "metric": {"help": "As for `audit`.", "unset": "by the labels and outputs"},
        "trials": {"help": "Simulated chips, the same at every share.", "default": TRIALS},
        "percentiles": {"help": "Percentile of the KPP."},
        "confidence": {"help": "Of every interval."},
    },
)
@watchdog_option()
@click.option("-o", "--plan", type=FilePath(), metavar="PLAN.npz", help="Write for each initializer a mask "
              "of the weights to verify.  [default: not]")  # fmt: skip
@click.option("--report", type=FilePath(), metavar="FILE.json", help="Write the plan as JSON; - writes it to "
              "standard output, and the text to standard error.  [default: only the text]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same as --report -.")
@form_options()
@click.option("--resume", type=FilePath(), metavar="DIR", help="Keep finished chips and the ranking in this "
              "folder: the same command goes on where it was cut off.  [default: none is kept]")  # fmt: skip
@cache_options()
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def verify_command(
    workers: int | None,
    plan: Path | None,
    report: Path | None,
    as_json: bool,
    forms: tuple[Output, ...],
    resume: Path | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Plan which weights of MODEL to write-verify: what a share of them gives, and which they are."""
    cache = take_cache(options)
    options["workers"] = default_workers() if workers is None else workers
    spec = make_verify_spec(**options)
    if plan is not None and str(plan) == "-":
        raise OptionError("-o -: masks are binary; name a file, and give --report - for the numbers")
    outputs = [*_outputs(report, as_json), *forms]
    # The masks are written by the run, which has the ranking; here they only take part in the check.
    masks = [] if plan is None else [Output("-o", "plan", plan, verify_json)]
    kept = () if resume is None else tuple(resume / name for name in KEPT_FILES)
    check_outputs([*masks, *outputs], plan_inputs(spec), kept)
    with keeping("finished chips", resume, cache, parameters("plan", "shares", "target_kpp")) as work:
        with ProgressDisplay(quiet) as progress:
            found = work.run(lambda folder: run_verify_plan(spec, plan, progress, folder))
        hand_out(found, outputs, lambda console: _show(found, console))
        work.done()
    missed = found.mapped_gate is not None and found.mapped_gate.verdict == "fail"
    return EXIT_GATE if found.choice is None or missed else EXIT_OK


def _show(found: VerifyReport, console: Console) -> None:
    print_report(found, console)
    if found.plan is not None:
        say(f"plan: {found.plan}", err=console.stderr)


def _outputs(report: Path | None, as_json: bool) -> list[Output]:
    wanted = [
        Output("--report", "report", report, verify_json) if report is not None else None,
        Output("--json", "report", Path("-"), verify_json) if as_json else None,
    ]
    return [output for output in wanted if output is not None]

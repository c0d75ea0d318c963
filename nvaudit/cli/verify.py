"""`nvaudit verify-plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from nvaudit.cli.kept import cache_options, keeping, parameters, resume_option
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import ModelPath, many_audits, spec_options, watchdog_option
from nvaudit.cli.outputs import CommandProduct, Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.cli.say import say
from nvaudit.errors import EXIT_GATE, EXIT_OK, OptionError
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import print_report
from nvaudit.spec import RunSpec, default_workers
from nvaudit.write_verify.spec import OF_ONE_AUDIT, TRIALS, VerifyOptions, make_verify_spec

if TYPE_CHECKING:
    from nvaudit.report.write_verify.result import VerifyReport

_MASKS = CommandProduct(
    "PLAN.npz", "Write for each initializer a mask of the weights to verify.  [default: not]", was=("--plan",)
)


@click.command("verify-plan", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(
    RunSpec,
    VerifyOptions,
    without={*OF_ONE_AUDIT, "skip_zero_groups"},
    own={
        **many_audits("plan"),
        "trials": {"help": "Simulated chips, the same at every share.", "default": TRIALS},
    },
)
@watchdog_option()
@output_options("verify-plan", product=_MASKS, gate=True)
@resume_option("finished chips and the ranking")
@cache_options()
@quiet_option()
def verify_command(
    workers: int | None,
    out: Path | None,
    outputs: tuple[Output, ...],
    resume: Path | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Plan which weights of MODEL to write-verify: what a share of them gives, and which they are."""
    from nvaudit.jobs.verifying import plan_inputs, run_verify_plan
    from nvaudit.write_verify.resume import KEPT_FILES

    options["workers"] = default_workers() if workers is None else workers
    spec = make_verify_spec(**options)
    if str(out) == "-":
        raise OptionError("-o -: masks are binary; name a file, and give --report - for the numbers")
    # The masks are written by the run, which has the ranking; here they only take part in the check.
    masks = [] if out is None else [Output("-o", "plan", out, to_json, suffixes=(".npz",))]
    kept = () if resume is None else tuple(resume / name for name in KEPT_FILES)
    check_outputs([*masks, *outputs], plan_inputs(spec), kept)
    with keeping("finished chips", resume, parameters("shares", "target_kpp")) as work:
        with ProgressDisplay(quiet) as progress:
            result = work.run(lambda folder: run_verify_plan(spec, out, progress, folder))
        hand_out(result, outputs, _show)
        work.done()
    missed = result.mapped_gate is not None and result.mapped_gate.verdict == "fail"
    return EXIT_GATE if result.choice is None or missed else EXIT_OK


def _show(report: VerifyReport, console: Console) -> None:
    print_report(report, console)
    if report.plan is not None:
        say(f"plan: {report.plan}", err=console.stderr)

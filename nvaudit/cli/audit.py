"""`nvaudit audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nvaudit.cli.interrupts import stoppable
from nvaudit.cli.kept import Kept, cache_options, keeping, resume_option
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import ModelPath, spec_options, watchdog_option
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.cli.say import tell
from nvaudit.errors import EXIT_GATE, EXIT_INTERRUPTED, EXIT_OK, OptionError
from nvaudit.spec import RunSpec, axes_of, default_workers, make_spec

if TYPE_CHECKING:
    from nvaudit.jobs.sweeping import SweepPlan
    from nvaudit.report.result import AuditReport


@click.command("audit", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(RunSpec, swept=True)
@watchdog_option()
@output_options("audit", "plan", "sweep", gate=True)
@resume_option("finished chips", ", or on to more --trials")
@cache_options()
@click.option("--plan", is_flag=True, help="Run only a few chips, to time them, and print what --trials can "
              "say and what it costs.")  # fmt: skip
@quiet_option()
@click.pass_context
def audit_command(
    context: click.Context,
    /,
    outputs: tuple[Output, ...],
    quiet: bool,
    workers: int | None,
    resume: Path | None,
    plan: bool,
    **options: Any,
) -> int:
    """Audit MODEL: worst-case accuracy on simulated chips, with its interval and verdict.

    Several values of an option, such as --adc-bits 4:8, --time 0,1d,1y or two --device, are a sweep: every
    combination is audited, in one table.
    """
    from nvaudit.jobs.auditing import check_together, run_audit
    from nvaudit.jobs.sweeping import plan_sweep
    from nvaudit.report.result import with_command

    options["workers"] = default_workers() if workers is None else workers
    axes, single = axes_of(options)
    if axes:
        for name in ("roughness", "suggest"):  # these would be measured once more for every combination
            if context.get_parameter_source(name) is ParameterSource.DEFAULT:
                options[name] = False
        sweep = plan_sweep(options)
        assert sweep is not None
        if plan:
            raise OptionError("--plan and several values: choose one; a sweep says first how long it takes")
        return _sweep(sweep, outputs, resume, quiet)
    for name in ("trials", "limit"):  # whether the user has said how much there is to do
        if context.get_parameter_source(name) is ParameterSource.DEFAULT:
            del single[name]
    spec = make_spec(**single)
    check_together(spec)
    if plan and resume is not None:
        raise OptionError("--plan and --resume: choose one; a plan keeps no chips")
    _check_outputs(outputs, spec, resume)
    if plan:
        return _plan(spec, outputs, quiet)
    with keeping("finished chips", resume, _depends_on(spec), reports_part=True) as kept:
        with stoppable() as stop, ProgressDisplay(quiet, spec.max_minutes) as progress:
            result = kept.run(lambda folder: run_audit(spec, progress, folder, stop, alone=True))
        if result.interrupted is not None:
            result = with_command(result, kept.command)
        hand_out(result, outputs)
        return _finish(result, kept)


def _sweep(plan: SweepPlan, outputs: tuple[Output, ...], resume: Path | None, quiet: bool) -> int:
    """Run every combination."""
    from nvaudit.jobs.sweeping import run_sweep

    for _, spec in plan.audits:
        _check_outputs(outputs, spec, None)
    depends_on = {audit.name: _depends_on(audit.spec) for audit in plan.several}
    with keeping("finished chips", resume, depends_on, reports_part=True) as kept:
        with stoppable() as stop, ProgressDisplay(quiet, plan.minutes) as progress:
            report = kept.run(lambda folder: run_sweep(plan, progress, folder, stop, progress.estimated))
        if report.interrupted:
            report = report.model_copy(update={"command": kept.command})
        hand_out(report, outputs)
        if report.interrupted:
            tell(f"nvaudit: interrupted; {kept.how_to_go_on()}")
            return EXIT_INTERRUPTED
        kept.done()
    return EXIT_GATE if report.verdict in ("fail", "undecided") else EXIT_OK


def _finish(result: AuditReport, kept: Kept) -> int:
    """Give the exit code; say how a run that was ended early goes on."""
    early = result.interrupted
    if early is not None:
        from nvaudit.report.wording import count_text  # takes a moment

        chips = f"{early.done:,} of {count_text(early.wanted, early.what)}"
        if early.done == early.wanted:
            chips = (
                f"all {count_text(early.wanted, early.what)}, before what was asked for after them was done"
            )
        tell(f"nvaudit: interrupted after {chips}; {kept.how_to_go_on()}")
        return EXIT_INTERRUPTED
    kept.done_or_boxed(result.time_boxed)
    return EXIT_GATE if result.verdict in ("fail", "undecided") else EXIT_OK


def _depends_on(spec: RunSpec) -> dict[str, Any]:
    """What the chips of an audit depend on."""
    return {
        "model": spec.model,
        "device": spec.device,
        "data": spec.data,
        "mapping": spec.mapping,
        **spec.chip_options(),
    }


def _plan(spec: RunSpec, outputs: tuple[Output, ...], quiet: bool) -> int:
    """Print what a run would say and cost."""
    from nvaudit.jobs.planning import plan_audit

    for output in outputs:
        if output.option == "--junit":
            raise OptionError("--plan and --junit: choose one; a plan has no gate to report")
    with ProgressDisplay(quiet) as progress:
        plan = plan_audit(spec, progress)
    hand_out(plan, outputs)
    return EXIT_OK


def _check_outputs(outputs: tuple[Output, ...], spec: RunSpec, resume: Path | None) -> None:
    """Find out before the run that the files can be written, and that they destroy no input."""
    from nvaudit.perturb.lock import LOCK_FILE
    from nvaudit.perturb.record import RECORD_FILE
    from nvaudit.session import input_files

    kept = () if resume is None else (resume / RECORD_FILE, resume / LOCK_FILE)
    check_outputs(outputs, input_files(spec), kept)

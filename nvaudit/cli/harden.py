"""`nvaudit harden`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

from nvaudit.cli.kept import cache_options, keeping, parameters, resume_option
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import ONE_SIGMA, ModelPath, spec_options, watchdog_option
from nvaudit.cli.outputs import CommandProduct, Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.cli.say import say, tell
from nvaudit.errors import EXIT_OK, OptionError
from nvaudit.remapping.spec import CalibrationOptions, RemapSpec, make_remap_spec
from nvaudit.report.kinds import print_report
from nvaudit.retrain.options import make_harden_spec
from nvaudit.retrain.spec import HardenSpec, MethodOptions
from nvaudit.spec import default_workers

_MODEL = CommandProduct("HARDENED.onnx", "Where the hardened model goes.", was=("--output",), required=True)


@click.command("harden", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(MethodOptions)
@output_options("harden", "remap", product=_MODEL, gate=True)
@resume_option("a checkpoint of every epoch, of remap its model and the finished chips,")
@spec_options(
    HardenSpec,
    without=("method",),
    own={
        **ONE_SIGMA,
        "percentiles": {"help": "Of the KPP."},
        "seed": {"help": "Same seed, same training and chips."},
        "provider": {"help": "Of ONNX Runtime; with cuda torch is asked for the GPU too (never tried)."},
        "workers": {"help": "Worker processes of the audits; 0 runs in this one."},
        "roughness": {"help": "Measure the roughness of both loss landscapes, or leave it out."},
    },
)
@spec_options(CalibrationOptions)
@cache_options()
@watchdog_option()
@quiet_option()
@click.pass_context
def harden_command(
    context: click.Context,
    /,
    method: str,
    out: Path,
    outputs: tuple[Output, ...],
    resume: Path | None,
    workers: int | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Train MODEL to survive a device, write it as ONNX, and compare the same chips before and after."""
    given = {
        name
        for name in options
        if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    }
    chosen = {name: options[name] for name in given} | {"device": options["device"]}
    chosen["workers"] = default_workers() if workers is None else workers
    if str(out) == "-":
        raise OptionError("-o -: a model may be several files; name a file")
    if method == "remap":
        return _remap(chosen, out, outputs, resume, quiet)
    if wrong := set(chosen) & set(CalibrationOptions.model_fields):
        raise OptionError(f"{_flags(wrong)}: for --method remap, not {method}; leave it out")
    spec = make_harden_spec(**chosen, method=method)
    return _train(spec, out, outputs, resume, quiet)


def _flags(names: Iterable[str]) -> str:
    """Names on the command line of what it has given."""
    options = {param.name: param.opts[0] for param in click.get_current_context().command.params}
    return ", ".join(options[name] for name in sorted(names))


def _train(
    spec: HardenSpec,
    out: Path,
    outputs: Sequence[Output],
    resume: Path | None,
    quiet: bool,
) -> int:
    from nvaudit.jobs.hardening import run_hardening
    from nvaudit.session import input_files

    _MODEL.check(out, input_files(spec))
    check_outputs(outputs, input_files(spec), product=out)
    with keeping("finished epochs", resume, parameters("max_minutes")) as kept:
        with ProgressDisplay(quiet, spec.max_minutes) as progress:
            result = kept.run(lambda folder: run_hardening(spec, out, progress, folder))
        hand_out(result, outputs, partial(_show, out))
        kept.done_or_boxed(result.time_boxed)
    return EXIT_OK


def _remap(
    chosen: dict[str, Any],
    out: Path,
    outputs: Sequence[Output],
    resume: Path | None,
    quiet: bool,
) -> int:
    """Harden without training."""
    from nvaudit.jobs.remapping import run_remap
    from nvaudit.session import input_files

    if wrong := set(chosen) - set(map(RemapSpec.called, RemapSpec.model_fields)):
        raise OptionError(f"{_flags(wrong)}: for training; --method remap trains nothing: leave it out")
    spec = make_remap_spec(**chosen)
    _MODEL.check(out, input_files(spec))
    check_outputs(outputs, input_files(spec), product=out)
    with keeping("finished chips", resume, parameters("max_minutes")) as kept:
        before = _stamp(out)
        try:
            with ProgressDisplay(quiet, spec.max_minutes) as progress:
                result = kept.run(lambda folder: run_remap(spec, out, progress, folder))
        except KeyboardInterrupt:
            if _stamp(out) != before:
                tell(f"nvaudit: {out} is written, and not audited")
            raise
        hand_out(result, outputs, partial(_show, out))
        kept.done_or_boxed(result.time_boxed)
    return EXIT_OK


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written; None while there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _show(out: Path, result: Any, console: Console) -> None:
    """Print the text, and where the model is."""
    print_report(result, console)
    say(f"hardened model: {out}", err=console.stderr)

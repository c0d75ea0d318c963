"""`nvaudit harden`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console

from nvaudit.cli.harden_options import (
    REMAP_ONLY,
    BitsType,
    audit_options,
    compression_options,
    crossbar_options,
    data_options,
    noise_options,
    remap_options,
    train_options,
)
from nvaudit.cli.kept import cache_options, keeping, parameters, take_cache
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FilePath, ModelPath, device_options, watchdog_option
from nvaudit.cli.outputs import Output, Product, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay
from nvaudit.cli.say import say, tell
from nvaudit.errors import EXIT_INTERRUPTED, EXIT_OK, OptionError
from nvaudit.jobs.auditing import default_workers
from nvaudit.retrain.options import make_harden_spec
from nvaudit.retrain.spec import METHODS, HardenSpec
from nvaudit.spec import MOST_WORKERS

if TYPE_CHECKING:
    from nvaudit.remapping.spec import RemapSpec


_MODEL = Product("HARDENED.onnx", "Where the hardened model goes.", was=("--output",), required=True)


@click.command("harden", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@click.option("--method", "-m", type=click.Choice([*METHODS, "remap"]), default="best", show_default=True,
              help="best: the audited device's noise, weights clipped, a gentle second training where the "
              "first one costs accuracy without noise; trice: Algorithm 3 of the TRICE paper; gaussian, rc, "
              "lc, rt, lt (right/left censored/truncated), lognormal, device: that noise; none: "
              "quantisation-aware only; correctnet: Lipschitz regularisation; stability-vat: "
              "the least rough of several spreads; remap: no training.")  # fmt: skip
@output_options("harden", "remap", product=_MODEL, gate=True)
@click.option("--resume", type=FilePath(), metavar="DIR", help="Keep a checkpoint of every epoch in this "
              "folder: the same command goes on where it was cut off.  [default: none is kept]")  # fmt: skip
@data_options()
@device_options(bits=BitsType())
@noise_options()
@train_options()
@compression_options()
@crossbar_options()
@remap_options()
@audit_options()
@click.option("--workers", "-j", type=click.IntRange(0, MOST_WORKERS), metavar="W",
              help="Worker processes of the audits; 0 runs in this one.  [default: all cores]")  # fmt: skip
@cache_options()
@watchdog_option()
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
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
    cache = take_cache(options)
    given = {
        name
        for name in options
        if context.get_parameter_source(name) not in (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    }
    chosen = {name: options[name] for name in given} | {"device": options["device"]}
    chosen["workers"] = default_workers() if workers is None else workers
    _check_model_path(out, outputs)
    if method == "remap":
        return _remap(chosen, out, outputs, resume, quiet)
    spec = make_harden_spec(**_without(chosen, method), method=method)
    return _train(spec, out, outputs, resume, cache, quiet)


def _without(chosen: dict[str, Any], method: str) -> dict[str, Any]:
    """The options of a training; those of a remapping are refused."""
    wrong = sorted(set(chosen) & REMAP_ONLY)
    if wrong:
        raise OptionError(f"{_flags(wrong)}: for --method remap, not {method}; leave it out")
    return chosen


def _flags(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _check_model_path(out: Path, outputs: Sequence[Output]) -> None:
    """Refuse a model that cannot be a file of its own."""
    if str(out) == "-":
        raise OptionError("-o -: a model may be several files; name a file")
    for output in outputs:
        if not output.to_stdout and os.path.realpath(output.path) == os.path.realpath(out):
            raise OptionError(f"-o and {output.option}: both are {out}; choose two paths")


def _train(
    spec: HardenSpec,
    out: Path,
    outputs: Sequence[Output],
    resume: Path | None,
    cache: dict[str, Any],
    quiet: bool,
) -> int:
    from nvaudit.jobs.hardening import run_hardening

    check_outputs(outputs, _inputs(spec, ("val_data", "test_data")))
    with keeping("finished epochs", resume, cache, parameters()) as kept:
        with ProgressDisplay(quiet) as progress:
            result = kept.run(lambda folder: run_hardening(spec, out, progress, folder))
        hand_out(result, outputs, lambda console: _show(console, result, out))
        kept.done()
    return EXIT_OK


def _remap(
    chosen: dict[str, Any],
    out: Path,
    outputs: Sequence[Output],
    resume: Path | None,
    quiet: bool,
) -> int:
    """Harden without training."""
    context = click.get_current_context()
    from nvaudit.jobs.remapping import run_remap
    from nvaudit.remapping.spec import RemapSpec, make_remap_spec

    if resume is not None:
        raise OptionError("--resume: for training; --method remap takes seconds and keeps nothing")
    options = dict(chosen)
    for off in ("equalise", "clip", "recalibrate"):
        if options.pop(f"no_{off}", False):
            options[off] = False
    wrong = sorted(set(options) - set(RemapSpec.model_fields))
    if wrong:
        raise OptionError(f"{_flags(wrong)}: for training; --method remap trains nothing: leave it out")
    spec = make_remap_spec(**options)
    check_outputs(outputs, _inputs(spec, ("calibration_data", "test_data")))
    before = _stamp(out)
    try:
        with ProgressDisplay(quiet) as progress:
            result = run_remap(spec, out, progress)
    except KeyboardInterrupt:
        there = "nothing was written" if _stamp(out) == before else f"{out} is written, and not audited"
        again = shlex.join(["nvaudit", *(context.find_root().obj or ())])
        tell(f"nvaudit: interrupted; {there}; begin again with:\n{again}")
        return EXIT_INTERRUPTED
    hand_out(result, outputs, lambda console: _show(console, result, out))
    return EXIT_OK


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _inputs(spec: HardenSpec | RemapSpec, others: tuple[str, ...]) -> dict[str, Path]:
    """What is read, with its name in words."""
    data = Path(spec.model).with_suffix(".npz") if spec.data is None else Path(spec.data)
    found = {"the model": Path(spec.model), "the data": data, "the device profile": Path(spec.device)}
    for name in others:
        if (path := getattr(spec, name, None)) is not None:
            found[f"--{name.replace('_', '-')}"] = Path(path)
    return found


def _show(console: Console, result: Any, out: Path) -> None:
    """Print the text, and where the model is."""
    from nvaudit.report.kinds import print_report

    print_report(result, console)
    say(f"hardened model: {out}", err=console.stderr)

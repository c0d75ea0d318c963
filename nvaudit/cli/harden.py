"""`nvaudit harden`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from nvaudit.auditing import default_workers
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
from nvaudit.cli.options import FilePath, device_options
from nvaudit.cli.output import echo_json, printing
from nvaudit.cli.progress import ProgressDisplay
from nvaudit.errors import EXIT_INTERRUPTED, EXIT_OK, OptionError
from nvaudit.files import check_writable, write_text_atomic
from nvaudit.retrain.spec import METHODS, HardenSpec, make_harden_spec

_OURS = frozenset({"model", "method", "output", "report", "resume", "quiet", "workers"})


@click.command("harden")
@click.argument("model", type=FilePath())
@click.option("--method", "-m", type=click.Choice([*METHODS, "remap"]), default="best", show_default=True,
              help="best: the audited device's noise, weights clipped; trice: Algorithm 3 of the TRICE "
              "paper; gaussian, rc, lc, rt, lt (right/left censored/truncated), lognormal, device: that "
              "noise; none: quantisation-aware only; correctnet: Lipschitz regularisation; stability-vat: "
              "the least rough of several spreads; remap: no training.")  # fmt: skip
@click.option("-o", "--output", type=FilePath(), required=True, metavar="HARDENED.onnx",
              help="Where the hardened model goes.")  # fmt: skip
@click.option("--report", type=FilePath(), metavar="FILE.json",
              help="Write the comparison as JSON; - writes it to standard output.  [default: only "
              "the text]")  # fmt: skip
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
@click.option("--workers", "-j", type=click.IntRange(0), metavar="W", help="Worker processes of the "
              "audits; 0 runs in this one.  [default: all cores]")  # fmt: skip
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.pass_context
def harden_command(
    context: click.Context,
    /,
    method: str,
    output: Path,
    report: Path | None,
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
    _check_paths(output, report)
    if method == "remap":
        return _remap(chosen, output, report, resume, quiet)
    spec = make_harden_spec(**_without(chosen, method), method=method)
    return _train(spec, output, report, resume, quiet)


def _without(chosen: dict[str, Any], method: str) -> dict[str, Any]:
    """The options of a training; those of a remapping are refused."""
    wrong = sorted(set(chosen) & REMAP_ONLY)
    if wrong:
        raise OptionError(f"{_flags(wrong)}: for --method remap, not {method}; leave it out")
    return chosen


def _flags(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _check_paths(output: Path, report: Path | None) -> None:
    """Find out before the run that the files can be written."""
    if str(output) == "-":
        raise OptionError("-o -: a model may be several files; name a file")
    if report is not None and str(report) != "-":
        if os.path.realpath(report) == os.path.realpath(output):
            raise OptionError(f"-o and --report: both are {output}; choose two paths")
        check_writable(report)


def _train(spec: HardenSpec, output: Path, report: Path | None, resume: Path | None, quiet: bool) -> int:
    from nvaudit.hardening import run_hardening
    from nvaudit.report.hardening import harden_json
    from nvaudit.report.hardening_text import render_hardening

    _check_report(spec, report)
    try:
        with ProgressDisplay(quiet) as progress:
            result = run_hardening(spec, output, progress, resume)
    except KeyboardInterrupt:
        if resume is None:
            raise
        kept = "finished epochs are kept; run the same command again to go on"
        click.echo(f"nvaudit: interrupted; {kept}", err=True)
        return EXIT_INTERRUPTED
    _hand_out(result, harden_json, render_hardening, output, report)
    return EXIT_OK


def _check_report(spec: HardenSpec, report: Path | None) -> None:
    """Refuse to write the report over an input."""
    if report is not None and str(report) != "-":
        from nvaudit.hardening import check_output

        try:
            check_output(spec, report)
        except OptionError as error:
            raise OptionError(str(error).replace("-o ", "--report ", 1)) from None


def _remap(
    chosen: dict[str, Any], output: Path, report: Path | None, resume: Path | None, quiet: bool
) -> int:
    """Harden without training."""
    from nvaudit.ranges.spec import RemapSpec, make_remap_spec
    from nvaudit.remapping import run_remap
    from nvaudit.report.remap import remap_json
    from nvaudit.report.remap_text import render_remap

    if resume is not None:
        raise OptionError("--resume: for training; --method remap takes seconds and keeps nothing")
    options = {("output" if name == "output_name" else name): value for name, value in chosen.items()}
    for off in ("equalise", "clip", "recalibrate"):
        if options.pop(f"no_{off}", False):
            options[off] = False
    wrong = sorted(set(options) - set(RemapSpec.model_fields))
    if wrong:
        raise OptionError(f"{_flags(wrong)}: for training; --method remap trains nothing: leave it out")
    spec = make_remap_spec(**options)
    with ProgressDisplay(quiet) as progress:
        result = run_remap(spec, output, progress)
    _hand_out(result, remap_json, render_remap, output, report)
    return EXIT_OK


def _hand_out(result: Any, as_json: Any, render: Any, output: Path, report: Path | None) -> None:
    """Write the JSON where it is wanted, and print the text where the JSON is not."""
    to_stdout = report is not None and str(report) == "-"
    if report is not None and not to_stdout:
        write_text_atomic(report, as_json(result) + "\n")
    with printing(stderr=to_stdout) as console:
        if to_stdout:
            echo_json(as_json(result))
        render(result, console)
        click.echo(f"hardened model: {output}", err=to_stdout)
        if report is not None and not to_stdout:
            click.echo(f"report: {report}")

"""`nvaudit landscape`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import click

from nvaudit.cli.options import FilePath, ModelPath, watchdog_option
from nvaudit.cli.output import echo_json, printing
from nvaudit.cli.outputs import render_page_of
from nvaudit.cli.progress import working
from nvaudit.errors import OptionError
from nvaudit.files import check_writable, write_bytes_atomic, write_text_atomic
from nvaudit.jobs.auditing import default_workers
from nvaudit.jobs.landscaping import run_landscape
from nvaudit.perturb.landscape.spec import (
    GRID,
    IMAGES,
    PAIRS,
    SPAN,
    LandscapeSpec,
    make_landscape_spec,
)
from nvaudit.report.landscape.result import landscape_json, surface_npz
from nvaudit.report.landscape.text import render_landscape
from nvaudit.report.plots.figures import plotly_graphs


@click.command("landscape")
@click.argument("model", type=ModelPath())
@click.option("--data", type=FilePath(), help="Evaluation data, as for `audit`.  [default: MODEL.npz beside "
              "the model; without it the unmodified model on synthetic inputs is the reference]")  # fmt: skip
@click.option("--span", type=float, default=SPAN, show_default=True,
              help="The plane reaches from -SPAN to SPAN, in lengths of the weights' filters.")  # fmt: skip
@click.option("--grid", type=int, default=GRID, show_default=True, help="Points along each direction.")
@click.option("--pairs", type=click.IntRange(1), default=PAIRS, show_default=True,
              help="Pairs of random directions.")  # fmt: skip
@click.option("--images", type=click.IntRange(1), default=IMAGES, show_default=True,
              help="Samples that the loss is taken over, chosen at random by the seed.")  # fmt: skip
@click.option("--batch-norm", type=click.Choice(["stored", "recalibrated"]), default="stored",
              show_default=True, help="Statistics of batch normalisations: those stored in the model, or at "
              "every point those of the samples there.")  # fmt: skip
@click.option("--loss", type=click.Choice(["cross_entropy", "mse"]), help="What the surface shows.  "
              "[default: cross_entropy with class labels, mse with reference outputs; without labels "
              "cross_entropy with the unmodified model's decisions where its outputs are class scores, else "
              "mse with its outputs]")  # fmt: skip
@click.option("--output", metavar="NAME", help="Which output the loss reads.  [default: the first]")
@click.option("--class-axis", type=int, help="Axis of the class scores.  [default: read from the shapes]")
@click.option("--limit", type=click.IntRange(1), metavar="N",
              help="Choose among the first N samples.  [default: all]")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Samples at a time.  [default: 64; "
              "all of them where samples influence each other]")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Same seed, same directions and samples.")  # fmt: skip
@click.option("--workers", "-j", type=click.IntRange(0), metavar="W",
              help="Worker processes; 0 runs in this one.  [default: all cores]")  # fmt: skip
@click.option("--dask", metavar="ADDRESS", help="Run points on the Dask cluster of this scheduler (its "
              "address, or its scheduler file).  [default: worker processes on this machine]")  # fmt: skip
@click.option("--provider", default="cpu",
              type=click.Choice(["cpu", "cuda", "tensorrt", "rocm", "openvino", "coreml", "dml"]),
              show_default=True, help="ONNX Runtime execution provider.")  # fmt: skip
@click.option("-o", "--surface", type=FilePath(), metavar="FILE.npz",
              help="Write the surface here: alphas, betas, losses, fits, roughness, meta.  "
              "[default: nowhere]")  # fmt: skip
@click.option("--html", type=FilePath(), metavar="FILE.html",
              help="Draw the surface in 3-D and as contours on a page that opens offline.  "
              "[default: nowhere]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("--resume", type=FilePath(), metavar="DIR", help="Keep finished points in this folder: the "
              "same command goes on where it was cut off, or on to more --pairs.  [default: none is "
              "kept]")  # fmt: skip
@watchdog_option()
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def landscape_command(
    surface: Path | None,
    html: Path | None,
    as_json: bool,
    workers: int | None,
    resume: Path | None,
    quiet: bool,
    **options: Any,
) -> int | None:
    """Measure how rough the loss of MODEL is around its weights, and draw it."""
    spec = make_landscape_spec(**options, workers=default_workers() if workers is None else workers)
    _check_outputs(spec, {"-o": surface, "--html": html})
    if html is not None:
        plotly_graphs("--html")
    with working(quiet, resume, "finished points") as progress:
        report = run_landscape(spec, progress, resume)
    if surface is not None:
        write_bytes_atomic(surface, surface_npz(report))
    if html is not None:
        write_text_atomic(html, render_page_of("landscape.html:landscape_page", report))
    with printing() as console:
        if as_json:
            echo_json(landscape_json(report))
            return None
        render_landscape(report, console)
        for what, path in (("surface", surface), ("page", html)):
            if path is not None:
                click.echo(f"{what}: {path}")
    return None


def _check_outputs(spec: LandscapeSpec, outputs: dict[str, Path | None]) -> None:
    """Find out before the run that the files can be written, and that they destroy no input."""
    inputs = {
        "the model": Path(spec.model),
        "the data": Path(spec.data) if spec.data is not None else Path(spec.model).with_suffix(".npz"),
    }
    wanted = {option: path for option, path in outputs.items() if path is not None}
    for option, path in wanted.items():
        if str(path) == "-":
            raise OptionError(f"{option} -: only --json goes to standard output; name a file")
        for what, source in inputs.items():
            with contextlib.suppress(OSError):  # one of them is not there, or cannot be
                if path.samefile(source):
                    raise OptionError(f"{option} {path}: this is {what}; choose another path")
        check_writable(path)
    if len({os.path.realpath(path) for path in wanted.values()}) < len(wanted):
        raise OptionError(f"-o and --html: both are {wanted['-o']}; choose two paths")

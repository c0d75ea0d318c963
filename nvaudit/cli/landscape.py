"""`nvaudit landscape`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nvaudit.cli.kept import cache_options, keeping, parameters, take_cache
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FilePath, ModelPath, ignore_option, watchdog_option
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay
from nvaudit.cli.renamed import RenamedOption
from nvaudit.cli.say import tell
from nvaudit.errors import OptionError
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
from nvaudit.report.kinds import print_report
from nvaudit.report.landscape.result import surface_npz
from nvaudit.spec import MOST_WORKERS


@click.command("landscape", cls=OnceCommand)
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
@click.option("--loss", type=click.Choice(["cross_entropy", "mse", "binary_cross_entropy"]),
              help="What the surface shows; mse takes labels as numbers where there is one for each output, "
              "binary_cross_entropy takes a label of 0 or 1 for each.  "
              "[default: cross_entropy with class labels, mse with reference outputs; without labels "
              "cross_entropy with the unmodified model's decisions where its outputs are class scores, else "
              "mse with its outputs]")  # fmt: skip
@click.option("--output-name", metavar="NAME", cls=RenamedOption, was=("--output",),
              help="Which output the loss reads.  [default: the first]")  # fmt: skip
@click.option("--class-axis", type=int, help="Axis of the class scores.  [default: read from the shapes]")
@ignore_option()
@click.option("--limit", type=click.IntRange(1), metavar="N",
              help="Choose among the first N samples.  [default: all]")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="Samples at a time.  [default: 64; "
              "all of them where samples influence each other]")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Same seed, same directions and samples.")  # fmt: skip
@click.option("--workers", "-j", type=click.IntRange(0, MOST_WORKERS), metavar="W",
              help="Worker processes; 0 runs in this one.  [default: all cores]")  # fmt: skip
@click.option("--dask", metavar="ADDRESS", help="Run points on the Dask cluster of this scheduler (its "
              "address, or its scheduler file).  [default: worker processes on this machine]")  # fmt: skip
@click.option("--provider", default="cpu",
              type=click.Choice(["cpu", "cuda", "tensorrt", "rocm", "openvino", "coreml", "dml"]),
              show_default=True, help="ONNX Runtime execution provider.")  # fmt: skip
@click.option("--surface", type=FilePath(), metavar="FILE.npz",
              help="Write the surface here: alphas, betas, losses, fits, roughness, meta.  "
              "[default: nowhere]")  # fmt: skip
@output_options("landscape")
@click.option("--resume", type=FilePath(), metavar="DIR", help="Keep finished points in this folder: the "
              "same command goes on where it was cut off, or on to more --pairs.  [default: none is "
              "kept]")  # fmt: skip
@cache_options()
@watchdog_option()
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def landscape_command(
    surface: Path | None,
    outputs: tuple[Output, ...],
    workers: int | None,
    resume: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure how rough the loss of MODEL is around its weights, and draw it."""
    cache = take_cache(options)
    spec = make_landscape_spec(**options, workers=default_workers() if workers is None else workers)
    wanted = _with_surface(surface, outputs)
    check_outputs(wanted, _inputs(spec))
    with keeping("finished points", resume, cache, parameters("surface", "pairs")) as kept:
        with ProgressDisplay(quiet) as progress:
            report = kept.run(lambda folder: run_landscape(spec, progress, folder))
        hand_out(report, wanted, lambda console: print_report(report, console))
        kept.done()


def _with_surface(surface: Path | None, outputs: tuple[Output, ...]) -> list[Output]:
    """Put the surface among what is written; ``-o FILE.npz`` asked for it before -o was the report."""
    wanted = []
    for output in outputs:
        if output.option == "-o" and output.path.suffix == ".npz":
            tell(f"nvaudit: -o {output.path}: the surface is now written by --surface, and -o is the report; "
                 "the old spelling goes with the next release")  # fmt: skip
            output = Output("-o", "surface", output.path, surface_npz)
        wanted.append(output)
    if str(surface) == "-":
        raise OptionError("--surface -: a surface is binary; name a file, and give -o - for the numbers")
    return [*([] if surface is None else [Output("--surface", "surface", surface, surface_npz)]), *wanted]


def _inputs(spec: LandscapeSpec) -> dict[str, Path]:
    """What is read, with its name in words."""
    data = Path(spec.data) if spec.data is not None else Path(spec.model).with_suffix(".npz")
    return {"the model": Path(spec.model), "the data": data}

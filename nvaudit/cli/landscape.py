"""`nvaudit landscape`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nvaudit.cli.kept import cache_options, keeping, parameters, resume_option
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FilePath, ModelPath, spec_options, watchdog_option
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.cli.say import tell
from nvaudit.errors import OptionError
from nvaudit.perturb.landscape.spec import LandscapeSpec, make_landscape_spec
from nvaudit.spec import default_workers


@click.command("landscape", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(LandscapeSpec, own={"seed": {"help": "Same seed, same directions and samples."}})
@click.option("--surface", type=FilePath(), metavar="FILE.npz",
              help="Write the surface here: alphas, betas, losses, fits, roughness, meta.  "
              "[default: nowhere]")  # fmt: skip
@output_options("landscape")
@resume_option("finished points", ", or on to more --pairs")
@cache_options()
@watchdog_option()
@quiet_option()
def landscape_command(
    surface: Path | None,
    outputs: tuple[Output, ...],
    workers: int | None,
    resume: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure how rough the loss of MODEL is around its weights, and draw it."""
    from nvaudit.jobs.landscaping import run_landscape
    from nvaudit.session import input_files

    spec = make_landscape_spec(**options, workers=default_workers() if workers is None else workers)
    wanted = _with_surface(surface, outputs)
    check_outputs(wanted, input_files(spec))
    with keeping("finished points", resume, parameters("surface", "pairs", "max_minutes")) as kept:
        with ProgressDisplay(quiet, spec.max_minutes) as progress:
            report = kept.run(lambda folder: run_landscape(spec, progress, folder))
        hand_out(report, wanted)
        kept.done_or_boxed(report.time_boxed)


def _with_surface(surface: Path | None, outputs: tuple[Output, ...]) -> list[Output]:
    """Put the surface among what is written; ``-o FILE.npz`` asked for it before -o was the report."""
    wanted = []
    for output in outputs:
        if output.option == "-o" and output.path.suffix == ".npz":
            tell(f"nvaudit: -o {output.path}: the surface is now written by --surface, and -o is the report; "
                 "the old spelling goes with the next release")  # fmt: skip
            output = _surface("-o", output.path)
        wanted.append(output)
    if str(surface) == "-":
        raise OptionError("--surface -: a surface is binary; name a file, and give -o - for the numbers")
    return wanted if surface is None else [_surface("--surface", surface), *wanted]


def _surface(option: str, path: Path) -> Output:
    from nvaudit.report.landscape.result import surface_npz

    return Output(option, "surface", path, surface_npz, suffixes=(".npz",))

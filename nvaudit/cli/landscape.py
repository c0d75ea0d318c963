"""`nvaudit landscape`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nvaudit.cli.kept import cache_options, keeping, parameters, take_cache
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FilePath, ModelPath, spec_options, watchdog_option
from nvaudit.cli.outputs import Output, check_outputs, form_options, hand_out
from nvaudit.cli.progress import ProgressDisplay
from nvaudit.errors import OptionError
from nvaudit.jobs.auditing import default_workers
from nvaudit.jobs.landscaping import run_landscape
from nvaudit.perturb.landscape.spec import LandscapeSpec, make_landscape_spec
from nvaudit.report.kinds import print_report
from nvaudit.report.landscape.result import landscape_json, surface_npz


@click.command("landscape", cls=OnceCommand)
@click.argument("model", type=ModelPath())
@spec_options(LandscapeSpec, own={"seed": {"help": "Same seed, same directions and samples."}})
@click.option("-o", "--surface", type=FilePath(), metavar="FILE.npz",
              help="Write the surface here: alphas, betas, losses, fits, roughness, meta.  "
              "[default: nowhere]")  # fmt: skip
@form_options()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("--resume", type=FilePath(), metavar="DIR", help="Keep finished points in this folder: the "
              "same command goes on where it was cut off, or on to more --pairs.  [default: none is "
              "kept]")  # fmt: skip
@cache_options()
@watchdog_option()
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def landscape_command(
    surface: Path | None,
    forms: tuple[Output, ...],
    as_json: bool,
    workers: int | None,
    resume: Path | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure how rough the loss of MODEL is around its weights, and draw it."""
    cache = take_cache(options)
    spec = make_landscape_spec(**options, workers=default_workers() if workers is None else workers)
    outputs = [*_outputs(surface, as_json), *forms]
    check_outputs(outputs, _inputs(spec))
    with keeping("finished points", resume, cache, parameters("surface", "pairs")) as kept:
        with ProgressDisplay(quiet) as progress:
            report = kept.run(lambda folder: run_landscape(spec, progress, folder))
        hand_out(report, outputs, None if as_json else lambda console: print_report(report, console))
        kept.done()


def _outputs(surface: Path | None, as_json: bool) -> list[Output]:
    if str(surface) == "-":
        raise OptionError("-o -: only --json goes to standard output; name a file")
    wanted = [
        Output("--json", "surface", Path("-"), landscape_json) if as_json else None,
        Output("-o", "surface", surface, surface_npz) if surface is not None else None,
    ]
    return [output for output in wanted if output is not None]


def _inputs(spec: LandscapeSpec) -> dict[str, Path]:
    """What is read, with its name in words."""
    data = Path(spec.data) if spec.data is not None else Path(spec.model).with_suffix(".npz")
    return {"the model": Path(spec.model), "the data": data}

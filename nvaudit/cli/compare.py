"""`nvaudit compare`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from nvaudit.cli.kept import cache_options, keeping, parameters, resume_option
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import MINUTES_OF_ALL, ONE_SIGMA, FilePath, ModelPath, spec_options, watchdog_option
from nvaudit.cli.outputs import OUTPUT_PARAMETERS, Output, check_outputs, hand_out, output_options
from nvaudit.cli.progress import ProgressDisplay, quiet_option
from nvaudit.errors import EXIT_GATE, EXIT_OK, OptionError
from nvaudit.spec import BaselineOptions, CompareOptions, EffortOptions, RunSpec, default_workers

if TYPE_CHECKING:
    from nvaudit.jobs.candidates import ComparisonPlan

_OF_THE_COMPARISON = frozenset(
    (*OUTPUT_PARAMETERS, "models", "rank_by", "baseline", "quiet", "workers", "dask", "cache", "no_cache",
     "min_kpp", "require_mapped")
)  # fmt: skip
"""What may be given where every model is a report: nothing of it changes an audit."""


@click.command("compare", cls=OnceCommand)
@click.argument("models", nargs=-1, required=True, type=ModelPath(), metavar="MODEL MODEL...")
@spec_options(
    RunSpec,
    CompareOptions,
    without={
        *EffortOptions.model_fields,
        *BaselineOptions.model_fields,
        *("tail", "attribute", "attribution_trials", "attribution_images"),
        *("calibrate_chips", "calibrate_data", "chip"),
    },
    own={
        **ONE_SIGMA,
        "data": {
            "help": "Evaluation data of all models, as for `audit`.",
            "unset": "MODEL.npz beside each model; without it that model is audited label-free",
        },
        "metric": {"help": "As for `audit`, the same for all.", "unset": "by the labels and outputs"},
        "trials": {"help": "Simulated chips of each model."},
        "percentiles": {"help": "Percentile of the KPP; repeatable, the first one ranks."},
        "min_kpp": {
            "help": "The gate: only models of which at most k % of the chips fall below T (above T for a "
            "loss) can be chosen; exit 1 if none passes."
        },
        "require_mapped": {
            "help": "Another gate: at least this share of the products (multiply-accumulates with a "
            "weight) must be on the array, e.g. 0.95; else a model cannot be chosen."
        },
        "max_minutes": MINUTES_OF_ALL,
        "exhaustive": {"help": "Run every chip on every sample; differences are then taken chip by chip."},
        "tolerance": {"help": "Largest error that races may make in a KPP, as for `audit`."},
        "roughness": {"help": "Measure the roughness of the loss landscapes, or leave it out."},
    },
)
@watchdog_option()
@output_options("compare", gate=True, was=("--comparison",))
@click.option("--reports", type=FilePath(), metavar="DIR",
              help="Write the report of each model's audit into this folder.  [default: not]")  # fmt: skip
@resume_option("finished chips and models")
@cache_options()
@quiet_option()
@click.pass_context
def compare_command(
    context: click.Context,
    /,
    models: tuple[Path, ...],
    device: str,
    data: Path | None,
    data_for: tuple[str, ...],
    rank_by: str,
    baseline: str | None,
    workers: int | None,
    outputs: tuple[Output, ...],
    reports: Path | None,
    resume: Path | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Audit several MODELs under the same conditions, rank them, and choose the best.

    A MODEL that ends in .json is the report of an earlier audit, which is not run again.
    """
    from nvaudit.jobs.candidates import plan_comparison
    from nvaudit.jobs.comparing import run_comparison

    _check_of_reports(context, models)
    options["workers"] = default_workers() if workers is None else workers
    plan = plan_comparison(
        models,
        device=device,
        data=data,
        data_for=parse_data_for(data_for, [str(model) for model in models]),
        rank_by=rank_by,
        baseline=baseline,
        options=options,
    )
    check_outputs(outputs, dict(_inputs(plan)))
    with keeping(
        "finished chips and models", resume, parameters("rank_by", "baseline", "max_minutes")
    ) as kept:
        with ProgressDisplay(quiet, options["max_minutes"]) as progress:
            comparison = kept.run(
                lambda folder: run_comparison(plan, progress, folder, reports, progress.estimated)
            )
        hand_out(comparison, outputs)
        kept.done_or_boxed(comparison.time_boxed)
    return EXIT_GATE if comparison.verdict in ("fail", "undecided") else EXIT_OK


def parse_data_for(texts: Iterable[str], models: list[str]) -> Mapping[str, Path]:
    """Read ``MODEL=PATH`` pairs; either side may hold an equals sign itself.

    Raises
    ------
    OptionError
        If there is no model before an equals sign, no path behind it, or a model twice.
    """
    paths: dict[str, Path] = {}
    known = dict.fromkeys(name for model in models for name in (model, Path(model).name, Path(model).stem))
    for text in texts:
        # The longest name that fits: a.onnx before a.
        name = max((n for n in known if n and text.startswith(f"{n}=")), key=len, default=None)
        if name is None:
            raise OptionError(f"--data-for {text!r}: write MODEL=PATH with one of {', '.join(models)}")
        path = text[len(name) + 1 :]
        if not path:
            raise OptionError(f"--data-for {text!r}: there is no path behind the equals sign")
        if name in paths:
            raise OptionError(f"--data-for: {name} has two; give each model once")
        paths[name] = Path(path)
    return paths


def _check_of_reports(context: click.Context, models: tuple[Path, ...]) -> None:
    """Refuse options of audits where nothing is audited: they would say nothing."""
    if not all(str(model).lower().endswith(".json") for model in models):
        return
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in _OF_THE_COMPARISON:
            raise OptionError(
                f"{parameter.opts[0]}: the models are reports, which are not run again; leave it out, or "
                "give ONNX models"
            )


def _inputs(plan: ComparisonPlan) -> Iterable[tuple[str, Path]]:
    """What is read, with its name in words."""
    from nvaudit.session import input_files

    for name, file in plan.files.items():
        yield f"the report {name}", Path(file)
    for name, spec in plan.specs.items():
        read = input_files(spec)
        yield f"the model {name}", read.pop("the model")
        yield f"the data of {name}", read.pop("the data")
        yield "the device profile", read.pop("the device profile")
        yield from ((f"{what} of {name}", path) for what, path in read.items())

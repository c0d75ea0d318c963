"""What the user asked for: the full specification of a run, as it stands in the report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, JsonValue

from nvaudit.declare import Option, Options, fields_of
from nvaudit.option_texts import read_amount, read_whole
from nvaudit.options import (
    MAX_QUESTIONS,
    OF_A_CHIP,
    BoundedCount,
    ChipOptions,
    ClusterOptions,
    CodeOptions,
    ConverterOptions,
    Count,
    DataOptions,
    DeviceOptions,
    Encodable,
    Finite,
    MappingOptions,
    MetricOptions,
    ModelOptions,
    NotNegative,
    OutlierOptions,
    Percentile,
    Positive,
    RoughnessOptions,
    RunOptions,
    SimulationOptions,
    TimeOptions,
    each_once,
    path_option,
)
from nvaudit.task_options import TaskOptions
from nvaudit.technology_options import TechnologyOptions

Attribution = Literal["tensors", "terms", "classes", "all"]


def default_workers() -> int:
    """Processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


class GateOptions(Options):
    """What must hold."""

    title: ClassVar[str] = "Gate"

    min_kpp: Annotated[
        Finite | None,
        Option(
            "The gate: exit 1 unless at most k % of chips fall below T (above T for a loss).",
            unset="no gate",
            metavar="T",
            read=read_amount,
        ),
    ] = None
    require_mapped: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Option(
            "Another gate: at least this share of the products (multiply-accumulates with a weight) must "
            "be on the array, e.g. 0.95; else exit 1.",
            unset="no gate",
            metavar="SHARE",
            read=read_amount,
            wanted="a share from 0 to 1, such as 0.95 for 95 %",
        ),
    ] = None


class BaselineOptions(Options):
    """What may not become worse."""

    title: ClassVar[str] = "Gate"

    baseline_report: Annotated[
        Encodable | None,
        path_option(
            "With --max-drop: report.json of an earlier audit (or check) under the same conditions, such as "
            "that of the last release.",
            unset="none",
            name="--baseline",
            metavar="REPORT",
        ),
    ] = None
    max_drop: Annotated[
        NotNegative | None,
        Option(
            "A gate on changes: exit 1 unless the KPP is surely at most this much worse than in --baseline, "
            "chip by chip, in the metric's unit (0.01: one point of top1).",
            unset="no gate",
            metavar="DROP",
            read=read_amount,
        ),
    ] = None


class RaceOptions(Options):
    """How much of the data a chip sees."""

    title: ClassVar[str] = "Gate"

    exhaustive: Annotated[
        bool,
        Option(
            "Run every chip on every sample: no races, no gate that stops early (TRICE, Algorithm 2, to the "
            "letter)."
        ),
    ] = False
    tolerance: Annotated[
        NotNegative | None,
        Option(
            "Largest error that races may make in a KPP, in the metric's unit; 0 for none.",
            unset="a tenth of the ranks of its interval",
            metavar="W",
        ),
    ] = None


class EffortOptions(Options):
    """How many chips a gate draws."""

    title: ClassVar[str] = "Gate"

    max_trials: Annotated[
        BoundedCount | None,
        Option("Chips that the gate may draw until it is decided.", unset="--trials", metavar="N"),
    ] = None
    all_trials: Annotated[bool, Option("Draw all --trials also where the gate is decided by fewer.")] = False
    suggest: Annotated[
        bool,
        Option(
            "Where the gate fails, measure what another code of the weights would give, in up to a fifth of "
            "the run's time (at least 3 s, at most 30 s)."
        ),
    ] = True


class QuestionOptions(Options):
    """What else is reported."""

    title: ClassVar[str] = "More in the report"

    yield_at: Annotated[
        tuple[Finite, ...],
        Field(max_length=MAX_QUESTIONS),
        AfterValidator(each_once),
        Option(
            "Report the share of chips at or above A (or below, for a loss); repeatable.",
            unset="not",
            metavar="A",
        ),
    ] = ()
    tail: Annotated[
        tuple[Percentile, ...],
        Field(max_length=MAX_QUESTIONS),
        AfterValidator(each_once),
        Option(
            "Extrapolate a percentile beyond the sample, e.g. 0.01 (1 chip in 10,000), by a generalised "
            "Pareto law fitted to the worst chips; repeatable.",
            unset="none",
            metavar="P",
        ),
    ] = ()
    attribute: Annotated[
        tuple[Attribution, ...],
        Option(
            "Say where the loss comes from: what each tensor, each noise term, each class costs; repeatable.",
            unset="not",
            wanted="tensors, terms, classes or all",
        ),
    ] = ()
    attribution_trials: Annotated[
        BoundedCount | None,
        Option("Chips of an attribution: the first M.", unset="100, at most --trials", metavar="M"),
    ] = None
    attribution_images: Annotated[
        Count | None,
        Option(
            "Images of an attribution, spread evenly over the set.",
            unset="as many as make about a million inferences, at least 200",
            metavar="I",
        ),
    ] = None
    calibrate_chips: Annotated[
        Annotated[int, Field(ge=2, le=1_000_000)] | None,
        Option(
            "Also correct each chip by what its layers make of N unlabelled samples (normalisations, else "
            "gain and bias of each output), and report both KPPs.",
            unset="not",
            metavar="N",
        ),
    ] = None
    calibrate_data: Annotated[
        Encodable | None,
        path_option(
            "With --calibrate-chips: other samples for it.",
            unset="N of --data, drawn by --seed and not scored",
        ),
    ] = None
    chip: Annotated[
        Encodable | None,
        path_option(
            "Also run the very chips whose conductances were read back: a folder in the form that `nvaudit "
            "map` writes, or a table row,column,conductance for a model on one crossbar. How it is mapped "
            "stands in the folder's manifest.",
            unset="none",
            metavar="FOLDER",
        ),
    ] = None


class RareOptions(Options):
    """Chips far beyond the sample."""

    title: ClassVar[str] = "Rare chips"

    rare: Annotated[
        tuple[Annotated[float, Field(ge=1e-9, le=0.1)], ...],
        Field(max_length=MAX_QUESTIONS),
        AfterValidator(each_once),
        Option(
            "Estimate the metric that a share P of chips does not reach, such as 1e-6, one in a million, "
            "by splitting: moves from bad chips to worse ones, in independent runs that give an interval; "
            "repeatable.",
            unset="not",
            metavar="P",
        ),
    ] = ()
    rare_runs: Annotated[
        Annotated[int, Field(ge=4, le=1000)],
        Option("Independent runs; their spread makes the interval. An even number.", metavar="R"),
    ] = 10
    rare_chips: Annotated[
        Annotated[int, Field(ge=20, le=1_000_000)],
        Option("Chips that each run keeps at each level.", metavar="N"),
    ] = 500
    rare_moves: Annotated[
        Annotated[int, Field(ge=1, le=1000)],
        Option(
            "Moves from a chip that is kept to the next; every second run makes twice as many.", metavar="M"
        ),
    ] = 1


class RunSpec(
    RareOptions,
    TechnologyOptions,
    ClusterOptions,
    TimeOptions,
    RunOptions,
    RoughnessOptions,
    QuestionOptions,
    EffortOptions,
    RaceOptions,
    BaselineOptions,
    GateOptions,
    ChipOptions,
    TaskOptions,
    MetricOptions,
    DataOptions,
    SimulationOptions,
    OutlierOptions,
    ConverterOptions,
    CodeOptions,
    MappingOptions,
    DeviceOptions,
    ModelOptions,
):
    """One audit, complete: two runs with equal specifications, models, data and devices give equal reports.

    Only ``workers`` and ``dask`` have no influence on results. The fields are the options of
    ``nvaudit audit``.
    """

    max_minutes: Annotated[
        Positive | None,
        TimeOptions.option(
            "max_minutes",
            help="Time of the whole run, which then reports the chips that are done; a gate is decided by "
            "these.",
        ),
    ] = None

    @property
    def draws_until_decided(self) -> bool:
        """Whether chips are drawn only until a gate is decided, which then has a clock of its own."""
        return self.gated and not self.exhaustive and not self.all_trials

    @property
    def gated(self) -> bool:
        """Whether the chips must show something."""
        return self.min_kpp is not None or self.max_drop is not None

    @property
    def most_trials(self) -> int:
        """Chips that are drawn at most."""
        return self.trials if self.max_trials is None else self.max_trials

    def chip_options(self) -> dict[str, JsonValue]:
        """Give every option that the value of a chip depends on, by its name on the command line.

        Left out are the inputs, which are known by their contents, and what decides only how many chips
        there are, what is asked of them, or how they are run.
        """
        unused = {"device", "data", "labels", "alphabet", "mapping", "workers"}
        if self.adc_bits is None:
            unused.add("adc_range")
            if not self.skip_zero_groups:
                unused.add("crossbar")  # then for counting only
        names = [name for part in OF_A_CHIP for name in part.model_fields if name not in unused]
        return self.given([*names, "calibrate_chips"])  # which also says which samples are scored


def make_spec(**options: Any) -> RunSpec:
    """Validate the options of an audit at the edge; see :meth:`nvaudit.declare.Options.validated`."""
    return RunSpec.validated(options)


def flag(name: str) -> str:
    """Name of a field of an audit on the command line.

    Examples
    --------
    >>> flag("batch_size"), flag("sigmas")
    ('--batch-size', '--sigma')
    """
    return RunSpec.flag(name)


SWEPT = ("sigmas", *(name for name, field in fields_of(RunSpec).items() if field.option.sweep is not None))
"""Fields of an audit that a sweep may have several values of."""


def axes_of(options: Mapping[str, Any]) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
    """Split options into those with several values, each once, in the order of declarations, and others."""
    axes: dict[str, tuple[Any, ...]] = {}
    fixed = dict(options)
    for name in SWEPT:
        if name not in fixed or not _is_several(name, fixed[name]):
            continue
        given = (tuple(one) if isinstance(one, list) else one for one in fixed[name])
        values = tuple(dict.fromkeys(str(one) if isinstance(one, Path) else one for one in given))
        if name == "sigmas" and (len(values) < 2 or not any(_more(fixed, other) for other in SWEPT)):
            continue  # several sigmas alone are one audit
        fixed.pop(name)
        if len(values) > 1:
            axes[name] = values
        elif values:
            fixed[name] = values if name == "sigmas" else values[0]
    return axes, fixed


def _more(options: Mapping[str, Any], name: str) -> bool:
    """Whether an option other than sigma has several values."""
    value = options.get(name)
    return name != "sigmas" and _is_several(name, value) and len(set(map(str, value or ()))) > 1


def _is_several(name: str, value: Any) -> bool:
    """Whether a value is a list of values; that of a crossbar is two numbers already."""
    if not isinstance(value, tuple | list):
        return False
    return name != "crossbar" or not all(isinstance(one, int) for one in value)


INSPECTED = (
    "device",
    *(name for part in (MappingOptions, CodeOptions) for name in part.model_fields if name != "scale"),
    "crossbar",
    "require_mapped",
)
"""Options of an audit that `nvaudit inspect` takes."""


Measure = Literal["kpp", "mean", "nominal", "yield", "roughness", "size"]
"""What models can be ranked by."""


class CompareOptions(Options):
    """What a comparison has beside the options of an audit."""

    title: ClassVar[str] = "Comparison"

    data_for: Annotated[
        tuple[str, ...],
        Option(
            "Evaluation data of one model that preprocesses its inputs differently; repeatable. The "
            "images should be the same.",
            unset="--data",
            metavar="MODEL=PATH",
            wanted="a list of MODEL=PATH",
        ),
    ] = ()
    rank_by: Annotated[
        Measure, Option("What the best is best by; size is the number of devices.", name="--rank")
    ] = "kpp"
    baseline: Annotated[
        str | None,
        Option(
            "The model that the others are compared with.",
            unset="the chosen one",
            metavar="MODEL",
            wanted="one of the models",
        ),
    ] = None


MAX_CELL_BITS = 8
RooflineMeasure = Literal["kpp", "mean"]
NOT_OF_A_ROOFLINE = (
    *("cell_bits", "roughness"),
    *(
        name
        for part in (GateOptions, BaselineOptions, EffortOptions, QuestionOptions)
        for name in part.model_fields
    ),
)
"""Options of an audit that a roofline does not take."""


class RooflineOptions(Options):
    """What a roofline has beside the options of an audit."""

    title: ClassVar[str] = "Roofline"

    cell_bits: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=1, le=MAX_CELL_BITS)], ...] | None,
        Field(min_length=1),
        Option(
            "Bits per cell, such as 1,2,4 or 1-4.",
            unset="1 to the profile's; 1 to 4 for an analog device",
            metavar="B,B,…",
            wanted=f"whole numbers from 1 to {MAX_CELL_BITS}, such as 1,2,4 or 1-4",
            read=read_whole,
        ),
    ] = None
    levels: Annotated[
        tuple[int, ...] | None,
        Option(
            "The same as numbers of levels per cell, powers of two, such as 2,4,16.",
            unset="those of --cell-bits",
            metavar="L,L,…",
            wanted=f"powers of two from 2 to {2**MAX_CELL_BITS}, such as 2,4,16",
            read=read_whole,
        ),
    ] = None
    rank_by: Annotated[
        RooflineMeasure, Option("What verdicts and the best number of levels go by.", name="--rank")
    ] = "kpp"
    margin: Annotated[
        # A hundred times that is shown, in points.
        Annotated[float, Field(ge=0, lt=1e300)] | None,
        Option(
            "Losses up to this do not count, and two that differ by no more are alike; in the metric's unit.",
            unset="one point of a fraction, else 1 % of the quantised value",
            metavar="W",
            wanted="a finite number, 0 or more",
        ),
    ] = None


AXIS_KEYS = {"models": "path", "devices": "profile", "conditions": "name"}
"""Key of a table on each axis that says what it is."""

NAME_KEYS = ("model", "device", "condition")
"""Keys by which an exception says for which audits it is."""


class CheckOptions(Options):
    """What a matrix has beside the options of its audits."""

    title: ClassVar[str] = "Matrix"

    only: Annotated[
        tuple[str, ...],
        Option(
            "Run only the audits whose name (model / device / condition) matches; repeatable.",
            unset="all",
            metavar="GLOB",
            wanted="a list of globs, such as '*/ rram /*'",
        ),
    ] = ()
    total_minutes: Annotated[
        Positive | None,
        Option(
            "Time of the whole matrix: every audit has its share of what is left, and draws no more chips "
            "then.",
            unset="no limit",
            metavar="M",
        ),
    ] = None
    fail_fast: Annotated[bool, Option("Leave the rest out once an audit fails.")] = False

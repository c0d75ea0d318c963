"""The parts of the audit report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from nvaudit.report.drops import DropResult
from nvaudit.report.gates import GateResult
from nvaudit.report.tails import TailResult
from nvaudit.report.wording import count_text, duration_estimate, listed_text, sigma_text
from nvaudit.stats.kpp import KppResult, YieldResult

OLD_FIELDS = {"output": "output_name"}
"""Fields of ``run`` in reports of an earlier version."""


def current_fields(run: Any) -> Any:
    """Options of a run under today's names; old ones come from a report of an earlier version.

    Examples
    --------
    >>> current_fields({"seed": 0, "output": "logits"})
    {'seed': 0, 'output_name': 'logits'}
    """
    if not isinstance(run, Mapping):
        return run
    return {OLD_FIELDS.get(name, name): value for name, value in run.items()}


Run: TypeAlias = Annotated[dict[str, JsonValue], BeforeValidator(current_fields)]
"""The full specification of a run; names of before are read as today's."""


class ReportPart(BaseModel):
    """A part of the report: unknown keys are refused, every number is finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)


class MetricInfo(ReportPart):
    """How to read the metric."""

    higher_is_better: bool
    unit: str = Field(description="fraction (0 to 1), nats, squared error or score.")
    assumed: tuple[str, ...] = Field(default=(), description="What was read into the outputs' shape.")
    caution: str = Field(default="", description="What the metric rests on that nothing proves, or that a "
                         "reader must know before the numbers; stands in the headline.")  # fmt: skip

    def cautioned(self, headline: str) -> str:
        """A headline with what the metric rests on."""
        return f"{headline} ({self.caution})" if self.caution else headline


class RaceInfo(ReportPart):
    """How chips were stopped before they had seen every sample, and what that may have changed."""

    pilots: int = Field(ge=1, description="The first chips: run on every sample whatever they are like.")
    stopped: int = Field(ge=0, description="Chips that were stopped early.")
    error: float = Field(description="Chance that a result is off by more than its stated width.")
    tolerance: float | None = Field(description="Largest width that was asked for; null: a tenth of the "
                                    "interval's ranks.")  # fmt: skip
    at_least: tuple[float | None, ...] = Field(
        default=(),
        description="Of each stopped chip, in order of the trials: its metric is surely not lower; null: no "
        "such limit. None at all where the run was ended early, and in older reports.",
    )
    at_most: tuple[float | None, ...] = Field(default=(), description="As at_least: surely not higher.")
    wrong_at_least: int = Field(
        default=0, ge=0, description="So many of at_least may be wrong; more only with the chance of error."
    )
    wrong_at_most: int = Field(default=0, ge=0, description="As wrong_at_least.")


RARE_CHIP = "rare chip"
"""What is counted of a run that was ended early among its rare chips: all others were done."""


class Interrupted(ReportPart):
    """A run that was cut off: the report is of the chips that were done."""

    done: int = Field(ge=0, description="Chips, all points of a sweep together.")
    wanted: int = Field(ge=1, description="Chips that the whole run would have had.")
    what: str = Field(
        default="chip", description="What is counted: chip; rare chip where all ordinary ones were done."
    )
    command: str | None = Field(
        default=None, description="Goes on where the run was cut off; null where no chips were kept."
    )

    @property
    def text(self) -> str:
        """How far it came."""
        done = f"{self.done:,} of {count_text(self.wanted, self.what)} were done"
        if self.what == RARE_CHIP:
            return f"{done}: there is no estimate of rare chips (--rare); the numbers are of all other chips"
        if self.done == self.wanted:
            return f"all {count_text(self.wanted, self.what)} were done; the notes say what is missing"
        return f"{done}; the numbers are those of these"


class TimeBox(ReportPart):
    """A run that had a time limit and used it up: the best answer within that time."""

    minutes: float = Field(gt=0, description="As asked for.")
    done: int = Field(ge=0, description="Chips, or whatever else is counted, all points or models together.")
    wanted: int = Field(ge=1, description="What the whole run would have had.")
    what: str = Field(default="chip", description="What is counted.")
    whole_minutes: float | None = Field(
        default=None, description="About what the whole run would have taken, by the pace of this one."
    )
    uncounted: tuple[str, ...] = Field(
        default=(), description="What was asked for as well, and is not in whole_minutes."
    )

    @property
    def text(self) -> str:
        """How far it came, and what more time would give."""
        if not self.done:
            return (
                f"Time-boxed: none of {count_text(self.wanted, self.what)} was done within "
                f"{self.minutes:g} min (--max-minutes); give it more time"
            )
        of_these = "the numbers are those of these"
        if self.what == RARE_CHIP:
            of_these = "there is no estimate of rare chips (--rare), all else is of all chips"
        text = (
            f"Time-boxed: {self.done:,} of {count_text(self.wanted, self.what)} were done within "
            f"{self.minutes:g} min (--max-minutes); {of_these}"
        )
        if self.whole_minutes is None or self.done >= self.wanted:
            return text
        text = f"{text}. All would take about {duration_estimate(60 * self.whole_minutes)}"
        if self.uncounted:
            text = f"{text} without {listed_text(self.uncounted)}"
        if self.what not in ("chip", "direction pair"):  # of which a number is a mean or a percentile
            return text
        # The error of a mean, and of a percentile whose rank is inside the sample, falls with the root of
        # the number.
        ratio = math.sqrt(self.wanted / self.done)
        narrower = f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"
        return f"{text}, and make intervals about {narrower} times narrower"


class TrialSummary(ReportPart):
    """The metric of every simulated chip, and what it cost."""

    count: int = Field(ge=1)
    values: tuple[float | None, ...] = Field(
        description="Over the whole evaluation set, in order of the trials; null where a chip was stopped "
        "early, because it surely does not matter for the reported ranks."
    )
    weights: tuple[float, ...] | None = Field(
        default=None,
        description="How many chips each value stands for; null if each for itself. Weighted, the values "
        "are distributed as the chips are.",
    )
    images_evaluated: int = Field(ge=0)
    images_exhaustive: int = Field(ge=0, description="What evaluating every chip on every image costs.")
    exact: bool = Field(description="Every reported KPP equals the one of an exhaustive evaluation.")
    race: RaceInfo | None = Field(default=None, description="Null where every chip saw every sample.")
    mean: float = Field(description="Of all chips; with stopped chips an unbiased estimate.")
    std: float = Field(description="Of all chips; weighted where chips were stopped.")
    min: float = Field(description="Of the chips that are known exactly.")
    max: float = Field(description="Of the chips that are known exactly.")

    @model_validator(mode="after")
    def _one_value_per_trial(self) -> TrialSummary:
        if len(self.values) != self.count or len(self.weights or self.values) != self.count:
            raise ValueError(f"{len(self.values)} values for {self.count} trials; give one for each")
        stopped = self.values.count(None)
        limits = () if self.race is None else (self.race.at_least, self.race.at_most)
        if any(len(each) not in (0, stopped) for each in limits):
            raise ValueError(f"race: limits for {[*map(len, limits)]} of {stopped} stopped chips; give all")
        return self


class SweepPoint(ReportPart):
    """The audit at one spread of the devices; the same chips at every point."""

    sigma: float
    sigma_unit: str
    kpp: tuple[KppResult, ...]
    yields: tuple[YieldResult, ...] = ()
    gate: tuple[GateResult, ...] = ()
    drops: tuple[DropResult, ...] = ()
    tail: tuple[TailResult, ...] = ()
    trials: TrialSummary


class BaselineInfo(ReportPart):
    """The report of the audit that this one was held against, on the same chips."""

    path: str
    model: str
    model_sha256: str
    nvaudit_version: str


class Roughness(ReportPart):
    """Roughness of the loss landscape around the trained weights; lower is more stable."""

    value: float = Field(description="Mean squared error of the quadratic fit, mean over direction pairs.")
    spread: float | None = Field(description="Standard deviation over direction pairs; null for one pair.")
    pairs: int = Field(ge=1, description="Pairs of random directions.")
    grid: int = Field(ge=1, description="Points per axis.")
    span: float = Field(description="The grid reaches from -span to span, in lengths of the filters.")
    images: int = Field(ge=1)
    batch_norm: Literal["stored", "recalibrated"] = Field(
        description="Statistics of batch normalisations: as stored, or at every point those of the images."
    )
    loss: Literal["cross_entropy", "mse"]

    @property
    def standard_error(self) -> float | None:
        """Of the value, from the spread of the pairs."""
        return None if self.spread is None else self.spread / math.sqrt(self.pairs)


class LossSurface(ReportPart):
    """The loss over the plane of one direction pair."""

    roughness: float = Field(ge=0, description="Of this pair: the median one.")
    axis: tuple[float, ...] = Field(description="Coordinates along both directions, in filter lengths.")
    losses: tuple[tuple[float, ...], ...] = Field(description="By point along x, point along y.")

    @model_validator(mode="after")
    def _one_loss_per_point(self) -> LossSurface:
        if any(len(rows) != len(self.axis) for rows in (self.losses, *self.losses)):
            raise ValueError(f"a surface does not have {len(self.axis)} × {len(self.axis)} points")
        return self


class TensorDecision(ReportPart):
    """What happens to one constant of the model, and why."""

    name: str
    path: str = Field(default="", description="Subgraph that holds it; empty for the main graph.")
    decision: Literal["mapped", "digital"]
    reason: str
    op: str | None = None
    shape: tuple[int, ...]
    dtype: str
    bits: int | None = None
    slices: int | None = None
    devices: int | None = None
    crossbars: int | None = None
    outliers: int | None = Field(
        default=None, description="Of its weights the largest, that are digital; null without any."
    )
    scale: float | None = Field(default=None, description="Weight of one code step; the largest channel's.")
    weight_sigma: float | None = Field(
        default=None, description="Spread of a weight, rms over the tensor, as a fraction of max|W|."
    )
    products: int | None = Field(
        default=None,
        description="Multiply-accumulates with it in one run, see ``mapped``; null where it has none, or "
        "they cannot be counted.",
    )


class DataInfo(ReportPart):
    """The evaluation set."""

    source: str
    count: int = Field(ge=1)
    label_kind: Literal["class", "reference", "multilabel", "text", "boxes", "ragged", "none"]
    standard_error: float | None = Field(
        default=None, description="Binomial standard error of the nominal accuracy on this many images."
    )
    skipped: tuple[tuple[str, ...], ...] = Field(default=(), description="What was left out, and why.")
    notes: tuple[str, ...] = ()


class ModelInfo(ReportPart):
    """The model that was given; of harden and remap, older files know its path only."""

    path: str
    opset: int | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    batching: str = Field(default="", description="How images are put into batches, in plain words.")


class RuntimeInfo(ReportPart):
    """What the samples were run on."""

    requested: str = Field(description="Execution provider that was asked for: --provider.")
    providers: tuple[str, ...] = Field(
        min_length=1,
        description="Of ONNX Runtime's session, in order: operators that the first one does not have run on "
        "the next.",
    )
    device: str = Field(description="What the installed ONNX Runtime is built for.")
    version: str = Field(description="Of ONNX Runtime.")


def runtime_text(runtime: RuntimeInfo | None) -> list[str]:
    """Say what the samples were run on, in a line; none where the report does not know."""
    if runtime is None:
        return []
    first, *rest = runtime.providers
    behind = f", {' and '.join(rest)} for operators that it does not have" if rest else ""
    return [f"Run on: {first}{behind} (ONNX Runtime {runtime.version}; --provider {runtime.requested})"]


class OperatingPointInfo(ReportPart):
    """Where on the device profile the audit stands."""

    sigma: float
    sigma_unit: str
    level_of: str | None = Field(
        default=None,
        description="Whose level spacings sigma is in, where the cells in use hold another number of bits "
        "than those of the profile.",
    )
    time_s: float
    terms: tuple[str, ...] = Field(description="Noise terms in effect, in order.")

    @property
    def sigma_text(self) -> str:
        """Sigma with its unit, and whose level spacings these are where that is not plain."""
        return sigma_text(self.sigma, self.sigma_unit, self.level_of).replace("sigma", "σ =", 1)


class InputHashes(ReportPart):
    """SHA-256 of what went in; null: there was no such input."""

    model: str | None = None
    data: str | None = None
    device: str | None = None
    mapping: str | None = Field(default=None, description="Of the mapping file whose codes weights have.")


class Hashes(InputHashes):
    """SHA-256 of what went in."""

    model: str
    data: str
    device: str


def check_filled(name: str, items: Sequence[object]) -> None:
    """Refuse a list that a reader takes the first of, where it is empty."""
    if not items:
        raise ValueError(f"{name} is empty; a report has one at least")


def check_once(name: str, key: str, values: Sequence[object]) -> None:
    """Refuse entries that cannot be told apart."""
    if len(set(values)) != len(values):
        raise ValueError(f"{name}: two entries have the same {key}")


def check_chips(name: str, trials: TrialSummary) -> None:
    """Refuse chips of which none is known."""
    if all(value is None for value in trials.values):
        raise ValueError(f"{name}.values knows no chip")

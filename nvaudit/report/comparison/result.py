"""The comparison of several models: what is written, and what every renderer reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, model_validator

from nvaudit.report.codes import CodesInfo
from nvaudit.report.comparison.difference import IntervalMethod, Relation
from nvaudit.report.comparison.ranks import RankCorrelation
from nvaudit.report.cost.result import CostFigures
from nvaudit.report.gates import GateResult
from nvaudit.report.header import Header
from nvaudit.report.mapped import MappedGate, MappedShare
from nvaudit.report.paired import Difference
from nvaudit.report.sections import (
    Hashes,
    MetricInfo,
    OperatingPointInfo,
    ReportPart,
    Run,
    check_filled,
    check_once,
)
from nvaudit.spec import Measure
from nvaudit.stats.gate import Verdict
from nvaudit.stats.kpp import KppResult, YieldResult

ImageRelation = Literal["same", "different", "unknown"]


class RoughnessScore(ReportPart):
    """Roughness of a model, lower is more stable."""

    value: float
    standard_error: float | None = Field(description="Of the mean over direction pairs; null for one pair.")


class ModelSize(ReportPart):
    """What of a model is on the array."""

    weights: int = Field(ge=0, description="Mapped numbers.")
    devices: int = Field(ge=0)
    crossbars: int = Field(ge=0)


class ComparedModel(ReportPart):
    """One model of a comparison."""

    name: str
    model: str = Field(description="Path of the ONNX file.")
    conditions: dict[str, str] = Field(
        default_factory=dict, description="In words, those in which the reports differ; empty: in none."
    )
    report: str | None = Field(description="Path of the report that was read; null if the model was run.")
    place: int | None = Field(description="By the measure of the comparison; equal values share a place.")
    places: dict[Measure, int | None] = Field(description="By every measure; null where it is missing.")
    nominal: float
    quantised: float
    mean: float
    std: float
    kpp: tuple[KppResult, ...]
    yields: tuple[YieldResult, ...]
    gate: tuple[GateResult, ...]
    verdict: Verdict | None
    roughness: RoughnessScore | None
    size: ModelSize
    share_converted: float | None = Field(
        default=None, description="Share of the mapped weights that go through converters; null without."
    )
    mapped: MappedShare | None = Field(default=None, description="How much of its products is on the array.")
    mapped_gate: MappedGate | None = Field(default=None, description="Null without --require-mapped.")
    images: int = Field(ge=1)
    standard_error: float | None = Field(description="Of the nominal accuracy: the images are finite too.")
    trials: int = Field(ge=1)
    images_evaluated: int = Field(ge=0)
    images_exhaustive: int = Field(ge=0)
    seconds: float | None
    codes: CodesInfo | None = Field(default=None, description="Null: weights are slices.")
    cost: CostFigures | None = Field(default=None, description="Null: no --technology was given.")
    run: Run = Field(description="The full specification of the audit.")
    hashes: Hashes
    notes: tuple[str, ...]
    events: tuple[str, ...]


class ModelDifference(ReportPart):
    """A model minus the baseline, in the metric's unit."""

    model: str
    baseline: str
    chips: Relation = Field(
        description="same: every mapped tensor has the same noise in both; independent: none has."
    )
    method: IntervalMethod = Field(
        description="Of the KPP's interval. chips: chip by chip; intervals: from those of two independent "
        "KPPs; bounds: from a bound of each, right for every dependence."
    )
    kpp: Difference
    mean: Difference
    images: ImageRelation = Field(description="Whether both saw the same labels in the same order.")
    image_error: float | None = Field(
        description="Standard error that different images add to a difference; the intervals do not contain "
        "it. Null where they are the same, or it is not known."
    )


class ComparisonReport(Header):
    """Several models on one device, ranked."""

    kind: Literal["compare"] = "compare"
    rank_by: Measure
    best: str = Field(description="First by the measure.")
    chosen: str | None = Field(
        description="First by the measure among those that pass the gate; without a gate the best; null if "
        "none passes."
    )
    verdict: Verdict | None = Field(description="pass if a model passes the gate; null without a gate.")
    metric: str
    metric_info: MetricInfo
    device: dict[str, JsonValue]
    operating_point: OperatingPointInfo
    converters: dict[str, JsonValue] | None = Field(
        default=None,
        description="Options of the converters, by name on the command line; null where there are none, or "
        "the models differ in them.",
    )
    percentile: float
    confidence: float
    models: tuple[ComparedModel, ...] = Field(description="The best first.")
    baseline: str
    differences: tuple[ModelDifference, ...] = Field(description="Of the others from the baseline.")
    correlations: tuple[RankCorrelation, ...]

    @model_validator(mode="after")
    def _names_are_of_models(self) -> ComparisonReport:
        check_filled("models", self.models)
        names = [model.name for model in self.models]
        check_once("models", "name", names)
        wanted = {"best": self.best, "baseline": self.baseline}
        if self.chosen is not None:
            wanted["chosen"] = self.chosen
        for place, difference in enumerate(self.differences):
            wanted[f"differences.{place}.model"] = difference.model
            wanted[f"differences.{place}.baseline"] = difference.baseline
        for key, name in wanted.items():
            if name not in names:
                raise ValueError(f"{key} {name[:60]!r} is none of the models")
        for place, model in enumerate(self.models):
            check_filled(f"models.{place}.kpp", model.kpp)
        return self

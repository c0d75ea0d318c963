"""The comparison of several models: what is written, and what every renderer reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from nvaudit.report.cases import gate_numbers, kpp_numbers, kpp_text, question_text, wanted_text
from nvaudit.report.codes import CodesInfo
from nvaudit.report.comparison.difference import IntervalMethod, Relation
from nvaudit.report.comparison.ranks import MEASURES, RankCorrelation
from nvaudit.report.cost.result import CostFigures
from nvaudit.report.gates import GateResult
from nvaudit.report.header import Header
from nvaudit.report.mapped import MappedGate, MappedShare
from nvaudit.report.paired import Difference
from nvaudit.report.records import Check, Records, RecordValue, Tables, flat, records_of, share_check
from nvaudit.report.sections import (
    Hashes,
    MetricInfo,
    OperatingPointInfo,
    ReportPart,
    Run,
    TimeBox,
    check_filled,
    check_once,
)
from nvaudit.report.wording import kpp_name
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
    time_boxed: TimeBox | None = Field(default=None, description="Null: the time was not used up.")
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

    @property
    def equals(self) -> tuple[str, ...]:
        """Names of the models that have the first place: more than one where the measure does not tell."""
        first = next(model for model in self.models if model.name == (self.chosen or self.best))
        if first.place is None:
            return (first.name,)
        return tuple(
            model.name
            for model in self.models
            if model.place == first.place and model.verdict == first.verdict
        )

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


_KPP_FIELDS = ("value", "low", "high")
_COSTS = ("energy_j", "latency_s", "edp_js", "area_m2")


def tables(report: ComparisonReport) -> Tables:
    """The models, their differences from the baseline, and how measures agree about the order."""
    models = Records(tuple(_heading(report)), tuple(tuple(_row(report, model)) for model in report.models))
    return {
        "models": models,
        "differences": records_of(flat(item) for item in report.differences),
        "correlations": records_of(flat(item) for item in report.correlations),
    }


def _heading(report: ComparisonReport) -> list[str]:
    first = report.models[0]
    percentiles = [f"kpp_{kpp.percentile:.10g}" for kpp in first.kpp]
    return [
        "place", "model", "path", "metric", "nominal", "quantised", "mean", "std",
        *(
            f"{name}{'' if part == 'value' else '_' + part}"
            for name in percentiles
            for part in _KPP_FIELDS
        ),
        *(
            f"yield_{item.threshold:.10g}{suffix}"
            for item in first.yields
            for suffix in ("", "_low", "_high")
        ),
        "verdict", "roughness", "roughness_standard_error", "weights", "devices", "crossbars", "images",
        "trials", "seconds", "share_converted", *(f"place_by_{measure}" for measure in MEASURES),
        "kpp_difference", "kpp_difference_low", "kpp_difference_high",
        "share_of_products", "share_of_weights", "code", "devices_per_weight",
        *(_COSTS if any(model.cost is not None for model in report.models) else ()),
    ]  # fmt: skip


def _row(report: ComparisonReport, model: ComparedModel) -> list[RecordValue]:
    difference = next((item.kpp for item in report.differences if item.model == model.name), None)
    rough = model.roughness
    return [
        model.place, model.name, model.model, report.metric,
        model.nominal, model.quantised, model.mean, model.std,
        *(cell for kpp in model.kpp for cell in (kpp.value, kpp.low, kpp.high)),
        *(cell for item in model.yields for cell in (item.share, item.low, item.high)),
        model.verdict, None if rough is None else rough.value,
        None if rough is None else rough.standard_error,
        model.size.weights, model.size.devices, model.size.crossbars, model.images, model.trials,
        model.seconds, model.share_converted, *(model.places[measure] for measure in MEASURES),
        *((None,) * 3 if difference is None else (difference.value, difference.low, difference.high)),
        *((None,) * 2 if model.mapped is None
          else (model.mapped.share_of_products, model.mapped.share_of_weights)),
        *((None,) * 2 if model.codes is None
          else (model.codes.name, model.codes.devices_per_weight)),
        *(
            tuple(None if model.cost is None else getattr(model.cost, name) for name in _COSTS)
            if any(other.cost is not None for other in report.models) else ()
        ),
    ]  # fmt: skip


def checks(report: ComparisonReport) -> list[Check]:
    """Ask every model for every percentile; one that fails is no failure where another one was chosen."""
    return [check for model in report.models for check in _checks_of(model, report)]


def _checks_of(model: ComparedModel, report: ComparisonReport) -> Iterator[Check]:
    info = report.metric_info
    for kpp in model.kpp:
        gate = next((gate for gate in model.gate if gate.percentile == kpp.percentile), None)
        name, lines = f"{kpp_name(kpp.percentile)} of {report.metric}", [kpp_text(kpp, info.unit)]
        numbers = kpp_numbers(kpp) | {"chips": model.trials, "mean": model.mean}
        if gate is not None:
            name += f" {wanted_text(gate, info)}"
            lines.insert(0, f"{gate.verdict.upper()}: {question_text(gate, info)}: {gate.reason}")
            numbers |= gate_numbers(gate)
        check = Check(name, None if gate is None else gate.verdict, tuple(lines), numbers)
        yield _of_model(check, model, report)
    if model.mapped_gate is not None:
        yield _of_model(share_check(model.mapped_gate, model.mapped), model, report)


def _of_model(check: Check, model: ComparedModel, report: ComparisonReport) -> Check:
    needed = check.verdict in ("fail", "undecided") and report.verdict == "pass"
    return replace(check, name=f"{model.name}: {check.name}", verdict="skipped" if needed else check.verdict)

"""The report of a hardening: what was done, and the same chips before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, JsonValue

from nvaudit.report.cases import kpp_numbers, kpp_text
from nvaudit.report.codes import CodesInfo
from nvaudit.report.cost.result import CostFigures, figures_of
from nvaudit.report.crossbar import CrossbarInfo, adc_text
from nvaudit.report.groups import ZeroGroups
from nvaudit.report.header import Header, versions_with_torch
from nvaudit.report.mapped import MappedShare, share_clause
from nvaudit.report.paired import PairedDifference, paired_difference
from nvaudit.report.records import Check, RecordValue, Tables, flat, records_of
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import (
    DataInfo,
    Hashes,
    MetricInfo,
    ModelInfo,
    OperatingPointInfo,
    ReportPart,
    Run,
    TimeBox,
)
from nvaudit.report.wording import difference_text, kpp_name, value_text
from nvaudit.report.write_verify.result import VerifyReport
from nvaudit.stats.kpp import KppResult, YieldResult, kpp, yield_at

YIELD_MARGIN = 0.02
"""By default the yield is the share of chips that lose at most this much of the given model's accuracy."""


class HardenSide(ReportPart):
    """One of the two models: the given one, or the hardened one."""

    nominal: float = Field(description="As it is, without mapping or noise.")
    quantised: float = Field(description="Mapped, without noise.")
    kpp: KppResult
    mean: float
    yields: tuple[YieldResult, ...]
    roughness: float | None = Field(default=None, description="Of the loss landscape; null if not measured.")
    share_of_products: float | None = Field(default=None, description="On the array; as in ``mapped``.")
    share_of_weights: float | None = Field(default=None, description="On the array; as in ``mapped``.")
    values: tuple[float, ...] = Field(description="Of every chip, in order of the trials.")
    cost: CostFigures | None = Field(default=None, description="Null: no --technology was given.")


class EpochInfo(ReportPart):
    """One epoch of a training."""

    epoch: int = Field(ge=1)
    sigma: tuple[float, ...] = Field(
        description="Of the injected noise, in max|W| (stability-vat: in the profile's unit); three under "
        "TRICE."
    )
    loss: tuple[float, ...] = Field(description="Mean over the epoch, of each network.")
    kpp: tuple[float, ...] = Field(default=(), description="Of each network; empty where none was scored.")
    clean_loss: tuple[float, ...] = Field(
        default=(), description="Of each network, against the given one; empty without --max-clean-loss."
    )
    winner: Literal["left", "mid", "right"] | None = None


class CandidateInfo(ReportPart):
    """A network that stability-vat trained at one spread of the device."""

    sigma: float | None = Field(
        description="In the profile's unit; null: the start of all candidates, itself none."
    )
    loss: float | None = Field(description="Of the last epoch.")
    clean: float = Field(description="Metric on the validation samples, mapped, without noise.")
    kpp: float = Field(description="On validation samples and chips of the audited device, all the same.")
    roughness: float = Field(
        description="On validation samples, around the weights on the grid that the array holds."
    )
    spread: float | None = Field(description="Standard deviation of the roughness over direction pairs.")


class StageInfo(ReportPart):
    """A model of Algorithm 1 of the paper on model stability."""

    model: Literal["A", "B", "C", "D"] = Field(
        description="A: as given; B: quantised; C: quantised and pruned; D: trained with the spread kept."
    )
    roughness: float = Field(description="Of A around the given weights, else around those on their grid.")
    spread: float | None = Field(description="Standard deviation of the roughness over direction pairs.")


class AttemptInfo(ReportPart):
    """A training that a comparison with the given model was made with."""

    name: str = Field(description="bold or gentle.")
    lr: float = Field(description="Learning rate.")
    clip_weights: float | None = Field(
        description="Standard deviations that weights were kept within; null: not kept."
    )
    kpp: float = Field(description="On validation samples and chips that no epoch was scored on.")
    clean_loss: float = Field(
        description="What it lost without noise against the given model, on all held-out samples."
    )


class TrainingLayer(ReportPart):
    """A weight on the array, in a training through crossbars."""

    name: str
    reason: str | None = Field(
        description="Why it was trained with ideal converters; null if through its crossbars."
    )


class HardwareAware(ReportPart):
    """The crossbars that the forward pass of a training went through."""

    rows: int = Field(ge=1)
    cols: int = Field(ge=1)
    adc_bits: int = Field(ge=2)
    dac_bits: int | None = Field(description="Null: the inputs are ideal.")
    adc_range: str = Field(description="How ranges were set: max, percentile:P or full_scale.")
    samples: int = Field(
        ge=1,
        description="Training samples that ranges were calibrated on, at the first step of each epoch and "
        "after every 100.",
    )
    layers: tuple[TrainingLayer, ...]


class TrainingInfo(ReportPart):
    """How it was trained."""

    samples: int = Field(ge=1)
    validation_samples: int = Field(ge=1)
    score_images: int = Field(ge=1, description="Validation samples of a score while training.")
    epochs: int = Field(ge=0)
    loss: str
    device_sigma: float = Field(description="Spread that the device makes of a weight, in max|W|.")
    sigma: float | None = Field(description="Of the injected noise, in max|W|; null where it was searched.")
    interval: tuple[float, float] | None = Field(description="Where TRICE's search ended.")
    kept: Literal["best", "better", "last"]
    kept_epoch: int | None = Field(
        default=None, description="The epoch that the result is of; 0: the given model, which none surpassed."
    )
    compared: tuple[float, float] | None = Field(
        default=None,
        description="KPP of the given and of the trained network on validation samples and chips that no "
        "epoch was scored on; the given one is the result where it is the better.",
    )
    max_clean_loss: float | None = Field(
        default=None, description="What the result may lose without noise; null: no limit."
    )
    clean_loss: float | None = Field(
        default=None,
        description="What the trained network lost without noise on all held-out samples; null where it was "
        "not measured, or where no network was within the limit.",
    )
    attempts: tuple[AttemptInfo, ...] = Field(
        default=(), description="With --keep better: what was trained, in order, and compared at the end."
    )
    kept_attempt: int | None = Field(
        default=None, description="Place in the attempts, from 0; null: the given model, or there are none."
    )
    candidates: tuple[CandidateInfo, ...] = Field(default=(), description="Of stability-vat.")
    stages: tuple[StageInfo, ...] = Field(
        default=(), description="Roughness of models A to D of stability-vat; without C if not pruned."
    )
    kept_candidate: int | None = Field(default=None, description="Place in the candidates, from 0.")
    kept_by: Literal["roughness", "kpp"] | None = Field(
        default=None, description="What the choice among the candidates went by."
    )
    hardware_aware: HardwareAware | None = Field(
        default=None, description="Null: the forward pass had ideal converters."
    )
    history: tuple[EpochInfo, ...]


class HardenHashes(Hashes):
    """SHA-256 of what went in and came out; the data are those of the training."""

    hardened: str


class HardenReport(Header):
    """Before and after; the headline begins WORSE where the hardened model is."""

    kind: Literal["harden"] = "harden"
    libraries: dict[str, str] = Field(default_factory=versions_with_torch)
    method: str
    device: dict[str, JsonValue]
    operating_point: OperatingPointInfo
    metric: str
    metric_info: MetricInfo
    before: HardenSide
    after: HardenSide
    difference: PairedDifference = Field(description="After minus before, on the same chips.")
    training: TrainingInfo | None = Field(default=None, description="Null without training.")
    verify_plan: VerifyReport | None = Field(
        default=None,
        description="Which weights of the hardened model to write-verify; null if not asked for.",
    )
    zero_groups: ZeroGroups | None = Field(
        default=None, description="Of the hardened model; null if it was not pruned."
    )
    codes: CodesInfo | None = Field(
        default=None,
        description="Of the hardened model, the given one has the same; null: slices.",
    )
    crossbar: CrossbarInfo | None = Field(
        default=None, description="Of the hardened model; null if its audit had no converters."
    )
    mapped: MappedShare | None = Field(
        default=None, description="How much of the products of the hardened model is on the array."
    )
    data: DataInfo = Field(description="Of the audits.")
    model: ModelInfo
    time_boxed: TimeBox | None = Field(default=None, description="Null: the time was not used up.")
    hardened: str = Field(description="Where the hardened model was written.")
    run: Run = Field(description="The full specification of the run.")
    hashes: HardenHashes


def harden_report(
    before: AuditReport, after: AuditReport, threshold: float | None, label_free: bool, **rest: Any
) -> HardenReport:
    """Compare two audits of the same chips.

    Parameters
    ----------
    before, after : AuditReport
        Exhaustive.
    threshold : float or None
        Of the yield; None: the given model's metric less 2 points, for a fraction.
    label_free : bool
        The labels of the audits are the given model's own decisions.
    **rest
        Further fields of :class:`HardenReport`.
    """
    info, first = before.metric_info, before.kpp[0]
    if threshold is None and info.unit == "fraction":
        threshold = before.nominal - YIELD_MARGIN
    sides = [_side(report, first.percentile, first.confidence, threshold) for report in (before, after)]
    same = min(len(side.values) for side in sides)  # one whose time was over has fewer
    difference = paired_difference(
        sides[0].values[:same],
        sides[1].values[:same],
        first.percentile,
        first.confidence,
        info.higher_is_better,
    )
    return HardenReport(
        headline=info.cautioned(
            _headline(sides, difference, info, label_free, before.device_name, after.crossbar)
            + share_clause(after.mapped)
        ),
        label_free=label_free,
        model=before.model,
        device=before.device,
        operating_point=before.operating_point,
        runtime=before.runtime,
        metric=before.metric,
        metric_info=info,
        before=sides[0],
        after=sides[1],
        difference=difference,
        zero_groups=after.zero_groups,
        codes=after.codes,
        crossbar=after.crossbar,
        mapped=after.mapped,
        data=before.data,
        **rest,
    )


def _side(report: AuditReport, percentile: float, confidence: float, threshold: float | None) -> HardenSide:
    values = [value for value in report.trials.values if value is not None]
    better = report.metric_info.higher_is_better
    return HardenSide(
        nominal=report.nominal,
        quantised=report.quantised,
        kpp=kpp(values, percentile, confidence, better),
        mean=report.trials.mean,
        yields=() if threshold is None else (yield_at(values, threshold, confidence, better),),
        roughness=None if report.roughness is None else report.roughness.value,
        share_of_products=None if report.mapped is None else report.mapped.share_of_products,
        share_of_weights=None if report.mapped is None else report.mapped.share_of_weights,
        values=tuple(values),
        cost=figures_of(report.cost),
    )


def _headline(
    sides: list[HardenSide],
    difference: PairedDifference,
    info: MetricInfo,
    label_free: bool,
    device: str,
    crossbar: CrossbarInfo | None,
) -> str:
    before, after = sides
    change, unit = difference.kpp, info.unit
    ends = ""
    if change.low is not None and change.high is not None:
        low, high = difference_text(change.low, unit), difference_text(change.high, unit)
        ends = f", {100 * difference.confidence:g} % interval {low} to {high}"
    text = (
        f"{kpp_name(difference.percentile)} on {device}: {value_text(before.kpp.value, unit)} → "
        f"{value_text(after.kpp.value, unit)} ({difference_text(change.value, unit)}{ends}); without noise "
        f"{value_text(before.nominal, unit)} → {value_text(after.nominal, unit)}"
    )
    if crossbar is not None and crossbar.not_split:
        text += f"; {adc_text(crossbar)}"
    if (change.value if info.higher_is_better else -change.value) < 0:
        text = f"WORSE: {text}"
    if label_free:
        return f"LABEL-FREE (no labels: the given model's outputs are the reference): {text}"
    return text


def rougher_but_better(training: TrainingInfo, info: MetricInfo, percentile: float) -> list[str]:
    """Say that the candidate that was kept for its roughness is not the one that bears the device best.

    Parameters
    ----------
    percentile : float
        Of the KPP.

    Returns
    -------
    list of str
        Empty or one sentence.
    """
    trained = [one for one in training.candidates if one.sigma is not None]
    if training.kept_candidate is None or training.kept_by != "roughness" or not trained:
        return []
    kept, sign = training.candidates[training.kept_candidate], 1 if info.higher_is_better else -1
    best = max(trained, key=lambda one: sign * one.kpp)
    if sign * (best.kpp - kept.kpp) <= 0:
        return []
    return [
        f"the least rough candidate (sigma {kept.sigma:g}) has {kpp_name(percentile)} "
        f"{value_text(kept.kpp, info.unit)} on the validation samples where sigma {best.sigma:g} has "
        f"{value_text(best.kpp, info.unit)}: a network that has learned little is flat too; `--vat-keep kpp` "
        "keeps the other"
    ]


def beyond_limit(training: TrainingInfo) -> bool:
    """Whether what was trained lost more without noise than it might."""
    if training.max_clean_loss is None or training.kept_epoch != 0:
        return False
    if training.clean_loss is not None:
        return training.clean_loss > training.max_clean_loss
    losses = [loss for row in training.history for loss in row.clean_loss]
    return bool(losses) and min(losses) > training.max_clean_loss


def training_info(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], **rest: Any) -> TrainingInfo:
    """Describe a training from what it settled and what happened in every epoch."""
    return TrainingInfo(
        score_images=facts["score_images"],
        loss=facts["loss"],
        device_sigma=facts["device_sigma"],
        sigma=facts["sigma"],
        interval=facts["interval"],
        kept=facts["keep"],
        kept_epoch=facts["kept_epoch"],
        compared=facts["compared"],
        max_clean_loss=facts["max_clean_loss"],
        clean_loss=facts["clean_loss"],
        attempts=tuple(AttemptInfo(**row) for row in facts["attempts"]),
        kept_attempt=facts["kept_attempt"],
        candidates=tuple(CandidateInfo(**row) for row in facts["candidates"]),
        stages=tuple(StageInfo(**row) for row in facts["stages"]),
        kept_candidate=facts["kept_candidate"],
        kept_by=facts["kept_by"],
        hardware_aware=_hardware_aware(facts["crossbars"]),
        history=tuple(EpochInfo(**row) for row in rows),
        **rest,
    )


def _hardware_aware(facts: Mapping[str, Any] | None) -> HardwareAware | None:
    if facts is None:
        return None
    reasons: dict[str, str | None] = {**dict.fromkeys(facts["layers"]), **facts["whole"]}
    layers = tuple(TrainingLayer(name=name, reason=reason) for name, reason in reasons.items())
    return HardwareAware(
        **{name: value for name, value in facts.items() if name != "whole"} | {"layers": layers}
    )


def tables(report: HardenReport) -> Tables:
    """Both models, their chips, and the training epoch by epoch."""
    sides = {"before": report.before, "after": report.after}
    records = {
        "models": records_of({"model": name, **flat(side)} for name, side in sides.items()),
        "chips": records_of(
            {"trial": trial, "before": before, "after": after}
            for trial, (before, after) in enumerate(
                zip(report.before.values, report.after.values, strict=False)
            )
        ),
    }
    if report.training is not None:
        records["epochs"] = records_of(_epoch(epoch) for epoch in report.training.history)
    if report.verify_plan is not None:
        records["verify_plan"] = records_of(flat(point) for point in report.verify_plan.curve)
    return records


def _epoch(epoch: EpochInfo) -> dict[str, RecordValue]:
    """One row; what TRICE has three of gets a number behind its name."""
    row: dict[str, RecordValue] = {"epoch": epoch.epoch}
    for name in ("sigma", "loss", "kpp", "clean_loss"):
        values = getattr(epoch, name)
        row |= {name if len(values) == 1 else f"{name}_{place}": v for place, v in enumerate(values)}
    return row | {"winner": epoch.winner}


def checks(report: HardenReport) -> list[Check]:
    """Record what both models reach; nothing is demanded of them."""
    return [
        Check(
            f"{name} model: {kpp_name(side.kpp.percentile)} of {report.metric}",
            None,
            (kpp_text(side.kpp, report.metric_info.unit),),
            kpp_numbers(side.kpp) | {"chips": side.kpp.trials, "mean": side.mean, "nominal": side.nominal},
        )
        for name, side in (("given", report.before), ("hardened", report.after))
    ]

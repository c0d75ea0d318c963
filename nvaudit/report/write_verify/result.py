"""The report of a write-verify plan: what verifying a share of the weights gives, and which ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, JsonValue, model_validator

from nvaudit.report.cases import kpp_numbers, kpp_text
from nvaudit.report.header import Header
from nvaudit.report.mapped import MappedGate, MappedShare, judge_share, share_clause
from nvaudit.report.paired import PairedDifference
from nvaudit.report.records import Check, Tables, flat, records_of, share_check
from nvaudit.report.sections import (
    DataInfo,
    Hashes,
    MetricInfo,
    ModelInfo,
    OperatingPointInfo,
    ReportPart,
    Run,
    check_filled,
)
from nvaudit.report.wording import count_text, kpp_name, limit_text, value_text
from nvaudit.stats.gate import Verdict
from nvaudit.stats.kpp import KppResult

POINT = 0.01
"""Without a target the plan is the smallest share that loses no more than this against the largest share: of
a fraction; of another metric, this part of the quantised model's value."""


class VerifyPoint(ReportPart):
    """The chips with a share of the weights verified."""

    share: float = Field(ge=0, le=1)
    weights: int = Field(ge=0, description="Verified.")
    devices: int = Field(ge=0, description="Write-verify operations: devices of these weights.")
    saved: int = Field(ge=0, description="Write-verify operations that verifying everything takes more.")
    kpp: KppResult
    mean: float
    worst: float = Field(description="The worst chip.")
    difference: PairedDifference | None = Field(
        default=None, description="Against the same chips with no weight verified; null for these."
    )
    values: tuple[float, ...] = Field(description="Of every chip, in order of the trials.")


class VerifyChoice(ReportPart):
    """The share that the plan is for."""

    share: float = Field(ge=0, le=1)
    weights: int = Field(ge=0)
    devices: int = Field(ge=0)
    saved: int = Field(ge=0)
    kpp: float
    why: str
    short: float | None = Field(
        default=None, description="The largest share tried that is not enough; null if the smallest one is."
    )


class VerifyTensor(ReportPart):
    """What the plan verifies of one tensor."""

    name: str
    op: str
    shape: tuple[int, ...] = Field(description="As it is stored, and so of its mask.")
    stored: str = Field(description="initializer, constant, attribute, sparse, or folded (computed).")
    weights: int = Field(ge=0)
    devices: int = Field(ge=0)
    verified: int = Field(ge=0, description="Weights to verify.")


class VerifyReport(Header):
    """A write-verify plan; ``sigma``, ``sigma_unit`` and ``time_s`` repeat the operating point."""

    kind: Literal["verify-plan"] = "verify-plan"
    ranking: Literal["swim", "magnitude", "random"]
    ranked_by: str = Field(description="What the ranking rests on, in plain words.")
    model: ModelInfo
    device: dict[str, JsonValue]
    operating_point: OperatingPointInfo
    sigma: float
    sigma_unit: str
    time_s: float
    verify_sigma: float = Field(description="Spread that verifying leaves, in the unit of sigma.")
    reduced: tuple[str, ...] = Field(description="Noise terms that verifying reduces.")
    left: tuple[str, ...] = Field(description="Noise terms that it cannot reduce.")
    metric: str
    metric_info: MetricInfo
    nominal: float = Field(description="Metric of the unmodified model.")
    quantised: float = Field(description="Metric after mapping, without noise.")
    weights: int = Field(ge=1, description="On the array.")
    devices: int = Field(ge=1)
    curve: tuple[VerifyPoint, ...] = Field(description="The same chips at every share, ascending.")
    target: float | None = None
    choice: VerifyChoice | None = Field(description="Null where no share reaches the target.")
    tensors: tuple[VerifyTensor, ...] = Field(description="Of the choice; without one of the largest share.")
    plan: str | None = Field(default=None, description="The file of masks.")
    mapped: MappedShare | None = Field(
        default=None, description="How much of the model's products is on the array; null in older reports."
    )
    mapped_gate: MappedGate | None = Field(default=None, description="Null without --require-mapped.")
    data: DataInfo
    run: Run = Field(description="The full specification of the run.")
    hashes: Hashes

    @model_validator(mode="after")
    def _points_are_there(self) -> VerifyReport:
        check_filled("curve", self.curve)
        shares = [point.share for point in self.curve]
        if shares != sorted(set(shares)):
            raise ValueError("curve: its shares do not ascend")
        counts = [point.weights for point in self.curve]
        if self.choice is not None and self.choice.weights not in counts:
            raise ValueError(f"choice.weights {self.choice.weights}: no point of the curve has as many")
        return self


def verify_report(
    curve: Sequence[VerifyPoint],
    choice: VerifyChoice | None,
    *,
    label_free: bool,
    ranking: Literal["swim", "magnitude", "random"],
    device: dict[str, JsonValue],
    metric_info: MetricInfo,
    target: float | None,
    weights: int,
    devices: int,
    mapped: MappedShare | None = None,
    require_mapped: float | None = None,
    **rest: Any,
) -> VerifyReport:
    """Put a report together; the line that stands first is made here.

    Parameters
    ----------
    label_free, ranking, device, metric_info, target, weights, devices, mapped
        Fields of :class:`VerifyReport`.
    require_mapped : float, optional
        The share of the products that must be on the array.
    **rest
        Its other fields.
    """
    text = _headline(curve, choice, metric_info.unit, target, str(device.get("name")), ranking, weights)
    gate = None if mapped is None else judge_share(mapped, require_mapped)
    text += share_clause(mapped)
    if gate is not None and gate.verdict == "fail":
        text = f"FAIL: {text}"
    if label_free:
        text = f"LABEL-FREE (no labels: agreement with the unperturbed model): {text}"
    return VerifyReport(
        headline=metric_info.cautioned(text),
        label_free=label_free,
        ranking=ranking,
        device=device,
        metric_info=metric_info,
        target=target,
        weights=weights,
        devices=devices,
        mapped=mapped,
        mapped_gate=gate,
        curve=tuple(curve),
        choice=choice,
        **rest,
    )


def _headline(
    curve: Sequence[VerifyPoint],
    choice: VerifyChoice | None,
    unit: str,
    target: float | None,
    device: str,
    ranking: str,
    weights: int,
) -> str:
    begin = f"{kpp_name(curve[0].kpp.percentile)} on {device}"
    none, most = (value_text(point.kpp.value, unit) for point in (curve[0], curve[-1]))
    ends = f"none {none}, {share_words(curve[-1].share)} {most}"
    of = f"of {count_text(weights, 'weight')} ({ranking})"
    if choice is None:
        assert target is not None
        return f"{begin}: no share {of} that was tried reaches {limit_text(target, unit)}: {ends}"
    return (
        f"{begin}: verify {share_words(choice.share)} {of} for {value_text(choice.kpp, unit)}; {ends}; "
        f"{choice.saved:,} of {count_text(choice.saved + choice.devices, 'device')} need no write-verify"
    )


def share_words(share: float) -> str:
    """Show a share of the weights.

    Examples
    --------
    >>> share_words(0.05), share_words(1.0), share_words(0.0)
    ('5 %', 'all', 'none')
    """
    if share in (0.0, 1.0):
        return "all" if share else "none"
    return f"{100 * share:.3g} %"


def tables(report: VerifyReport) -> Tables:
    """The shares, what is verified of each tensor, and the chips at every share."""
    return {
        "curve": records_of(flat(point) for point in report.curve),
        "tensors": records_of(flat(tensor) for tensor in report.tensors),
        "chips": records_of(
            {"trial": trial, "share": point.share, "value": value}
            for point in report.curve
            for trial, value in enumerate(point.values)
        ),
    }


def checks(report: VerifyReport) -> list[Check]:
    """Ask whether a share reaches the target, and for the share on the array."""
    info, choice = report.metric_info, report.choice
    chosen = [point for point in report.curve if choice is not None and point.weights == choice.weights]
    point = chosen[0] if chosen else report.curve[-1]
    name = f"{kpp_name(point.kpp.percentile)} of {report.metric} with write-verify"
    lines = [f"{kpp_text(point.kpp, info.unit)}, {share_words(point.share)} of the weights verified"]
    verdict: Verdict | None = None
    if report.target is not None:
        verdict = "fail" if choice is None else "pass"
        name += f" at {'least' if info.higher_is_better else 'most'} {limit_text(report.target, info.unit)}"
        why = "no share that was tried reaches it" if choice is None else choice.why
        lines.insert(0, f"{verdict.upper()}: {why}")
    numbers = kpp_numbers(point.kpp) | {
        "share": point.share,
        "devices": point.devices,
        "target": report.target,
    }
    asked = [Check(name, verdict, tuple(lines), numbers)]
    gate = report.mapped_gate
    return asked if gate is None else [*asked, share_check(gate, report.mapped)]

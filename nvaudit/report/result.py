"""The audit report: what is written to ``report.json`` and what every renderer reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from nvaudit.errors import DataError
from nvaudit.report.attribution.result import AttributionDetail
from nvaudit.report.cost.result import CostInfo
from nvaudit.report.crossbar import CrossbarInfo
from nvaudit.report.deployment.result import MeasuredChips
from nvaudit.report.device.result import DeviceLevels
from nvaudit.report.drops import DropResult
from nvaudit.report.gates import GateResult
from nvaudit.report.groups import ZeroGroups
from nvaudit.report.header import Header
from nvaudit.report.jsontext import short_repr
from nvaudit.report.mapped import MappedGate, MappedShare, joint_verdict
from nvaudit.report.rare import RareAttribution, RareChip, RareTail
from nvaudit.report.reading import parsed, validated
from nvaudit.report.remedy import Remedy
from nvaudit.report.sections import (
    RARE_CHIP,
    BaselineInfo,
    DataInfo,
    Hashes,
    Interrupted,
    LossSurface,
    MetricInfo,
    ModelInfo,
    OperatingPointInfo,
    ReportPart,
    Roughness,
    Run,
    SweepPoint,
    TensorDecision,
    TimeBox,
    TrialSummary,
    check_chips,
    check_filled,
    check_once,
)
from nvaudit.report.tails import TailResult
from nvaudit.stats.gate import Verdict, overall_verdict
from nvaudit.stats.kpp import KppResult, YieldResult


class NotCorrected(ReportPart):
    """A weight whose results are as the chip makes them."""

    name: str
    reason: str


class CalibratedChips(ReportPart):
    """The chips of the audit again, each corrected by what its layers make of the same unlabelled samples.

    These numbers use the chip: they hold where each chip is measured so before it is used.
    """

    samples: int = Field(ge=2, description="Unlabelled samples that each chip is corrected by; not scored.")
    source: str = Field(description="Where they come from.")
    norms: int = Field(ge=0, description="Batch normalisations whose statistics were corrected.")
    layers: int = Field(ge=0, description="Layers with a gain and a bias behind each output channel.")
    left: tuple[NotCorrected, ...] = Field(default=(), description="What was not corrected.")
    points: tuple[SweepPoint, ...] = Field(
        description="As the sweep's, of the corrected chips: one point for each sigma that was come to."
    )


class AuditReport(Header):
    """Everything an audit found, and what is needed to run it again."""

    kind: Literal["audit"] = "audit"
    verdict: Verdict | None = Field(
        description="Of all gates together; null without a gate, and where the run was interrupted."
    )
    interrupted: Interrupted | None = Field(default=None, description="Null: the run came to its end.")
    time_boxed: TimeBox | None = Field(default=None, description="Null: the time was not used up.")
    metric: str
    metric_info: MetricInfo
    nominal: float = Field(description="Metric of the unmodified model.")
    quantised: float = Field(description="Metric after mapping, without noise.")
    kpp: tuple[KppResult, ...]
    yields: tuple[YieldResult, ...] = ()
    gate: tuple[GateResult, ...] = ()
    drops: tuple[DropResult, ...] = Field(
        default=(), description="Of a sweep those at its largest sigma; each point has its own."
    )
    baseline: BaselineInfo | None = Field(default=None, description="Null without --baseline.")
    mapped: MappedShare | None = Field(
        default=None, description="How much of the model's products is on the array; null in older reports."
    )
    mapped_gate: MappedGate | None = Field(default=None, description="Null without --require-mapped.")
    tail: tuple[TailResult, ...] = Field(default=(), description="Percentiles beyond the sample.")
    rare: tuple[RareChip, ...] = Field(
        default=(), description="Chips far beyond the sample, estimated by splitting; empty without --rare."
    )
    rare_tail: RareTail | None = Field(default=None, description="The tail that splitting has seen.")
    rare_attribution: RareAttribution | None = Field(
        default=None, description="Which tensors make the rarest chips bad; null without --attribute tensors."
    )
    trials: TrialSummary
    sweep: tuple[SweepPoint, ...] = ()
    calibrated: CalibratedChips | None = Field(
        default=None, description="The same chips, each corrected by measuring it; null: not asked for."
    )
    measured_chips: MeasuredChips | None = Field(
        default=None, description="Chips whose conductances were read back; null: none was given."
    )
    roughness: Roughness | None = None
    landscape: LossSurface | None = Field(default=None, description="The surface behind the roughness.")
    tensors: tuple[TensorDecision, ...]
    data: DataInfo
    model: ModelInfo
    device: dict[str, JsonValue] = Field(description="The full device profile.")
    device_levels: DeviceLevels | None = Field(
        default=None, description="The law of each level at the operating point."
    )
    operating_point: OperatingPointInfo
    crossbar: CrossbarInfo | None = Field(default=None, description="Null: not split, ideal converters.")
    zero_groups: ZeroGroups | None = Field(
        default=None, description="Null: groups of zeros have devices as all others."
    )
    cost: CostInfo | None = Field(default=None, description="Null: no --technology was given.")
    attribution: dict[str, float] | None = Field(
        default=None,
        description="KPP cost of each tensor or noise term: what the chips get back when it alone is ideal.",
    )
    attribution_detail: AttributionDetail | None = None
    remedy: Remedy | None = Field(
        default=None,
        description="What another code of the weights would give; null where no gate fails, with "
        "--no-suggest, and where weights have a code already.",
    )
    run: Run = Field(description="The full specification of the run.")
    hashes: Hashes

    @model_validator(mode="after")
    def _parts_agree(self) -> AuditReport:
        check_chips("trials", self.trials)
        check_filled("kpp", self.kpp)
        for place, point in enumerate(self.sweep):
            check_chips(f"sweep.{place}.trials", point.trials)
            check_filled(f"sweep.{place}.kpp", point.kpp)
        sigmas = [point.sigma for point in self.sweep]
        check_once("sweep", "sigma", sigmas)
        if sigmas and self.operating_point.sigma not in sigmas:
            raise ValueError(f"operating_point.sigma {self.operating_point.sigma:g} is not in the sweep")
        return self

    @model_validator(mode="after")
    def _verdict_follows_from_gates(self) -> AuditReport:
        drops = tuple(drop for point in self.sweep for drop in point.drops) or self.drops
        every = (*self.gate, *(gate for point in self.sweep for gate in point.gate), *drops)
        if self.verdict is not None and not every and self.mapped_gate is None:
            raise ValueError(f"verdict {self.verdict!r} without a gate; give the gate or null")
        expected = joint_verdict(overall_verdict((*self.gate, *drops)), self.mapped_gate)
        if self.interrupted is not None:
            if self.verdict is not None:
                raise ValueError(f"verdict {self.verdict!r} of a run that was interrupted; give null")
        elif (self.gate or drops or self.mapped_gate is not None) and self.verdict != expected:
            raise ValueError(f"verdict {self.verdict!r}, but the gates say {expected!r}")
        return self


def boxed_together(minutes: float | None, reports: Sequence[AuditReport]) -> TimeBox | None:
    """What became of the time of several audits; None where every one of them came to its end.

    Parameters
    ----------
    minutes : float or None
        Of all together.
    """
    boxes = [report.time_boxed for report in reports]
    if minutes is None or not any(boxes):
        return None
    done, wanted, whole = 0, 0, 0.0
    for report, box in zip(reports, boxes, strict=True):
        among_chips = None if box is None or box.what == RARE_CHIP else box
        done += report.trials.count if among_chips is None else among_chips.done
        wanted += report.trials.count if among_chips is None else among_chips.wanted
        longer = None if box is None else box.whole_minutes
        whole += report.timing.get("total", 0.0) / 60 if longer is None else longer
    uncounted = dict.fromkeys(name for box in boxes if box is not None for name in box.uncounted)
    return TimeBox(minutes=minutes, done=done, wanted=wanted, whole_minutes=whole, uncounted=tuple(uncounted))


def with_command(report: AuditReport, command: str | None) -> AuditReport:
    """Say in the report of a run that was interrupted which command goes on."""
    assert report.interrupted is not None
    return report.model_copy(
        update={"interrupted": report.interrupted.model_copy(update={"command": command})}
    )


def from_json(text: str, where: str) -> AuditReport:
    """Read the report of an audit; one that an earlier version wrote too.

    Parameters
    ----------
    where : str
        File name, for messages.

    Raises
    ------
    DataError
        If the text is no report of an audit; says where and what was found.
    """
    raw = parsed(text, where)
    kind = raw.get("kind", "audit")
    if kind != "audit":
        raise DataError(f"{where}: kind: got {short_repr(kind)}; give a report.json of nvaudit audit")
    return validated(AuditReport, raw, where, "nvaudit audit")

"""The audit report: what is written to ``report.json`` and what every renderer reads."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, JsonValue, ValidationError, model_validator

from nvaudit.errors import DataError
from nvaudit.report.attribution.result import AttributionDetail
from nvaudit.report.crossbar import CrossbarInfo
from nvaudit.report.device_levels import DeviceLevels
from nvaudit.report.gates import GateResult
from nvaudit.report.groups import ZeroGroups
from nvaudit.report.jsontext import read_json, short_repr, to_json
from nvaudit.report.mapped import MappedGate, MappedShare, joint_verdict
from nvaudit.report.sections import (
    DataInfo,
    Hashes,
    Interrupted,
    LossSurface,
    MetricInfo,
    ModelInfo,
    OperatingPointInfo,
    RaceInfo,
    Roughness,
    Run,
    RuntimeInfo,
    Section,
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

__all__ = [
    "AuditReport",
    "DataInfo",
    "Hashes",
    "LossSurface",
    "MetricInfo",
    "ModelInfo",
    "OperatingPointInfo",
    "RaceInfo",
    "Roughness",
    "RuntimeInfo",
    "SweepPoint",
    "TensorDecision",
    "TrialSummary",
    "from_json",
    "report_schema",
    "schema_text",
    "to_json",
]


class AuditReport(Section):
    """Everything an audit found, and what is needed to run it again."""

    schema_version: Literal[1] = 1
    nvaudit_version: str
    headline: str = Field(description="The result in one line; begins LABEL-FREE without labels.")
    label_free: bool
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
    mapped: MappedShare | None = Field(
        default=None, description="How much of the model's products is on the array; null in older reports."
    )
    mapped_gate: MappedGate | None = Field(default=None, description="Null without --require-mapped.")
    tail: tuple[TailResult, ...] = Field(default=(), description="Percentiles beyond the sample.")
    trials: TrialSummary
    sweep: tuple[SweepPoint, ...] = ()
    roughness: Roughness | None = None
    landscape: LossSurface | None = Field(default=None, description="The surface behind the roughness.")
    tensors: tuple[TensorDecision, ...]
    data: DataInfo
    model: ModelInfo
    runtime: RuntimeInfo | None = Field(default=None, description="Null in reports from before it was kept.")
    device: dict[str, JsonValue] = Field(description="The full device profile.")
    device_levels: DeviceLevels | None = Field(
        default=None, description="The law of each level at the operating point."
    )
    operating_point: OperatingPointInfo
    crossbar: CrossbarInfo | None = Field(default=None, description="Null: not split, ideal converters.")
    zero_groups: ZeroGroups | None = Field(
        default=None, description="Null: groups of zeros have devices as all others."
    )
    attribution: dict[str, float] | None = Field(
        default=None,
        description="KPP cost of each tensor or noise term: what the chips get back when it alone is ideal.",
    )
    attribution_detail: AttributionDetail | None = None
    timing: dict[str, float] = Field(default_factory=dict, description="Seconds.")
    run: Run = Field(description="The full specification of the run.")
    hashes: Hashes
    events: tuple[str, ...] = Field(default=(), description="What happened on the way: a worker replaced …")
    notes: tuple[str, ...] = ()

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
        every = (*self.gate, *(gate for point in self.sweep for gate in point.gate))
        if self.verdict is not None and not every and self.mapped_gate is None:
            raise ValueError(f"verdict {self.verdict!r} without a gate; give the gate or null")
        said = joint_verdict(overall_verdict(self.gate), self.mapped_gate)
        if self.interrupted is not None:
            if self.verdict is not None:
                raise ValueError(f"verdict {self.verdict!r} of a run that was interrupted; give null")
        elif (self.gate or self.mapped_gate is not None) and self.verdict != said:
            raise ValueError(f"verdict {self.verdict!r}, but the gates say {said!r}")
        return self


def with_command(report: AuditReport, command: str | None) -> AuditReport:
    """Say in the report of a run that was interrupted which command goes on."""
    assert report.interrupted is not None
    return report.model_copy(
        update={"interrupted": report.interrupted.model_copy(update={"command": command})}
    )


def from_json(text: str, where: str) -> AuditReport:
    """Read a report.

    Parameters
    ----------
    text : str
    where : str
        File name, for messages.

    Returns
    -------
    AuditReport

    Raises
    ------
    DataError
        If the text is not a report of this version; says where and what was found.
    """
    parsed(text, where)
    return validated_report(AuditReport, text, where, "nvaudit audit")


Report = TypeVar("Report", bound=BaseModel)


def parsed(text: str, where: str) -> dict[str, Any]:
    """Read the JSON of a report of this version, of whatever kind.

    Raises
    ------
    DataError
    """
    try:
        raw = read_json(text)
    except ValueError as error:
        raise DataError(f"{where}: not a report: {error}; give a report.json of nvaudit audit") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or version != 1 or isinstance(version, bool):
        raise DataError(
            f"{where}: schema_version: got {short_repr(version)}: this nvaudit reads version 1; "
            "give a report.json of nvaudit audit"
        )
    return raw


def validated_report(model: type[Report], text: str, where: str, command: str) -> Report:
    """Validate the JSON of a report that a command has written.

    Raises
    ------
    DataError
        Naming the first field that is wrong.
    """
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise DataError(f"{where}: {_first_problem(error)}; give a report.json of {command}") from error


def report_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of ``report.json``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        # Serialisation: what a reader of a report may rely on, so every key is required.
        **AuditReport.model_json_schema(mode="serialization"),
    }


def schema_text() -> str:
    """Text of the committed ``report.schema.json``."""
    return json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n"


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    place = ".".join(str(part) for part in first["loc"]) or "the report as a whole"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    got = "" if first["type"] in ("missing", "value_error") else f"got {short_repr(first['input'])}: "
    return f"{place}: {got}{first['msg']}{more}"

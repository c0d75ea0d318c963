"""What of a model is on the array: what the report of `nvaudit inspect` holds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue

from nvaudit.report.header import Header
from nvaudit.report.mapped import MappedGate, MappedShare, share_clause
from nvaudit.report.records import Check, Tables, flat, records_of, share_check
from nvaudit.report.sections import ModelInfo, TensorDecision
from nvaudit.report.wording import count_text


class InspectReport(Header):
    """Every constant of a model with its decision; written by ``nvaudit inspect``."""

    kind: Literal["inspect"] = "inspect"
    model: ModelInfo
    device: dict[str, JsonValue] = Field(description="The full device profile.")
    ir_version: int
    crossbar: tuple[int, int] = Field(description="Rows and columns.")
    tensors: tuple[TensorDecision, ...]
    mapped: MappedShare | None = Field(description="How much of the model's products is on the array.")
    mapped_gate: MappedGate | None = Field(description="Null without --require-mapped.")


def inspect_report(**content: Any) -> InspectReport:
    """Put a report together; the line that stands first is made here."""
    report = InspectReport(headline="", **content)
    gate, mapped = report.mapped_gate, sum(tensor.decision == "mapped" for tensor in report.tensors)
    verdict = "" if gate is None else f"{gate.verdict.upper()}: "
    text = f"{verdict}{report.model.path} on {report.device_name}: {counts_text(mapped, len(report.tensors))}"
    return report.model_copy(update={"headline": text + share_clause(report.mapped)})


def counts_text(mapped: int, tensors: int) -> str:
    """Say how many tensors are on the array, and how many are not."""
    return f"{count_text(mapped, 'tensor')} on the array, {tensors - mapped:,} digital"


def tables(report: InspectReport) -> Tables:
    """Every constant, and the products that are off the array."""
    off = () if report.mapped is None else report.mapped.off
    return {
        "tensors": records_of(flat(tensor) for tensor in report.tensors),
        "off": records_of(flat(item) for item in off),
    }


def checks(report: InspectReport) -> list[Check]:
    """Ask for the share on the array; without --require-mapped it is only recorded."""
    gate, mapped = report.mapped_gate, report.mapped
    if gate is not None:
        return [share_check(gate, mapped)]
    shares = (
        {} if mapped is None else {"products": mapped.share_of_products, "weights": mapped.share_of_weights}
    )
    return [Check("share on the array", None, (report.headline,), shares)]

"""What of a model is on the array: what the report of `nvaudit inspect` holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nvaudit.report.mapped import MappedGate, MappedShare
from nvaudit.report.sections import Section, TensorDecision


class InspectReport(Section):
    """Every constant of a model with its decision; written by ``nvaudit inspect``."""

    kind: Literal["inspect"] = "inspect"
    schema_version: Literal[1] = 1
    nvaudit_version: str
    model: str = Field(description="Path of the model.")
    opset: int
    ir_version: int
    batching: str = Field(description="How images are put into batches, in plain words.")
    device: str = Field(description="Name of the profile.")
    weight_bits: int
    cell_bits: int | None = Field(description="Null: analog cells, one holds the whole code.")
    encoding: str
    crossbar: tuple[int, int] = Field(description="Rows and columns.")
    tensors: tuple[TensorDecision, ...]
    mapped: MappedShare | None = Field(description="How much of the model's products is on the array.")
    mapped_gate: MappedGate | None = Field(description="Null without --require-mapped.")

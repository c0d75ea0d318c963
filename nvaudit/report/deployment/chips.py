"""Chips whose conductances were read back: what the report of an audit says of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nvaudit.report.sections import ReportPart


class DeviceErrors(ReportPart):
    """Measured less programmed, in level spacings."""

    devices: int = Field(ge=0, description="In use.")
    measured: int = Field(ge=0)
    mean: float | None = Field(description="Null where nothing was measured.")
    std: float | None
    rms: float | None
    largest: float | None = Field(description="Largest magnitude.")


class TensorOnChip(ReportPart):
    """One tensor of a chip."""

    name: str
    crossbars: int = Field(ge=0)
    errors: DeviceErrors
    cost: float | None = Field(
        description="What the metric gains with this tensor at its quantised weights and the rest as on the "
        "chip; null where it was not run."
    )


class CrossbarOnChip(ReportPart):
    """One crossbar of a chip."""

    tensor: str
    file: str
    errors: DeviceErrors
    row_rms: tuple[float | None, ...] = Field(description="Of every row in use, in level spacings.")
    column_rms: tuple[float | None, ...]
    dead_rows: tuple[int, ...] = Field(description="Rows that do not follow what was programmed.")
    dead_columns: tuple[int, ...]


class WorstPlace(ReportPart):
    """A row or a column of a crossbar with large errors."""

    tensor: str
    file: str
    line: Literal["row", "column"]
    index: int
    rms: float
    times: float | None = Field(description="Over the median of such lines of the chip; null: that is 0.")
    dead: bool


class MeasuredChip(ReportPart):
    """One chip as it was read back."""

    name: str
    time_s: float | None = Field(description="Since programming, where its chip.json says so.")
    value: float = Field(description="Its metric.")
    undefined: int = Field(ge=0, description="Samples whose outputs are not numbers.")
    worse: int = Field(ge=0, description="Simulated chips that are worse.")
    equal: int = Field(ge=0, description="Simulated chips with the same value.")
    simulated: int = Field(ge=1)
    percentile: float = Field(description="Share of simulated chips below it in %, of equal ones half.")
    percentile_low: float = Field(description="Clopper-Pearson, of those that are worse.")
    percentile_high: float = Field(description="Clopper-Pearson, of those that are not better.")
    outside: bool = Field(
        description="It lies surely among the worst or the best half per cent of what the profile predicts."
    )
    missing: int = Field(ge=0, description="Devices that were not measured: taken at their targets.")
    negative: int = Field(ge=0, description="Conductances below 0, taken as they are.")
    beyond: int = Field(ge=0, description="More than a window outside the window, taken as they are.")
    reads: int = Field(ge=1, description="Of a device, at most.")
    errors: DeviceErrors
    tensors: tuple[TensorOnChip, ...]
    crossbars: tuple[CrossbarOnChip, ...]
    worst: tuple[WorstPlace, ...]


class MeasuredChips(ReportPart):
    """Chips that were read back, beside what the profile predicts."""

    source: str
    confidence: float
    images: int = Field(ge=0, description="Samples that the costs of tensors rest on.")
    chips: tuple[MeasuredChip, ...]

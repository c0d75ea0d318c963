"""The report of a mapping: the arrays that were written, or what putting them together again shows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from nvaudit.report.header import Header
from nvaudit.report.records import Check, Tables, flat, records_of
from nvaudit.report.sections import ModelInfo, OperatingPointInfo, ReportPart, Run
from nvaudit.report.wording import count_text


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
    exact: int = Field(default=0, ge=0, description="Devices that were measured exactly at their targets.")
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


class MappedTensorRow(ReportPart):
    """One tensor on crossbars."""

    name: str
    weights: int = Field(ge=0)
    devices_per_weight: int = Field(ge=1)
    crossbars: int = Field(ge=0)
    devices: int = Field(ge=0)
    outliers: int | None = Field(
        default=None, ge=1, description="Weights that are digital beside the array; null without any."
    )
    verify: int | None = Field(description="Devices to write-verify; null without a plan.")
    encoding: str
    significances: tuple[float, ...] = Field(description="Of the devices of a weight, most first.")
    folder: str = Field(description="Of its crossbars' files.")


class Reassembly(ReportPart):
    """What putting the arrays together again shows."""

    tensors: int = Field(ge=0, description="Whose weights are those of the quantised model, bit for bit.")
    weights: int = Field(ge=0)
    samples: int = Field(ge=0, description="Run through both models.")
    outputs: int = Field(ge=0, description="Numbers that were compared.")
    different: int = Field(ge=0, description="Of these that differ in any bit.")
    digital_part: float | None = Field(
        default=None,
        description="Largest difference between the outputs of the model and those of digital.onnx given the "
        "products, over the largest output: rounding. Null where it was not run.",
    )
    faults: tuple[str, ...] = Field(description="What is wrong with the files; empty: nothing.")

    @property
    def holds(self) -> bool:
        """Whether the arrays compute what the quantised model computes."""
        return not self.faults and not self.different


class MapReport(Header):
    """A model on crossbars; written by ``nvaudit map``."""

    kind: Literal["map"] = "map"
    model: ModelInfo
    device: dict[str, JsonValue]
    operating_point: OperatingPointInfo
    run: Run = Field(description="The full specification of an audit of the same mapping.")
    folder: str
    crossbar: tuple[int, int] = Field(description="Rows and columns.")
    unit: str = Field(description="Of the conductances: us, na, or level where the profile has no window.")
    format: str
    chips: int = Field(ge=0, description="Simulated chips that were written instead of targets.")
    bytes: int = Field(ge=0, description="Of all files.")
    tensors: tuple[MappedTensorRow, ...]
    digital: int = Field(ge=0, description="Tensors that stay digital.")
    check: Reassembly | None = Field(default=None, description="Null where arrays were written.")


def tables(report: MapReport) -> Tables:
    """Every tensor on the array."""
    return {"tensors": records_of(flat(tensor) for tensor in report.tensors)}


def checks(report: MapReport) -> list[Check]:
    """Whether the arrays compute what the quantised model computes."""
    reassembly = report.check
    if reassembly is None:
        return [Check("mapping written", None, (report.headline,), {"bytes": report.bytes})]
    return [Check("arrays compute the quantised model", "pass" if reassembly.holds else "fail",
                  (report.headline, *reassembly.faults))]  # fmt: skip


def reassembly_text(reassembly: Reassembly) -> str:
    """Say in a line what a check found."""
    if reassembly.faults:
        return f"{count_text(len(reassembly.faults), 'fault')}, the first: {reassembly.faults[0]}"
    if reassembly.different:
        share = f"{reassembly.different:,} of {reassembly.outputs:,} outputs"
        return f"{share} differ from those of the quantised model"
    same = f"{count_text(reassembly.weights, 'weight')} of {count_text(reassembly.tensors, 'tensor')}"
    ran = f" and {count_text(reassembly.outputs, 'output')} of {count_text(reassembly.samples, 'sample')}"
    return f"{same}{ran if reassembly.samples else ''} are those of the quantised model, bit for bit"

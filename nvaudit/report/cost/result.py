"""What the hardware costs: what a report holds about it, by itself or beside an audit."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from nvaudit.report.header import Header
from nvaudit.report.records import RecordValue, Tables, records_of
from nvaudit.report.sections import ModelInfo, ReportPart
from nvaudit.report.wording import si_text

COMPONENT_NAMES = {
    "crossbar": "devices and word lines",
    "driver": "row drivers or DACs",
    "mux": "column multiplexers",
    "adc": "ADCs",
    "shift_add": "shift-and-add",
    "accumulator": "accumulators",
    "buffer": "buffers",
    "htree": "wires within tiles",
    "noc": "network between tiles",
    "digital": "digital operators",
    "static": "leakage and what is always on",
}
"""In the order in which they are shown."""


class CostPart(ReportPart):
    """A share of energy, latency and area; the shares of all components add up, as do those of all layers."""

    energy_j: float = Field(ge=0, description="Of one inference.")
    latency_s: float = Field(ge=0)
    area_m2: float = Field(ge=0)


class LayerCostInfo(CostPart):
    """One layer, which is one weight on the array; ``(chip)`` holds what belongs to none."""

    op: str
    edp_js: float = Field(ge=0)
    crossbars: int = Field(ge=0, description="Of all copies.")
    tiles: int = Field(ge=0)
    copies: int = Field(ge=1)
    conversions: float = Field(ge=0, description="Of its ADCs in one inference.")
    utilisation: float = Field(ge=0, le=1, description="Share of the devices of its crossbars in use.")
    components: dict[str, CostPart]


class CostTotals(CostPart):
    """The whole model."""

    edp_js: float = Field(ge=0, description="Energy of an inference times its latency.")
    interval_s: float = Field(ge=0, description="From one result to the next.")
    inferences_per_s: float = Field(ge=0)
    power_w: float = Field(ge=0, description="While inferences follow one another.")
    operations: float = Field(ge=0, description="2 × multiply-accumulates of an inference.")
    tops: float = Field(ge=0)
    tops_per_w: float = Field(ge=0)
    tops_per_mm2: float = Field(ge=0)
    utilisation: float = Field(ge=0, le=1, description="Share of the devices of all crossbars in use.")
    crossbars: int = Field(ge=0)
    tiles: int = Field(ge=0)
    conversions: float = Field(ge=0, description="Of all ADCs in one inference.")


class CostBand(ReportPart):
    """How far the numbers may be off."""

    factor: float = Field(ge=1, description="Absolute numbers hold within ×/÷ this.")
    ranking: float = Field(ge=0, description="Two designs of one technology that differ by less tie.")
    energy_j: tuple[float, float] = Field(description="Energy over and times the factor.")
    latency_s: tuple[float, float]
    area_m2: tuple[float, float]


class ChipEnergies(ReportPart):
    """Energy of an inference on simulated chips."""

    values: tuple[float, ...] = Field(min_length=2, description="Joules, in the order of the trials.")
    mean: float
    std: float = Field(ge=0)
    low: float
    high: float
    correlation: float | None = Field(
        default=None, ge=-1, le=1,
        description="With the metric of the same chips (Pearson); null where it was not measured on all of "
        "them, or does not vary.",
    )  # fmt: skip


class MeasuredEnergy(ReportPart):
    """Energy of an inference on a chip whose conductances were read back."""

    name: str = Field(description="Of the chip.")
    energy_j: float
    change: float = Field(description="Beyond the energy as programmed, as a share of it.")


class CostDesign(ReportPart):
    """The design point."""

    crossbar: tuple[int, int] = Field(description="Rows and columns.")
    adc_bits: int
    input_bits: int
    input_mode: Literal["bit_serial", "parallel", "pwm"]
    weight_bits: int
    cell_bits: int | None
    encoding: str
    copies: int
    pipelined: bool
    skip_zero_groups: bool


class CostInfo(ReportPart):
    """What a model costs at one design point."""

    technology: dict[str, JsonValue] = Field(description="The full technology profile, as it was used.")
    design: CostDesign
    totals: CostTotals
    components: dict[str, CostPart]
    layers: dict[str, LayerCostInfo]
    band: CostBand
    chips: ChipEnergies | None = Field(default=None, description="Null: not asked for.")
    measured_chips: tuple[MeasuredEnergy, ...] = Field(
        default=(), description="Chips that were read back; empty: none was given."
    )
    images: int = Field(ge=0, description="Samples that inputs were measured on; 0: assumed.")
    not_modelled: tuple[str, ...]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def technology_name(self) -> str:
        """Name of the technology."""
        return str(self.technology.get("name", "unnamed technology"))


class CostFigures(CostPart):
    """The cost of one of several models or numbers of levels, in short."""

    technology: str
    edp_js: float = Field(ge=0)
    factor: float = Field(ge=1, description="Absolute numbers hold within ×/÷ this.")


class CostReport(CostInfo, Header):
    """What a model costs in hardware; written by ``nvaudit cost``."""

    kind: Literal["cost"] = "cost"
    model: ModelInfo
    device: dict[str, JsonValue] = Field(description="The full device profile.")


def figures_of(info: CostInfo | None) -> CostFigures | None:
    """Give the cost in short; None where it was not asked for."""
    if info is None:
        return None
    totals = info.totals
    return CostFigures(
        energy_j=totals.energy_j,
        latency_s=totals.latency_s,
        area_m2=totals.area_m2,
        edp_js=totals.edp_js,
        technology=info.technology_name,
        factor=info.band.factor,
    )


def totals_text(info: CostInfo) -> str:
    """Give the main numbers in one line.

    The absolute ones carry their band wherever they stand.
    """
    totals = info.totals
    return (
        f"{si_text(totals.energy_j, 'J')} and {si_text(totals.latency_s, 's')} an inference, "
        f"{1e6 * totals.area_m2:.3g} mm² (×/÷ {info.band.factor:g})"
    )


def tables(report: CostReport) -> Tables:
    """The layers with the energy of every component, and the components."""
    return cost_tables(report)


def cost_tables(info: CostInfo) -> Tables:
    """As :func:`tables`."""
    layers = []
    for name, layer in info.layers.items():
        row: dict[str, RecordValue] = {"layer": name}
        row |= {key: value for key, value in layer.model_dump().items() if key != "components"}
        for part in COMPONENT_NAMES:
            row[f"{part}_energy_j"] = layer.components[part].energy_j if part in layer.components else 0.0
        layers.append(row)
    parts = [{"component": name, **part.model_dump()} for name, part in info.components.items()]
    records = {"layers": records_of(layers), "components": records_of(parts)}
    if info.chips is not None:
        chips = [{"trial": trial, "energy_j": value} for trial, value in enumerate(info.chips.values)]
        records["chips"] = records_of(chips)
    if info.measured_chips:
        records["measured_chips"] = records_of(chip.model_dump() for chip in info.measured_chips)
    return records

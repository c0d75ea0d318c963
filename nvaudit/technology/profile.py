"""The technology profile: one JSON file that says what the circuits around the devices take.

A block that may be missing is then not modelled, and reports say so.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from nvaudit.device.law import fault
from nvaudit.device.profile import Text
from nvaudit.device.terms import Slug
from nvaudit.technology.adc import Adc
from nvaudit.technology.quantity import (
    Capacitance,
    Duration,
    Energy,
    Factor,
    Footprint,
    Frequency,
    PositiveTally,
    Ratio,
    SensePower,
    Tally,
    TechnologyPart,
    Voltage,
    Wattage,
    WireEnergy,
)

InputMode: TypeAlias = Literal["bit_serial", "parallel", "pwm"]
"""How an input drives its row: bit after bit, as one voltage, or as one pulse of proportional length."""

MOST_PARTS = 64


class Hierarchy(TechnologyPart):
    """How crossbars are put together: crossbars make a PE, PEs a tile, tiles the chip.

    No tile holds crossbars of two layers. With a reference column each crossbar has one more column, of
    devices at g_min, whose sum is subtracted; it is used where g_min or an offset would add to the others.
    """

    crossbars_per_pe: PositiveTally
    pes_per_tile: PositiveTally
    reference_column: bool
    tiles: PositiveTally | None = Field(
        default=None, description="Of the chip as published; null: as many as needed."
    )


class CellCircuit(TechnologyPart):
    """One device with its access transistor."""

    area: Footprint
    wordline_capacitance: Capacitance | None = None
    access_resistance: Ratio | None = Field(
        default=None, description="Of the access transistor, in units of the on-resistance of the device."
    )
    read_energy: Energy | None = Field(
        default=None, description="Of one device in one cycle where no conductance is known."
    )


class SensePath(TechnologyPart):
    """Power of a column being read, for each siemens of its devices, with all of the path to the ADC."""

    power: SensePower
    voltage: Voltage = Field(description="The read voltage that it holds at; it goes with its square.")


class Readout(TechnologyPart):
    """Reading an array.

    ``selected``: only the columns that are being converted conduct, as long as a conversion takes; ``all``:
    every column conducts for the array's time and its sum is held.
    """

    conduction: Literal["selected", "all"]
    voltage: Voltage | None = None
    sense: SensePath | None = Field(default=None, description="Null: voltage² times the conductance.")
    settle: Duration | None = None
    cycle_factor: Ratio | None = Field(default=None, description="Of clock over conversion and settling.")
    array_time: Duration | None = None
    pulse_step: Duration | None = Field(default=None, description="One step of a pulse's length (pwm).")


class RowDriver(TechnologyPart):
    """What drives a row with one bit."""

    energy: Energy = Field(description="Of one row in one step of the column multiplexer, or one cycle.")
    area: Footprint
    per: Literal["step", "cycle"]
    level_shifter: Footprint | None = Field(default=None, description="Of one line: word, bit, source lines.")
    leakage: Wattage | None = Field(default=None, description="Of one line.")


class DacCircuit(TechnologyPart):
    """A row's multi-bit converter: energy C · bits · V² for each input."""

    capacitance: Capacitance
    area: Footprint | None = None


class SampleHold(TechnologyPart):
    """What holds a column's sum."""

    energy: Energy
    area: Footprint


class ColumnMux(TechnologyPart):
    """The columns that share an ADC; the select line's switch of each column is part of it."""

    columns_per_adc: PositiveTally
    area: Footprint | None = Field(default=None, description="Of one column.")
    select_area: Footprint | None = Field(default=None, description="Of one column's select line.")
    scan: Literal["all", "used"] = Field(
        default="all",
        description="What an ADC steps through: all columns that share it, or only as many as the fullest "
        "crossbar of the layer has in use.",
    )


class BitAdders(TechnologyPart):
    """Shift-and-add, and accumulators, from energies of one bit."""

    kind: Literal["bits"]
    add: Energy
    register_bit: Energy
    weight_area: Footprint = Field(description="Of what adds the slices of a weight; one for each ADC.")
    input_area: Footprint = Field(description="Of what adds the bits of an input; one for each ADC.")
    leakage: Wattage | None = Field(default=None, description="Of one of both.")


class ConversionAdders(TechnologyPart):
    """Shift-and-add by a fixed energy for each conversion."""

    kind: Literal["conversion"]
    energy: Energy
    area: Footprint
    per_pe: PositiveTally = Field(description="Units of a PE.")


class BufferCircuit(TechnologyPart):
    """Where activations and partial sums wait.

    An input is written to and read from ``levels`` buffers on its way to a crossbar (chip, tile, PE), a
    partial sum from one.
    """

    read: Energy
    write: Energy
    levels: Tally
    area: Footprint | None = Field(default=None, description="Of one bit; null: in the fixed parts.")
    leakage: Wattage | None = Field(default=None, description="Of one bit.")
    input_register: Energy | None = Field(default=None, description="Of one bit of a row in one cycle.")
    output_register: Energy | None = Field(default=None, description="Of a PE in one cycle.")
    bus: Energy | None = Field(default=None, description="Of one bit within a tile.")
    width: PositiveTally | None = Field(
        default=None, description="Bits that the buffer of a tile gives in one cycle at most."
    )


class TreeWires(TechnologyPart):
    """The H-tree that inputs take from the entrance of a tile to its crossbars, and partial sums back."""

    bit: WireEnergy


class Mesh(TechnologyPart):
    """The network between tiles: a mesh with X-Y routing."""

    flit: PositiveTally
    clock: Frequency
    hop: Tally
    enqueue: Tally | None = None
    router: Energy = Field(description="Of one flit through one router.")
    link: WireEnergy | None = None
    router_area: Footprint | None = None
    most_flits: Frequency | None = Field(default=None, description="That a router passes on at most.")
    tiles_per_router: PositiveTally | None = None


class DigitalUnits(TechnologyPart):
    """Arithmetic beside the array: one bit of an adder, one of a b × b multiplier, and so on."""

    add_bit: Energy
    multiply_bit: Energy = Field(description="Of one of the b² bit products of a multiplication.")
    compare_bit: Energy
    lanes: PositiveTally = Field(description="Operations that a tile makes in one cycle.")
    clock: Frequency
    area: Footprint | None = Field(default=None, description="Of one lane.")


class FixedPart(TechnologyPart):
    """A part that a PE, a tile or the chip has, whatever runs."""

    name: Slug
    place: Literal["pe", "tile", "chip"]
    power: Wattage | None = None
    area: Footprint | None = None


class Uncertainty(TechnologyPart):
    """How far numbers may be off: absolute ones by a factor, a ranking within the profile by a share."""

    absolute: Factor
    ranking: Ratio


class Technology(TechnologyPart):
    """The circuits around the devices: what a conversion, a shift or a hop takes, and how large it is."""

    schema_version: Literal[1]
    kind: Literal["technology"]
    name: Slug
    description: Text
    valid_range: Text
    node_nm: Annotated[float, Field(gt=0, le=1000)]
    input_mode: InputMode = Field(description="How inputs drive rows where nothing else is asked for.")
    hierarchy: Hierarchy
    supply: Voltage | None = None
    cell: CellCircuit
    read: Readout
    row_driver: RowDriver
    dac: DacCircuit | None = Field(default=None, description="Needed for parallel inputs.")
    sample_hold: SampleHold | None = None
    mux: ColumnMux
    adc: Adc = Field(discriminator="kind")
    shift_add: BitAdders | ConversionAdders = Field(discriminator="kind")
    buffer: BufferCircuit | None = None
    htree: TreeWires | None = None
    noc: Mesh | None = None
    digital: DigitalUnits | None = None
    fixed: tuple[FixedPart, ...] = Field(default=(), max_length=MOST_PARTS)
    band: Uncertainty

    @model_validator(mode="after")
    def _consistent(self) -> Technology:
        read = self.read
        if read.conduction == "all" and read.array_time is None:
            raise fault("read.array_time", "missing where all columns conduct; add it")
        if read.conduction == "selected" and (read.settle is None or read.cycle_factor is None):
            raise fault("read.settle", "missing, or read.cycle_factor is, where selected columns conduct")
        if read.voltage is None and read.sense is not None:
            raise fault("read.voltage", "missing where 'sense' goes with its square; add it")
        if self.supply is None and (self.dac is not None or self.cell.wordline_capacitance is not None):
            raise fault("supply", "missing where a capacitance is charged to it; add it")
        names = [part.name for part in self.fixed]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise fault(f"fixed.{index}.name", f"{name!r} is used twice; give each part its own name")
        return self

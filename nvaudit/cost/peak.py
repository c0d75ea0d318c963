"""What parts of a chip take and do when everything is in use: the numbers that data sheets have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nvaudit.cost.area import tile_of
from nvaudit.cost.crossbars import (
    ReadCycle,
    adding_energy,
    conversion_energy,
    count_layer,
    driver_energy,
    read_of,
    wordline_energy,
)
from nvaudit.cost.inputs import assumed_inputs
from nvaudit.cost.workload import CostLayer, occupancy_of
from nvaudit.device import DeviceProfile
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.tiling import Crossbar, Lines, device_columns
from nvaudit.model.roles import CrossbarMatrix
from nvaudit.technology import Technology


@dataclass(frozen=True)
class Peak:
    """A part of the chip: watts, square metres, and operations a second."""

    name: str
    power_w: float
    area_m2: float
    operations_per_s: float


def peaks_of(
    technology: Technology, device: DeviceProfile, size: Crossbar, adc_bits: int, input_bits: int
) -> tuple[Peak, ...]:
    """One PE, one tile, and the chip where its tiles are known.

    Devices are those of the profile's own cells, all in use, none in a reference column; where the technology
    states no energy of a device's read they take nothing here.
    """
    read = read_of(technology, size, technology.input_mode, input_bits, adc_bits)
    array = layout(device, bits=device.weight_bits, cell_bits=device.cell_bits, encoding=device.encoding)
    each = device_columns(array)
    outputs = size.cols // each
    layer = CostLayer(
        "peak", "", np.zeros((size.rows, outputs), np.int16), CrossbarMatrix(1, size.rows, outputs),
        Lines((1,), size.rows, outputs), 1.0, 0.0, assumed_inputs([input_bits], "peak"),
    )  # fmt: skip
    occupied = occupancy_of(layer, size.rows)
    counts = count_layer(occupied, array, size, reference=False)
    seconds = read.planes * read.cycle
    cells = technology.cell.read_energy
    crossbar = driver_energy(read, layer, counts, occupied) + conversion_energy(read, layer, counts, occupied)
    crossbar += wordline_energy(read, layer, counts, occupied)
    crossbar += 0.0 if cells is None else cells.si * counts.devices * read.planes
    crossbar += adding_energy(read, array, counts)
    hold, buffer = technology.sample_hold, technology.buffer
    crossbar += 0.0 if hold is None else hold.energy.si * counts.columns * read.planes
    if buffer is not None and buffer.input_register is not None:
        crossbar += buffer.input_register.si * size.rows * read.planes
    tile = tile_of(read, array, reference=False)
    in_pe, pes = technology.hierarchy.crossbars_per_pe.count, technology.hierarchy.pes_per_tile.count
    operations = 2.0 * size.rows * outputs / seconds
    watts = in_pe * crossbar / seconds
    if buffer is not None and buffer.output_register is not None:
        watts += buffer.output_register.si / read.cycle
    one_pe = Peak("PE", watts, tile.inner_area / pes, in_pe * operations)
    watts = pes * one_pe.power_w + tile.watts + _moving(technology, read)
    one_tile = Peak("tile", watts, tile.area, pes * one_pe.operations_per_s)
    tiles = technology.hierarchy.tiles
    if tiles is None:
        return one_pe, one_tile
    standing = [part for part in technology.fixed if part.place == "chip"]
    chip = Peak(
        f"chip of {tiles.count} tiles",
        tiles.count * watts + sum(part.power.si for part in standing if part.power is not None),
        tiles.count * tile.area + sum(part.area.si for part in standing if part.area is not None),
        tiles.count * one_tile.operations_per_s,
    )
    return one_pe, one_tile, chip


def _moving(technology: Technology, read: ReadCycle) -> float:
    """Watts of a tile's buffer, bus and share of a router at their full width; 0 where that is not stated."""
    watts, buffer, noc = 0.0, technology.buffer, technology.noc
    if buffer is not None and buffer.width is not None:
        each = buffer.read.si + (0.0 if buffer.bus is None else buffer.bus.si)
        watts += buffer.width.count * each / read.cycle
    if noc is not None and noc.most_flits is not None:
        shared = 1 if noc.tiles_per_router is None else noc.tiles_per_router.count
        watts += noc.router.si * noc.most_flits.si / shared
    return watts

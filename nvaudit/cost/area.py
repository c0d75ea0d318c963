"""Area of crossbars, PEs and tiles, and what they take while nothing happens."""

from __future__ import annotations

from dataclasses import dataclass

from nvaudit.cost.crossbars import ReadCycle, sum_bits
from nvaudit.mapping.conductance import DeviceArray
from nvaudit.technology import Technology
from nvaudit.technology.profile import BitAdders


@dataclass(frozen=True)
class Standing:
    """What one tile is and takes by itself.

    Attributes
    ----------
    areas : dict of str to float
        Square metres, by component.
    watts : float
        Leakage, and what is always on.
    inner_area : float
        Of its PEs alone.
    """

    areas: dict[str, float]
    watts: float
    inner_area: float = 0.0

    @property
    def area(self) -> float:
        """All of it."""
        return sum(self.areas.values())


def crossbars_of_tile(technology: Technology) -> int:
    """Crossbars that a tile holds."""
    return technology.hierarchy.crossbars_per_pe.count * technology.hierarchy.pes_per_tile.count


def tile_of(read: ReadCycle, array: DeviceArray, *, reference: bool) -> Standing:
    """One tile with all that stands in it.

    Parameters
    ----------
    array : DeviceArray
        How weights lie in devices: partial sums that wait are as wide and many as it makes them.
    reference : bool
        Whether crossbars have a reference column.
    """
    technology = read.technology
    crossbars = crossbars_of_tile(technology)
    pes = technology.hierarchy.pes_per_tile.count
    areas = {name: crossbars * area for name, area in _crossbar_areas(read, reference=reference).items()}
    watts = crossbars * _crossbar_leakage(read)
    if not isinstance(technology.shift_add, BitAdders):
        areas["shift_add"] = pes * technology.shift_add.per_pe.si * technology.shift_add.area.si
    else:
        # One accumulator for each ADC of a crossbar in every PE, as wide as what adds the input's bits.
        areas["accumulator"] = pes * read.adcs * technology.shift_add.input_area.si
    areas["buffer"] = 0.0
    buffer = technology.buffer
    if buffer is not None and buffer.area is not None:
        # PE and tile each hold what all their crossbars take and give at a time.
        waiting = read.size.rows * read.input_bits + read.size.cols / array.slices * sum_bits(read, array)
        bits = min(2, max(0, buffer.levels.count - 1)) * crossbars * waiting
        areas["buffer"] = bits * buffer.area.si
        watts += 0.0 if buffer.leakage is None else bits * buffer.leakage.si
    inner = sum(areas.values())
    areas["noc"] = 0.0
    if technology.noc is not None and technology.noc.router_area is not None:
        shared = technology.noc.tiles_per_router
        areas["noc"] = technology.noc.router_area.si / (1 if shared is None else shared.count)
    areas["digital"] = 0.0
    if technology.digital is not None and technology.digital.area is not None:
        areas["digital"] = technology.digital.area.si * technology.digital.lanes.count
    for part in technology.fixed:
        if part.place == "chip":
            continue
        number = pes if part.place == "pe" else 1
        area = 0.0 if part.area is None else number * part.area.si
        areas["buffer"] += area
        inner += area if part.place == "pe" else 0.0
        watts += 0.0 if part.power is None else number * part.power.si
    return Standing(areas, watts, inner)


def _crossbar_areas(read: ReadCycle, *, reference: bool) -> dict[str, float]:
    """One crossbar with what stands at its edges."""
    technology, size = read.technology, read.size
    rows, cols = size.rows, size.cols + (1 if reference else 0)
    driver, mux, hold = technology.row_driver, technology.mux, technology.sample_hold
    # Word lines, and a bit and a select line for each column, are driven above the supply of the logic.
    shifters = 0.0 if driver.level_shifter is None else (rows + 2 * cols) * driver.level_shifter.si
    drivers = rows * driver.area.si
    if read.mode == "parallel" and technology.dac is not None and technology.dac.area is not None:
        drivers = rows * technology.dac.area.si
    select = 0.0 if mux.select_area is None else cols * mux.select_area.si
    areas = {
        "crossbar": rows * cols * technology.cell.area.si,
        "driver": drivers + shifters + select,
        "mux": 0.0 if mux.area is None else cols * mux.area.si,
        "adc": read.adcs * technology.adc.footprint(read.adc_bits),
    }
    if hold is not None:
        areas["mux"] += cols * hold.area.si
    adders = technology.shift_add
    if isinstance(adders, BitAdders):
        areas["shift_add"] = read.adcs * (adders.weight_area.si + adders.input_area.si)
    return areas


def _crossbar_leakage(read: ReadCycle) -> float:
    technology = read.technology
    driver, adders = technology.row_driver, technology.shift_add
    watts = 0.0
    if driver.leakage is not None:
        watts += (read.size.rows + 2 * read.size.cols) * driver.leakage.si
    if isinstance(adders, BitAdders) and adders.leakage is not None:
        watts += read.adcs * adders.leakage.si
    return watts

"""Energy and time of the crossbars of one layer, and of what stands at their edges.

With V the read voltage, G_ij the conductances of row i, and m_i the moment of the row's input
(:mod:`nvaudit.cost.inputs`), reading takes for each input vector::

    bit by bit      κ t Σ_i m_i Σ_j G_ij       for all bits together; t: time that a column conducts for a bit
    as a voltage    κ t Σ_i m_i Σ_j G_ij
    as a pulse      κ t_step (2^b − 1) Σ_i m_i Σ_j G_ij

κ is V², or the fitted power of the whole sense path. Sums of the conductances come from the codes: a weight
of value v has devices of G(v) together, so ``Σ_i m_i Σ_j G_ij = Σ_v G(v) Σ_ij m_i [c_ij = v]``.

References
----------
NeuroSim V1.3 (SubArray.cpp, SarADC.cpp); Shafiee et al., ISAAC, ISCA 2016; docs/cost.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.cost.workload import CostLayer, Occupancy, QuantisedCodes
from nvaudit.device import DeviceProfile
from nvaudit.errors import OptionError
from nvaudit.mapping.conductance import DeviceArray, held_levels
from nvaudit.mapping.tiling import Crossbar, device_columns, side_by_side
from nvaudit.technology import InputMode, Technology
from nvaudit.technology.profile import BitAdders


@dataclass(frozen=True)
class Conductances:
    """What levels are in siemens.

    Attributes
    ----------
    low, high : float
        Of level 0 and of the top level.
    access : float
        Ohms in series with each device.
    """

    low: float
    high: float
    access: float

    def of_level(self, level: NDArray[np.floating] | NDArray[np.integer], array: DeviceArray) -> Floats:
        """Conductance with the access transistor, ``1 / (1/G + R)``; a level need not be whole."""
        g = np.maximum(self.low + level * ((self.high - self.low) / array.top_level), 0.0)
        return np.asarray(g / (1.0 + g * self.access), np.float64)

    def of_values(self, peak: int, array: DeviceArray) -> Floats:
        """All devices of a weight together, for each value from −peak to peak."""
        return _of_values(self, peak, array)


@lru_cache(maxsize=256)
def _of_values(levels: Conductances, peak: int, array: DeviceArray) -> Floats:
    values = np.arange(-peak, peak + 1)
    total = np.zeros(values.shape)
    for held in held_levels(values, array):
        total += levels.of_level(held.level, array)
    total.flags.writeable = False
    return total


def conductances(
    device: DeviceProfile, technology: Technology, g_max_us: float | None, on_off: float | None
) -> Conductances | None:
    """What the levels of a device are in siemens; None where nothing says it.

    Raises
    ------
    OptionError
        If the options contradict the profile, or one of the two is missing.
    """
    window, volts = device.window, technology.read.voltage
    asked = (("--g-max-us", g_max_us), ("--on-off", on_off))
    if window is not None:
        for option, value in asked:
            if value is not None:
                raise OptionError(
                    f"{option}: {device.name} states its conductances ({window.min:g} … {window.max:g} "
                    f"{'µS' if window.unit == 'us' else 'nA'}); leave it out"
                )
        if window.unit == "us":
            low, high = window.min * 1e-6, window.max * 1e-6
        elif volts is None:
            return None
        else:  # a current read at the technology's voltage
            low, high = window.min * 1e-9 / volts.si, window.max * 1e-9 / volts.si
    elif g_max_us is None and on_off is None:
        return None
    else:
        for option, value in asked:
            if value is None:
                raise OptionError(
                    f"{option}: missing; {device.name} states levels only, which need both --g-max-us and "
                    "--on-off"
                )
        assert g_max_us is not None
        assert on_off is not None
        low, high = g_max_us * 1e-6 / on_off, g_max_us * 1e-6
    ratio = technology.cell.access_resistance
    return Conductances(low, high, 0.0 if ratio is None else ratio.si / high)


@dataclass(frozen=True)
class ReadCycle:
    """How crossbars of a technology are read at a design point; energies in joules, times in seconds.

    Attributes
    ----------
    planes : int
        Reads of an input vector: one for each bit, or one.
    steps : int
        Conversions of an ADC in one of them: columns that share it.
    conducts, converts : float
        Time that a column conducts in one, and that a conversion takes.
    adcs : int
        Of a crossbar.
    """

    technology: Technology
    size: Crossbar
    mode: InputMode
    input_bits: int
    adc_bits: int
    planes: int
    steps: int
    conducts: float
    converts: float
    adcs: int

    @property
    def cycle(self) -> float:
        """Time from one read to the next."""
        read = self.technology.read
        if read.conduction == "all" or self.mode == "pwm":
            # Columns integrate while the array is read, and are converted from what they hold.
            return max(self.conducts, self.steps * self.converts)
        assert read.cycle_factor is not None
        assert read.settle is not None
        return self.steps * read.cycle_factor.si * (self.converts + read.settle.si)

    def of_layer(self, counts: LayerCounts) -> ReadCycle:
        """How crossbars of a layer are read: where unused columns are skipped, in fewer steps."""
        if self.technology.mux.scan == "all":
            return self
        return replace(self, steps=max(1, math.ceil(counts.fullest / self.adcs)))


def read_of(
    technology: Technology, size: Crossbar, mode: InputMode, input_bits: int, adc_bits: int
) -> ReadCycle:
    """Settle how crossbars are read.

    Raises
    ------
    OptionError
        If the technology does not know such an ADC or such inputs.
    """
    technology.adc.check(adc_bits)
    read = technology.read
    if mode == "parallel" and technology.dac is None:
        raise OptionError(f"--input-mode parallel: {technology.name} has no multi-bit DAC ('dac'); add it")
    if mode == "pwm" and (read.pulse_step is None or read.voltage is None):
        raise OptionError(
            f"--input-mode pwm: {technology.name} has no 'read.pulse_step' or no voltage; add it"
        )
    if mode == "parallel" and read.voltage is None and technology.cell.read_energy is None:
        raise OptionError(f"--input-mode parallel: {technology.name} has no read voltage; add it")
    shared = min(technology.mux.columns_per_adc.count, size.cols)
    convert = technology.adc.time(adc_bits, size.rows)
    conducts = convert
    if mode == "pwm":
        assert read.pulse_step is not None
        conducts = read.pulse_step.si * (2**input_bits - 1)
    elif read.conduction == "all":
        assert read.array_time is not None
        conducts = read.array_time.si
    planes = input_bits if mode == "bit_serial" else 1
    return ReadCycle(
        technology, size, mode, input_bits, adc_bits, planes, shared, conducts, convert,
        math.ceil(size.cols / shared),
    )  # fmt: skip


@dataclass(frozen=True)
class LayerCounts:
    """A layer on crossbars: what there is of each thing, for one input vector of every matrix.

    Attributes
    ----------
    crossbars : int
        Of one copy of the layer.
    columns : float
        Device columns in use, reference columns with them, over all row blocks.
    sums : float
        Weight columns, of both polarities, over all row blocks.
    devices : int
        In use, without reference columns.
    fullest : int
        Columns in use in the fullest crossbar, its reference column with them.
    """

    crossbars: int
    columns: float
    sums: float
    devices: int
    fullest: int
    by_block: NDArray[np.int64]
    crossbars_of_block: NDArray[np.int64]


def count_layer(occupied: Occupancy, array: DeviceArray, size: Crossbar, *, reference: bool) -> LayerCounts:
    """Count what a layer fills; crossbars as :mod:`nvaudit.mapping.tiling` does."""
    columns = occupied.outputs * device_columns(array)  # (block, group)
    across = np.asarray(side_by_side(columns, size))
    used = columns.sum(axis=1) + (across.sum(axis=1) if reference else 0)
    return LayerCounts(
        crossbars=int(across.sum()),
        columns=float(used.sum()),
        sums=float(occupied.outputs.sum() * array.polarities),
        devices=int((columns.sum(axis=1) * occupied.rows).sum()),
        fullest=min(int(columns.max(initial=0)) + reference, size.cols),
        by_block=used,
        crossbars_of_block=across.sum(axis=1),
    )


def needs_reference(technology: Technology, array: DeviceArray, levels: Conductances | None) -> bool:
    """Whether a column's sum holds something that a reference column must take off again."""
    if not technology.hierarchy.reference_column or array.polarities == 2:
        return False
    return array.encoding == "offset" or array.code.zero > 0 or (levels is not None and levels.low > 0)


def reading_energy(
    read: ReadCycle,
    one: QuantisedCodes,
    counts: LayerCounts,
    occupied: Occupancy,
    device: DeviceProfile,
    levels: Conductances | None,
    *,
    zero_groups: bool,
) -> float | None:
    """Joules that devices take for one vector of every matrix; None where nothing says it."""
    technology = read.technology
    array = one.array(device)
    per_siemens = power_per_siemens(technology)
    if levels is None or per_siemens is None:
        fallback = technology.cell.read_energy
        return None if fallback is None else fallback.si * counts.devices * read.planes
    by_value = levels.of_values(one.peak, array)
    total = float(by_value @ one.driven(device, read.mode, read.input_bits))
    if zero_groups:
        gone = one.driven_in_zero_groups(device, read.mode, read.input_bits, read.size.rows)
        total -= float(by_value[one.peak]) * gone
    if needs_reference(technology, array, levels):
        total += reference_sum(one.layer, counts, occupied, read, levels, array)
    return per_siemens * read.conducts * total


def power_per_siemens(technology: Technology) -> float | None:
    """Watts for each siemens that conducts: V², or that of the fitted sense path."""
    read = technology.read
    if read.voltage is None:
        return None
    if read.sense is None:
        return read.voltage.si**2
    return read.sense.power.si * (read.voltage.si / read.sense.voltage.si) ** 2


def reference_sum(
    layer: CostLayer,
    counts: LayerCounts,
    occupied: Occupancy,
    read: ReadCycle,
    levels: Conductances,
    array: DeviceArray,
) -> float:
    """``Σ_i m_i G`` of the reference columns, one in each crossbar, all devices at g_min."""
    lowest = float(levels.of_level(np.zeros(1), array)[0])
    return lowest * float(driven_rows(layer, occupied, read) @ counts.crossbars_of_block)


def driven_rows(layer: CostLayer, occupied: Occupancy, read: ReadCycle) -> Floats:
    """Moments of the inputs of each row block, added up over its rows; the mean of matrices side by side."""
    drive = layer.inputs.drive(read.mode, read.input_bits)
    return _by_block(drive[:, :, None], occupied)[:, 0]


def _by_block(statistic: Floats, occupied: Occupancy) -> Floats:
    """Sum of a statistic over the rows of each block; from (matrix, row, k) to (block, k)."""
    rows = int(occupied.rows.sum())
    mean = statistic if statistic.shape[0] == 1 else statistic.mean(axis=0, keepdims=True)
    if mean.shape[1] == 1:
        return np.asarray(occupied.rows[:, None] * mean[0])
    repeats = rows // mean.shape[1]
    full = np.tile(mean[0], (repeats, 1)) if repeats > 1 else mean[0]
    starts = np.concatenate([[0], np.cumsum(occupied.rows)[:-1]]).astype(np.int64)
    return np.asarray(np.add.reduceat(full, starts, axis=0))


def conversion_energy(read: ReadCycle, layer: CostLayer, counts: LayerCounts, occupied: Occupancy) -> float:
    """Joules of the ADCs for one vector of every matrix.

    A crossbar none of whose rows is driven in a read, as by the upper bits of small inputs, has less to
    convert: with rows taken as independent that happens with probability ``Π_i (1 − p_ik)``.
    """
    adc = read.technology.adc
    full, idle = adc.energy(read.adc_bits), adc.idle_energy(read.adc_bits)
    if read.planes == 1 or full == idle:
        return counts.columns * read.planes * full
    densities = layer.inputs.densities[read.input_bits]
    with np.errstate(divide="ignore"):
        nobody = np.exp(_by_block(np.log1p(-np.minimum(densities, 1.0)), occupied))  # (block, plane)
    quiet = float(counts.by_block @ nobody.sum(axis=1))
    return full * (counts.columns * read.planes - quiet) + idle * quiet


def driver_energy(read: ReadCycle, layer: CostLayer, counts: LayerCounts, occupied: Occupancy) -> float:
    """Joules of the row drivers, or DACs, for one vector of every matrix.

    The drivers of all rows of a crossbar are clocked; DACs only where a row is in use.
    """
    technology = read.technology
    if read.mode == "parallel":
        assert technology.dac is not None
        assert technology.supply is not None
        # C · b · V² for each input that is converted.
        each = technology.dac.capacitance.si * read.input_bits * technology.supply.si**2
        return each * float(occupied.rows @ counts.crossbars_of_block)
    steps = read.steps if technology.row_driver.per == "step" else 1
    return technology.row_driver.energy.si * read.size.rows * counts.crossbars * read.planes * steps


def wordline_energy(read: ReadCycle, layer: CostLayer, counts: LayerCounts, occupied: Occupancy) -> float:
    """Joules that word lines take: every driven row is charged over all columns at each step."""
    cell, supply = read.technology.cell, read.technology.supply
    if cell.wordline_capacitance is None or supply is None:
        return 0.0
    each = cell.wordline_capacitance.si * read.size.cols * supply.si**2
    if read.mode == "bit_serial":
        active = driven_rows(layer, occupied, read)
    else:  # word lines of all rows in use are open while their inputs are on the other lines
        active = occupied.rows.astype(np.float64)
    steps = read.steps if read.technology.read.conduction == "selected" else 1
    return each * steps * float(active @ counts.crossbars_of_block)


def sum_bits(read: ReadCycle, array: DeviceArray) -> int:
    """Bits of what a row block gives: the ADC's, with the slices' and the input bits' shifts."""
    return read.adc_bits + array.slices + (read.planes if read.planes > 1 else 0)


def adding_energy(read: ReadCycle, array: DeviceArray, counts: LayerCounts) -> float:
    """Joules of shifting and adding slices and input bits, for one vector of every matrix.

    A stage that adds n numbers of B bits makes B additions of a bit and sets B + n bits of its register: the
    weight's once a conversion with B = N, n = slices; the input's once a sum and bit, B = N + slices.
    """
    adders = read.technology.shift_add
    if not isinstance(adders, BitAdders):
        return adders.energy.si * counts.columns * read.planes
    slices, bits = array.slices, read.adc_bits
    add, register = adders.add.si, adders.register_bit.si
    total = 0.0
    if slices > 1:
        total += counts.columns * read.planes * (bits * add + (bits + slices) * register)
    if read.planes > 1:
        wide = bits + slices
        total += counts.sums * read.planes * (wide * add + (wide + read.planes) * register)
    return total


def accumulating_energy(read: ReadCycle, array: DeviceArray, occupied: Occupancy) -> float:
    """Joules of adding up the row blocks of every output, for one vector: one bit wider at each level."""
    adders = read.technology.shift_add
    if not isinstance(adders, BitAdders):
        return 0.0  # its shift-and-add units do that too
    add, register = adders.add.si, adders.register_bit.si
    total = 0.0
    for blocks, outputs in enumerate(occupied.added):
        left, wide = blocks, sum_bits(read, array)
        while left > 1 and outputs:
            pairs = left // 2
            total += float(outputs) * array.polarities * pairs * (wide * add + (wide + 1) * register)
            left, wide = left - pairs, wide + 1
    return total

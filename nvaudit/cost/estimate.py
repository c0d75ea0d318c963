"""Energy, latency and area of a model at one design point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

from nvaudit.cost.area import Standing, crossbars_of_tile, tile_of
from nvaudit.cost.crossbars import (
    LayerCounts,
    ReadCycle,
    accumulating_energy,
    adding_energy,
    conductances,
    conversion_energy,
    count_layer,
    driver_energy,
    needs_reference,
    read_of,
    reading_energy,
    sum_bits,
    wordline_energy,
)
from nvaudit.cost.design import COMPONENTS, DesignPoint, HardwareCost, LayerCost, Part
from nvaudit.cost.inputs import ASSUMPTION
from nvaudit.cost.mesh import MeshLoad, TileMesh, queueing
from nvaudit.cost.workload import CostLayer, ModelWorkload, Occupancy, QuantisedCodes, quantised
from nvaudit.errors import OptionError
from nvaudit.mapping.conductance import DeviceArray
from nvaudit.model.macs.steps import INPUT, Arithmetic
from nvaudit.technology import Technology

DIGITAL_BITS = 8
"""Width of activations beside the array, at least; products are added up in ``SUM_BITS``."""

SUM_BITS = 32
MOST_UTILISED = 0.1
"""Share of the time that the busiest link may be in use before queueing is warned of."""


@dataclass
class _Placed:
    """A layer while it is costed."""

    layer: CostLayer
    one: QuantisedCodes
    array: DeviceArray
    occupied: Occupancy
    counts: LayerCounts
    copies: int
    first_tile: int = 0
    tiles: int = 0
    parts: dict[str, Part] = field(default_factory=dict)
    analog_s: float = 0.0
    digital_s: float = 0.0
    network_s: float = 0.0

    def part(self, name: str) -> Part:
        return self.parts.setdefault(name, Part())

    @property
    def latency_s(self) -> float:
        # Digital units work on what has been converted while the next vector is read.
        return max(self.analog_s, self.digital_s) + self.network_s


def cost_of(workload: ModelWorkload, technology: Technology, point: DesignPoint) -> HardwareCost:
    """Work out what a model costs at a design point.

    Parameters
    ----------
    workload : ModelWorkload
        Its cache keeps codes and their histograms for the next point; nothing else of it changes.

    Raises
    ------
    OptionError
        If the point is outside what the technology is known for, or options contradict each other.
    """
    return _Estimate(workload, technology, point).cost()


class _Estimate:
    """The steps of one estimate, and what they share."""

    def __init__(self, workload: ModelWorkload, technology: Technology, point: DesignPoint) -> None:
        self.workload, self.technology, self.point = workload, technology, point
        mode = point.input_mode or technology.input_mode
        if mode == "bit_serial" and point.input_bits not in workload.input_bits:
            measured = ", ".join(map(str, workload.input_bits))
            raise OptionError(
                f"input_bits {point.input_bits}: bit densities were measured for {measured} bits; "
                "measure the model for these too"
            )
        self.read = read_of(technology, point.crossbar, mode, point.input_bits, point.adc_bits)
        self.levels = conductances(point.device, technology, point.g_max_us, point.on_off)
        self.unread: list[str] = []
        self.outside = _Outside()

    def cost(self) -> HardwareCost:
        placed = self._place()
        tile = self._tile(placed)
        chip = self.workload.largest * self.point.input_bits  # of the buffer that holds it, in bits
        self._read(placed)
        self._work_digitally(placed)
        load = self._send(placed, tile)
        self._move_inside(placed, tile, chip)
        first = sum(one.latency_s for one in placed) + self.outside.latency_s
        steps = [one.latency_s for one in placed] + [self.outside.latency_s]
        interval = max(steps) if self.point.pipelined else first
        self._stand(placed, tile, chip, interval)
        return self._result(placed, first, interval, load)

    # -- where everything lies ------------------------------------------------------------------------

    def _place(self) -> list[_Placed]:
        point, most = self.point, max((layer.vectors for layer in self.workload.layers), default=0.0)
        placed, tile = [], 0
        for layer in self.workload.layers:
            one = quantised(self.workload, layer, point.device, point.placement)
            array = one.array(point.device)
            occupied = one.occupancy(point.device, point.crossbar.rows, zero_groups=point.skip_zero_groups)
            reference = needs_reference(self.technology, array, self.levels)
            counts = count_layer(occupied, array, point.crossbar, reference=reference)
            copies = max(1, math.ceil(point.copies * layer.vectors / most)) if most else 1
            made = _Placed(layer, one, array, occupied, counts, copies, tile)
            made.tiles = math.ceil(copies * counts.crossbars / crossbars_of_tile(self.technology))
            tile += made.tiles
            placed.append(made)
        return placed

    def _tile(self, placed: Sequence[_Placed]) -> Standing:
        """One tile; all are alike, so the layer with the widest sums decides what their buffers hold."""
        arrays = {one.array: None for one in placed}
        needed = any(needs_reference(self.technology, array, self.levels) for array in arrays)
        tiles = [tile_of(self.read, array, reference=needed) for array in arrays]
        return max(tiles, key=lambda tile: tile.area, default=Standing({}, 0.0))

    @property
    def tiles(self) -> int:
        """Of all layers."""
        return sum(one.tiles for one in self.placed)

    # -- what every input vector takes ----------------------------------------------------------------

    def _read(self, placed: list[_Placed]) -> None:
        self.placed = placed
        for one in placed:
            if not one.counts.crossbars:
                continue
            vectors, read = one.layer.vectors, self.read.of_layer(one.counts)
            self._read_array(one, read)
            one.part("driver").energy_j += vectors * driver_energy(read, one.layer, one.counts, one.occupied)
            one.part("adc").energy_j += vectors * conversion_energy(read, one.layer, one.counts, one.occupied)
            one.part("shift_add").energy_j += vectors * adding_energy(read, one.array, one.counts)
            one.part("accumulator").energy_j += vectors * accumulating_energy(read, one.array, one.occupied)
            hold = self.technology.sample_hold
            if hold is not None:
                one.part("mux").energy_j += vectors * hold.energy.si * one.counts.columns * read.planes
            # The last vector is still shifted and added when its last column has been converted: one vector
            # more fills the pipeline.
            one.analog_s = (vectors / one.copies + 1) * read.planes * read.cycle if vectors else 0.0

    def _read_array(self, one: _Placed, read: ReadCycle) -> None:
        point, vectors = self.point, one.layer.vectors
        energy = reading_energy(
            read, one.one, one.counts, one.occupied, point.device, self.levels,
            zero_groups=point.skip_zero_groups,
        )  # fmt: skip
        if energy is None:
            self.unread.append(one.layer.key)
        lines = wordline_energy(read, one.layer, one.counts, one.occupied)
        one.part("crossbar").energy_j += vectors * ((energy or 0.0) + lines)

    def _work_digitally(self, placed: list[_Placed]) -> None:
        units = self.technology.digital
        outliers = {place: one.layer.vectors * one.one.digital for place, one in enumerate(placed)}
        places = {*self.workload.arithmetic, *self.workload.multiply_adds}
        places |= {place for place, products in outliers.items() if products}
        if units is None:
            return
        width = max(DIGITAL_BITS, self.point.input_bits)
        for place in places:
            work = self.workload.arithmetic.get(place, Arithmetic())
            macs = self.workload.multiply_adds.get(place, 0.0) + outliers.get(place, 0.0)
            products = (work.multiplies + macs) * width**2 * units.multiply_bit.si
            sums = (work.adds * width + macs * SUM_BITS) * units.add_bit.si
            energy = products + sums + work.compares * width * units.compare_bit.si
            tiles = placed[place].tiles if place != INPUT else 1
            rate = units.lanes.count * max(1, tiles) * units.clock.si
            seconds = (work.total + 2 * macs) / rate
            if place == INPUT:
                self.outside.part("digital").energy_j += energy
                self.outside.latency_s += seconds
            else:
                placed[place].part("digital").energy_j += energy
                placed[place].digital_s = seconds

    # -- what moves -----------------------------------------------------------------------------------

    def _send(self, placed: list[_Placed], tile: Standing) -> MeshLoad | None:
        """Flits between tiles: what layers take from each other, and partial sums within a layer."""
        noc = self.technology.noc
        if noc is None or not self.tiles:
            return None
        mesh = TileMesh(self.tiles)
        spots = {place: mesh.where(one.first_tile, one.tiles) for place, one in enumerate(placed)}
        spots[INPUT] = mesh.where(0, 1)
        loads = []
        for source, target, bits in self._traffic(placed):
            load = mesh.load(spots[source], spots[target], math.ceil(bits / noc.flit.count))
            # A flit passes one router more than links.
            energy = (load.hops + load.flits) * noc.router.si
            if noc.link is not None:
                energy += load.hops * noc.flit.count * noc.link.si * math.sqrt(tile.area)
            seconds = self._transfer(load)
            if target == INPUT:
                self.outside.part("noc").energy_j += energy
                self.outside.latency_s += seconds
            else:
                placed[target].part("noc").energy_j += energy
                placed[target].network_s += seconds
            loads.append(load)
        return reduce(MeshLoad.plus, loads) if loads else None

    def _traffic(self, placed: Sequence[_Placed]) -> list[tuple[int, int, float]]:
        """Source, target and bits of everything that goes between tiles."""
        noc, traffic = self.technology.noc, []
        assert noc is not None
        each = crossbars_of_tile(self.technology)
        width = max(DIGITAL_BITS, self.point.input_bits)
        for flow in self.workload.flows:
            # Every tile that holds other columns of the same rows takes the same inputs.
            beside = 1
            if flow.target != INPUT and len(placed[flow.target].counts.crossbars_of_block):
                beside = math.ceil(int(placed[flow.target].counts.crossbars_of_block.max()) / each)
            # One flit of a packet says where it goes.
            traffic.append((flow.source, flow.target, flow.numbers * width * max(1, beside) + noc.flit.si))
        for place, one in enumerate(placed):
            tiles = math.ceil(one.counts.crossbars / each)
            beside = math.ceil(int(one.counts.crossbars_of_block.max(initial=0)) / each)
            below = math.ceil(tiles / max(1, beside))
            if below > 1:
                outputs = float(one.occupied.added[1:].sum()) * one.array.polarities
                bits = one.layer.vectors * outputs * sum_bits(self.read, one.array) * (below - 1)
                traffic.append((place, place, bits))
        return traffic

    def _transfer(self, load: MeshLoad) -> float:
        """Seconds until the last flit of a transfer has arrived."""
        noc = self.technology.noc
        assert noc is not None
        if not load.flits:
            return 0.0
        routers = load.hops / load.flits + 1
        enqueue = 0 if noc.enqueue is None else noc.enqueue.count
        # Routers are pipelined: the first flit takes all their stages, the others follow on the busiest link.
        return (routers * noc.hop.count + enqueue + load.busiest) / noc.clock.si

    def _move_inside(self, placed: list[_Placed], tile: Standing, chip_bits: float) -> None:
        """Buffers, and wires between a tile's entrance and its crossbars."""
        technology, read = self.technology, self.read
        buffer, tree = technology.buffer, technology.htree
        area = tile.area
        if technology.noc is None:  # no network: the tree reaches over the whole chip
            area = tile.area * max(1, self.tiles)
            if buffer is not None and buffer.area is not None:
                area += chip_bits * buffer.area.si
        # From the root of an H-tree to a leaf: half a side, and half of that at every second level: one side.
        length = math.sqrt(area)
        for one in placed:
            rows = one.layer.matrix.rows * one.layer.matrix.groups
            inputs = one.layer.vectors * rows * read.input_bits
            sums = one.layer.vectors * one.counts.sums * sum_bits(read, one.array)
            if buffer is not None:
                each = buffer.read.si + buffer.write.si
                energy = (inputs * buffer.levels.count + sums) * each
                reads = one.layer.vectors * one.counts.crossbars * read.planes
                if buffer.input_register is not None:
                    bits = 1 if read.mode == "bit_serial" else read.input_bits  # of a row, in one read
                    energy += reads * read.size.rows * buffer.input_register.si * bits
                if buffer.output_register is not None:
                    energy += reads / technology.hierarchy.crossbars_per_pe.count * buffer.output_register.si
                if buffer.bus is not None:
                    energy += (inputs + sums) * buffer.bus.si
                # Each vector meets every digital weight once.
                energy += one.layer.vectors * self._outlier_bits(one) * buffer.read.si
                one.part("buffer").energy_j += energy
            if tree is not None:
                one.part("htree").energy_j += (inputs + sums) * tree.bit.si * length

    # -- what stands ----------------------------------------------------------------------------------

    def _stand(self, placed: list[_Placed], tile: Standing, chip_bits: float, interval: float) -> None:
        for one in placed:
            for name, area in tile.areas.items():
                one.part(name).area_m2 += one.tiles * area
            one.part("static").energy_j += one.tiles * tile.watts * interval
            self._share_time(one)
        buffer = self.technology.buffer
        if buffer is not None and buffer.area is not None:
            for one in placed:
                bits = one.copies * self._outlier_bits(one)
                one.part("buffer").area_m2 += bits * buffer.area.si
                if buffer.leakage is not None:
                    one.part("static").energy_j += bits * buffer.leakage.si * interval
        if buffer is not None and buffer.area is not None:
            self.outside.part("buffer").area_m2 += chip_bits * buffer.area.si
            if buffer.leakage is not None:
                self.outside.part("static").energy_j += chip_bits * buffer.leakage.si * interval
        self.outside.part("noc").latency_s += self.outside.latency_s

    def _outlier_bits(self, one: _Placed) -> int:
        """What the buffer keeps of digital weights: of each its value and its row, column by column."""
        index = max(1, (one.layer.matrix.rows - 1).bit_length())
        return one.one.digital * (self.point.device.weight_bits + 1 + index)

    def _share_time(self, one: _Placed) -> None:
        """Say which component the time of a layer goes to."""
        one.part("noc").latency_s += one.network_s
        if one.digital_s > one.analog_s:
            one.part("digital").latency_s += one.digital_s
        else:
            reading = self.technology.read.array_time
            waits = reading is not None and self.read.of_layer(one.counts).cycle <= reading.si
            one.part("crossbar" if waits else "adc").latency_s += one.analog_s

    # -- the result -----------------------------------------------------------------------------------

    def _result(
        self, placed: list[_Placed], latency: float, interval: float, load: MeshLoad | None
    ) -> HardwareCost:
        layers = [
            LayerCost(
                name=one.layer.key,
                op=one.layer.op,
                crossbars=one.copies * one.counts.crossbars,
                tiles=one.tiles,
                copies=one.copies,
                conversions=one.layer.vectors * one.counts.columns * self.read.planes,
                utilisation=_share(one.counts.devices, one.counts.crossbars * self._devices),
                components=_in_order(one.parts),
            )
            for one in placed
        ]
        if any(part != Part() for part in self.outside.parts.values()):
            layers.append(LayerCost("(chip)", "", 0, 0, 1, 0.0, 0.0, _in_order(self.outside.parts)))
        components = {name: Part() for name in COMPONENTS}
        for layer in layers:
            for name, part in layer.components.items():
                components[name].add(part)
        crossbars = sum(one.copies * one.counts.crossbars for one in placed)
        devices = sum(one.copies * one.counts.devices for one in placed)
        return HardwareCost(
            layers=tuple(layers),
            components=components,
            latency_s=latency,
            interval_s=interval,
            operations=self.workload.operations,
            crossbars=crossbars,
            tiles=self.tiles,
            conversions=sum(layer.conversions for layer in layers),
            utilisation=_share(devices, crossbars * self._devices),
            factor=self.technology.band.absolute.si,
            ranking=self.technology.band.ranking.si,
            not_modelled=tuple(self._not_modelled()),
            assumptions=tuple(self._assumptions()),
            warnings=tuple(self._warnings(load, interval)),
        )

    @property
    def _devices(self) -> int:
        """Of a crossbar."""
        return self.point.crossbar.rows * self.point.crossbar.cols

    def _not_modelled(self) -> list[str]:
        technology, missing = self.technology, []
        blocks = {
            "buffer": "buffers",
            "htree": "wires within a tile",
            "noc": "network between tiles",
            "digital": "digital operators",
        }
        missing += [
            f"{words}: {technology.name} has no {name!r}"
            for name, words in blocks.items()
            if getattr(technology, name) is None
        ]
        if self.unread:
            missing.append(
                f"energy of the devices: {self.point.device.name} states no conductances; "
                "give --g-max-us and --on-off"
                if self.levels is None
                else f"energy of the devices: {technology.name} states no read voltage"
            )
        if self.read.mode == "parallel" and technology.dac is not None and technology.dac.area is None:
            missing.append(f"area of the DACs: {technology.name} states none")
        if technology.noc is not None and technology.noc.router_area is None:
            missing.append(f"area of the routers: {technology.name} states none")
        missing += [
            f"{part.name}: of a whole chip, whatever runs on it ({_part_text(part)})"
            for part in technology.fixed
            if part.place == "chip"
        ]
        missing += [f"{what}: how much it works out is not known" for what in self.workload.unknown]
        return missing

    def _assumptions(self) -> list[str]:
        made = []
        digital = sum(one.one.digital for one in self.placed)
        if digital:
            made.append(
                f"{digital:,} weights are digital: their products count as multiply-adds of the digital "
                "units, and each is kept in the buffer with the number of its row"
            )
        assumed = self.workload.assumed
        if assumed and len(assumed) == len(self.workload.layers):
            made.append(f"inputs of all layers ({next(iter(assumed.values()))}): {ASSUMPTION}")
        elif assumed:
            made += [f"inputs of {key} ({reason}): {ASSUMPTION}" for key, reason in assumed.items()]
        window = self.point.device.window
        fallback = self.technology.cell.read_energy
        if self.technology.read.voltage is None and fallback is not None:
            made.append(
                f"{self.technology.name} states the energy of a device's read, not its voltage: conductances "
                "do not matter"
            )
        elif self.levels is None and fallback is not None:
            made.append("devices in levels: each read takes what the technology states")
        elif window is not None and window.unit == "na":
            made.append(f"currents of {self.point.device.name} flow at the read voltage of the technology")
        return made

    def _warnings(self, load: MeshLoad | None, interval: float) -> list[str]:
        noc = self.technology.noc
        if noc is None or load is None or not interval:
            return []
        share = load.busiest / (interval * noc.clock.si)
        if share <= MOST_UTILISED:
            return []
        wait = queueing(share)
        waits = (
            f"a flit waits for {wait:.2g} transfers there" if math.isfinite(wait) else "it cannot keep pace"
        )
        return [f"the busiest link of the network is in use for {share:.0%} of the time: {waits}"]


@dataclass
class _Outside:
    """What belongs to no layer."""

    parts: dict[str, Part] = field(default_factory=dict)
    latency_s: float = 0.0

    def part(self, name: str) -> Part:
        return self.parts.setdefault(name, Part())


def _share(some: float, every: float) -> float:
    return some / every if every else 0.0


def _in_order(parts: Mapping[str, Part]) -> dict[str, Part]:
    return {name: parts[name] for name in COMPONENTS if name in parts}


def _part_text(part: object) -> str:
    values = [getattr(part, name) for name in ("power", "area")]
    return ", ".join(f"{value.value:g} {value.unit}" for value in values if value is not None)

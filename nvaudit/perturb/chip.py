"""One simulated chip: draw every device once and turn conductances back into weights (T-14)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Singles
from nvaudit.device import NoiseTerm, OperatingPoint, Shared
from nvaudit.mapping.conductance import DeviceArray, Held, held_levels
from nvaudit.mapping.groups import unmapped
from nvaudit.mapping.outliers import Outliers
from nvaudit.mapping.tiling import ONE_COLUMN, Lines, device_columns
from nvaudit.perturb.collapse import CodeLaw, collapse
from nvaudit.perturb.common import BlockIndex, Streams, Tiles, draw_component
from nvaudit.perturb.terms import (
    LevelNumbers,
    Sampler,
    Setting,
    active_terms,
    effect,
    read_spread,
    read_terms,
    shared_spread,
)
from nvaudit.perturb.truncated import Truncated
from nvaudit.rng import ChipAddress, stream

BLOCK = 1 << 16
"""Weights drawn at a time: small enough for the caches. Part of the definition of a device-level chip."""

CACHE_BYTES = 32 << 20
"""Tables per weight (base and spread) are kept between trials while those of all tensors fit in this."""


@dataclass(frozen=True)
class MappedTensor:
    """A tensor on the array.

    Attributes
    ----------
    key : str
        Its name: the address of its random streams.
    code : ndarray, int16
        Signed codes in the primary layout; may be memory-mapped.
    scale : ndarray, float32
        Weight units per code, broadcastable to ``code``.
    array : DeviceArray
        How codes are stored in devices.
    peak_code : int
        Largest code magnitude, which stands for max|W|.
    lines : Lines
        What a row and what a column of its crossbars is.
    skip_rows : int or None
        Rows of the crossbars whose groups of zeros have no devices; None: every weight has devices.
    outliers : Outliers or None
        Weights that are digital; their codes are 0.
    """

    key: str
    code: NDArray[np.int16]
    scale: Singles
    array: DeviceArray
    peak_code: int
    lines: Lines = ONE_COLUMN
    skip_rows: int | None = None
    outliers: Outliers | None = None


@dataclass(frozen=True)
class DrawnWeights:
    """Weights of one tensor on one chip, and the variance of one read of them (None without read noise)."""

    weights: Singles
    read_variance: Singles | None


@dataclass(frozen=True)
class Device:
    """One device of every weight of a block.

    Attributes
    ----------
    held : Held
        What it was to hold, and how it enters the weight.
    conductance : ndarray, float32
        As programmed, in the window's unit.
    deviation : ndarray, float32
        That less the target conductance.
    reads : list of ndarray
        Standard deviation of one read, term by term, in the window's unit.
    """

    held: Held
    conductance: Singles
    deviation: Singles
    reads: list[Singles]


@dataclass(frozen=True)
class TensorLaw:
    """A tensor at an operating point: ready to draw chips from.

    With ``every_device`` the devices are drawn one by one even where the collapse is exact; the law is the
    same, which is what a test checks. With ``keep_tables`` what a chip needs of every weight is kept for the
    next chip: twice the size of the weights, for speed.
    """

    tensor: MappedTensor
    point: OperatingPoint
    every_device: bool = False
    freeze_read: bool = False
    keep_tables: bool = True
    _tables: dict[str, tuple[Singles, Singles]] = field(default_factory=dict, repr=False)

    @cached_property
    def setting(self) -> Setting:
        """Levels and targets of this tensor's devices."""
        return Setting.of(self.point, self.tensor.array)

    @cached_property
    def collapsed(self) -> CodeLaw | None:
        """The law per code, where one normal per weight is exact."""
        # A law per code has no variance of one read: a relative one follows each device's drawn conductance.
        if self.every_device or read_terms(self.point, self.setting):
            return None
        return collapse(self.point, self.tensor.array, self.tensor.peak_code)

    @cached_property
    def skipped(self) -> NDArray[np.bool_] | None:
        """Weights without devices: they are exactly zero on every chip. None where there are none."""
        tensor = self.tensor
        return None if tensor.skip_rows is None else unmapped(tensor.code, tensor.lines, tensor.skip_rows)

    def draw(self, seed: int, trial: ChipAddress) -> DrawnWeights:
        """Draw this tensor on chip ``trial``.

        Returns
        -------
        DrawnWeights
            ``weights`` : float32 in the primary layout, ``W_p = scale · (code + Σ_i 2**(iB) Δg_i)``.
        """
        # Streams are addressed by chip, tensor and, device by device, noise term: what is drawn here does not
        # depend on which tensors or terms were drawn before it, on workers, or on what a variant leaves out.
        law = self.collapsed
        drawn = self._draw_weights(law, seed, trial) if law is not None else self._draw_devices(seed, trial)
        if self.skipped is not None:
            # Drawn like all others, then cleared: leaving groups out shifts no number of another weight.
            drawn.weights[self.skipped] = 0
            if drawn.read_variance is not None:
                drawn.read_variance[self.skipped] = 0
        return drawn

    def _draw_weights(self, law: CodeLaw, seed: int, trial: ChipAddress) -> DrawnWeights:
        code = self.tensor.code
        out = np.empty(code.shape, np.float32)
        noisy = bool(law.std.any())
        gen = stream(seed, "program", trial, self.tensor.key)
        for name, block, scale in blocks(code, self.tensor.scale):
            base, spread = self._base_and_spread(law, name, code[block], scale)
            target = out[block]
            if noisy:
                # W = s (c + m(c)) + s σ(c) z. A slab along the first axis is contiguous, so reshape is a view
                # and z is written into `out`. All slabs take from one stream in order: their size does not
                # matter here.
                gen.standard_normal(out=target.reshape(-1), dtype=np.float32)
                target *= spread
                target += base
            else:
                target[...] = base
        return DrawnWeights(out, None)

    def _base_and_spread(
        self, law: CodeLaw, name: str, code: NDArray[np.int16], scale: Singles
    ) -> tuple[Singles, Singles]:
        """Mean and standard deviation of each weight; kept for the next trial when small."""
        kept = self._tables.get(name)
        if kept is not None:
            return kept
        index = code.astype(np.int64) + law.top
        base = (code + law.mean.astype(np.float32)[index]) * scale
        # The same σ for all codes, as T-13 gives: one number for each scale does, without a look-up for
        # every weight.
        flat = bool((law.std == law.std[0]).all())
        spread = np.float32(law.std[0]) * scale if flat else law.std.astype(np.float32)[index] * scale
        if self.keep_tables:
            self._tables[name] = (base, np.asarray(spread))
        return base, np.asarray(spread)

    def _draw_devices(self, seed: int, trial: ChipAddress) -> DrawnWeights:
        streams = self.streams(seed, trial)

        def drawn(block: BlockIndex) -> tuple[Singles, Singles]:
            return self._deviations(self.tensor.code[block], block, streams)

        return self.read(drawn, self.has_reads, seed, trial)

    def read(
        self,
        drawn: Callable[[BlockIndex], tuple[NDArray[Any], NDArray[Any]]],
        reads: bool,
        seed: int,
        trial: ChipAddress,
    ) -> DrawnWeights:
        """Turn what the devices of each block deviate by into weights.

        Parameters
        ----------
        drawn : callable
            Of a block: deviation of each weight and the variance of one read of it, both in code units.
        reads : bool
            Whether there is any such variance.
        """
        tensor = self.tensor
        freeze = stream(seed, "read", trial, tensor.key)
        out = np.empty(tensor.code.shape, np.float32)
        variance = np.empty(tensor.code.shape, np.float32) if reads and not self.freeze_read else None
        for _, block, scale in blocks(tensor.code, tensor.scale):
            code = tensor.code[block]
            deviation, read = drawn(block)
            if variance is not None:
                # Left to the graph, which draws anew for every inference; frozen, one read is drawn here and
                # kept. The reads of a weight's devices are independent normals: one of their summed variance
                # has the same law.
                variance[block] = read * np.square(scale)
            elif reads:
                deviation += np.sqrt(read) * freeze.standard_normal(read.shape, dtype=np.float32)
            out[block] = (code + deviation) * scale
        return DrawnWeights(out, variance)

    def _deviations(
        self, code: NDArray[np.int16], block: BlockIndex, streams: Streams
    ) -> tuple[Singles, Singles]:
        """Deviation of each weight and the variance of one read of it, both in code units."""
        array = self.tensor.array
        deviation, read = added_up(self.devices(code, block, streams), code.shape, array)
        for name, law in self._on_weights:
            index = code.astype(np.int64) + array.top
            if isinstance(law, Truncated):
                deviation += law.draw(index, streams.own[name])
                continue
            shift, std = law
            z = streams.own[name].standard_normal(code.shape, dtype=np.float32)
            deviation += shift[index] + std[index] * z
        return deviation, read

    def devices(self, code: NDArray[np.int16], block: BlockIndex, streams: Streams) -> Iterator[Device]:
        """Draw the devices of a block of weights: polarity by polarity, least significant slice first."""
        array = self.tensor.array
        target = self.setting.target.astype(np.float32)
        gain = np.float32(streams.gain)
        for number, held in enumerate(held_levels(code, array)):
            level, wanted = held.level, target[held.level]
            g = self._programmed(level, wanted, number, block, streams)
            reads = self.read_spreads(level, g)
            # Compensation multiplies what is read, so its noise grows with the signal.
            if gain != 1:
                g, reads = gain * g, [gain * one for one in reads]
            yield Device(held, g, g - wanted, reads)

    def read_spreads(self, level: LevelNumbers, g: Singles) -> list[Singles]:
        """Standard deviation of one read of devices that hold ``g``, term by term, in the window's unit."""
        return [spread[level] * g if relative else spread[level] for spread, relative in self._reads]

    def spreads_at(self, g: NDArray[np.floating], block: BlockIndex) -> Iterator[NDArray[np.floating]]:
        """Standard deviation of one read of each device of a block, of all terms together.

        Parameters
        ----------
        g : ndarray, shape (device, *block)
            What the devices hold, in the window's unit.
        """
        for number, held in enumerate(held_levels(self.tensor.code[block], self.tensor.array)):
            parts = self.read_spreads(held.level, np.asarray(g[number]))
            yield np.sqrt(sum((np.square(part) for part in parts), np.zeros_like(g[number])))

    def _programmed(
        self,
        level: LevelNumbers,
        wanted: Singles,
        number: int,
        block: BlockIndex,
        streams: Streams,
        aged: bool = True,
    ) -> Singles:
        """Draw the conductances of one device of each weight, by default after the time since programming."""
        g = wanted
        # In the profile's order: factors act on, and limits hold for, what earlier terms have made.
        for name, sample, timed in self._samplers:
            # g + σ(level) z: all devices of a tile have one z, each with the spread of its own level.
            if sample is None:
                g = np.asarray(g + self._common[name][level] * streams.common[name].at(number, block))
            elif aged or not timed:
                g = sample(level, g, streams.own[name])
        return g

    def streams(self, seed: int, trial: ChipAddress) -> Streams:
        """Make what the devices of one chip are drawn from."""
        gain = 1.0
        if self.point.drift_compensation and any(term.is_timed for term in self._active):
            # Σ g just after programming over Σ g now, of the same devices; 1 where nothing is left.
            now = self._total(seed, trial, aged=True)
            gain = self._total(seed, trial, aged=False) / now if now > 0 else 1.0
        return self._streams(seed, trial, gain)

    def _streams(self, seed: int, trial: ChipAddress, gain: float) -> Streams:
        key = self.tensor.key
        common = {t.name: draw_component(t, self._tiles(t), seed, trial, key) for t in self._shared}
        own = {
            t.name: stream(seed, f"program:{t.name}", trial, key)
            for t in self._active
            if t.name not in common
        }
        return Streams(own, common, gain)

    def _total(self, seed: int, trial: ChipAddress, aged: bool) -> float:
        """Add up the conductances of all devices of one chip, before or after the time since programming."""
        array, target = self.tensor.array, self.setting.target.astype(np.float32)
        # Streams opened anew and walked in the order of the chip itself (slab, then device), one for each
        # term: programming errors are those of the chip, also where the terms of time are left out.
        streams, total = self._streams(seed, trial, 1.0), 0.0
        for _, block, _ in blocks(self.tensor.code, self.tensor.scale):
            there = None if self.skipped is None else ~self.skipped[block]
            for number, held in enumerate(held_levels(self.tensor.code[block], array)):
                g = self._programmed(held.level, target[held.level], number, block, streams, aged)
                # Weights without devices are drawn, to keep the streams in step, but conduct nothing.
                total += float((g if there is None else g[there]).sum(dtype=np.float64))
        return total

    def _tiles(self, term: Shared) -> Tiles | None:
        """Where the tiles of a common component lie."""
        if term.tile is None:
            return None
        tensor = self.tensor
        devices = device_columns(tensor.array)
        return Tiles.of(tensor.code.shape, tensor.lines, devices, term.tile)

    @cached_property
    def _active(self) -> tuple[NoiseTerm, ...]:
        return active_terms(self.point, self.setting)

    @cached_property
    def _samplers(self) -> tuple[tuple[str, Sampler | None, bool], ...]:
        """Terms that act on devices: how (None: by a common component), and whether time does it."""
        at = self.setting
        return tuple(
            (t.name, effect(t, at).sampler(), t.is_timed)
            for t in self._active
            if not t.acts_on_weights(self.point.sigma_unit)
        )

    @cached_property
    def _shared(self) -> tuple[Shared, ...]:
        return tuple(term for term in self._active if isinstance(term, Shared))

    @cached_property
    def _common(self) -> dict[str, Singles]:
        """Spread per level of the common components."""
        return {term.name: shared_spread(term, self.setting).astype(np.float32) for term in self._shared}

    @cached_property
    def _on_weights(self) -> tuple[tuple[str, Truncated | tuple[Singles, Singles]], ...]:
        """Terms that act on weights: mean and spread per code."""
        top, peak = self.tensor.array.top, self.tensor.peak_code
        code = np.arange(-top, top + 1)
        return tuple(
            (term.name, effect(term, self.setting).weight_law(code, peak))
            for term in self._active
            if term.acts_on_weights(self.point.sigma_unit)
        )

    @property
    def has_reads(self) -> bool:
        """Whether reading is noisy."""
        return bool(self._reads)

    @cached_property
    def _reads(self) -> tuple[tuple[Singles, bool], ...]:
        at = self.setting
        return tuple(
            (read_spread(term, at).astype(np.float32), term.unit == "relative")
            for term in read_terms(self.point, at)
        )


def added_up(
    devices: Iterable[Device], shape: tuple[int, ...], array: DeviceArray, kind: type[Any] = np.float32
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Add devices up: deviation of each weight, and variance of one read of it, both in code units.

    Parameters
    ----------
    kind : type
        Float type to add up in.
    """
    deviation, read = np.zeros(shape, kind), np.zeros(shape, kind)
    for device in devices:
        # ΔW/s = Σ_d ± f_d Δg_d / step, and of one read Var = Σ_d (f_d σ_d / step)², without signs.
        weight = kind(device.held.significance / array.step)
        deviation += device.held.sign * weight * device.deviation
        for one in device.reads:
            read += np.square(weight * one)
    return deviation, read


def blocks(
    code: NDArray[np.int16], scale: Singles
) -> Iterator[tuple[str, tuple[slice | EllipsisType, ...], Singles]]:
    """Slabs of a tensor along its first axis: a name, where, and the part of the scale that belongs there."""
    if code.ndim == 0:
        yield "0", (Ellipsis,), scale  # with () an index would copy, not view
        return
    # Device by device the numbers of a stream go slab by slab, and within a slab device by device: another
    # size of slab would be another chip.
    rows = max(1, BLOCK // max(1, code[0].size)) if code.shape[0] else 1
    per_row = scale.ndim > 0 and scale.shape[0] > 1
    for start in range(0, code.shape[0], rows):
        span = slice(start, start + rows)
        yield str(start), (span,), scale[span] if per_row else scale

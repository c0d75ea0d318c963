"""One simulated chip: draw every device once and turn conductances back into weights (T-14)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import NoiseTerm, OperatingPoint
from nvaudit.mapping.conductance import Array, polarity_signs, stored_codes
from nvaudit.mapping.slices import digits
from nvaudit.perturb.collapse import (
    CodeLaw,
    active_terms,
    collapse,
    read_terms,
    weight_space_moments,
)
from nvaudit.perturb.terms import Sampler, Setting, in_weight_space, read_spread, sampler
from nvaudit.rng import stream

BLOCK = 1 << 16
"""Weights drawn at a time: small enough for the caches. Part of the definition of a device-level chip."""

CACHE_BYTES = 32 << 20
"""Tables per weight (base and spread) are kept between trials while those of all tensors fit in this."""

Float = NDArray[np.float32]


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
    array : Array
        How codes are stored in devices.
    peak_code : int
        Largest code magnitude, which stands for max|W|.
    """

    key: str
    code: NDArray[np.int16]
    scale: Float
    array: Array
    peak_code: int


@dataclass(frozen=True)
class Draw:
    """Weights of one tensor on one chip, and the variance of one read of them (None without read noise)."""

    weights: Float
    read_variance: Float | None


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
    _tables: dict[str, tuple[Float, Float]] = field(default_factory=dict, repr=False)

    @cached_property
    def setting(self) -> Setting:
        """Levels and targets of this tensor's devices."""
        return Setting.of(self.point, self.tensor.array)

    @cached_property
    def collapsed(self) -> CodeLaw | None:
        """The law per code, where one normal per weight is exact."""
        if self.every_device or read_terms(self.point, self.setting):
            return None
        return collapse(self.point, self.tensor.array, self.tensor.peak_code)

    def draw(self, seed: int, trial: int) -> Draw:
        """Draw this tensor on chip ``trial``.

        Returns
        -------
        Draw
            ``weights`` : float32 in the primary layout, ``W_p = scale · (code + Σ_i 2**(iB) Δg_i)``.
        """
        law = self.collapsed
        return self._draw_weights(law, seed, trial) if law is not None else self._draw_devices(seed, trial)

    def _draw_weights(self, law: CodeLaw, seed: int, trial: int) -> Draw:
        code = self.tensor.code
        out = np.empty(code.shape, np.float32)
        noisy = bool(law.std.any())
        gen = stream(seed, "program", trial, self.tensor.key)
        for name, block, scale in _blocks(code, self.tensor.scale):
            base, spread = self._base_and_spread(law, name, code[block], scale)
            target = out[block]
            if noisy:
                gen.standard_normal(out=target.reshape(-1), dtype=np.float32)
                target *= spread
                target += base
            else:
                target[...] = base
        return Draw(out, None)

    def _base_and_spread(
        self, law: CodeLaw, name: str, code: NDArray[np.int16], scale: Float
    ) -> tuple[Float, Float]:
        """Mean and standard deviation of each weight; kept for the next trial when small."""
        kept = self._tables.get(name)
        if kept is not None:
            return kept
        index = code.astype(np.int64) + law.top
        base = (code + law.mean.astype(np.float32)[index]) * scale
        flat = bool((law.std == law.std[0]).all())
        spread = np.float32(law.std[0]) * scale if flat else law.std.astype(np.float32)[index] * scale
        if self.keep_tables:
            self._tables[name] = (base, np.asarray(spread))
        return base, np.asarray(spread)

    def _draw_devices(self, seed: int, trial: int) -> Draw:
        tensor = self.tensor
        reads = self._reads
        gens = {t.name: stream(seed, f"program:{t.name}", trial, tensor.key) for t in self._active}
        freeze = stream(seed, "read", trial, tensor.key)
        out = np.empty(tensor.code.shape, np.float32)
        variance = np.empty(tensor.code.shape, np.float32) if reads and not self.freeze_read else None
        for _, block, scale in _blocks(tensor.code, tensor.scale):
            code = tensor.code[block]
            deviation, read = self._deviations(code, gens)
            if variance is not None:
                variance[block] = read * np.square(scale)
            elif reads:
                deviation += np.sqrt(read) * freeze.standard_normal(read.shape, dtype=np.float32)
            out[block] = (code + deviation) * scale
        return Draw(out, variance)

    def _deviations(
        self, code: NDArray[np.int16], gens: dict[str, np.random.Generator]
    ) -> tuple[Float, Float]:
        """Deviation of each weight and the variance of one read of it, both in code units."""
        array, at = self.tensor.array, self.setting
        deviation, read = np.zeros(code.shape, np.float32), np.zeros(code.shape, np.float32)
        target = at.target.astype(np.float32)
        for sign, stored in zip(polarity_signs(code, array), stored_codes(code, array), strict=True):
            for i, level in enumerate(digits(stored, array.stored_bits, array.cell_bits)):
                g = wanted = target[level]
                for name, sample in self._samplers:
                    g = sample(level, g, gens[name])
                weight = np.float32(2.0 ** (i * array.cell_bits) / array.step)
                deviation += sign * weight * (g - wanted)
                for spread, relative in self._reads:
                    one = spread[level] * g if relative else spread[level]
                    read += np.square(weight * one)
        for name, shift, std in self._on_weights:
            z = gens[name].standard_normal(code.shape, dtype=np.float32)
            index = code.astype(np.int64) + 2**array.bits - 1
            deviation += shift[index] + std[index] * z
        return deviation, read

    @cached_property
    def _active(self) -> tuple[NoiseTerm, ...]:
        return active_terms(self.point, self.setting)

    @cached_property
    def _samplers(self) -> tuple[tuple[str, Sampler], ...]:
        """Terms that act on devices."""
        at = self.setting
        return tuple((t.name, sampler(t, at)) for t in self._active if not in_weight_space(t, self.point))

    @cached_property
    def _on_weights(self) -> tuple[tuple[str, Float, Float], ...]:
        """Terms that act on weights: mean and spread per code."""
        top = 2**self.tensor.array.bits - 1
        tables = []
        for term in self._active:
            if in_weight_space(term, self.point):
                code = np.arange(-top, top + 1)
                shift, std = weight_space_moments(term, self.setting, code, self.tensor.peak_code)
                tables.append((term.name, shift.astype(np.float32), std.astype(np.float32)))
        return tuple(tables)

    @cached_property
    def _reads(self) -> tuple[tuple[Float, bool], ...]:
        at = self.setting
        return tuple(
            (read_spread(term, at).astype(np.float32), term.unit == "relative")
            for term in read_terms(self.point, at)
        )


def _blocks(
    code: NDArray[np.int16], scale: Float
) -> Iterator[tuple[str, tuple[slice | EllipsisType, ...], Float]]:
    """Slabs of a tensor along its first axis: a name, where, and the part of the scale that belongs there."""
    if code.ndim == 0:
        yield "0", (Ellipsis,), scale  # with () an index would copy, not view
        return
    rows = max(1, BLOCK // max(1, code[0].size)) if code.shape[0] else 1
    per_row = scale.ndim > 0 and scale.shape[0] > 1
    for start in range(0, code.shape[0], rows):
        span = slice(start, start + rows)
        yield str(start), (span,), scale[span] if per_row else scale

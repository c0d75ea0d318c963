"""The devices of one simulated chip, one by one, as crossbars with converters need them.

The same chip as without converters: where that was drawn device by device, from the same streams; where it
was drawn as one normal per weight (the exact collapse), the devices are drawn on the condition that they add
up to that weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Singles
from nvaudit.device import OperatingPoint
from nvaudit.errors import OptionError
from nvaudit.mapping.conductance import DeviceArray, held_levels
from nvaudit.mapping.tiling import device_columns
from nvaudit.model.template import Slot
from nvaudit.perturb.chip import Device, MappedTensor, TensorLaw, blocks
from nvaudit.perturb.collapse import CodeLaw
from nvaudit.perturb.common import BlockIndex
from nvaudit.perturb.terms import active_terms, effect
from nvaudit.rng import ChipAddress, stream


@dataclass(frozen=True)
class Cells:
    """The devices of one tensor.

    Attributes
    ----------
    levels : ndarray, float32, shape (device, *weight)
        Conductance above g_min in level spacings; negative for a weight whose sign is kept digitally and is
        negative. Polarity by polarity, least significant slice first.
    read_variance : ndarray of the same shape, or None
        Variance of one read, in squared level spacings.
    """

    levels: Singles
    read_variance: Singles | None


def device_factors(array: DeviceArray) -> tuple[float, ...]:
    """What each device of a weight counts for, in code units: ``± 2**(i·B)`` of slices."""
    return array.code.factors


def device_offset(array: DeviceArray) -> int:
    """What the devices of a zero weight add up to, in code units."""
    return array.code.zero


def target_cells(tensor: MappedTensor) -> Cells:
    """The devices of a tensor without noise."""
    array, code = tensor.array, tensor.code
    out = np.empty((device_columns(array), *code.shape), np.float32)
    for _, block, _ in blocks(code, tensor.scale):
        for d, (sign, level) in enumerate(_targets(code[block], array)):
            out[(d, *block)] = sign * level
    return Cells(out, None)


def draw_cells(law: TensorLaw, seed: int, trial: ChipAddress) -> Cells:
    """Draw the devices of a tensor on chip ``trial``: they add up to what ``law.draw`` gives.

    Parameters
    ----------
    law : TensorLaw
        Without noise on weights (:func:`refuse_noise_on_weights`).
    seed, trial : int
        The chip.
    """
    return without_skipped(law, _drawn(law, seed, trial))


def refuse_noise_on_weights(point: OperatingPoint, option: str, why: str = "") -> None:
    """Refuse an operating point whose noise acts on weights and so has no devices.

    Raises
    ------
    OptionError
        Naming the term and the option that needs devices.
    """
    named = [term.name for term in point.terms if term.acts_on_weights(point.sigma_unit)]
    if named:
        raise OptionError(
            f"{option}: the noise term {named[0]!r} is stated as a fraction of max|W|, not for devices{why}; "
            "use --sigma-unit level or full_scale, or another profile"
        )


def without_skipped(law: TensorLaw, drawn: Cells) -> Cells:
    """Clear what weights without devices would have been."""
    if law.skipped is None:
        return drawn
    # What has no devices counts as devices without noise: a code of zero, whatever the encoding subtracts.
    levels = np.where(law.skipped, target_cells(law.tensor).levels, drawn.levels)
    variance = drawn.read_variance
    return Cells(levels, None if variance is None else np.where(law.skipped, np.float32(0), variance))


def _drawn(law: TensorLaw, seed: int, trial: ChipAddress) -> Cells:
    """Draw the devices of every weight."""
    if law.collapsed is not None:
        return _under_weights(law, law.collapsed, seed, trial)
    tensor = law.tensor
    streams = law.streams(seed, trial)
    return cells_of(law, lambda block: law.devices(tensor.code[block], block, streams))


def cells_of(
    law: TensorLaw, devices: Callable[[BlockIndex], Iterable[Device]], kind: type[Any] = np.float32
) -> Cells:
    """Lay out the devices of a tensor that are given block by block.

    Parameters
    ----------
    kind : type
        Float type of their conductances.
    """
    tensor, array = law.tensor, law.tensor.array
    shape = (device_columns(array), *tensor.code.shape)
    out, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    noisy = False
    step = kind(array.step)
    for _, block, _ in blocks(tensor.code, tensor.scale):
        for d, device in enumerate(devices(block)):
            held = device.held
            # (g − g_min) / step, since the target is g_min + level · step and the deviation g − target.
            out[(d, *block)] = _single(held.sign) * (held.level + device.deviation / step)
            noisy = noisy or bool(device.reads)
            variance[(d, *block)] = sum((np.square(one / step) for one in device.reads), np.float32(0))
    return Cells(out, variance if noisy else None)


def _targets(code: NDArray[np.int16], array: DeviceArray) -> list[tuple[Singles | float, NDArray[np.int16]]]:
    """Sign and level of each device."""
    return [(_single(held.sign), held.level) for held in held_levels(code, array)]


def _single(sign: Singles | float) -> Singles | float:
    """The sign that the column sums see: of ``differential`` both polarities are counted positive there."""
    return sign if isinstance(sign, np.ndarray) else 1.0


@dataclass(frozen=True)
class _Tables:
    """Per device and code, in level spacings: the mean, the spread, and the share of the weight's normal."""

    mean: Singles
    spread: Singles
    share: Singles


def _tables(law: TensorLaw, collapsed: CodeLaw) -> _Tables:
    """Split the law of a weight over its devices.

    A weight's deviation is Σ_d f_d (m_d + s_d z_d) with independent standard normals z_d; its spread is
    S = sqrt(Σ f_d² s_d²), and Σ_d a_d z_d with a_d = f_d s_d / S is the one normal it was drawn from.
    """
    array, at, top = law.tensor.array, law.setting, collapsed.top
    code = np.arange(-top, top + 1)
    mean, variance = np.zeros(len(at.level)), np.zeros(len(at.level))
    for term in active_terms(law.point, at):
        moments = effect(term, at).moments()
        assert moments is not None
        mean, variance = mean + moments[0] / array.step, variance + (moments[1] / array.step) ** 2
    targets = _targets(code.astype(np.int16), array)
    signs = [np.broadcast_to(np.asarray(sign, np.float64), code.shape) for sign, _ in targets]
    levels = [level for _, level in targets]
    spread = np.stack([s * np.sqrt(variance)[level] for s, level in zip(signs, levels, strict=True)])
    base = np.stack([s * (level + mean[level]) for s, level in zip(signs, levels, strict=True)])
    # The sign of the weight (in `spread`) and that of the column (in the factor) both stay in a_d, so that
    # Σ_d f_d s_d z'_d = S Σ_d a_d z'_d = S z; without them a negative weight would deviate by −S z.
    share = np.asarray(device_factors(array))[:, None] * spread
    share = share / np.where(collapsed.std > 0, collapsed.std, 1.0)
    return _Tables(base.astype(np.float32), spread.astype(np.float32), share.astype(np.float32))


def _under_weights(law: TensorLaw, collapsed: CodeLaw, seed: int, trial: ChipAddress) -> Cells:
    """Draw the devices on the condition that they add up to the normal that each weight was drawn from."""
    # With Σ a_d² = 1 and independent z_d, z: z'_d = z_d + a_d (z − Σ_e a_e z_e). Then Σ a_d z'_d = z
    # exactly, and Cov z' = (I − aaᵀ)(I − aaᵀ)ᵀ + aaᵀ = I, since I − aaᵀ is a projection: the z'_d are
    # independent standard normals, as if they had been drawn first and added up. z is the stream of the
    # collapsed weight, so the chip is the same with converters and without.
    tensor, array = law.tensor, law.tensor.array
    tables = _tables(law, collapsed)
    count = device_columns(array)
    out = np.empty((count, *tensor.code.shape), np.float32)
    noisy = bool(collapsed.std.any())
    of_weight = stream(seed, "program", trial, tensor.key)
    of_devices = stream(seed, "cells", trial, tensor.key)
    for _, block, _ in blocks(tensor.code, tensor.scale):
        index = tensor.code[block].astype(np.intp) + collapsed.top
        if not noisy:
            out[(slice(None), *block)] = tables.mean[:, index]
            continue
        # `left` becomes z − Σ_e a_e z_e. It takes every z_e as drawn, hence two passes over the devices.
        left = of_weight.standard_normal(index.shape, dtype=np.float32)
        own = of_devices.standard_normal((count, *index.shape), dtype=np.float32)
        shares = [_look(table, index) for table in tables.share]
        for d in range(count):
            left -= shares[d] * own[d]
        for d in range(count):
            own[d] += shares[d] * left
            own[d] *= _look(tables.spread[d], index)
            own[d] += tables.mean[d][index]
        out[(slice(None), *block)] = own
    return Cells(out, None)


def _look(table: Singles, index: NDArray[np.intp]) -> Singles | np.float32:
    """Entries of a table; the entry itself where all are the same."""
    return table[0] if (table == table[0]).all() else table[index]


def place_cells(cells: Cells, slot: Slot) -> NDArray[np.floating]:
    """Lay devices out as a slot of the template takes them.

    Parameters
    ----------
    slot : Slot
        With ``cells`` set.

    Returns
    -------
    ndarray
        In the slot's shape and type: column sums then come out in units of an ADC's code.
    """
    values, factor = cells.levels, slot.factor
    if slot.variance:
        # A variance goes with the square of what its values are multiplied by.
        factor *= factor
        values = cells.read_variance if cells.read_variance is not None else np.zeros_like(cells.levels)
    made: NDArray[np.floating] = np.empty(slot.shape, slot.dtype)
    np.multiply(slot.transform.apply(values).reshape(slot.shape), np.asarray(factor, slot.dtype), out=made)
    return made

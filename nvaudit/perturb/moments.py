"""What a device does to a level and to a weight: mean shift and spread, exact where a closed form exists.

:func:`device_facts` is what `nvaudit devices show` says: sigma of every level in every unit, and of a weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import OperatingPoint
from nvaudit.mapping.conductance import DeviceArray, layout, one_device, target_conductance
from nvaudit.mapping.tiling import Lines, device_columns
from nvaudit.perturb.chip import MappedTensor, TensorLaw
from nvaudit.perturb.collapse import collapse
from nvaudit.perturb.terms import Setting, read_terms

_DRAWS = 1 << 20


@dataclass(frozen=True)
class Moments:
    """Mean shift and standard deviation of programmed weights, one number per code.

    Attributes
    ----------
    code : ndarray, int
        Signed codes −top … top (levels 0 … top for :func:`level_moments`).
    mean, std : ndarray, float64
        In units of the code.
    how : {"exact", "sampled"}
        Closed form, or estimated from about a million draws with a fixed seed.
    """

    code: NDArray[np.int64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    how: Literal["exact", "sampled"]

    def rms(self, code: NDArray[np.integer]) -> float:
        """Spread over a tensor's codes, root mean square, in units of the code; the mean shift is apart."""
        if code.size == 0:
            return 0.0
        counts = np.bincount(code.reshape(-1).astype(np.int64) - int(self.code[0]), minlength=len(self.code))
        return float(np.sqrt((counts * self.std**2).sum() / code.size))


def code_moments(point: OperatingPoint, array: DeviceArray) -> Moments:
    """Moments of the deviation of a weight, for every signed code (read noise of one read included)."""
    top = array.top
    return _moments(point, array, np.arange(-top, top + 1))


def level_moments(point: OperatingPoint, array: DeviceArray) -> Moments:
    """Moments of the deviation of one device at every level, in level spacings.

    Terms stated in weight space act on no device and are left out.
    """
    single, devices = _one_device(point, array)
    return _moments(devices, single, np.arange(array.top_level + 1))


def level_draws(
    point: OperatingPoint, array: DeviceArray, levels: NDArray[np.integer], count: int = 2000
) -> dict[int, NDArray[np.float64]]:
    """Conductances that devices programmed to some levels end up with (one read included), seeded."""
    single, devices = _one_device(point, array)
    # One row per level: a "tensor" whose value is its level, of one device per weight, with scale 1.
    codes = np.repeat(levels.astype(np.int16)[:, None], count, axis=1)
    tensor = MappedTensor("draws", codes, np.ones((), np.float32), single, array.top_level, Lines((1,)))
    law = TensorLaw(tensor, _weight_by_weight(devices, single), freeze_read=True)
    drawn = law.draw(0, 0).weights.astype(np.float64)
    return {int(level): array.g_min + row * array.step for level, row in zip(levels, drawn, strict=True)}


def _one_device(point: OperatingPoint, array: DeviceArray) -> tuple[DeviceArray, OperatingPoint]:
    """One device as an array of its own, without the terms that act on weights."""
    terms = tuple(term for term in point.terms if not term.acts_on_weights(point.sigma_unit))
    return one_device(array), replace(point, terms=terms)


def _weight_by_weight(point: OperatingPoint, array: DeviceArray) -> OperatingPoint:
    """Give each weight a common component of its own: its law is that of one weight over many chips."""
    devices = device_columns(array)
    return replace(point, terms=tuple(term.of_one_weight(devices) for term in point.terms))


def _moments(point: OperatingPoint, array: DeviceArray, code: NDArray[np.int64]) -> Moments:
    at = Setting.of(point, array)
    peak = array.top
    # A law per code has no read noise in it, which these moments count.
    law = None if read_terms(point, at) else collapse(point, array, peak)
    if law is not None:
        return Moments(code, law.mean[code + law.top], law.std[code + law.top], "exact")
    # Each row is one code, each column a repetition. A tile for each weight (columns along axis 1) makes the
    # repetitions independent, as over chips; with one common component they would all shift together.
    repeats = max(64, _DRAWS // len(code))
    tensor = MappedTensor(
        "moments",
        np.repeat(code.astype(np.int16)[:, None], repeats, axis=1),
        np.ones((), np.float32),
        array,
        peak,
        Lines((1,)),
    )
    sampled = TensorLaw(tensor, _weight_by_weight(point, array), freeze_read=True)
    drawn = sampled.draw(0, 0).weights.astype(np.float64)
    deviation = drawn - code[:, None]
    return Moments(code, deviation.mean(axis=1), deviation.std(axis=1), "sampled")


_MOST_LEVELS = 16
_UNIT = {"us": "µS", "na": "nA"}


@dataclass(frozen=True)
class LevelFacts:
    """One level: its conductance, its mean shift and its sigma (programming and one read) in each unit."""

    level: int
    g: float
    shift_levels: float
    sigma_levels: float
    sigma_full_scale: float
    sigma_g: float
    sigma_relative: float | None


@dataclass(frozen=True)
class WeightFacts:
    """Sigma of a weight over all codes (rms, lowest, highest), and rms mean shift, per max|W|."""

    rms: float
    low: float
    high: float
    shift: float


@dataclass(frozen=True)
class DeviceFacts:
    """A device at an operating point."""

    point: OperatingPoint
    unit: str
    bits: int
    slices: int
    levels: tuple[LevelFacts, ...]
    weight: WeightFacts
    how: Literal["exact", "sampled"]
    draws: dict[int, NDArray[np.float64]]


def device_facts(point: OperatingPoint) -> DeviceFacts:
    """Work out what a device does at an operating point.

    Parameters
    ----------
    point : OperatingPoint
        Bits, encoding and window are its profile's.

    Returns
    -------
    DeviceFacts
        Of an analog device 16 levels over its window are listed.
    """
    profile = point.profile
    array = layout(profile, bits=profile.weight_bits)
    at_level, at_code = level_moments(point, array), code_moments(point, array)
    shown = np.unique(
        np.linspace(0, array.top_level, min(_MOST_LEVELS, array.top_level + 1)).round().astype(int)
    )
    top = array.top
    sigma, shift = at_code.std / top, at_code.mean / top
    return DeviceFacts(
        point=point,
        unit=_UNIT[profile.window.unit] if profile.window else "levels",
        bits=array.bits,
        slices=array.slices,
        levels=tuple(_level(int(i), at_level.mean[i], at_level.std[i], array) for i in shown),
        weight=WeightFacts(_rms(sigma), float(sigma.min()), float(sigma.max()), _rms(shift)),
        how="sampled" if "sampled" in (at_level.how, at_code.how) else "exact",
        draws=level_draws(point, array, shown),
    )


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _level(level: int, mean: float, std: float, array: DeviceArray) -> LevelFacts:
    g = float(target_conductance(np.array([level]), array)[0])
    return LevelFacts(
        level=level,
        g=g,
        shift_levels=float(mean),
        sigma_levels=float(std),
        sigma_full_scale=float(std) / array.top_level,
        sigma_g=float(std) * array.step,
        sigma_relative=float(std) * array.step / g if g > 0 else None,
    )

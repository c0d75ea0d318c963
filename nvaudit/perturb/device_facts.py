"""What `nvaudit devices show` says: sigma of every level in every unit, and of a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import OperatingPoint
from nvaudit.mapping.conductance import Array, layout, target_conductance
from nvaudit.perturb.moments import code_moments, level_draws, level_moments

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


def _level(level: int, mean: float, std: float, array: Array) -> LevelFacts:
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

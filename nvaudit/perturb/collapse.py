"""The exact Gaussian collapse: one draw per weight instead of one per device.

If every active term adds an independent normal, the sum over slices and polarities
``Σ_i 2**(iB) Δg_i`` is normal too, with a mean and a variance that depend on the code alone. Both become
tables over codes once per run; a chip then costs one draw per weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import NoiseTerm, Normal, OperatingPoint, Read, evaluate
from nvaudit.mapping.conductance import Array, polarity_signs, slice_levels, stored_codes
from nvaudit.perturb.terms import (
    Setting,
    in_weight_space,
    is_idle,
    is_timed,
    is_truncated,
    normal_moments,
)


@dataclass(frozen=True)
class CodeLaw:
    """Law of a weight's deviation, in units of its code, indexed by ``code + top``.

    Attributes
    ----------
    mean, std : ndarray, float64, shape (2·top + 1,)
    top : int
        Largest magnitude of a code, 2**H − 1.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    top: int


def active_terms(point: OperatingPoint, at: Setting) -> tuple[NoiseTerm, ...]:
    """Terms that change anything at this operating point, read noise excluded, in order.

    A clip that nothing noisy precedes is dropped too: targets lie inside the window.
    """
    active: list[NoiseTerm] = []
    for term in point.terms:
        if isinstance(term, Read) or is_idle(term, at) or (term.kind == "clip" and not active):
            continue
        active.append(term)
    return tuple(active)


def read_terms(point: OperatingPoint, at: Setting) -> tuple[Read, ...]:
    """Read-noise terms that are not silent at this operating point."""
    return tuple(term for term in point.terms if isinstance(term, Read) and not is_idle(term, at))


def collapse(point: OperatingPoint, array: Array, peak_code: int) -> CodeLaw | None:
    """Collapse the active terms to one normal per weight, or None where that would not be exact.

    Parameters
    ----------
    point : OperatingPoint
        Profile, sigma and time.
    array : Array
        How codes are stored.
    peak_code : int
        The tensor's largest code magnitude, which stands for max|W|.

    Returns
    -------
    CodeLaw or None
        None if a term is not an additive normal with a spread fixed by the target level, or drift is
        compensated.

    References
    ----------
    TRICE paper, Eq. 13–14, with σ per level as in Eq. 15.
    """
    at = Setting.of(point, array)
    top = 2**array.bits - 1
    code = np.arange(-top, top + 1)
    mean, variance = np.zeros(len(code)), np.zeros(len(code))
    for term in active_terms(point, at):
        if is_truncated(term) or (point.drift_compensation and is_timed(term)):
            return None
        if in_weight_space(term, point):
            shift, spread = weight_space_moments(term, at, code, peak_code)
            mean, variance = mean + shift, variance + spread**2
            continue
        moments = normal_moments(term, at)
        if moments is None:
            return None
        per_level_mean, per_level_std = (part / array.step for part in moments)
        for sign, stored in zip(polarity_signs(code, array), stored_codes(code, array), strict=True):
            for weight, level in zip(array.significance, slice_levels(stored, array), strict=True):
                mean += sign * weight * per_level_mean[level]
                variance += (weight * per_level_std[level]) ** 2
    return CodeLaw(mean, np.sqrt(variance), top)


def weight_space_moments(
    term: NoiseTerm, at: Setting, code: NDArray[np.integer], peak_code: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and spread, in code units, of a term stated as a fraction of max|W|.

    Its law sees |W|/max|W| as the relative conductance; a law per level sees equal parts of that range, as
    in the FeFET model of the TRICE authors' code (inner levels: 0.25 < |W|/max|W| < 0.75).
    """
    assert isinstance(term, Normal)
    knob = at.point.sigma if term.unit == "sigma" else at.multiplier
    magnitude = np.abs(code)
    part = magnitude / max(peak_code, 1)
    levels = at.array.top_level + 1
    level = np.minimum((part * levels).astype(np.int64), levels - 1)
    spread = evaluate(term.sigma, level=level, g=part, g_max=1.0) * knob * peak_code
    if term.mean is None:
        return np.zeros(len(code)), np.abs(spread)
    shift = evaluate(term.mean, level=level, g=part, g_max=1.0) * knob * peak_code
    return np.where(code < 0, -shift, shift), np.abs(spread)

"""The exact Gaussian collapse: one draw per weight instead of one per device.

If every active term adds an independent normal, the sum over slices and polarities
``Σ_i 2**(iB) Δg_i`` is normal too, with a mean and a variance that depend on the code alone. Both become
tables over codes once per run; a chip then costs one draw per weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import OperatingPoint
from nvaudit.mapping.conductance import DeviceArray, held_levels
from nvaudit.perturb.terms import Setting, active_terms, effect


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


def collapse(point: OperatingPoint, array: DeviceArray, peak_code: int) -> CodeLaw | None:
    """Collapse the active terms to one normal per weight, or None where that would not be exact.

    Parameters
    ----------
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
    top = array.top
    code = np.arange(-top, top + 1)
    mean, variance = np.zeros(len(code)), np.zeros(len(code))
    for term in active_terms(point, at):
        # A truncated normal is not normal, nor is a sum of them. Compensation multiplies by a ratio of sums
        # over all devices of the tensor, which ties its weights together.
        if term.is_truncated or (point.drift_compensation and term.is_timed):
            return None
        if term.acts_on_weights(point.sigma_unit):
            shift, spread = effect(term, at).on_weights(code, peak_code)
            mean, variance = mean + shift, variance + spread**2
            continue
        moments = effect(term, at).moments()
        # Factors, limits, stuck devices, raw samples, shared components: not independent normals that add up.
        if moments is None:
            return None
        # W/s = Σ_d ± f_d l_d over independent devices d of significance f_d at the level l_d that the code
        # puts there: E[ΔW]/s = Σ ± f_d m(l_d) and Var W/s² = Σ f_d² σ²(l_d). A sum of normals is normal, so
        # the two numbers are the whole law, and one draw per weight is as exact as one per device.
        per_level_mean, per_level_std = (part / array.step for part in moments)
        for held in held_levels(code, array):
            mean += held.sign * held.significance * per_level_mean[held.level]
            variance += (held.significance * per_level_std[held.level]) ** 2
    return CodeLaw(mean, np.sqrt(variance), top)

"""Where to cut off a tensor's largest weights: fewer of them kept exactly, less noise on all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nvaudit.model.decode import IntegerGrid

Limit = float | NDArray[np.float64]
"""Where weights are cut off: one number, or one for each scale of an integer grid."""


def clipped(values: NDArray[np.floating], limit: Limit) -> NDArray[np.floating]:
    """Weights cut off at ±limit, in their own type."""
    return np.asarray(np.clip(values, -limit, limit), values.dtype)


def largest_code(low: int, high: int, codes: NDArray[np.integer]) -> int:
    """Code that the limit is put on: the codes of both signs must reach it where both occur."""
    return high if codes.size and int(codes.min()) >= 0 else min(-low, high)


def regridded(grid: IntegerGrid, limit: Limit, low: int, high: int) -> IntegerGrid:
    """Choose a grid anew: its largest code stands for the limit, and weights beyond are cut off.

    Parameters
    ----------
    grid : IntegerGrid
        The old codes and scale.
    limit : float, or ndarray that broadcasts against the scale
        In units of the weights; scales whose limit is 0 stay.
    low, high : int
        Least and largest code.

    Returns
    -------
    IntegerGrid
        Its step is never coarser than the old one's.

    Examples
    --------
    >>> old = IntegerGrid(np.array([[-100, 4, 50]], np.int16), np.full((1, 1), 0.5, np.float32), 8)
    >>> new = regridded(old, 25.4, -128, 127)
    >>> new.codes, new.scale
    (array([[-128,   10,  125]], dtype=int16), array([[0.2]], dtype=float32))
    """
    old = grid.scale.astype(np.float64)
    step = np.broadcast_to(np.asarray(limit, np.float64) / largest_code(low, high, grid.codes), old.shape)
    # Only finer: a coarser step would round more and cut nothing off. Signs stay, as codes keep theirs.
    scale = np.where((step > 0) & (step < np.abs(old)), step * np.sign(old), old).astype(np.float32)
    ratio = np.divide(old, scale, out=np.ones_like(old), where=scale != 0)
    codes = np.clip(np.rint(grid.codes * ratio), low, high).astype(grid.codes.dtype)
    return IntegerGrid(codes, scale, grid.storage_bits)


def deviations_limit(values: NDArray[np.floating], deviations: float) -> float:
    """Give the limit at a number of standard deviations; the range itself where that is smaller."""
    wide = values.astype(np.float64)
    peak = float(np.abs(wide).max(initial=0.0))
    limit = deviations * float(wide.std()) if wide.size else peak
    return min(limit, peak) if limit > 0 else peak


def balanced_limit(
    values: NDArray[np.floating], power: NDArray[np.floating], spread: float, caution: float = 1.0
) -> float:
    """Find the limit at which clipping error and noise together are least.

    Parameters
    ----------
    values : ndarray
        The weights W.
    power : ndarray, float64, broadcastable to ``values``
        What an error of each weight, squared, adds to the error of the results.
    spread : float
        Standard deviation of a weight's noise as a fraction of the range.
    caution : float
        How much more than noise the clipping error counts: it is the same on every chip.

    Returns
    -------
    float
        c that minimises caution · Σ p (|W| − c)₊² + spread² c² Σ p; max|W| where there is no noise.

    Examples
    --------
    >>> w = np.array([0.1] * 99 + [3.0])
    >>> balanced_limit(w, np.ones(1), spread=0.0)
    3.0
    >>> round(balanced_limit(w, np.ones(1), spread=0.2), 2)
    0.6
    """
    size = np.abs(values.astype(np.float64)).reshape(-1)
    peak = float(size.max(initial=0.0))
    if peak == 0 or spread <= 0:
        return peak
    share = np.broadcast_to(power, values.shape).reshape(-1).astype(np.float64)
    order = np.argsort(-size, kind="stable")
    size, share = size[order], share[order]
    # With |W| in descending order and just the k largest cut off, the cost is a parabola in the limit c:
    # caution (S₂ − 2 c S₁ + c² S₀) + noise c², S_j = Σ_{i≤k} p_i |W_i|^j, whose lowest point is
    # c = caution S₁ / (caution S₀ + noise), if it lies between the k-th and the next weight. So all k are
    # tried at once, each with its lowest point moved into its interval.
    zeroth, first, second = (np.concatenate([[0.0], np.cumsum(share * size**k)]) for k in (0, 1, 2))
    noise = spread**2 * zeroth[-1]
    low, high = np.append(size, 0.0), np.concatenate([[peak], size])
    curve = caution * zeroth + noise
    limits = np.clip(caution * first / np.where(curve > 0, curve, 1.0), low, high)
    cost = caution * (second - 2 * limits * first + limits**2 * zeroth) + noise * limits**2
    best = float(limits[np.argmin(cost)])
    return best if best > 0 else peak

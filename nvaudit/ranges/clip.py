"""Where to cut off a tensor's largest weights: fewer of them kept exactly, less noise on all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clipped(values: NDArray[np.floating], limit: float) -> NDArray[np.floating]:
    """Weights cut off at ±limit, in their own type."""
    return np.asarray(np.clip(values, -limit, limit), values.dtype)


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
    # Sums over the k largest weights. While just these are cut off, the cost is a parabola in the limit.
    zeroth, first, second = (np.concatenate([[0.0], np.cumsum(share * size**k)]) for k in (0, 1, 2))
    noise = spread**2 * zeroth[-1]
    low, high = np.append(size, 0.0), np.concatenate([[peak], size])
    curve = caution * zeroth + noise
    limits = np.clip(caution * first / np.where(curve > 0, curve, 1.0), low, high)
    cost = caution * (second - 2 * limits * first + limits**2 * zeroth) + noise * limits**2
    best = float(limits[np.argmin(cost)])
    return best if best > 0 else peak

"""The scales that let the least noise through: a geometric program.

With one scale per tensor the noise of every weight is proportional to the tensor's range. If activation i is
divided by t_i, the weight W_ji becomes W_ji t_i / t_j, its range max_ji |W_ji| t_i / t_j, and the noise of
result j in the old units has the variance

    ν² · max_ji (|W_ji| t_i / t_j)² · t_j² · Σ_i E[x_i²] / t_i².

In u = ln t this is a product of log-convex functions, so the sum over all weights, each relative to the power
of its result, is convex: it has one minimum, for all branches and consumers of a graph at once. Equal ranges
of neighbouring channels (Nagel et al. 2019) are the special case without data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.remapping.descend import descend

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

SHARP = 40.0
"""Exponent of the smooth maximum that stands for a range."""

SOFT = 6.0
"""Exponent that leaves room for clipping: single large weights count less."""

_PULL = 1e-5
"""Weight of a pull towards 1, which settles scales that nothing else does."""

_TINY = 1e-30


@dataclass(frozen=True)
class Term:
    """One weight in the program.

    Attributes
    ----------
    magnitude : ndarray, float64, shape (a, b)
        max |W| over the kernel, for each pair of channels.
    power : ndarray, float64, broadcastable to (a, b)
        Weight of the noise of each pair: E[x²] of the source channel times the kernel's size, times the
        square of the digital factor that follows the result, over the power of the result.
    source, result : ndarray, int64, broadcastable to (a, b)
        Class of the source's and the result's channel; 0 keeps its scale.
    """

    magnitude: Floats
    power: Floats
    source: Ids
    result: Ids


def noise_of(term: Term, u: Floats) -> float:
    """Relative noise of one weight, in units of ν², with the true maximum as its range."""
    shift = u[term.source] - u[term.result]
    peak = float((term.magnitude * np.exp(shift)).max(initial=0.0))
    return peak**2 * float(np.sum(_full(term.power, term) * np.exp(-2 * shift)))


def solve(terms: Sequence[Term], classes: int, *, exponent: float = SHARP, limit: float = 6.0) -> Floats:
    """Find the scales with the least relative noise.

    Parameters
    ----------
    terms : sequence of Term
    classes : int
        Number of classes of equal scales, the fixed one included.
    exponent : float
        Of the smooth maximum: larger is closer to the range.
    limit : float
        Largest |ln t|.

    Returns
    -------
    ndarray, float64, shape (class,)
        ln t; 0 for class 0.
    """
    u = np.zeros(classes)
    active = [t for t in terms if t.magnitude.size and t.magnitude.max() > 0 and np.any(t.power > 0)]
    free = np.zeros(classes, bool)
    for term in active:
        free[term.source.reshape(-1)] = True
        free[term.result.reshape(-1)] = True
    free[0] = False
    if not active or not free.any():
        return u
    start = sum(noise_of(term, u) for term in active)
    places = np.flatnonzero(free)
    # A smooth start finds the valley, the sharp end its bottom.
    for sharpness in sorted({min(SOFT, exponent), min(15.0, exponent), exponent}):

        def objective(x: Floats, p: float = sharpness) -> tuple[float, Floats]:
            full = np.zeros(classes)
            full[places] = x
            value, slope = _objective(active, full, p)
            return value / start + _PULL * float(x @ x), slope[places] / start + 2 * _PULL * x

        # What leaves the limits hardly matters to the noise: such channels say next to nothing.
        u[places] = np.clip(descend(objective, u[places]), -limit, limit)
    return u


def _objective(terms: Sequence[Term], u: Floats, p: float) -> tuple[float, Floats]:
    """Sum of the smooth relative noises, and its gradient."""
    total, slope = 0.0, np.zeros_like(u)
    for term in terms:
        shift = np.broadcast_to(u[term.source] - u[term.result], term.magnitude.shape)
        high = np.log(np.maximum(term.magnitude, _TINY)) + shift
        top = high.max()
        parts = np.exp(p * (high - top))
        whole = parts.sum()
        through = _full(term.power, term) * np.exp(-2 * shift)
        value = float(np.exp(2 * (top + np.log(whole) / p)) * through.sum())
        share = 2 * value * (parts / whole - through / through.sum())
        total += value
        slope += np.bincount(_spread(term.source, share), share.reshape(-1), len(u))
        slope -= np.bincount(_spread(term.result, share), share.reshape(-1), len(u))
    return total, slope


def _spread(ids: Ids, like: Floats) -> Ids:
    return np.broadcast_to(ids, like.shape).reshape(-1)


def _full(power: Floats, term: Term) -> Floats:
    return np.broadcast_to(power, term.magnitude.shape)

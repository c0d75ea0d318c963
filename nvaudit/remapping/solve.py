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

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nvaudit.arrays import Floats, Ids

SHARP = 40.0
"""Exponent of the smooth maximum that stands for a range."""

SOFT = 6.0
"""Exponent that leaves room for clipping: single large weights count less."""

_PULL = 1e-5
"""Weight of a pull towards 1, which settles scales that nothing else does."""

_TINY = 1e-30


@dataclass(frozen=True)
class ProgramTerm:
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


def noise_of(term: ProgramTerm, u: Floats) -> float:
    """Relative noise of one weight, in units of ν², with the true maximum as its range."""
    # The range is max |W| t_i / t_j = max |W| e^shift; what is let through is Σ p t_j² / t_i².
    shift = u[term.source] - u[term.result]
    peak = float((term.magnitude * np.exp(shift)).max(initial=0.0))
    return peak**2 * float(np.sum(_full(term.power, term) * np.exp(-2 * shift)))


def solve(
    terms: Sequence[ProgramTerm], classes: int, *, exponent: float = SHARP, limit: float = 6.0
) -> Floats:
    """Find the scales with the least relative noise.

    Parameters
    ----------
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


def _objective(terms: Sequence[ProgramTerm], u: Floats, p: float) -> tuple[float, Floats]:
    """Sum of the smooth relative noises, and its gradient."""
    total, slope = 0.0, np.zeros_like(u)
    for term in terms:
        shift = np.broadcast_to(u[term.source] - u[term.result], term.magnitude.shape)
        # The range max |W| e^shift is not differentiable where two weights tie; the p-norm (Σ (|W|
        # e^shift)^p)^(1/p) is, and tends to it. Logarithms less the largest keep p = 40 from overflow.
        high = np.log(np.maximum(term.magnitude, _TINY)) + shift
        top = high.max()
        parts = np.exp(p * (high - top))
        norm = parts.sum()
        through = _full(term.power, term) * np.exp(-2 * shift)
        value = float(np.exp(2 * (top + np.log(norm) / p)) * through.sum())
        # d value / d shift = 2 value · (each pair's share of the range − its share of the noise let through).
        share = 2 * value * (parts / norm - through / through.sum())
        total += value
        slope += np.bincount(_spread(term.source, share), share.reshape(-1), len(u))
        slope -= np.bincount(_spread(term.result, share), share.reshape(-1), len(u))
    return total, slope


def _spread(ids: Ids, like: Floats) -> Ids:
    return np.broadcast_to(ids, like.shape).reshape(-1)


def _full(power: Floats, term: ProgramTerm) -> Floats:
    return np.broadcast_to(power, term.magnitude.shape)


# Limited-memory BFGS (J. Nocedal, Math. Comp. 35 (1980) 773). Written out because a library's version calls
# threaded linear algebra on a handful of numbers, which costs more than the objective itself where cores are
# shared.
Objective = Callable[[Floats], tuple[float, Floats]]

_MEMORY = 10
_ARMIJO = 1e-4
"""Share of the decrease that the slope promises which a step must bring (Armijo's condition)."""

_SHRINK = 0.5
_MOST_HALVINGS = 30


def descend(objective: Objective, start: Floats, *, steps: int = 60, tolerance: float = 1e-7) -> Floats:
    """Minimise a smooth convex function of a thousand numbers or so.

    Parameters
    ----------
    objective : callable
        Value and gradient at a point.
    start : ndarray, float64, shape (n,)
    steps : int
        Iterations at most.
    tolerance : float
        Relative decrease at which to stop.

    Returns
    -------
    ndarray, float64, shape (n,)
        A point that is no worse than the start.

    Examples
    --------
    >>> descend(lambda x: (float(((x - 2) ** 2).sum()), 2 * (x - 2)), np.zeros(3)).round(3)
    array([2., 2., 2.])
    """
    point = start.astype(np.float64)
    value, slope = objective(point)
    pairs: deque[tuple[Floats, Floats, float]] = deque(maxlen=_MEMORY)
    for _ in range(steps):
        way = _direction(slope, pairs)
        fall = float(np.dot(way, slope))
        if fall >= 0:  # rounding: go straight down
            pairs.clear()
            way, fall = -slope, -float(np.dot(slope, slope))
        step_taken = _search(objective, point, value, way, fall)
        if step_taken is None:
            break
        new, new_value, new_slope = step_taken
        # The pair (step, change of the slope) is curvature information only while their product is positive;
        # rounding near the minimum can turn it negative, and the inverse Hessian would lose its sign.
        step, change = new - point, new_slope - slope
        bend = float(np.dot(step, change))
        if bend > 1e-12 * float(np.dot(change, change)):
            pairs.append((step, change, 1 / bend))
        settled = value - new_value <= tolerance * abs(value)
        point, value, slope = new, new_value, new_slope
        if settled:
            break
    return point


def _direction(slope: Floats, pairs: deque[tuple[Floats, Floats, float]]) -> Floats:
    """Minus the approximate inverse Hessian times the gradient (two-loop recursion)."""
    way, factors = -slope, []
    for step, change, rho in reversed(pairs):
        factor = rho * float(np.dot(step, way))
        factors.append(factor)
        way = way - factor * change
    if pairs:
        # Starting matrix γ I with γ = sᵀy / yᵀy of the newest pair: it sets the size of the step, so that
        # length 1 is mostly taken at the first try (Nocedal and Wright, Numerical Optimization, 2006, 7.20).
        step, change, rho = pairs[-1]
        way = way / (rho * float(np.dot(change, change)))
    else:
        way = way / max(float(np.abs(slope).max(initial=0.0)), 1e-30)  # a first step of at most 1
    for (step, change, rho), factor in zip(pairs, reversed(factors), strict=True):
        way = way + (factor - rho * float(np.dot(change, way))) * step
    return way


def _search(
    objective: Objective, point: Floats, value: float, way: Floats, fall: float
) -> tuple[Floats, float, Floats] | None:
    """Halve the step until the value falls enough."""
    length = 1.0
    for _ in range(_MOST_HALVINGS):
        new = point + length * way
        new_value, new_slope = objective(new)
        if np.isfinite(new_value) and new_value <= value + _ARMIJO * length * fall:
            return new, new_value, new_slope
        length *= _SHRINK
    return None

"""Minimise a smooth convex function of a thousand numbers or so: limited-memory BFGS.

Written out because a library's version calls threaded linear algebra on a handful of numbers, which costs
more than the function itself where cores are shared.

Reference: J. Nocedal, Math. Comp. 35 (1980) 773.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Objective = Callable[[Floats], tuple[float, Floats]]

_MEMORY = 10
_ENOUGH = 1e-4
_SHRINK = 0.5
_MOST_HALVINGS = 30


def descend(objective: Objective, start: Floats, *, steps: int = 60, tolerance: float = 1e-7) -> Floats:
    """Find a minimum.

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
        found = _search(objective, point, value, way, fall)
        if found is None:
            break
        new, new_value, new_slope = found
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
        if np.isfinite(new_value) and new_value <= value + _ENOUGH * length * fall:
            return new, new_value, new_slope
        length *= _SHRINK
    return None

"""The nested tails of a sample, their fits, and which of them may be used.

The worst chips are cut into nested tails, each 1/√2 of the next larger one. From the smallest upwards each
must pass the goodness test; the first that fails, and all larger ones, are left out. The tests of the few
tails that are too small to be used alone decide whether anything is left; a later rejection only shortens
the tail that is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nvaudit.stats.gpd import Fit, FloatArray, Tail, fit
from nvaudit.stats.gpd_goodness import goodness

LEVEL = 0.05
"""A tail whose goodness has a smaller p-value is rejected."""

FEWEST = 20
"""Chips in the smallest tail."""

_TAIL = 80  # chips in the largest tail of few chips; of more it grows, its share shrinks: trials^(2/3)
_FINE = 1000  # steps in which a continuous metric is read, from the threshold to the tail's median


@dataclass(frozen=True)
class Grid:
    """The steps of the metric: units count them, and larger is worse.

    Attributes
    ----------
    origin, step : float
        In the metric's unit.
    steps : int or None
        The metric is a multiple of 1/steps; None if continuous.
    sign : int
        1 for a loss, -1 where higher is better.
    """

    origin: float
    step: float
    steps: int | None
    sign: int

    def units(self, values: FloatArray) -> FloatArray:
        """Whole numbers of steps, but for rounding."""
        units: FloatArray = self.sign * (values - self.origin) / self.step
        return units

    def value(self, units: float) -> float:
        """Turn a quantile in units into one of the metric."""
        if self.steps is not None:
            # The quantile of the metric is the rounded quantile of what lies beneath.
            return self.sign * round(units) / self.steps + 0.0
        return self.origin + self.sign * self.step * units


@dataclass(frozen=True)
class Candidate:
    """A tail, where it begins (in units), its fit, and the fit's p-value."""

    tail: Tail
    start: float
    found: Fit
    goodness: float


def tail_chips(trials: int) -> int:
    """Worst chips that must be known exactly for :func:`tail_kpp` to use all it can.

    Examples
    --------
    >>> tail_chips(1000), tail_chips(300)
    (101, 76)
    """
    return int(min(max(round(trials ** (2 / 3)), _TAIL), trials // 4)) + 1


def make_grid(values: FloatArray, trials: int, higher_is_better: bool, steps: int | None) -> Grid:
    """Find the steps; a continuous metric is read in steps far finer than its tail."""
    sign = -1 if higher_is_better else 1
    if steps is not None:
        return Grid(0.0, 1 / steps, steps, sign)
    ordered = np.sort(sign * values)[::-1]
    last = min(tail_chips(trials), ordered.size) - 1
    spread = ordered[last // 2] - ordered[last]
    step = float(spread if spread > 0 else ordered[0] - ordered[last]) / _FINE
    return Grid(sign * float(ordered[last]), step or 1.0, None, sign)


def nested_tails(units: FloatArray, trials: int, limit: float) -> list[Candidate]:
    """Fit the tails; those too coarse to be tested are left out.

    Parameters
    ----------
    units : ndarray, float64, shape (chip,)
        Of the worst chips, or all; worst first.
    trials : int
        Chips in all.
    limit : float
        Worst possible value, in units; its cell has no end.

    Returns
    -------
    list of Candidate
        Smallest tail first.
    """
    units = np.rint(units)
    size: float = min(tail_chips(trials), units.size) - 1
    found: dict[int, Candidate] = {}
    while size >= FEWEST:
        start = float(units[int(size)]) + 0.5
        beyond, counts = np.unique(units[units > start] - start - 0.5, return_counts=True)
        if counts.sum() >= FEWEST and int(counts.sum()) not in found:
            upper = np.where(beyond + start + 0.5 >= limit - 1e-6, np.inf, beyond + 1)
            tail = Tail(np.stack([beyond, upper]), counts.astype(np.float64), 1.0, trials)
            law = fit(tail)
            p_value = goodness(tail, law)
            if p_value is not None:
                found[tail.size] = Candidate(tail, start, law, p_value)
        size /= math.sqrt(2)
    return [found[key] for key in sorted(found)]


def accepted(candidates: list[Candidate]) -> list[Candidate]:
    """Tails below the first that does not fit."""
    first = next((i for i, c in enumerate(candidates) if c.goodness < LEVEL), len(candidates))
    return list(candidates[:first])

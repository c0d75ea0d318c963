"""What a fit of arrays begins with: crossbars that were measured, and numbers with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Doubles = NDArray[np.float64]

FEWEST = 20
"""Devices that a level is described by."""


@dataclass(frozen=True)
class CrossbarSample:
    """The devices of one crossbar that were measured.

    Attributes
    ----------
    level : ndarray of int, shape (device,)
        As programmed.
    g : ndarray, float64
        As measured, in the window's unit.
    row, column : ndarray of int
    variance : ndarray, float64, or None
        Of one read, in the unit squared.
    name : str
        Of the crossbar: the same at every time.
    """

    chip: str
    time_s: float | None
    level: NDArray[np.intp]
    g: Doubles
    row: NDArray[np.intp]
    column: NDArray[np.intp]
    variance: Doubles | None
    name: str


@dataclass(frozen=True)
class Estimated:
    """A number with its interval."""

    value: float
    low: float
    high: float


def mean_and_spread(values: Doubles, confidence: float, shared: float = 0.0) -> tuple[Estimated, Estimated]:
    """Mean and standard deviation; the interval of the latter holds for any fourth moment."""
    n, mean, spread = len(values), float(values.mean()), float(values.std(ddof=1))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * np.sqrt(spread**2 / n + shared)
    if spread == 0:  # a clip, or a resolution, that holds every device at one value
        return Estimated(mean, mean - half, mean + half), Estimated(0.0, 0.0, 0.0)
    fourth = float(np.mean(((values - mean) / spread) ** 4))
    # Var ln s = (κ − (n − 3)/(n − 1)) / 4n, κ the kurtosis; symmetric in the logarithm.
    error = float(ndtri((1 + confidence) / 2)) * np.sqrt(max(fourth - (n - 3) / (n - 1), 0.0) / (4 * n))
    return (
        Estimated(mean, mean - half, mean + half),
        Estimated(spread, spread * float(np.exp(-error)), spread * float(np.exp(error))),
    )

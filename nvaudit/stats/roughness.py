"""Roughness of a loss surface: how far it is from a quadratic.

References
----------
G. Krishnan et al., "Exploring Model Stability of Deep Neural Networks for Reliable RRAM-Based In-Memory
Acceleration", IEEE Transactions on Computers, 2022, doi:10.1109/TC.2022.3174585: equations (1) and (2) of
section 2.2, here S-1 and S-2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nvaudit.arrays import Floats


@dataclass(frozen=True)
class QuadraticFit:
    """The fit of one surface.

    Attributes
    ----------
    coefficients : tuple of 5 floats
        w4, w3, w2, w1, w0 of equation S-1: of x², y², x, y and 1.
    mse : float
        Mean squared error of the fit: the roughness.
    """

    coefficients: tuple[float, float, float, float, float]
    mse: float


def fit_quadratic(x: Floats, y: Floats, loss: Floats) -> QuadraticFit:
    """Fit a surface (S-1) and take the mean squared error of the fit (S-2).

    Parameters
    ----------
    x : ndarray, float64, shape (a,)
        Grid along the first direction; at least three different numbers.
    y : ndarray, float64, shape (b,)
        Grid along the second direction; at least three different numbers.
    loss : ndarray, float64, shape (a, b)

    Notes
    -----
    S-1: ẑ = w4 x² + w3 y² + w2 x + w1 y + w0; there is no term in x y. S-2: ŵ = argmin (1/n) Σ (z − ẑ)² over
    the n grid points, and the roughness is that least value.
    """
    columns = [np.square(x)[:, None], np.square(y)[None], x[:, None], y[None], np.ones((1, 1))]
    design = np.stack([np.broadcast_to(c, loss.shape).ravel() for c in columns], axis=1)
    # Columns of the same length: a narrow span makes x² tiny, and least squares would drop it as rounding.
    size = np.sqrt(np.square(design).mean(axis=0))
    solution = np.linalg.lstsq(design / size, loss.ravel(), rcond=None)[0]
    residual = loss.ravel() - (design / size) @ solution
    w4, w3, w2, w1, w0 = (float(w) for w in solution / size)
    return QuadraticFit((w4, w3, w2, w1, w0), float(np.square(residual).mean()))


@dataclass(frozen=True)
class Score:
    """Roughness over pairs of directions.

    Attributes
    ----------
    value : float
        Mean over the pairs; lower is more stable.
    spread : float or None
        Standard deviation over the pairs (n − 1); None for a single pair.
    fits : tuple of QuadraticFit
        One for each pair.
    """

    value: float
    spread: float | None
    fits: tuple[QuadraticFit, ...]


def roughness(x: Floats, y: Floats, losses: Floats) -> Score:
    """Score the surfaces of several pairs of directions.

    Parameters
    ----------
    x, y : ndarray, float64, shapes (a,) and (b,)
        The grid, the same for all pairs.
    losses : ndarray, float64, shape (pair, a, b)
    """
    fits = tuple(fit_quadratic(x, y, loss) for loss in losses)
    values = np.array([fit.mse for fit in fits])
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return Score(float(values.mean()), spread, fits)

"""Generalised Pareto law of a tail: fit to rounded data, and the interval of a quantile.

A tail is read as counts in cells: the metric is a multiple of one step (an accuracy over n images moves in
steps of 1/n), so a value says only that the underlying excess lies within half a step. The likelihood is
that of such interval-censored data; nothing is jittered, so nothing is random.

References
----------
Pickands, Annals of Statistics 3 (1975) 119: why this law; Coles, An Introduction to Statistical Modeling
of Extreme Values (2001), chapter 4: fit and profile likelihood of a return level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import boxcox, stdtrit

FloatArray: TypeAlias = NDArray[np.float64]

SHAPE_RANGE = (-0.5, 0.5)
"""Below, maximum likelihood is not regular (Smith, Biometrika 72 (1985) 67); above, there is no variance."""

_IMPOSSIBLE = -1e6  # log-likelihood of what cannot be: finite, so that the optimiser can step back
_STRETCH = 1.3  # of the quantile, while an end of its interval is searched


@dataclass(frozen=True)
class Tail:
    """The excesses of a tail over its threshold.

    Attributes
    ----------
    edges : ndarray, float64, shape (2, cell)
        Lower and upper edge of each occupied cell, in the order of the excess; the last may be infinite.
    counts : ndarray, float64, shape (cell,)
    step : float
        Width of a cell.
    trials : int
        Of the whole sample; ``counts.sum()`` of them are in the tail.
    """

    edges: FloatArray
    counts: FloatArray
    step: float
    trials: int

    @property
    def size(self) -> int:
        """Number of exceedances."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class Fit:
    """Maximum-likelihood fit; ``1 + shape · y / scale > 0`` is the support."""

    scale: float
    shape: float
    log_likelihood: float

    @property
    def at_limit(self) -> bool:
        """Whether the shape was held by its allowed range."""
        return min(abs(self.shape - end) for end in SHAPE_RANGE) < 1e-6


def log_survival(y: FloatArray, scale: float, shape: float) -> FloatArray:
    """log P(Y > y) = -log(1 + ξ y / σ) / ξ; -inf beyond the end point."""
    if abs(shape) < 1e-9:
        return -y / scale
    with np.errstate(divide="ignore"):
        logs: FloatArray = -np.log1p(np.maximum(shape * y / scale, -1.0)) / shape
    return logs


def excess(ratio: float | FloatArray, scale: float, shape: float) -> FloatArray:
    """Excess that a share 1/ratio of the tail goes beyond: σ (ratio^ξ - 1) / ξ."""
    value: FloatArray = scale * boxcox(ratio, shape)
    return value


def log_likelihood(tail: Tail, scale: float, shape: float) -> float:
    """Sum of counts · log(S(lower) - S(upper))."""
    lower, upper = log_survival(tail.edges, scale, shape)
    if not np.isfinite(lower[-1]):
        return _IMPOSSIBLE
    with np.errstate(divide="ignore"):
        cells = lower + np.log(-np.expm1(upper - lower))
    return max(float(tail.counts @ cells), _IMPOSSIBLE)


def fit(tail: Tail) -> Fit:
    """Maximise the likelihood over scale and shape."""
    mean = float(tail.counts @ tail.edges[0]) / tail.size + tail.step / 2
    farthest = float(tail.edges[0, -1])

    def scale(point: FloatArray) -> float:
        # The end point of the law then lies beyond every excess, whatever the optimiser tries.
        return float(mean * np.exp(point[0]) + max(-point[1], 0.0) * farthest)

    least, best = _minimise(
        lambda point: -log_likelihood(tail, scale(point), point[1]), [0.0, 0.05], [(-20, 5), SHAPE_RANGE]
    )
    return Fit(scale(best), float(best[1]), -least)


def _minimise(
    function: Callable[[FloatArray], float], start: Sequence[float], bounds: Sequence[tuple[float, float]]
) -> tuple[float, FloatArray]:
    """Least value, and where: quasi-Newton, and once more from there, for a search that lost its way."""
    from scipy.optimize import minimize  # takes a quarter of a second to load

    point = np.asarray(start, dtype=np.float64)
    for _ in range(2):
        found = minimize(function, point, method="L-BFGS-B", bounds=bounds)
        point = found.x
    return float(found.fun), point


def quantile(tail: Tail, found: Fit, prob: float) -> float:
    """Excess beyond which the share ``prob`` of the whole sample's law lies."""
    return float(excess(tail.size / tail.trials / prob, found.scale, found.shape))


def quantile_interval(
    tail: Tail, found: Fit, prob: float, confidence: float, limit: float
) -> tuple[float, float]:
    """Profile-likelihood interval of :func:`quantile`.

    With z the quantile, σ follows from (z, ξ, ζ), ζ being the share of all chips that is in the tail, and
    the likelihood, Binomial(size; trials, ζ) times that of the excesses, is maximised over (ξ, ζ). The
    interval holds each z whose deviance is at most k·log(1 + t²/(k - 2)), t the quantile of Student's law
    with k - 2 degrees of freedom: the exact cut of a normal regression, which tends to that of χ²₁ and is
    wider for small k.

    Parameters
    ----------
    tail : Tail
    found : Fit
    prob : float
        Below ``tail.size / tail.trials``.
    confidence : float
    limit : float
        Largest possible excess, may be infinite; an end stops there.

    Returns
    -------
    low, high : float

    References
    ----------
    Coles (2001), §4.3.3; Davison and Smith, J. Royal Statistical Society B 52 (1990) 393.
    """
    freedom = tail.size - 2
    cut = tail.size * np.log1p(stdtrit(freedom, (1 + confidence) / 2) ** 2 / freedom)
    best = quantile(tail, found, prob)
    return (
        _profile_end(tail, found, prob, cut, best, 1 / _STRETCH, limit),
        _profile_end(tail, found, prob, cut, best, _STRETCH, limit),
    )


def _profile_end(
    tail: Tail, found: Fit, prob: float, cut: float, best: float, stretch: float, limit: float
) -> float:
    """Search for one end, outwards from the best value."""
    from scipy.optimize import brentq

    start = [found.shape, 0.0]
    seen: dict[float, float] = {}

    def beyond(z: float) -> float:
        # Nuisance parameters move little from one z to the next; a z has one answer, whoever asks.
        if z not in seen:
            value, point = _profile_deviance(tail, found, prob, z, start)
            start[:] = point
            seen[z] = float(np.sqrt(max(value, 0.0)) - np.sqrt(cut))
        return seen[z]

    inner, outer = best, best * stretch
    while beyond(outer) <= 0:
        if outer >= limit and stretch > 1:
            return limit
        inner, outer = outer, outer * stretch
    seen.setdefault(best, -float(np.sqrt(cut)))
    end = brentq(beyond, inner, outer, xtol=1e-3 * best, rtol=1e-3)
    return float(min(end, limit))


def _profile_deviance(
    tail: Tail, found: Fit, prob: float, z: float, start: list[float]
) -> tuple[float, list[float]]:
    """Least deviance over shape and share of the tail, and where it is."""
    size, trials = tail.size, tail.trials
    share = size / trials

    def deviance(point: FloatArray) -> float:
        shape, log_ratio = float(point[0]), float(point[1])
        exceed = share * np.exp(log_ratio)
        if not prob < exceed < 1:
            return -_IMPOSSIBLE
        scale = z / float(excess(exceed / prob, 1.0, shape))
        binomial = size * log_ratio + (trials - size) * (np.log1p(-exceed) - np.log1p(-share))
        value = 2 * (found.log_likelihood - log_likelihood(tail, scale, shape) - binomial)
        return float(min(value, -_IMPOSSIBLE))

    # Positive shapes have no end point that an excess could lie beyond.
    begin = start if deviance(np.array(start)) < -_IMPOSSIBLE else [0.05, 0.0]
    least, best = _minimise(deviance, begin, [SHAPE_RANGE, (-1, 1)])
    return least, best.tolist()

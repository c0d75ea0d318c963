"""Generalised Pareto law of a tail: fit to rounded data, its goodness, and the interval of a quantile.

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

import numpy as np
from scipy.special import boxcox, chdtrc, chndtr, stdtrit

from nvaudit.arrays import Floats

SHAPE_RANGE = (-0.5, 0.5)
"""Below, maximum likelihood is not regular (Smith, Biometrika 72 (1985) 67); above, there is no variance."""

_IMPOSSIBLE = -1e6  # log-likelihood of what cannot be: finite, so that the optimiser can step back
_STRETCH = 1.3  # of the quantile, while an end of its interval is searched
_TEST_GROUPS = 50  # of the Anderson-Darling statistic; more change no p-value noticeably
_INFORMATION_GROUPS = 1000  # of the Fisher information


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

    edges: Floats
    counts: Floats
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


def log_survival(y: Floats, scale: float, shape: float) -> Floats:
    """log P(Y > y) = -log(1 + ξ y / σ) / ξ; -inf beyond the end point."""
    # The limit ξ → 0 is the exponential law; the general form would be 0/0 there.
    if abs(shape) < 1e-9:
        return -y / scale
    # For ξ < 0 the law ends at y = −σ/ξ: beyond, 1 + ξ y / σ is held at 0, whose log gives survival 0.
    with np.errstate(divide="ignore"):
        logs: Floats = -np.log1p(np.maximum(shape * y / scale, -1.0)) / shape
    return logs


def excess(ratio: float | Floats, scale: float, shape: float) -> Floats:
    """Excess that a share 1/ratio of the tail goes beyond: σ (ratio^ξ - 1) / ξ."""
    value: Floats = scale * boxcox(ratio, shape)
    return value


def log_likelihood(tail: Tail, scale: float, shape: float) -> float:
    """Sum of counts · log(S(lower) - S(upper))."""
    lower, upper = log_survival(tail.edges, scale, shape)
    if not np.isfinite(lower[-1]):
        return _IMPOSSIBLE
    with np.errstate(divide="ignore"):
        # log(S_l − S_u) = log S_l + log(1 − S_u / S_l): far out both survivals are tiny, and their plain
        # difference would lose its digits. An open last cell has log S_u = −∞, and the second term is 0.
        cells = lower + np.log(-np.expm1(upper - lower))
    return max(float(tail.counts @ cells), _IMPOSSIBLE)


def fit_tail(tail: Tail) -> Fit:
    """Maximise the likelihood over scale and shape."""
    mean = float(tail.counts @ tail.edges[0]) / tail.size + tail.step / 2
    farthest = float(tail.edges[0, -1])

    def scale(point: Floats) -> float:
        # The end point of the law then lies beyond every excess, whatever the optimiser tries.
        return float(mean * np.exp(point[0]) + max(-point[1], 0.0) * farthest)

    least, best = _minimise(
        lambda point: -log_likelihood(tail, scale(point), point[1]), [0.0, 0.05], [(-20, 5), SHAPE_RANGE]
    )
    return Fit(scale(best), float(best[1]), -least)


def _minimise(
    function: Callable[[Floats], float], start: Sequence[float], bounds: Sequence[tuple[float, float]]
) -> tuple[float, Floats]:
    """Least value, and where: quasi-Newton, and once more from there, for a search that lost its way."""
    from scipy.optimize import minimize  # takes a quarter of a second to load

    point = np.asarray(start, dtype=np.float64)
    for _ in range(2):
        result = minimize(function, point, method="L-BFGS-B", bounds=bounds)
        point = result.x
    return float(result.fun), point


def quantile(tail: Tail, law: Fit, prob: float) -> float:
    """Excess beyond which the share ``prob`` of the whole sample's law lies."""
    return float(excess(tail.size / tail.trials / prob, law.scale, law.shape))


def quantile_interval(
    tail: Tail, law: Fit, prob: float, confidence: float, limit: float
) -> tuple[float, float]:
    """Profile-likelihood interval of :func:`quantile`.

    With z the quantile, σ follows from (z, ξ, ζ), ζ being the share of all chips that is in the tail, and
    the likelihood, Binomial(size; trials, ζ) times that of the excesses, is maximised over (ξ, ζ). The
    interval holds each z whose deviance is at most k·log(1 + t²/(k - 2)), t the quantile of Student's law
    with k - 2 degrees of freedom: the exact cut of a normal regression, which tends to that of χ²₁ and is
    wider for small k.

    Parameters
    ----------
    prob : float
        Below ``tail.size / tail.trials``.
    limit : float
        Largest possible excess, may be infinite; an end stops there.

    References
    ----------
    Coles (2001), §4.3.3; Davison and Smith, J. Royal Statistical Society B 52 (1990) 393.
    """
    freedom = tail.size - 2
    cut = tail.size * np.log1p(stdtrit(freedom, (1 + confidence) / 2) ** 2 / freedom)
    best = quantile(tail, law, prob)
    return (
        _profile_end(tail, law, prob, cut, best, 1 / _STRETCH, limit),
        _profile_end(tail, law, prob, cut, best, _STRETCH, limit),
    )


def _profile_end(
    tail: Tail, law: Fit, prob: float, cut: float, best: float, stretch: float, limit: float
) -> float:
    """Search for one end, outwards from the best value."""
    from scipy.optimize import brentq

    start = [law.shape, 0.0]
    seen: dict[float, float] = {}

    def beyond(z: float) -> float:
        # Nuisance parameters move little from one z to the next; a z has one answer, whoever asks.
        if z not in seen:
            value, point = _profile_deviance(tail, law, prob, z, start)
            start[:] = point
            # Near its minimum the deviance is a parabola in z: its root is nearly straight, which the
            # search for the crossing with the cut takes few steps on.
            seen[z] = float(np.sqrt(max(value, 0.0)) - np.sqrt(cut))
        return seen[z]

    # Quantiles are positive excesses, so steps outwards are factors.
    inner, outer = best, best * stretch
    while beyond(outer) <= 0:
        if outer >= limit and stretch > 1:
            return limit
        inner, outer = outer, outer * stretch
    # At the best value the deviance is 0 by definition: no search is needed for it.
    seen.setdefault(best, -float(np.sqrt(cut)))
    end = brentq(beyond, inner, outer, xtol=1e-3 * best, rtol=1e-3)
    return float(min(end, limit))


def _profile_deviance(
    tail: Tail, law: Fit, prob: float, z: float, start: list[float]
) -> tuple[float, list[float]]:
    """Least deviance over shape and share of the tail, and where it is."""
    size, trials = tail.size, tail.trials
    share = size / trials

    def deviance(point: Floats) -> float:
        shape, log_ratio = float(point[0]), float(point[1])
        exceed = share * np.exp(log_ratio)
        # z > 0 lies beyond the threshold only if more than the wanted share of the chips does: ζ > prob.
        if not prob < exceed < 1:
            return -_IMPOSSIBLE
        # z = σ ((ζ / prob)^ξ − 1) / ξ solved for σ. The binomial term is log-likelihood less its maximum,
        # at ζ = size / trials, so that the deviance is 0 at the best fit.
        scale = z / float(excess(exceed / prob, 1.0, shape))
        binomial = size * log_ratio + (trials - size) * (np.log1p(-exceed) - np.log1p(-share))
        value = 2 * (law.log_likelihood - log_likelihood(tail, scale, shape) - binomial)
        return float(min(value, -_IMPOSSIBLE))

    # Positive shapes have no end point that an excess could lie beyond.
    begin = start if deviance(np.array(start)) < -_IMPOSSIBLE else [0.05, 0.0]
    least, best = _minimise(deviance, begin, [SHAPE_RANGE, (-1, 1)])
    return least, best.tolist()


def goodness(tail: Tail, law: Fit) -> float | None:
    """p-value of the Anderson-Darling statistic A² of grouped data with both parameters estimated.

    Cells are joined to at most 50 groups of nearly equal probability. With o the observed and H the
    fitted cumulative shares, Z = sqrt(k)(o - H) and weights t_j = (p_j + p_{j+1})/2,
    A² = Σ t_j Z_j² / (H_j (1 - H_j)). Under the fitted law Z is asymptotically normal with covariance
    min(H_i, H_j) - H_i H_j - (∂H_i)ᵀ I⁻¹ (∂H_j), I being the Fisher information, so A² is a sum of
    independent χ²₁ weighted by eigenvalues.

    Returns
    -------
    float or None
        None where the tail has too few groups to test two parameters.

    References
    ----------
    Choulakian and Stephens, Technometrics 43 (2001) 478 (the test, for continuous data); Choulakian,
    Lockhart and Stephens, Canadian J. Statistics 22 (1994) 125 (the statistic, for grouped data).
    """
    size = tail.size
    edges = _equal_groups(tail.step, law, min(_TEST_GROUPS, size))
    # Two parameters are fitted, and the shares sum to one.
    if edges.size < 3 or tail.counts.size < 4:
        return None
    shares, slopes = _shares(edges, law)
    # A shape held at an end of its range was not fitted to the data: only the scale takes variance away.
    free = slice(0, 1) if law.at_limit else slice(0, 2)
    information = _information(_equal_groups(tail.step, law, _INFORMATION_GROUPS), law)[free, free]
    centres = tail.edges[0] + tail.step / 2
    observed = np.cumsum(np.histogram(centres, [0.0, *edges], weights=tail.counts)[0]) / size
    covariance = (
        np.minimum.outer(shares, shares)
        - np.outer(shares, shares)
        - slopes[free].T @ np.linalg.solve(information, slopes[free])
    )
    group = np.diff(shares, prepend=0.0, append=1.0)
    weight = (group[:-1] + group[1:]) / 2 / (shares * (1 - shares))
    root = np.sqrt(weight)
    # A² = |D Z|² with D² = diag(t / (H (1 − H))): Σ λ_j χ²₁ over the eigenvalues λ of D Cov(Z) D.
    weights: Floats = np.linalg.eigvalsh(root[:, None] * covariance * root).astype(np.float64)
    return chi_square_sum_above(float(size * weight @ (observed - shares) ** 2), weights[weights > 1e-9])


def _equal_groups(step: float, law: Fit, groups: int) -> Floats:
    """Inner edges of groups of equal probability, moved to the edges of cells."""
    inner = excess(groups / np.arange(groups - 1, 0, -1), law.scale, law.shape)
    edges: Floats = np.unique(np.rint(inner / step)) * step
    # A share that rounds to 1 would divide by zero.
    return edges[(edges > 0) & (log_survival(edges, law.scale, law.shape) > -12)]


def _shares(edges: Floats, law: Fit) -> tuple[Floats, Floats]:
    """Share of the tail below each edge, shape (edge,), and its slope in log scale and shape, (2, edge)."""

    def below(log_scale: float, shape: float) -> Floats:
        share: Floats = -np.expm1(log_survival(edges, law.scale * np.exp(log_scale), shape))
        return share

    h = 1e-4
    slopes = [
        below(h, law.shape) - below(-h, law.shape),
        below(0, law.shape + h) - below(0, law.shape - h),
    ]
    return below(0, law.shape), np.stack(slopes) / (2 * h)


def _information(edges: Floats, law: Fit) -> Floats:
    """Fisher information of one excess about log scale and shape, from the groups between the edges."""
    shares, slopes = _shares(edges, law)
    steps = np.diff(slopes, axis=1, prepend=0.0, append=0.0)
    probs = np.maximum(np.diff(shares, prepend=0.0, append=1.0), 1e-15)
    matrix: Floats = (steps / probs) @ steps.T
    return matrix


def chi_square_sum_above(value: float, weights: Floats) -> float:
    """P(Σ w_j X_j > value) for independent X_j ~ χ²₁, by matching four cumulants.

    Near 5 % it is right to about half a per cent; exact where all weights are equal.

    References
    ----------
    Liu, Tang and Zhang, Computational Statistics & Data Analysis 53 (2009) 853.

    Examples
    --------
    >>> import numpy as np
    >>> round(chi_square_sum_above(5.991, np.array([1.0, 1.0])), 4)
    0.05
    """
    c1, c2, c3, c4 = (float(np.sum(weights**power)) for power in (1, 2, 3, 4))
    s1, s2 = c3 / c2**1.5, c4 / c2**2
    # A noncentral χ² with the skewness of the sum, and its kurtosis too where some noncentrality can give
    # both (s1² > s2); else a central one with the skewness alone.
    a, delta = 1 / s1, 0.0
    if s1**2 > s2 * (1 + 1e-12):
        a = 1 / (s1 - np.sqrt(s1**2 - s2))
        delta = s1 * a**3 - a**2
    freedom = a**2 - 2 * delta
    # The value in standard deviations √(2 c2) of the sum, carried over to the χ² law: mean freedom + delta,
    # deviation √2·a; both √2 cancel.
    point = max((value - c1) / np.sqrt(c2) * a + freedom + delta, 0.0)
    return float(1 - chndtr(point, freedom, delta) if delta else chdtrc(freedom, point))

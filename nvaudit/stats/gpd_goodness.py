"""Whether a tail follows the generalised Pareto law that was fitted to it: Anderson-Darling on groups."""

from __future__ import annotations

import numpy as np
from scipy.special import chdtrc, chndtr

from nvaudit.stats.gpd import Fit, FloatArray, Tail, excess, log_survival

_GROUPS = 50  # for the statistic; more change no p-value noticeably
_FINE = 1000  # for the information matrix


def goodness(tail: Tail, found: Fit) -> float | None:
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
    edges = _equal_groups(tail.step, found, min(_GROUPS, size))
    # Two parameters are fitted, and the shares sum to one.
    if edges.size < 3 or tail.counts.size < 4:
        return None
    shares, slopes = _shares(edges, found)
    free = slice(0, 1) if found.at_limit else slice(0, 2)
    information = _information(_equal_groups(tail.step, found, _FINE), found)[free, free]
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
    weights: FloatArray = np.linalg.eigvalsh(root[:, None] * covariance * root).astype(np.float64)
    return chi_square_sum_above(float(size * weight @ (observed - shares) ** 2), weights[weights > 1e-9])


def _equal_groups(step: float, found: Fit, groups: int) -> FloatArray:
    """Inner edges of groups of equal probability, moved to the edges of cells."""
    inner = excess(groups / np.arange(groups - 1, 0, -1), found.scale, found.shape)
    edges: FloatArray = np.unique(np.rint(inner / step)) * step
    # A share that rounds to 1 would divide by zero.
    return edges[(edges > 0) & (log_survival(edges, found.scale, found.shape) > -12)]


def _shares(edges: FloatArray, found: Fit) -> tuple[FloatArray, FloatArray]:
    """Share of the tail below each edge, shape (edge,), and its slope in log scale and shape, (2, edge)."""

    def below(log_scale: float, shape: float) -> FloatArray:
        share: FloatArray = -np.expm1(log_survival(edges, found.scale * np.exp(log_scale), shape))
        return share

    h = 1e-4
    slopes = [
        below(h, found.shape) - below(-h, found.shape),
        below(0, found.shape + h) - below(0, found.shape - h),
    ]
    return below(0, found.shape), np.stack(slopes) / (2 * h)


def _information(edges: FloatArray, found: Fit) -> FloatArray:
    """Fisher information of one excess about log scale and shape, from the groups between the edges."""
    shares, slopes = _shares(edges, found)
    steps = np.diff(slopes, axis=1, prepend=0.0, append=0.0)
    probs = np.maximum(np.diff(shares, prepend=0.0, append=1.0), 1e-15)
    matrix: FloatArray = (steps / probs) @ steps.T
    return matrix


def chi_square_sum_above(value: float, weights: FloatArray) -> float:
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
    a, delta = 1 / s1, 0.0
    if s1**2 > s2 * (1 + 1e-12):
        a = 1 / (s1 - np.sqrt(s1**2 - s2))
        delta = s1 * a**3 - a**2
    freedom = a**2 - 2 * delta
    point = max((value - c1) / np.sqrt(c2) * a + freedom + delta, 0.0)
    return float(1 - chndtr(point, freedom, delta) if delta else chdtrc(freedom, point))

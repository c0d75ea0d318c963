r"""The gate while chips are still being drawn: verdicts that hold whenever one stops.

For "too many chips fail" (p ≥ p₀) the likelihood ratio Π (p₁/p₀)^x ((1−p₁)/(1−p₀))^(1−x) of any p₁ < p₀ is a
supermartingale, and so is a mixture of them: it ever reaches 1/α with probability at most α (Ville, 1939;
Robbins, Ann. Math. Stat. 41 (1970) 1397). Likewise for p ≤ p₀ with p₁ > p₀. A chip that is judged from a part
of the samples may be misjudged; each has a chance of its own to be, so failures are still independent, only
their share may be off by as much: p₀ is moved by that.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nvaudit.stats.binomial import check_confidence, check_percentile
from nvaudit.stats.gate import Gate, Needed, Verdict

PASS_LEAK = 0.01
"""Chance that a failing chip is taken for a passing one."""

FAIL_LEAK = 0.05
"""Chance that a passing chip is taken for a failing one, as a share of the failures that are allowed."""

_BETTER = np.array([[0.0, 0.9], [0.1, 0.04], [0.3, 0.03], [0.6, 0.03]])
"""Alternatives to p₀ as shares of it, with their weights: most on chips that never fail."""

_WORSE = 2.0 ** np.arange(1, 8)
"""Alternatives as multiples of p₀, of equal weight."""


Floats = NDArray[np.float64]
HitCounts = int | NDArray[np.int64]


def fail_leak(percentile: float) -> float:
    """Chance that a passing chip is taken for a failing one, for a gate at a percentile."""
    return FAIL_LEAK * percentile / 100


def pass_evidence(failures: HitCounts, trials: int, prob: float) -> Floats:
    """Log of the wealth against "at least ``prob`` of the chips fail", for each number of failures."""
    share, weight = _BETTER.T
    return log_mixture(share * prob, weight, failures, trials, prob)


def fail_evidence(failures: HitCounts, trials: int, prob: float) -> Floats:
    """Log of the wealth against "at most ``prob`` of the chips fail", for each number of failures."""
    # An alternative must lie above p₀ and below 1 (log(1 − p₁) is finite): multiples beyond are held just
    # below 1 and counted once, so that the weights still add up to 1 and the wealth starts at 1.
    share = np.unique(np.minimum(_WORSE * prob, 1 - (1 - prob) / 100))
    return log_mixture(share, np.full(len(share), 1 / len(share)), failures, trials, prob)


def log_mixture(share: Floats, weight: Floats, hits: HitCounts, trials: HitCounts, prob: float) -> Floats:
    """Log of a mixture of likelihood ratios of some shares against one.

    Parameters
    ----------
    share, weight : ndarray, float64, shape (alternative,)
    hits, trials : int or ndarray of int, shape (…)
    prob : float
        The share that is bet against.

    Returns
    -------
    ndarray, float64, shape (…)
    """
    hits = np.asarray(hits)[..., None]
    misses = np.asarray(trials)[..., None] - hits
    # The alternative "no chip ever fails" (p₁ = 0) is out after one failure: its log is −∞. Before that it
    # must not be multiplied: 0 · −∞ is NaN. The same holds of "all do" and one that does not.
    with np.errstate(divide="ignore", invalid="ignore"):
        hit, miss = np.log(share) - math.log(prob), np.log1p(-share) - math.log1p(-prob)
        logs = np.where(hits > 0, hits * hit, 0.0) + np.where(misses > 0, misses * miss, 0.0)
    # log Σ w_i L_i of likelihood ratios L_i that overflow: the largest is taken out first.
    top = logs.max(axis=-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(logs - top) @ weight))


def sequential_verdict(failures: int, trials: int, percentile: float, confidence: float) -> Verdict:
    """Verdict after some chips; valid at any number of them.

    Parameters
    ----------
    failures, trials : int
        Chips judged to miss the threshold, and all chips drawn.
    percentile : float
        k: percent of the chips that may miss it.
    confidence : float
        Of each verdict.

    Returns
    -------
    {"pass", "fail", "undecided"}

    Examples
    --------
    >>> sequential_verdict(0, 312, 1, 0.95), sequential_verdict(3, 16, 1, 0.95)
    ('pass', 'fail')
    """
    prob = float(check_percentile(percentile))
    check_confidence(confidence)
    wanted = -math.log(1 - confidence)
    # If at least p₀ of the chips fail, at least p₀ (1 − leak) of them are judged to; if at most p₀ fail, at
    # most p₀ + leak (1 − p₀) are. The judgements are still independent Bernoulli draws, so the wealth
    # against these shifted shares stays a supermartingale, and the verdict holds whenever one stops
    # looking.
    if pass_evidence(failures, trials, prob * (1 - PASS_LEAK)) >= wanted:
        return "pass"
    leak = fail_leak(percentile)
    if fail_evidence(failures, trials, prob + leak * (1 - prob)) >= wanted:
        return "fail"
    return "undecided"


def failure_bounds(failures: int, trials: int, percentile: float, confidence: float) -> tuple[float, float]:
    """One-sided bounds of the share of all chips that miss the threshold; valid at any stopping time."""
    from scipy.optimize import brentq  # takes a quarter of a second to load

    wanted = -math.log(1 - confidence)
    leak = fail_leak(percentile)
    ends = 1e-9, 1 - 1e-9

    def root(function: object, low: float, high: float) -> float:
        return float(brentq(function, low, high, xtol=1e-9))

    # The bound is the set of p₀ whose wealth has not reached 1/α. Alternatives are multiples r·p₀: where
    # r < 1, the log-likelihood ratio x log r + (n − x) log((1 − r p₀)/(1 − p₀)) grows with p₀, so the set
    # has one end.
    def too_many(prob: float) -> float:
        return float(pass_evidence(failures, trials, prob)) - wanted

    def too_few(prob: float) -> float:
        return float(fail_evidence(failures, trials, prob)) - wanted

    # The share of chips that are judged to fail is bounded first, then turned back into that of chips that
    # do: the inverse of the two shifts in sequential_verdict.
    high = root(too_many, *ends) / (1 - PASS_LEAK) if too_many(ends[0]) < 0 < too_many(ends[1]) else 1.0
    low = 0.0
    if too_few(ends[0]) > 0 > too_few(ends[1]):
        low = max(0.0, (root(too_few, *ends) - leak) / (1 - leak))
    return low, min(1.0, high)


def sequential_gate(
    failures: int, trials: int, threshold: float, percentile: float, confidence: float
) -> Gate:
    """Decide a gate for which chips are drawn until it is decided; the numbers hold whenever one stops.

    Parameters
    ----------
    failures, trials : int
        Chips judged to miss the threshold, and all chips drawn.
    threshold : float
        In the metric's own unit.
    percentile, confidence : float
        As in :func:`sequential_verdict`.
    """
    verdict = sequential_verdict(failures, trials, percentile, confidence)
    low, high = failure_bounds(failures, trials, percentile, confidence)
    return Gate(
        threshold=threshold,
        percentile=percentile,
        confidence=confidence,
        verdict=verdict,
        failures=failures,
        trials=trials,
        failure_low=low,
        failure_high=high,
        needed=_needed(failures, trials, percentile, confidence) if verdict == "undecided" else None,
        sequential=True,
    )


def _needed(failures: int, trials: int, percentile: float, confidence: float) -> Needed:
    """Find after how many chips the gate passes if no further one fails."""
    prob = percentile / 100 * (1 - PASS_LEAK)
    wanted = -math.log(1 - confidence)
    # Each further chip that passes multiplies every likelihood ratio by (1 − p₁)/(1 − p₀) > 1: the wealth
    # grows with n, so doubling and then halving finds the first n that is enough.
    low, high = trials, 2 * trials + 16
    while pass_evidence(failures, high, prob) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if pass_evidence(failures, middle, prob) >= wanted else (middle, high)
    return Needed(high)

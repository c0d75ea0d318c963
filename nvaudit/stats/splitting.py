"""Probabilities of rare values by splitting: the estimate of one run, of several, and when not to trust it.

A run has pools of scores. Pool 0 are independent draws; pool j are draws on the condition that the score is
at least level j, made by moves that keep that condition's law. With levels fixed beforehand the estimate

    P(score ≥ t) = Π_{i ≤ j} mean(pool_{i−1} ≥ level_i) · mean(pool_j ≥ t),    level_j ≤ t < level_{j+1}

of one run has no bias, however badly the moves mix (Del Moral, Feynman-Kac Formulae, 2004, thm 7.4.2; Cérou,
Del Moral, Furon and Guyader, Stat. Comput. 22, 2012). Bad mixing shows as spread between runs, and that is
what the interval rests on: independent runs are its only source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, stdtrit

from nvaudit.arrays import Floats


@dataclass(frozen=True)
class SplitRun:
    """One run at fixed levels.

    Attributes
    ----------
    levels : tuple of float
        Level 1, 2, … that its pools from the second on lie at or above; rising.
    pools : tuple of ndarray, float64, shape (state,)
        Sorted scores. A run that died out has fewer pools than levels + 1.
    """

    levels: tuple[float, ...]
    pools: tuple[Floats, ...]

    def weights(self) -> Floats:
        """What a whole pool is worth: the estimated probabilities of the levels, 1 for pool 0."""
        parts = [_share(pool, level) for pool, level in zip(self.pools, self.levels, strict=False)]
        return np.asarray(np.cumprod([1.0, *parts])[: len(self.pools)], np.float64)

    def tail(self, at: Floats) -> Floats:
        """Estimate of P(score ≥ t) for each t of ``at``."""
        at = np.asarray(at, np.float64)
        stage = np.searchsorted(np.asarray(self.levels), at, side="right")
        weights, result = self.weights(), np.zeros(at.shape)
        for number, pool in enumerate(self.pools):
            here = stage == number
            result[here] = weights[number] * (1 - np.searchsorted(pool, at[here], side="left") / len(pool))
        # Beyond the last pool a run that died out says 0: dropping it instead would bias the mean.
        return result


def _share(pool: Floats, level: float) -> float:
    return 1 - float(np.searchsorted(pool, level, side="left")) / len(pool)


class RareValue(NamedTuple):
    """A quantile far in the tail: P(score ≥ value) = probability, and the interval from the runs."""

    value: float
    low: float
    high: float


def rare_value(runs: Sequence[SplitRun], probability: float, confidence: float = 0.95) -> RareValue:
    """Score that is reached with a small probability.

    Parameters
    ----------
    runs : sequence of SplitRun
        Independent, at the same levels, at least two.
    probability : float
        Of a score this large or larger.
    confidence : float
        Of the two-sided interval.

    Returns
    -------
    RareValue
        ``value`` is where the mean of the runs' tails crosses the probability. The interval are the scores t
        where E[tail(t)] = probability is not rejected both by Student's test with a correction for skewness
        and by that of a log-normal mean; asymptotic in the number of runs. An end beyond all states is
        infinite.
    """
    at = np.unique(np.concatenate([pool for run in runs for pool in run.pools]))
    tails = np.stack([run.tail(at) for run in runs])
    # Estimates of splitting are near log-normal. Where they spread widely their skewness is underestimated
    # from few runs, and the first test misses high tails; where they are not log-normal the second has no
    # footing. Rejected is what both reject: measured, that holds 94 to 98 % where the first alone held 81 to
    # 95.
    one, other = _skewed_t(tails, probability), _log_t(tails, probability)
    above, below = np.minimum(one, other), np.maximum(one, other)
    limit = float(stdtrit(len(runs) - 1, 0.5 + confidence / 2))
    # Both fall with t: as long as the tail is surely above the probability the score is too small to be it.
    return RareValue(
        _last(at, tails.mean(axis=0) >= probability),
        _last(at, above > limit),
        _last(at, below >= -limit),
    )


def mean_of_runs(values: Floats, confidence: float = 0.95) -> RareValue:
    """Mean over independent runs, with Student's interval.

    Parameters
    ----------
    values : ndarray, float64, shape (run,)
    """
    mean, error = float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5
    reach = float(stdtrit(len(values) - 1, 0.5 + confidence / 2)) * error
    return RareValue(mean, mean - reach, mean + reach)


def surprise(runs: Sequence[SplitRun], score: float, worse: int, sampled: int) -> float:
    """Chance that a plain sample holds as many chips at or above a score as it does.

    Parameters
    ----------
    worse, sampled : int
        Chips of the sample at or above the score, and all of them.

    Returns
    -------
    float
        P(Binomial(sampled, p) ≥ worse), with p the upper end (97.5 %, Student) of the runs' probability:
        small where the sample has seen chips that the runs have no way to.
    """
    tails = np.concatenate([run.tail(np.array([score])) for run in runs])
    spread = float(tails.std(ddof=1)) / len(tails) ** 0.5
    # Where no state lies at the score, the runs bound its probability by that of three states (the rule of
    # three), and say nothing of what is rarer still.
    least = 3 * sum(float(run.weights()[-1]) / len(run.pools[-1]) for run in runs) / len(runs) ** 2
    upper = min(1.0, max(least, float(tails.mean()) + float(stdtrit(len(tails) - 1, 0.975)) * spread))
    return float(betainc(worse, sampled - worse + 1, upper))


def _skewed_t(tails: Floats, probability: float) -> Floats:
    """Student's statistic of each column, corrected for skewness, of shape (score,)."""
    runs = len(tails)
    off = tails - probability
    mean, spread = off.mean(axis=0), off.std(axis=0, ddof=1)
    safe = np.where(spread > 0, spread, 1.0)
    skew = ((tails - tails.mean(axis=0)) ** 3).mean(axis=0) / safe**3
    # The mean of a few skewed numbers leans. Hall's transformation (J. R. Stat. Soc. B 54, 1992) of S =
    # mean/s: √n [S + γS²/3 + γ²S³/27 + γ/(6n)], which rises with S for every γ.
    s = mean / safe
    statistic = runs**0.5 * (s + skew * s**2 / 3 + skew**2 * s**3 / 27 + skew / (6 * runs))
    # All runs alike: surely above, at or below.
    return np.asarray(np.where(spread > 0, statistic, np.copysign(np.inf, mean)))


def _log_t(tails: Floats, probability: float) -> Floats:
    """Cox's statistic of the mean of a log-normal law, of each column."""
    # Cox (in Land, Technometrics 14, 1972): log E = μ + v/2, with variance v/n + v²/(2(n − 1)). A run that
    # lies far below the others, or has died out, adds next to nothing to the mean, yet its logarithm alone
    # would make v as large as it is far: it counts as a tenth of the mean.
    runs, mean = len(tails), tails.mean(axis=0)
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(tails, mean / 10))
    found = np.isfinite(logs).all(axis=0)
    logs = np.where(found, logs, 0.0)
    variance = logs.var(axis=0, ddof=1)
    distance = logs.mean(axis=0) + variance / 2 - np.log(probability)
    error = np.sqrt(variance / runs + variance**2 / (2 * (runs - 1)))
    statistic = np.where(error > 0, distance / np.where(error > 0, error, 1.0), np.copysign(np.inf, distance))
    return np.asarray(np.where(found, statistic, -np.inf))


def _last(at: Floats, holds: NDArray[np.bool_]) -> float:
    """Largest score up to which something holds without a gap; −inf where it holds for none."""
    count = int(np.argmin(holds)) if not holds.all() else len(holds)
    if count == len(at):
        return float(at[-1]) if holds.any() else float("-inf")
    return float(at[count - 1]) if count else float("-inf")


def moves_matter(
    few: Sequence[SplitRun], many: Sequence[SplitRun], score: float, error: float = 0.01
) -> bool:
    """Whether runs with twice the moves give another probability at a score.

    Both means have no bias, but moves that mix badly give runs that are mostly too small and sometimes far
    too large. Their logarithms then lie apart: Welch's test at ``error`` on them.
    """
    one, other = (
        np.log(np.maximum([float(run.tail(np.array([score]))[0]) for run in runs], 1e-300))
        for runs in (few, many)
    )
    parts = one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)
    if sum(parts) == 0:
        return bool(one.mean() != other.mean())
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(runs) - 1) for part, runs in zip(parts, (one, other), strict=True)
    )
    distance = abs(float(one.mean() - other.mean())) / np.sqrt(sum(parts))
    return bool(distance > stdtrit(freedom, 1 - error / 2))

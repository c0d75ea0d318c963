"""The gate on a drop: whether a percentile of one population of chips is more than δ below that of another.

Pairs of chips (b, a), "before" and "after", are drawn one after another; b and a may depend on each other in
any way, and the closer they do, the sooner it is decided. With b' = b − δ, "the drop is at most δ" says
q(a) ≥ q(b'), where q is the p-quantile. Then some s, such as q(a), has P(a < s) ≤ p ≤ P(b' ≤ s), and with it
P(a < s, b' > s) ≤ P(a ≥ s, b' ≤ s): of the chips that change sides at s, those that went down are no more
than a fair coin allows (McNemar). Each of these three is a statement on independent trials, against which a
mixture of likelihood ratios is a supermartingale (:mod:`nvaudit.stats.anytime`); so is their weighted mean
E_s. The true s is not known, but it is one number: if *every* s has E_s ≥ 1/α, that one has, which happens at
any time with probability at most α (Ville). No correction is due for the search over s, nor for looking after
every chip, and nothing is assumed of the distributions. "The drop is more than δ" is refuted in the same way
with a and b' in each other's place; that one is strict, so that some s has P(b' ≤ s) ≤ p ≤ P(a ≤ s).

Of a chip "before" that a race stopped, only limits are known. Every evidence grows with the chips that went
down and shrinks with those that went up, so that the limit that makes a verdict harder stands for the chip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nvaudit.stats.anytime import fail_evidence, log_mixture, pass_evidence
from nvaudit.stats.binomial import check_confidence, check_percentile
from nvaudit.stats.gate import Verdict
from nvaudit.stats.kpp import kpp_index

Floats = NDArray[np.float64]

_COIN = np.array([[0.6, 0.1], [0.75, 0.15], [0.9, 0.25], [1.0, 0.5]])
"""Alternatives to a fair coin with their weights: most on chips that all change sides in one direction."""

_MANY, _FEW, _CHANGED = np.log([0.1, 0.45, 0.45])
"""How a bet is split over the three statements."""

MOST_TIMES = 1000
"""So many times the chips at hand are the most that is looked for to decide an open gate."""

_STEPS = 40
"""Halvings of a bound."""


@dataclass(frozen=True)
class FormerChips:
    """The chips "before"; of those that a race stopped only limits are known.

    Attributes
    ----------
    low, high : ndarray, float64, shape (pair,)
        Between them lies each chip's metric: equal where it is known, infinite where there is no limit.
    wrong_low, wrong_high : int
        So many of the lower, and of the upper, limits may be wrong.
    error : float
        Chance that more are.
    """

    low: Floats
    high: Floats
    wrong_low: int = 0
    wrong_high: int = 0
    error: float = 0.0

    @classmethod
    def exact(cls, values: Floats) -> FormerChips:
        """Chips of which each was run on every sample."""
        return cls(values, values)

    def first(self, pairs: int) -> FormerChips:
        """The first chips alone."""
        return replace(self, low=self.low[:pairs], high=self.high[:pairs])

    def higher_is_better(self, higher_is_better: bool) -> FormerChips:
        """The same chips as what is better the higher it is."""
        if higher_is_better:
            return self
        return FormerChips(-self.high, -self.low, self.wrong_high, self.wrong_low, self.error)

    def ordered(self) -> Floats:
        """The chips from the worst; one without a limit lies beyond all others."""
        with np.errstate(invalid="ignore"):  # −∞ + ∞: nothing is known of it
            middle = (self.low + self.high) / 2
        return np.sort(np.where(np.isnan(middle), np.inf, middle))


@dataclass(frozen=True)
class Drop:
    """What pairs of chips say about the drop of a percentile.

    Attributes
    ----------
    percentile, confidence : float
        The confidence is that of the verdict and of each bound, one-sided, whenever one stops.
    most : float
        δ: the drop that is allowed.
    verdict : {"pass", "fail", "undecided"}
        ``pass``: it is surely at most δ; ``fail``: surely more.
    before, after : float
        The percentiles of these chips; in the direction of the metric, as are the drop and its bounds:
        a positive drop is a loss.
    low, high : float or None
        Bounds of the drop; None: the chips give none.
    needed : int or None
        Pairs after which it is decided if they go on like these; None: it is decided, or more than
        ``MOST_TIMES`` as many would be needed.
    """

    percentile: float
    confidence: float
    most: float
    verdict: Verdict
    pairs: int
    before: float
    after: float
    drop: float
    low: float | None = None
    high: float | None = None
    needed: int | None = None


def drop_verdict(
    before: FormerChips, after: Floats, most: float, percentile: float, confidence: float, times: int = 1
) -> Verdict:
    """Verdict after some pairs; valid at any number of them.

    Parameters
    ----------
    before : FormerChips
        Higher is better.
    after : ndarray, float64, shape (pair,)
        Higher is better; the same chip at the same place.
    most : float
        The drop that is allowed.
    percentile, confidence : float
        Of the verdict.
    times : int
        How often each pair is counted: what so many more would say if they are like these.

    Examples
    --------
    >>> import numpy as np
    >>> chips = np.linspace(0.8, 0.9, 200)
    >>> [drop_verdict(FormerChips.exact(chips), chips - d, 0.02, 10, 0.95) for d in (0.0, 0.018, 0.05)]
    ['pass', 'undecided', 'fail']
    """
    prob, wanted = _asked(before, percentile, confidence)
    if _more_than_refuted(before, after, most, prob, wanted, times):
        return "pass"
    return "fail" if _at_most_refuted(before, after, most, prob, wanted, times) else "undecided"


def decide_drop(
    before: FormerChips,
    after: Floats,
    most: float,
    percentile: float,
    confidence: float,
    higher_is_better: bool,
) -> Drop:
    """Decide the gate, with bounds of the drop and what would decide it.

    Parameters
    ----------
    before : FormerChips
    after : ndarray, float64, shape (pair,)
        Metric of the same chip at the same place.
    higher_is_better : bool
        False for a loss: then the percentile is that from above, and a drop is a rise.
    """
    sign = 1.0 if higher_is_better else -1.0
    first, second = before.higher_is_better(higher_is_better), sign * after
    index = kpp_index(percentile, second.size)
    old, new = _known_at(first, index), float(np.partition(second, index)[index])
    drop = Drop(
        percentile, confidence, most, drop_verdict(first, second, most, percentile, confidence),
        second.size, sign * old, sign * new, old - new,
    )  # fmt: skip
    low, high = _bounds(first, second, percentile, confidence)
    needed = _needed(first, second, drop) if drop.verdict == "undecided" else None
    return replace(drop, low=low, high=high, needed=needed)


def ranks_for_drop(percentile: float, trials: int, confidence: float) -> tuple[int, int]:
    """Ranks, from the worst, between which a gate on the drop needs the chips "before".

    Returns
    -------
    few, many : int
        With no more than ``few`` chips below it, and with ``many``, a value alone is surely below, and above,
        the percentile of all chips; ``trials`` and 0 where no number of these chips is enough.
    """
    prob = float(check_percentile(percentile))
    wanted = -math.log(1 - confidence)
    counts = np.arange(math.ceil(prob * trials))
    few = np.flatnonzero(pass_evidence(counts, trials, prob) + _FEW >= wanted)
    return int(counts[few[-1]]) if len(few) else trials, _enough(trials, prob, wanted, 1) or 0


def _known_at(before: FormerChips, index: int) -> float:
    """The value at a rank, or the nearest that is known."""
    ordered = before.ordered()
    known = np.flatnonzero(np.isfinite(ordered))
    return float(ordered[known[np.argmin(np.abs(known - index))]])


def _asked(before: FormerChips, percentile: float, confidence: float) -> tuple[float, float]:
    """The share of chips that the percentile is of, and the log wealth of a verdict."""
    check_confidence(confidence)
    # The limits are wrong with a chance of their own, which the verdict's error contains (Boole).
    return float(check_percentile(percentile)), -math.log(1 - confidence - before.error)


def _in_steps(before: Floats, after: Floats, most: float) -> tuple[Floats, Floats]:
    """Both values less δ of the first, in steps so small that only rounding (0.95 − 0.01 ≠ 0.94) goes."""
    largest = [float(np.abs(each[np.isfinite(each)]).max(initial=0.0)) for each in (before, after)]
    step = 1e-12 * max(*largest, abs(most), 1e-300)
    return np.rint((before - most) / step), np.rint(after / step)


def _more_than_refuted(
    before: FormerChips, after: Floats, most: float, prob: float, wanted: float, times: int = 1
) -> bool:
    """Whether the drop is surely not more than δ: q(b') is below q(a)."""
    lower, upper = _in_steps(before.high, after, most)
    return _refuted(lower, upper, prob, wanted, times, before.wrong_high)


def _at_most_refuted(
    before: FormerChips, after: Floats, most: float, prob: float, wanted: float, times: int = 1
) -> bool:
    """Whether it is surely more: half a step up, "at most s" says "below s" of the first."""
    shifted, values = _in_steps(before.low, after, most)
    return _refuted(values + 0.5, shifted, prob, wanted, times, before.wrong_low)


def _refuted(lower: Floats, upper: Floats, prob: float, wanted: float, times: int, wrong: int) -> bool:
    """Whether P(lower ≤ s) ≤ p ≤ P(upper ≤ s) has a log wealth of ``wanted`` against it for every s.

    Of ``wrong`` pairs it may be that the one lies not at or below s, and the other does.
    """
    pairs = times * lower.size
    # Where so many lie below s that this alone refutes it, nothing else need be looked at.
    enough = _enough(lower.size, prob, wanted, times)
    enough = None if enough is None or enough + wrong > lower.size else enough + wrong
    ceiling = math.inf if enough is None else float(np.partition(lower, enough - 1)[enough - 1])
    values = np.unique(np.concatenate([lower[lower < ceiling], upper[upper < ceiling]]))
    values = values[np.isfinite(values)]
    # Between two values nothing changes: each value and one place between each two stand for all s.
    places = np.concatenate([[-np.inf], values, (values[1:] + values[:-1]) / 2])
    many, few, both = (
        np.searchsorted(np.sort(which[which < ceiling]), places, "right")
        for which in (lower, upper, np.maximum(lower, upper))
    )
    down, up = times * np.maximum(many - both - wrong, 0), times * (few - both + wrong)
    many, few = times * np.maximum(many - wrong, 0), times * np.minimum(few + wrong, lower.size)
    share, weight = _COIN.T
    bets = np.stack(
        [
            fail_evidence(many, pairs, prob) + _MANY,
            pass_evidence(few, pairs, prob) + _FEW,
            log_mixture(share, weight, down, down + up, 0.5) + _CHANGED,
        ]
    )
    return bool(np.logaddexp.reduce(bets, axis=0).min() >= wanted)


@lru_cache(maxsize=4096)
def _enough(pairs: int, prob: float, wanted: float, times: int) -> int | None:
    """How many of the pairs must lie below s so that it surely is above the quantile; None: all are few."""
    counts = np.arange(math.ceil(prob * pairs), pairs + 1)
    enough = np.flatnonzero(fail_evidence(times * counts, times * pairs, prob) + _MANY >= wanted)
    return int(counts[enough[0]]) if len(enough) else None


def _bounds(
    before: FormerChips, after: Floats, percentile: float, confidence: float
) -> tuple[float | None, float | None]:
    """The largest drop that is surely exceeded, and the smallest that surely is not."""
    prob, wanted = _asked(before, percentile, confidence)
    values = np.concatenate([before.low, before.high, after])
    span = float(np.ptp(values[np.isfinite(values)])) + 1e-12

    def passes(most: float) -> bool:
        return _more_than_refuted(before, after, most, prob, wanted)

    def fails(most: float) -> bool:
        return _at_most_refuted(before, after, most, prob, wanted)

    # The more is allowed, the sooner it passes: each bound is where one answer changes.
    high = _first(passes, -span, span) if passes(span) else None
    low = -_first(lambda most: fails(-most), -span, span) if fails(-span) else None
    return low, high


def _first(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Smallest number for which something holds that holds at ``high`` and from there on down to it."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _needed(before: FormerChips, after: Floats, drop: Drop) -> int | None:
    """Find how many times these chips, if more are like them, decide the gate."""

    def decided(times: int) -> bool:
        verdict = drop_verdict(before, after, drop.most, drop.percentile, drop.confidence, times)
        return verdict != "undecided"

    low, high = 1, 2
    while not decided(high):
        low, high = high, 2 * high
        if high > MOST_TIMES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high * drop.pairs

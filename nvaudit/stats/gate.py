"""The gate asks whether at most k % of the chips miss a threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from nvaudit.stats.binomial import (
    at_least,
    at_most,
    check_confidence,
    check_percentile,
    clopper_pearson,
    first_true,
    within,
)

Verdict: TypeAlias = Literal["pass", "fail", "undecided"]

# More trials than this are not a useful answer to "what would decide it".
MOST_TRIALS = 100_000_000


@dataclass(frozen=True)
class Needed:
    """Trials that would decide an undecided gate, those done included.

    Attributes
    ----------
    clean : int or None
        Passes if no further chip fails; None: more than :data:`MOST_TRIALS`.
    outcome : {"pass", "fail"} or None
        What the share of failures seen so far points to; None: no chip has failed.
    at_this_share : int or None
        About so many give that outcome at that share; None: the share is too close to the allowed one.
    """

    clean: int | None
    outcome: Literal["pass", "fail"] | None = None
    at_this_share: int | None = None


@dataclass(frozen=True)
class Gate:
    """What the trials say about one threshold.

    Attributes
    ----------
    threshold : float
        In the metric's own unit.
    percentile : float
        Percent of the chips that may miss it.
    confidence : float
        Of each verdict, one-sided.
    verdict : {"pass", "fail", "undecided"}
    failures, trials : int
        Chips that miss the threshold, and all chips.
    failure_low, failure_high : float
        One-sided bounds of the share of all chips that miss it.
    needed : Needed or None
        None once it is decided.
    sequential : bool
        Chips were drawn until it was decided; the bounds hold at any stopping time.
    """

    threshold: float
    percentile: float
    confidence: float
    verdict: Verdict
    failures: int
    trials: int
    failure_low: float
    failure_high: float
    needed: Needed | None
    sequential: bool = False


def decide_count(failures: int, trials: int, threshold: float, percentile: float, confidence: float) -> Gate:
    """Decide whether P(a chip misses the threshold) ≤ k/100, from a number of trials fixed beforehand.

    Parameters
    ----------
    failures, trials : int
        Chips that miss the threshold, and all chips. A chip exactly on it does not miss it.
    threshold : float
        In the metric's own unit.
    percentile : float
        k, between 0 and 100.
    confidence : float
        A verdict is wrong with at most 1 - confidence.

    Returns
    -------
    Gate
        ``pass`` if the one-sided Clopper-Pearson upper bound of the failure probability is at most k %,
        ``fail`` if the lower bound is above k %, else ``undecided`` with what would decide it.

    Raises
    ------
    OptionError
        If the percentile or the confidence makes no sense.

    Examples
    --------
    >>> decide_count(0, 299, 0.8, 1, 0.95).verdict
    'pass'
    >>> decide_count(0, 298, 0.8, 1, 0.95).needed
    Needed(clean=299, outcome=None, at_this_share=None)
    """
    prob = float(check_percentile(percentile))
    check_confidence(confidence)
    verdict = verdict_of(failures, trials, percentile, confidence)
    low, high = clopper_pearson(failures, trials, confidence, sided=1)
    return Gate(
        threshold=threshold,
        percentile=percentile,
        confidence=confidence,
        verdict=verdict,
        failures=failures,
        trials=trials,
        failure_low=low,
        failure_high=high,
        needed=_needed(failures, trials, prob, 1 - confidence) if verdict == "undecided" else None,
    )


def verdict_of(failures: int, trials: int, percentile: float, confidence: float) -> Verdict:
    """Verdict after ``failures`` in ``trials``; see :func:`decide_count`."""
    prob = float(check_percentile(percentile))
    error = 1 - confidence
    # The Clopper-Pearson bounds are these two tests, inverted: high ≤ p₀ if and only if P(X ≤ x; p₀) ≤ α, and
    # low > p₀ if and only if P(X ≥ x; p₀) < α. Asking the tails is exact where a bound lies on p₀.
    if within(at_most(failures, trials, prob), error):
        return "pass"
    if at_least(failures, trials, prob) < error / (1 + 1e-12):
        return "fail"
    return "undecided"


class Decided(Protocol):
    """Whatever has a verdict."""

    @property
    def verdict(self) -> Verdict | None: ...  # noqa: D102


def overall_verdict(gates: Iterable[Decided]) -> Verdict | None:
    """One verdict for several gates: the worst of them, or None without a gate."""
    verdicts = {gate.verdict for gate in gates}
    order: tuple[Verdict, ...] = ("fail", "undecided", "pass")
    return next((verdict for verdict in order if verdict in verdicts), None)


def _needed(failures: int, trials: int, prob: float, error: float) -> Needed:
    """Find what would decide an undecided gate."""

    def first(holds: Callable[[int], bool]) -> int | None:
        return first_true(holds, trials + 1, MOST_TRIALS)

    # With the failures held fixed, P(X ≤ failures; n, p₀) falls as n grows: halving finds the first n.
    clean = first(lambda n: within(at_most(failures, n, prob), error))
    if not failures:
        return Needed(clean)
    # share · n is seldom whole. The beta function interpolates the tail between counts; with rounded counts
    # it would rise and fall with n like a saw, and a search by halving could stop at any tooth.
    share = failures / trials
    if share < prob:
        return Needed(clean, "pass", first(lambda n: within(at_most(share * n, n, prob), error)))
    return Needed(clean, "fail", first(lambda n: within(at_least(share * n, n, prob), error)))

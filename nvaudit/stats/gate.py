"""The gate asks whether at most k % of the chips miss a threshold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from nvaudit.stats.binomial import (
    at_least,
    at_most,
    check_confidence,
    check_percentile,
    clopper_pearson,
    first_true,
    within,
)
from nvaudit.stats.kpp import chip_values, reaches

Verdict: TypeAlias = Literal["pass", "fail", "undecided"]

# More trials than this are not a useful answer to "what would decide it".
_MOST_TRIALS = 100_000_000


class GateResult(BaseModel):
    """What the trials say about one threshold."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    threshold: float = Field(description="In the metric's own unit; accuracies are 0 to 1.")
    percentile: float = Field(gt=0, lt=100, description="Percent of the chips that may miss the threshold.")
    confidence: float = Field(description="Of each verdict, one-sided.")
    verdict: Verdict
    failures: int = Field(ge=0, description="Chips that miss the threshold.")
    trials: int = Field(ge=1)
    failure_low: float = Field(description="One-sided lower bound of the share of all chips that miss it.")
    failure_high: float = Field(description="One-sided upper bound of that share.")
    reason: str
    needed: str | None = Field(description="What would decide it; null once it is decided.")
    sequential: bool = Field(
        default=False, description="Chips were drawn until it was decided; bounds hold at any stopping time."
    )


def decide(
    values: ArrayLike, threshold: float, percentile: float, confidence: float, higher_is_better: bool
) -> GateResult:
    """Decide whether P(a < T) ≤ k/100 (for a loss: P(a > T)).

    Parameters
    ----------
    values : array_like, shape (trial,)
        Metric of each simulated chip.
    threshold : float
        T, in the metric's own unit. A chip exactly on it does not miss it.
    percentile : float
        k, between 0 and 100.
    confidence : float
        A verdict is wrong with at most 1 - confidence, for a number of trials fixed beforehand.
    higher_is_better : bool

    Returns
    -------
    GateResult
        ``pass`` if the one-sided Clopper-Pearson upper bound of the failure probability is at most k %,
        ``fail`` if the lower bound is above k %, else ``undecided`` with what would decide it.

    Raises
    ------
    DataError
        If there are no values or one is not finite.
    OptionError
        If the threshold, percentile or confidence makes no sense.

    Examples
    --------
    >>> decide([0.9] * 299, 0.8, 1, 0.95, higher_is_better=True).verdict
    'pass'
    >>> decide([0.9] * 298, 0.8, 1, 0.95, higher_is_better=True).needed
    '1 more trial without a failure would pass (299 in all)'
    """
    array = chip_values(values)
    failures = array.size - int(np.count_nonzero(reaches(array, threshold, higher_is_better)))
    return decide_count(failures, array.size, threshold, percentile, confidence, higher_is_better)


def decide_count(
    failures: int, trials: int, threshold: float, percentile: float, confidence: float, higher_is_better: bool
) -> GateResult:
    """Decide from a count of chips that miss the threshold; see :func:`decide`."""
    prob = float(check_percentile(percentile))
    check_confidence(confidence)
    verdict = verdict_of(failures, trials, percentile, confidence)
    low, high = clopper_pearson(failures, trials, confidence, sided=1)
    return GateResult(
        threshold=threshold,
        percentile=percentile,
        confidence=confidence,
        verdict=verdict,
        failures=failures,
        trials=trials,
        failure_low=low,
        failure_high=high,
        reason=(
            f"{count_text(failures, trials, 'below' if higher_is_better else 'above')} {threshold:.10g}; "
            f"with {percent_text(confidence)} confidence {_bound_text(verdict, low, high)} of all chips are, "
            f"and {'only ' if verdict == 'fail' else ''}{percentile:g} % may be"
        ),
        needed=_needed(failures, trials, prob, 1 - confidence) if verdict == "undecided" else None,
    )


def verdict_of(failures: int, trials: int, percentile: float, confidence: float) -> Verdict:
    """Verdict after ``failures`` in ``trials``; see :func:`decide`."""
    prob = float(check_percentile(percentile))
    error = 1 - confidence
    # The Clopper-Pearson bounds are these two tests, inverted.
    if within(at_most(failures, trials, prob), error):
        return "pass"
    if at_least(failures, trials, prob) < error / (1 + 1e-12):
        return "fail"
    return "undecided"


def overall_verdict(gates: Iterable[GateResult]) -> Verdict | None:
    """One verdict for several gates: the worst of them, or None without a gate."""
    verdicts = {gate.verdict for gate in gates}
    order: tuple[Verdict, ...] = ("fail", "undecided", "pass")
    return next((verdict for verdict in order if verdict in verdicts), None)


def percent_text(prob: float) -> str:
    """Show a probability in percent."""
    return f"{100 * prob:.3g} %"


def count_text(failures: int, trials: int, side: str) -> str:
    """Say how many chips miss a threshold."""
    return f"{failures:,} of {trials:,} {'chip is' if trials == 1 else 'chips are'} {side}"


def _bound_text(verdict: Verdict, low: float, high: float) -> str:
    if verdict == "pass":
        return f"at most {percent_text(high)}"
    if verdict == "fail":
        return f"at least {percent_text(low)}"
    return f"between {percent_text(low)} and {percent_text(high)}"


def _more(count: int) -> str:
    return f"{count:,} more trial{'' if count == 1 else 's'}"


def _needed(failures: int, trials: int, prob: float, error: float) -> str:
    """Say in plain words what would decide an undecided gate."""
    clean = first_true(lambda n: within(at_most(failures, n, prob), error), trials + 1, _MOST_TRIALS)
    best = (
        f"more than {_MOST_TRIALS:,} trials"
        if clean is None
        else f"{_more(clean - trials)} without a {'further ' if failures else ''}failure would pass "
        f"({clean:,} in all)"
    )
    if not failures:
        return best
    share = failures / trials
    if share < prob:
        outcome = "pass"
        total = first_true(lambda n: within(at_most(share * n, n, prob), error), trials + 1, _MOST_TRIALS)
    else:
        outcome = "fail"
        total = first_true(lambda n: within(at_least(share * n, n, prob), error), trials + 1, _MOST_TRIALS)
    if total is None:
        return f"the failure share is too close to {percent_text(prob)} for more trials to settle; {best}"
    return f"about {_more(total - trials)} at this failure share would {outcome}; {best}"

"""A gate as a report holds it: its numbers, and the sentences that say what they mean."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from nvaudit.stats.gate import MOST_TRIALS, Gate, Needed, Verdict, decide_count
from nvaudit.stats.kpp import chip_values, reaches


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
        False for a loss.

    Returns
    -------
    GateResult
        See :func:`nvaudit.stats.gate.decide_count`.

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
    return gate_result(
        decide_count(failures, array.size, threshold, percentile, confidence), higher_is_better
    )


def gate_result(gate: Gate, higher_is_better: bool, stopped: str = "") -> GateResult:
    """Put a gate into words.

    Parameters
    ----------
    higher_is_better : bool
        False for a loss.
    stopped : str
        Why no more chips were drawn, of a sequential gate that is undecided.
    """
    side = "below" if higher_is_better else "above"
    chips = f"{gate.failures:,} of {gate.trials:,} {'chip is' if gate.trials == 1 else 'chips are'} {side}"
    low, high = percent_text(gate.failure_low), percent_text(gate.failure_high)
    bound = {
        "pass": f"at most {high}",
        "fail": f"at least {low}",
        "undecided": f"between {low} and {high}",
    }[gate.verdict]
    needed = None if gate.needed is None else _needed_text(gate, gate.needed, stopped)
    return GateResult(
        **(dataclasses.asdict(gate) | {"needed": needed}),
        reason=(
            f"{chips} {gate.threshold:.10g}; with {percent_text(gate.confidence)} confidence {bound} of all "
            f"chips are, and {'only ' if gate.verdict == 'fail' else ''}{gate.percentile:g} % may be"
        ),
    )


def percent_text(prob: float) -> str:
    """Show a probability in percent."""
    return f"{100 * prob:.3g} %"


def _more(count: int, noun: str) -> str:
    return f"{count:,} more {noun}{'' if count == 1 else 's'}"


def _needed_text(gate: Gate, needed: Needed, stopped: str) -> str:
    """Say what would decide an undecided gate."""
    if needed.clean is None:
        best = f"more than {MOST_TRIALS:,} trials"
    else:
        noun, note = ("chip", "--max-trials") if gate.sequential else ("trial", f"{needed.clean:,} in all")
        further = "further " if gate.failures else ""
        more = _more(needed.clean - gate.trials, noun)
        best = f"{more} without a {further}failure would pass ({note})"
    if gate.sequential:
        return f"{stopped}; {best}"
    if needed.outcome is None:
        return best
    if needed.at_this_share is None:
        share = percent_text(gate.percentile / 100)
        return f"the failure share is too close to {share} for more trials to settle; {best}"
    more = _more(needed.at_this_share - gate.trials, "trial")
    return f"about {more} at this failure share would {needed.outcome}; {best}"

"""The gate on a drop as a report holds it: its numbers, and the sentences that say what they mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from nvaudit.report.wording import (
    confidence_text,
    count_text,
    difference_text,
    kpp_name,
    limit_text,
    value_text,
)
from nvaudit.stats.drop import FormerChips, decide_drop
from nvaudit.stats.gate import Verdict


class DropResult(BaseModel):
    """Whether a KPP is more than allowed below that of the baseline, on the same chips."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    percentile: float = Field(gt=0, lt=100)
    confidence: float = Field(description="Of the verdict and each bound, one-sided, at any stopping time.")
    max_drop: float = Field(ge=0, description="What is allowed, in the metric's own unit.")
    verdict: Verdict
    chips: int = Field(ge=1, description="Chips that both reports have.")
    before: float = Field(description="KPP of the baseline on these chips.")
    after: float = Field(description="KPP on these chips.")
    drop: float = Field(description="What was lost; below zero: gained.")
    drop_low: float | None = Field(description="So much at least was lost; null: the chips give no bound.")
    drop_high: float | None = Field(description="So much at most; null: the chips give no bound.")
    reason: str
    needed: str | None = Field(description="What would decide it; null once it is decided.")


def drop_result(
    before: FormerChips,
    after: NDArray[np.float64],
    max_drop: float,
    percentile: float,
    confidence: float,
    unit: str,
    higher_is_better: bool,
) -> DropResult:
    """Decide the gate on some pairs of chips, and put it into words."""
    measured = decide_drop(before, after, max_drop, percentile, confidence, higher_is_better)
    sign = -1 if higher_is_better else 1  # in words it is a change of the metric
    bounds = (measured.high, measured.low)
    ends = [None if end is None else difference_text(sign * end, unit) for end in bounds]
    reason = (
        f"{value_text(measured.before, unit)} before, {value_text(measured.after, unit)} now "
        f"({difference_text(sign * measured.drop, unit)}) on the same {count_text(measured.pairs, 'chip')}; "
        f"{_bounds_text(ends[0], ends[1], confidence)}"
    )
    needed = None
    if measured.verdict == "undecided":
        needed = "the drop is too close to what is allowed for more chips to settle"
        if measured.needed is None and None in ends:
            needed = "more chips, in the baseline too; these are too few to say how many"
        elif measured.needed is not None:
            needed = (
                f"about {measured.needed:,} chips like these would decide it, in the baseline too "
                f"(made with --all-trials --trials {measured.needed})"
            )
    return DropResult(
        percentile=percentile,
        confidence=confidence,
        max_drop=max_drop,
        verdict=measured.verdict,
        chips=measured.pairs,
        before=measured.before,
        after=measured.after,
        drop=measured.drop,
        drop_low=measured.low,
        drop_high=measured.high,
        reason=reason,
        needed=needed,
    )


def drop_question(drop: DropResult, unit: str, higher_is_better: bool) -> str:
    """Say what the gate asks, the same in every run with the same options."""
    side = "below" if higher_is_better else "above"
    return f"{kpp_name(drop.percentile)} at most {allowed_text(drop.max_drop, unit)} {side} the baseline's"


def allowed_text(max_drop: float, unit: str) -> str:
    """Show a drop that is allowed, unrounded.

    Examples
    --------
    >>> allowed_text(0.01, "fraction"), allowed_text(0.005, "fraction"), allowed_text(0.2, "nats")
    ('1 point', '0.5 points', '0.2')
    """
    shown = limit_text(max_drop, unit).removesuffix(" %")
    return shown if unit != "fraction" else f"{shown} point{'' if shown == '1' else 's'}"


def _bounds_text(low: str | None, high: str | None, confidence: float) -> str:
    """Say between what the true change lies."""
    if low is None and high is None:
        return "these are too few for a bound of the true change"
    sure = f"with {confidence_text(confidence)} confidence{' each' if low and high else ''}"
    if low is None or high is None:
        return f"{sure}, the true change is {'at least' if high is None else 'at most'} {low or high}"
    return f"{sure}, the true change is between {low} and {high}"


def drop_lines(drop: DropResult, unit: str, higher_is_better: bool) -> list[str]:
    """Say the verdict with its reason, and what would decide it."""
    lines = [f"{drop.verdict.upper()}: {drop_question(drop, unit, higher_is_better)}: {drop.reason}"]
    return lines if drop.needed is None else [*lines, f"To decide: {drop.needed}"]


def drop_numbers(drop: DropResult) -> dict[str, float | None]:
    """Give the numbers of the gate."""
    return {
        "max_drop": drop.max_drop,
        "before": drop.before,
        "drop": drop.drop,
        "drop_low": drop.drop_low,
        "drop_high": drop.drop_high,
        "drop_chips": drop.chips,
    }

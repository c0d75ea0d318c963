"""A percentile beyond the sample as a report holds it, and the sentences for why there is none."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nvaudit.report.wording import count_text
from nvaudit.stats.tail import FEWEST, REACH, NoTail, RefusalCode, TailEstimate


class TailRefusal(BaseModel):
    """Why there is no estimate, and what would give one."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    code: RefusalCode
    reason: str
    advice: str


class TailResult(BaseModel):
    """A percentile beyond the sample, or why there is none: ``value`` and ``refusal`` exclude each other."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    percentile: float = Field(gt=0, lt=100)
    confidence: float = Field(description="Nominal; two-sided. It rests on the fitted law.")
    trials: int = Field(ge=1)
    value: float | None = Field(default=None, description="Extrapolated, not a value of any chip.")
    low: float | None = None
    high: float | None = None
    tail_chips: int | None = Field(default=None, description="Worst chips that the value is fitted to.")
    threshold: float | None = Field(default=None, description="Of the metric, where that tail begins.")
    shape: float | None = Field(default=None, description="ξ; negative: the tail ends somewhere.")
    scale: float | None = Field(default=None, description="σ, in the metric's unit.")
    goodness: float | None = Field(default=None, description="p-value of the Anderson-Darling test.")
    joined: tuple[int, ...] = Field(default=(), description="Sizes of the tails whose intervals are joined.")
    refusal: TailRefusal | None = None

    @model_validator(mode="after")
    def _estimate_or_refusal(self) -> TailResult:
        estimate = (self.value, self.low, self.high, self.tail_chips, self.threshold, self.shape, self.scale)
        if len({part is None for part in (*estimate, self.goodness)}) > 1:
            raise ValueError("an estimate has value, low, high and the fit; give all of them or none")
        if (self.value is None) == (self.refusal is None):
            raise ValueError("give either an estimate or a refusal")
        return self


def tail_result(
    estimate: TailEstimate | NoTail, percentile: float, confidence: float, trials: int
) -> TailResult:
    """Put an estimate, or why there is none, into a report.

    Parameters
    ----------
    estimate : TailEstimate or NoTail
        Of :func:`nvaudit.stats.tail.tail_kpp`.
    percentile, confidence, trials
        That it was asked for.
    """
    asked: dict[str, Any] = {"percentile": percentile, "confidence": confidence, "trials": trials}
    if isinstance(estimate, TailEstimate):
        return TailResult(**asked, **dataclasses.asdict(estimate))
    reason, advice = _refusal_words(estimate, percentile, trials)
    return TailResult(**asked, refusal=TailRefusal(code=estimate.code, reason=reason, advice=advice))


def _refusal_words(no_tail: NoTail, percentile: float, trials: int) -> tuple[str, str]:
    """Say why there is no estimate, and what would give one."""
    chips, needed = count_text(trials, "chip"), no_tail.needed or 0
    without_law = f"{needed:,} trials, which bound it without assuming any law"
    if no_tail.known is not None:
        return (
            f"only the {no_tail.known:,} worst chips are known exactly, and the fit needs {2 * FEWEST + 1}",
            "evaluate every chip on every image (--exhaustive)",
        )
    return {
        "inside": (
            f"{trials:,} chips bound this percentile without assuming any law",
            f"ask for it with --percentile {percentile:.10g}",
        ),
        "too_far": (
            f"it lies more than {REACH} times beyond {chips}",
            f"use at least {needed:,} trials",
        ),
        "few_chips": (f"{chips} have too short a tail to fit", f"use at least {needed:,} trials"),
        "too_coarse": (
            "the worst chips take too few different values to see their law",
            f"use more images, or {without_law}",
        ),
        "misfit": (
            f"the worst {no_tail.tail_chips} chips do not follow one smooth law (generalised Pareto; "
            f"Anderson-Darling p = {no_tail.goodness or 0:.2g}), as when some chips fail in a way of their "
            "own",
            f"use {without_law}",
        ),
    }[no_tail.code]

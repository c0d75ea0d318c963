"""What a report says about a percentile beyond the sample."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TailRefusal(BaseModel):
    """Why there is no estimate, and what would give one."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    code: Literal["inside", "too_far", "few_chips", "too_coarse", "misfit"]
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

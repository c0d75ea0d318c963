"""The metric of rare chips as a report holds it: estimated by splitting, or why there is none."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _RarePart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)


class ChipMove(_RarePart):
    """One move: what it keeps of the chip before, 0 to 1, and the name of the chip that it mixes in."""

    keep: float = Field(ge=0, le=1)
    towards: str


class RareAddress(_RarePart):
    """Which chip: the one that it began at, and how it was reached from there."""

    start: str
    moves: tuple[ChipMove, ...] = ()
    value: float = Field(description="Its metric.")


class RareChip(_RarePart):
    """The metric that a share of the chips, far too small to be sampled, does not reach."""

    probability: float = Field(gt=0, lt=1)
    value: float | None = Field(description="Null where the estimate is not to be trusted; note says why.")
    low: float | None = Field(description="Of the interval; null where no chip was bad enough to bound it.")
    high: float | None
    confidence: float = Field(description="Two-sided, from the spread of the runs; asymptotic.")
    evaluations: int = Field(ge=1, description="Chips that were evaluated for all probabilities together.")
    runs: int = Field(ge=2, description="Independent runs, each without bias.")
    note: str = Field(description="What the estimate was checked against, or why there is none.")
    chip: RareAddress | None = Field(default=None, description="A chip of about this metric, to be replayed.")

    @model_validator(mode="after")
    def _value_or_none(self) -> RareChip:
        if self.value is None and (self.low is not None or self.high is not None):
            raise ValueError("an estimate that is not given has no interval")
        return self


class RareTailPoint(_RarePart):
    """A point of the tail."""

    probability: float
    value: float
    low: float | None
    high: float | None


class RareTail(_RarePart):
    """The tail that the runs have seen."""

    points: tuple[RareTailPoint, ...]
    levels: int = Field(description="Levels that the runs climbed.")
    states: int = Field(description="Chips in each pool of a run.")
    moves: int = Field(description="Moves between two chips of a pool; every second run makes twice as many.")
    acceptance: float = Field(description="Share of the moves that were accepted.")

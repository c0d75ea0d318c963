"""The metric of rare chips as a report holds it: estimated by splitting, or why there is none."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nvaudit.arrays import Floats
from nvaudit.report.paired import Difference
from nvaudit.stats.splitting import mean_of_runs


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
    value: float | None = Field(description="Null where none is to be trusted, or the run ended before; note "
                               "says why.")  # fmt: skip
    low: float | None = Field(description="Of the interval; null where no chip was bad enough to bound it.")
    high: float | None
    confidence: float = Field(description="Two-sided, from the spread of the runs; asymptotic.")
    evaluations: int = Field(ge=0, description="Chips that were evaluated for all probabilities together.")
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


class RareTensor(_RarePart):
    """What the devices of one tensor do in rare chips, against those of ordinary chips."""

    name: str
    given_back: Difference = Field(
        description="From the rare chips to the same with this tensor's devices of ordinary chips."
    )
    alone: Difference = Field(
        description="From ordinary chips to the same with this tensor's devices of the rare ones."
    )
    share: float | None = Field(
        description="Of the gap between ordinary and rare chips: half of what this tensor takes away alone "
        "and what it gives back. Null where there is no gap."
    )


class RareAttribution(_RarePart):
    """Which tensors make rare chips what they are; the largest share first."""

    probability: float
    chips: int = Field(description="Rare chips about the value, one of each run; as many ordinary ones.")
    confidence: float
    rare: float = Field(description="Mean metric of the rare chips.")
    ordinary: float = Field(description="Mean metric of the ordinary ones: the first of the audit.")
    tensors: tuple[RareTensor, ...]


def rare_attribution(
    probability: float, names: Sequence[str], values: Floats, confidence: float
) -> RareAttribution:
    """Work out what each tensor does, with Student's intervals over the chips, which are of different runs.

    Parameters
    ----------
    values : ndarray, float64, shape (chip, 2, 1 + tensor)
        Metric of a rare chip and of an ordinary one; as they are, and with each tensor of the other.
    """
    rare, ordinary = values[:, 0], values[:, 1]
    gap = float((rare[:, 0] - ordinary[:, 0]).mean())

    def difference(change: Floats) -> Difference:
        value, low, high = mean_of_runs(change, confidence)
        return Difference(value=value, low=low, high=high)

    tensors = []
    for place, name in enumerate(names, 1):
        given_back = difference(rare[:, place] - rare[:, 0])
        alone = difference(ordinary[:, place] - ordinary[:, 0])
        share = (alone.value - given_back.value) / (2 * gap) if gap else None
        tensors.append(RareTensor(name=name, given_back=given_back, alone=alone, share=share))
    tensors.sort(key=lambda tensor: -(tensor.share or 0.0))
    return RareAttribution(
        probability=probability,
        chips=len(values),
        confidence=confidence,
        rare=float(rare[:, 0].mean()),
        ordinary=float(ordinary[:, 0].mean()),
        tensors=tuple(tensors),
    )

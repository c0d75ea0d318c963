"""What workers answer: of a chip, and of the first look at a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.providers import Ran


@dataclass(frozen=True)
class Outcome:
    """What became of one chip.

    Attributes
    ----------
    value : float
        Its metric over the set; of a race, an unbiased estimate of it.
    images : int
        Samples that it was run on.
    gap : int or None
        Of a race that was decided: between which bands the chip lies, 0 below the first.
    undefined : int
        Samples with an output that is not a number.
    rest : Outcome or None
        Of a race that was not decided: the chip on every sample, of which the race had not seen ``images``.
    scores : ndarray, float64, shape (sample,), or None
        Of a race for certain: what it saw, NaN elsewhere, from which the chip may go on.
    """

    value: float
    images: int
    seconds: float
    gap: int | None = None
    undefined: int = 0
    rest: Outcome | None = None
    scores: NDArray[np.float64] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Probe:
    """The unmodified model's first outputs, what they ran on, and how far re-batching moves them.

    Attributes
    ----------
    rebatch_error : float or None
        None where the model is not re-batched.
    rows : int
        Rows of the output that belong to one sample where the model joins them, [N·T, C]; else 1.
    """

    output: NDArray[Any]
    rebatch_error: float | None
    ran: Ran
    rows: int = 1

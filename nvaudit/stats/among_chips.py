"""Where the value of one chip stands among those of simulated chips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.stats.binomial import clopper_pearson


@dataclass(frozen=True)
class AmongChips:
    """Where a value lies among others.

    Attributes
    ----------
    worse, equal : int
        Of the others.
    share : float
        That is worse; equal ones count half.
    low, high : float
        Clopper-Pearson interval of it.
    """

    worse: int
    equal: int
    share: float
    low: float
    high: float


def among_chips(values: Floats, value: float, higher_is_better: bool, confidence: float) -> AmongChips:
    """Say where a value lies among those of simulated chips.

    Examples
    --------
    >>> found = among_chips(np.arange(10.0), 2.0, True, 0.95)
    >>> found.worse, found.equal, found.share, round(found.low, 3), round(found.high, 3)
    (2, 1, 0.25, 0.025, 0.652)
    >>> among_chips(np.arange(10.0), 2.0, False, 0.95).worse
    7
    """
    sign, n = 1.0 if higher_is_better else -1.0, len(values)
    worse = int(np.count_nonzero(sign * values < sign * value))
    equal = int(np.count_nonzero(values == value))
    low, high = clopper_pearson(worse, n, confidence)[0], clopper_pearson(worse + equal, n, confidence)[1]
    return AmongChips(worse, equal, (worse + equal / 2) / n, low, high)

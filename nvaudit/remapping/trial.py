"""What a candidate measures, and when it is clear that it is behind."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

WORST = 0.25
"""The share of the chips, counted from the worst, whose mean ranks candidates: a KPP of few chips is one
chip, and chance decides between close candidates."""

FIRST = 4
"""Chips after which a candidate that is behind by more than chance is given up."""


@dataclass(frozen=True)
class Trial:
    """What a candidate measures.

    Attributes
    ----------
    nominal : float
        Metric of the candidate without quantisation and noise.
    quantised : float
        Metric of its codes, without noise; NaN where no chip was run.
    chips : ndarray, float64, shape (chip,)
        Fewer than all where it was given up.
    higher_is_better : bool
    """

    nominal: float
    quantised: float
    chips: NDArray[np.float64]
    higher_is_better: bool

    @property
    def sign(self) -> int:
        """Turns the metric into one of which more is better."""
        return 1 if self.higher_is_better else -1

    @property
    def worst(self) -> float:
        """Mean of the worst quarter of the chips; NaN of none."""
        if not len(self.chips):
            return float("nan")
        ordered = np.sort(self.sign * self.chips)
        return self.sign * float(ordered[: max(1, int(np.ceil(WORST * len(ordered))))].mean())

    @property
    def mean(self) -> float:
        """Mean of all chips; NaN of none."""
        return float(self.chips.mean()) if len(self.chips) else float("nan")

    def beats(self, other: Trial) -> bool:
        """Whether the worst chips are better and the mean is not behind; it decides between equals."""
        sign, count = self.sign, len(other.chips)
        mine, its = (sign * self.worst, sign * self.mean), (sign * other.worst, sign * other.mean)
        return len(self.chips) == count > 0 and mine > its and not self.behind(other)

    def on(self, chips: int) -> Trial:
        """What the first chips say."""
        return replace(self, chips=self.chips[:chips])

    def behind(self, rival: Trial) -> bool:
        """Whether it is worse than a rival on the same chips, by more than a standard error.

        Examples
        --------
        >>> rival = Trial(1.0, 1.0, np.array([0.8, 0.7, 0.9, 0.8, 0.8]), True)
        >>> Trial(1.0, 1.0, np.array([0.7, 0.6, 0.8, 0.7]), True).behind(rival)
        True
        >>> Trial(1.0, 1.0, np.array([0.7, 0.8, 0.9, 0.8]), True).behind(rival)
        False
        """
        count = min(len(self.chips), len(rival.chips))
        if count < 2:
            return False
        gain = self.sign * (self.chips[:count] - rival.chips[:count])
        return not float(gain.mean()) >= -float(gain.std(ddof=1)) / np.sqrt(count)

"""What the result of a training may lose without noise, and what a network is worth beside that."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nvaudit.retrain.feed import Feed
from nvaudit.retrain.score import Scorer

FREE_LOSS = 0.015
"""Where no limit is given: what a network may lose without noise before that counts against its KPP."""

_ROUNDING = 1e-9
"""Differences of two metrics are not exact."""


@dataclass(frozen=True)
class Budget:
    """What is lost without noise, on all held-out samples, and a bound on it.

    Attributes
    ----------
    scorer : Scorer
        Of the network in training, on these samples.
    allowed : float or None
        In the unit of the metric; None: no network is ruled out.
    given : float
        Metric of the given network, quantised, without noise.
    """

    scorer: Scorer
    allowed: float | None
    given: float

    def loss(self) -> float:
        """How much worse the network has become without noise; negative: better."""
        change = self.given - self.scorer.clean()
        return change if self.scorer.metric.higher_is_better else -change

    def affords(self, loss: float) -> bool:
        """Whether this loss is allowed."""
        return self.allowed is None or loss <= self.allowed + _ROUNDING

    def is_free(self, loss: float) -> bool:
        """Whether a loss counts nothing: within the bound, or where there is none within ``FREE_LOSS``."""
        if self.allowed is not None:
            return self.affords(loss)
        return self.scorer.metric.unit != "fraction" or loss <= FREE_LOSS + _ROUNDING

    def worth(self, kpp: float, loss: float) -> float:
        """What a network is chosen by; higher is better.

        Its KPP, less what it lost beyond ``FREE_LOSS``: from there on a point without noise weighs as much
        as a point of KPP. With a bound of the user's, the KPP alone, and nothing beyond the bound.
        """
        value = kpp if self.scorer.metric.higher_is_better else -kpp
        if self.is_free(loss):
            return value
        return value - (loss - FREE_LOSS) if self.affords(loss) else -math.inf


def held_out_scorer(scorer: Scorer, held_out: Feed) -> Scorer:
    """Make a scorer of the same network on all held-out samples; it is still the unmodified one."""
    made = replace(scorer, feed=held_out, _targets={})
    made.keep_reference()
    return made


def make_budget(scorer: Scorer, allowed: float | None) -> Budget:
    """Watch the loss of the network that a scorer scores, which has not been trained yet."""
    return Budget(scorer, allowed, scorer.clean())

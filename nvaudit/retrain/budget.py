"""What the result of a training may lose without noise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from nvaudit.retrain.feed import Feed
from nvaudit.retrain.score import Scorer

_ROUNDING = 1e-9
"""Differences of two metrics are not exact."""


@dataclass(frozen=True)
class Budget:
    """A bound on the loss without noise, on all held-out samples.

    Attributes
    ----------
    scorer : Scorer
        Of the network in training, on these samples.
    allowed : float
        In the unit of the metric.
    given : float
        Metric of the given network, quantised, without noise.
    """

    scorer: Scorer
    allowed: float
    given: float = field(init=False)

    def __post_init__(self) -> None:
        """Measure the network, which is still the given one."""
        self.scorer.keep_reference()
        object.__setattr__(self, "given", self.scorer.clean())

    def loss(self) -> float:
        """How much worse the network has become without noise; negative: better."""
        change = self.given - self.scorer.clean()
        return change if self.scorer.metric.higher_is_better else -change

    def affords(self, loss: float) -> bool:
        """Whether this loss is allowed."""
        return loss <= self.allowed + _ROUNDING


def make_budget(scorer: Scorer, held_out: Feed, allowed: float) -> Budget:
    """Bound the loss of the network that a scorer scores, which is still the given one."""
    return Budget(replace(scorer, feed=held_out, _targets={}), allowed)

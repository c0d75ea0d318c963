"""Scales of channels: one positive number per channel of an activation, tied together by the graph.

Every activation that can be rescaled channel by channel has a label: the axis that counts its channels and,
for each of them, the variable that scales it. Variable 0 is the scale that must stay 1. Operators either
hand labels on, tie variables together, or are a barrier: then what they take keeps its scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

FIXED = 0
"""The variable that stands for a scale of 1."""


@dataclass(frozen=True)
class Label:
    """How an activation may be rescaled.

    Attributes
    ----------
    ids : ndarray, int64, shape (channel,)
        The variable of each channel.
    """

    axis: int
    rank: int
    ids: Ids

    def aligned(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Give one number per channel a shape that broadcasts against the activation."""
        return numbers.reshape([-1 if axis == self.axis else 1 for axis in range(self.rank)])


@dataclass
class Variables:
    """Scales, and which of them are equal.

    Attributes
    ----------
    count : int
        Variables so far; the first is :data:`FIXED`.
    reasons : dict of int to str
        Why a variable was tied to the fixed one: the first reason.
    """

    count: int = 1
    reasons: dict[int, str] = field(default_factory=dict)
    _pairs: list[tuple[Ids, Ids]] = field(default_factory=list)

    def fresh(self, size: int) -> Ids:
        """Make variables that nothing ties yet."""
        self.count += size
        return np.arange(self.count - size, self.count, dtype=np.int64)

    def tie(self, first: Ids, second: Ids) -> None:
        """Make variables equal, pair by pair."""
        one, two = np.broadcast_arrays(first, second)
        self._pairs.append((one.reshape(-1), two.reshape(-1)))

    def fix(self, ids: Ids, reason: str) -> None:
        """Tie variables to the fixed one."""
        self.tie(ids, np.asarray([FIXED], np.int64))
        for number in np.unique(ids).tolist():
            self.reasons.setdefault(number, reason)

    def classes(self) -> tuple[Ids, dict[int, str]]:
        """Number the classes of equal variables.

        Returns
        -------
        tuple of ndarray, int64, shape (variable,), and dict
            The class of each variable; class 0 is fixed. And for each variable in it why, where known.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = self._pairs or [(np.zeros(1, np.int64), np.zeros(1, np.int64))]
        first = np.concatenate([a for a, _ in pairs])
        second = np.concatenate([b for _, b in pairs])
        ones = np.ones(len(first), np.int8)
        graph = coo_array((ones, (first, second)), shape=(self.count, self.count))
        raw = np.asarray(connected_components(graph, directed=False)[1], np.int64)
        _, number = np.unique(np.concatenate([raw[:1], raw]), return_inverse=True)
        # The class of variable 0 becomes 0; the others keep their order.
        zero = number[0]
        classes = np.where(number == zero, 0, np.where(number < zero, number + 1, number))[1:]
        return classes.astype(np.int64), dict(self.reasons)

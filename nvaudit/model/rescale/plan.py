"""What can be rescaled in a model, and the edits that a choice of scales asks for.

Every activation that can be rescaled channel by channel has a label: the axis that counts its channels and,
for each of them, the variable that scales it, a positive number. Variable 0 is the scale that must stay 1.
Operators either hand labels on, tie variables together, or are a barrier: then what they take keeps its
scale.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nvaudit.arrays import Ids

Insert = Literal["none", "columns", "both"]
"""Where digital factors may be added: nowhere, behind weights, or behind and before them."""


@dataclass(frozen=True)
class ScalableWeight:
    """A weight between two rescalable activations.

    Attributes
    ----------
    op, node : str
        Its operator, and the operator's name.
    source, result : str
        Names of the activations it takes and makes.
    source_axis, result_axis : int
        Their channel axes, counted from the end.
    source_at, result_at : ndarray, int64, shape broadcastable to the first two axes of the primary layout
        Which channel of the source and of the result each weight belongs to.
    source_ids, result_ids : ndarray, int64, same shapes
        The variables of these channels.
    channels : int
        Channels of the result.
    gain : ndarray, float64, shape (channel,), or None
        Digital factor of each result channel that follows directly, where one does.
    """

    key: str
    op: str
    node: str
    source: str
    result: str
    source_axis: int
    result_axis: int
    source_at: Ids
    result_at: Ids
    source_ids: Ids
    result_ids: Ids
    channels: int
    gain: NDArray[np.float64] | None


@dataclass(frozen=True)
class ConstantEdit:
    """Input ``index`` of a node is multiplied by t[up] / t[down], aligned as the label says."""

    node: ir.Node
    index: int
    up: Ids
    down: Ids
    label: Label


@dataclass(frozen=True)
class NormEdit:
    """A batch normalisation from scale ``taken`` to scale ``made``."""

    node: ir.Node
    taken: Ids
    made: Ids


@dataclass(frozen=True)
class Insertion:
    """A new factor t[up] / t[down] behind (``index`` None) or at an input of a node."""

    node: ir.Node
    index: int | None
    up: Ids
    down: Ids
    label: Label
    dtype: ir.DataType


@dataclass
class RescalePlan:
    """What can be rescaled, and every edit that a choice of scales asks for."""

    model: ir.Model
    variables: Variables
    layers: list[ScalableWeight] = field(default_factory=list)
    edits: list[ConstantEdit | NormEdit | Insertion] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


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

"""What a batch rule sees of a node, and what it answers.

The analysis follows the batch axis through the graph. A value is in one of three states: it carries one
sample per index of an axis, it is shared by all samples, or nothing is known about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnx_ir as ir

#: Constants longer than this are weights, not axes or shapes, and are never read by a rule.
MAX_PARAMETER_SIZE = 4096


class NoBatchAxis(Enum):
    """The states of a value that has no batch axis."""

    SHARED = "the same for every sample of a batch"
    UNKNOWN = "not known"


SHARED = NoBatchAxis.SHARED
UNKNOWN = NoBatchAxis.UNKNOWN

AxisState = int | NoBatchAxis
"""The batch axis of a value, or why there is none."""

Dims = tuple[int | None, ...]
"""A shape; None where a dimension is not known."""


@dataclass(frozen=True)
class Operand:
    """One input of a node.

    Attributes
    ----------
    state : int or NoBatchAxis
        Its batch axis, if it has one.
    shape : tuple of (int or None), or None
        Its shape as far as it is known.
    value : onnx_ir.Value or None
        Where constants are read from.
    """

    state: AxisState
    shape: Dims | None
    value: ir.Value | None = None

    @property
    def rank(self) -> int | None:
        """Number of dimensions, or None."""
        return None if self.shape is None else len(self.shape)

    @property
    def is_single(self) -> bool:
        """Whether the tensor surely holds exactly one number."""
        return self.shape is not None and all(dim == 1 for dim in self.shape)

    def one_at(self, from_right: int) -> bool:
        """Whether the dimension at a position counted from the right (1 is the last) is absent or 1."""
        if self.shape is None:
            return False
        return from_right > len(self.shape) or self.shape[-from_right] == 1

    def numbers(self) -> np.ndarray | None:
        """Read its constant content, flattened, or None when it is computed, too large or unreadable."""
        tensor = constant_tensor(self.value)
        if tensor is None or tensor.size > MAX_PARAMETER_SIZE:
            return None
        return np.asarray(tensor.numpy()).reshape(-1)

    def ints(self) -> tuple[int, ...] | None:
        """Read its constant content as integers, or None."""
        numbers = self.numbers()
        return None if numbers is None else tuple(int(n) for n in numbers)


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Find the tensor of an initializer or a Constant node, through Identity; None if there is none."""
    while value is not None:
        producer = value.producer()
        if producer is None or producer.op_type != "Identity" or producer.domain != "":
            break
        value = producer.inputs[0] if producer.inputs else None
    if value is None:
        return None
    try:
        return ir.convenience.get_const_tensor(value)
    except (TypeError, ValueError):  # a sparse or malformed Constant: no rule needs it
        return None


@dataclass(frozen=True)
class NodeView:
    """A node as the rules see it.

    Attributes
    ----------
    node : onnx_ir.Node
        The node itself, for its attributes.
    version : int
        Opset version of the standard operators.
    batch : int
        Number of samples for which the shapes were inferred.
    inputs : tuple of (Operand or None)
        None stands for an optional input left out.
    """

    node: ir.Node
    version: int
    batch: int
    inputs: tuple[Operand | None, ...]

    @property
    def x(self) -> Operand:
        """The first input."""
        first = self.inputs[0] if self.inputs else None
        return Operand(UNKNOWN, None) if first is None else first

    @property
    def label(self) -> str:
        """Operator and name, for people."""
        name = self.node.name or next((out.name for out in self.node.outputs if out.name), "")
        return f"{self.node.op_type} '{name}'"

    def operand(self, index: int) -> Operand | None:
        """Return an optional input."""
        return self.inputs[index] if index < len(self.inputs) else None

    def attribute(self, name: str) -> ir.Attr | None:
        """Return an attribute, unless it is missing."""
        return self.node.attributes.get(name)

    def int_attribute(self, name: str, default: int) -> int:
        """Read an integer attribute."""
        attr = self.attribute(name)
        return default if attr is None else attr.as_int()

    def text_attribute(self, name: str, default: str) -> str:
        """Read a text attribute."""
        attr = self.attribute(name)
        return default if attr is None else attr.as_string()

    def list_of(self, name: str, index: int, since: int) -> tuple[int, ...] | None:
        """Read integers that are an attribute before opset `since` and input number `index` from then on.

        Returns
        -------
        tuple of int or None
            None when they are computed at run time; see `lacks` for those left out.
        """
        if self.version < since:
            attr = self.attribute(name)
            return None if attr is None else tuple(attr.as_ints())
        given = self.operand(index)
        return None if given is None else given.ints()

    def lacks(self, name: str, index: int, since: int) -> bool:
        """Whether the integers of `list_of` are left out."""
        return self.attribute(name) is None if self.version < since else self.operand(index) is None

    def is_used(self, output: int) -> bool:
        """Whether anything reads an output."""
        if output >= len(self.node.outputs):
            return False
        value = self.node.outputs[output]
        return bool(value.uses()) or value.is_graph_output()

    def shared(self, *indices: int) -> bool:
        """Whether the inputs at these positions (default: all but the first) are left out or shared."""
        chosen = indices or range(1, len(self.inputs))
        return all((op := self.operand(i)) is None or op.state is SHARED for i in chosen)


@dataclass(frozen=True)
class RuleAnswer:
    """The answer of a rule.

    Attributes
    ----------
    states : tuple of (int or NoBatchAxis)
        One per output.
    problem : str
        Why the samples are not provably kept apart; empty when they are.
    coupled : bool
        Whether it is certain that the samples of a batch influence each other.
    by_range : bool
        Of what is coupled: only through the range that a tensor is quantised in.
    reshape : tuple of int or None
        The shape that a Reshape must get for the batch to be free.
    """

    states: tuple[AxisState, ...]
    problem: str = ""
    coupled: bool = False
    by_range: bool = False
    reshape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Influence:
    """What is known of how the samples of a batch influence each other on the way to a value.

    Attributes
    ----------
    unproved : str
        The first node on the way that is not proved to keep samples apart; empty if there is none.
    mixed : str
        The first that certainly makes them influence each other.
    by_range : str
        The first that makes them do so only through the range that a tensor is quantised in.
    """

    unproved: str = ""
    mixed: str = ""
    by_range: str = ""

    def __or__(self, other: Influence) -> Influence:
        if other is NO_INFLUENCE or self is other:
            return self
        return Influence(
            self.unproved or other.unproved, self.mixed or other.mixed, self.by_range or other.by_range
        )

    @property
    def proved_apart(self) -> bool:
        """Whether every node on the way is proved to keep samples apart."""
        return not (self.unproved or self.mixed or self.by_range)

    @property
    def why(self) -> str:
        """The node that tells most, for people."""
        return self.mixed or self.by_range or self.unproved


NO_INFLUENCE = Influence()

BatchRule = Callable[[NodeView], RuleAnswer]


def keep(view: NodeView, state: AxisState) -> RuleAnswer:
    """Answer that samples are kept apart, with all outputs in one state."""
    return RuleAnswer((state,) * len(view.node.outputs))


def refuse(view: NodeView, why: str, state: AxisState = UNKNOWN) -> RuleAnswer:
    """Answer that nothing is proved."""
    return RuleAnswer((state,) * len(view.node.outputs), f"{view.label} {why}")


def mixes(view: NodeView, why: str, state: AxisState = UNKNOWN) -> RuleAnswer:
    """Answer that the samples of a batch influence each other."""
    return RuleAnswer((state,) * len(view.node.outputs), f"{view.label} {why}", coupled=True)


def normalise(axis: int, rank: int | None) -> int | None:
    """Return a non-negative axis, or None when it counts from the right of an unknown rank."""
    if axis >= 0:
        return axis
    return None if rank is None else axis + rank


def normalise_all(axes: Sequence[int], rank: int | None) -> tuple[int, ...] | None:
    """Return non-negative axes, or None when one of them cannot be placed."""
    placed = tuple(normalise(axis, rank) for axis in axes)
    return None if any(axis is None for axis in placed) else tuple(a for a in placed if a is not None)


def broadcast(view: NodeView, operands: Sequence[Operand]) -> RuleAnswer:
    """Combine element by element, with dimensions aligned from the right.

    Samples stay apart if all batched operands have the batch at the same place and every shared one has
    size 1 (or nothing) there.
    """
    # Shapes align from the right, so rank - axis says where a batch lies whatever the ranks are.
    places = {op.rank - op.state for op in operands if isinstance(op.state, int) and op.rank is not None}
    ranks = [op.rank for op in operands if op.rank is not None]
    if len(ranks) < len(operands):
        return refuse(view, "has an input of unknown rank")
    # At two places y[i, j] = f(a[i], b[j]) would pair each sample with every other.
    if len(places) != 1:
        return refuse(view, "aligns the batch axis of one input with another axis of the other")
    place = places.pop()
    # A shared operand with as many entries as the present batch gives sample i a number of its own, and fits
    # no other batch size.
    for op in operands:
        if op.state is SHARED and not op.one_at(place):
            return refuse(view, f"has a constant of shape {_text(op.shape)} that spans the batch axis")
    return keep(view, max(ranks) - place)


def _text(shape: Dims | None) -> str:
    """Write a shape for people."""
    return "?" if shape is None else "[" + ",".join("?" if d is None else str(d) for d in shape) + "]"

"""Stacks of matrices of which the graph picks some before it multiplies by them: the experts of a mixture.

The stack is constant, what is picked is not. The operator that picks takes the stack as its operand, so that
is where the weight stands; what it is to the product tells its channels and its crossbars.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from nvaudit.model.chains import Ints, listed_axes
from nvaudit.model.layout import Shape
from nvaudit.model.operators import operator_of
from nvaudit.model.roles import IsConstant, Role, find_role
from nvaudit.model.walk import attribute, operand

MAX_DISTANCE = 16
"""Operators between the one that picks and the product."""


@dataclass(frozen=True)
class _PickedAxis:
    """An axis of what was picked: its size, and the axis of the stack that it is; None for another one."""

    size: int
    source: int | None


_Axes = tuple[_PickedAxis, ...]


def find_pick(node: ir.Node, index: int, shape: Shape, is_constant: IsConstant, ints: Ints) -> Role | None:
    """Find the role of a constant stack from which an operator picks.

    Returns
    -------
    Role or None
        None where no matrices are picked (rows of a table are embeddings), or no product takes them.
    """
    product, chosen = None, []
    rule = _PICKS.get(node.op_type) if node.domain == "" and len(shape) > 1 else None
    for value, axes in [] if rule is None else rule(node, index, shape, ints):
        # Axes of the stack that are gone from what was picked chose the matrix: each of their positions is
        # a crossbar matrix of its own.
        own = {axis.source for axis in axes} - {None}
        chosen = [axis for axis in range(len(shape)) if axis not in own]
        product = _product(value, axes, is_constant, ints, MAX_DISTANCE)
        if product is not None:
            break
    if product is None:
        return None
    role, last, kind = product
    matrix = role.matrix
    sources = {last[axis].source for axis in role.channel_axes} - {None}
    channels = sorted({*chosen, *(axis for axis in sources if axis is not None and axis >= 0)})
    count = math.prod(shape[axis] for axis in chosen) * matrix.groups
    return replace(
        role,
        channel_axes=tuple(channels),
        matrix=replace(matrix, groups=count),
        product=f"{kind}, picked by {node.op_type}",
    )


def picks(node: ir.Node) -> bool:
    """Whether an operator may pick from a stack."""
    return node.domain == "" and node.op_type in _PICKS


_Picked = list[tuple[ir.Value, _Axes]]
"""What holds the picked items, and its axes; several where their number is not known, likely ones first."""


def _rest(shape: Shape, gone: set[int]) -> _Axes:
    return tuple(_PickedAxis(size, axis) for axis, size in enumerate(shape) if axis not in gone)


def _gather(node: ir.Node, index: int, shape: Shape, ints: Ints) -> _Picked:
    indices = operand(node, 1)
    if index or indices is None:
        return []
    axis = attribute(node, "axis", 0) % len(shape)
    ranks = (1, 2, 0, 3) if indices.shape is None else (len(indices.shape),)
    axes = _rest(shape, set())
    return [
        (node.outputs[0], (*axes[:axis], *(_PickedAxis(1, None) for _ in range(rank)), *axes[axis + 1 :]))
        for rank in ranks
    ]


def _gather_nd(node: ir.Node, index: int, shape: Shape, ints: Ints) -> _Picked:
    indices = operand(node, 1)
    dims = None if indices is None or indices.shape is None else list(indices.shape)
    if index or not dims or not isinstance(dims[-1], int) or attribute(node, "batch_dims", 0):
        return []
    batch = tuple(_PickedAxis(1, None) for _ in dims[:-1])
    return [(node.outputs[0], (*batch, *_rest(shape, set(range(dims[-1])))))]


def _slice(node: ir.Node, index: int, shape: Shape, ints: Ints) -> _Picked:
    given = operand(node, 3)
    axes = None if given is None else ints(given)
    if index or axes is None:
        return []
    cut = {axis % len(shape) for axis in axes}
    kept = tuple(
        _PickedAxis(1, None) if axis in cut else _PickedAxis(size, axis) for axis, size in enumerate(shape)
    )
    return [(node.outputs[0], kept)]


def _scan(node: ir.Node, index: int, shape: Shape, ints: Ints) -> _Picked:
    """Scan gives its body one slice of each scanned input after the other."""
    body, scanned = node.attributes.get("body"), attribute(node, "num_scan_inputs", 0)
    first = len(node.inputs) - scanned
    if body is None or index < first:
        return []
    axes = attribute(node, "scan_input_axes", (0,) * scanned)
    return [(body.as_graph().inputs[index], _rest(shape, {axes[index - first] % len(shape)}))]


_Pick = Callable[[ir.Node, int, Shape, Ints], _Picked]
_PICKS: dict[str, _Pick] = {"Gather": _gather, "GatherND": _gather_nd, "Slice": _slice, "Scan": _scan}


def _product(
    value: ir.Value, axes: _Axes, is_constant: IsConstant, ints: Ints, left: int
) -> tuple[Role, _Axes, str] | None:
    """The first product that takes what was picked as a matrix."""
    for use in value.uses():
        node = use.node
        if not node.outputs:
            continue
        role = find_role(node, use.idx, tuple(axis.size for axis in axes), is_constant)
        # Rows and columns must both be axes of the stack: with one of them it is a row of a table, an
        # embedding.
        if role is not None and role.decode is None and len({a.source for a in axes} - {None}) >= 2:
            if _spans(node, role, axes):
                return role, axes, node.op_type
            continue
        moved = _moved(node, use.idx, axes, ints) if left else None
        behind = None if moved is None else _product(node.outputs[0], moved, is_constant, ints, left - 1)
        if behind is not None:
            return behind
    return None


def _spans(node: ir.Node, role: Role, axes: _Axes) -> bool:
    """Whether rows and columns both come from the stack: else single rows of a table are looked up."""
    if node.op_type == "Einsum":
        return role.matrix.cols > 1  # axes of the picks have size 1 here
    operator = operator_of(node)
    stacked = operator is not None and operator.family in ("matrix product", "packed")
    return not stacked or all(axis.source is not None for axis in axes[-2:])


def _moved(node: ir.Node, index: int, axes: _Axes, ints: Ints) -> _Axes | None:
    """Axes behind an operator that keeps every element; None behind another one."""
    if index or node.domain:
        return None
    if node.op_type in ("Identity", "Cast"):
        return axes
    rule = _MOVES.get(node.op_type)
    return None if rule is None else rule(node, axes, ints)


def _transposed(node: ir.Node, axes: _Axes, ints: Ints) -> _Axes | None:
    perm = attribute(node, "perm", tuple(reversed(range(len(axes)))))
    return tuple(axes[axis] for axis in perm) if sorted(perm) == list(range(len(axes))) else None


def _squeezed(node: ir.Node, axes: _Axes, ints: Ints) -> _Axes | None:
    named = listed_axes(node, ints)
    if not named:
        return tuple(axis for axis in axes if axis.size != 1)
    gone = {axis % len(axes) for axis in named}
    return tuple(axis for place, axis in enumerate(axes) if place not in gone)


def _unsqueezed(node: ir.Node, axes: _Axes, ints: Ints) -> _Axes | None:
    named = listed_axes(node, ints)
    if not named:
        return None
    rank = len(axes) + len(named)
    added, rest = {axis % rank for axis in named}, iter(axes)
    return tuple(_PickedAxis(1, None) if place in added else next(rest) for place in range(rank))


def _reshaped(node: ir.Node, axes: _Axes, ints: Ints) -> _Axes | None:
    """Another shape of each picked item; its last axes hold as many elements as the item."""
    target = operand(node, 1)
    shape = None if target is None else ints(target)
    item = [axis for axis in axes if axis.source is not None]
    size = math.prod(axis.size for axis in item)
    if shape is None:
        return axes  # computed from what is fed: only the number of picks can change
    last: list[int] = []
    for dim in reversed(shape):
        # From the end backwards, until the axes hold as many elements as one item: what stands before
        # counts picks.
        if math.prod(last) * dim == size and dim > 0:
            last.insert(0, dim)
            break
        if dim <= 0:
            return None
        last.insert(0, dim)
    if math.prod(last) != size:
        return None
    before = tuple(_PickedAxis(1, None) for _ in shape[: len(shape) - len(last)])
    if [axis.size for axis in item] == last:
        return (*before, *item)
    # An item that was stored flat: each axis of it is a part of the stored one.
    return (*before, *(_PickedAxis(dim, _PART - place) for place, dim in enumerate(last)))


_PART = -1
_MOVES: dict[str, Callable[[ir.Node, _Axes, Ints], _Axes | None]] = {
    "Transpose": _transposed,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Reshape": _reshaped,
}

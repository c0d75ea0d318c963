"""Broadcasting of operator sets before 7, put as numpy broadcasts.

Until set 6 the second operand of an element-wise operator stood anywhere inside the first one's axes
(``broadcast``, ``axis``), and the slopes of PRelu along axis 1. onnx 1.23's version converter appends
``rank - axis`` axes of length 1 where ``rank - axis - rank of the operand`` are right, so that a bias of
channels is added along the batch; and it leaves PRelu's slopes on the last axis. Both run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from onnx import helper, shape_inference

_PAIRS = frozenset(
    ["Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"],
)


def spell_out(proto: Any) -> None:
    """Give second operands the axes of length 1 by which numpy puts them in the same place.

    Parameters
    ----------
    proto : onnx.ModelProto
        Of an operator set before 7; changed in place.

    Raises
    ------
    ValueError
        If a rank that this needs is not known.
    """
    ranks = {name: len(shape) for name, shape in shapes(proto).items()}
    nodes = list(proto.graph.node)
    for node in nodes:
        for inner in _inside(node):
            if _added(inner, {}) is None:
                raise ValueError(f"{inner.op_type} broadcasts inside a graph of {node.op_type} {node.name!r}")
    taken = set(ranks) | {name for node in nodes for name in (*node.input, *node.output)}
    del proto.graph.node[:]
    for node in nodes:
        added = _added(node, ranks)
        if added is None:
            raise ValueError(f"the axes of {node.op_type} {node.name or node.output[0]!r} are not known")
        if added:
            name = next(n for n in (f"{node.input[1]}_axes{k or ''}" for k in range(len(taken) + 1))
                        if n not in taken)  # fmt: skip
            taken.add(name)
            proto.graph.node.append(helper.make_node("Unsqueeze", [node.input[1]], [name], axes=added))
            node.input[1] = name
        if node.op_type in _PAIRS:
            kept = [attribute for attribute in node.attribute if attribute.name != "axis"]
            del node.attribute[:]
            node.attribute.extend(kept)
        proto.graph.node.append(node)


def shapes(proto: Any) -> dict[str, tuple[int | None, ...]]:
    """Shapes of the values of the main graph, as far as onnx infers them; None for a free dimension."""
    graph = shape_inference.infer_shapes(proto).graph
    found: dict[str, tuple[int | None, ...]] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found.setdefault(value.name, tuple(d.dim_value if d.dim_value > 0 else None for d in dims))
    return found


def _inside(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield inner
                yield from _inside(inner)


def _added(node: Any, ranks: Mapping[str, int]) -> list[int] | None:
    """Axes that the second operand is to gain behind its own; None where they cannot be told."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.domain not in ("", "ai.onnx") or len(node.input) < 2:
        return []
    if node.op_type in _PAIRS and attributes.get("broadcast") and "axis" in attributes:
        axis = attributes["axis"]
    elif node.op_type == "PRelu":
        axis = 1
    else:
        return []
    first, second = (ranks.get(name) for name in node.input[:2])
    if first is None or second is None:
        return None
    if node.op_type == "PRelu" and second != 1:
        return []
    start = axis + first if axis < 0 else axis
    return list(range(second, first - start)) if 0 <= start < first else None

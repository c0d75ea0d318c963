"""Values computed from constants alone: shapes behind arithmetic, weights put together from parts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.model.evaluate import (
    MAX_ADDED,
    MAX_FOLDED,
    MAX_WORK,
    WHILE_ADDED,
    WHILE_STORED,
    KnownValue,
    NotFolded,
    elements,
    evaluate,
)
from nvaudit.model.layout import Shape
from nvaudit.model.tensors import read_tensor
from nvaudit.model.walk import attribute, captured, is_constant_node

_VERSIONS = {"com.microsoft": 1, "com.microsoft.nchwc": 1, "ai.onnx.ml": 3}


def stored_array(value: ir.Value) -> Array | None:
    """Read the array of an initializer or Constant node.

    Returns
    -------
    ndarray or None
        Its array; None if the value is computed or fed.
    """
    node = value.producer()
    if node is None:
        tensor = value.const_value if value.is_initializer() else None
        return None if tensor is None else read_tensor(tensor)
    if not is_constant_node(node):
        return None
    tensor = attribute(node, "value")
    if tensor is not None:
        return read_tensor(tensor)
    for name, dtype in _NUMBERS.items():
        number = attribute(node, name)
        if number is not None:
            return np.asarray(number, dtype)
    return None


_NUMBERS: dict[str, type] = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": np.str_,
    "value_strings": np.str_,
}


@dataclass
class Budget:
    """What the computed weights of a model may still take together.

    Attributes
    ----------
    elements : int
        By which computed weights may exceed the stored tensors that they come from. A file of a few bytes
        can ask for any number of arrays of any size; what is stored bounds itself.
    work : int
        Multiplications.
    """

    elements: int = MAX_ADDED
    work: int = MAX_WORK


def fold(value: ir.Value, opset: int, limit: int = MAX_FOLDED) -> Array | None:
    """Compute a value from constants; as :func:`computed`, but None where that raises NotFolded."""
    try:
        return computed(value, opset, limit)
    except NotFolded:
        return None


def computed(value: ir.Value, opset: int, limit: int = MAX_FOLDED, budget: Budget | None = None) -> Array:
    """Compute a value from constants, whatever the operators on the way.

    Parameters
    ----------
    value : onnx_ir.Value
        A constant value (see ``walk.constant_values``).
    limit : int
        Elements of all computed arrays that are alive at one time; what is stored may set a lower one.
    budget : Budget, optional
        What is left for the whole model; it is reduced.

    Returns
    -------
    ndarray
        Of numbers: floats, integers or booleans.

    Raises
    ------
    NotFolded
        If the value depends on what is fed, a limit is hit, or an operator cannot be run. The message
        names the operator.
    ModelError
        If a stored tensor cannot be decoded.
    """
    # A few bytes can ask for arrays of any size (Expand, Tile, ConstantOfShape), so what is alive at one
    # time is bounded by what the file stores: weights are put together from stored ones, not made of
    # nothing. Every array goes as soon as its last reader has run.
    order, stored = _order(value)
    limit = min(limit, WHILE_ADDED + WHILE_STORED * sum(array.size for array in stored.values()))
    uses = Counter(v for node in order for v in {*_inputs(node)})
    # One reader more for the result itself, which has to outlast the loop.
    uses[value] += 1
    known: dict[ir.Value, KnownValue] = dict(stored)
    alive = done = 0
    for node in order:
        inputs = _inputs(node)
        try:
            # What the node makes has to fit beside what is still alive.
            results, work = evaluate(
                node, {v: known[v] for v in inputs}, _versions(node, opset), limit - alive
            )
            done += work
            if budget is not None and done > budget.work:
                raise NotFolded(
                    f"takes the multiplications for computed weights above their limit, {MAX_WORK:,}"
                )
        except NotFolded as error:
            label = node.name or next((v.name for v in node.outputs if v.name), "")
            raise NotFolded(f"{node.op_type} {label!r} {error}") from error
        for output, result in zip(node.outputs, results, strict=True):
            if result is not None and uses[output]:
                known[output] = result
                alive += elements(result)
        for used in inputs:
            uses[used] -= 1
            if not uses[used]:
                gone = known.pop(used)
                # Stored arrays were never counted as computed.
                alive -= 0 if used in stored else elements(gone)
    result = known[value]
    # V: bfloat16, float8 and the types below 8 bits
    if isinstance(result, list) or result.dtype.kind not in "fiubV":
        raise NotFolded(f"{value.name!r} is no tensor of numbers")
    if order and budget is not None:
        _charge(budget, done, result.size - sum(array.size for array in stored.values()))
    return result


def _charge(budget: Budget, work: int, more: int) -> None:
    if more > budget.elements:
        raise NotFolded(
            f"computed weights would exceed the stored ones by more than {MAX_ADDED:,} elements together"
        )
    # A result smaller than its sources gives nothing back: it would pay for others that are made of nothing.
    budget.elements -= max(more, 0)
    budget.work -= work


def _order(value: ir.Value) -> tuple[list[ir.Node], dict[ir.Value, Array]]:
    """Nodes that a value needs, each after what it needs; and the stored arrays among their inputs."""
    stored: dict[ir.Value, Array] = {}
    order: dict[ir.Node, None] = {}
    # Depth first, with a stack of its own: a chain of nodes may be longer than Python lets functions recurse.
    # A value is looked at again once what it needs is in order.
    pending = [value]
    while pending:
        current = pending[-1]
        node = current.producer()
        if current in stored or (node is not None and node in order):
            pending.pop()
            continue
        array = stored_array(current)
        if array is not None:
            stored[current] = array
            continue
        if node is None or is_constant_node(node):
            raise NotFolded(f"{current.name!r} is no number that is known before the model runs")
        missing = [v for v in _inputs(node) if v not in stored and v.producer() not in order]
        if missing:
            pending.extend(missing)
            continue
        order[node] = None
    return list(order), stored


def _inputs(node: ir.Node) -> list[ir.Value]:
    """What a node reads, its graphs included, each once."""
    return list(dict.fromkeys([*(v for v in node.inputs if v is not None), *captured(node)]))


def _versions(node: ir.Node, opset: int) -> dict[str, int]:
    """Versions of the operator sets that a node, with the graphs inside it, may use."""
    graph = node.graph
    own = {} if graph is None else dict(graph.opset_imports)
    return {**_VERSIONS, **own, "": opset}


def fold_ints(value: ir.Value, opset: int) -> Shape | None:
    """Compute a constant list of integers, such as a shape or axes.

    Returns
    -------
    tuple of int or None
        The integers; None if they cannot be computed.
    """
    array = fold(value, opset, limit=256)
    if array is None or array.dtype.kind not in "iu" or array.ndim > 1:
        return None
    return tuple(int(number) for number in array.reshape(-1))

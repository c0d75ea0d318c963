"""Values computed from constants alone: shapes behind arithmetic, weights put together from parts."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from nvaudit.errors import ModelError
from nvaudit.model.chains import Shape
from nvaudit.model.tensors import Array, read_tensor
from nvaudit.model.walk import attribute, is_constant_node

MAX_FOLDED = 2**29  # elements; no known exporter leaves larger weights to be computed at run time
_BROADCAST = frozenset(
    ["Add", "Sub", "Mul", "Div", "Pow", "Where", "Equal", "Greater", "Less", "And", "Or", "Max", "Min"]
)
# Operators whose result is no larger than their inputs together.
_BOUNDED = frozenset(
    [
        "Abs",
        "Cast",
        "Ceil",
        "Concat",
        "Cos",
        "DequantizeLinear",
        "Erf",
        "Exp",
        "Flatten",
        "Floor",
        "Identity",
        "Log",
        "Neg",
        "Not",
        "QuantizeLinear",
        "Reciprocal",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Relu",
        "Reshape",
        "Round",
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Size",
        "Slice",
        "Softmax",
        "Split",
        "Sqrt",
        "Squeeze",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    ]
)


def stored_array(value: ir.Value) -> Array | None:
    """Read the array of an initializer or Constant node.

    Parameters
    ----------
    value : onnx_ir.Value
        Any value.

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


def fold(value: ir.Value, opset: int, limit: int = MAX_FOLDED) -> Array | None:
    """Compute a value from constants.

    Parameters
    ----------
    value : onnx_ir.Value
        A constant value (see ``walk.constant_values``).
    opset : int
        Version of the default operator set.
    limit : int
        Largest number of elements that any array on the way may have.

    Returns
    -------
    ndarray or None
        The array; None if an operator on the way is not one that is folded, or an array is too large.

    Raises
    ------
    ModelError
        If a stored tensor cannot be decoded.
    """
    known: dict[ir.Value, Array] = {}
    pending = [value]
    while pending:
        current = pending[-1]
        if current in known:
            pending.pop()
            continue
        array = stored_array(current)
        node = current.producer()
        if array is None and node is not None:
            missing = [v for v in node.inputs if v is not None and v not in known]
            if missing:
                if not _foldable(node):
                    return None
                pending.extend(missing)
                continue
            array = _evaluate(node, current, known, opset, limit)
        if array is None or array.size > limit:
            return None
        known[current] = array
        pending.pop()
    return known[value]


def fold_ints(value: ir.Value, opset: int) -> Shape | None:
    """Compute a constant list of integers, such as a shape or axes.

    Parameters
    ----------
    value : onnx_ir.Value
        A constant value.
    opset : int
        Version of the default operator set.

    Returns
    -------
    tuple of int or None
        The integers; None if they cannot be computed.
    """
    array = fold(value, opset, limit=256)
    if array is None or array.dtype.kind not in "iu" or array.ndim > 1:
        return None
    return tuple(int(number) for number in array.reshape(-1))


def _foldable(node: ir.Node) -> bool:
    return node.domain == "" and node.op_type in _BROADCAST | _BOUNDED | {"Gather"}


def _evaluate(
    node: ir.Node, value: ir.Value, known: dict[ir.Value, Array], opset: int, limit: int
) -> Array | None:
    """Run one node by the reference evaluator; None where it cannot or would be too large."""
    inputs = [None if v is None else known[v] for v in node.inputs]
    arrays = [array for array in inputs if array is not None]
    if not _foldable(node) or not arrays:
        return None
    names = [f"i{position}" if array is not None else "" for position, array in enumerate(inputs)]
    outputs = [f"o{position}" for position in range(len(node.outputs))]
    try:
        if _bound(node, arrays) > limit:
            return None
        proto = helper.make_node(node.op_type, names, outputs)
        proto.attribute.extend(ir.serde.serialize_attribute(a) for a in node.attributes.values())
        graph = helper.make_graph(
            [proto],
            "fold",
            [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in names if name],
            [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", max(opset, 1))])
        feeds = {name: array for name, array in zip(names, inputs, strict=True) if name}
        with np.errstate(all="ignore"):
            results: Any = ReferenceEvaluator(model).run(outputs, feeds)
    except ModelError:
        raise
    except Exception:  # the reference evaluator does not know every version of every operator
        return None
    result = np.asarray(results[list(node.outputs).index(value)])
    return result if result.dtype.kind in "fiub" or result.dtype == ml_dtypes.bfloat16 else None


def _bound(node: ir.Node, arrays: list[Array]) -> int:
    """An upper bound on the elements of the result."""
    if node.op_type in _BROADCAST:
        return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    if node.op_type == "Gather":
        return arrays[0].size * arrays[1].size
    return sum(array.size for array in arrays)

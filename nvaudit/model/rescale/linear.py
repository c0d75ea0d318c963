"""Operators that multiply channels by a constant weight: where their channels are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from nvaudit.arrays import Ids
from nvaudit.model.analysis import Root
from nvaudit.model.layout import Shape
from nvaudit.model.operators import Family, is_float, operator_of
from nvaudit.model.rescale.walk import RescaleWalk
from nvaudit.model.walk import attribute, operand


@dataclass(frozen=True)
class Linear:
    """A use of a weight in a layer.

    Attributes
    ----------
    source_index : int
        Input with the activation.
    source_axis, result_axis : int
        Channel axes of activation and result, counted from the end.
    rank, source_rank : int
        Axes of the result, and of the activation (0 if not known).
    inputs, channels : int
        Channels of activation and result.
    source_at, result_at : ndarray, int64
        Channel of each weight, broadcastable to the first two axes of the layout at the operator.
    bias_index : int or None
        Input with the bias.
    dtype : onnx_ir.DataType
        Float type of the result.
    """

    root: Root
    source_index: int
    source_axis: int
    result_axis: int
    rank: int
    source_rank: int
    inputs: int
    channels: int
    source_at: Ids
    result_at: Ids
    bias_index: int | None
    dtype: ir.DataType


def find_linear(
    node: ir.Node, root_at: Callable[[int], Root | None], walk: RescaleWalk, *, integer_bias: bool = False
) -> Linear | None:
    """Read a layer; None where an operator does more than multiply and add.

    Parameters
    ----------
    root_at : callable
        The editable weight at one of its inputs.
    integer_bias : bool
        Whether a bias may be stored as integers.
    """
    root = root_at(1)
    operator = operator_of(node)
    rule = None if operator is None or not is_float(node, *_RULES) else _RULES[operator.family]
    if root is None or rule is None or root_at(0) is not None:
        return None
    end = next(end for end in root.ends if end.place is not None and end.place.node is node)
    bias = operand(node, 2)
    if bias is not None and not (_rescalable(bias, walk) or (integer_bias and _dequantised(bias, walk))):
        return None
    return rule(node, root, end.state.shape, end.state.dtype, walk)


def _rescalable(bias: ir.Value, walk: RescaleWalk) -> bool:
    array = walk.array(bias)
    return array is not None and array.ndim <= 2 and array.dtype.kind in "fV"


def _dequantised(bias: ir.Value, walk: RescaleWalk) -> bool:
    maker = bias.producer()
    return maker is not None and maker.op_type == "DequantizeLinear" and walk.is_constant(bias)


def _bias(node: ir.Node) -> int | None:
    return 2 if operand(node, 2) is not None else None


def _conv(node: ir.Node, root: Root, shape: Shape, dtype: ir.DataType, walk: RescaleWalk) -> Linear:
    """[O, I/g, kernel]."""
    groups, rank = attribute(node, "group", 1), len(shape)
    out, own = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    # Output o is in group o // (O/g), whose inputs begin at that number times I/g.
    source = out // (shape[0] // groups) * shape[1] + own if groups > 1 else own
    return Linear(
        root, 0, 1 - rank, 1 - rank, rank, rank, shape[1] * groups, shape[0], source, out, _bias(node), dtype
    )


def _conv_transpose(node: ir.Node, root: Root, shape: Shape, dtype: ir.DataType, walk: RescaleWalk) -> Linear:
    """[I, O/g, kernel]."""
    groups, rank = attribute(node, "group", 1), len(shape)
    into, own = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    # Input i is in group i // (I/g), whose outputs begin at that number times O/g.
    result = into // (shape[0] // groups) * shape[1] + own if groups > 1 else own
    return Linear(
        root, 0, 1 - rank, 1 - rank, rank, rank, shape[0], shape[1] * groups, into, result, _bias(node), dtype
    )


def _gemm(node: ir.Node, root: Root, shape: Shape, dtype: ir.DataType, walk: RescaleWalk) -> Linear | None:
    if attribute(node, "transA", 0) or len(shape) != 2:
        return None
    if attribute(node, "transB", 0):
        source, result, sizes = np.arange(shape[1])[None, :], np.arange(shape[0])[:, None], shape[::-1]
    else:
        source, result, sizes = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :], shape
    return Linear(root, 0, -1, -1, 2, 2, sizes[0], sizes[1], source, result, _bias(node), dtype)


def _matmul(node: ir.Node, root: Root, shape: Shape, dtype: ir.DataType, walk: RescaleWalk) -> Linear | None:
    rank = walk.rank(node.inputs[0])
    if len(shape) != 2 or rank is None or rank < 2:
        return None
    source, result = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    return Linear(root, 0, -1, -1, rank, rank, shape[0], shape[1], source, result, None, dtype)


_RULES: dict[Family, Callable[[ir.Node, Root, Shape, ir.DataType, RescaleWalk], Linear | None]] = {
    "convolution": _conv,
    "transposed convolution": _conv_transpose,
    "Gemm": _gemm,
    "matrix product": _matmul,
}

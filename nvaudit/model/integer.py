"""Integer operators on a weight that is no longer an integer.

Noise moves a weight off its integer grid, so an operator that multiplies stored integers becomes the float
operator that it stands for: operands minus zero points, a float product, and the same output type as before.
With the weight on its grid the result differs from the integer operator's by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from nvaudit.errors import ModelError
from nvaudit.model.build import Builder, Names
from nvaudit.model.walk import attribute, operand

Rewrite = Callable[[Builder, ir.Node, int, ir.Value, int], ir.Value]

_FLOAT = int(ir.DataType.FLOAT)
_INT32 = int(ir.DataType.INT32)


def rewrite_integer(node: ir.Node, index: int, slot: ir.Value, names: Names, opset: int) -> None:
    """Replace an integer operator by the float one that it stands for.

    Parameters
    ----------
    node : onnx_ir.Node
        An operator with a role that has a ``decode``; it is removed from its graph.
    slot : onnx_ir.Value
        The float weight: scale × (integer - zero).

    Raises
    ------
    ModelError
        If the operator set is too old for the operators needed.
    """
    build = Builder(node, names)
    build.replace(_REWRITES[node.op_type](build, node, index, slot, opset))


def _cast(build: Builder, value: ir.Value, to: int = _FLOAT) -> ir.Value:
    return build.node("Cast", value, attributes={"to": to})


def _row(build: Builder, value: ir.Value) -> ir.Value:
    """A scale or zero point of a left operand: one per row stands along the last axis but one."""
    if value.shape is not None and len(value.shape) == 1 and value.shape[0] != 1:
        return build.node("Reshape", value, build.constant(np.array([-1, 1], np.int64)))
    return value


def _real(
    build: Builder, value: ir.Value, scale: ir.Value | None, zero: ir.Value | None, left: bool = False
) -> ir.Value:
    """The float that an integer operand stands for."""
    real = _cast(build, value)
    if zero is not None:
        real = build.node("Sub", real, _cast(build, _row(build, zero) if left else zero))
    if scale is not None:
        real = build.node("Mul", real, _cast(build, _row(build, scale) if left else scale))
    return real


def _round(build: Builder, value: ir.Value, opset: int) -> ir.Value:
    """Whole numbers, as the int32 that integer products are."""
    # On its grid a product is whole but for float rounding, so it does not matter where ties go.
    if opset >= 11:
        rounded = build.node("Round", value)
    else:
        rounded = build.node("Floor", build.node("Add", value, build.constant(np.float32(0.5))))
    return _cast(build, rounded, _INT32)


def _kept(node: ir.Node, names: tuple[str, ...]) -> list[ir.Attr]:
    return [node.attributes[name] for name in names if name in node.attributes]


_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def _matmul_integer(build: Builder, node: ir.Node, index: int, slot: ir.Value, opset: int) -> ir.Value:
    other = _operand(node, 1 - index)
    # Inputs are A, B, zero of A, zero of B: the other operand's zero point is at 3 − index. No scales: the
    # product stays in bare integers, as the operator's is.
    real = _real(build, other, None, operand(node, 3 - index), left=index == 1)
    pair = (slot, real) if index == 0 else (real, slot)
    return _round(build, build.node("MatMul", *pair), opset)


def _conv_integer(build: Builder, node: ir.Node, index: int, slot: ir.Value, opset: int) -> ir.Value:
    real = _real(build, _operand(node, 0), None, operand(node, 2))
    return _round(build, build.node("Conv", real, slot, attributes=_kept(node, _WINDOW)), opset)


def _linear_conv(build: Builder, node: ir.Node, index: int, slot: ir.Value, opset: int) -> ir.Value:
    x_scale, w_scale = _operand(node, 1), _operand(node, 4)
    real = _real(build, _operand(node, 0), x_scale, operand(node, 2))
    rank = 0 if slot.shape is None else len(slot.shape)
    last = bool(attribute(node, "channels_last", 0)) and rank > 2
    if last:
        real = build.node("Transpose", real, attributes={"perm": [0, rank - 1, *range(1, rank - 1)]})
    inputs = [real, slot]
    bias = operand(node, 8)
    if bias is not None:
        # Σ (x − z_x)(w − z_w) + b in integers, times s_x s_w: in floats the bias is b s_x s_w.
        inputs.append(_integer_bias(build, bias, x_scale, w_scale))
    product = build.node("Conv", *inputs, attributes=_kept(node, _WINDOW))
    if last:
        product = build.node("Transpose", product, attributes={"perm": [0, *range(2, rank), 1]})
    return build.node("QuantizeLinear", product, operand(node, 6), operand(node, 7))


def _linear_matmul(build: Builder, node: ir.Node, index: int, slot: ir.Value, opset: int) -> ir.Value:
    # Inputs are (value, scale, zero) of A from 0 on and of B from 3 on: the other operand begins at 3 −
    # index.
    at = 3 - index
    real = _real(build, _operand(node, at), _operand(node, at + 1), operand(node, at + 2), left=at == 0)
    product = build.node("MatMul", *((slot, real) if index == 0 else (real, slot)))
    scale = _operand(node, 6)
    if scale.dtype is not None and scale.dtype != ir.DataType.FLOAT:
        product = _cast(build, product, int(scale.dtype))
    return build.node("QuantizeLinear", product, scale, operand(node, 7))


def _integer_bias(build: Builder, bias: ir.Value, *scales: ir.Value) -> ir.Value:
    """An int32 bias, whose step is the product of the operands' steps."""
    real = _cast(build, bias)
    for scale in scales:
        real = build.node("Mul", real, scale)
    return real


def _dynamic_matmul(build: Builder, node: ir.Node, index: int, slot: ir.Value, opset: int) -> ir.Value:
    """DynamicQuantizeMatMul: the activation is still quantised as it arrives."""
    if opset < 11:
        raise ModelError(
            f"{node.op_type} {node.name!r} needs operator set 11 to be rewritten; keep it digital"
        )
    quantise = ir.Node("", "DynamicQuantizeLinear", [_operand(node, 0)], num_outputs=3)
    quantise.name = build.names.fresh(f"{node.name}/DynamicQuantizeLinear")
    for output in quantise.outputs:
        output.name = build.names.fresh(f"{node.name}/DynamicQuantizeLinear_output")
    assert node.graph is not None
    node.graph.insert_before(node, quantise)
    integer, scale, zero = quantise.outputs
    product = build.node("MatMul", _real(build, integer, scale, zero), slot)
    return _with_bias(build, product, operand(node, 4))


def _float_matmul(build: Builder, node: ir.Node, index: int, slot: ir.Value, opset: int) -> ir.Value:
    real = _real(build, _operand(node, 0), operand(node, 2), operand(node, 4), left=True)
    product = build.node("MatMul", real, slot)
    wanted = node.outputs[0].dtype
    bias = operand(node, 6)
    if wanted is not None and wanted != ir.DataType.FLOAT:
        product = _cast(build, product, int(wanted))
    return _with_bias(build, product, bias)


def _with_bias(build: Builder, product: ir.Value, bias: ir.Value | None) -> ir.Value:
    return product if bias is None else build.node("Add", product, bias)


def _linear_gemm(build: Builder, node: ir.Node, index: int, slot: ir.Value, opset: int) -> ir.Value:
    a_scale, b_scale = _operand(node, 1), _operand(node, 4)
    alpha = attribute(node, "alpha", 1.0)
    real = _real(build, _operand(node, 0), a_scale, operand(node, 2))
    flags: dict[str, Any] = {name: attribute(node, name, 0) for name in ("transA", "transB")}
    inputs = [real, slot]
    bias = operand(node, 6)
    if bias is not None:
        inputs.append(_integer_bias(build, bias, a_scale, b_scale))
    else:
        inputs.append(build.constant(np.zeros(1, np.float32)))  # optional only from operator set 11 on
    # QGemm counts its bias in steps of alpha · a_scale · b_scale: hence beta = alpha.
    product = build.node("Gemm", *inputs, attributes={"alpha": alpha, "beta": alpha, **flags})
    scale = operand(node, 7)
    return product if scale is None else build.node("QuantizeLinear", product, scale, operand(node, 8))


def _packed_matmul(build: Builder, node: ir.Node, index: int, slot: ir.Value, opset: int) -> ir.Value:
    """MatMulNBits: a float product with what the packed integers stand for, in the type of the scales."""
    scale, bias = _operand(node, 2), operand(node, 5)
    # The slot is in single precision: so is the product, and its result is rounded to half once.
    half = scale.dtype is not None and scale.dtype != ir.DataType.FLOAT
    real = _operand(node, 0)
    product = build.node("MatMul", _cast(build, real) if half else real, slot)
    product = _cast(build, product, int(scale.dtype)) if half and scale.dtype is not None else product
    return _with_bias(build, product, bias)


def _operand(node: ir.Node, index: int) -> ir.Value:
    value = operand(node, index)
    if value is None:
        raise ModelError(f"{node.op_type} {node.name!r}: lacks its input {index}; export the model again")
    return value


_REWRITES: dict[str, Rewrite] = {
    "MatMulInteger": _matmul_integer,
    "ConvInteger": _conv_integer,
    "QLinearConv": _linear_conv,
    "QLinearMatMul": _linear_matmul,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulIntegerToFloat": _float_matmul,
    "QGemm": _linear_gemm,
    "MatMulNBits": _packed_matmul,
}

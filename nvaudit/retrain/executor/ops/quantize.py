"""Integers on a grid, with straight-through gradients.

Tensors of torch that hold integers carry no gradient, so codes travel as float32 that hold whole numbers;
rounding passes the gradient on as if it were not there, and clamping stops it outside the range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nvaudit.retrain.executor.ops.linear import conv
from nvaudit.retrain.executor.ops.registry import DTYPE_NAMES, Function, Op, op

_DOMAINS = ("", "com.microsoft")
_RANGES = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
    "int32": (-(2**31), 2**31 - 1),
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int2": (-2, 1),
    "uint2": (0, 3),
}


def round_through(x: Tensor) -> Tensor:
    """Round half to even; the gradient passes straight through."""
    # Rounding is flat between its steps: its own gradient is 0, and nothing behind it would be trained.
    return x + (torch.round(x) - x).detach() if x.requires_grad else torch.round(x)


def half_through(x: Tensor, half: torch.dtype) -> Tensor:
    """Round to a half-precision type; autograd casts the gradient back by itself, as through any cast."""
    return x.to(half).to(x.dtype)


def quantise(x: Tensor, scale: Tensor, zero: Tensor | None, low: float, high: float) -> Tensor:
    """Nearest codes, as floats: ``clamp(round(x / scale) + zero, low, high)``."""
    # The clamp keeps its own gradient, which is 0 outside the range: there the code does not move with x.
    # Rounded before the zero point is added: behind an odd one, halves would go to the other neighbour.
    codes = round_through(x / scale)
    return torch.clamp(codes if zero is None else codes + zero, low, high)


def _floats(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.to(torch.float32)


def _aligned(parameter: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """A scale or zero point in a shape that broadcasts against the tensor."""
    parameter = _floats(parameter)
    if parameter.numel() == 1:
        return parameter.reshape(())
    if block:
        # The last block may reach beyond the tensor.
        wide = parameter.repeat_interleave(block, axis)
        return wide.narrow(axis, 0, x.shape[axis])
    if parameter.dim() == 1:
        shape = [1] * x.dim()
        shape[axis] = -1
        return parameter.reshape(shape)
    return parameter


# A zero point that is known only when it arrives tells its type; 16 unsigned bits travel in 32 signed ones.
_ARRIVING = {
    torch.int8: _RANGES["int8"],
    torch.uint8: _RANGES["uint8"],
    torch.int16: _RANGES["int16"],
    torch.int32: _RANGES["uint16"],
}


def _code_range(op: Op, index: int) -> Callable[[Tensor | None], tuple[int, int]]:
    """Make what tells the range of an operator's codes from its zero point."""
    zero = op.known(index)
    named = DTYPE_NAMES.get(int(op.attr("output_dtype", 0)))
    if zero is not None or named is not None or not op.has(index):
        kind = op.kind(index) if zero is not None else named or "uint8"
        if kind not in _RANGES:
            raise op.refuse(f"quantisation to {kind}")
        fixed = _RANGES[kind]
        return lambda zero: fixed
    return lambda zero: _RANGES["uint8"] if zero is None else _ARRIVING.get(zero.dtype, _RANGES["uint8"])


@op("QuantizeLinear", domains=_DOMAINS)
def _quantize(op: Op) -> Function:
    range_of = _code_range(op, 2)
    axis, block = op.attr("axis", 1), op.attr("block_size", 0)
    state, sources = op.state, op.sources

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        x = _floats(x)
        spread = _aligned(scale, x, axis, block)
        shift = None if zero is None else _aligned(zero, x, axis, block)
        if sources and state.overridden(sources):  # a noisy weight lies off the grid, and stays there
            return x / spread if shift is None else x / spread + shift
        return quantise(x, spread, shift, *range_of(zero))

    return run


@op("DequantizeLinear", domains=_DOMAINS)
def _dequantize(op: Op) -> Function:
    axis, block = op.attr("axis", 1), op.attr("block_size", 0)

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        x = _floats(x)
        x = x if zero is None else x - _aligned(zero, x, axis, block)
        return x * _aligned(scale, x, axis, block)

    return run


def _dynamic(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes 0 … 255 over the range of the batch, with their scale and zero point."""
    # The range is data of the batch, not a parameter: no gradient flows through it, only through the codes.
    fixed = x.detach()
    # The range is made to hold 0, which then has a code of its own: padding and ReLU stay exact.
    low, high = fixed.amin().clamp(max=0.0), fixed.amax().clamp(min=0.0)
    scale = (high - low) / 255.0
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round(torch.clamp(-low / safe, 0, 255))
    return quantise(x, safe, zero, 0, 255), scale, zero


@op("DynamicQuantizeLinear")
def _dynamic_quantize(op: Op) -> Function:
    return _dynamic


def _minus(x: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    x = _floats(x)
    return x if zero is None else x - _aligned(zero, x, axis % x.dim(), 0)


@op("MatMulInteger")
def _matmul_integer(op: Op) -> Function:
    def run(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
        return _minus(a, a_zero, -2) @ _minus(b, b_zero, -1)

    return run


@op("ConvInteger")
def _conv_integer(op: Op) -> Function:
    product = conv(op)

    def run(x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None) -> Tensor:
        return product(_minus(x, x_zero, 1), _minus(w, w_zero, 0))  # type: ignore[no-any-return]

    return run


def _real(x: Tensor, scale: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    """The floats that codes stand for."""
    return _minus(x, zero, axis) * _aligned(scale, x, axis % x.dim() if x.dim() else 0, 0)


@op("QLinearMatMul")
def _linear_matmul(op: Op) -> Function:
    range_of = _code_range(op, 7)

    def run(*arguments: Any) -> Tensor:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = arguments
        product = _real(a, a_scale, a_zero, -2) @ _real(b, b_scale, b_zero, -1)
        return quantise(product, _floats(y_scale), _floats(y_zero), *range_of(y_zero))

    return run


@op("QLinearConv", domains=_DOMAINS)
def _linear_conv(op: Op) -> Function:
    if op.attr("channels_last", 0):
        raise op.refuse("a convolution with channels last")
    product = conv(op, 3)
    range_of = _code_range(op, 7)

    def run(*arguments: Any) -> Tensor:
        x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = arguments[:8]
        bias = arguments[8] if len(arguments) > 8 else None
        if bias is not None:
            # The bias is stored as int32 in units of the products, x_scale · w_scale of its channel.
            bias = _floats(bias) * _floats(x_scale) * _floats(w_scale)
        y = product(_real(x, x_scale, x_zero, 1), _real(w, w_scale, w_zero, 0), bias)
        return quantise(y, _floats(y_scale), _floats(y_zero), *range_of(y_zero))

    return run


@op("DynamicQuantizeMatMul", domains=("com.microsoft",))
def _dynamic_matmul(op: Op) -> Function:
    def run(
        a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        codes, scale, zero = _dynamic(a)
        y = ((codes - zero) * scale) @ _real(b, b_scale, b_zero, -1)
        return y if bias is None else y + bias

    return run


@op("MatMulIntegerToFloat", domains=("com.microsoft",))
def _matmul_to_float(op: Op) -> Function:
    def run(
        a: Tensor,
        b: Tensor,
        a_scale: Tensor,
        b_scale: Tensor,
        a_zero: Tensor | None = None,
        b_zero: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        y = _real(a, a_scale, a_zero, -2) @ _real(b, b_scale, b_zero, -1)
        return y if bias is None else y + bias

    return run


@op("QGemm", domains=("com.microsoft",))
def _quantised_gemm(op: Op) -> Function:
    alpha = op.attr("alpha", 1.0)
    left, right = op.attr("transA", 0), op.attr("transB", 0)
    range_of = _code_range(op, 8)

    def run(*arguments: Any) -> Tensor:
        a, a_scale, a_zero, b, b_scale, b_zero, *rest = arguments
        c, y_scale, y_zero = (*rest, None, None, None)[:3]
        a = _real(a, a_scale, a_zero, -2)
        b = _real(b, b_scale, b_zero, 0 if right else -1)
        y = (a.mT if left else a) @ (b.mT if right else b) * alpha
        if c is not None:
            # C is stored as int32 in units of the products: alpha · a_scale · b_scale.
            y = y + _floats(c) * (alpha * _floats(a_scale) * _floats(b_scale))
        return y if y_scale is None else quantise(y, _floats(y_scale), _floats(y_zero), *range_of(y_zero))

    return run

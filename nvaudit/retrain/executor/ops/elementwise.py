"""Arithmetic, comparison and logic, element by element."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nvaudit.retrain.executor.ops.quantize import round_through
from nvaudit.retrain.executor.ops.registry import DTYPE_NAMES, HALVES, Function, Op, carrier, op, simple

_BROADCAST_SINCE = 7  # before it, a second operand was aligned by attributes


def aligned(op: Op, function: Function) -> Function:
    """Let the second operand of an old operator stand at its ``axis``."""
    if op.version >= _BROADCAST_SINCE or op.attr("axis") is None:
        return function
    axis = int(op.attr("axis"))

    def run(a: Tensor, b: Tensor) -> Any:
        # b stands at axes axis … axis + dim(b) − 1 of a: broadcasting aligns from the end, so it needs an
        # axis of length 1 for each that follows.
        behind = a.dim() - (axis % a.dim()) - b.dim()
        return function(a, b.reshape(tuple(b.shape) + (1,) * behind))

    return run


def _divide(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point() or b.is_floating_point():
        return a / b
    # Integers divide as in C, towards 0: −7 / 2 is −3.
    return torch.div(a, b, rounding_mode="trunc")


_BINARY: dict[str, Function] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": _divide,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Xor": torch.logical_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "Less": torch.lt,
    "GreaterOrEqual": torch.ge,
    "LessOrEqual": torch.le,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "PRelu": lambda x, slope: torch.where(x < 0, x * slope, x),
}


@op(*_BINARY)
def _binary(op: Op) -> Function:
    return aligned(op, _BINARY[op.node.op_type])


@op("ZipMap", domains=("ai.onnx.ml",))
def _zip_map(op: Op) -> Function:
    """A dictionary of scores for each sample: here the scores, a column for each key in order."""
    return lambda scores: scores


@op("Pow")
def _pow(op: Op) -> Function:
    exponent = op.known(1)
    # A fixed exponent as a Python number: the derivative by the exponent, a · ln x, would be NaN at x ≤ 0.
    if exponent is not None and exponent.size == 1 and exponent.ndim == 0 and op.version >= _BROADCAST_SINCE:
        number = exponent.item()
        if exponent.dtype.kind == "f":
            return lambda a, b: torch.pow(a, number).to(a.dtype)
    return aligned(op, lambda a, b: torch.pow(a, b).to(a.dtype))


@op("Mod")
def _mod(op: Op) -> Function:
    # fmod has the sign of the dividend, as in C; the integer Mod that of the divisor, as in Python.
    return torch.fmod if op.attr("fmod", 0) else torch.remainder


@op("BitShift")
def _bit_shift(op: Op) -> Function:
    if op.attr("direction") == "LEFT":
        return torch.bitwise_left_shift
    return torch.bitwise_right_shift


def _fold(function: Function) -> Function:
    def run(first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = function(first, other)
        return first

    return run


@op("Max", "Min", "Sum")
def _variadic(op: Op) -> Function:
    table: dict[str, Function] = {"Max": torch.maximum, "Min": torch.minimum, "Sum": torch.add}
    function = table[op.node.op_type]
    return function if len(op.node.inputs) == 2 else _fold(function)


@op("Mean")
def _mean(op: Op) -> Function:
    total = _fold(torch.add)
    return lambda *values: total(*values) / len(values)


# Round passes its gradient straight through, since exported quantisation is written with it. Floor, Ceil and
# Sign keep theirs, which is 0: a model means a step by them. Where one of these stands between the weights
# and the trained output, nvaudit.retrain.executor.checks.check_gradient names it before any training.
_UNARY: dict[str, Function] = {
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Reciprocal": torch.reciprocal,
    "Floor": torch.floor,
    "Ceil": torch.ceil,
    "Round": round_through,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Tan": torch.tan,
    "Asin": torch.asin,
    "Acos": torch.acos,
    "Atan": torch.atan,
    "Sinh": torch.sinh,
    "Cosh": torch.cosh,
    "Asinh": torch.asinh,
    "Acosh": torch.acosh,
    "Atanh": torch.atanh,
    "Erf": torch.erf,
    "Not": torch.logical_not,
    "BitwiseNot": torch.bitwise_not,
    "IsNaN": torch.isnan,
    "Identity": lambda x: x,
    "Det": torch.det,
}


@op(*_UNARY)
def _unary(op: Op) -> Function:
    return _UNARY[op.node.op_type]


@op("IsInf")
def _is_inf(op: Op) -> Function:
    positive, negative = op.attr("detect_positive", 1), op.attr("detect_negative", 1)
    if positive and negative:
        return torch.isinf
    if positive:
        return torch.isposinf
    return torch.isneginf if negative else torch.zeros_like


op("Where")(simple(torch.where))


@op("Clip")
def _clip(op: Op) -> Function:
    if op.version < 11:
        low, high = op.attr("min"), op.attr("max")
        if low is None and high is None:
            return lambda x: x
        return lambda x: torch.clamp(x, low, high)
    bounds = [op.known(1), op.known(2)]
    given = [op.has(1), op.has(2)]
    if all(bound is not None or not has for bound, has in zip(bounds, given, strict=True)):
        fixed = [None if bound is None else bound.item() for bound in bounds]
        return (lambda x, *_: torch.clamp(x, *fixed)) if any(given) else (lambda x, *_: x)

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        x = x if low is None else torch.maximum(x, low)
        return x if high is None else torch.minimum(x, high)

    return run


# Smallest value and number of values of the types that are narrower than a byte.
_NARROW = {"int4": (-8, 16), "uint4": (0, 16), "int2": (-2, 4), "uint2": (0, 4)}


def _cast_to(name: str) -> Function:
    """Another element type; half precision rounds the float32 that carries it, straight through."""
    dtype = carrier(name)
    assert dtype is not None
    if name in HALVES:
        half = HALVES[name]
        # Autograd casts the gradient back by itself, as through any cast.
        return lambda x: x.to(half).to(torch.float32)
    if dtype == torch.bool:
        return lambda x: x != 0
    if name in _NARROW:
        low, count = _NARROW[name]
        # Wraps modulo 2^bits, as wider integers do.
        return lambda x: ((x.to(torch.int64) - low) % count + low).to(dtype)
    if dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        # Floats first to int64, so that what is out of range wraps as it does for integers.
        return lambda x: (x.to(torch.int64) if x.is_floating_point() else x).to(dtype)
    return lambda x: x.to(dtype)


@op("Cast")
def _cast(op: Op) -> Function:
    name = DTYPE_NAMES.get(int(op.attr("to", 0)) if not isinstance(op.attr("to"), str) else 0)
    if name is None or carrier(name) is None:
        raise op.refuse(f"a cast to element type {op.attr('to')}")
    return _cast_to(name)


@op("CastLike")
def _cast_like(op: Op) -> Function:
    def run(x: Tensor, like: Tensor) -> Tensor:
        return (x != 0) if like.dtype == torch.bool else x.to(like.dtype)

    return run


@op("CumSum", host=(1,))
def _cum_sum(op: Op) -> Function:
    axis_of = op.ints(1)
    exclusive, reverse = op.attr("exclusive", 0), op.attr("reverse", 0)

    def run(*arguments: Any) -> Tensor:
        x = arguments[0]
        axis = (axis_of(arguments) or [0])[0]
        if reverse:
            x = x.flip(axis)
        total = torch.cumsum(x, axis, dtype=x.dtype)
        # Σ over j < i is Σ over j ≤ i less the element itself.
        total = total - x if exclusive else total
        return total.flip(axis) if reverse else total

    return run


@op("Einsum")
def _einsum(op: Op) -> Function:
    equation = str(op.attr("equation"))
    return lambda *operands: torch.einsum(equation, *operands)

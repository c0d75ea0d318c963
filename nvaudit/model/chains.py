"""The steps between a stored tensor and the operator that multiplies by it.

Only steps that keep every element, moving it or changing how it is written, are followed: a weight behind
them is still one number per device. Shapes are known at each step, so steps can be undone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from nvaudit.model.layout import Layout, Shape
from nvaudit.model.walk import attribute, operand

Ints = Callable[[ir.Value], Shape | None]


@dataclass(frozen=True)
class Transpose:
    """Axes permuted."""

    perm: Shape


@dataclass(frozen=True)
class Reshape:
    """Elements in the same order, other axes."""

    shape: Shape


@dataclass(frozen=True)
class Cast:
    """Another element type."""

    dtype: ir.DataType


@dataclass(frozen=True)
class Quantize:
    """Float values to integers, or integers to floats (``back``).

    ``axis`` is None for one scale for the whole tensor; ``block`` is the number of elements along the axis
    that share a scale, 0 for one scale per index.
    """

    back: bool
    scale: ir.Value
    zero: ir.Value | None
    axis: int | None
    block: int
    dtype: ir.DataType


@dataclass(frozen=True)
class Clamp:
    """Integers limited to a narrower range, as exporters write 2- to 7-bit integers in 8-bit types."""

    low: int
    high: int


@dataclass(frozen=True)
class Unpack:
    """Integers of a few bits out of the bytes that com.microsoft's MatMulNBits stores: [input, output].

    A byte holds the first of its integers in its lowest bits. A block of ``block`` inputs of one output has
    one scale and one zero point, which is packed too unless it has the type of the scale.
    """

    bits: int
    block: int
    shape: Shape
    scale: ir.Value
    zero: ir.Value | None


ChainStep = Transpose | Reshape | Cast | Quantize | Clamp | Unpack
KEEPING = frozenset(
    [
        "Identity",
        "Cast",
        "Transpose",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "QuantizeLinear",
        "DequantizeLinear",
        "Clip",
    ]
)
"""Operators that may be a step."""


@dataclass(frozen=True)
class State:
    """Shape and element type at one point of a chain."""

    shape: Shape
    dtype: ir.DataType


def follow(node: ir.Node, index: int, state: State, ints: Ints) -> tuple[ChainStep | None, State] | None:
    """Follow a tensor through one node.

    Parameters
    ----------
    ints : callable
        Gives the integers of a constant value, None if it is not constant.

    Returns
    -------
    tuple of ChainStep or None, and State; or None
        The step (None where nothing changes) and the tensor after it; None where the node is not one
        that keeps every element.
    """
    if index != 0 or node.domain not in ("", "com.microsoft") or len(node.outputs) != 1:
        return None
    if node.op_type == "Identity":
        return None, state
    if node.op_type == "Cast":
        dtype = ir.DataType(attribute(node, "to", 0))
        if not (dtype.is_floating_point() or (dtype.is_integer() and state.dtype.is_integer())):
            return None  # truncating floats, or text, is no longer the same weight
        return Cast(dtype), State(state.shape, dtype)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return _quantize(node, state)
    return _keep(node, state, ints) if node.domain == "" else None


def _keep(node: ir.Node, state: State, ints: Ints) -> tuple[ChainStep | None, State] | None:
    """Operators of ONNX's own domain."""
    if node.op_type == "Clip":
        return _clamp(node, state, ints)
    if node.op_type == "Transpose":
        perm = tuple(attribute(node, "perm", tuple(reversed(range(len(state.shape))))))
        if sorted(perm) != list(range(len(state.shape))):
            return None
        return Transpose(perm), State(tuple(state.shape[axis] for axis in perm), state.dtype)
    if node.op_type in _RESHAPES:
        shape = _RESHAPES[node.op_type](node, state.shape, ints)
        if shape is None or math.prod(shape) != math.prod(state.shape):
            return None
        return Reshape(shape), State(shape, state.dtype)
    return None


def layout_of(start: Shape, steps: tuple[ChainStep, ...]) -> Layout:
    """Keep the moves of a chain that begins with the shape ``start``, in the simplest form."""
    moves = [
        ("transpose", step.perm) if isinstance(step, Transpose) else ("reshape", step.shape)
        for step in steps
        if isinstance(step, Transpose | Reshape)
    ]
    return Layout(moves).simplified(start)


def _quantize(node: ir.Node, state: State) -> tuple[ChainStep, State] | None:
    """QuantizeLinear and DequantizeLinear of either domain."""
    scale, zero = operand(node, 1), operand(node, 2)
    if scale is None or scale.shape is None:
        return None
    back = node.op_type == "DequantizeLinear"
    if not back and not state.dtype.is_floating_point():
        return None
    axis: int | None = attribute(node, "axis", 1)
    block = attribute(node, "block_size", 0)
    # Shape [1] is one scale for the whole tensor too, unless it is that of a single block.
    if len(scale.shape) == 0 or (len(scale.shape) == 1 and scale.shape[0] == 1 and not block):
        axis = None
    elif axis is not None:
        axis += len(state.shape) if axis < 0 else 0
        if not 0 <= axis < len(state.shape):
            return None
    # Element type of the result: output_dtype; else that of the scale when dequantising, that of the zero
    # point when quantising (uint8 without one).
    named = ir.DataType(attribute(node, "output_dtype", 0))
    if named == ir.DataType.UNDEFINED:
        source = scale if back else zero
        named = (source.dtype if source is not None else ir.DataType.UINT8) or ir.DataType.UNDEFINED
    if named == ir.DataType.UNDEFINED or not (back or named.is_integer()):
        return None  # rounding to float8 leaves no grid of integers: the result is computed
    return Quantize(back, scale, zero, axis, block, named), State(state.shape, named)


def _clamp(node: ir.Node, state: State, ints: Ints) -> tuple[ChainStep | None, State] | None:
    """Clip of integers. Clip of floats makes other weights: these are computed (see ``fold``)."""
    if not state.dtype.is_integer():
        return None
    # Bounds outside the range of the type limit nothing.
    low, high = integer_range(state.dtype)
    for position in (1, 2):
        given = operand(node, position)
        if given is None:
            continue
        limit = ints(given)
        if limit is None or len(limit) != 1:
            return None
        low, high = (max(low, limit[0]), high) if position == 1 else (low, min(high, limit[0]))
    return None if low > high else (Clamp(low, high), state)


def integer_range(dtype: ir.DataType) -> Shape:
    """Smallest and largest integer of a type."""
    if dtype.is_signed():
        return (-(2 ** (dtype.bitwidth - 1)), 2 ** (dtype.bitwidth - 1) - 1)
    return (0, 2**dtype.bitwidth - 1)


def _reshape(node: ir.Node, shape: Shape, ints: Ints) -> Shape | None:
    target = operand(node, 1)
    wanted = tuple(attribute(node, "shape", ())) if target is None else ints(target)
    if wanted is None or (target is None and "shape" not in node.attributes):
        return None
    if not attribute(node, "allowzero", 0):
        if any(size == 0 and axis >= len(shape) for axis, size in enumerate(wanted)):
            return None
        wanted = tuple(shape[axis] if size == 0 else size for axis, size in enumerate(wanted))
    if wanted.count(-1) == 1:
        # `wanted` holds one -1, so minus its product is the product of the other sizes.
        rest = -math.prod(wanted)
        if rest == 0:
            return None
        wanted = tuple(math.prod(shape) // rest if size == -1 else size for size in wanted)
    return wanted if all(size >= 0 for size in wanted) else None


def _flatten(node: ir.Node, shape: Shape, ints: Ints) -> Shape | None:
    axis = attribute(node, "axis", 1)
    axis += len(shape) if axis < 0 else 0
    return (math.prod(shape[:axis]), math.prod(shape[axis:]))


def listed_axes(node: ir.Node, ints: Ints) -> Shape | None:
    """Axes of Squeeze and the like: an attribute until operator set 13, then an input; None if computed."""
    given = operand(node, 1)
    return tuple(attribute(node, "axes", ())) if given is None else ints(given)


def _squeeze(node: ir.Node, shape: Shape, ints: Ints) -> Shape | None:
    axes = listed_axes(node, ints)
    if axes is None:
        return None
    dropped = {axis % len(shape) for axis in axes} if shape else set()
    if not axes:
        return tuple(size for size in shape if size != 1)
    return tuple(size for axis, size in enumerate(shape) if axis not in dropped)


def _unsqueeze(node: ir.Node, shape: Shape, ints: Ints) -> Shape | None:
    axes = listed_axes(node, ints)
    if not axes:
        return None
    rank = len(shape) + len(axes)
    # Axes count in the result, new ones included; two that fall together would add one only.
    added = {axis % rank for axis in axes}
    rest = iter(shape)
    return (
        tuple(1 if axis in added else next(rest) for axis in range(rank)) if len(added) == len(axes) else None
    )


_RESHAPES: dict[str, Callable[[ir.Node, Shape, Ints], Shape | None]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}

"""Operators that make a large tensor of a few bytes: refused where a constant says how large it would be.

ONNX Runtime makes such a tensor whole, some already while it loads the model, and a file of a kilobyte would
take all memory of the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from nvaudit.errors import ModelError
from nvaudit.model.fold import fold_ints, stored_array
from nvaudit.model.layout import Shape
from nvaudit.model.walk import attribute, operand, places

MAX_GROWN = 2**29
"""Elements of one tensor; the largest masks of exporters have a quarter of it."""


def check_growth(model: ir.Model, path: Path) -> None:
    """Refuse a model one of whose nodes is told by constants to make a tensor beyond all bounds.

    Parameters
    ----------
    model : onnx_ir.Model
        Sorted, its functions inlined.

    Raises
    ------
    ModelError
        Naming the node and the size.
    """
    opset = model.opset_imports.get("", 1)
    for place in places(model.graph):
        size = _SIZES.get(place.node.op_type) if place.node.domain == "" else None
        count = None if size is None else size(place.node, opset)
        if count is not None and count > MAX_GROWN:
            raise ModelError(
                f"{path}: node {place.label!r} ({place.node.op_type}) makes a tensor of {count:.3g} "
                f"elements; at most {MAX_GROWN} are made of constants: export the model again"
            )


def _ints(node: ir.Node, index: int, opset: int) -> Shape | None:
    value = operand(node, index)
    if value is None or (value.producer() is None and not value.is_initializer()):
        return None
    return fold_ints(value, opset)


def _size_of(value: ir.Value | None) -> int | None:
    """Elements of a value, as far as they are known; 1 for each size that is not."""
    if value is None or value.shape is None:
        return None
    return math.prod(dim for dim in value.shape if isinstance(dim, int) and dim > 0)


def _shape_input(index: int) -> Callable[[ir.Node, int], int | None]:
    def size(node: ir.Node, opset: int) -> int | None:
        shape = _ints(node, index, opset)
        return None if shape is None else math.prod(abs(dim) for dim in shape)

    return size


def _shape_attribute(node: ir.Node, opset: int) -> int | None:
    shape = attribute(node, "shape")
    return None if shape is None else math.prod(abs(int(dim)) for dim in shape)


def _tile(node: ir.Node, opset: int) -> int | None:
    repeats = _ints(node, 1, opset)
    return None if repeats is None else math.prod(map(abs, repeats)) * (_size_of(operand(node, 0)) or 1)


def _one_hot(node: ir.Node, opset: int) -> int | None:
    depth = _ints(node, 1, opset)
    return None if depth is None else math.prod(depth) * (_size_of(operand(node, 0)) or 1)


def _range(node: ir.Node, opset: int) -> int | None:
    values = [operand(node, index) for index in range(3)]
    arrays = [None if value is None else stored_array(value) for value in values]
    if any(array is None or array.size != 1 for array in arrays):
        return None
    start, stop, step = (float(array.reshape(-1)[0]) for array in arrays if array is not None)
    count = (stop - start) / step if step else 0.0
    return int(count) if math.isfinite(count) else None


def _pad(node: ir.Node, opset: int) -> int | None:
    pads, value = _ints(node, 1, opset) or attribute(node, "pads"), operand(node, 0)
    if pads is None or value is None or value.shape is None or len(pads) != 2 * len(value.shape):
        return None
    rank = len(value.shape)
    sizes = (dim if isinstance(dim, int) else 1 for dim in value.shape)
    return math.prod(max(0, size + pads[axis] + pads[axis + rank]) for axis, size in enumerate(sizes))


def _resize(node: ir.Node, opset: int) -> int | None:
    sizes = _ints(node, 3, opset)
    if sizes is not None:
        return math.prod(map(abs, sizes))
    scales = operand(node, 1 if node.op_type == "Upsample" else 2)
    array = None if scales is None else stored_array(scales)
    if array is None or array.dtype.kind != "f" or not array.size:
        return None
    count = math.prod(float(scale) for scale in array.reshape(-1)) * (_size_of(operand(node, 0)) or 1)
    return int(count) if math.isfinite(count) else None


_SIZES: dict[str, Callable[[ir.Node, int], int | None]] = {
    "ConstantOfShape": _shape_input(0),
    "Expand": _shape_input(1),
    "RandomNormal": _shape_attribute,
    "RandomUniform": _shape_attribute,
    "Tile": _tile,
    "OneHot": _one_hot,
    "Range": _range,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
}

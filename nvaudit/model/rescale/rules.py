"""How operators without weights hand scales of channels on.

A rule gets the walk and a node, and returns the label of its first output; None where the scale of what it
takes may not change. f(a·x) = a·f(x) for a > 0 is all that it takes to hand a scale on.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from nvaudit.model.rescale.channels import FIXED, Label
from nvaudit.model.rescale.walk import Walk
from nvaudit.model.walk import attribute, operand

Rule = Callable[[Walk, ir.Node], "Label | None"]


def _first(walk: Walk, node: ir.Node) -> Label | None:
    return walk.label(node.inputs[0])


def _spatial(walk: Walk, node: ir.Node) -> Label | None:
    """Pooling and resizing: positively homogeneous in each channel."""
    label = _first(walk, node)
    return label if label is not None and label.axis == 1 else None


def _prelu(walk: Walk, node: ir.Node) -> Label | None:
    return _first(walk, node) if walk.is_constant(operand(node, 1)) else None


def _clip(walk: Walk, node: ir.Node) -> Label | None:
    """Only max(x, 0) does not mind scales."""
    low, high = attribute(node, "min"), attribute(node, "max")
    if len(node.inputs) > 1:
        numbers = [None if value is None else walk.array(value) for value in (*node.inputs[1:], None)]
        low = None if numbers[0] is None or numbers[0].size != 1 else float(numbers[0].reshape(()))
        high = numbers[1]
    unbounded = high is None or (np.size(high) == 1 and float(np.max(high)) > _HUGE)
    return _first(walk, node) if low == 0 and unbounded else None


_HUGE = 3e38


def _reduce(walk: Walk, node: ir.Node) -> Label | None:
    """Mean, sum or maximum over axes other than the channels."""
    label = _first(walk, node)
    given = operand(node, 1)
    axes = attribute(node, "axes") if given is None else walk.ints(given)
    if label is None or axes is None:
        return None
    dropped = {axis % label.rank for axis in axes}
    if label.axis in dropped:
        return None
    if attribute(node, "keepdims", 1):
        return label
    axis = label.axis - sum(a < label.axis for a in dropped)
    return Label(axis, label.rank - len(dropped), label.ids)


def _transpose(walk: Walk, node: ir.Node) -> Label | None:
    label = _first(walk, node)
    if label is None:
        return None
    perm = tuple(attribute(node, "perm", tuple(reversed(range(label.rank)))))
    return Label(perm.index(label.axis), label.rank, label.ids)


def _reshape(walk: Walk, node: ir.Node) -> Label | None:
    """A reshape that leaves the first axis alone and puts channels together with positions, or not."""
    label = _first(walk, node)
    before, after = walk.shape(node.inputs[0]), walk.shape(node.outputs[0])
    if label is None or before is None or after is None or label.axis == 0 or len(before) != label.rank:
        return None
    inner, outer = before[1:], after[1:]
    if any(size is None for size in (*inner, *outer)) or not outer:
        return None
    sizes, target = [size or 0 for size in inner], [size or 0 for size in outer]
    if math.prod(sizes) != math.prod(target) or sizes[label.axis - 1] != label.ids.size:
        return None
    # Lay the variables out as the activation lies, and see along which axis of the result they vary.
    spread = np.broadcast_to(
        label.ids.reshape([-1 if axis == label.axis - 1 else 1 for axis in range(len(sizes))]), sizes
    ).reshape(target)
    for axis in range(len(target)):
        others = tuple(a for a in range(len(target)) if a != axis)
        if bool((spread.min(axis=others) == spread.max(axis=others)).all()):
            ids = spread.min(axis=others)
            return Label(axis + 1, len(after), np.ascontiguousarray(ids))
    return None


def _concat(walk: Walk, node: ir.Node) -> Label | None:
    labels = [walk.label(value) for value in node.inputs]
    known = [label for label in labels if label is not None]
    if not known:
        return None
    rank, place = known[0].rank, known[0].axis
    if any((label.rank, label.axis) != (rank, place) for label in known):
        return None
    if attribute(node, "axis", 1) % rank != place:
        return walk.tied(labels, known[0])
    parts = []
    for value, label in zip(node.inputs, labels, strict=True):
        shape = walk.shape(value)
        size = None if shape is None or len(shape) != rank else shape[place]
        if label is None and size is None:
            return None
        parts.append(np.full(size or 0, FIXED, np.int64) if label is None else label.ids)
    return Label(place, rank, np.concatenate(parts))


def _slice(walk: Walk, node: ir.Node) -> Label | None:
    label = _first(walk, node)
    lists = _slice_lists(walk, node)
    if label is None or lists is None:
        return None
    starts, ends, axes, steps = lists
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis % label.rank == label.axis:
            label = Label(label.axis, label.rank, label.ids[_span(start, end, step)])
    return label


def _span(start: int, end: int, step: int) -> slice:
    """ONNX clamps where Python would wrap: an end before the first element of a backward slice."""
    return slice(start, None if step < 0 and end < -(2**31) + 1 else end, step)


def _slice_lists(walk: Walk, node: ir.Node) -> tuple[tuple[int, ...], ...] | None:
    if len(node.inputs) < 3:
        starts, ends = attribute(node, "starts"), attribute(node, "ends")
        if starts is None or ends is None:
            return None
        axes = attribute(node, "axes", tuple(range(len(starts))))
        return tuple(starts), tuple(ends), tuple(axes), (1,) * len(starts)
    given = [operand(node, index) for index in (1, 2, 3, 4)]
    starts, ends = walk.ints(given[0]), walk.ints(given[1])
    if starts is None or ends is None:
        return None
    axes = tuple(range(len(starts))) if given[2] is None else walk.ints(given[2])
    steps = (1,) * len(starts) if given[3] is None else walk.ints(given[3])
    return None if axes is None or steps is None else (starts, ends, axes, steps)


def _pad(walk: Walk, node: ir.Node) -> Label | None:
    """Zeros have every scale; any other constant has none."""
    label, fill = _first(walk, node), operand(node, 2)
    given = operand(node, 1)
    pads = attribute(node, "pads") if given is None else walk.ints(given)
    if label is None or pads is None or len(pads) != 2 * label.rank or operand(node, 3) is not None:
        return None
    mode = attribute(node, "mode", "constant")
    number = attribute(node, "value", 0.0) if fill is None else walk.array(fill)
    if mode == "constant" and (number is None or np.any(np.asarray(number) != 0)):
        return None
    before, after = pads[label.axis], pads[label.axis + label.rank]
    if before == after == 0:
        return label
    if mode != "constant" or min(before, after) < 0:
        return None
    ids = (walk.variables.fresh(before), label.ids, walk.variables.fresh(after))
    return Label(label.axis, label.rank, np.concatenate(ids))


def _sum(walk: Walk, node: ir.Node) -> Label | None:
    """Branches that meet in a sum are rescaled alike."""
    if any(walk.is_constant(value) for value in node.inputs):
        return None  # one constant operand of Add and Sub is handled where constants are rescaled
    labels = [walk.label(value) for value in node.inputs]
    known = [label for label in labels if label is not None]
    if not known or not walk.same_shape(node.inputs, known[0]):
        return None
    return walk.tied(labels, known[0])


def _squeeze(walk: Walk, node: ir.Node) -> Label | None:
    label, given = _first(walk, node), operand(node, 1)
    axes = attribute(node, "axes") if given is None else walk.ints(given)
    if label is None or not axes:
        return None
    if node.op_type == "Unsqueeze":
        rank = label.rank + len(axes)
        rest = [axis for axis in range(rank) if axis not in {a % rank for a in axes}]
        return Label(rest[label.axis], rank, label.ids)
    dropped = {axis % label.rank for axis in axes}
    if label.axis in dropped:
        return None
    return Label(label.axis - sum(a < label.axis for a in dropped), label.rank - len(dropped), label.ids)


RULES: dict[str, Rule] = {
    **dict.fromkeys(["Relu", "LeakyRelu", "Identity", "Dropout", "Abs", "Neg"], _first),
    **dict.fromkeys(
        ["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "GlobalLpPool"], _spatial
    ),
    **dict.fromkeys(["Resize", "Upsample"], _spatial),
    **dict.fromkeys(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"], _reduce),
    **dict.fromkeys(["Reshape", "Flatten"], _reshape),
    **dict.fromkeys(["Squeeze", "Unsqueeze"], _squeeze),
    **dict.fromkeys(["Add", "Sub", "Sum"], _sum),
    "PRelu": _prelu,
    "Clip": _clip,
    "Transpose": _transpose,
    "Concat": _concat,
    "Slice": _slice,
    "Pad": _pad,
}

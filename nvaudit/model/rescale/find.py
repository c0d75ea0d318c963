"""Which channels of a model can be rescaled without changing what it computes, and what has to follow.

If activation x is divided by t (channel by channel), the weights that take it are multiplied by t, and those
that make it are divided by it; digital constants on the way (biases, batch normalisation, factors) follow.
What lies between two weights must be positively homogeneous, f(a·x) = a·f(x) for a > 0, or a digital constant
absorbs the scale: one rule for each operator without weights gives the label of its first output, or None
where the scale of what it takes may not change.

Reference: Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019
(cross-layer equalisation of pairs; here every branch and every consumer of a graph at once).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nvaudit.arrays import Ids
from nvaudit.model.analysis import Root, analyse
from nvaudit.model.layout import Layout
from nvaudit.model.rescale.linear import find_linear
from nvaudit.model.rescale.plan import (
    FIXED,
    ConstantEdit,
    Insert,
    Insertion,
    Label,
    NormEdit,
    RescalePlan,
    ScalableWeight,
)
from nvaudit.model.rescale.walk import RescaleWalk, SeenSizes
from nvaudit.model.rewrite import fixed_reason
from nvaudit.model.walk import attribute, bodies, graphs, operand, places
from nvaudit.model.weights import choose


def plan_scaling(
    model: ir.Model,
    keys: Collection[str],
    insert: Insert = "none",
    *,
    private: Collection[str] = (),
    seen: Mapping[str, SeenSizes] | None = None,
) -> RescalePlan:
    """Find what can be rescaled.

    Parameters
    ----------
    keys : collection of str
        Weights on the array.
    insert : {"none", "columns", "both"}
        Where digital factors may be added.
    private : collection of str
        ``"in KEY"`` and ``"out KEY"`` for the sides of weights that need no new factor, because a digital
        constant absorbs the scale already.
    seen : mapping of str to tuple, optional
        Sizes of activations that were seen when the model ran.
    """
    planner = _Planner(RescaleWalk(model, seen), keys, insert, private)
    for place in places(model.graph):
        if place.path == "":
            planner.visit(place.node, place.label)
    planner.close()
    return planner.plan


class _Planner:
    """Walks over the main graph once."""

    def __init__(
        self, walk: RescaleWalk, keys: Collection[str], insert: Insert, private: Collection[str]
    ) -> None:
        self.walk, model = walk, walk.model
        self.plan = RescalePlan(model, walk.variables)
        self.insert, self.private = insert, private
        self.roots: dict[tuple[ir.Node, int], Root] = {}
        self.first: dict[str, tuple[Ids, Ids]] = {}
        for root in analyse(model).roots:
            choice = choose(root)
            if root.key not in keys or not choice.mapped:
                continue
            reason = _obstacle(root, choice.layouts)
            if reason is not None:
                self.plan.refused[root.key] = reason
                continue
            for end in choice.mapped:
                assert end.place is not None
                self.roots[end.place.node, end.index] = root

    def visit(self, node: ir.Node, name: str) -> None:
        """Label the outputs of a node, or block what it takes."""
        for _, body in bodies(node):
            self._block_captured(body, name)
        if node.op_type in _SHAPE_ONLY or all(value in self.walk.constant for value in node.outputs):
            return
        label = self._linear(node, name)
        if label is None and node.domain == "":
            rule = self._RULES.get(node.op_type) or RULES.get(node.op_type)
            label = None if rule is None else self._ruled(rule, node)
        if label is None:
            for value in node.inputs:
                self.walk.block(value, f"{node.op_type} '{name}' minds the scale of what it takes")
        else:
            self.walk.labels[node.outputs[0]] = label

    def _ruled(self, rule: Callable[..., Label | None], node: ir.Node) -> Label | None:
        own = node.op_type in self._RULES
        label = rule(self, node) if own else rule(self.walk, node)
        if label is None and own and node.op_type in RULES:
            label = RULES[node.op_type](self.walk, node)
        return label

    def _block_captured(self, body: ir.Graph, name: str) -> None:
        for graph, _ in graphs(body):
            for node in graph:
                for value in node.inputs:
                    self.walk.block(value, f"is read inside '{name}'")
            for value in graph.outputs:
                self.walk.block(value, f"is read inside '{name}'")

    def close(self) -> None:
        """Outputs of the model keep their scale; every weight that is no layer says why."""
        for value in self.plan.model.graph.outputs:
            self.walk.block(value, "is an output of the model")
        done = {layer.key for layer in self.plan.layers}
        for (node, index), root in self.roots.items():
            if root.key not in done:
                why = f"{node.op_type} takes it as input {index}: its channels cannot be rescaled one by one"
                self.plan.refused.setdefault(root.key, why)

    def _linear(self, node: ir.Node, name: str) -> Label | None:
        """A weight: what it takes and what it makes are rescaled independently."""
        layer = find_linear(node, lambda index: self.roots.get((node, index)), self.walk)
        if layer is None:
            for index in range(len(node.inputs)):
                root = self.roots.get((node, index))
                if root is not None:
                    self.plan.refused[root.key] = (
                        f"{node.op_type} '{name}' does more with it than multiply and add"
                    )
            return None
        key = layer.root.key
        source = self._source(node, layer.source_index, layer.inputs, layer.source_axis)
        made = Label(layer.rank + layer.result_axis, layer.rank, self.walk.variables.fresh(layer.channels))
        label = made
        if self.insert != "none" and f"out {key}" not in self.private:
            # A factor t_made / t_label behind the layer: its own scale is then free of all that follows.
            label = Label(made.axis, made.rank, self.walk.variables.fresh(layer.channels))
            self.plan.edits.append(Insertion(node, None, made.ids, label.ids, label, layer.dtype))
        if self.insert == "both" and f"in {key}" not in self.private and layer.source_rank:
            # A factor t_source / t_fresh in front: others that take the same activation keep their own scale.
            fresh = self.walk.variables.fresh(layer.inputs)
            axis = layer.source_rank + layer.source_axis
            at = Label(axis, layer.source_rank, fresh)
            self.plan.edits.append(Insertion(node, layer.source_index, source, fresh, at, layer.dtype))
            source = fresh
        if layer.bias_index is not None:
            one = Label(0, 1, made.ids)
            # y = W x + b is divided by t_out as a whole: b′ = b / t_out.
            fixed = np.full_like(made.ids, FIXED)
            self.plan.edits.append(ConstantEdit(node, layer.bias_index, fixed, made.ids, one))
        source_ids, result_ids = source[layer.source_at], made.ids[layer.result_at]
        # W′ = W t_in / t_out: t_in belongs to what it takes, t_out to what it makes, and the two are free of
        # each other. What has another consumer or maker is tied by the label that both share.
        if key in self.first:
            # One array serves both uses, so both see the same factors.
            self.walk.variables.tie(self.first[key][0], source_ids)
            self.walk.variables.tie(self.first[key][1], result_ids)
        self.first.setdefault(key, (source_ids, result_ids))
        self.plan.layers.append(
            ScalableWeight(
                key,
                node.op_type,
                name,
                (node.inputs[layer.source_index] or node.outputs[0]).name or "",
                node.outputs[0].name or "",
                layer.source_axis,
                layer.result_axis,
                layer.source_at,
                layer.result_at,
                source_ids,
                result_ids,
                layer.channels,
                self._gain(node.outputs[0], layer.channels),
            )
        )
        return label

    def _source(self, node: ir.Node, index: int, size: int, axis: int) -> Ids:
        """Variables of the channels that a weight takes; fixed ones where they carry no label."""
        label = self.walk.label(node.inputs[index])
        if label is not None and label.axis - label.rank == axis and label.ids.size == size:
            return label.ids
        self.walk.block(node.inputs[index], f"{node.op_type} mixes its channels")
        return np.full(size, FIXED, np.int64)

    def _gain(self, value: ir.Value, channels: int) -> NDArray[np.float64] | None:
        """Factor by which a batch normalisation that follows at once enlarges each channel."""
        # With another reader the noise of a channel would reach it without this factor.
        uses = list(value.uses())
        if len(uses) != 1 or not is_plain_norm(uses[0].node) or uses[0].idx != 0:
            return None
        arrays = [self.walk.array(v) for v in uses[0].node.inputs[1:5] if v is not None]
        scale, variance = arrays[0], arrays[-1]
        if scale is None or variance is None or scale.size != channels:
            return None
        epsilon = float(attribute(uses[0].node, "epsilon", 1e-5))
        return np.abs(scale.astype(np.float64)) / np.sqrt(variance.astype(np.float64) + epsilon)

    def _norm(self, node: ir.Node) -> Label | None:
        """Batch normalisation absorbs a scale on either side."""
        if not is_plain_norm(node) or not all(self.walk.is_constant(v) for v in node.inputs[1:5]):
            return None
        scale = self.walk.array(node.inputs[1]) if node.inputs[1] is not None else None
        rank = self.walk.rank(node.inputs[0])
        if scale is None or rank is None or rank < 2:
            return None
        label = self.walk.label(node.inputs[0])
        if label is not None and (label.axis != 1 or label.ids.size != scale.size):
            return None
        taken = np.full(scale.size, FIXED, np.int64) if label is None else label.ids
        made = Label(1, rank, self.walk.variables.fresh(scale.size))
        self.plan.edits.append(NormEdit(node, taken, made.ids))
        return made

    def _operands(self, node: ir.Node) -> tuple[int, int, Label] | None:
        """A labelled operand and a constant one that can be written channel by channel."""
        if len(node.inputs) != 2:
            return None
        for one, other in ((0, 1), (1, 0)):
            label, value = self.walk.label(node.inputs[one]), node.inputs[other]
            if label is None or value is None:
                continue
            array = self.walk.array(value)
            if array is None or array.ndim > label.rank or array.dtype.kind not in "fV":
                continue
            lead = label.rank - array.ndim
            size = array.shape[label.axis - lead] if label.axis >= lead else 1
            if size in (1, label.ids.size):
                return one, other, label
        return None

    def _factor(self, node: ir.Node) -> Label | None:
        """Mul and Div by a constant absorb a scale; a product of two values has the scale of the one."""
        operands = self._operands(node)
        if operands is None:
            return self._gated(node)
        _, other, label = operands
        # c / x is homogeneous of degree −1: it would have the scale 1 / t, which no label can say.
        if node.op_type == "Div" and other == 0:
            return None
        made = Label(label.axis, label.rank, self.walk.variables.fresh(label.ids.size))
        # With x = t x′ and y = u y′: y = c x gives c′ = c t / u, and y = x / c gives c′ = c u / t.
        up, down = (label.ids, made.ids) if node.op_type == "Mul" else (made.ids, label.ids)
        self.plan.edits.append(ConstantEdit(node, other, up, down, label))
        return made

    def _gated(self, node: ir.Node) -> Label | None:
        # x · g would have the scale t_x t_g, a product that no variable is: one operand keeps its scale, and
        # the result has the label of the other.
        first, second = (self.walk.label(operand(node, i)) for i in (0, 1))
        if second is not None and (first is not None or node.op_type == "Div"):
            self.walk.block(node.inputs[1], f"{node.op_type} multiplies or divides by it")
            second = None
        label, other = (first, 1) if first is not None else (second, 0)
        shape = self.walk.shape(operand(node, other))
        if label is None or shape is None or len(shape) > label.rank:
            return None
        lead = label.rank - len(shape)
        size = shape[label.axis - lead] if label.axis >= lead else 1
        return label if size in (1, label.ids.size) else None

    def _shift(self, node: ir.Node) -> Label | None:
        """A constant that is added is rescaled with what it is added to."""
        operands = self._operands(node)
        if operands is None:
            return None
        _, other, label = operands
        # x + c = t (x′ + c / t).
        fixed = np.full_like(label.ids, FIXED)
        self.plan.edits.append(ConstantEdit(node, other, fixed, label.ids, label))
        return label

    _RULES = {  # noqa: RUF012 - a constant table
        "BatchNormalization": _norm,
        "Mul": _factor,
        "Div": _factor,
        "Add": _shift,
        "Sub": _shift,
    }


_SHAPE_ONLY = frozenset({"Shape", "Size"})  # what they give does not depend on numbers


def is_plain_norm(node: ir.Node) -> bool:
    """Whether a node is a batch normalisation by stored statistics."""
    return (
        (node.domain, node.op_type) == ("", "BatchNormalization")
        and len(node.inputs) == 5
        and not attribute(node, "training_mode", 0)
        and bool(attribute(node, "spatial", 1))
        and not any(value.uses() for value in node.outputs[1:])
    )


def _obstacle(root: Root, layouts: list[Layout]) -> str | None:
    """Say why the channels of a weight cannot be rescaled; None if they can."""
    reason = fixed_reason(root)
    if reason is None and (root.path or any(end.place is None or end.place.path for end in root.ends)):
        return "is inside or used by a subgraph"
    if reason is None and any(layout != layouts[0] for layout in layouts):
        return "is used in several layouts"
    return reason


RescaleRule = Callable[[RescaleWalk, ir.Node], "Label | None"]


def _first(walk: RescaleWalk, node: ir.Node) -> Label | None:
    return walk.label(node.inputs[0])


def _spatial(walk: RescaleWalk, node: ir.Node) -> Label | None:
    """Pooling and resizing: positively homogeneous in each channel."""
    label = _first(walk, node)
    return label if label is not None and label.axis == 1 else None


def _prelu(walk: RescaleWalk, node: ir.Node) -> Label | None:
    return _first(walk, node) if walk.is_constant(operand(node, 1)) else None


def _clip(walk: RescaleWalk, node: ir.Node) -> Label | None:
    """Only max(x, 0) does not mind scales."""
    low, high = attribute(node, "min"), attribute(node, "max")
    if len(node.inputs) > 1:
        numbers = [None if value is None else walk.array(value) for value in (*node.inputs[1:], None)]
        low = None if numbers[0] is None or numbers[0].size != 1 else float(numbers[0].reshape(()))
        high = numbers[1]
        # A limit that is computed from the data has no array, and limits all the same.
        if high is None and operand(node, 2) is not None:
            return None
    unbounded = high is None or (np.size(high) == 1 and float(np.max(high)) > _HUGE)
    return _first(walk, node) if low == 0 and unbounded else None


_HUGE = 3e38


def _reduce(walk: RescaleWalk, node: ir.Node) -> Label | None:
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


def _transpose(walk: RescaleWalk, node: ir.Node) -> Label | None:
    label = _first(walk, node)
    if label is None:
        return None
    perm = tuple(attribute(node, "perm", tuple(reversed(range(label.rank)))))
    return Label(perm.index(label.axis), label.rank, label.ids)


def _reshape(walk: RescaleWalk, node: ir.Node) -> Label | None:
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


def _concat(walk: RescaleWalk, node: ir.Node) -> Label | None:
    labels = [walk.label(value) for value in node.inputs]
    known = [label for label in labels if label is not None]
    if not known:
        return None
    rank, place = known[0].rank, known[0].axis
    if any((label.rank, label.axis) != (rank, place) for label in known):
        return None
    if attribute(node, "axis", 1) % rank != place:
        # Joined along positions: every channel holds parts of all operands, which so share one scale.
        return walk.tied(labels, known[0])
    parts = []
    for value, label in zip(node.inputs, labels, strict=True):
        shape = walk.shape(value)
        size = None if shape is None or len(shape) != rank else shape[place]
        if label is None and size is None:
            return None
        parts.append(np.full(size or 0, FIXED, np.int64) if label is None else label.ids)
    return Label(place, rank, np.concatenate(parts))


def _slice(walk: RescaleWalk, node: ir.Node) -> Label | None:
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


def _slice_lists(walk: RescaleWalk, node: ir.Node) -> tuple[tuple[int, ...], ...] | None:
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


def _pad(walk: RescaleWalk, node: ir.Node) -> Label | None:
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
    # Channels of zeros are the same at any scale.
    ids = (walk.variables.fresh(before), label.ids, walk.variables.fresh(after))
    return Label(label.axis, label.rank, np.concatenate(ids))


def _sum(walk: RescaleWalk, node: ir.Node) -> Label | None:
    """Branches that meet in a sum are rescaled alike."""
    if any(walk.is_constant(value) for value in node.inputs):
        return None  # one constant operand of Add and Sub is handled where constants are rescaled
    labels = [walk.label(value) for value in node.inputs]
    known = [label for label in labels if label is not None]
    if not known or not walk.same_shape(node.inputs, known[0]):
        return None
    return walk.tied(labels, known[0])


def _squeeze(walk: RescaleWalk, node: ir.Node) -> Label | None:
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


RULES: dict[str, RescaleRule] = {
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

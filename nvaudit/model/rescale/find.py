"""Which channels of a model can be rescaled without changing what it computes, and what has to follow.

If activation x is divided by t (channel by channel), the weights that take it are multiplied by t, and those
that make it are divided by it; digital constants on the way (biases, batch normalisation, factors) follow.
What lies between two weights must be positively homogeneous, or a digital constant absorbs the scale.

Reference: Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019
(cross-layer equalisation of pairs; here every branch and every consumer of a graph at once).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from nvaudit.model.analysis import Root, analyse
from nvaudit.model.layout import Layout
from nvaudit.model.rescale.channels import FIXED, Ids, Label
from nvaudit.model.rescale.linear import find_linear
from nvaudit.model.rescale.plan import ConstantEdit, Insert, Insertion, Layer, NormEdit, Plan
from nvaudit.model.rescale.rules import RULES
from nvaudit.model.rescale.walk import Sizes, Walk
from nvaudit.model.rewrite import fixed_reason
from nvaudit.model.walk import attribute, bodies, graphs, operand, places
from nvaudit.model.weights import choose


def plan_scaling(
    model: ir.Model,
    keys: Collection[str],
    insert: Insert = "none",
    *,
    private: Collection[str] = (),
    seen: Mapping[str, Sizes] | None = None,
) -> Plan:
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
    planner = _Planner(Walk(model, seen), keys, insert, private)
    for place in places(model.graph):
        if place.path == "":
            planner.visit(place.node, place.label)
    planner.close()
    return planner.plan


class _Planner:
    """Walks over the main graph once."""

    def __init__(self, walk: Walk, keys: Collection[str], insert: Insert, private: Collection[str]) -> None:
        self.walk, model = walk, walk.model
        self.plan = Plan(model, walk.variables)
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
        found = find_linear(node, lambda index: self.roots.get((node, index)), self.walk)
        if found is None:
            for index in range(len(node.inputs)):
                root = self.roots.get((node, index))
                if root is not None:
                    self.plan.refused[root.key] = (
                        f"{node.op_type} '{name}' does more with it than multiply and add"
                    )
            return None
        key = found.root.key
        source = self._source(node, found.source_index, found.inputs, found.source_axis)
        made = Label(found.rank + found.result_axis, found.rank, self.walk.variables.fresh(found.channels))
        label = made
        if self.insert != "none" and f"out {key}" not in self.private:
            label = Label(made.axis, made.rank, self.walk.variables.fresh(found.channels))
            self.plan.edits.append(Insertion(node, None, made.ids, label.ids, label, found.dtype))
        if self.insert == "both" and f"in {key}" not in self.private and found.source_rank:
            fresh = self.walk.variables.fresh(found.inputs)
            axis = found.source_rank + found.source_axis
            at = Label(axis, found.source_rank, fresh)
            self.plan.edits.append(Insertion(node, found.source_index, source, fresh, at, found.dtype))
            source = fresh
        if found.bias_index is not None:
            one = Label(0, 1, made.ids)
            fixed = np.full_like(made.ids, FIXED)
            self.plan.edits.append(ConstantEdit(node, found.bias_index, fixed, made.ids, one))
        source_ids, result_ids = source[found.source_at], made.ids[found.result_at]
        if key in self.first:
            # One array serves both uses, so both see the same factors.
            self.walk.variables.tie(self.first[key][0], source_ids)
            self.walk.variables.tie(self.first[key][1], result_ids)
        self.first.setdefault(key, (source_ids, result_ids))
        self.plan.layers.append(
            Layer(
                key,
                node.op_type,
                name,
                (node.inputs[found.source_index] or node.outputs[0]).name or "",
                node.outputs[0].name or "",
                found.source_axis,
                found.result_axis,
                found.source_at,
                found.result_at,
                source_ids,
                result_ids,
                found.channels,
                self._gain(node.outputs[0], found.channels),
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
        found = self._operands(node)
        if found is None:
            return self._gated(node)
        _, other, label = found
        if node.op_type == "Div" and other == 0:
            return None
        made = Label(label.axis, label.rank, self.walk.variables.fresh(label.ids.size))
        up, down = (label.ids, made.ids) if node.op_type == "Mul" else (made.ids, label.ids)
        self.plan.edits.append(ConstantEdit(node, other, up, down, label))
        return made

    def _gated(self, node: ir.Node) -> Label | None:
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
        found = self._operands(node)
        if found is None:
            return None
        _, other, label = found
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

"""Write chosen scales into a model: weights, biases, normalisations, digital factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from nvaudit.arrays import Array, Floats
from nvaudit.model.build import Names, remove_unused
from nvaudit.model.load import LoadedModel
from nvaudit.model.rescale.find import plan_scaling
from nvaudit.model.rescale.plan import ConstantEdit, Insert, Insertion, NormEdit, RescalePlan, ScalableWeight
from nvaudit.model.rescale.walk import SeenSizes
from nvaudit.model.rewrite import put_constant, set_weights, weight_values
from nvaudit.model.walk import attribute

NEGLIGIBLE = 1e-6
"""A factor that differs from 1 by no more than this is not inserted."""


def rescaled(
    loaded: LoadedModel,
    keys: tuple[str, ...],
    insert: Insert,
    private: frozenset[str],
    scales: Floats,
    seen: Mapping[str, SeenSizes] | None = None,
) -> LoadedModel:
    """Make a model that computes the same with rescaled channels.

    Parameters
    ----------
    keys : tuple of str
        Weights on the array.
    insert, private, seen
        As in :func:`nvaudit.model.rescale.find.plan_scaling`, whose variables the scales belong to.
    scales : ndarray, float64, shape (variable,)
        What each activation channel is divided by; 1 for variable 0.

    Returns
    -------
    LoadedModel
        With a model of its own.
    """
    plan = plan_scaling(loaded.model.clone(), keys, insert, private=private, seen=seen)
    _weights(plan, scales)
    names = Names(plan.model.graph)
    # Constants first: they are read through the graph as it stands, before new nodes take their places.
    for edit in plan.edits:
        if isinstance(edit, ConstantEdit):
            _constant(edit, scales, names)
        elif isinstance(edit, NormEdit):
            _norm(edit, scales, names)
    for edit in plan.edits:
        if isinstance(edit, Insertion):
            _insert(edit, scales, names)
    remove_unused(plan.model.graph)
    return replace(loaded, model=plan.model)


def _weights(plan: RescalePlan, scales: Floats) -> None:
    done: dict[str, ScalableWeight] = {}
    for layer in plan.layers:
        # Uses of one array have tied scales: the factors of the first are those of all.
        done.setdefault(layer.key, layer)
    arrays = {}
    for key, values in weight_values(plan.model, list(done)).items():
        layer = done[key]
        # y′ = y / t_out and x′ = x / t_in for y = W x give W′ = W t_in / t_out, element by element.
        ratio = scales[layer.source_ids] / scales[layer.result_ids]
        wide = values.astype(np.float64) * ratio.reshape(ratio.shape + (1,) * (values.ndim - 2))
        arrays[key] = wide
    set_weights(plan.model, arrays)


def _constant(edit: ConstantEdit, scales: Floats, names: Names) -> None:
    value = edit.node.inputs[edit.index]
    assert value is not None
    factor = scales[edit.up] / scales[edit.down]
    if np.all(factor == 1):
        return

    def change(array: Array) -> Array:
        wide = array.astype(np.float64) * edit.label.aligned(factor)
        # Aligning gave it the rank of the activation; leading axes of size 1 that it did not have go again.
        while wide.ndim > max(array.ndim, 1) and wide.shape[0] == 1:
            wide = wide[0]
        return np.asarray(wide, array.dtype)

    put_constant(edit.node, edit.index, change, names)


def _norm(edit: NormEdit, scales: Floats, names: Names) -> None:
    """y = γ (x − μ) / √(v + ε) + β for x = t·x′, y = u·y′: μ′ = μ / t, v′ = v / t², β′ = β / u.

    ε does not scale with v, so γ makes up for it: γ′ = γ √(v′ + ε) / √(v + ε) · t / u. The variance is
    written first, and γ follows what its type kept of it.
    """
    taken, made = scales[edit.taken], scales[edit.made]
    epsilon = float(attribute(edit.node, "epsilon", 1e-5))
    variance: dict[str, Any] = {}

    def keep(array: Array) -> Array:
        variance["old"] = array.astype(np.float64)
        new: Array = np.asarray(variance["old"] / taken**2, array.dtype)
        variance["new"] = new.astype(np.float64)
        return new

    put_constant(edit.node, 4, keep, names)
    ratio = np.sqrt((variance["new"] + epsilon) / (variance["old"] + epsilon))
    scale = ratio * taken / made
    put_constant(edit.node, 1, lambda a: (a.astype(np.float64) * scale).astype(a.dtype), names)
    put_constant(edit.node, 2, lambda a: (a.astype(np.float64) / made).astype(a.dtype), names)
    put_constant(edit.node, 3, lambda a: (a.astype(np.float64) / taken).astype(a.dtype), names)


def _insert(edit: Insertion, scales: Floats, names: Names) -> None:
    factor = scales[edit.up] / scales[edit.down]
    if np.all(np.abs(factor - 1) <= NEGLIGIBLE):
        return
    node, graph = edit.node, edit.node.graph
    assert graph is not None
    array = edit.label.aligned(factor).astype(edit.dtype.numpy())
    base = node.name or (node.outputs[0].name or node.op_type)
    tensor = ir.tensor(array, name=names.fresh(f"{base}/scale"))
    holder = ir.Node("", "Constant", [], [ir.Attr("value", ir.AttributeType.TENSOR, tensor)])
    holder.outputs[0].name = tensor.name
    holder.name = names.fresh(f"{base}/scale_constant")
    value = node.outputs[0] if edit.index is None else node.inputs[edit.index]
    assert value is not None
    factored = ir.Node("", "Mul", [value, holder.outputs[0]], name=names.fresh(f"{base}/rescale"))
    new = factored.outputs[0]
    new.name = names.fresh(f"{value.name}/rescaled")
    new.type, new.shape = value.type, value.shape
    if edit.index is not None:
        graph.insert_before(node, [holder, factored])
        node.replace_input_with(edit.index, new)
        return
    graph.insert_after(node, [holder, factored])
    # What is asked for by name is the rescaled value from now on.
    if value.is_graph_output():
        new.name, value.name = value.name, new.name
    value.replace_all_uses_with(new, replace_graph_outputs=True)
    # The line above moved the factor's own input as well: it would take what it makes.
    factored.replace_input_with(0, value)

"""Write corrected means into a model: biases, batch normalisations, added constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from nvaudit.model.build import Names
from nvaudit.model.fold import fold
from nvaudit.model.load import LoadedModel
from nvaudit.model.rescale.centre import Centres, Spot
from nvaudit.model.rewrite import put_constant
from nvaudit.model.tensors import Array
from nvaudit.model.walk import attribute, operand


def with_centres(
    loaded: LoadedModel,
    centres: Centres,
    shifts: Mapping[str, Array],
    norms: Mapping[str, tuple[Array, Array]],
) -> LoadedModel:
    """Make a model with corrected means.

    Parameters
    ----------
    shifts : mapping of str to ndarray, float64, shape (channel,)
        What is taken off results of layers, by :attr:`Spot.value`.
    norms : mapping of str to (ndarray, ndarray)
        Mean and variance for batch normalisations, by what they make.
    """
    model = loaded.model.clone()
    names = Names(model.graph)
    makers = {value.name: node for node in model.graph for value in node.outputs}
    for spot in centres.spots:
        if spot.value in shifts:
            _shift(makers[spot.value], spot, shifts[spot.value], names, model)
    for name, statistics in norms.items():
        for index, new in zip((3, 4), statistics, strict=True):
            put_constant(makers[name], index, lambda old, n=new: n.astype(old.dtype), names)  # type: ignore[misc]
    return replace(loaded, model=model)


def _shift(node: ir.Node, spot: Spot, shift: Array, names: Names, model: ir.Model) -> None:
    if spot.into == "norm":
        behind = next(iter(node.outputs[0].uses())).node
        put_constant(behind, 3, lambda a: (a.astype(np.float64) + shift).astype(a.dtype), names)
        return
    if spot.into == "add":
        use = next(iter(node.outputs[0].uses()))
        shape = [-1 if axis == spot.axis else 1 for axis in range(spot.rank)]
        put_constant(use.node, 1 - use.idx, lambda a: _less(a, shift.reshape(shape)), names)
        return
    own = shift / attribute(node, "beta", 1.0) if node.op_type == "Gemm" else shift
    if spot.into == "new":
        tensor = ir.tensor((-own).astype(spot.dtype.numpy()), name=names.fresh(f"{spot.value}/bias"))
        kind = ir.TensorType(spot.dtype)
        value = ir.Value(name=tensor.name, type=kind, shape=ir.Shape(own.shape), const_value=tensor)
        model.graph.register_initializer(value)
        node.resize_inputs(3)
        node.replace_input_with(2, value)
        return
    maker = None if (bias := operand(node, 2)) is None else bias.producer()
    if maker is not None and maker.op_type == "DequantizeLinear" and maker.inputs[1] is not None:
        step = fold(maker.inputs[1], model.opset_imports.get("", 1))
        assert step is not None
        put_constant(maker, 0, lambda a: _less_codes(a, own, step), names)
        return
    put_constant(node, 2, lambda a: _less(a, own), names)


def _less(array: Array, shift: Array) -> Array:
    wide = array.astype(np.float64) - shift
    while wide.ndim > max(array.ndim, 1) and wide.shape[0] == 1:
        wide = wide[0]
    return wide.astype(array.dtype)


def _less_codes(codes: Array, shift: Array, step: Array) -> Array:
    """An integer bias, in its own steps."""
    ends = np.iinfo(codes.dtype)
    wide = np.rint(codes - shift / step.astype(np.float64))
    return np.clip(wide, ends.min, ends.max).astype(codes.dtype)

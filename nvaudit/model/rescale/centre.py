"""Where the mean of what a layer makes can be corrected, how it is measured, and how it is written.

Noise with a mean, clipping, and a Relu behind zero-mean noise all shift the mean of what follows. A bias, the
mean of a batch normalisation, or a constant that is added takes the shift up. To measure shifts of all layers
at once, every corrected result is brought back to its clean mean, batch by batch, on the way: what a layer
then shows is its own shift, not that of the layers before it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.model.analysis import Root, analyse
from nvaudit.model.build import Builder, Names
from nvaudit.model.fold import fold
from nvaudit.model.load import LoadedModel
from nvaudit.model.operators import OPTIONAL_GEMM_BIAS, is_gemm, operator_of
from nvaudit.model.rescale.find import is_plain_norm
from nvaudit.model.rescale.linear import Linear, find_linear
from nvaudit.model.rescale.walk import RescaleWalk, SeenSizes
from nvaudit.model.rewrite import put_constant
from nvaudit.model.walk import attribute, operand, places
from nvaudit.model.weights import choose

Into = Literal["norm", "bias", "add", "new"]


@dataclass(frozen=True)
class Spot:
    """A layer whose mean can be corrected.

    Attributes
    ----------
    axis, rank, channels : int
        The channel axis of that, its axes, and its channels.
    into : {"norm", "bias", "add", "new"}
        What takes the correction: the batch normalisation that follows, the layer's bias, the constant that
        is added behind it, or a bias that it does not have yet.
    dtype : onnx_ir.DataType
        Float type of what it makes.
    """

    key: str
    value: str
    axis: int
    rank: int
    channels: int
    into: Into
    dtype: ir.DataType


@dataclass(frozen=True)
class Centres:
    """What can be corrected in a model.

    Attributes
    ----------
    norms : tuple of str
        Batch normalisations by stored statistics in the main graph: what they make.
    refused : dict of str to str
        Weights without a spot, each with the reason.
    """

    spots: tuple[Spot, ...]
    norms: tuple[str, ...]
    refused: dict[str, str]


def find_centres(
    model: ir.Model, keys: Collection[str], seen: Mapping[str, SeenSizes] | None = None
) -> Centres:
    """Find what can be corrected.

    Parameters
    ----------
    keys : collection of str
        Weights on the array.
    seen : mapping of str to tuple, optional
        Sizes of activations that were seen when the model ran.
    """
    walk, uses = RescaleWalk(model, seen), _uses(model, keys)
    spots, norms = list[Spot](), list[str]()
    refused = dict.fromkeys(
        keys, "serves something else than Conv, ConvTranspose, Gemm and MatMul of the main graph"
    )
    for place in places(model.graph):
        node = place.node
        if place.path:
            continue
        if _is_fixed_norm(node, walk):
            norms.append(node.outputs[0].name or "")
        layer = find_linear(node, partial(_root_at, uses, node), walk, integer_bias=True)
        if layer is None:
            continue
        into, reason = _taker(node, layer, walk)
        if into is None:
            refused[layer.root.key] = reason
            continue
        refused.pop(layer.root.key, None)
        axis = layer.rank + layer.result_axis
        spots.append(
            Spot(
                layer.root.key,
                node.outputs[0].name or "",
                axis,
                layer.rank,
                layer.channels,
                into,
                layer.dtype,
            )
        )
    return Centres(tuple(spots), tuple(norms), refused)


def _root_at(uses: Mapping[tuple[ir.Node, int], Root], node: ir.Node, index: int) -> Root | None:
    return uses.get((node, index))


def _uses(model: ir.Model, keys: Collection[str]) -> dict[tuple[ir.Node, int], Root]:
    return {
        (end.place.node, end.index): root
        for root in analyse(model).roots
        if root.key in keys
        for end in choose(root).mapped
        if end.place is not None and not end.path
    }


def _taker(node: ir.Node, layer: Linear, walk: RescaleWalk) -> tuple[Into | None, str]:
    """What can take a correction of a layer's result up."""
    uses = list(node.outputs[0].uses())
    alone = len(uses) == 1 and not node.outputs[0].is_graph_output()
    behind = uses[0].node if alone else None
    if behind is not None and uses[0].idx == 0 and _is_fixed_norm(behind, walk):
        return "norm", ""
    if layer.bias_index is not None:
        return "bias", ""
    if behind is not None and _addend(behind, 1 - uses[0].idx, layer, walk):
        return "add", ""
    takes_bias = (operator := operator_of(node)) is not None and operator.bias is not None
    if takes_bias and not (is_gemm(node.op_type, node.domain) and walk.opset < OPTIONAL_GEMM_BIAS):
        return "new", ""
    return None, f"{node.op_type} has no bias, and nothing behind it takes a correction up"


def _is_fixed_norm(node: ir.Node, walk: RescaleWalk) -> bool:
    return is_plain_norm(node) and all(walk.is_constant(value) for value in node.inputs[1:5])


def _addend(node: ir.Node, index: int, layer: Linear, walk: RescaleWalk) -> bool:
    if node.op_type != "Add" or node.domain:
        return False
    value = node.inputs[index]
    array = None if value is None else walk.array(value)
    if array is None or array.ndim > layer.rank or array.dtype.kind not in "fV":
        return False
    at = layer.result_axis + array.ndim
    return at < 0 or array.shape[at] in (1, layer.channels)


def watched_means(
    proto: bytes, centres: Centres, *, norms: bool, clean: Mapping[str, tuple[Array, Array]] | None
) -> tuple[bytes, dict[str, tuple[str, str]]]:
    """Let a graph return mean and variance of every corrected result, and correct them on the way.

    Parameters
    ----------
    proto : bytes
        A message with the values of :class:`Centres`.
    norms : bool
        Batch normalisations use the statistics of the batch at hand; what they take is returned instead of
        what the layer before them makes.
    clean : mapping of str to (ndarray, ndarray), optional
        Mean and variance that results have without noise. They are brought back to this mean, times the
        gain: what is left of the standard deviation of all channels, 1 at most. By default nothing is
        changed on the way.

    Returns
    -------
    tuple of bytes and dict of str to (str, str)
        The message; and for each result the names of the outputs that are its mean and variance.
    """
    model = ir.serde.deserialize_model(onnx.ModelProto.FromString(proto))
    opset, names = model.opset_imports.get("", 1), Names(model.graph)
    makers = {value.name: node for node in model.graph for value in node.outputs}
    moments_of: dict[str, tuple[str, str]] = {}
    for spot in centres.spots:
        node = makers.get(spot.value)
        if node is None or (norms and spot.into == "norm"):
            continue
        value = node.outputs[0]
        # Listed before anything is built: the moments read the value too, and must see it uncorrected.
        uses = list(value.uses())
        build = Builder(node, names)  # behind the node, once the graph is sorted
        axes = [axis for axis in range(spot.rank) if axis != spot.axis]
        centred, *moments = _moments(build, value, spot.dtype, axes, opset, model)
        moments_of[spot.value] = (moments[0].name or "", moments[1].name or "")
        if clean is not None and spot.value in clean:
            target = _target(build, moments[1], clean[spot.value], spot, opset)
            back = _cast(build, build.node("Add", centred, target), spot.dtype)
            for use in uses:
                use.node.replace_input_with(use.idx, back)
    if norms:
        for name in centres.norms:
            node = makers.get(name)
            if node is not None:
                moments_of[name] = _by_batch(node, names, opset, model, clean is not None)
    model.graph.sort()
    return bytes(ir.serde.serialize_model(model).SerializeToString()), moments_of


def _moments(
    build: Builder, value: ir.Value, dtype: ir.DataType, axes: list[int], opset: int, model: ir.Model
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """A value less its mean; and mean and variance of each channel, which the model returns from now on."""
    wide = _cast(build, value, ir.DataType.FLOAT, dtype)
    mean = build.mean(wide, axes, opset)
    centred = build.node("Sub", wide, mean)
    variance = build.mean(build.node("Mul", centred, centred), axes, opset)
    flat = [
        build.node("Reshape", moment, build.constant(np.array([-1], np.int64))) for moment in (mean, variance)
    ]
    for value in flat:
        value.type = ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(value)
    return centred, flat[0], flat[1]


def _target(
    build: Builder, variance: ir.Value, clean: tuple[Array, Array], spot: Spot, opset: int
) -> ir.Value:
    """The clean mean, times the gain that is left."""
    mean, power = clean
    # gain² = mean of the channels' variances over what it is without noise, 1 at most: the same as in
    # remapping.centre, here inside the graph.
    share = build.node(
        "Div",
        build.mean(variance, [0], opset),
        build.constant(np.array([max(power.mean(), 1e-30)], np.float32)),
    )
    # min(share, 1) as share − relu(share − 1).
    beyond = build.node("Relu", build.node("Sub", share, build.constant(np.ones(1, np.float32))))
    gain = build.node("Sqrt", build.node("Sub", share, beyond))
    shape = [-1 if axis == spot.axis else 1 for axis in range(spot.rank)]
    return build.node("Mul", gain, build.constant(mean.astype(np.float32).reshape(shape)))


def _cast(
    build: Builder, value: ir.Value, wanted: ir.DataType, now: ir.DataType = ir.DataType.FLOAT
) -> ir.Value:
    return value if wanted == now else build.node("Cast", value, attributes={"to": int(wanted)})


def _by_batch(node: ir.Node, names: Names, opset: int, model: ir.Model, replaced: bool) -> tuple[str, str]:
    """Return the moments of what a batch normalisation takes, and let it use them."""
    build, value = Builder(node, names), node.inputs[0]
    assert value is not None
    # [N, C, positions], whatever the rank: 0 copies a size.
    flat = build.node("Reshape", value, build.constant(np.array([0, 0, -1], np.int64)))
    scale = node.inputs[1]
    dtype = ir.DataType.FLOAT if scale is None or scale.dtype is None else scale.dtype
    _, mean, variance = _moments(build, flat, dtype, [0, 2], opset, model)
    if replaced:
        node.replace_input_with(3, _cast(build, mean, dtype))
        node.replace_input_with(4, _cast(build, variance, dtype))
    return mean.name or "", variance.name or ""


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
        # (x − δ) − m = x − (m + δ): added to the mean, so that it is taken off the result.
        put_constant(behind, 3, lambda a: (a.astype(np.float64) + shift).astype(a.dtype), names)
        return
    if spot.into == "add":
        use = next(iter(node.outputs[0].uses()))
        shape = [-1 if axis == spot.axis else 1 for axis in range(spot.rank)]
        put_constant(use.node, 1 - use.idx, lambda a: _less(a, shift.reshape(shape)), names)
        return
    # Gemm adds beta · C: δ taken off the result is δ / beta taken off C.
    own = shift / attribute(node, "beta", 1.0) if is_gemm(node.op_type, node.domain) else shift
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

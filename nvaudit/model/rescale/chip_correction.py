"""The digital part of a chip corrected by what its layers make: by difference, on the same samples.

A chip that is there can be measured. On a few unlabelled samples, mean and variance of each channel of a
result are taken on the chip (μ, v) and of the ideal model (μ*, v*): the same samples, so that what these few
say of the data in general cancels, and only what the chip changes is left. It is written into a batch
normalisation by stored statistics that follows (m, s),

    m ← μ + √(v/v*) (m − μ*),        s ← s · v / v*,

or else behind the layer, as gain and bias of each output channel, √(v*/v) and μ* − √(v*/v) μ: what the
scale and offset of a column's converter, or a bias register, take up. Each result is corrected before the
next layer takes it, so that one run finds all corrections, each of what its own layer adds.

A channel that hardly varies says nothing of its gain: ``_FLOOR`` of the mean variance of a layer's channels
is added to v and v*.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.model.build import Builder, Names
from nvaudit.model.rescale.centre import Centres, Spot
from nvaudit.model.template import SLOT_FILE

_FLOOR = 1e-5

MeanAndSpread = tuple[Array, Array]
"""Mean and variance of each channel."""


@dataclass(frozen=True)
class ChipCorrection:
    """Two graphs: one finds the corrections of a chip, the other one has them as open places.

    Attributes
    ----------
    finder : bytes
        Gives ``places`` among its outputs, on one batch of calibration samples.
    template : bytes
        Takes them as initializers of the same names, declared as external data.
    norms, layers : tuple of str
        What is corrected: batch normalisations by what they make, layers by their weight.
    values : dict of str to str
        What each of ``norms``, and each result of ``spots``, is called where it is corrected.
    spots : tuple of Spot
        Layers with gain and bias, one for each operator.
    """

    finder: bytes
    template: bytes
    places: tuple[str, ...]
    norms: tuple[str, ...]
    layers: tuple[str, ...]
    values: dict[str, str]
    spots: tuple[Spot, ...]


def chip_correction(proto: bytes, centres: Centres, clean: Mapping[str, MeanAndSpread]) -> ChipCorrection:
    """Prepare a template for being corrected chip by chip.

    Parameters
    ----------
    proto : bytes
        The template; its batch size is free.
    centres : Centres
        Where it can be corrected.
    clean : mapping of str to (ndarray, ndarray)
        Mean and variance in the ideal model: of what layers make, by its name; of what batch normalisations
        take, by what these make.
    """
    finder, template = (ir.serde.deserialize_model(onnx.ModelProto.FromString(proto)) for _ in range(2))
    names = Names(finder.graph)
    finder.graph.outputs.clear()
    places: list[str] = []
    norms, spots = list[str](), list[Spot]()
    values = dict[str, str]()
    for number, value in enumerate(centres.norms):
        if value in clean and _has(finder, value):
            own_places = [names.fresh(f"chip/norm{number}/{what}") for what in ("mean", "variance")]
            _find_statistics(finder, value, clean[value], own_places, names)
            _open_statistics(template, value, own_places, len(clean[value][0]))
            places += own_places
            norms.append(value)
            values[value] = value
    for number, spot in enumerate(centres.spots):
        if spot.into != "norm" and spot.value in clean and _has(finder, spot.value):
            own_places = [names.fresh(f"chip/layer{number}/{what}") for what in ("gain", "bias")]
            axes = [axis for axis in range(spot.rank) if axis != spot.axis]
            shape = [-1 if axis == spot.axis else 1 for axis in range(spot.rank)]
            _find_gain(finder, spot.value, clean[spot.value], own_places, axes, shape, spot.dtype, names)
            values[spot.value] = _open_gain(
                template, spot.value, own_places, spot.channels, shape, spot.dtype
            )
            places += own_places
            spots.append(spot)
    # A builder stands before a node, and what it built here reads what that node makes.
    for model in (finder, template):
        model.graph.sort()
    data = [bytes(ir.serde.serialize_model(model).SerializeToString()) for model in (finder, template)]
    layers = tuple(dict.fromkeys(spot.key for spot in spots))
    return ChipCorrection(data[0], data[1], tuple(places), tuple(norms), layers, values, tuple(spots))


@dataclass(frozen=True)
class OpenGains:
    """A template with a gain and an offset of each output channel, still open, behind every layer.

    Attributes
    ----------
    template : bytes
        Also returns what each layer makes before that, under the names of ``results``.
    results : tuple of str
        One of each spot, in the order of the graph: a layer's depends on the gains before it alone.
    places : tuple of tuple of str
        Initializers of gain and offset of each.
    """

    template: bytes
    results: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    spots: tuple[Spot, ...]


def open_gains(proto: bytes, centres: Centres) -> OpenGains:
    """Open a place for gain and offset behind every layer that can be corrected.

    Parameters
    ----------
    proto : bytes
        The template.
    centres : Centres
        Where it can be corrected.
    """
    model = ir.serde.deserialize_model(onnx.ModelProto.FromString(proto))
    names, order = Names(model.graph), {id(node): at for at, node in enumerate(model.graph)}
    spots = [spot for spot in centres.spots if _has(model, spot.value)]
    spots.sort(key=lambda spot: order[id(_maker(model, spot.value))])
    results, places = [], []
    for number, spot in enumerate(spots):
        own = (names.fresh(f"chip/gain{number}"), names.fresh(f"chip/offset{number}"))
        shape = [-1 if axis == spot.axis else 1 for axis in range(spot.rank)]
        result = next(o for o in _maker(model, spot.value).outputs if o.name == spot.value)
        _open_gain(model, spot.value, list(own), spot.channels, shape, spot.dtype)
        model.graph.outputs.append(result)
        results.append(result)
        places.append(own)
    model.graph.sort()
    data = bytes(ir.serde.serialize_model(model).SerializeToString())
    return OpenGains(data, tuple(one.name or "" for one in results), tuple(places), tuple(spots))


def without_results(proto: bytes, results: Collection[str]) -> bytes:
    """Return no inner results any more."""
    message = onnx.ModelProto.FromString(proto)
    kept = [output for output in message.graph.output if output.name not in results]
    del message.graph.output[:]
    message.graph.output.extend(kept)
    return bytes(message.SerializeToString())


def _has(model: ir.Model, value: str) -> bool:
    return any(output.name == value for node in model.graph for output in node.outputs)


def _maker(model: ir.Model, value: str) -> ir.Node:
    return next(node for node in model.graph for output in node.outputs if output.name == value)


def _regular(variance: Array) -> tuple[Array, float]:
    """A clean variance with the floor added, and the floor."""
    floor = max(_FLOOR * float(variance.mean()), 1e-20)
    return (variance + floor).astype(np.float32), floor


def _find_statistics(
    model: ir.Model, value: str, clean: MeanAndSpread, places: list[str], names: Names
) -> None:
    """Let a batch normalisation use corrected statistics, and return them."""
    node = _maker(model, value)
    build, x, opset = Builder(node, names), node.inputs[0], model.opset_imports.get("", 1)
    dtype = node.inputs[3].dtype if node.inputs[3] is not None else None
    dtype = dtype or ir.DataType.FLOAT
    flat = build.node("Reshape", x, build.constant(np.array([0, 0, -1], np.int64)))
    wide = _cast(build, flat, ir.DataType.FLOAT)
    mean, variance = _moments(build, wide, [0, 2], [-1], opset)
    target, floor = _regular(clean[1])
    stored = [_cast(build, node.inputs[i], ir.DataType.FLOAT) for i in (3, 4)]
    # If y = μ + g (y* − μ*) with g² = v/v*, then m′ = μ + g (m − μ*) and s′ = g² s give
    # (y − m′) / √s′ = (y* − m) / √s: what the ideal model has, ε and the floor aside.
    ratio = build.node("Div", _plus(build, variance, floor), build.constant(target))
    off = build.node("Sub", stored[0], build.constant(clean[0].astype(np.float32)))  # m − μ*
    moved = build.node("Add", mean, build.node("Mul", build.node("Sqrt", ratio), off))
    scaled = build.node("Mul", stored[1], ratio)
    for index, made, place in zip((3, 4), (moved, scaled), places, strict=True):
        node.replace_input_with(index, _returned(model, build, made, place, dtype))


def _find_gain(
    model: ir.Model,
    value: str,
    clean: MeanAndSpread,
    places: list[str],
    axes: list[int],
    shape: list[int],
    dtype: ir.DataType,
    names: Names,
) -> None:
    """Correct what a layer makes by gain and bias, and return these."""
    node, opset = _maker(model, value), model.opset_imports.get("", 1)
    result = node.outputs[0]
    # Listed before anything is built: the moments read the result too, and must see it uncorrected.
    uses, build = list(result.uses()), Builder(node, names)
    wide = _cast(build, result, ir.DataType.FLOAT)
    mean, variance = _moments(build, wide, axes, [-1], opset)
    target, floor = _regular(clean[1])
    gain = build.node("Sqrt", build.node("Div", build.constant(target), _plus(build, variance, floor)))
    bias = build.node("Sub", build.constant(clean[0].astype(np.float32)), build.node("Mul", gain, mean))
    corrections = [
        _returned(model, build, made, place, dtype) for made, place in zip((gain, bias), places, strict=True)
    ]
    _behind(model, build, result, uses, corrections, shape)


def _behind(
    model: ir.Model,
    build: Builder,
    result: ir.Value,
    uses: list[Any],
    corrections: list[ir.Value],
    shape: list[int],
) -> str:
    """Put a factor and an offset for each channel behind a result; the name of what is corrected."""
    gain, bias = (build.node("Reshape", v, build.constant(np.array(shape, np.int64))) for v in corrections)
    after = build.node("Add", build.node("Mul", result, gain), bias)
    for use in uses:
        use.node.replace_input_with(use.idx, after)
    for index, output in enumerate(model.graph.outputs):
        if output is result:  # what is corrected takes its name, under which it is asked for
            after.type, after.shape = result.type, result.shape
            name, result.name = result.name, build.names.fresh(f"{result.name}/uncorrected")
            after.name = name
            model.graph.outputs[index] = after
    return after.name or ""


def _open_statistics(model: ir.Model, value: str, places: list[str], channels: int) -> None:
    node = _maker(model, value)
    for index, place in zip((3, 4), places, strict=True):
        stored = node.inputs[index]
        assert stored is not None
        node.replace_input_with(index, _place(model, place, channels, stored.dtype or ir.DataType.FLOAT))


def _open_gain(
    model: ir.Model, value: str, places: list[str], channels: int, shape: list[int], dtype: ir.DataType
) -> str:
    node = _maker(model, value)
    result = node.outputs[0]
    uses, build = list(result.uses()), Builder(node, Names(model.graph))
    corrections = [_place(model, place, channels, dtype) for place in places]
    return _behind(model, build, result, uses, corrections, shape)


def _place(model: ir.Model, name: str, channels: int, dtype: ir.DataType) -> ir.Value:
    """An initializer that is filled chip by chip."""
    shape = ir.Shape((channels,))
    tensor = ir.ExternalTensor(SLOT_FILE, 0, int(channels * dtype.itemsize), dtype, shape=shape, name=name)
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape, const_value=tensor)
    model.graph.register_initializer(value)
    return value


def _returned(model: ir.Model, build: Builder, made: ir.Value, place: str, dtype: ir.DataType) -> ir.Value:
    """A value under the name of its place, returned by the model."""
    value = build.node("Identity", _cast(build, made, dtype))
    value.name, value.type = place, ir.TensorType(dtype)
    model.graph.outputs.append(value)
    return value


def _moments(
    build: Builder, value: ir.Value, axes: list[int], shape: list[int], opset: int
) -> tuple[ir.Value, ir.Value]:
    """Mean and variance of each channel, as vectors."""
    mean = build.mean(value, axes, opset)
    centred = build.node("Sub", value, mean)
    variance = build.mean(build.node("Mul", centred, centred), axes, opset)
    flat = build.constant(np.array(shape, np.int64))
    return build.node("Reshape", mean, flat), build.node("Reshape", variance, flat)


def _plus(build: Builder, value: ir.Value, number: float) -> ir.Value:
    return build.node("Add", value, build.constant(np.array([number], np.float32)))


def _cast(build: Builder, value: ir.Value | None, wanted: ir.DataType) -> ir.Value:
    assert value is not None
    return build.node("Cast", value, attributes={"to": int(wanted)})

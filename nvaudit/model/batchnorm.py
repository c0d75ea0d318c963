"""Batch normalisation by the statistics of the batch at hand, as in training."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from nvaudit.model.build import Builder, Names
from nvaudit.model.walk import attribute, places

_OPSET = 7  # before it, an attribute decided between training and inference


def recalibrate_batch_norm(proto: bytes) -> tuple[bytes, int]:
    """Let every batch normalisation use mean and variance of the batch instead of the stored ones.

    Parameters
    ----------
    proto : bytes
        An ONNX message; external data stays where it is.

    Returns
    -------
    tuple of bytes and int
        The message, and how many nodes were changed: all BatchNormalization nodes at any depth, without
        those that normalise each position by itself (``spatial`` = 0) or are in training mode already.
    """
    model = ir.serde.deserialize_model(onnx.ModelProto.FromString(proto))
    opset = model.opset_imports.get("", 1)
    nodes = [place.node for place in places(model.graph) if _uses_stored(place.node)]
    if opset < _OPSET or not nodes:
        return proto, 0
    names = Names(model.graph)
    for node in nodes:
        _recalibrate(node, names, opset)
    return bytes(ir.serde.serialize_model(model).SerializeToString()), len(nodes)


def _uses_stored(node: ir.Node) -> bool:
    return (
        (node.domain, node.op_type) == ("", "BatchNormalization")
        and not attribute(node, "training_mode", 0)
        and bool(attribute(node, "spatial", 1))
    )


def _recalibrate(node: ir.Node, names: Names, opset: int) -> None:
    """Compute mean and variance of each channel before a node, and put them in the place of the stored."""
    build = Builder(node, names)
    x = node.inputs[0]
    assert x is not None
    # [N, C, positions], whatever the number of axes.
    flat = build.node("Reshape", x, build.constant(np.array([0, 0, -1], np.int64)))
    mean = build.mean(flat, [0, 2], opset)
    centred = build.node("Sub", flat, mean)
    variance = build.mean(build.node("Mul", centred, centred), [0, 2], opset)
    channels = build.constant(np.array([-1], np.int64))
    node.replace_input_with(3, build.node("Reshape", mean, channels))
    node.replace_input_with(4, build.node("Reshape", variance, channels))

"""What the activations of a model take when many samples run at once."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from nvaudit.model.batch.rebatch import Rebatch
from nvaudit.model.batch.walk import infer_shapes, subgraphs

_UNKNOWN_BYTES = 4
"""Of a number whose type the file does not tell: float32."""

_NO_WIDTH = (None, ir.DataType.STRING, ir.DataType.UNDEFINED)


def activation_bytes(model: ir.Model, rebatch: Rebatch, count: int) -> int:
    """Estimate the memory that activations take in a run on so many samples.

    Parameters
    ----------
    rebatch : Rebatch
        Where its batch is.
    count : int
        Samples of the run.

    Returns
    -------
    int
        The most bytes that are needed at one time in the order of the nodes, a value from the node that
        makes it to the last that reads it. Values of unknown shape count nothing, so it is a lower bound.
    """
    shapes = infer_shapes(model, {name: (axis, count) for name, axis in rebatch.batch_axes.items()})
    last: dict[ir.Value, int] = {}
    nodes = list(model.graph)
    for place, node in enumerate(nodes):
        inner = [v for attr in node.attributes.values() for g in subgraphs(attr) for n in g for v in n.inputs]
        last.update({v: place for v in (*node.inputs, *inner) if v is not None})
    last.update(dict.fromkeys(model.graph.outputs, len(nodes)))

    def size(value: ir.Value) -> int:
        dims = shapes.get(value, ())
        kind = value.dtype
        bits = 8 * _UNKNOWN_BYTES if kind in _NO_WIDTH else kind.bitwidth
        return prod(d or 1 for d in dims) * (bits or 8 * _UNKNOWN_BYTES) // 8

    held = most = sum(size(value) for value in model.graph.inputs if value in last)
    ends: dict[int, int] = {}
    for value, place in last.items():
        if value.producer() is not None:
            ends[place] = ends.get(place, 0) + size(value)
    for place, node in enumerate(nodes):
        made = sum(size(value) for value in node.outputs if value in last)
        held += made
        most = max(most, held)
        held -= ends.get(place, 0)
    return most

"""What each stored tensor is to its network: weight, bias, factor of a normalisation, table, statistic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.errors import ModelError
from nvaudit.model.analysis import FLOATS, Analysis, End, Root
from nvaudit.model.chains import Clamp, Unpack, integer_range, layout_of
from nvaudit.model.decode import decode_values
from nvaudit.model.fold import stored_array
from nvaudit.model.operators import operator_of
from nvaudit.model.tensors import find_bad
from nvaudit.model.walk import Place, bodies, places
from nvaudit.model.weights import choose

ParameterRole = Literal["weight", "bias", "norm", "table", "statistic", "other"]

MAX_SHIFT = 1e3
"""Added constants with larger entries are masks, not biases."""

_PARTS: dict[str, ParameterRole] = {
    "bias": "bias",
    "peephole weights": "bias",
    "scale": "norm",
    "shift": "norm",
    "running mean": "statistic",
    "running variance": "statistic",
}
"""By what the table of operators calls an operand."""

# Of operators that neither multiply by a matrix nor normalise.
_OPERANDS: dict[tuple[str, int], ParameterRole] = {
    ("PRelu", 1): "norm",
    ("BiasGelu", 1): "bias",
    ("FastGelu", 1): "bias",
    ("Gather", 0): "table",
}


@dataclass(frozen=True)
class QuantizationGrid:
    """The integers that a stored tensor may hold: ``value = scale × (code - zero)``.

    Attributes
    ----------
    scale, zero : ndarray, float32
        Broadcast against the stored shape.
    low, high : int
        Smallest and largest code of the stored type.
    """

    scale: Array
    zero: Array
    low: int
    high: int

    def values(self, codes: Array) -> Array:
        """Floats that stored codes stand for."""
        return ((codes.astype(np.float32) - self.zero) * self.scale).astype(np.float32)

    def codes(self, values: Array) -> Array:
        """Nearest stored codes of floats, as float32 (ties to even)."""
        # Rounded before the zero point is added, as QuantizeLinear does (see model/decode.py).
        steps = np.rint(values.astype(np.float32) / self.scale) + self.zero
        clipped: Array = np.clip(steps, self.low, self.high).astype(np.float32)
        return clipped


def find_parts(graph: ir.Graph, analysis: Analysis) -> dict[str, ParameterRole]:
    """Tell what each stored tensor is.

    Returns
    -------
    dict of str to str
        One entry per key. A constant that is added or multiplied counts as bias or norm only behind the
        first weight: before it, it normalises the input.
    """
    behind = _behind_weights(graph, analysis)
    sources = _folded_sources(analysis)
    return {
        root.key: "weight" if root.value in sources else _part(root, behind)
        for root in analysis.roots
        if root.origin != "folded"
    }


def grid_of(root: Root, opset: int) -> QuantizationGrid | None:
    """Find the integer grid of a stored tensor, in the layout in which it is stored.

    Returns
    -------
    Grid or None
        None where its type is no integer, or nothing reads it as scaled integers.
    """
    if not root.state.dtype.is_integer():
        return None
    stored = stored_array(root.value)
    assert stored is not None
    read = [end for end in root.ends if end.place is not None and _operand(end) is not None]
    for end in choose(root).mapped or read:
        # The grid is known in the layout at the operator: places are sent the way of the weight, and scale
        # and zero point are put back to where each place came from.
        decode = end.role.decode if end.role else None
        try:
            _, grid = decode_values(stored, root.state.dtype, end.steps, decode, opset)
        except ModelError:
            continue
        if grid is None or any(isinstance(step, Unpack) for step in end.steps):
            continue  # also where several integers share a stored byte
        place = np.arange(stored.size, dtype=np.int64).reshape(stored.shape)
        order = layout_of(root.state.shape, end.steps).apply(place).reshape(-1)
        scale = np.empty(stored.size, np.float32)
        zero = np.empty(stored.size, np.float32)
        scale[order] = np.broadcast_to(grid.scale, grid.codes.shape).reshape(-1)
        zero[order] = stored.reshape(-1)[order].astype(np.float32) - grid.codes.reshape(-1)
        low, high = integer_range(root.state.dtype)
        for step in end.steps:
            if isinstance(step, Clamp):
                low, high = max(low, step.low), min(high, step.high)
        wide = stored.astype(np.int64)  # 4-bit types have no order of their own
        if wide.size and not low <= int(wide.min()) <= int(wide.max()) <= high:
            return None  # several stored integers stand for one
        return QuantizationGrid(
            _narrow(scale.reshape(stored.shape)), _narrow(zero.reshape(stored.shape)), low, high
        )
    return None


def _narrow(array: Array) -> Array:
    """Keep one entry along each axis on which nothing changes."""
    for axis in range(array.ndim):
        first = array.take([0], axis) if array.shape[axis] else array
        if array.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, array.shape), array):
            array = first
    return array


def _operand(end: End) -> ParameterRole | None:
    assert end.place is not None
    node = end.place.node
    operator = operator_of(node)
    if operator is not None:
        return _PARTS.get(operator.named.get(end.index, ""))
    return _OPERANDS.get((node.op_type, end.index)) if node.domain in ("", "com.microsoft") else None


def _part(root: Root, behind: set[ir.Value]) -> ParameterRole:
    if not (root.state.dtype in FLOATS or root.state.dtype.is_integer()) or 0 in root.state.shape:
        return "other"
    if choose(root).mapped:
        return "weight"
    if root.state.dtype.is_integer():
        steps = [end for end in root.ends if end.steps and end.state.dtype in FLOATS and end.place]
        return next((part for end in steps if (part := _operand(end))), "other")
    parts = [_operand(end) or _arithmetic(root, end, behind) for end in root.ends if end.place is not None]
    return next((part for part in parts if part), "other")


def _arithmetic(root: Root, end: End, behind: set[ir.Value]) -> ParameterRole | None:
    """A constant that is added or multiplied channel by channel behind a weight."""
    assert end.place is not None
    node = end.place.node
    if node.domain or node.op_type not in ("Add", "Mul") or len(node.inputs) != 2:
        return None
    other = node.inputs[1 - end.index]
    wide = [size for size in root.state.shape if size > 1]
    if other is None or other not in behind or not wide:
        return None
    if node.op_type == "Mul":
        return "norm" if len(wide) == 1 else None
    array = stored_array(root.value)
    if array is None or find_bad(array) or float(np.abs(array.astype(np.float64)).max()) > MAX_SHIFT:
        return None
    return "bias"


def _behind_weights(graph: ir.Graph, analysis: Analysis) -> set[ir.Value]:
    """Find the values that depend on the data and on a weight."""
    first = {end.place.node for root in analysis.roots for end in choose(root).mapped if end.place}
    behind: set[ir.Value] = set()
    order = list(places(graph))
    before = -1
    while len(behind) != before:  # the results of a body are known only after its nodes
        before = len(behind)
        for place in order:
            _spread(place, first, behind)
    return behind


def _spread(place: Place, first: set[ir.Node], behind: set[ir.Value]) -> None:
    node = place.node
    inner = [body for _, body in bodies(node)]
    reached = node in first or any(value in behind for value in node.inputs)
    if reached:
        behind.update(value for body in inner for value in body.inputs)
    if reached or any(value in behind for body in inner for value in body.outputs):
        behind.update(node.outputs)


def _folded_sources(analysis: Analysis) -> set[ir.Value]:
    """Find the stored floats that folded weights are computed from."""
    stored = {root.value: root for root in analysis.roots if root.origin != "folded"}
    sources: set[ir.Value] = set()
    for root in analysis.roots:
        pending = [root.value, *root.copies] if root.origin == "folded" else []
        while pending:
            value = pending.pop()
            node = value.producer()
            if value in stored:
                if stored[value].state.dtype in FLOATS and np.prod(stored[value].state.shape) > 1:
                    sources.add(value)
            elif node is not None:
                pending += [v for v in node.inputs if v is not None]
    return sources

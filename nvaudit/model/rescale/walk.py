"""The state of a walk over a graph that labels activations: labels, shapes, constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.model.fold import fold, fold_ints
from nvaudit.model.rescale.plan import Label, Variables
from nvaudit.model.walk import constant_values

SeenSizes = tuple[int | None, ...]


class RescaleWalk:
    """Labels of the main graph's values, and what rules ask for.

    Parameters
    ----------
    seen : mapping of str to tuple
        Sizes that were seen when the model ran, by the name of the value.
    """

    def __init__(self, model: ir.Model, seen: Mapping[str, SeenSizes] | None = None) -> None:
        self.model = model
        self.opset = model.opset_imports.get("", 1)
        self.variables = Variables()
        self.labels: dict[ir.Value, Label] = {}
        self.constant = constant_values(model.graph)
        self._shapes = _infer_shapes(model) | dict(seen or {})

    def label(self, value: ir.Value | None) -> Label | None:
        """Read the label of a value; None where it keeps its scale."""
        return None if value is None else self.labels.get(value)

    def is_constant(self, value: ir.Value | None) -> bool:
        """Whether a value is the same at every run."""
        return value is not None and value in self.constant

    def array(self, value: ir.Value) -> Array | None:
        """Compute a constant value; None if it is not constant or cannot be computed."""
        return fold(value, self.opset) if value in self.constant else None

    def ints(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Compute a constant list of integers; None if it is none."""
        return fold_ints(value, self.opset) if value is not None and value in self.constant else None

    def shape(self, value: ir.Value | None) -> SeenSizes | None:
        """Sizes of a value, None for each that is not known; None if the rank is not."""
        return None if value is None else self._shapes.get(value.name or "")

    def rank(self, value: ir.Value | None) -> int | None:
        """Give the number of axes of a value, if known."""
        label, shape = self.label(value), self.shape(value)
        return label.rank if label is not None else None if shape is None else len(shape)

    def same_shape(self, values: Sequence[ir.Value | None], label: Label) -> bool:
        """Whether operands meet channel by channel, without one of them being spread over channels."""
        for value in values:
            mine, shape = self.label(value), self.shape(value)
            if mine is not None:
                if (mine.axis, mine.rank, mine.ids.size) != (label.axis, label.rank, label.ids.size):
                    return False
            elif shape is None or len(shape) > label.rank:
                return False
        return True

    def tied(self, labels: Sequence[Label | None], result: Label) -> Label:
        """Tie the channels of operands together; one without a label keeps its scale, so all do."""
        for label in labels:
            if label is None:
                self.variables.fix(result.ids, "meets a value that keeps its scale")
            else:
                self.variables.tie(result.ids, label.ids)
        return result

    def block(self, value: ir.Value | None, reason: str) -> None:
        """Let a value keep its scale."""
        label = self.label(value)
        if label is not None:
            self.variables.fix(label.ids, reason)


def _infer_shapes(model: ir.Model) -> dict[str, SeenSizes]:
    """Sizes of every value of the main graph that do not depend on the batch, as far as ONNX can tell.

    A free first axis is tried with two sizes: with a number there, more of a graph can be computed.
    """
    proto = ir.serde.serialize_model(model)
    for tensor in proto.graph.initializer:
        if len(tensor.raw_data) > _LARGE:  # shapes are computed from small tensors only
            tensor.ClearField("raw_data")
    first, second = (_inferred(proto, size) for size in (2, 3))
    return {
        name: tuple(a if a == b else None for a, b in zip(shape, second[name], strict=True))
        for name, shape in first.items()
        if name in second and len(shape) == len(second[name])
    }


_LARGE = 4096


def _inferred(proto: Any, size: int) -> dict[str, SeenSizes]:
    stored = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        # Both calls share the message: the 2 that the first one left tells the second one what is free.
        if value.name not in stored and dims and (size == 3 or not dims[0].dim_value):
            if size == 3 and dims[0].dim_value != 2:
                continue  # it was fixed from the start
            dims[0].dim_value = size
    for value in (*proto.graph.value_info, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.ClearField("dim_param")
    try:
        graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except Exception:  # an operator that it does not know, or a message that is too large: shapes are a help
        return {}
    shapes: dict[str, SeenSizes] = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            shapes[value.name] = tuple(
                int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None
                for dim in tensor.shape.dim
            )
    return shapes

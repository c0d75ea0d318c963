"""Sizes of the values of a model on given inputs: inferred, and shown by a run where that does not do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir
from onnx import TensorProto
from onnx.helper import make_node, make_tensor_value_info

from nvaudit.model.batch.walk import Shapes, infer_sizes
from nvaudit.model.load import LoadedModel
from nvaudit.model.macs.rules import Sizes
from nvaudit.model.template import Template, build_template

_ASKED = "nvaudit/asked/"
"""What the outputs that :func:`asking` adds are called, followed by the value's name."""


@dataclass(frozen=True)
class Seen:
    """What a run has shown of values of the main graph.

    Attributes
    ----------
    branches : dict of str to bool
        Conditions of If.
    """

    sizes: dict[str, Sizes] = field(default_factory=dict)
    branches: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownSizes:
    """Sizes that are known, and the conditions that a run has shown."""

    inferred: Shapes
    branches: Mapping[str, bool]

    def of(self, value: ir.Value | None) -> Sizes | None:
        """Sizes of a value; None where one of them is not known."""
        if value is None:
            return None
        dims = self.inferred.get(value)
        if dims is None and value.const_value is not None:
            return tuple(int(size) for size in value.const_value.shape.numpy())
        if dims is None or any(size is None for size in dims):
            return None
        return tuple(size for size in dims if size is not None)


def known_sizes(model: ir.Model, inputs: Mapping[str, Sizes], seen: Seen) -> KnownSizes:
    """Infer the sizes of every value, in bodies too."""
    known = {**inputs, **seen.sizes}
    shapes = infer_sizes(model, known)
    # Inference forgets the sizes of a value whose type it does not know.
    made = [(value, value.name or "") for node in model.graph for value in node.outputs]
    shapes |= {value: known[name] for value, name in made if name in known}
    return KnownSizes(shapes, seen.branches)


def asking(
    loaded: LoadedModel, *, free: bool, sizes: Collection[str], branches: Collection[str]
) -> tuple[Template, list[str], list[str]]:
    """Make a model that returns the sizes of some values of the main graph, and conditions.

    Sizes, not the values themselves: they are small, and ONNX Runtime gives memory back as it always does.

    Parameters
    ----------
    free : bool
        Whether to free a fixed batch size where that is provably the same model.
    sizes, branches : collection of str
        Of which values the sizes are asked, and which conditions.

    Returns
    -------
    tuple of Template, list of str and list of str
        The model without open places; the values whose sizes it returns first, and the conditions after.
    """
    template = build_template(loaded, [], batch="free" if free else "keep")
    proto = onnx.ModelProto.FromString(template.proto)
    there = [value.name for value in proto.graph.input]
    there += [name for node in proto.graph.node for name in node.output if name]
    first, then = ([name for name in there if name in asked] for asked in (sizes, branches))
    del proto.graph.output[:]
    for operator, kind, names in (("Shape", TensorProto.INT64, first), ("Identity", TensorProto.BOOL, then)):
        for name in names:
            proto.graph.node.append(make_node(operator, [name], [_ASKED + name]))
            proto.graph.output.append(make_tensor_value_info(_ASKED + name, kind, None))
    data = proto.SerializeToString()
    return Template(data, (), template.digital, template.offsets, template.rebatch), first, then

"""Constant results of operators that a reader of the graph does not know, computed and put in their place."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.model.build import Names, remove_unused
from nvaudit.model.fold import fold
from nvaudit.model.sparse import ORIGIN_KEY
from nvaudit.model.walk import bodies, constant_values, is_constant_node, places

COMPUTED = "computed"
"""Origin of a tensor that the file does not hold: nothing can be written back to it."""

Knows = Callable[[str, str], bool]
"""Whether an operator, by domain and name, is known."""


def settle_unknown(model: ir.Model, knows: Knows) -> None:
    """Replace the constant results of unknown operators by what they are, in place.

    Parameters
    ----------
    model : onnx_ir.Model
        The model; it is changed. Values keep their names. What cannot be computed is left.
    knows : callable
        Which operators stay.
    """
    constant, opset = constant_values(model.graph), model.opset_imports.get("", 1)
    names = Names(model.graph)
    for place in list(places(model.graph)):
        node = place.node
        if is_constant_node(node) or _known(node, knows) or node.outputs[0] not in constant:
            continue
        for value in node.outputs:
            array = fold(value, opset) if value.uses() else None
            if array is not None:
                _replace(value, array, names)
    remove_unused(model.graph)


def _known(node: ir.Node, knows: Knows) -> bool:
    inner = [place.node for _, body in bodies(node) for place in places(body)]
    return all(is_constant_node(part) or knows(part.domain, part.op_type) for part in (node, *inner))


def _replace(value: ir.Value, array: Array, names: Names) -> None:
    node, name = value.producer(), value.name or ""
    assert node is not None
    assert node.graph is not None
    tensor = ir.tensor(array, name=name)
    tensor.metadata_props[ORIGIN_KEY] = COMPUTED
    holder = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], name=names.fresh(f"{name}/node"))
    value.name, holder.outputs[0].name = names.fresh(f"{name}/{COMPUTED}"), name
    holder.outputs[0].dtype = tensor.dtype
    node.graph.insert_before(node, holder)
    value.replace_all_uses_with(holder.outputs[0])

"""Tensors that stay digital: small ones travel in the message, large ones beside it."""

from __future__ import annotations

import onnx_ir as ir

from nvaudit.model.build import Names
from nvaudit.model.tensors import Array, read_tensor
from nvaudit.model.walk import graphs, is_constant_node, places

SLOT_FILE = "nvaudit-slots.bin"
MAX_INLINE_BYTES = 2**20


def take_large(model: ir.Model, slots: set[str], names: Names) -> dict[str, Array]:
    """Move large digital tensors to initializers of the main graph, and make small external ones inline.

    Parameters
    ----------
    model : onnx_ir.Model
        The model; it is changed.
    slots : set of str
        Initializers of the main graph that are left alone.

    Returns
    -------
    dict of str to ndarray
        The large tensors by initializer name; memory-mapped where the model's are.

    Raises
    ------
    ModelError
        If a tensor cannot be read.
    """
    taken: dict[str, Array] = {}
    for graph, path in list(graphs(model.graph)):
        for value in list(graph.initializers.values()):
            tensor = value.const_value
            if tensor is None or (not path and value.name in slots):
                continue
            if _is_large(tensor) and not value.is_graph_output():
                hoisted = value if not path else _hoist(model.graph, value, tensor, names)
                taken[hoisted.name or ""] = read_tensor(tensor)
            elif isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.Tensor(read_tensor(tensor), dtype=tensor.dtype, name=tensor.name)
    for place in list(places(model.graph)):
        if is_constant_node(place.node):
            _take_constant(model.graph, place.node, names, taken)
    return taken


def _is_large(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor is handed over beside the message; text and packed types cannot be."""
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes <= MAX_INLINE_BYTES:
        return False
    return tensor.dtype == ir.DataType.BFLOAT16 or tensor.dtype.numpy().kind in "fiubc"


def _take_constant(main: ir.Graph, node: ir.Node, names: Names, taken: dict[str, Array]) -> None:
    """A Constant node, if it holds a large or external tensor."""
    attribute = node.attributes.get("value")
    if attribute is None or attribute.type != ir.AttributeType.TENSOR:
        return
    tensor, output = attribute.as_tensor(), node.outputs[0]
    if _is_large(tensor) and not output.is_graph_output():
        hoisted = _hoist(main, output, tensor, names)
        taken[hoisted.name or ""] = read_tensor(tensor)
        assert node.graph is not None
        node.graph.remove(node, safe=True)
    elif isinstance(tensor, ir.ExternalTensor):
        inline = ir.Tensor(read_tensor(tensor), dtype=tensor.dtype, name=tensor.name)
        node.attributes["value"] = ir.AttrTensor("value", inline)


def _hoist(main: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol, names: Names) -> ir.Value:
    """Put an initializer of the main graph in the place of a value."""
    name = names.fresh(f"{value.name}/digital")
    shape = ir.Shape(tensor.shape.numpy())
    stand_in = ir.ExternalTensor(SLOT_FILE, 0, 0, tensor.dtype, shape=shape, name=name)
    hoisted = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=stand_in)
    main.register_initializer(hoisted)
    graph = value.graph
    value.replace_all_uses_with(hoisted)
    if value.is_initializer() and graph is not None and value.name is not None:
        del graph.initializers[value.name]
    return hoisted

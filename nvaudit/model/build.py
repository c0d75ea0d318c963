"""Small helpers that change a graph: new nodes, unused ones removed, fresh names."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from nvaudit.model.walk import bodies, graphs

_MEAN_AXES_INPUT = 18  # from here on the axes of ReduceMean are an input
_SLICE_INPUTS = 10  # from here on the bounds of Slice are inputs


class Builder:
    """Puts new nodes before one node of a graph.

    Parameters
    ----------
    before : onnx_ir.Node
        New nodes go in front of it, in the order made.
    """

    def __init__(self, before: ir.Node, names: Names) -> None:
        self.before = before
        self.names = names

    def node(
        self, op_type: str, *inputs: ir.Value | None, attributes: Any = None, domain: str = ""
    ) -> ir.Value:
        """Add a node with one output.

        Parameters
        ----------
        attributes : dict or iterable of onnx_ir.Attr, optional
            Plain Python values by name, or attributes as they are.
        """
        given = attributes or {}
        made = (
            [ir.convenience.convert_attribute(name, value) for name, value in given.items()]
            if isinstance(given, dict)
            else list(given)
        )
        node = ir.Node(domain, op_type, inputs, made, name=self.names.fresh(f"{self.before.name}/{op_type}"))
        node.outputs[0].name = self.names.fresh(f"{self.before.name}/{op_type}_output")
        graph = self.before.graph
        assert graph is not None
        graph.insert_before(self.before, node)
        return node.outputs[0]

    def constant(self, array: Any) -> ir.Value:
        """Add a Constant node."""
        return self.node("Constant", attributes={"value": ir.tensor(np.ascontiguousarray(array))})

    def mean(self, value: ir.Value, axes: list[int], opset: int) -> ir.Value:
        """Average over axes, which stay with size 1."""
        if opset < _MEAN_AXES_INPUT:
            return self.node("ReduceMean", value, attributes={"axes": axes})
        return self.node("ReduceMean", value, self.constant(np.array(axes, np.int64)))

    def slice(self, value: ir.Value, axis: int, start: int, stop: int, opset: int) -> ir.Value:
        """Cut ``start:stop`` out of an axis."""
        if opset < _SLICE_INPUTS:
            return self.node("Slice", value, attributes={"axes": [axis], "starts": [start], "ends": [stop]})
        bounds = (self.constant(np.array([number], np.int64)) for number in (start, stop, axis))
        return self.node("Slice", value, *bounds)

    def replace(self, output: ir.Value) -> None:
        """Let an output take the place of the node's own only output, and remove the node.

        Parameters
        ----------
        output : onnx_ir.Value
            The replacement; it takes over name, type and shape.
        """
        old, graph = self.before.outputs[0], self.before.graph
        assert graph is not None
        output.type, output.shape = old.type, old.shape
        name, old.name = old.name, self.names.fresh(f"{old.name}/replaced")
        old.replace_all_uses_with(output, replace_graph_outputs=True)
        output.name = name
        graph.remove(self.before, safe=True)


class Names:
    """Every name in a model, so that new ones are fresh in every scope."""

    def __init__(self, graph: ir.Graph) -> None:
        self.taken: set[str] = set()
        for inner, _ in graphs(graph):
            for value in (*inner.inputs, *inner.initializers.values(), *inner.outputs):
                self.taken.add(value.name or "")
            for node in inner:
                self.taken.add(node.name or "")
                self.taken.update(value.name or "" for value in node.outputs)

    def fresh(self, name: str) -> str:
        """Make a name that nothing has yet.

        Returns
        -------
        str
            The wish itself, or with a number.
        """
        made, number = name, 1
        while made in self.taken or not made:
            number += 1
            made = f"{name}__{number}"
        self.taken.add(made)
        return made


def remove_unused(graph: ir.Graph) -> None:
    """Remove nodes and initializers whose results nothing uses, at any depth.

    Parameters
    ----------
    graph : onnx_ir.Graph
        The graph; it is changed. Its inputs and outputs stay.
    """
    for node in reversed(graph):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            for _, body in bodies(node):
                _release(body)
            graph.remove(node, safe=True)
            continue
        for _, body in bodies(node):
            remove_unused(body)
    for name, value in list(graph.initializers.items()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            del graph.initializers[name]


def _release(graph: ir.Graph) -> None:
    """Let a graph that goes away let go of what it captured."""
    for node in graph:
        for _, body in bodies(node):
            _release(body)
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)

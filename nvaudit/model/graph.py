"""A model as plain nodes and arrays, for code that runs graphs and must not know ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.model.analysis import Root, analyse
from nvaudit.model.batch.rebatch import Rebatch, rebatch
from nvaudit.model.cause import graph_errors
from nvaudit.model.fold import stored_array
from nvaudit.model.layout import UNMOVED, Layout
from nvaudit.model.load import LoadedModel, TensorSpec
from nvaudit.model.parameters import ParameterRole, QuantizationGrid, find_parts, grid_of
from nvaudit.model.settle import Knows, settle_unknown
from nvaudit.model.tensors import read_tensor
from nvaudit.model.walk import is_constant_node
from nvaudit.model.weights import choose


@dataclass(frozen=True)
class Moves:
    """From the value in the graph to the primary layout of ``Weight``, and back."""

    forth: Layout = UNMOVED
    back: Layout = UNMOVED


@dataclass(frozen=True)
class Stored:
    """One stored tensor: an initializer or a Constant node of any graph of the model.

    Attributes
    ----------
    key : str
        Unique name, the one of ``Constant.name`` and ``Weight.key``.
    name : str
        The value's name in the network.
    dtype : str
        Stored element type, as numpy names it.
    origin : str
        ``"initializer"``, ``"constant"``, ``"sparse"``, ``"attribute"`` or ``"computed"``.
    part : {"weight", "bias", "norm", "table", "statistic", "other"}
        What it is to the network; "statistic" is the running mean or variance of a batch normalisation.
    moves : Moves
        Between the stored layout and the one in which its first weight use takes it.
    """

    key: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    origin: str
    part: ParameterRole
    moves: Moves
    source: _Source = field(repr=False, compare=False)

    def load(self) -> Array:
        """Read the numbers, read-only; nothing is kept."""
        array = stored_array(self.source.root.value)
        assert array is not None
        return array

    def grid(self) -> QuantizationGrid | None:
        """Integer grid behind the stored codes; None for floats and for integers that are no weight."""
        return grid_of(self.source.root, self.source.opset)


@dataclass(frozen=True)
class _Source:
    root: Root
    opset: int


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes
    ----------
    op_type, domain : str
        The operator; the domain is ``""`` for ONNX's own.
    version : int
        Version of the operator set of its domain.
    name : str
        Its name, with its graph's path; operator and position where it has none.
    inputs : tuple of str
        Names of values, ``""`` where an input is left out.
    outputs : tuple of str
        Names of values, ``""`` where an output is not wanted.
    attributes : mapping of str to object
        Numbers, strings, tuples of these, arrays, and ``Graph`` for bodies.
    """

    op_type: str
    domain: str
    version: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """A graph or a body: sorted nodes; a body also reads values of the graphs around it."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Folded:
    """A computed weight: the names of the values that compute it, and how it is laid out."""

    names: tuple[str, ...]
    moves: Moves


@dataclass(frozen=True)
class Network:
    """A whole model. Names of values are unique over all its graphs.

    Attributes
    ----------
    stored : tuple of Stored
        Every stored tensor at any depth, by which Constant nodes are replaced.
    folded : dict of str to Folded
        Weights that are computed from several stored tensors, by key.
    weights : tuple of str
        Keys of all weights, stored and folded, in graph order.
    inputs, outputs : tuple of TensorSpec
        The interface, as of the model.
    batch : Rebatch
        Where the batch is; the graph is the one whose batch size was made free where that was provable.
    """

    path: str
    graph: Graph
    stored: tuple[Stored, ...]
    folded: dict[str, Folded]
    weights: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch: Rebatch


def read_network(loaded: LoadedModel, *, free_batch: bool = True, knows: Knows | None = None) -> Network:
    """Describe a model as plain nodes and arrays.

    Parameters
    ----------
    free_batch : bool
        Make a fixed batch size free where that is provably the same model.
    knows : callable, optional
        Which operators the caller can run. Constant results of others are computed here; as tensors of
        origin ``"computed"`` they have no place in the file.

    Returns
    -------
    Network
        The description; stored tensors are read when asked for.

    Raises
    ------
    ModelError
        If the graph cannot be analysed.
    """
    with graph_errors(loaded.path):
        model = loaded.model.clone()
        # rebatch edits what it is given; on a copy it only tells what is provable.
        batch = rebatch(model if free_batch else model.clone())
        if knows is not None:
            settle_unknown(model, knows)
        return _Reader(loaded, model).network(batch)


class _Reader:
    """Gives every value a name of its own while the graphs are copied."""

    def __init__(self, loaded: LoadedModel, model: ir.Model) -> None:
        self.loaded = loaded
        self.model = model
        self.names: dict[ir.Value, str] = {}
        self.taken: set[str] = set()

    def network(self, batch: Rebatch) -> Network:
        analysis = analyse(self.model)
        parts = find_parts(self.model.graph, analysis)
        # The main graph's values keep their names: what the parity check asks ONNX Runtime for.
        for value in (*self.model.graph.inputs, *self.model.graph.initializers.values()):
            self._name(value, "")
        for node in self.model.graph:
            for value in node.outputs:
                self._name(value, "")
        stored = [
            Stored(
                key=root.key,
                name=self._name(root.value, root.path),
                dtype=_dtype_name(root.state.dtype),
                shape=root.state.shape,
                origin=root.origin,
                part=parts[root.key],
                moves=_moves(root),
                source=_Source(root, analysis.opset),
            )
            for root in analysis.roots
            if root.origin != "folded"
        ]
        folded = [root for root in analysis.roots if root.origin == "folded"]
        main = self._graph(self.model.graph, "")
        return Network(
            path=str(self.loaded.path),
            graph=main,
            stored=tuple(stored),
            folded={
                root.key: Folded(
                    tuple(self._name(v, root.path) for v in (root.value, *root.copies)), _moves(root)
                )
                for root in folded
            },
            weights=tuple(root.key for root in analysis.roots if choose(root).mapped),
            inputs=self.loaded.inputs,
            outputs=self.loaded.outputs,
            batch=batch,
        )

    def _name(self, value: ir.Value | None, path: str) -> str:
        if value is None or (value.name == "" and value.producer() is not None):
            return ""
        if value not in self.names:
            wish = name = value.name or "value"
            number = 1
            # A body may name a value like one elsewhere: then its path tells them apart, and a number if that
            # is taken too.
            while name in self.taken:
                number += 1
                name = f"{path}/{wish}" if number == 2 and path else f"{wish}__{number}"
            self.taken.add(name)
            self.names[value] = name
        return self.names[value]

    def _graph(self, graph: ir.Graph, path: str) -> Graph:
        # Initializers may be listed among the main graph's inputs (before IR version 4 they must be); they
        # are not fed.
        inputs = [v for v in graph.inputs if path or not v.is_initializer()]
        nodes = [
            self._node(node, number, path) for number, node in enumerate(graph) if not is_constant_node(node)
        ]
        return Graph(
            tuple(self._name(value, path) for value in inputs),
            tuple(self._name(value, path) for value in graph.outputs),
            tuple(nodes),
        )

    def _node(self, node: ir.Node, number: int, path: str) -> Node:
        label = node.name or f"{node.op_type}_{number}"
        full = f"{path}/{label}" if path else label
        outputs = tuple(self._name(value, path) for value in node.outputs)
        attributes: dict[str, Any] = {}
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                attributes[attribute.name] = self._graph(attribute.as_graph(), f"{full}/{attribute.name}")
            elif attribute.type == ir.AttributeType.TENSOR:
                attributes[attribute.name] = read_tensor(attribute.as_tensor())
            else:
                attributes[attribute.name] = attribute.value
        return Node(
            op_type=node.op_type,
            domain=node.domain,
            version=self.model.opset_imports.get(node.domain, 1),
            name=full,
            inputs=tuple(self._name(value, path) for value in node.inputs),
            outputs=outputs,
            attributes=attributes,
        )


def _moves(root: Root) -> Moves:
    choice = choose(root)
    return Moves(choice.to_primary, choice.to_stored)


def _dtype_name(dtype: ir.DataType) -> str:
    if dtype == ir.DataType.STRING:
        return "string"
    return "undefined" if dtype == ir.DataType.UNDEFINED else str(dtype.numpy())

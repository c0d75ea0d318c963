"""Every node of a model in order, with where it stands, and which values are constant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

STANDARD = frozenset({"", "com.microsoft", "com.microsoft.nchwc"})
_COMPUTED = STANDARD | {"ai.onnx.ml"}  # domains whose operators ONNX Runtime has
RANDOM = frozenset(
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"]
)
"""Operators that draw whatever their attributes are."""

DROPOUTS = {"Dropout": 2, "BiasDropout": 4, "BitmaskDropout": 2, "BitmaskBiasDropout": 4}
"""Operators that draw in training mode, and the input that says whether they are in it."""

SAMPLING = frozenset(["Sampling"])
"""Operators of com.microsoft that draw."""


@dataclass(frozen=True)
class Place:
    """Where a node stands.

    Attributes
    ----------
    path : str
        The graph it is in: ``""`` for the main one, else e.g. ``"If_12/then_branch"``.
    label : str
        Its name, or its operator and position where it has none.
    """

    node: ir.Node
    path: str
    label: str


def bodies(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """Yield the graphs that a node holds, with the attribute that holds each.

    Yields
    ------
    tuple of str and onnx_ir.Graph
        The attribute's name, numbered where it holds several, and the graph.
    """
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.name, attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for number, graph in enumerate(attribute.as_graphs()):
                yield f"{attribute.name}_{number}", graph


def graphs(graph: ir.Graph, path: str = "") -> Iterator[tuple[ir.Graph, str]]:
    """Yield a graph and every graph inside it, with their paths.

    Yields
    ------
    tuple of onnx_ir.Graph and str
        Outer graphs first.
    """
    yield graph, path
    for number, node in enumerate(graph):
        for name, body in bodies(node):
            yield from graphs(body, _join(path, _label(node, number), name))


def places(graph: ir.Graph, path: str = "") -> Iterator[Place]:
    """Yield every node at any depth; the nodes of a body follow the node that holds it."""
    for number, node in enumerate(graph):
        label = _label(node, number)
        yield Place(node, path, label)
        for name, body in bodies(node):
            yield from places(body, _join(path, label, name))


def constant_values(graph: ir.Graph) -> set[ir.Value]:
    """Find the values that are the same at every run.

    Parameters
    ----------
    graph : onnx_ir.Graph
        The main graph, sorted.

    Returns
    -------
    set of onnx_ir.Value
        Initializers, outputs of Constant nodes, and whatever is computed from these alone.
    """
    constant: set[ir.Value] = set()
    for inner, _ in graphs(graph):
        constant.update(value for value in inner.initializers.values() if value.const_value is not None)
    # One pass is enough: in a sorted graph a node's sources come first.
    for place in places(graph):
        node = place.node
        if is_constant_node(node) or _is_fixed(node, constant):
            constant.update(node.outputs)
    return constant


def captured(node: ir.Node) -> list[ir.Value]:
    """List what the graphs inside a node read from outside, each value once.

    Returns
    -------
    list of onnx_ir.Value
        Empty for a node without graphs.
    """
    own: set[ir.Value] = set()
    read: dict[ir.Value, None] = {}
    for _, body in bodies(node):
        for inner, _ in graphs(body):
            own.update((*inner.inputs, *inner.initializers.values()))
            own.update(value for made in inner for value in made.outputs)
            read |= dict.fromkeys(v for made in inner for v in made.inputs if v is not None)
            # A graph may give out, untouched, what stands outside it.
            read |= dict.fromkeys(inner.outputs)
    return [value for value in read if value not in own]


def is_constant_node(node: ir.Node) -> bool:
    """Whether a node is ONNX's Constant.

    Returns
    -------
    bool
        True for the operator Constant of the default domain.
    """
    return node.op_type == "Constant" and node.domain == ""


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Read one attribute.

    Parameters
    ----------
    default : object
        What it is when the node does not give it.

    Returns
    -------
    object
        A number, string, tuple or tensor, or the default.
    """
    held = node.attributes.get(name)
    return default if held is None or held.is_ref() or held.value is None else held.value


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """Read one input.

    Returns
    -------
    onnx_ir.Value or None
        The value, None where the input is left out.
    """
    return node.inputs[index] if index < len(node.inputs) else None


def _is_fixed(node: ir.Node, known: set[ir.Value]) -> bool:
    """Whether a node computes the same at every run."""
    inner = [place.node for _, body in bodies(node) for place in places(body)]
    inputs = [*(value for value in node.inputs if value is not None), *captured(node)]
    return (
        bool(inputs)
        and all(part.domain in _COMPUTED and not _is_random(part) for part in (node, *inner))
        and all(value in known for value in inputs)
    )


def _is_random(node: ir.Node) -> bool:
    """Whether a node draws numbers. Dropout does in training mode, which is an input of constant value."""
    if node.op_type != "Dropout" or node.domain:
        return node.op_type in RANDOM | SAMPLING | DROPOUTS.keys() - {"Dropout"}
    training = operand(node, 2)
    maker = None if training is None else training.producer()
    tensor = None if training is None else training.const_value
    if maker is not None and is_constant_node(maker):
        tensor = attribute(maker, "value")
    # A flag that is computed is not shown to be false: it counts as drawing.
    return training is not None and (tensor is None or bool(tensor.numpy().any()))


def _label(node: ir.Node, number: int) -> str:
    return node.name or f"{node.op_type}_{number}"


def _join(path: str, label: str, name: str) -> str:
    return "/".join(part for part in (path, label, name) if part)

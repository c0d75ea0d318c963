"""Model-local functions, put in place of their calls.

A weight that a function holds is one array however often the function is called: the copies that inlining
makes share their stored tensor, by which they are found again and merged.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from nvaudit.errors import ModelError
from nvaudit.model.walk import bodies

MAX_NODES = 250_000  # what calls of calls may expand to

Operator = tuple[str, str, str]


def inline_functions(model: ir.Model, path: Path) -> None:
    """Inline every model-local function, in place.

    Parameters
    ----------
    model : onnx_ir.Model
        The model; it is changed.

    Raises
    ------
    ModelError
        If functions call each other in a circle, expand beyond all bounds, or need another operator
        set than the model in a way that matters.
    """
    if not model.functions:
        return
    if _expanded(model, path) > MAX_NODES:
        raise ModelError(
            f"{path}: its functions expand to more than {MAX_NODES} nodes; inline them when exporting"
        )
    for function in model.functions.values():
        _align_opset(model, function, path)
    InlinePass()(model)
    model.functions.clear()
    _merge_copies(model)
    _separate_names(model.graph, set(), set())


def _expanded(model: ir.Model, path: Path) -> int:
    """Nodes after inlining."""
    counts: dict[Operator, int] = {}
    open_calls: set[Operator] = set()

    def count(nodes: Iterator[ir.Node]) -> int:
        total = 0
        for node in nodes:
            operator = node.op_identifier()
            total += call(operator) if operator in model.functions else 1
        return total

    def call(operator: Operator) -> int:
        if operator in open_calls:
            raise ModelError(f"{path}: function {operator[1]!r} calls itself; ONNX functions cannot recurse")
        if operator not in counts:
            open_calls.add(operator)
            counts[operator] = count(model.functions[operator].all_nodes())
            open_calls.remove(operator)
        return counts[operator]

    return count(model.graph.all_nodes())


def _align_opset(model: ir.Model, function: ir.Function, path: Path) -> None:
    """Let a function use the model's operator sets where each of its operators is the same in both."""
    for domain, version in list(function.opset_imports.items()):
        wanted = model.opset_imports.setdefault(domain, version)
        if wanted == version:
            continue
        for node in function.all_nodes():
            if node.domain == domain and not _same_schema(node.op_type, domain, version, wanted):
                raise ModelError(
                    f"{path}: function {function.name!r}: uses {node.op_type} of operator set {version}, but "
                    f"the model uses {wanted}, where it differs; convert the model to one operator set"
                )
        function.opset_imports[domain] = wanted


def _same_schema(op_type: str, domain: str, first: int, second: int) -> bool:
    """Whether an operator means the same in two versions of its set; operators unknown to onnx do."""
    try:
        versions = {onnx.defs.get_schema(op_type, v, domain).since_version for v in (first, second)}
    except onnx.defs.SchemaError:
        return True
    return len(versions) == 1


def _merge_copies(model: ir.Model) -> None:
    """Merge the values that share one stored tensor into one initializer of the main graph."""
    groups: dict[int, list[ir.Value]] = {}
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None and not value.is_graph_input():
                groups.setdefault(id(value.const_value), []).append(value)
        for node in graph:
            if node.op_type == "Constant" and node.domain == "" and "value" in node.attributes:
                groups.setdefault(id(node.attributes["value"].value), []).append(node.outputs[0])
    for copies in groups.values():
        movable = [value for value in copies if not value.is_graph_output()]
        if len(movable) > 1:
            _merge(model.graph, movable)


def _merge(main: ir.Graph, copies: list[ir.Value]) -> None:
    """Let one initializer of the main graph take the place of copies."""
    name = copies[0].name or "constant"
    tensor = copies[0].const_value
    for value in copies:
        node, graph = value.producer(), value.graph
        if node is not None and tensor is None:
            tensor = node.attributes["value"].as_tensor()
        if node is None and graph is not None and value.name is not None:
            del graph.initializers[value.name]
    if tensor is None:
        return
    taken = set(main.initializers) | {value.name for value in main.inputs}
    while name in taken:
        name += "_"
    tensor.name = name
    merged = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
    )
    main.register_initializer(merged)
    for value in copies:
        value.replace_all_uses_with(merged)
        node = value.producer()
        if node is not None and node.graph is not None:
            node.graph.remove(node, safe=True)


def _separate_names(graph: ir.Graph, outer: set[str], used: set[str]) -> None:
    """Rename what inlining named like something visible from outside or in the same graph."""
    fixed = {value.name or "" for value in graph.initializers.values()}
    values = [value for node in graph for value in node.outputs if value.name]
    if outer:
        values = [*graph.inputs, *values]
    else:  # the names of the main graph's inputs and outputs are the model's interface
        fixed |= {value.name or "" for value in (*graph.inputs, *graph.outputs)}
        values = [value for value in values if not value.is_graph_output()]
    seen = outer | fixed
    for value in values:
        wish = value.name or "value"
        name, number = wish, 1
        while name in seen or (name != wish and name in used):
            number += 1
            name = f"{wish}__{number}"
        if name != value.name:
            value.name = name
        seen.add(name)
    used |= seen
    for node in graph:
        for _, body in bodies(node):
            _separate_names(body, seen, used)

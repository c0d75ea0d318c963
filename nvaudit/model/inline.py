"""Model-local functions, put in place of their calls.

A weight that a function holds is one array however often the function is called: the copies that inlining
makes share their stored tensor, by which they are found again and merged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from nvaudit.errors import ModelError
from nvaudit.model.fold import fold_ints, stored_array
from nvaudit.model.layout import Shape
from nvaudit.model.walk import attribute, bodies, operand, places

MAX_NODES = 250_000  # what calls of calls may expand to

OperatorId = tuple[str, str, str]


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
    counts: dict[OperatorId, int] = {}
    open_calls: set[OperatorId] = set()

    def count(nodes: Iterator[ir.Node]) -> int:
        total = 0
        for node in nodes:
            operator = node.op_identifier()
            total += call(operator) if operator in model.functions else 1
        return total

    def call(operator: OperatorId) -> int:
        if operator in open_calls:
            raise ModelError(f"{path}: function {operator[1]!r} calls itself; ONNX functions cannot recurse")
        # Each function is counted once: calls of calls can double at every level, and to walk them all would
        # take as long as the expansion that is to be refused.
        if operator not in counts:
            open_calls.add(operator)
            counts[operator] = count(model.functions[operator].all_nodes())
            open_calls.remove(operator)
        return counts[operator]

    return count(model.graph.all_nodes())


def _align_opset(model: ir.Model, function: ir.Function, path: Path) -> None:
    """Let a function use the model's operator sets where each of its operators is the same in both."""
    for domain, version in list(function.opset_imports.items()):
        # A set that only the function uses becomes one of the model's.
        wanted = model.opset_imports.setdefault(domain, version)
        if wanted == version:
            continue
        # An operator whose definition changed between the two sets would silently mean something else under
        # the model's.
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
    # By identity of the tensor: inlining copies values, and lets all copies point to the one tensor of the
    # function. Tensors that merely hold equal numbers stay apart.
    groups: dict[int, list[ir.Value]] = {}
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None and not value.is_graph_input():
                groups.setdefault(id(value.const_value), []).append(value)
        for node in graph:
            if node.op_type == "Constant" and node.domain == "" and "value" in node.attributes:
                groups.setdefault(id(node.attributes["value"].value), []).append(node.outputs[0])
    for copies in groups.values():
        # A graph's output has to be made in that graph, so it keeps its own copy.
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
        # A name that is made up also keeps clear of graphs that are not in sight from here.
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


MAX_GROWN = 2**29
"""Elements of one tensor; the largest masks of exporters have a quarter of it."""


def check_growth(model: ir.Model, path: Path) -> None:
    """Refuse a model one of whose nodes is told by constants to make a tensor beyond all bounds.

    Parameters
    ----------
    model : onnx_ir.Model
        Sorted, its functions inlined.

    Raises
    ------
    ModelError
        Naming the node and the size.
    """
    opset = model.opset_imports.get("", 1)
    for place in places(model.graph):
        size = _SIZES.get(place.node.op_type) if place.node.domain == "" else None
        count = None if size is None else size(place.node, opset)
        if count is not None and count > MAX_GROWN:
            raise ModelError(
                f"{path}: node {place.label!r} ({place.node.op_type}) makes a tensor of {count:.3g} "
                f"elements; at most {MAX_GROWN} are made of constants: export the model again"
            )


def _ints(node: ir.Node, index: int, opset: int) -> Shape | None:
    value = operand(node, index)
    if value is None or (value.producer() is None and not value.is_initializer()):
        return None
    return fold_ints(value, opset)


def _size_of(value: ir.Value | None) -> int | None:
    """Elements of a value, as far as they are known; 1 for each size that is not."""
    if value is None or value.shape is None:
        return None
    return math.prod(dim for dim in value.shape if isinstance(dim, int) and dim > 0)


def _shape_input(index: int) -> Callable[[ir.Node, int], int | None]:
    def size(node: ir.Node, opset: int) -> int | None:
        shape = _ints(node, index, opset)
        return None if shape is None else math.prod(abs(dim) for dim in shape)

    return size


def _shape_attribute(node: ir.Node, opset: int) -> int | None:
    shape = attribute(node, "shape")
    return None if shape is None else math.prod(abs(int(dim)) for dim in shape)


def _tile(node: ir.Node, opset: int) -> int | None:
    repeats = _ints(node, 1, opset)
    return None if repeats is None else math.prod(map(abs, repeats)) * (_size_of(operand(node, 0)) or 1)


def _one_hot(node: ir.Node, opset: int) -> int | None:
    depth = _ints(node, 1, opset)
    return None if depth is None else math.prod(depth) * (_size_of(operand(node, 0)) or 1)


def _range(node: ir.Node, opset: int) -> int | None:
    values = [operand(node, index) for index in range(3)]
    arrays = [None if value is None else stored_array(value) for value in values]
    if any(array is None or array.size != 1 for array in arrays):
        return None
    start, stop, step = (float(array.reshape(-1)[0]) for array in arrays if array is not None)
    count = (stop - start) / step if step else 0.0
    return int(count) if math.isfinite(count) else None


def _pad(node: ir.Node, opset: int) -> int | None:
    pads, value = _ints(node, 1, opset) or attribute(node, "pads"), operand(node, 0)
    if pads is None or value is None or value.shape is None or len(pads) != 2 * len(value.shape):
        return None
    # pads = begins of all axes, then ends: axis a grows by pads[a] + pads[a + rank].
    rank = len(value.shape)
    sizes = (dim if isinstance(dim, int) else 1 for dim in value.shape)
    return math.prod(max(0, size + pads[axis] + pads[axis + rank]) for axis, size in enumerate(sizes))


def _resize(node: ir.Node, opset: int) -> int | None:
    sizes = _ints(node, 3, opset)
    if sizes is not None:
        return math.prod(map(abs, sizes))
    scales = operand(node, 1 if node.op_type == "Upsample" else 2)
    array = None if scales is None else stored_array(scales)
    if array is None or array.dtype.kind != "f" or not array.size:
        return None
    count = math.prod(float(scale) for scale in array.reshape(-1)) * (_size_of(operand(node, 0)) or 1)
    return int(count) if math.isfinite(count) else None


_SIZES: dict[str, Callable[[ir.Node, int], int | None]] = {
    "ConstantOfShape": _shape_input(0),
    "Expand": _shape_input(1),
    "RandomNormal": _shape_attribute,
    "RandomUniform": _shape_attribute,
    "Tile": _tile,
    "OneHot": _one_hot,
    "Range": _range,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
}

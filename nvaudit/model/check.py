"""Structural checks of an ONNX message before anything else sees it.

The parser accepts nearly any bytes; what must hold before the graph is built (names resolve, shapes fit their
data, external files are where they may be) is checked here once, so that the rest can trust it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from nvaudit.errors import ModelError
from nvaudit.model.external import check_external

MAX_ELEMENTS = 2**48  # beyond any array that could be read, well inside a 64-bit count of bytes

_Tensor = onnx.TensorProto
# The typed field that holds a tensor when raw_data does not, and its entries per element.
_FIELDS: dict[int, tuple[str, float]] = {
    _Tensor.FLOAT: ("float_data", 1),
    _Tensor.COMPLEX64: ("float_data", 2),
    _Tensor.DOUBLE: ("double_data", 1),
    _Tensor.COMPLEX128: ("double_data", 2),
    _Tensor.INT64: ("int64_data", 1),
    _Tensor.UINT64: ("uint64_data", 1),
    _Tensor.UINT32: ("uint64_data", 1),
    _Tensor.STRING: ("string_data", 1),
}


@dataclass
class Checked:
    """What a check found: the external data files, in order of first use."""

    path: Path
    files: dict[Path, None] = field(default_factory=dict)


def check_model(proto: Any, path: Path) -> Checked:
    """Check the structure of a model.

    Parameters
    ----------
    proto : onnx.ModelProto
        The parsed file.
    path : Path
        The file, for messages and for its external data.

    Returns
    -------
    Checked
        The external data files.

    Raises
    ------
    ModelError
        If there is no graph, a name does not resolve, a tensor does not fit its data, or an external
        file must not or cannot be read.
    """
    if not proto.HasField("graph") or proto.ir_version < 1:
        raise ModelError(f"{path}: holds no ONNX graph; give an .onnx model file")
    if proto.ir_version >= 3 and not proto.opset_import:
        raise ModelError(f"{path}: declares no operator set; export the model again")
    for entry in proto.opset_import:
        if not 1 <= entry.version < 2**31:
            raise ModelError(
                f"{path}: operator set {entry.domain!r} has version {entry.version}; export the model again"
            )
    if not proto.graph.output:
        raise ModelError(f"{path}: the graph has no outputs; there is nothing to audit")
    checked = Checked(path)
    _check_graph(proto.graph, [], "the graph", checked)
    for function in proto.functions:
        place = f"function {function.name!r}"
        scope = set(function.input)
        _check_nodes(function.node, [scope], place, checked)
        _check_outputs(function.output, scope, place, checked)
    return checked


def _check_graph(graph: Any, outer: list[set[str]], place: str, checked: Checked) -> None:
    """Check one graph and, through its nodes, the graphs inside it."""
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    _check_text((graph.name, *(value.name for value in values)), place, checked)
    scope = {value.name for value in graph.input}
    if "" in scope:
        raise ModelError(f"{checked.path}: {place}: an input without a name; export the model again")
    for tensor in graph.initializer:
        if not tensor.name:
            raise ModelError(
                f"{checked.path}: {place}: an initializer without a name; export the model again"
            )
        check_tensor(tensor, f"initializer {tensor.name!r}", checked)
        scope.add(tensor.name)
    scope.update(sparse.values.name for sparse in graph.sparse_initializer)
    _check_nodes(graph.node, [*outer, scope], place, checked)
    _check_outputs((value.name for value in graph.output), scope, place, checked)


def _check_text(names: Any, place: str, checked: Checked) -> None:
    """Every name must be text: the parser hands out bytes where it is not UTF-8."""
    for name in names:
        if not isinstance(name, str):
            raise ModelError(
                f"{checked.path}: {place}: the name {name!r} is not UTF-8 text; "
                "the file is damaged, export it again"
            )


def _check_outputs(names: Any, scope: set[str], place: str, checked: Checked) -> None:
    """Every output must be produced in its own graph."""
    for name in names:
        if name not in scope:
            raise ModelError(
                f"{checked.path}: {place}: nothing produces its output {name!r}; export the model again"
            )


def _check_nodes(nodes: Any, scopes: list[set[str]], place: str, checked: Checked) -> None:
    """Check the nodes of one graph; their outputs join the innermost scope."""
    for node in nodes:
        _check_text((node.op_type, node.domain, node.name, *node.input, *node.output), place, checked)
    scope = scopes[-1]
    produced = Counter(name for node in nodes for name in node.output if name)
    twice = next((name for name, count in produced.items() if count > 1 or name in scope), None)
    if twice is not None:
        raise ModelError(f"{checked.path}: {place}: {twice!r} is produced twice; export the model again")
    scope.update(produced)
    for position, node in enumerate(nodes):
        label = f"node {node.name or position!r} ({node.op_type})"
        for name in node.input:
            if name and not any(name in names for names in scopes):
                raise ModelError(
                    f"{checked.path}: {place}: {label}: nothing produces its input {name!r}; "
                    "export the model again"
                )
        for attribute in node.attribute:
            _check_attribute(attribute, scopes, label, checked)
        if node.op_type == "If":
            _check_branches(node, f"{checked.path}: {place}: {label}")


def _check_branches(node: Any, where: str) -> None:
    """Check that the branches of an If give as many values as it has outputs."""
    counts = {a.name: len(a.g.output) for a in node.attribute if a.HasField("g")}
    if any(count != len(node.output) for count in counts.values()):
        given = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ModelError(
            f"{where}: it has {len(node.output)} outputs, and its branches give another number "
            f"({given}); export the model again"
        )


def _check_attribute(attribute: Any, scopes: list[set[str]], label: str, checked: Checked) -> None:
    """Check the tensors and graphs that an attribute holds."""
    place = f"{label}: attribute {attribute.name!r}"
    _check_text((attribute.name, attribute.ref_attr_name, attribute.t.name), place, checked)
    if attribute.HasField("t"):
        check_tensor(attribute.t, place, checked)
    for tensor in attribute.tensors:
        check_tensor(tensor, place, checked)
    if attribute.HasField("g"):
        _check_graph(attribute.g, scopes, place, checked)
    for graph in attribute.graphs:
        _check_graph(graph, scopes, place, checked)


def check_tensor(tensor: Any, place: str, checked: Checked) -> None:
    """Check that a tensor's data is as long as its type and shape say.

    Parameters
    ----------
    tensor : onnx.TensorProto
        The tensor.
    place : str
        The tensor in words, for messages.
    checked : Checked
        Receives the external data file.

    Raises
    ------
    ModelError
        If the type is unknown, the shape is negative or too large, or the data has another length.
    """
    where = f"{checked.path}: {place}"
    count = count_elements(tensor.dims, where)
    try:
        dtype = ir.DataType(tensor.data_type)
        bits = 0 if dtype == ir.DataType.STRING else dtype.bitwidth
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"{where}: unknown element type {tensor.data_type}; export the model again"
        ) from error
    nbytes = math.ceil(count * bits / 8)
    if tensor.data_location == _Tensor.EXTERNAL:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        checked.files[check_external(entries, nbytes, place, checked.path)] = None
        return
    if tensor.HasField("raw_data"):
        found, needed = len(tensor.raw_data), nbytes
    else:
        name, per_element = _FIELDS.get(tensor.data_type, ("int32_data", 1 if bits > 4 else bits / 8))
        found, needed = len(getattr(tensor, name)), math.ceil(count * per_element)
    if found != needed:
        raise ModelError(
            f"{where}: its shape {list(tensor.dims)} needs {needed} "
            f"{'bytes' if tensor.HasField('raw_data') else 'values'} but {found} are stored; "
            "the file is damaged, export the model again"
        )


def count_elements(dims: Any, where: str) -> int:
    """Count the elements of a declared shape.

    Parameters
    ----------
    dims : sequence of int
        The shape as stored.
    where : str
        File and tensor, for messages.

    Returns
    -------
    int
        Their product.

    Raises
    ------
    ModelError
        If a dimension is negative or the product is beyond any readable size.
    """
    if any(dim < 0 for dim in dims) or len(dims) > 64:
        raise ModelError(f"{where}: has shape {list(dims)[:65]}; a stored tensor needs whole dimensions")
    count = math.prod(int(dim) for dim in dims)
    if count > MAX_ELEMENTS or max(dims, default=0) > MAX_ELEMENTS:
        raise ModelError(f"{where}: declares {count} elements, more than can be read; the file is damaged")
    return count

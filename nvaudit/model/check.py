"""Structural checks of an ONNX message before anything else sees it.

The parser accepts nearly any bytes; what must hold before the graph is built (names resolve, shapes fit their
data, external files are where they may be) is checked here once, so that the rest can trust it. Readers take
an attribute for what its type says and an operator for what its schema says: ONNX Runtime refuses a node that
contradicts its schema, and so do we, before anything looks inside.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from nvaudit.errors import ModelError
from nvaudit.model.external import check_external, external_entries

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
class CheckedModel:
    """What a check found.

    Attributes
    ----------
    files : dict of Path
        The external data files, in order of first use.
    opsets : dict of str to int
        Versions of the operator sets, where the check is.
    functions : set of (str, str)
        Domain and name of the model's own functions: what they are is theirs to say.
    """

    path: Path
    files: dict[Path, None] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=dict)
    functions: frozenset[tuple[str, str]] = frozenset()


@dataclass
class _Scope:
    """The names of one graph.

    Attributes
    ----------
    names : set of str
        All of them; nodes need not be in order, so that a name may be used before it is produced.
    earlier : set of str
        What stands before the node that is looked at: what the graphs inside that node must not hide. A
        value that is produced later may share its name with one inside, as the outputs of If often do.
    """

    names: set[str]
    earlier: set[str] = field(default_factory=set)


def check_model(proto: Any, path: Path) -> CheckedModel:
    """Check the structure of a model.

    Parameters
    ----------
    path : Path
        The file, for messages and for its external data.

    Returns
    -------
    CheckedModel
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
    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain  # two spellings of one domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise ModelError(
                f"{path}: operator set {entry.domain!r} is imported as version {versions[domain]} and as "
                f"{entry.version}; export the model again"
            )
        if not 1 <= entry.version < 2**31:
            raise ModelError(
                f"{path}: operator set {entry.domain!r} has version {entry.version}; export the model again"
            )
    if not proto.graph.output:
        raise ModelError(f"{path}: the graph has no outputs; there is nothing to audit")
    checked = CheckedModel(
        path,
        opsets=versions or {"": 1},
        functions=frozenset((function.domain, function.name) for function in proto.functions),
    )
    _check_graph(proto.graph, [], "the graph", checked)
    _check_functions(proto, checked)
    return checked


def _check_functions(proto: Any, checked: CheckedModel) -> None:
    """Check the functions of a model: each once, and each inside."""
    known: set[tuple[str, str, str]] = set()
    for function in proto.functions:
        place = f"function {function.name!r}"
        _check_text((function.domain, function.name, *function.input, *function.output), place, checked)
        key = (function.domain, function.name, getattr(function, "overload", ""))
        if key in known:
            raise ModelError(
                f"{checked.path}: {place} of domain {function.domain!r} is stored twice; "
                "export the model again"
            )
        known.add(key)
        _check_once(function.input, "is an input twice", place, checked)
        checked.opsets = {entry.domain: entry.version for entry in function.opset_import}
        scope = set(function.input)
        _check_nodes(function.node, [_Scope(scope)], place, checked)
        _check_outputs(function.output, scope, place, checked)


def _check_graph(graph: Any, outer: list[_Scope], place: str, checked: CheckedModel) -> None:
    """Check one graph and, through its nodes, the graphs inside it."""
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    _check_text((graph.name, *(value.name for value in values)), place, checked)
    scope = {value.name for value in graph.input}
    if "" in scope:
        raise ModelError(f"{checked.path}: {place}: an input without a name; export the model again")
    sparse = [tensor.values.name for tensor in graph.sparse_initializer]
    _check_text(sparse, place, checked)
    # ONNX Runtime takes the first of two tensors of one name, others the last: neither is right.
    stored = [*(tensor.name for tensor in graph.initializer), *sparse]
    _check_once(stored, "is stored twice", place, checked)
    _check_once((value.name for value in graph.input), "is an input twice", place, checked)
    _check_once((value.name for value in graph.output), "is an output twice", place, checked)
    _check_declared(graph, place, checked)
    _check_sizes(graph, place, checked)
    if not outer:
        _check_typed(graph, place, checked)
    _check_visible(stored, outer, place, checked)
    for tensor in graph.initializer:
        if not tensor.name:
            raise ModelError(
                f"{checked.path}: {place}: an initializer without a name; export the model again"
            )
        check_tensor(tensor, f"initializer {tensor.name!r}", checked)
        scope.add(tensor.name)
    if "" in sparse:
        raise ModelError(
            f"{checked.path}: {place}: a sparse initializer without a name; export the model again"
        )
    scope.update(sparse)
    _check_nodes(graph.node, [*outer, _Scope(scope)], place, checked)
    _check_outputs((value.name for value in graph.output), scope, place, checked)


def _check_once(names: Iterable[str], what: str, place: str, checked: CheckedModel) -> None:
    """Every name must stand for one thing."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ModelError(f"{checked.path}: {place}: {name!r} {what}; export the model again")
        seen.add(name)


def _check_visible(names: Iterable[str], outer: list[_Scope], place: str, checked: CheckedModel) -> None:
    """No name may hide one that is visible from outside; readers disagree on which of the two is meant."""
    for name in names:
        if name and any(name in scope.earlier for scope in outer):
            raise ModelError(
                f"{checked.path}: {place}: {name!r} hides a value of the same name outside of it; "
                "export the model again"
            )


def _check_typed(graph: Any, place: str, checked: CheckedModel) -> None:
    """An input of the model needs a type: onnx's shape inference reads it unseen, and ends the process."""
    for value in graph.input:
        if value.type.WhichOneof("value") is None:
            raise ModelError(
                f"{checked.path}: {place}: input {value.name!r} has no type; export the model again"
            )


def _check_sizes(graph: Any, place: str, checked: CheckedModel) -> None:
    """Exporters write -1 for a size that is not known; ONNX Runtime counts on the least integers as sizes."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if any(size < -(2**31) for size in sizes):
            raise ModelError(
                f"{checked.path}: {place}: {value.name!r} is declared with shape {sizes}; export it again"
            )


def _check_declared(graph: Any, place: str, checked: CheckedModel) -> None:
    """What is declared of an initializer, as an input or otherwise, must be what is stored."""
    stored = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    stored |= {
        tensor.values.name: (tensor.values.data_type, tuple(tensor.dims))
        for tensor in graph.sparse_initializer
    }
    for value in graph.input:
        if value.name not in stored or value.type.WhichOneof("value") != "tensor_type":
            continue
        dtype, shape = stored[value.name]
        declared = value.type.tensor_type
        if declared.elem_type not in (_Tensor.UNDEFINED, dtype):
            raise ModelError(
                f"{checked.path}: {place}: input {value.name!r} is declared as "
                f"{_type_name(declared.elem_type)} and its initializer is {_type_name(dtype)}; "
                "export the model again"
            )
        dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in declared.shape.dim]
        fits = len(dims) == len(shape) and all(
            size is None or size < 1 or size == given for size, given in zip(dims, shape, strict=True)
        )
        if declared.HasField("shape") and not fits:
            raise ModelError(
                f"{checked.path}: {place}: input {value.name!r} is declared with shape {dims} and its "
                f"initializer has {list(shape)}; export the model again"
            )


def _type_name(number: int) -> str:
    return str(_Tensor.DataType.Name(number)).lower() if number in _Tensor.DataType.values() else str(number)


def _check_text(names: Any, place: str, checked: CheckedModel) -> None:
    """Every name must be text: the parser hands out bytes where it is not UTF-8."""
    for name in names:
        if not isinstance(name, str):
            raise ModelError(
                f"{checked.path}: {place}: the name {name!r} is not UTF-8 text; "
                "the file is damaged, export it again"
            )


def _check_outputs(names: Any, scope: set[str], place: str, checked: CheckedModel) -> None:
    """Every output must be produced in its own graph."""
    for name in names:
        if name not in scope:
            raise ModelError(
                f"{checked.path}: {place}: nothing produces its output {name!r}; export the model again"
            )


def _check_nodes(nodes: Any, scopes: list[_Scope], place: str, checked: CheckedModel) -> None:
    """Check the nodes of one graph; their outputs join the innermost scope."""
    for node in nodes:
        _check_text((node.op_type, node.domain, node.name, *node.input, *node.output), place, checked)
    scope = scopes[-1].names
    # A graph inside a node must not hide what stands before that node; names that come later it may use
    # anew.
    scopes[-1].earlier = set(scope)
    produced = Counter(name for node in nodes for name in node.output if name)
    twice = next((name for name, count in produced.items() if count > 1 or name in scope), None)
    if twice is not None:
        raise ModelError(f"{checked.path}: {place}: {twice!r} is produced twice; export the model again")
    _check_visible(produced, scopes[:-1], place, checked)
    scope.update(produced)
    for position, node in enumerate(nodes):
        label = f"node {node.name or position!r} ({node.op_type})"
        for name in node.input:
            if name and not any(name in outer.names for outer in scopes):
                raise ModelError(
                    f"{checked.path}: {place}: {label}: nothing produces its input {name!r}; "
                    "export the model again"
                )
        _check_once(
            (attribute.name for attribute in node.attribute), "is given twice", f"{label}: attribute", checked
        )
        own = (node.domain, node.op_type) in checked.functions
        wrong = None if own else contradiction(node, checked.opsets)
        if wrong is not None:
            raise ModelError(f"{checked.path}: {place}: {label}: {wrong}; export the model again")
        for attribute in node.attribute:
            _check_attribute(attribute, scopes, label, checked)
        if node.op_type == "If":
            _check_branches(node, f"{checked.path}: {place}: {label}")
        scopes[-1].earlier.update(node.output)


def _check_branches(node: Any, where: str) -> None:
    """Check that the branches of an If give as many values as it has outputs."""
    counts = {a.name: len(a.g.output) for a in node.attribute if a.HasField("g")}
    if any(count != len(node.output) for count in counts.values()):
        given = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ModelError(
            f"{where}: it has {len(node.output)} outputs, and its branches give another number "
            f"({given}); export the model again"
        )


def _check_attribute(attribute: Any, scopes: list[_Scope], label: str, checked: CheckedModel) -> None:
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


def check_tensor(tensor: Any, place: str, checked: CheckedModel) -> None:
    """Check that a tensor's data is as long as its type and shape say.

    Parameters
    ----------
    place : str
        The tensor in words, for messages.
    checked : CheckedModel
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
        entries = external_entries(tensor, place, checked.path)
        checked.files[check_external(entries, nbytes, place, checked.path)] = None
        return
    if tensor.HasField("raw_data"):
        stored, needed = len(tensor.raw_data), nbytes
    else:
        name, per_element = _FIELDS.get(tensor.data_type, ("int32_data", 1 if bits > 4 else bits / 8))
        stored, needed = len(getattr(tensor, name)), math.ceil(count * per_element)
    if stored != needed:
        raise ModelError(
            f"{where}: its shape {list(tensor.dims)} needs {needed} "
            f"{'bytes' if tensor.HasField('raw_data') else 'values'} but {stored} are stored; "
            "the file is damaged, export the model again"
        )


def count_elements(dims: Any, where: str) -> int:
    """Count the elements of a declared shape.

    Parameters
    ----------
    where : str
        File and tensor, for messages.

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


_Attribute = onnx.AttributeProto
# The field that holds a value of each type.
_FIELD = {
    _Attribute.FLOAT: "f",
    _Attribute.INT: "i",
    _Attribute.STRING: "s",
    _Attribute.TENSOR: "t",
    _Attribute.GRAPH: "g",
    _Attribute.SPARSE_TENSOR: "sparse_tensor",
    _Attribute.TYPE_PROTO: "tp",
    _Attribute.FLOATS: "floats",
    _Attribute.INTS: "ints",
    _Attribute.STRINGS: "strings",
    _Attribute.TENSORS: "tensors",
    _Attribute.GRAPHS: "graphs",
    _Attribute.SPARSE_TENSORS: "sparse_tensors",
    _Attribute.TYPE_PROTOS: "type_protos",
}


def contradiction(node: Any, opsets: Mapping[str, int]) -> str | None:
    """Say what of a node contradicts itself or the schema of its operator.

    Parameters
    ----------
    opsets : mapping of str to int
        Version of each imported domain.

    Returns
    -------
    str or None
        What is wrong, in words that follow the node's name; None if nothing is.
    """
    for attribute in node.attribute:
        wrong = _of_attribute(attribute)
        if wrong is not None:
            return f"attribute {attribute.name!r} {wrong}"
    domain = "" if node.domain == "ai.onnx" else node.domain
    schema = _schema(node.op_type, domain, opsets.get(domain))
    return None if schema is None else _of_schema(node, schema)


def _of_attribute(attribute: Any) -> str | None:
    """Whether the value of an attribute is where its type says."""
    if attribute.type not in _FIELD:
        return None if attribute.type == _Attribute.UNDEFINED else f"has the unknown type {attribute.type}"
    if attribute.ref_attr_name:
        return None
    field = _FIELD[attribute.type]
    there = [name.name for name, _ in attribute.ListFields() if name.name in _FIELD.values()]
    if field in ("t", "g", "sparse_tensor", "tp") and field not in there:
        return f"is declared as {_name(attribute.type)} and holds none"
    other = next((name for name in there if name != field), None)
    if other is not None:
        return f"is declared as {_name(attribute.type)} and holds a value of another type too ({other})"
    return None


def _of_schema(node: Any, schema: Any) -> str | None:
    given = {attribute.name: attribute for attribute in node.attribute}
    for name, attribute in given.items():
        known = schema.attributes.get(name)
        if known is None:
            return f"has an attribute {name[:60]!r}, which ONNX does not know"
        wanted = _number(known.type)
        if attribute.type not in (_Attribute.UNDEFINED, wanted):
            return f"attribute {name!r} is {_name(attribute.type)}, and ONNX wants {_name(wanted)}"
    # Whether it must be there to be read; a branch that is missing is simply not looked into.
    needed = (
        name
        for name, known in schema.attributes.items()
        if known.required and _number(known.type) != _Attribute.GRAPH
    )
    missing = next((name for name in needed if name not in given), None)
    if missing is not None:
        return f"has no attribute {missing!r}, which ONNX requires"
    for what, count, least, most in (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    ):
        if not least <= count <= most:
            return f"has {count} {what}, and ONNX wants {_range(least, most)}"
    return None


def _range(least: int, most: int) -> str:
    if least == most:
        return str(least)
    return f"{least} to {most}" if most < 2**30 else f"{least} or more"


@functools.lru_cache(maxsize=4096)
def _schema(op_type: str, domain: str, version: int | None) -> Any:
    """The schema of an operator; None where onnx does not know it."""
    if version is None:
        return None
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None


def _number(kind: Any) -> int:
    return int(getattr(_Attribute, kind.name))


def _name(number: int) -> str:
    return str(_Attribute.AttributeType.Name(number)).lower()

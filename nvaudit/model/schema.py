"""What ONNX says of the form of a node, held against the node: everything after trusts it.

Readers take an attribute for what its type says and an operator for what its schema says. ONNX Runtime
refuses a node that contradicts its schema; so do we, before anything looks inside.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import onnx

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
    missing = next(
        (name for name, known in schema.attributes.items() if name not in given and _needed(known)), None
    )
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


def _needed(known: Any) -> bool:
    """Whether an attribute must be there to be read; a branch that is missing is simply not looked into."""
    return bool(known.required and _number(known.type) != _Attribute.GRAPH)


def _number(kind: Any) -> int:
    return int(getattr(_Attribute, kind.name))


def _name(number: int) -> str:
    return str(_Attribute.AttributeType.Name(number)).lower()

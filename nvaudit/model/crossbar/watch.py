"""A template that returns inner values too, at any depth: what the ranges of converters are set by."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from nvaudit.model.template import Template


def expose_inner(template: Template, names: Sequence[str]) -> tuple[Template, dict[str, str]]:
    """Let a template return inner values too.

    A value of a body leaves it as another output of the operator that holds the body: flat, in single
    precision; of a Loop or Scan that of all rounds; of an If nothing where the other branch was taken.

    Parameters
    ----------
    template : Template
    names : sequence of str
        Of values of the main graph or of bodies of If, Loop and Scan; unique in the model.

    Returns
    -------
    Template
        With these values behind the model's own outputs, each once.
    dict of str to str
        The output that gives each value.
    """
    proto = onnx.ModelProto.FromString(template.proto)
    already = {value.name for value in proto.graph.output}
    found = _names(proto.graph)
    inner = {name for name in names if name not in found}
    given = {name: name for name in names if name in found}
    given |= {name: made for name, made in _leave(proto.graph, inner).items() if name in inner}
    for name in dict.fromkeys(given[name] for name in names):
        if name not in already:
            proto.graph.output.add(name=name)
    return replace(template, proto=proto.SerializeToString()), given


def add_outputs(template: Template, names: Sequence[str]) -> Template:
    """Let a template return inner values of its main graph too.

    Parameters
    ----------
    template : Template
    names : sequence of str

    Returns
    -------
    Template
        With these values behind the model's own outputs, each once.
    """
    return expose_inner(template, names)[0]


def _names(graph: Any) -> set[str]:
    made = {name for node in graph.node for name in node.output}
    return made | {value.name for value in (*graph.input, *graph.initializer)}


def _leave(graph: Any, wanted: Collection[str]) -> dict[str, str]:
    """Let values of bodies leave the operators of a graph; what gives each there."""
    given: dict[str, str] = {}
    if not wanted:
        return given
    for node in graph.node:
        bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        outs: list[tuple[str, str, Any]] = []  # the value, what it is called in its body, and that body
        for body in bodies:
            deeper = _leave(body, wanted)
            outs += [(name, inner, body) for name, inner in deeper.items()]
            outs += [(name, name, body) for name in sorted(_names(body) & set(wanted))]
        for name, inner, body in outs:
            given[name] = f"{inner}/left"
            if node.op_type == "Loop":
                _collect(graph, node, body, inner, given[name])
                continue
            for each in bodies:
                each.output.add(name=_flat(each, inner) if each is body else _nothing(each, inner))
            node.output.append(given[name])
        _widen(node, len(outs))
    return given


def _collect(graph: Any, node: Any, body: Any, name: str, given: str) -> None:
    """Gather the values of all rounds of a Loop: what grows is a state, since outputs have one shape."""
    states = len(body.input) - 2
    start = numpy_helper.from_array(np.zeros(0, np.float32), f"{name}/none_yet")
    graph.initializer.append(start)
    node.input.extend([""] * (2 - len(node.input)))
    node.input.append(start.name)
    body.input.append(helper.make_tensor_value_info(f"{name}/so_far", onnx.TensorProto.FLOAT, [None]))
    joined = f"{name}/with_this"
    body.node.append(helper.make_node("Concat", [f"{name}/so_far", _flat(body, name)], [joined], axis=0))
    outputs = list(body.output)
    del body.output[:]
    body.output.extend([*outputs[: 1 + states], onnx.ValueInfoProto(name=joined), *outputs[1 + states :]])
    names = list(node.output)
    node.output[:] = [*names[:states], given, *names[states:]]


def _flat(body: Any, name: str) -> str:
    shape = numpy_helper.from_array(np.array([-1], np.int64))
    body.node.append(helper.make_node("Cast", [name], [f"{name}/single"], to=onnx.TensorProto.FLOAT))
    body.node.append(helper.make_node("Constant", [], [f"{name}/shape"], value=shape))
    body.node.append(helper.make_node("Reshape", [f"{name}/single", f"{name}/shape"], [f"{name}/flat"]))
    return f"{name}/flat"


def _nothing(body: Any, name: str) -> str:
    """What an If gives where the other branch was taken."""
    empty = numpy_helper.from_array(np.zeros(0, np.float32))
    body.node.append(helper.make_node("Constant", [], [f"{name}/nothing"], value=empty))
    return f"{name}/nothing"


def _widen(node: Any, more: int) -> None:
    """Of a Scan, give the axes and directions of further outputs where it states them."""
    for attribute in node.attribute:
        if node.op_type == "Scan" and attribute.name in ("scan_output_axes", "scan_output_directions"):
            attribute.ints.extend([0] * more)

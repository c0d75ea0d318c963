"""A graph that also returns values from its inside, at any depth.

This is the only place that turns inner values into outputs. :class:`nvaudit.perturb.probe.InnerProbe` runs
such a graph on samples, batch by batch, for whoever needs to know what activations are like: ranges of
converters, scales of channels, moments of a layer's inputs, means on one chip.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def inner_values(proto: bytes) -> list[str]:
    """Names of the inputs of a model, then of what the nodes of its main graph make, in order."""
    graph = onnx.ModelProto.FromString(proto).graph
    made = [name for node in graph.node for name in node.output if name]
    return [value.name for value in graph.input] + made


def expose(proto: bytes, names: Collection[str]) -> tuple[bytes, dict[str, str]]:
    """Let a model return inner values too, behind its own outputs.

    A value of a body leaves it as another output of the operator that holds the body: flat, in single
    precision; of a Loop or Scan that of all rounds; of an If nothing where the other branch was taken.
    ONNX Runtime fuses less around a value that is an output, so results may round elsewhere than in the
    model itself: a measurement compares graphs that expose the same values.

    Parameters
    ----------
    proto : bytes
        A message; its external data are not read.
    names : collection of str
        Of values of the main graph or of bodies of If, Loop and Scan; unique in the model.

    Returns
    -------
    bytes
        The message with these values among its outputs, each once.
    dict of str to str
        The output that gives each value; an input of the model is its own. Values that the message does not
        compute (no output depends on them, so they were left out) are missing.
    """
    model = onnx.ModelProto.FromString(proto)
    graph = model.graph
    outer = _names(graph)
    given = {name: name for name in names if name in outer}
    inner = {name for name in names if name not in outer}
    given |= {name: output for name, output in _leave(graph, inner).items() if name in inner}
    already = {value.name for value in (*graph.output, *graph.input)}
    for output in dict.fromkeys(given[name] for name in names if name in given):
        if output not in already:
            graph.output.add(name=output)
    return model.SerializeToString(), given


def expose_sizes(
    proto: bytes, sizes: Collection[str], conditions: Collection[str]
) -> tuple[bytes, dict[str, str], dict[str, str]]:
    """Let a model return the sizes of some values of its main graph, and conditions, instead of its outputs.

    Sizes, not the values themselves: they are small, and ONNX Runtime gives memory back as it always does.

    Returns
    -------
    bytes
        The message.
    dict of str to str, twice
        The output that gives the sizes of each value (an int64 list), and that which gives each condition;
        without those that the message does not compute.
    """
    model = onnx.ModelProto.FromString(proto)
    there = inner_values(proto)
    del model.graph.output[:]
    given: list[dict[str, str]] = []
    for operator, kind, names in (
        ("Shape", TensorProto.INT64, sizes),
        ("Identity", TensorProto.BOOL, conditions),
    ):
        outputs = {name: f"nvaudit/{operator}/{name}" for name in there if name in names}
        for name, output in outputs.items():
            model.graph.node.append(helper.make_node(operator, [name], [output]))
            model.graph.output.append(helper.make_tensor_value_info(output, kind, None))
        given.append(outputs)
    return model.SerializeToString(), given[0], given[1]


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
                # Both branches of an If return equally many values; the other one gives an empty value.
                each.output.add(name=_flat(each, inner) if each is body else _nothing(each, inner))
            node.output.append(given[name])
        _widen(node, len(outs))
    return given


def _collect(graph: Any, node: Any, body: Any, name: str, given: str) -> None:
    """Gather the values of all rounds of a Loop.

    What a Loop stacks up over its rounds must have one shape in each, which a value of a branch inside has
    not. So the values are joined in a state that grows from round to round: states may change their shape.
    """
    states = len(body.input) - 2  # behind the number of the round and the condition
    start = numpy_helper.from_array(np.zeros(0, np.float32), f"{name}/none_yet")
    graph.initializer.append(start)
    node.input.extend([""] * (2 - len(node.input)))
    node.input.append(start.name)
    body.input.append(helper.make_tensor_value_info(f"{name}/so_far", TensorProto.FLOAT, [None]))
    joined = f"{name}/with_this"
    body.node.append(helper.make_node("Concat", [f"{name}/so_far", _flat(body, name)], [joined], axis=0))
    outputs = list(body.output)
    del body.output[:]
    # Outputs of a body: the condition, the states, what is stacked up. Those of the node lack the condition.
    body.output.extend([*outputs[: 1 + states], onnx.ValueInfoProto(name=joined), *outputs[1 + states :]])
    names = list(node.output)
    node.output[:] = [*names[:states], given, *names[states:]]


def _flat(body: Any, name: str) -> str:
    shape = numpy_helper.from_array(np.array([-1], np.int64))
    body.node.append(helper.make_node("Cast", [name], [f"{name}/single"], to=TensorProto.FLOAT))
    body.node.append(helper.make_node("Constant", [], [f"{name}/shape"], value=shape))
    body.node.append(helper.make_node("Reshape", [f"{name}/single", f"{name}/shape"], [f"{name}/flat"]))
    return f"{name}/flat"


def _nothing(body: Any, name: str) -> str:
    empty = numpy_helper.from_array(np.zeros(0, np.float32))
    body.node.append(helper.make_node("Constant", [], [f"{name}/nothing"], value=empty))
    return f"{name}/nothing"


def _widen(node: Any, more: int) -> None:
    """Of a Scan, give the axes and directions of further outputs where it states them."""
    for attribute in node.attribute:
        if node.op_type == "Scan" and attribute.name in ("scan_output_axes", "scan_output_directions"):
            attribute.ints.extend([0] * more)

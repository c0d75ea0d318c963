"""Follow the batch axis through a graph with the rules of the operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from nvaudit.model.batch import layout  # noqa: F401 -- enters its rules into the table
from nvaudit.model.batch.node import (
    NO_INFLUENCE,
    SHARED,
    UNKNOWN,
    AxisState,
    BatchRule,
    Dims,
    Influence,
    NodeView,
    Operand,
    RuleAnswer,
    constant_tensor,
    refuse,
)
from nvaudit.model.batch.rules import RULES
from nvaudit.model.draws import draws

#: Constants up to this many bytes may be shapes, which shape inference needs to see.
SMALL_BYTES = 1024

#: Operators that may mix samples wherever their batch axis is.
COUPLING = frozenset({"BatchNormalization", "DynamicQuantizeLinear"})

Shapes = dict[ir.Value, Dims]


@dataclass
class BatchWalk:
    """What one way through the graph shows.

    Attributes
    ----------
    states : dict of onnx_ir.Value to (int or Marker)
        Batch axis of every value reached, subgraphs included.
    problems : list of str
        What is not proved, in order.
    coupled : list of str
        What makes samples influence each other, in order.
    reshapes : list of (onnx_ir.Node, tuple of int)
        Reshape nodes that need another shape, and that shape.
    influence : dict of onnx_ir.Value to Influence
        What is not proved, or coupled, on the way to a value; values without any are absent.
    """

    states: dict[ir.Value, AxisState]
    problems: list[str] = field(default_factory=list)
    coupled: list[str] = field(default_factory=list)
    reshapes: list[tuple[ir.Node, tuple[int, ...]]] = field(default_factory=list)
    influence: dict[ir.Value, Influence] = field(default_factory=dict)

    def enter(self, node: ir.Node, step: RuleAnswer, bodies: Sequence[ir.Graph]) -> None:
        """Enter the answer for a node."""
        self.problems += [step.problem] if step.problem else []
        self.coupled += [step.problem] if step.coupled else []
        self.reshapes += [(node, step.reshape)] if step.reshape is not None else []
        total = NO_INFLUENCE
        # A graph inside reads values around it that are no inputs of the node, and may decide what it gives.
        inner = [value for body in bodies for one in body.all_nodes() for value in one.outputs]
        for value in (*node.inputs, *inner, *(v for body in bodies for v in body.outputs)):
            if value is not None:
                total = total | self.influence.get(value, NO_INFLUENCE)
        if step.problem:
            total = total | _influence(step)
        if not total.proved_apart:
            self.influence.update(dict.fromkeys(node.outputs, total))


def _influence(step: RuleAnswer) -> Influence:
    """What a node with a problem adds."""
    if not step.coupled:
        return Influence(unproved=step.problem)
    return Influence(by_range=step.problem) if step.by_range else Influence(mixed=step.problem)


def infer_shapes(model: ir.Model, batch_dims: Mapping[str, tuple[int, int]]) -> Shapes:
    """Infer the shapes of all values afresh: shapes stored in a file may be wrong.

    Parameters
    ----------
    batch_dims : mapping of str to (int, int)
        For an input: axis, and the size to assume there.

    Returns
    -------
    dict of onnx_ir.Value to tuple of (int or None)
        For the values of `model`; those of which nothing is known are absent.
    """
    shapes = _stored_shapes(model)
    try:
        inferred = _inferred(model, batch_dims, {})
    except Exception:  # whatever the C++ code thinks of a strange model: then shapes are just unknown
        return shapes
    return shapes | _new_shapes(model, inferred)


def infer_sizes(model: ir.Model, known: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Infer the shapes of all values where those of the inputs are known, of inputs of bodies too.

    Parameters
    ----------
    known : mapping of str to tuple of int
        All sizes of values of the main graph: of the inputs, and of others where inference needs help.

    Returns
    -------
    dict of onnx_ir.Value to tuple of (int or None)
        As `infer_shapes`.
    """
    shapes = _stored_shapes(model)
    try:
        inferred = _inferred(model, {}, known)
    except Exception:  # as above
        return shapes
    shapes |= _new_shapes(model, inferred)
    for body, twin in zip(model.graph.subgraphs(), inferred.graph.subgraphs(), strict=False):
        for mine, theirs in zip(body.inputs, twin.inputs, strict=False):
            if theirs.shape is not None:
                shapes[mine] = _dims(theirs.shape)
    return shapes


def _stored_shapes(model: ir.Model) -> Shapes:
    """Shapes that need no inference."""
    shapes: Shapes = {v: _dims(v.shape) for v in model.graph.inputs if v.shape is not None}
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            shapes[value] = _dims(value.const_value.shape)
    return shapes


def _new_shapes(model: ir.Model, inferred: ir.Model) -> Shapes:
    """Carry the shapes of inputs and results over to the values of the model."""
    shapes: Shapes = {}
    for mine, theirs in zip(model.graph.inputs, inferred.graph.inputs, strict=False):
        if theirs.shape is not None:
            shapes[mine] = _dims(theirs.shape)
    for node, twin in zip(model.graph.all_nodes(), inferred.graph.all_nodes(), strict=True):
        # On its way through protobuf a node loses empty names at the end of its list of outputs.
        for mine, theirs in zip(node.outputs, twin.outputs, strict=False):
            if theirs.shape is not None:
                shapes[mine] = _dims(theirs.shape)
    return shapes


def _dims(shape: object) -> Dims:
    """Return the known dimensions of an onnx-ir shape."""
    assert isinstance(shape, ir.Shape)
    return tuple(dim if isinstance(dim, int) and dim >= 0 else None for dim in shape)


def _inferred(
    model: ir.Model, batch_dims: Mapping[str, tuple[int, int]], known: Mapping[str, tuple[int, ...]]
) -> ir.Model:
    """Copy the model without weights, with fresh shapes."""
    copy = model.clone()
    for value in copy.graph.inputs:
        if (sizes := known.get(value.name or "")) is not None:
            value.shape = ir.Shape(sizes)
        axis, size = batch_dims.get(value.name or "", (-1, 0))
        if value.shape is not None and axis >= 0:
            dims = list(value.shape)
            value.shape = ir.Shape([*dims[:axis], size, *dims[axis + 1 :]])
    # Shapes stored for results may be wrong, or of another batch size: inference starts without them.
    for node in copy.graph.all_nodes():
        for out in node.outputs:
            sizes = known.get(out.name or "") if node.graph is copy.graph else None
            out.shape = None if sizes is None else ir.Shape(sizes)
    # Large weights would take the message over protobuf's 2 GiB; small constants stay, as they may be shapes.
    for value in tuple(copy.graph.initializers.values()):
        _lighten(copy.graph, value)
    proto = ir.to_proto(copy)
    _check_nodes(proto)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def _check_nodes(proto: onnx.ModelProto) -> None:
    """Refuse nodes that their operators' definitions forbid: on some of them the inference ends the process.

    Raises
    ------
    ValueError
        Or what onnx raises.
    """
    context = onnx.checker.C.CheckerContext()
    context.ir_version = proto.ir_version
    context.opset_imports = {entry.domain: entry.version for entry in proto.opset_import}
    waiting = list(proto.graph.node)
    while waiting:
        node = waiting.pop()
        graphs = [a.g for a in node.attribute if a.HasField("g")]
        graphs += [g for a in node.attribute for g in a.graphs]
        waiting += [inner for graph in graphs for inner in graph.node]
        # Graphs inside are checked node by node: by themselves they lack what they read from around them.
        if not graphs and onnx.defs.has(node.op_type, node.domain):
            onnx.checker.check_node(node, context)
        if node.op_type == "Split":
            told = [a.i for a in node.attribute if a.name == "num_outputs"]
            if told and len(node.output) > told[0]:
                raise ValueError("Split has more outputs than parts")


def _lighten(graph: ir.Graph, value: ir.Value) -> None:
    """Keep a small constant in memory; turn a large one into an input of its shape."""
    tensor = value.const_value
    if tensor is None:
        return
    value.shape, value.dtype = ir.Shape(tuple(tensor.shape.numpy())), tensor.dtype
    if tensor.nbytes <= SMALL_BYTES:
        if isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.tensor(np.array(tensor.numpy()), name=value.name)
        return
    if value not in graph.inputs:
        graph.inputs.append(value)
    graph.initializers.pop(value.name or "")
    value.const_value = None


def walk(model: ir.Model, axes: Mapping[str, int], batch: int, shapes: Shapes, *, by_size: bool) -> BatchWalk:
    """Follow the batch from the inputs to the outputs.

    Parameters
    ----------
    axes : mapping of str to int
        Batch axis per graph input; inputs not named are shared by all samples.
    batch : int
        The batch size for which `shapes` were inferred.
    shapes : dict of onnx_ir.Value to tuple of (int or None)
        See `infer_shapes`.
    by_size : bool
        Where the rules know nothing, take the only axis of size `batch` for the batch axis. Right where
        `batch` is a number that stands for a free dimension, wrong where it is 1.
    """
    walked = BatchWalk({v: axes.get(v.name or "", SHARED) for v in model.graph.inputs})
    version = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
    _walk_graph(model.graph, walked, version, batch, shapes, by_size)
    return walked


def _walk_graph(
    graph: ir.Graph, walked: BatchWalk, version: int, batch: int, shapes: Shapes, by_size: bool
) -> None:
    """Walk one graph; subgraphs see the values around them because states are kept per value."""
    for node in graph:
        bodies = [g for attr in node.attributes.values() for g in subgraphs(attr)]
        for body in bodies:
            # What a loop hands on or a scan cuts out differs from step to step: nothing is known of it.
            walked.states.update(dict.fromkeys(body.inputs, UNKNOWN))
            _walk_graph(body, walked, version, batch, shapes, by_size)
        view = NodeView(node, version, batch, tuple(_operand(v, walked, shapes) for v in node.inputs))
        step = _merge(view, bodies, walked) if bodies else _step(view)
        walked.enter(node, step, bodies)
        # A rule answers for the outputs that its operator has; a node may list fewer, or empty ones beyond.
        states = (*step.states, *(UNKNOWN,) * len(node.outputs))
        for value, state in zip(node.outputs, states, strict=False):
            walked.states[value] = state
            shape = shapes.get(value, ())
            # The stand-in for a free batch is a prime that no layer has: where it stands, and once only, is
            # the batch, which lets the walk go on behind an operator without a rule (the problem stays
            # entered).
            if by_size and state is UNKNOWN and shape.count(batch) == 1:
                walked.states[value] = shape.index(batch)


def subgraphs(attr: ir.Attr) -> tuple[ir.Graph, ...]:
    """List the graphs in an attribute."""
    if attr.type == ir.AttributeType.GRAPH:
        return (attr.as_graph(),)
    return tuple(attr.as_graphs()) if attr.type == ir.AttributeType.GRAPHS else ()


def _operand(value: ir.Value | None, walked: BatchWalk, shapes: Shapes) -> Operand | None:
    """Collect what is known of an input; a value not seen yet means that nodes are out of order."""
    if value is None:
        return None
    # What no node makes and the walk has not entered is an initializer: shared.
    state = walked.states.get(value, SHARED if value.producer() is None else UNKNOWN)
    shape = shapes.get(value)
    if shape is None and state is SHARED and (tensor := constant_tensor(value)) is not None:
        shape = _dims(tensor.shape)
    return Operand(state, shape, value)


def _step(view: NodeView) -> RuleAnswer:
    """Ask the rule of the operator, where the inputs leave anything to ask."""
    node, states = view.node, {op.state for op in view.inputs if op is not None}
    known = RULES.get(node.op_type) if node.domain == "" else None
    # Asked first: a draw whose inputs are all shared would else pass for a value that all samples share.
    if draws(node, view.version):
        return refuse(view, "draws random numbers")
    if UNKNOWN in states:
        # The cause has been told already, but an operator that surely mixes samples still counts.
        step = _ask(known, view) if known and node.op_type in COUPLING else None
        return step if step is not None and step.coupled else RuleAnswer((UNKNOWN,) * len(node.outputs))
    if states <= {SHARED}:
        return RuleAnswer((SHARED,) * len(node.outputs))
    if known is None:
        return refuse(view, "is an operator without a rule on how it treats a batch")
    # Before opset 7 a second operand could be aligned anywhere (`broadcast`, `axis`), which no rule reads.
    if view.version < 7:
        return refuse(view, f"is of opset {view.version}; the rules start at opset 7")
    return _ask(known, view)


def _ask(rule: BatchRule, view: NodeView) -> RuleAnswer:
    """Ask a rule; a node that breaks its operator's definition proves nothing."""
    try:
        return rule(view)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return refuse(view, "has attributes or parameters that do not fit its operator")


def _merge(view: NodeView, bodies: list[ir.Graph], walked: BatchWalk) -> RuleAnswer:
    """Merge the branches of an If whose condition is shared; loops are not followed."""
    if view.node.op_type != "If" or view.x.state is not SHARED:
        return refuse(view, "repeats or chooses computations in a way that is not followed")
    # One shared condition sends the whole batch the same way; which way is not known, so both must agree.
    rows = [[walked.states.get(value, SHARED) for value in body.outputs] for body in bodies]
    if len(rows) == 2 and rows[0] == rows[1]:
        return RuleAnswer(tuple(rows[0]))
    merged = tuple(a if a == b else UNKNOWN for a, b in zip(rows[0], rows[-1], strict=False))
    return RuleAnswer(merged, f"{view.label} has branches whose batch axes differ")

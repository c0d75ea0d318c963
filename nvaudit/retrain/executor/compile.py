"""A network compiled into steps: constants folded, what depends on weights alone kept apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

import nvaudit.retrain.executor.ops  # noqa: F401 - fills the table of operators
from nvaudit.arrays import Array
from nvaudit.errors import ModelError, NvauditError
from nvaudit.model.graph import Graph, Network, Node, Stored
from nvaudit.retrain.executor.ops.registry import Op, Registered, RunState, find, supported, to_tensor
from nvaudit.retrain.executor.program import (
    NOTHING,
    Body,
    ProgramStep,
    RefusedNode,
    SlotTable,
    arranged,
    free_dead,
)

ValueKind = Literal["constant", "weight", "data"]


@dataclass(frozen=True)
class Ref:
    """A value while its graph is compiled.

    Attributes
    ----------
    slot : int
        Where it is.
    kind : {"constant", "weight", "data"}
        Known when built; computed from parameters alone; anything else.
    host : bool
        Whether it stays on the CPU wherever the parameters are: sizes and indices.
    keys : frozenset of str
        The parameters that it is computed from.
    buffer : bool
        Whether it is a running statistic.
    dtype : str
        Element type in which it is stored; "" where it is computed.
    """

    slot: int
    kind: ValueKind
    host: bool = False
    keys: frozenset[str] = frozenset()
    buffer: bool = False
    dtype: str = ""


MISSING = Ref(NOTHING, "constant", True)


class GraphScope:
    """One graph while it is compiled."""

    def __init__(self, parent: GraphScope | None, table: SlotTable) -> None:
        self.parent = parent
        self.table = table
        self.refs: dict[str, Ref] = {}
        self.steps: list[ProgramStep] = []
        self.freeable: set[int] = set()
        self.placed: dict[int, Ref] = {}
        # For a body: what its node hands in from outside (references of the parent), and where it goes.
        self.outside: list[Ref] = []
        self.captures: list[tuple[int, int]] = []

    def fresh(self, name: str, kind: ValueKind, **more: Any) -> Ref:
        """Enter a value that a step or the caller will put into its slot."""
        ref = Ref(self.table.new(), kind, **more)
        self.freeable.add(ref.slot)
        if name:
            self.refs[name] = ref
        return ref


MAX_FOLDED = 2**28
"""Elements of the largest array that is computed once when the executor is built."""

_ON_HOST = frozenset({"Shape", "Size"})
Leaf = Callable[[Stored, "Compiler"], Ref]


@dataclass
class Compiled:
    """The result: two lists of steps over one table.

    Attributes
    ----------
    table : SlotTable
        Slots of the main graph.
    tables : list of SlotTable
        Those of all graphs.
    weight_steps : list of ProgramStep
        What depends on parameters alone.
    data_steps : list of ProgramStep
        The rest.
    inputs : dict of str to int
        Slot of each input of the model.
    outputs : list of (str, int)
        Each output's slot.
    names : dict of str to Ref
        Every value of the main graph.
    """

    table: SlotTable
    tables: list[SlotTable] = field(default_factory=list)
    weight_steps: list[ProgramStep] = field(default_factory=list)
    data_steps: list[ProgramStep] = field(default_factory=list)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: list[tuple[str, int]] = field(default_factory=list)
    names: dict[str, Ref] = field(default_factory=dict)


class Compiler:
    """Compiles one network.

    Parameters
    ----------
    leaf : callable
        Makes the reference of a stored tensor: a parameter, a statistic, or a constant.
    """

    def __init__(self, network: Network, state: RunState, leaf: Leaf) -> None:
        self.network = network
        self.state = state
        self.leaf = leaf
        self.stored = {stored.name: stored for stored in network.stored}
        self.injected = {name: key for key, made in network.folded.items() for name in made.names}
        self.root = GraphScope(None, SlotTable())
        self.tables = [self.root.table]
        self.weight_steps: list[ProgramStep] = []

    def compile(self) -> Compiled:
        """Compile the network."""
        graph, root = self.network.graph, self.root
        inputs = {name: root.fresh(name, "data").slot for name in graph.inputs}
        self._nodes(graph, root)
        outputs = [(name, self.lookup(name, root).slot) for name in graph.outputs]
        kept = {slot for _, slot in outputs}
        return Compiled(
            table=root.table,
            tables=self.tables,
            weight_steps=self.weight_steps,
            data_steps=free_dead(root.steps, kept, root.freeable),
            inputs=inputs,
            outputs=outputs,
            names=root.refs,
        )

    def constant(self, array: Array, scope: GraphScope) -> Ref:
        """Enter a known array."""
        value = to_tensor(array)
        host = not isinstance(value, Tensor) or not value.is_floating_point()
        return Ref(scope.table.new(value, movable=not host), "constant", host, dtype=array.dtype.name)

    def weight_step(self, function: Callable[..., Any], inputs: tuple[int, ...], node: Node | None) -> int:
        """Add a step that depends on parameters alone; its result is never dropped."""
        slot = self.root.table.new()
        self.weight_steps.append((function, inputs, slot, (), node))
        return slot

    def lookup(self, name: str, scope: GraphScope) -> Ref:
        """Find a value, in this graph or one around it."""
        if not name:
            return MISSING
        ref = scope.refs.get(name)
        if ref is not None:
            return ref
        if scope.parent is None:
            if name not in self.stored:
                raise ModelError(f"{self.network.path}: nothing produces {name!r}; export the model again")
            ref = self.leaf(self.stored[name], self)
        else:
            ref = self._capture(self.lookup(name, scope.parent), scope)
        scope.refs[name] = ref
        return ref

    def _capture(self, outer: Ref, scope: GraphScope) -> Ref:
        """Bring a value of the graph around into this one."""
        assert scope.parent is not None
        if outer.kind == "constant":
            value = scope.parent.table.values[outer.slot]
            return Ref(
                scope.table.new(value, movable=not outer.host), "constant", outer.host, dtype=outer.dtype
            )
        # One entry for each value from outside, however often a body reads it; the node hands them in
        # behind its own inputs.
        if outer not in scope.outside:
            scope.outside.append(outer)
        slot = scope.table.new()
        scope.captures.append((scope.outside.index(outer), slot))
        return Ref(slot, outer.kind, outer.host, outer.keys, outer.buffer)

    def _nodes(self, graph: Graph, scope: GraphScope) -> None:
        for node in graph.nodes:
            registered = find(node.domain, node.op_type)
            if registered is None:
                raise _unsupported(node, self.network.path)
            try:
                self._node(node, registered, scope)
            except NvauditError as error:
                if str(error).startswith(self.network.path):
                    raise
                text = f"{self.network.path}: {error}"
                if isinstance(error, ModelError):
                    raise RefusedNode(text, node.name) from error
                raise type(error)(text) from error
            except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
                text = " ".join(str(error).split())
                raise RefusedNode(
                    f"{self.network.path}: node {node.name!r} ({node.op_type}): cannot be built in torch: "
                    f"{type(error).__name__}: {text[:300]}; check the model with onnx.checker",
                    node.name,
                ) from error

    def _node(self, node: Node, registered: Registered, scope: GraphScope) -> None:
        refs = [self.lookup(name, scope) for name in node.inputs]
        given = [ref for ref in refs if ref is not MISSING]
        kinds = {ref.kind for ref in given}
        alone = registered.pure and bool(given) and "data" not in kinds
        if alone and "weight" in kinds and scope is not self.root:
            # What depends on parameters alone is the same at every step of a loop and in every branch.
            # Computed once, outside, it also has one place where a run may override it.
            scope, refs = self.root, [self.lookup(name, self.root) for name in node.inputs]
        op, outside = self._op(node, refs, scope)
        function = registered.build(op)
        # A node whose inputs are all known is computed now, once; only pure ones, as a random draw that is
        # made when the network is built would be the same in every step.
        if alone and kinds == {"constant"} and self._fold(function, node, refs, scope):
            return
        # Shapes and indices stay on the CPU wherever the parameters are: each use as a Python number would
        # else wait for the GPU. A node runs there if all its operands do; else these are brought over.
        devices = [ref for i, ref in enumerate(refs) if i not in registered.host and ref is not MISSING]
        host = all(ref.host for ref in devices)
        if not host:
            refs = [ref if i in registered.host else self._place(ref, scope) for i, ref in enumerate(refs)]
        slots = tuple(ref.slot for ref in (*refs, *outside))
        if alone and "weight" in kinds:
            self._weight_node(node, function, slots, refs)
            return
        on_host = node.op_type in _ON_HOST or (host and not outside)
        made = [scope.fresh(name, "data", host=on_host) if name else MISSING for name in node.outputs]
        outputs = made[0].slot if len(made) == 1 else tuple(ref.slot for ref in made)
        scope.steps.append((function, slots, outputs, (), node))

    def _op(self, node: Node, refs: list[Ref], scope: GraphScope) -> tuple[Op, list[Ref]]:
        """The node as its builder sees it, and what its bodies read from outside."""
        known: list[Array | None] = []
        for ref in refs:
            value = scope.table.values[ref.slot] if ref.kind == "constant" and ref is not MISSING else None
            known.append(value.numpy() if isinstance(value, Tensor) else value)
        outside: list[Ref] = []
        first = refs[0] if refs else MISSING
        op = Op(
            node,
            tuple(known),
            self.state,
            kinds=tuple(ref.dtype for ref in refs),
            sources=first.keys if first.kind == "weight" else frozenset(),
            buffers=frozenset(i for i, ref in enumerate(refs) if ref.buffer),
            body=lambda graph: self._body(node, graph, scope, outside),
        )
        return op, outside

    def _fold(self, function: Callable[..., Any], node: Node, refs: list[Ref], scope: GraphScope) -> bool:
        """Compute a node whose inputs are all known; its results become constants."""
        with torch.no_grad():
            result = function(*[scope.table.values[ref.slot] for ref in refs])
        results = result if isinstance(result, tuple) else (result,)
        if not all(isinstance(part, Tensor) and part.numel() <= MAX_FOLDED for part in results):
            return False
        for name, part in zip(node.outputs, results, strict=False):
            part = part.contiguous() if part.numel() else part
            host = not part.is_floating_point() or all(ref.host for ref in refs)
            # A copy: what was computed may be a view of another constant, as a Reshape is.
            slot = scope.table.new(part.clone(), movable=not host)
            scope.refs[name] = Ref(slot, "constant", host)
        return True

    def _place(self, ref: Ref, scope: GraphScope) -> Ref:
        """A value of the host where the parameters are."""
        if not ref.host or ref is MISSING:
            return ref
        if ref.slot not in scope.placed:
            if ref.kind == "constant":
                slot = scope.table.new(scope.table.values[ref.slot], movable=True)
            elif ref.kind == "weight" and scope is self.root:
                slot = self.weight_step(self._to_device, (ref.slot,), None)
            else:
                slot = scope.fresh("", "data").slot
                scope.steps.append((self._to_device, (ref.slot,), slot, (), None))
            scope.placed[ref.slot] = Ref(slot, ref.kind, False, ref.keys, ref.buffer)
        return scope.placed[ref.slot]

    def _to_device(self, value: Any) -> Any:
        return value.to(self.state.device) if isinstance(value, Tensor) else value

    def _weight_node(
        self, node: Node, function: Callable[..., Any], slots: tuple[int, ...], refs: list[Ref]
    ) -> None:
        keys = frozenset().union(*(ref.keys for ref in refs))
        table = self.root.table
        made = [table.new() if name else NOTHING for name in node.outputs]
        self.weight_steps.append((function, slots, made[0] if len(made) == 1 else tuple(made), (), node))
        for name, slot in zip(node.outputs, made, strict=True):
            if name in self.injected:
                # The name stands for the injected slot from here on: every later reader sees what a run
                # puts there.
                slot, keys = self._inject(name, slot), keys | {self.injected[name]}
            if name:
                self.root.refs[name] = Ref(slot, "weight", False, keys)

    def _inject(self, name: str, slot: int) -> int:
        """A computed weight that a run may override."""
        state, key = self.state, self.injected[name]
        back = self.network.folded[key].moves.back

        def inject(value: Any) -> Any:
            given = state.overrides.get(key)
            return value if given is None else arranged(given, back)

        return self.weight_step(inject, (slot,), None)

    def _body(self, node: Node, graph: Graph, parent: GraphScope, outside: list[Ref]) -> Body:
        scope = GraphScope(parent, SlotTable())
        scope.outside = outside
        self.tables.append(scope.table)
        counted = 2 if node.op_type == "Loop" else 0  # step number and condition stay on the host
        inputs = tuple(
            scope.fresh(name, "data", host=number < counted).slot for number, name in enumerate(graph.inputs)
        )
        self._nodes(graph, scope)
        results = [self.lookup(name, scope) for name in graph.outputs]
        condition = 1 if node.op_type == "Loop" else 0
        results = [
            ref if number < condition else self._place(ref, scope) for number, ref in enumerate(results)
        ]
        outputs = tuple(ref.slot for ref in results)
        steps = free_dead(scope.steps, set(outputs), scope.freeable)
        return Body(scope.table, inputs, outputs, scope.captures, steps)


_CURES = {
    "com.microsoft.MatMulNBits": "its weights are packed codes that it unpacks itself; harden the model from "
    "before it was quantised, and quantise the hardened one",
    "com.microsoft.nchwc": "ONNX Runtime saved this file after its own optimisation for one kind of CPU; "
    "harden the file from before it, and optimise the hardened one",
    "ai.onnx.ml.Linear": "its coefficients stand in an attribute of the node; export it with MatMul or "
    "Gemm in its place (a linear layer of torch or keras)",
}
"""What to do about operators that hold weights in a form of their own, by how their names start."""


def _unsupported(node: Node, path: str) -> RefusedNode:
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    cure = next((cure for start, cure in _CURES.items() if name.startswith(start)), None)
    if cure is None:
        cure = f"supported are: {', '.join(supported())}; export the model without it"
    return RefusedNode(
        f"{path}: node {node.name!r}: operator {name} cannot be trained; {cure}, or use a method that needs "
        "no training (--method remap)",
        node.name,
    )

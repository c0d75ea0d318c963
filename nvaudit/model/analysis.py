"""Follow every constant of a model to the operators that consume it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from nvaudit.model.chains import (
    KEEPING,
    ChainStep,
    Quantize,
    Reshape,
    State,
    Transpose,
    follow,
)
from nvaudit.model.evaluate import NotFolded
from nvaudit.model.fold import Budget, computed, fold, fold_ints, stored_array
from nvaudit.model.layout import Layout, Shape
from nvaudit.model.picks import find_pick, picks
from nvaudit.model.roles import Role, find_role, takes_weights
from nvaudit.model.sparse import ORIGIN_KEY
from nvaudit.model.walk import (
    STANDARD,
    Place,
    attribute,
    bodies,
    captured,
    constant_values,
    graphs,
    is_constant_node,
    places,
)

MAX_CHAIN = 64
FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class Taken:
    """The layout in which an operator takes a weight that it stores in blocks; ``back`` leads there."""

    shape: Shape
    back: Layout


@dataclass(frozen=True)
class End:
    """Where a constant ends up: an operator's input after a chain of steps, or a graph's output.

    ``place`` is None for an output of the graph at ``path``. ``role`` is set where it is a weight; ``steps``
    and ``state`` then lead to the layout that its channels are counted in, which is the one that the operator
    takes unless ``taken`` is set.
    """

    place: Place | None
    path: str
    index: int
    steps: tuple[ChainStep, ...]
    state: State
    role: Role | None
    taken: Taken | None = None


@dataclass
class Root:
    """One constant: an initializer, a Constant node, or a weight computed from these.

    ``origin`` is ``"initializer"``, ``"constant"``, ``"sparse"``, ``"attribute"`` or ``"folded"``;
    ``copies`` are values that compute the same weight again.
    """

    value: ir.Value
    key: str
    path: str
    origin: str
    state: State
    ends: list[End] = field(default_factory=list)
    copies: list[ir.Value] = field(default_factory=list)


@dataclass
class Analysis:
    """Every constant of a model with its ends, in graph order.

    ``refused`` are constant operands of products that are not computed, each with the reason.
    """

    roots: list[Root]
    constant: set[ir.Value]
    opset: int
    refused: dict[ir.Value, str] = field(default_factory=dict)


def analyse(model: ir.Model) -> Analysis:
    """Follow every constant of a model.

    Returns
    -------
    Analysis
        Every initializer and Constant node at any depth, then the weights folded from them.
    """
    finder = _UseFinder(model)
    roots = list(finder.stored())
    roots += finder.folded()
    _name_apart(roots)
    return Analysis(roots, finder.constant, finder.opset, finder.refused)


class _UseFinder:
    """The tables that following a constant needs."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.opset = model.opset_imports.get("", 1)
        self.constant = constant_values(model.graph)
        self.places = {place.node: (number, place) for number, place in enumerate(places(model.graph))}
        self.paths = {id(graph): path for graph, path in graphs(model.graph)}
        self.shapes: dict[ir.Value, Shape | None] = {}
        self.chained: set[ir.Value] = set()
        # A body of a node that is computed as a whole holds no operators of the network.
        self.computed = {
            place.node
            for node in self.places
            if self._is_fixed(node)
            for _, body in bodies(node)
            for place in places(body)
        }
        self.refused: dict[ir.Value, str] = {}

    def is_constant(self, value: ir.Value | None) -> bool:
        return value is not None and value in self.constant

    def ints(self, value: ir.Value) -> Shape | None:
        if value not in self.shapes:
            self.shapes[value] = fold_ints(value, self.opset) if value in self.constant else None
        return self.shapes[value]

    def stored(self) -> Iterator[Root]:
        """Initializers and Constant nodes."""
        for graph, path in graphs(self.model.graph):
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is not None:
                    origin = tensor.metadata_props.get(ORIGIN_KEY, "initializer")
                    yield self._root(value, path, origin, State(tuple(tensor.shape.numpy()), tensor.dtype))
        for _, place in self.places.values():
            if is_constant_node(place.node):
                yield self._constant_node(place)

    def _constant_node(self, place: Place) -> Root:
        value = place.node.outputs[0]
        tensor = attribute(place.node, "value")
        if tensor is not None:
            origin = tensor.metadata_props.get(ORIGIN_KEY, "constant")
            return self._root(value, place.path, origin, State(tuple(tensor.shape.numpy()), tensor.dtype))
        array = stored_array(value)
        if array is None:
            state = State((), ir.DataType.UNDEFINED)
        else:
            dtype = ir.DataType.STRING if array.dtype.kind == "U" else ir.DataType.from_numpy(array.dtype)
            state = State(array.shape, dtype)
        return self._root(value, place.path, "attribute", state)

    def folded(self) -> list[Root]:
        """Constant results of other operators that end up as weights."""
        folded: dict[object, Root] = {}
        budget = Budget()
        for _, place in list(self.places.values()):
            for value in place.node.outputs:
                # What the chain of another constant reaches is that constant, moved or written otherwise.
                if (
                    value not in self.constant
                    or place.node in self.computed
                    or is_constant_node(place.node)
                    or value in self.chained
                    or not self._may_be_weight(value)
                ):
                    continue
                try:
                    array = computed(value, self.opset, budget=budget)
                except NotFolded as error:
                    self.refused[value] = str(error)
                    continue
                state = State(array.shape, ir.DataType.from_numpy(array.dtype))
                root = self._root(value, place.path, "folded", state)
                if not any(end.role for end in root.ends):
                    continue
                # Exporters compute one weight again in every branch that uses it; it is still one array.
                # Equal numbers alone would not say so: two layers may start alike and be two arrays.
                same = (self._sources(value), state, hashlib.sha256(array.tobytes()).digest())
                if same in folded:
                    folded[same].copies.append(value)
                    folded[same].ends += root.ends
                else:
                    folded[same] = root
        return list(folded.values())

    def _sources(self, value: ir.Value) -> frozenset[ir.Value]:
        """The stored tensors that a value gets its numbers from; itself where these are only sizes."""
        # Walked back to what is stored: copies of one weight come from the same tensors, however the graph
        # repeats the arithmetic.
        sources, seen, pending = set(), {value}, [value]
        while pending:
            node = (current := pending.pop()).producer()
            if node is None or is_constant_node(node):
                sources.add(current)
                continue
            fresh = [v for v in (*node.inputs, *captured(node)) if v is not None and v not in seen]
            seen.update(fresh)
            pending += fresh
        return frozenset(v for v in sources if v.dtype in FLOATS) or frozenset({value})

    def _may_be_weight(self, value: ir.Value) -> bool:
        """Whether an operator that knows weights takes the value together with one that is not constant."""
        pending = [value]
        while pending:
            current = pending.pop()
            for use in current.uses():
                if not self._is_fixed(use.node):
                    if takes_weights(use.node) or picks(use.node):
                        return True
                # Only the data input of a step leads on; as a scale or a shape a value is no weight.
                elif use.idx == 0 and _may_keep(use.node, current):
                    pending.append(use.node.outputs[0])
        return False

    def _is_fixed(self, node: ir.Node) -> bool:
        return bool(node.outputs) and node.outputs[0] in self.constant

    def _can_fold(self, *values: ir.Value | None) -> bool:
        """Whether every parameter that is given can be computed."""
        return all(v is None or (v in self.constant and fold(v, self.opset) is not None) for v in values)

    def _root(self, value: ir.Value, path: str, origin: str, state: State) -> Root:
        root = Root(value, value.name or "unnamed", path, origin, state)
        self._follow(value, (), state, root.ends)
        # Uses are kept in the order in which they were made, but the first in the graph must come first.
        root.ends.sort(key=lambda end: -1 if end.place is None else self.places[end.place.node][0])
        return root

    def _follow(self, value: ir.Value, steps: tuple[ChainStep, ...], state: State, ends: list[End]) -> None:
        # An output and an operator may both read it: both are ends.
        if value.is_graph_output():
            ends.append(End(None, self.paths.get(id(value.graph), ""), 0, steps, state, None))
        for use in value.uses():
            if use.node not in self.places:
                continue
            place = self.places[use.node][1]
            after = None
            if self._is_fixed(use.node) and len(steps) < MAX_CHAIN:
                after = follow(use.node, use.idx, state, self.ints)
            if (
                after is not None
                and isinstance(after[0], Quantize)
                and not self._can_fold(after[0].scale, after[0].zero)
            ):
                after = None
            if after is not None:
                step, state_after = after
                self.chained.add(use.node.outputs[0])
                self._follow(use.node.outputs[0], (*steps, step) if step else steps, state_after, ends)
                continue
            role = self._role(place.node, use.idx, state)
            ends.append(_end(place, use.idx, steps, state, role))

    def _role(self, node: ir.Node, index: int, state: State) -> Role | None:
        if node.domain not in STANDARD or not node.outputs or 0 in state.shape or node in self.computed:
            return None
        role = find_role(node, index, state.shape, self.is_constant)
        if role is None and picks(node) and not self._is_fixed(node):
            role = find_pick(node, index, state.shape, self.is_constant, self.ints)
        if role is None:
            return None
        if role.decode is None:
            return role if state.dtype in FLOATS else None
        # An integer weight is a weight only if its grid is known before the model runs: else its codes have
        # no value.
        needed = role.decode if role.unpack is None else role.unpack
        return role if state.dtype.is_integer() and self._can_fold(needed.scale, needed.zero) else None


def _may_keep(node: ir.Node, value: ir.Value) -> bool:
    """Whether an operator may be a step of a chain; Clip only of integers, as it makes other floats."""
    maker = value.producer()
    if node.op_type != "Clip":
        return node.op_type in KEEPING
    if maker is None or maker.op_type == "QuantizeLinear":
        return maker is not None
    return maker.op_type == "Cast" and ir.DataType(attribute(maker, "to", 0)).is_integer()


def _end(place: Place, index: int, steps: tuple[ChainStep, ...], state: State, role: Role | None) -> End:
    if role is not None and role.unpack is not None:
        unpacked = State(role.unpack.shape, state.dtype)
        return End(place, place.path, index, (*steps, role.unpack), unpacked, role)
    if role is None or not role.view:
        return End(place, place.path, index, steps, state, role)
    view = (Transpose(argument) if kind == "transpose" else Reshape(argument) for kind, argument in role.view)
    primary = State(role.view.shape(state.shape), state.dtype)
    taken = Taken(state.shape, role.view.inverse(state.shape))
    return End(place, place.path, index, (*steps, *view), primary, role, taken)


def _name_apart(roots: list[Root]) -> None:
    """Make keys unique: names that graphs inside the model repeat get their path, then a number."""
    count: dict[str, int] = {}
    for root in roots:
        count[root.key] = count.get(root.key, 0) + 1
    taken = {root.key for root in roots if count[root.key] == 1 or not root.path}
    for root in roots:
        if count[root.key] == 1 or not root.path:
            continue
        base = key = f"{root.path}/{root.key}"
        number = 1
        while key in taken:
            number += 1
            key = f"{base}__{number}"
        root.key = key
        taken.add(key)

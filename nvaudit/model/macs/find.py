"""Find every product of a model, how often it is made, and where its weight comes from.

Sizes of values are inferred from those of the inputs, and shown by a run where that does not do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from nvaudit.model.analysis import FLOATS
from nvaudit.model.batch.walk import Shapes, infer_sizes
from nvaudit.model.fold import fold, fold_ints
from nvaudit.model.load import LoadedModel
from nvaudit.model.macs.rules import Sizes, SizesOf, Term, terms
from nvaudit.model.macs.steps import Steps, find_steps
from nvaudit.model.uses import Constant
from nvaudit.model.walk import DROPOUTS, RANDOM, Place, attribute, bodies, constant_values, operand, places

# What moves, picks or decodes numbers without computing with them: a weight behind them is still a weight.
_MOVING = {
    **dict.fromkeys(["Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"], (0,)),
    **dict.fromkeys(["Gather", "GatherElements", "GatherND", "Slice", "Split", "Expand", "Tile"], (0,)),
    **dict.fromkeys(["QuantizeLinear", "DequantizeLinear", "DepthToSpace", "SpaceToDepth", "Pad"], (0,)),
    "Where": (1, 2),
}
_MAX_STEPS = 256


@dataclass(frozen=True)
class ProductCount:
    """The multiply-accumulates of an operator with one of its weights, or of two activations.

    Attributes
    ----------
    name : str
        Of the operator: its own, or operator and position, behind its graph.
    products : int or None
        Multiply-accumulates in one run of the model; None where that cannot be known beforehand.
    constants : tuple of int
        The weight: places in the list of the model's constants; empty for two activations and for a weight
        that is no constant of the graph.
    on_array : tuple of int
        Those of them whose devices the operator reads, if they are mapped.
    weight : str
        Name of the weight, ``""`` for two activations.
    weights : int
        Numbers of the weight.
    obstacle : str
        Why the weight cannot be on the array whatever is mapped; ``""`` where the constant says it.
    """

    name: str
    op: str
    products: int | None
    constants: tuple[int, ...] = ()
    on_array: tuple[int, ...] = ()
    weight: str = ""
    weights: int = 0
    obstacle: str = ""


@dataclass
class Products:
    """The products of a model, and what would have to be known of the main graph to count more of them.

    ``sizes`` are values whose sizes, ``branches`` conditions whose truth. With ``steps`` what else runs was
    looked at too.
    """

    entries: list[ProductCount]
    sizes: set[str]
    branches: set[str]
    steps: Steps | None = None


def find_products(
    loaded: LoadedModel,
    constants: Sequence[Constant],
    inputs: Mapping[str, Sizes],
    seen: Seen | None = None,
    *,
    with_steps: bool = False,
) -> Products:
    """Find every product at any depth.

    Parameters
    ----------
    inputs : mapping of str to tuple of int
        Sizes of the inputs, with the batch.
    with_steps : bool
        Look at everything else that runs too.

    Returns
    -------
    Products
        In graph order.
    """
    finder = _ProductFinder(loaded, constants, known_sizes(loaded.model, inputs, seen or Seen()))
    entries = list(finder.products())
    if not with_steps:
        return Products(entries, finder.missing, finder.open)
    steps = find_steps(loaded.model.graph, finder.sizes.of, finder.runs)
    return Products(entries, finder.missing | steps.missing, finder.open, steps)


class _ProductFinder:
    """The tables that it takes."""

    def __init__(self, loaded: LoadedModel, constants: Sequence[Constant], sizes: KnownSizes) -> None:
        self.graph = loaded.model.graph
        self.opset = loaded.opset
        self.sizes = sizes
        self.constants = constants
        self.constant = constant_values(self.graph)
        self.roots = {value: i for i, one in enumerate(constants) for value in one.values}
        self.readers: dict[int, list[int]] = {}  # by the operator that reads the devices of a weight
        for i, one in enumerate(constants):
            for use in () if one.weight is None else one.weight.uses:
                self.readers.setdefault(id(use.node), []).append(i)
        self.outer = {
            value: (place.node, number, body)
            for place in places(self.graph)
            for _, body in bodies(place.node)
            for number, value in enumerate(body.inputs)
        }
        self.missing: set[str] = set()
        self.open: set[str] = set()
        self.runs: dict[int, int | None] = {id(self.graph): 1}  # of each graph, by its id

    def products(self) -> Iterator[ProductCount]:
        # runs(body) = runs(graph around it) × times that its node runs it. A node comes before those of its
        # bodies, so the factor for a body is there when its nodes are reached.
        runs = self.runs
        for place in places(self.graph):
            own = runs.get(id(place.node.graph))
            for name, body in bodies(place.node):
                times = self._runs(place, name, body)
                runs[id(body)] = _product_of(own, times)
            if place.node.outputs and place.node.outputs[0] in self.constant:
                continue  # worked out once, not in every inference
            for term in terms(place.node, self._sizes_of(place)):
                yield self._product(place, term, _product_of(own, term.products))

    def _sizes_of(self, place: Place) -> SizesOf:
        def sizes_of(value: ir.Value | None) -> Sizes | None:
            sizes = self.sizes.of(value)
            if sizes is None and value is not None and value.name and not place.path:
                self.missing.add(value.name)
            return sizes

        return sizes_of

    def _runs(self, place: Place, name: str, body: ir.Graph) -> int | None:
        """How often a body runs; None for a branch that may be taken, and a loop that ends when it will."""
        node = place.node
        if node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "If":
            condition = operand(node, 0)
            if condition in self.constant and condition is not None:
                fixed = fold(condition, self.opset)
                return None if fixed is None else int(bool(fixed.all()) == (name == "then_branch"))
            # A run can show conditions of the main graph only.
            label = "" if condition is None or place.path else condition.name or ""
            if label not in self.sizes.branches:
                self.open |= {label} - {""}
                return None
            return int(self.sizes.branches[label] == (name == "then_branch"))
        if node.op_type == "Scan":
            # All scanned inputs have as many steps; they are the last ones, so the last one tells.
            scanned = attribute(node, "num_scan_inputs", 0)
            sequence = self.sizes.of(node.inputs[-1]) if node.inputs else None
            axes = attribute(node, "scan_input_axes", None) or (0,)
            axis = axes[-1]
            return sequence[axis] if scanned and sequence and -len(sequence) <= axis < len(sequence) else None
        if node.op_type == "Loop" and len(body.outputs) > 0:
            most = operand(node, 0)
            count = fold_ints(most, self.opset) if most is not None and most in self.constant else None
            kept = body.outputs[0]  # the condition to go on: the one it began with, or a constant
            while (maker := kept.producer()) is not None and maker.op_type == "Identity":
                kept = maker.inputs[0] or kept
            endless = kept in self.constant or (len(body.inputs) > 1 and kept is body.inputs[1])
            return count[0] if count and endless else None
        return None

    def _product(self, place: Place, term: Term, count: int | None) -> ProductCount:
        node = place.node
        name = f"{place.path}/{place.label}" if place.path else place.label
        if term.attribute:
            return ProductCount(
                name, node.op_type, count, weight=f"{name}.{term.attribute}", weights=term.held or 0,
                obstacle=f"{term.attribute} of {node.op_type} '{place.label}' are attributes of the operator",
            )  # fmt: skip
        traces = {index: self._trace(operand(node, index)) for index in term.operands}
        # A constant operand is the weight. Without one it is an operand that is picked from constants, if
        # the other one is not: two rows of an embedding table are activations.
        fixed = [i for i, trace in traces.items() if trace and not trace.path]
        picked = [i for i, trace in traces.items() if trace]
        index = fixed[0] if fixed else picked[0] if len(picked) == 1 else None
        trace = None if index is None else traces[index]
        if trace is None:
            return self._drawn(node, term, count, name) or ProductCount(name, node.op_type, count)
        return self._weighted(place, term, count, name, trace)

    def _drawn(self, node: ir.Node, term: Term, count: int | None, name: str) -> ProductCount | None:
        """A product with a weight that is drawn anew at inference (Bayesian layers: mean + spread · noise).

        Such an operand is no constant, and no activation either: no sample has any influence on it.
        """
        for index in term.operands:
            value = operand(node, index)
            drawing = None if value is None else self._drawing(value)
            if value is None or drawing is None:
                continue
            roots = self._roots(value)
            largest = max(roots, key=lambda i: self.constants[i].size, default=None)
            weight = name if largest is None else self.constants[largest].name
            size = self.sizes.of(value)
            stored = 0 if largest is None else self.constants[largest].size
            return ProductCount(
                name, node.op_type, count, tuple(dict.fromkeys(roots)), (), weight,
                stored if size is None else math.prod(size),
                f"its weight is drawn at random at inference by {drawing.op_type} "
                f"'{drawing.name or drawing.op_type}'",
            )  # fmt: skip
        return None

    def _drawing(self, value: ir.Value) -> ir.Node | None:
        """The random operator in what a value is computed from; None where an input has a part in it."""
        drawing, pending, met = None, [value], {value}
        for _ in range(_MAX_STEPS):
            if not pending:
                return drawing
            current = pending.pop()
            if current in self.constant:
                continue
            node = current.producer()
            # What is fed, handed into a body or made by one may depend on the sample, whatever is drawn
            # beside it.
            if node is None or current in self.outer or any(True for _ in bodies(node)):
                return None
            if node.op_type in RANDOM or node.op_type in DROPOUTS:
                drawing = node
            fresh = [v for v in node.inputs if v is not None and v not in met]
            met.update(fresh)
            pending += fresh
        return None

    def _weighted(
        self, place: Place, term: Term, count: int | None, name: str, trace: _Trace
    ) -> ProductCount:
        """A product with a weight."""
        touched = {id(place.node), *(id(node) for node in trace.path)}
        roots = tuple(dict.fromkeys(root for value in trace.values for root in self._roots(value)))
        # A root's devices are read here only if this node, or one on the way to it, is a use of its weight.
        on_array = tuple(root for root in roots if any(root in self.readers.get(key, ()) for key in touched))
        largest = max(roots, key=lambda i: self.constants[i].size, default=None)
        weight = name if largest is None else self.constants[largest].name
        weights = term.held
        if weights is None:
            each = [self.sizes.of(value) for value in trace.values]
            # Picked from several constants (If, Where), the operand stands for all of them: each is held.
            known = [math.prod(one) for one in each if one is not None]
            stored = 0 if largest is None else self.constants[largest].size
            weights = sum(known) if len(known) == len(each) else stored
        obstacle = ""
        if not on_array and not any(value in self.roots for value in trace.values):
            maker = trace.values[0].producer()
            obstacle = f"its weight is computed from constants by {maker.op_type if maker else 'the graph'}"
        elif not on_array and trace.path:
            picker = trace.path[-1]
            obstacle = (
                f"its weight is picked by {picker.op_type} '{picker.name or picker.op_type}' at run time"
            )
        return ProductCount(
            name, place.node.op_type, count, roots, on_array, weight, weights, obstacle,
        )  # fmt: skip

    def _roots(self, value: ir.Value) -> list[int]:
        """The stored tensors that a constant is computed from; itself where it is one of them."""
        roots, pending, met = [], [value], {value}
        while pending:
            current = pending.pop()
            root = self.roots.get(current)
            if root is not None:
                # Single integers on the way are axes, sizes or places, not numbers of the weight.
                if current is value or current.dtype in FLOATS or self.constants[root].size > 1:
                    roots.append(root)
                if current is value:
                    break
                continue
            node = current.producer()
            fresh = [v for v in (node.inputs if node else ()) if v is not None and v not in met]
            met.update(fresh)
            pending += fresh
        return roots

    def _trace(self, value: ir.Value | None) -> _Trace | None:
        """Follow an operand back to the constants that it is picked from; None for an activation."""
        values: list[ir.Value] = []
        path: list[ir.Node] = []
        pending = [value]
        for _ in range(_MAX_STEPS):
            if not pending:
                return _Trace(tuple(dict.fromkeys(values)), tuple(dict.fromkeys(path)))
            current = pending.pop()
            if current is None:
                return None
            if current in self.constant:
                values.append(current)
                continue
            back = self._back(current)
            if back is None:
                return None
            node, sources = back
            path.append(node)
            pending += sources
        return None

    def _back(self, value: ir.Value) -> tuple[ir.Node, list[ir.Value | None]] | None:
        """One step back, over a node that computes nothing."""
        if value in self.outer:
            return self._into_body(value)
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "If":
            # Whichever branch is taken gives the operand, so each of them must lead to constants.
            place = node.outputs.index(value)
            return node, [body.outputs[place] for _, body in bodies(node) if place < len(body.outputs)]
        taken = _MOVING.get(node.op_type)
        return None if taken is None else (node, [operand(node, index) for index in taken])

    def _into_body(self, value: ir.Value) -> tuple[ir.Node, list[ir.Value | None]] | None:
        """An input of a body: a slice of what a Scan goes over, or a state that no step changes."""
        node, number, body = self.outer[value]
        if node.op_type == "Scan":
            # A Scan's operands and its body's inputs stand in one order: states, then what is scanned.
            states = len(body.inputs) - attribute(node, "num_scan_inputs", 0)
            kept = number >= states or body.outputs[number] is value
        else:  # Loop: iteration number and condition come first, and only the condition goes out again
            kept = number >= 2 and len(body.outputs) > number - 1 and body.outputs[number - 1] is value
        return (node, [operand(node, number)]) if kept else None


def _product_of(runs: int | None, each: int | None) -> int | None:
    """What never runs makes no products, however many they would be."""
    if 0 in (runs, each):
        return 0
    return None if runs is None or each is None else runs * each


@dataclass(frozen=True)
class _Trace:
    """Constants that an operand is, or is picked from by the nodes of the path."""

    values: tuple[ir.Value, ...]
    path: tuple[ir.Node, ...]


@dataclass(frozen=True)
class Seen:
    """What a run has shown of values of the main graph.

    Attributes
    ----------
    branches : dict of str to bool
        Conditions of If.
    """

    sizes: dict[str, Sizes] = field(default_factory=dict)
    branches: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownSizes:
    """Sizes that are known, and the conditions that a run has shown."""

    inferred: Shapes
    branches: Mapping[str, bool]

    def of(self, value: ir.Value | None) -> Sizes | None:
        """Sizes of a value; None where one of them is not known."""
        if value is None:
            return None
        dims = self.inferred.get(value)
        if dims is None and value.const_value is not None:
            return tuple(int(size) for size in value.const_value.shape.numpy())
        if dims is None or any(size is None for size in dims):
            return None
        return tuple(size for size in dims if size is not None)


def known_sizes(model: ir.Model, inputs: Mapping[str, Sizes], seen: Seen) -> KnownSizes:
    """Infer the sizes of every value, in bodies too."""
    known = {**inputs, **seen.sizes}
    shapes = infer_sizes(model, known)
    # Inference forgets the sizes of a value whose type it does not know.
    made = [(value, value.name or "") for node in model.graph for value in node.outputs]
    shapes |= {value: known[name] for value, name in made if name in known}
    return KnownSizes(shapes, seen.branches)

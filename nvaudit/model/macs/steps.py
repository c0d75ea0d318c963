"""What runs beside the array in one inference: every operator with its additions, products and comparisons.

Products with a weight are found by :mod:`nvaudit.model.macs.find`; here is what is left of every operator,
and where its operands come from. A function such as exp counts as a polynomial of degree ``DEGREE``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from nvaudit.model.macs.rules import Sizes, SizesOf
from nvaudit.model.operators import operator_of
from nvaudit.model.walk import Place, attribute, bodies, constant_values, operand, places

DEGREE = 4
"""Of the polynomial that a function of one variable is worked out by, beside the comparison that finds it."""

INPUT = -1
"""The source of what is fed to the model."""

_HOLDERS = ("If", "Loop", "Scan", "SequenceMap")


@dataclass(frozen=True)
class Arithmetic:
    """Operations of one run."""

    adds: float = 0.0
    multiplies: float = 0.0
    compares: float = 0.0

    def times(self, count: float) -> Arithmetic:
        """So many of them."""
        return Arithmetic(count * self.adds, count * self.multiplies, count * self.compares)

    def plus(self, other: Arithmetic) -> Arithmetic:
        """Both."""
        return Arithmetic(
            self.adds + other.adds, self.multiplies + other.multiplies, self.compares + other.compares
        )

    @property
    def total(self) -> float:
        """All operations."""
        return self.adds + self.multiplies + self.compares


@dataclass(frozen=True)
class OperandSource:
    """Where an operand comes from: the step that makes it, or ``INPUT``, and how many numbers it is."""

    step: int
    elements: float | None


@dataclass(frozen=True)
class Step:
    """One operator of the model.

    Attributes
    ----------
    name : str
        As in :class:`nvaudit.model.macs.find.ProductCount`.
    runs : int or None
        How often it runs in one run of the model; None where that cannot be known.
    elements : int or None
        Numbers that it makes in one of these.
    arithmetic : Arithmetic or None
        Of one of these, products with weights apart; None where the operator, or a size, is not known.
    moves : bool
        Whether it only hands numbers on.
    sources : tuple of OperandSource
        Of its operands that are no constants.
    """

    name: str
    op: str
    runs: int | None
    elements: int | None
    arithmetic: Arithmetic | None
    moves: bool
    sources: tuple[OperandSource, ...]


@dataclass(frozen=True)
class Steps:
    """All of them in graph order, those whose results the model returns, and sizes that would tell more."""

    steps: tuple[Step, ...]
    results: tuple[OperandSource, ...]
    missing: frozenset[str]


_NOTHING = Arithmetic()
_COMPARE = Arithmetic(compares=1)
_ADD = Arithmetic(adds=1)
_MULTIPLY = Arithmetic(multiplies=1)
_FUNCTION = Arithmetic(DEGREE, DEGREE, 1)
_MEAN_AND_SPREAD = Arithmetic(4, 3)  # add, square and add up; subtract, scale and shift

_EACH: dict[str, Arithmetic] = {
    **dict.fromkeys(["Relu", "Abs", "Neg", "Sign", "Not", "And", "Or", "Xor", "Where", "Equal"], _COMPARE),
    **dict.fromkeys(["Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "IsInf"], _COMPARE),
    **dict.fromkeys(["Floor", "Ceil", "Round", "BitwiseAnd", "BitwiseOr", "BitwiseNot"], _COMPARE),
    **dict.fromkeys(["Add", "Sub", "BiasAdd", "CumSum", "Mod"], _ADD),
    **dict.fromkeys(["Mul", "Scale", "Scaler"], _MULTIPLY),
    "Div": _FUNCTION,
    "Clip": Arithmetic(compares=2),
    **dict.fromkeys(["LeakyRelu", "PRelu", "ThresholdedRelu"], Arithmetic(multiplies=1, compares=1)),
    "HardSigmoid": Arithmetic(1, 1, 2),
    "HardSwish": Arithmetic(1, 2, 2),
    **dict.fromkeys(["Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Reciprocal", "Erf", "Softplus"], _FUNCTION),
    **dict.fromkeys(["Softsign", "Elu", "Selu", "Celu", "Pow", "Sin", "Cos", "Tan", "Atan"], _FUNCTION),
    **dict.fromkeys(["Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Mish", "Swish", "Silu"],
                    _FUNCTION.plus(Arithmetic(1, 1))),
    **dict.fromkeys(["Softmax", "LogSoftmax"], _FUNCTION.plus(Arithmetic(2, 1, 1))),
    "BatchNormalization": Arithmetic(1, 1),
    **dict.fromkeys(["LayerNormalization", "InstanceNormalization", "GroupNormalization"], _MEAN_AND_SPREAD),
    **dict.fromkeys(["RMSNormalization", "SimplifiedLayerNormalization", "LpNormalization"],
                    Arithmetic(1, 3)),
    **dict.fromkeys(["SkipLayerNormalization"], _MEAN_AND_SPREAD.plus(_ADD)),
    **dict.fromkeys(["SkipSimplifiedLayerNormalization"], Arithmetic(2, 3)),
    "MeanVarianceNormalization": _MEAN_AND_SPREAD,
    "QuantizeLinear": Arithmetic(1, 1, 2),
    "DequantizeLinear": Arithmetic(1, 1),
    "DynamicQuantizeLinear": Arithmetic(1, 1, 4),
    **dict.fromkeys(["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"], _FUNCTION),
    **dict.fromkeys(["QLinearAdd"], Arithmetic(3, 3, 2)),
    **dict.fromkeys(["QLinearMul"], Arithmetic(3, 4, 2)),
    **dict.fromkeys(["QLinearSigmoid", "QLinearLeakyRelu"], _COMPARE),  # a table of 256 entries
}  # fmt: skip
"""For each number that is made."""

_REDUCTIONS: dict[str, Arithmetic] = {
    **dict.fromkeys(["ReduceSum", "ReduceMean", "GlobalAveragePool", "QLinearGlobalAveragePool"], _ADD),
    **dict.fromkeys(["ReduceMax", "ReduceMin", "ArgMax", "ArgMin", "GlobalMaxPool", "TopK"], _COMPARE),
    **dict.fromkeys(["Hardmax", "NonZero"], _COMPARE),
    **dict.fromkeys(["ReduceL2", "ReduceSumSquare", "GlobalLpPool"], Arithmetic(1, 1)),
    **dict.fromkeys(["ReduceL1"], Arithmetic(1, 0, 1)),
    **dict.fromkeys(["ReduceProd"], _MULTIPLY),
    **dict.fromkeys(["ReduceLogSumExp", "ReduceLogSum"], _FUNCTION.plus(_ADD)),
}
"""For each number that goes in."""

_MOVES = frozenset(
    """Identity Cast CastLike Reshape Flatten Squeeze Unsqueeze Transpose Concat Slice Split Gather
    GatherElements GatherND ScatterElements ScatterND Expand Tile Pad DepthToSpace SpaceToDepth Dropout
    Shape Size Constant ConstantOfShape Range OneHot ReverseSequence Compress EyeLike ZipMap Trilu Unique
    Bernoulli SequenceAt SequenceConstruct SequenceEmpty SequenceInsert SplitToSequence
    ConcatFromSequence FeatureVectorizer ArrayFeatureExtractor DynamicSlice""".split()  # noqa: SIM905 -- a list of words
)


def find_steps(
    graph: ir.Graph,
    sizes: Callable[[ir.Value | None], Sizes | None],
    runs: Mapping[int, int | None],
) -> Steps:
    """List what runs in one inference.

    Parameters
    ----------
    sizes : callable
        Sizes of a value; None where they are not known.
    runs : mapping
        How often each graph runs, by its ``id``.
    """
    return _Walk(graph, sizes, runs).steps()


class _Walk:
    """The tables that it takes."""

    def __init__(self, graph: ir.Graph, sizes: SizesOf, runs: Mapping[int, int | None]) -> None:
        self.graph, self.known, self.runs = graph, sizes, runs
        self.missing: set[str] = set()
        constant = constant_values(graph)
        self.nodes = [
            place for place in places(graph) if not (place.node.outputs and place.node.outputs[0] in constant)
        ]
        self.constant = constant
        self.maker = {
            value: number for number, place in enumerate(self.nodes) for value in place.node.outputs
        }
        # What stands for a value of another graph: an input of a body for what is handed to it, an output
        # of the operator that holds bodies for what these return.
        self.stands: dict[ir.Value, list[ir.Value | None]] = {}
        for place in self.nodes:
            self._enter_bodies(place.node)

    def _enter_bodies(self, node: ir.Node) -> None:
        skipped = 1 if node.op_type == "Loop" else 0  # the condition is no output of the operator
        for _, body in bodies(node):
            for number, value in enumerate(body.inputs):
                self.stands[value] = [operand(node, number)]
            for number, value in enumerate(node.outputs):
                if number + skipped < len(body.outputs):
                    self.stands.setdefault(value, []).append(body.outputs[number + skipped])

    def steps(self) -> Steps:
        made = tuple(self._step(place) for place in self.nodes)
        results = tuple(source for value in self.graph.outputs for source in self._sources(value, set()))
        return Steps(made, results, frozenset(self.missing))

    def _sizes_in(self, place: Place) -> SizesOf:
        def sizes_of(value: ir.Value | None) -> Sizes | None:
            sizes = self.known(value)
            if sizes is None and value is not None and value.name and not place.path:
                self.missing.add(value.name)
            return sizes

        return sizes_of

    def _step(self, place: Place) -> Step:
        node, sizes_of = place.node, self._sizes_in(place)
        holds = node.op_type in _HOLDERS
        moves = node.op_type in _MOVES or holds
        elements = None if holds or not node.outputs else _count(sizes_of(node.outputs[0]))
        arithmetic = _NOTHING if moves else _arithmetic(node, elements, sizes_of)
        return Step(
            name=f"{place.path}/{place.label}" if place.path else place.label,
            op=node.op_type,
            runs=self.runs.get(id(node.graph)),
            elements=elements,
            arithmetic=arithmetic,
            moves=moves,
            sources=tuple(
                source
                for value in node.inputs
                if value is not None and value not in self.constant
                for source in self._sources(value, set())
            ),
        )

    def _sources(self, value: ir.Value, met: set[ir.Value]) -> Iterator[OperandSource]:
        """The steps that a value comes from; a state of a loop that comes from itself counts once."""
        if value in met or value in self.constant:
            return
        met.add(value)
        if value in self.stands:
            for other in self.stands[value]:
                if other is not None:
                    yield from self._sources(other, met)
            return
        step = self.maker.get(value, INPUT)
        if step == INPUT and value not in self.graph.inputs:
            return
        sizes = self.known(value)
        yield OperandSource(step, None if sizes is None else float(math.prod(sizes)))


def _count(sizes: Sizes | None) -> int | None:
    return None if sizes is None else math.prod(sizes)


def _arithmetic(node: ir.Node, elements: int | None, sizes_of: SizesOf) -> Arithmetic | None:
    """Operations of one run; None where the operator or a size is not known."""
    operator = operator_of(node)
    if operator is not None and operator.family == "recurrent":
        return _gates(node, sizes_of)
    if operator is not None and operator.family != "normalisation":
        bias = operator.bias is not None and operand(node, operator.bias) is not None
        if node.op_type in ("Attention", "PackedAttention", "LongformerAttention", "DecoderAttention"):
            return None  # its softmax has sizes that no value shows
        return _scaled(_ADD if bias else _NOTHING, elements)
    if node.op_type in _REDUCTIONS:
        taken = _count(sizes_of(operand(node, 0)))
        return _scaled(_REDUCTIONS[node.op_type], taken)
    if node.op_type in ("MaxPool", "AveragePool", "LpPool", "MaxRoiPool", "QLinearAveragePool"):
        kernel = math.prod(attribute(node, "kernel_shape", ()) or (0,))
        each = Arithmetic(compares=kernel - 1) if node.op_type == "MaxPool" else Arithmetic(kernel - 1, 1)
        return _scaled(each, elements) if kernel else None
    if node.op_type in ("Max", "Min", "Sum", "Mean"):
        several = len(node.inputs) - 1
        each = Arithmetic(compares=several) if node.op_type in ("Max", "Min") else Arithmetic(several)
        return _scaled(each.plus(_MULTIPLY) if node.op_type == "Mean" else each, elements)
    if node.op_type == "LRN":
        window = attribute(node, "size", 1)
        return _scaled(_FUNCTION.plus(Arithmetic(window, window + 1)), elements)
    if node.op_type in ("Resize", "Upsample"):
        linear = attribute(node, "mode", "nearest") != "nearest"
        return _scaled(Arithmetic(3, 4) if linear else _NOTHING, elements)
    each_one = _EACH.get(node.op_type)
    return None if each_one is None else _scaled(each_one, elements)


def _scaled(each: Arithmetic, count: int | None) -> Arithmetic | None:
    if not each.total:
        return _NOTHING
    return None if count is None else each.times(count)


def _gates(node: ir.Node, sizes_of: SizesOf) -> Arithmetic | None:
    """What a recurrent operator does beside its products, for every step, direction and hidden number."""
    sequence, states = sizes_of(operand(node, 0)), sizes_of(operand(node, 2))
    if sequence is None or states is None or len(sequence) != 3 or len(states) != 3:
        return None
    count = sequence[0] * sequence[1] * states[0] * states[2]
    each = {
        # i, o, f by a logistic function and c by tanh, from sums of W x, R h and their biases; then
        # C = f C + i c and H = o tanh C.
        "LSTM": _FUNCTION.times(5).plus(Arithmetic(4 * 3 + 1, 3)),
        # z, r and h likewise; H = (1 − z) h + z H, and r times the state.
        "GRU": _FUNCTION.times(3).plus(Arithmetic(3 * 3 + 2, 3)),
    }.get(node.op_type, _FUNCTION.plus(Arithmetic(3)))
    return each.times(count)

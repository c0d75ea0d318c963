"""What the outputs of a model hold, as far as its graph proves it: scores or decisions, and the class axis.

Traced backwards from an output through operators that keep its elements what they are. What is not proved
here is not known: nothing is guessed from sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from nvaudit.model.load import LoadedModel, TensorSpec
from nvaudit.model.operators import CONVOLUTIONS, MATRIX_PRODUCTS, Operator, operator_of
from nvaudit.model.tensors import read_tensor
from nvaudit.model.walk import attribute, constant_values, operand

MAX_DEPTH = 200

_KINDS = {"sequence": "a sequence", "map": "a dictionary", "optional": "an optional value", "string": "text"}

_SAME = frozenset((
    "Identity", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice",
    "Split", "Expand", "Tile",
))  # fmt: skip
_COMPARED = frozenset((
    "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or", "Xor", "IsNaN",
    "IsInf",
))  # fmt: skip
_ARITHMETIC = frozenset(("Add", "Sub", "Mul", "Div", "Max", "Min", "Mod", "Pow"))
_CLASSIFIERS = frozenset(("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"))
_QUANTISED = frozenset((
    "QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv",
    "QLinearMatMul", "QGemm", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearSoftmax",
    "QLinearLeakyRelu", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearConcat",
    "QLinearWhere", "QLinearReduceMean",
))  # fmt: skip
_ELEMENTWISE = frozenset((
    "Identity", "Cast", "CastLike", "Dropout", "Relu", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid",
    "HardSwish", "Tanh", "Elu", "Selu", "Gelu", "Celu", "Softplus", "Softsign", "Clip", "Neg", "Exp",
    "Log", "Sqrt", "Abs", "Round", "Floor", "Ceil", "Erf", "Mish", "ThresholdedRelu",
    "BatchNormalization", "InstanceNormalization", "QuantizeLinear", "DequantizeLinear",
    "QLinearSigmoid", "QLinearLeakyRelu",
))  # fmt: skip
_SPATIAL = frozenset((
    "Resize", "Upsample", "Pad", "AveragePool", "MaxPool", "LpPool", "GlobalAveragePool",
    "GlobalMaxPool", "DepthToSpace", "QLinearAveragePool", "QLinearGlobalAveragePool",
))  # fmt: skip
_COUNTED = frozenset(["NonMaxSuppression", "NonZero", "Unique", "Compress", "StringSplit"])


@dataclass(frozen=True)
class OutputFacts:
    """What the graph proves of one output.

    Attributes
    ----------
    decisions : bool
        It holds class numbers (ArgMax, indices of TopK, comparisons, integers that are no quantised
        numbers), not scores.
    one_hot_axis : int or None
        Of decisions: the axis along which the class that was decided has another number than the others
        (OneHot, Hardmax).
    ranked_axis : int or None
        Of decisions: the axis along which the classes are ranked, best first (indices of TopK).
    class_axis : int or None
        Axis of the class scores or channels; counted from the end where negative.
    scores : bool
        Along that axis lie scores of classes: a softmax, or the outputs of a dense layer.
    ranked : bool
        It holds the largest scores in order (values of TopK): which class each belongs to is not in it.
    """

    decisions: bool = False
    ranked_axis: int | None = None
    class_axis: int | None = None
    scores: bool = False
    ranked: bool = False
    one_hot_axis: int | None = None


@dataclass(frozen=True)
class _ChannelAxis:
    """An axis of classes or channels: where it is, whether it holds class scores, its size where known."""

    axis: int
    scores: bool
    size: int | None = None


def output_facts(loaded: LoadedModel, name: str, rank: int) -> OutputFacts:
    """Find what the graph proves of an output.

    Parameters
    ----------
    name : str
        Of a tensor among its outputs.
    rank : int
        How many dimensions it has, as measured.
    """
    value = next((v for v in loaded.model.graph.outputs if v.name == name), None)
    if value is None:
        return OutputFacts()
    zipped = _zip_map(loaded, name)
    if zipped is not None:
        value = operand(zipped, 0)
        return _facts(value, "float32", rank, loaded)
    spec = next((one for one in loaded.outputs if one.name == name), None)
    return _facts(value, "float32" if spec is None else spec.dtype, rank, loaded)


def _facts(value: ir.Value | None, dtype: str, rank: int, loaded: LoadedModel) -> OutputFacts:
    if value is None:
        return OutputFacts()
    fixed = constant_values(loaded.model.graph)
    # Asked first: a one-hot of an integer type would pass for class numbers below.
    one_hot = _one_hot_axis(value, rank, fixed, loaded.opset)
    if one_hot is not None:
        return OutputFacts(decisions=True, one_hot_axis=one_hot)
    ranked = _ranked(value)
    if _is_decision(value, fixed) or (_whole(dtype) and not _is_number(value, dtype, rank)):
        axis = attribute(ranked[0], "axis", -1) if ranked is not None and ranked[1] == 1 else None
        return OutputFacts(decisions=True, ranked_axis=axis)
    if ranked is not None and ranked[1] == 0:
        return OutputFacts(ranked=True)
    place = _find_axis(value, rank, fixed, loaded.opset)
    if place is None:
        return OutputFacts()
    return OutputFacts(class_axis=place.axis, scores=place.scores)


def _one_hot_axis(value: ir.Value | None, rank: int, fixed: set[ir.Value], opset: int) -> int | None:
    """The axis of a 1 for the class that the model decided on, where that is all an output holds."""
    node = _through(value, _SAME)
    if node is None or node.op_type not in ("OneHot", "Hardmax"):
        return None
    if node.op_type == "OneHot":
        index, values = operand(node, 0), operand(node, 2)
        if not _is_decision(index, fixed) or values is None or not _rises(values):
            return None
    place = _find_axis(value, rank, fixed, opset)
    return None if place is None else place.axis % rank


def _rises(values: ir.Value) -> bool:
    """Whether the class has the larger of OneHot's two numbers, [off, on]."""
    tensor, node = values.const_value, values.producer()
    if tensor is None and node is not None and node.op_type == "Constant":
        tensor = attribute(node, "value")
    if tensor is None:
        return False
    off, on = read_tensor(tensor).reshape(-1).tolist()
    return bool(on > off)


def cannot_be_scored(loaded: LoadedModel, spec: TensorSpec) -> str | None:
    """Say what an output is that no metric can read; None for numbers."""
    return None if zipped_classes(loaded, spec.name) else _KINDS.get(spec.dtype)


def zipped_classes(loaded: LoadedModel, name: str) -> tuple[int | str, ...]:
    """Classes of an output that is a dictionary of scores for each sample (ZipMap), in order; else none."""
    node = _zip_map(loaded, name)
    if node is None:
        return ()
    labels = attribute(node, "classlabels_int64s") or attribute(node, "classlabels_strings") or ()
    return tuple(one.decode() if isinstance(one, bytes) else one for one in labels)


def _zip_map(loaded: LoadedModel, name: str) -> ir.Node | None:
    value = next((v for v in loaded.model.graph.outputs if v.name == name), None)
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == "ZipMap" else None


def scoreable_outputs(loaded: LoadedModel) -> tuple[str, ...]:
    """Outputs that are numeric tensors, and of one size as far as the graph tells."""
    values = {value.name: value for value in loaded.model.graph.outputs}
    return tuple(
        spec.name
        for spec in loaded.outputs
        if cannot_be_scored(loaded, spec) is None and not _counts(values.get(spec.name))
    )


def scores_beside_label(loaded: LoadedModel) -> str | None:
    """Of a classifier whose first output is its label: the output with the scores.

    Returns
    -------
    str or None
        The only floating-point output [N, C] beside labels [N] (numbers or text); of several the one whose
        name says so. None where the first output is no label, or none of the others is sure to be it.
    """
    first, *others = loaded.outputs
    if not others or (first.shape is not None and len([n for n in first.shape[1:] if n != 1]) > 0):
        return None
    value = loaded.model.graph.outputs[0]
    text = first.dtype == "string"
    if not text and not (_whole(first.dtype) and _is_decision(value, constant_values(loaded.model.graph))):
        return None
    usable = set(scoreable_outputs(loaded))
    floats = [
        one.name for one in others
        if one.name in usable
        and (_zip_map(loaded, one.name) is not None or one.dtype.startswith(("float", "bfloat")))
        and (one.shape is None or (len(one.shape) == 2 and one.shape[1] != 1))
    ]  # fmt: skip
    named = [name for name in floats if any(word in name.lower() for word in ("prob", "score", "logit"))]
    for choice in (floats, named):
        if len(choice) == 1:
            return choice[0]
    return None


def _whole(dtype: str) -> bool:
    return dtype.startswith(("int", "uint", "bool"))


def _is_number(value: ir.Value, dtype: str, rank: int) -> bool:
    """Whether an integer output holds quantised numbers, or the pixels of an image, instead of labels."""
    node = _through(value, _SAME)
    if node is not None and node.op_type in _QUANTISED:
        return True
    sizes = None if value.shape is None else list(value.shape)
    return dtype == "uint8" and rank == 4 and sizes is not None and (sizes[1] == 3 or sizes[3] == 3)


def _through(value: ir.Value | None, operators: frozenset[str]) -> ir.Node | None:
    """The producer of a value, seen through some operators."""
    for _ in range(MAX_DEPTH):
        node = None if value is None else value.producer()
        if node is None or node.op_type not in operators:
            return node
        value = operand(node, 0)
    return None


def _ranked(value: ir.Value | None) -> tuple[ir.Node, int] | None:
    """The TopK that a value comes from as it is, and which of its outputs."""
    for _ in range(MAX_DEPTH):
        node = None if value is None else value.producer()
        if value is None or node is None:
            return None
        if node.op_type == "TopK":
            return node, value.index() or 0
        if node.op_type not in ("Identity", "Cast"):
            return None
        value = operand(node, 0)
    return None


def _is_decision(value: ir.Value | None, fixed: set[ir.Value], depth: int = 0) -> bool:
    """Whether a value is made of class numbers: decided, then at most cast, moved, renumbered."""
    node = None if value is None or depth > MAX_DEPTH else value.producer()
    if value is None or node is None:
        return False
    op, inputs = node.op_type, [v for v in node.inputs if v is not None]
    if op in ("ArgMax", "ArgMin", "LabelEncoder") or op in _COMPARED:
        return True
    if op == "TopK":
        return value.index() == 1
    if op in _CLASSIFIERS:
        return value.index() == 0
    if op in _SAME:
        return _is_decision(operand(node, 0), fixed, depth + 1)
    if op in ("Gather", "ArrayFeatureExtractor"):  # a table of the classes' own numbers, or some decisions
        table, index = operand(node, 0), operand(node, 1)
        return _is_decision(index if table in fixed else table, fixed, depth + 1)
    if op in _ARITHMETIC or op in ("Where", "Concat"):
        # Constants renumber classes (argmax + 1); any other operand has to be a decision itself.
        rest = [v for v in inputs if v not in fixed]
        return bool(rest) and all(_is_decision(v, fixed, depth + 1) for v in rest)
    return False


def _counts(value: ir.Value | None, depth: int = 0) -> bool:
    """Whether a value has as many rows as something was found in the sample (boxes that were kept)."""
    node = None if value is None or depth > MAX_DEPTH else value.producer()
    if node is None:
        return False
    if node.op_type in _COUNTED:
        return True
    if node.op_type in _SAME or node.op_type in ("Gather", "GatherND", "Concat", *_ARITHMETIC):
        return any(_counts(v, depth + 1) for v in node.inputs)
    return False


def _find_axis(
    value: ir.Value | None, rank: int, fixed: set[ir.Value], opset: int, depth: int = 0
) -> _ChannelAxis | None:
    node = None if value is None or depth > MAX_DEPTH else value.producer()
    if node is None:
        return None

    def before(index: int = 0, size: int = rank) -> _ChannelAxis | None:
        return _find_axis(operand(node, index), size, fixed, opset, depth + 1)

    op = node.op_type
    if op in ("Softmax", "LogSoftmax", "Hardmax", "OneHot"):
        return _softmax_axis(node, rank, opset)
    operator = operator_of(node)
    if operator is not None and operator.family in CONVOLUTIONS:
        last = op.startswith("Nhwc") or attribute(node, "channels_last", 0)
        return None if last else _ChannelAxis(1, False, _channels(node, operator))
    if operator is not None and operator.family in (*MATRIX_PRODUCTS, "packed"):
        # Columns of a product of two activations (attention) are positions or features, not proved to be
        # classes.
        weight = operand(node, operator.weights[-1])
        return _ChannelAxis(-1, True, _columns(node, weight)) if weight in fixed else None
    if op in _ELEMENTWISE:
        return before()
    if op in _SPATIAL:
        place = before()
        return place if place is not None and place.axis == 1 else None
    if op in _ARITHMETIC:
        rest = [i for i, v in enumerate(node.inputs) if v is not None and v not in fixed]
        return _agreed([before(i) for i in rest], rank)
    if op == "Concat":
        place = _agreed([before(i) for i in range(len(node.inputs))], rank)
        # Joined along the class axis, classes of several heads stand side by side: no one set of scores.
        joined = attribute(node, "axis", 0) % rank
        return None if place is None or place.axis % rank == joined else place
    return _moved(node, rank, before)


def _softmax_axis(node: ir.Node, rank: int, opset: int) -> _ChannelAxis | None:
    if node.op_type == "OneHot":
        return _ChannelAxis(attribute(node, "axis", -1) % rank, True)
    # Before operator set 13 a softmax runs over all axes from its own on, not over one.
    axis = attribute(node, "axis", -1 if opset >= 13 else 1)
    axis %= max(rank, 1)
    return _ChannelAxis(axis, True) if opset >= 13 or axis == rank - 1 else None


def _agreed(places: list[_ChannelAxis | None], rank: int) -> _ChannelAxis | None:
    # One operand of unknown axes may have its classes elsewhere: all must be known, and agree.
    known = [one for one in places if one is not None]
    if not known or len(known) < len(places) or len({one.axis % rank for one in known}) > 1:
        return None
    return _ChannelAxis(known[0].axis, all(one.scores for one in known), known[0].size)


def _moved(node: ir.Node, rank: int, before: Callable[..., _ChannelAxis | None]) -> _ChannelAxis | None:
    """Follow the axis through a change of shape."""
    op = node.op_type
    if op == "Transpose":
        place, perm = before(), attribute(node, "perm", tuple(reversed(range(rank))))
        if place is None or len(perm) != rank:
            return None
        # Axis i of the result is axis perm[i] of the source.
        return _ChannelAxis(list(perm).index(place.axis % rank), place.scores, place.size)
    if op in ("Squeeze", "Unsqueeze"):
        return _inserted(node, rank, before)
    if op == "Reshape":
        return _reshaped(node, rank, before)
    return None


def _inserted(node: ir.Node, rank: int, before: Callable[..., _ChannelAxis | None]) -> _ChannelAxis | None:
    axes = attribute(node, "axes") or _numbers(operand(node, 1))
    if not axes:
        return None
    squeezed = node.op_type == "Squeeze"
    # Listed axes count in the longer of the two shapes.
    longer = rank + len(axes) if squeezed else rank
    place = before(0, longer if squeezed else rank - len(axes))
    gone = {axis % longer for axis in axes}
    kept = [axis for axis in range(longer) if axis not in gone]
    if place is None:
        return None
    if not squeezed:
        return _ChannelAxis(kept[place.axis % len(kept)], place.scores, place.size)
    axis = place.axis % longer
    return _ChannelAxis(kept.index(axis), place.scores, place.size) if axis in kept else None


def _reshaped(node: ir.Node, rank: int, before: Callable[..., _ChannelAxis | None]) -> _ChannelAxis | None:
    """A reshape that leaves the last axis alone, or joins what follows the channels."""
    source = operand(node, 0)
    shape = None if source is None or source.shape is None else list(source.shape)
    sizes = _sizes(node, rank)
    producer = None if source is None else source.producer()
    made = None if producer is None else operator_of(producer)
    length = len(shape) if shape is not None else 2 if made is not None and made.family == "Gemm" else 3
    place = before(0, length)
    if place is None or sizes is None or place.size is None:
        return None
    # Row-major: flat index = (the rest) · C + c, so a last size that stays C keeps c however the rest is cut.
    if place.axis % length == length - 1 and sizes[-1] == place.size:
        return _ChannelAxis(-1, place.scores, place.size)
    if place.axis % length == 1 and rank > 2 and sizes[1] in (0, place.size):
        return _ChannelAxis(1, False, place.size)
    return None


def _sizes(node: ir.Node, rank: int) -> list[int | None] | None:
    """Sizes after a reshape, as far as they are known."""
    wanted = attribute(node, "shape") or _numbers(operand(node, 1))
    if wanted is not None:
        return list(wanted) if len(wanted) == rank else None
    after = node.outputs[0].shape
    if after is None or len(after) != rank:
        return None
    return [size if isinstance(size, int) else None for size in after]


def _numbers(value: ir.Value | None) -> tuple[int, ...] | None:
    """The integers of a constant."""
    if value is None:
        return None
    tensor = value.const_value
    node = value.producer()
    if tensor is None and node is not None and node.op_type == "Constant":
        tensor = attribute(node, "value")
        if tensor is None:
            return tuple(attribute(node, "value_ints", ())) or None
    return None if tensor is None else tuple(int(i) for i in read_tensor(tensor).reshape(-1))


def _channels(node: ir.Node, operator: Operator) -> int | None:
    weight = operand(node, operator.weights[0])
    shape = None if weight is None else weight.shape
    if shape is None or len(shape) < 2:
        return None
    # W of Conv is [C_out, C_in / groups, ...], that of ConvTranspose [C_in, C_out / groups, ...].
    transposed = operator.family == "transposed convolution"
    size = shape[1] if transposed else shape[0]
    if transposed and isinstance(size, int):
        size *= attribute(node, "group", 1)
    return size if isinstance(size, int) else None


def _columns(node: ir.Node, weight: ir.Value | None) -> int | None:
    if node.op_type == "MatMulNBits":
        return int(attribute(node, "N", 0)) or None
    shape = None if weight is None else weight.shape
    if shape is None or len(shape) == 0:
        return None
    size = shape[0] if attribute(node, "transB", 0) else shape[len(shape) - 1]
    return size if isinstance(size, int) else None

"""Every constant of a model: which are weights on the array, and why the others are not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import onnx_ir as ir

from nvaudit.model.analysis import FLOATS, Analysis, End, Root, analyse
from nvaudit.model.attributes import Coefficients, listed_coefficients
from nvaudit.model.cause import graph_errors
from nvaudit.model.load import LoadedModel
from nvaudit.model.operators import MATRIX_PRODUCTS, Operator, operator_of
from nvaudit.model.roles import takes_weights
from nvaudit.model.walk import Place, bodies, captured, operand, places
from nvaudit.model.weights import Weight, choose, dtype_name, make_weight


@dataclass(frozen=True)
class Constant:
    """One stored tensor of a model, and what becomes of it.

    Attributes
    ----------
    name : str
        Its name, unique as ``Weight.key`` is.
    path : str
        The graph it is in, ``""`` for the main one.
    size : int
        Number of elements; of a weight, as its operator multiplies by them (several may share a byte).
    origin : str
        ``"initializer"``, ``"constant"`` (a Constant node), ``"attribute"`` (plain numbers of a
        node), ``"sparse"``, or ``"folded"`` (a weight computed from other constants).
    uses : tuple of str
        Operators that consume it, in graph order, each once.
    weight : Weight or None
        The array that it makes.
    reason : str
        Why it stays digital; for a weight, which uses do.
    values : tuple of onnx_ir.Value
        Where it stands in the graph; several where the graph computes one weight again.
    """

    name: str
    path: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    origin: str
    uses: tuple[str, ...]
    weight: Weight | None
    reason: str
    values: tuple[ir.Value, ...] = field(default=(), repr=False, compare=False)


def constants(loaded: LoadedModel) -> list[Constant]:
    """List every constant of a model.

    Returns
    -------
    list of Constant
        Every initializer and Constant node at any depth in graph order, then the weights that are
        computed from several of them, then numbers in attributes of operators of ai.onnx.ml.

    Raises
    ------
    ModelError
        If the graph cannot be analysed.
    """
    with graph_errors(loaded.path):
        analysis = analyse(loaded.model)
        folded = folding_nodes(analysis)
        stored = [_constant(root, analysis, folded, str(loaded.path)) for root in analysis.roots]
        return [*stored, *(_listed(held) for held in listed_coefficients(loaded.model.graph))]


def folding_nodes(analysis: Analysis) -> dict[ir.Node, str]:
    """Find the nodes whose result becomes part of a computed weight.

    Returns
    -------
    dict of onnx_ir.Node to str
        Each with what becomes of its result, in words; weights that are computed come before operands that
        could not be.
    """
    nodes: dict[ir.Node, str] = {}
    for root in analysis.roots:
        if root.origin == "folded":
            _mark((root.value, *root.copies), f"computed into the weight {root.key!r}", nodes)
    for value, reason in analysis.refused.items():
        text = f"would be computed into {value.name!r}, but {reason}: stays digital; taken"
        _mark((value,), text, nodes)
    return nodes


def _mark(values: tuple[ir.Value, ...], text: str, nodes: dict[ir.Node, str]) -> None:
    pending = list(values)
    while pending:
        node = pending.pop().producer()
        if node is not None and node not in nodes:
            nodes[node] = text
            nodes |= {place.node: text for _, body in bodies(node) for place in places(body)}
            pending += [*(value for value in node.inputs if value is not None), *captured(node)]


def _constant(root: Root, analysis: Analysis, folded: dict[ir.Node, str], path: str) -> Constant:
    choice = choose(root)
    uses = dict.fromkeys(end.place.node.op_type if end.place else "output" for end in root.ends)
    weight = make_weight(root, choice, analysis, path) if choice.mapped else None
    reason = explain(root, analysis, choice.digital, folded)
    if choice.mapped and reason:
        reason = f"the array serves the weight uses only; digital as {reason}"
    return Constant(
        name=root.key,
        path=root.path,
        dtype=dtype_name(root.state.dtype),
        shape=root.state.shape,
        size=math.prod(root.state.shape if weight is None else weight.shape),
        origin=root.origin,
        uses=tuple(uses),
        weight=weight,
        reason=reason,
        values=(root.value, *root.copies),
    )


def _listed(held: Coefficients) -> Constant:
    return Constant(
        name=held.name,
        path=held.path,
        dtype="float32",
        shape=(held.size,),
        size=held.size,
        origin="attribute",
        uses=(held.op,),
        weight=None,
        reason=held.reason,
    )


_ARITHMETIC = frozenset(
    ["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mod", "Where", "PRelu", "Sum", "Mean"]
)
_OPERANDS: dict[tuple[str, int], str] = {
    ("Reshape", 1): "shape operand",
    ("Expand", 1): "shape operand",
    ("Tile", 1): "repeats",
    ("ConstantOfShape", 0): "shape operand",
    ("Pad", 1): "pad widths",
    ("Pad", 2): "pad value",
    ("Clip", 1): "lower limit",
    ("Clip", 2): "upper limit",
    ("Split", 1): "split sizes",
    ("Gather", 1): "indices",
    ("If", 0): "condition",
    ("Loop", 0): "trip count",
    ("Loop", 1): "condition",
    ("OneHot", 1): "depth",
    ("OneHot", 2): "values",
    ("TopK", 1): "count",
    ("Resize", 1): "region",
    ("Resize", 2): "scales",
    ("Resize", 3): "sizes",
    **{("Slice", index): name for index, name in enumerate(("data", "starts", "ends", "axes", "steps"))},
    **{
        (op, 1): "axes" for op in ("Squeeze", "Unsqueeze", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2")
    },
}
_FLOAT_PRODUCTS = (*MATRIX_PRODUCTS, "einsum")
# Operators with weights inside that cannot be replaced by an array of single numbers.
_OPAQUE = frozenset(
    [
        "QLinearGlobalAveragePool",
        "QOrderedMatMul",
        "QOrderedAttention",
        "GatherBlockQuantized",
    ]
)


def explain(root: Root, analysis: Analysis, kept: list[End], folded: dict[ir.Node, str]) -> str:
    """Say why a constant, or a use of it, is digital.

    Parameters
    ----------
    folded : dict of onnx_ir.Node to str
        Nodes whose result is computed, or could not be, with what becomes of it.

    Returns
    -------
    str
        One line; ``""`` if there is no digital end.
    """
    if not root.ends:
        return "not used"
    if not kept:
        return ""
    texts = list(dict.fromkeys(_one(root, end, analysis, folded) for end in kept))
    more = f" (and {len(texts) - 1} more)" if len(texts) > 1 else ""
    return texts[0] + more


def _one(root: Root, end: End, analysis: Analysis, folded: dict[ir.Node, str]) -> str:
    """The reason of one end."""
    place = end.place
    if place is None:
        return f"returned by {end.path}" if end.path else "output of the model"
    node = place.node
    if node in folded:
        return f"{folded[node]} by {node.op_type} '{place.label}'"
    name = f"{node.op_type} '{place.label}'"
    if 0 in root.state.shape:
        return f"empty operand of {name}"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and end.index:
        return f"quantisation {'scale' if end.index == 1 else 'zero point'} of {name}"
    operator = operator_of(node)
    if operator is not None and operator.family == "normalisation":
        return f"{operator.named[min(end.index, len(operator.named))] if end.index else 'input'} of {name}"
    if end.role is not None:
        return f"second quantisation of one stored tensor, by {name}; stays digital there"
    return _operand(place, end, analysis) or f"operand {end.index} of {name}"


def _operand(place: Place, end: End, analysis: Analysis) -> str | None:
    """The reason by operator and position."""
    node, name = place.node, f"{place.node.op_type} '{place.label}'"
    operator = operator_of(node)
    part = _OPERANDS.get((node.op_type, end.index)) if operator is None else operator.named.get(end.index)
    if part is not None:
        return f"{part} of {name}"
    if node.op_type == "Gather":
        return f"embedding table ({name}) stays digital"
    if node.op_type == "DynamicQuantizeLSTM":
        return (
            f"weight of {name}: it rounds its state at every step, which no float operator does; stays "
            "digital: audit the model from before it was quantised"
        )
    if node.op_type in _OPAQUE or _is_opaque(operator):
        return f"weight of {name}: this operator unpacks it itself; stays digital"
    if node.op_type in ("Loop", "Scan"):
        return f"initial state of {name}"
    if operator is not None:
        return _refused(place, end, analysis)
    if node.op_type in _ARITHMETIC:
        return _arithmetic(place, end)
    return None


def _is_opaque(operator: Operator | None) -> bool:
    return (
        operator is not None
        and not operator.mapped
        and operator.family in ("packed", "projection", "experts")
    )


def _refused(place: Place, end: End, analysis: Analysis) -> str:
    """Why an operand of an operator that knows weights is not one."""
    node, name = place.node, f"{place.node.op_type} '{place.label}'"
    if node.outputs and node.outputs[0] in analysis.constant:
        return f"operand of {name}, whose operands are all constant"
    if end.state.dtype not in FLOATS and not end.state.dtype.is_integer():
        return f"operand of {name} of type {end.state.dtype.name}; stays digital"
    operator = operator_of(node)
    floats = operator is not None and operator.family in _FLOAT_PRODUCTS and not operator.decode
    if floats and end.state.dtype not in FLOATS:
        return f"operand of {name}, which multiplies integers; stays digital"
    return f"operand {end.index} of {name}: this form of the operator is not mapped; stays digital"


def _arithmetic(place: Place, end: End) -> str:
    """Operands of element-wise operators; an Add behind a product is its bias."""
    node, name = place.node, f"{place.node.op_type} '{place.label}'"
    if node.op_type == "Add":
        other = operand(node, 1 - end.index) if end.index < 2 else None
        source = other.producer() if other is not None else None
        if source is not None and takes_weights(source):
            return f"bias (Add '{place.label}') of {source.op_type} '{source.name or source.op_type}'"
    kind = "scalar" if end.state.shape in ((), (1,)) else "element-wise"
    return f"{kind} operand of {name}"

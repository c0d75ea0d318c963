"""Why a constant stays digital, in plain words."""

from __future__ import annotations

import onnx_ir as ir

from nvaudit.model.analysis import FLOATS, Analysis, End, Root
from nvaudit.model.operators import Operator, operator_of
from nvaudit.model.roles import takes_weights
from nvaudit.model.walk import Place, operand

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
_FLOAT_PRODUCTS = ("matrix product", "Gemm", "einsum")
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
    root : Root
        The constant.
    analysis : Analysis
        The model.
    kept : list of End
        Its digital ends.
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

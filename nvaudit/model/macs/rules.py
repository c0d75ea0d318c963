"""How many multiply-accumulates an operator makes with each of its operands that may be a weight.

One function per family of operators. An operator that is not listed makes none that an array could make:
element-wise products, normalisations, pools and look-ups move or scale numbers, they do not accumulate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from nvaudit.model.attributes import is_opened
from nvaudit.model.operators import Family, Operator, operator_of
from nvaudit.model.walk import attribute, operand

Sizes = tuple[int, ...]
SizesOf = Callable[["ir.Value | None"], "Sizes | None"]


@dataclass(frozen=True)
class Term:
    """Multiply-accumulates of one operator.

    Attributes
    ----------
    operands : tuple of int
        Positions of the inputs that may be the weight; empty where both factors are always activations.
    products : int or None
        In one run of the operator; None where a size is not known.
    held : int or None
        Numbers of a weight that the operator holds as an attribute or unpacks itself; None where the operand
        is the weight.
    attribute : str
        The attribute that holds it, ``""`` for an operand.
    """

    operands: tuple[int, ...]
    products: int | None
    held: int | None = None
    attribute: str = ""


ProductRule = Callable[[ir.Node, Operator, SizesOf], Iterator[Term]]


def terms(node: ir.Node, sizes_of: SizesOf) -> list[Term]:
    """List the multiply-accumulates of an operator.

    Parameters
    ----------
    sizes_of : callable
        Gives the sizes of a value, or None where one of them is not known.

    Returns
    -------
    list of Term
        Empty for an operator that makes none.
    """
    operator = operator_of(node)
    if not node.outputs:
        return []
    try:
        if operator is not None and operator.family in _RULES:
            return list(_RULES[operator.family](node, operator, sizes_of))
        other = _OTHERS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
        return [] if other is None else list(other(node, sizes_of))
    except (IndexError, TypeError, ValueError, ZeroDivisionError):
        # Sizes or attributes that the operator does not have: what it makes of them is not known.
        return [Term(tuple(range(len(node.inputs))), None)]


def _times(*factors: int | None) -> int | None:
    return None if None in factors else math.prod(factor for factor in factors if factor is not None)


def _count(sizes: Sizes | None) -> int | None:
    return None if sizes is None else math.prod(sizes)


def _conv(node: ir.Node, operator: Operator, sizes_of: SizesOf) -> Iterator[Term]:
    """Every output element sums over the channels of its group and the kernel: W.shape[1:] of them."""
    # |Y| · (C_in / groups) · kernel; products with the zeros of the padding are counted, as an array makes
    # them.
    weight = sizes_of(operand(node, operator.weights[0]))
    kernel = None if weight is None or len(weight) < 3 else math.prod(weight[1:])
    yield Term(operator.weights, _times(_count(sizes_of(node.outputs[0])), kernel))


def _conv_transpose(node: ir.Node, operator: Operator, sizes_of: SizesOf) -> Iterator[Term]:
    """Every input element is multiplied with the weights of its channel, W.shape[1:]."""
    # |X| · (C_out / groups) · kernel; products that `pads` crops away at the border are counted.
    weight = sizes_of(operand(node, 1))
    kernel = None if weight is None or len(weight) < 3 else math.prod(weight[1:])
    yield Term((1,), _times(_count(sizes_of(operand(node, 0))), kernel))


def _matmul(node: ir.Node, operator: Operator, sizes_of: SizesOf) -> Iterator[Term]:
    """Every output element sums over the axis that both operands share."""
    first, second = (sizes_of(operand(node, index)) for index in operator.weights)
    # |Y| · K. Both operands have K, so either one's sizes are enough.
    inner = None
    if first:
        inner = first[-2 if attribute(node, "transA", 0) and len(first) > 1 else -1]
    elif second:
        inner = second[-1 if len(second) == 1 or attribute(node, "transB", 0) else -2]
    yield Term(operator.weights, _times(_count(sizes_of(node.outputs[0])), inner))


def _einsum(node: ir.Node, operator: Operator, sizes_of: SizesOf) -> Iterator[Term]:
    """One product for each combination of labels, if one is summed over; broadcast axes are labels too."""
    left, arrow, right = attribute(node, "equation", "").replace(" ", "").partition("->")
    labels = left.split(",")
    if len(labels) < 2 or len(labels) != len(node.inputs):
        return
    if not arrow:
        # The implicit result has the labels that stand once; their order does not matter to a count.
        right = "".join(label for label in dict.fromkeys(left) if left.count(label) == 1) + "..."
    # With no label summed over it is an outer or element-wise product, which accumulates nothing.
    if not (set(left) - set(",.")) - set(right):
        return
    extents: dict[str, int] = {}
    for label, value in zip(labels, node.inputs, strict=True):
        sizes = sizes_of(value)
        if sizes is None:
            yield Term(tuple(range(len(labels))), None)
            return
        for name, size in zip(_spelt_out(label, len(sizes)), sizes, strict=False):
            # Size 1 is broadcast against a larger size of the same label.
            extents[name] = max(extents.get(name, 1), size)
    yield Term(tuple(range(len(labels))), math.prod(extents.values()))


def _spelt_out(labels: str, rank: int) -> list[str]:
    """Labels of every axis; those of an ellipsis are numbered from its end, as they are broadcast."""
    head, dots, tail = labels.partition("...")
    hidden = rank - len(head) - len(tail) if dots else 0
    return [*head, *(f"...{hidden - number}" for number in range(hidden)), *tail]


def _recurrent(node: ir.Node, operator: Operator, sizes_of: SizesOf) -> Iterator[Term]:
    """Every step of every sequence takes all of W and of R."""
    sequence = sizes_of(operand(node, 0))
    # X is [steps, batch, input], or the first two exchanged (layout 1): steps · batch vectors either way. W
    # and R hold every direction and gate.
    steps = None if sequence is None or len(sequence) != 3 else math.prod(sequence[:2])
    for index in (1, 2):
        yield Term((index,), _times(steps, _count(sizes_of(operand(node, index)))))


def _joint_attention(node: ir.Node, operator: Operator, sizes_of: SizesOf) -> Iterator[Term]:
    """One matrix projects to queries, keys and values; these are multiplied with each other then."""
    if node.op_type not in ("Attention", "QAttention"):
        return  # PackedAttention and the others do not say how many products they make
    tokens, weight = sizes_of(operand(node, 0)), sizes_of(operand(node, 1))
    rows = None if tokens is None or len(tokens) != 3 else tokens[0] * tokens[1]
    yield Term((1,), _times(rows, _count(weight)))
    width = None if weight is None or len(weight) != 2 else weight[1] // 3
    length = None if tokens is None or len(tokens) != 3 else tokens[1]
    # Q·Kᵀ and its product with V: batch · length² · width each, however width is split into heads.
    yield Term((), _times(2, rows, length, width))


def _attention(node: ir.Node, sizes_of: SizesOf) -> Iterator[Term]:
    """Queries with keys, then the result with values; each query meets every key."""
    query, key = sizes_of(operand(node, 0)), sizes_of(operand(node, 1))
    length = key[-2] if key is not None and len(key) in (3, 4) else None
    present = sizes_of(node.outputs[1]) if len(node.outputs) > 1 and node.outputs[1].name else None
    if present is not None and len(present) == 4:  # with what a cache holds
        length = present[-2]
    # Q·Kᵀ: batch · heads · L_q · L_k · depth = |Q| · L_k; likewise |Y| · L_k for the product with V.
    yield Term((), _times(_count(query), length))
    yield Term((), _times(_count(sizes_of(node.outputs[0])), length))


def _packed(node: ir.Node, operator: Operator, sizes_of: SizesOf) -> Iterator[Term]:
    """A weight of K × N that the operator unpacks itself."""
    result = sizes_of(node.outputs[0])
    first = sizes_of(operand(node, 0))
    inner = attribute(node, "K", first[-1] if first else None)
    outer = attribute(node, "N", result[-1] if result else None)
    yield Term((1,), _times(_count(result), inner), _times(inner, outer))


def _experts(node: ir.Node, operator: Operator, sizes_of: SizesOf) -> Iterator[Term]:
    """Every token takes k of the E experts of each stack."""
    tokens = sizes_of(operand(node, 0))
    rows = None if tokens is None else math.prod(tokens[:-1])
    quantised = node.op_type == "QMoE"
    # A byte holds 8 / bits numbers.
    packed = 8 // attribute(node, "expert_weight_bits", 4) if quantised else 1
    for index in operator.weights:
        stack = sizes_of(operand(node, index))
        if operand(node, index) is None:
            continue
        held = None if stack is None else packed * math.prod(stack)
        each = None if held is None or not stack or not stack[0] else held // stack[0]
        yield Term((index,), _times(rows, attribute(node, "k", 1), each), held)


def _held_in(name: str) -> Callable[[ir.Node, SizesOf], Iterator[Term]]:
    """Coefficients that are an attribute, all of them for every sample; not the identity of an opened one."""

    def rule(node: ir.Node, sizes_of: SizesOf) -> Iterator[Term]:
        held = 0 if is_opened(node) else len(attribute(node, name, ()))
        sizes = sizes_of(operand(node, 0))
        # [features] is one sample, [N, features] are N.
        samples = None if sizes is None else sizes[0] if len(sizes) > 1 else 1
        if held:
            yield Term((), _times(samples, held), held, name)

    return rule


_RULES: dict[Family, ProductRule] = {
    "convolution": _conv,
    "blocked convolution": _conv,
    "deformable convolution": _conv,
    "transposed convolution": _conv_transpose,
    "matrix product": _matmul,
    "Gemm": _matmul,
    "einsum": _einsum,
    "recurrent": _recurrent,
    "projection": _joint_attention,
    "packed": _packed,
    "experts": _experts,
}
# Operators that have no weight among their inputs.
_OTHERS = {
    ("", "Attention"): _attention,
    ("com.microsoft", "MultiHeadAttention"): _attention,
    ("com.microsoft", "GroupQueryAttention"): _attention,
    ("ai.onnx.ml", "LinearClassifier"): _held_in("coefficients"),
    ("ai.onnx.ml", "LinearRegressor"): _held_in("coefficients"),
    ("ai.onnx.ml", "SVMClassifier"): _held_in("support_vectors"),
    ("ai.onnx.ml", "SVMRegressor"): _held_in("support_vectors"),
}

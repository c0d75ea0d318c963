"""Which operand of which operator is a weight, and how its elements sit on a crossbar.

One function per operator family. A role says which axes of the operand, as the operator takes it, count
output channels, and how many crossbar matrices it makes: rows are inputs times kernel, columns are outputs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from nvaudit.errors import EngineError
from nvaudit.model.chains import Unpack
from nvaudit.model.layout import UNMOVED, Layout, Shape
from nvaudit.model.operators import Family, Operator, operator_of
from nvaudit.model.runtime import runtime
from nvaudit.model.walk import attribute, operand

IsConstant = Callable[[ir.Value | None], bool]


@dataclass(frozen=True)
class CrossbarMatrix:
    """Crossbar matrices that a weight makes.

    Attributes
    ----------
    rows : int
        Inputs of each.
    cols : int
        Outputs of each.
    kernel : int
        Rows of one input channel: positions of the kernel of a convolution.
    """

    groups: int
    rows: int
    cols: int
    kernel: int = 1


@dataclass(frozen=True)
class Decode:
    """How an integer operator reads its operand: ``scale × (integer - zero)``.

    ``axis`` is the axis of the operand along which scale and zero vary where they are not single numbers.
    """

    scale: ir.Value | None
    zero: ir.Value | None
    axis: int


@dataclass(frozen=True)
class Role:
    """A weight operand.

    ``decode`` is None where the operator multiplies floats. ``product`` says in words what multiplies by it
    where that is another operator. ``view`` leads from the layout in which the operator takes it to the one
    that ``channel_axes`` speak of, where these differ; ``unpack`` leads there from packed bytes.
    """

    channel_axes: Shape
    matrix: CrossbarMatrix
    decode: Decode | None = None
    product: str = ""
    view: Layout = UNMOVED
    unpack: Unpack | None = None


RoleRule = Callable[[ir.Node, Operator, int, Shape, IsConstant], "Role | None"]


def find_role(node: ir.Node, index: int, shape: Shape, is_constant: IsConstant) -> Role | None:
    """Find the role of a constant operand.

    Parameters
    ----------
    index : int
        Position of the operand among its inputs.
    shape : tuple of int
        Shape of the operand there.
    is_constant : callable
        Whether another operand is constant too.

    Returns
    -------
    Role or None
        None where the operand is no weight.
    """
    operator = operator_of(node)
    if operator is None or not operator.mapped or is_constant(node.outputs[0]):
        return None
    return _RULES[operator.family](node, operator, index, shape, is_constant)


def takes_weights(node: ir.Node) -> bool:
    """Whether an operator has an operand that can be a weight."""
    operator = operator_of(node)
    return operator is not None and operator.mapped


def _decode(node: ir.Node, operator: Operator, index: int, axis: int) -> Decode | None:
    if index not in operator.decode:
        return None
    scale, zero = operator.decode[index]
    return Decode(None if scale is None else operand(node, scale), operand(node, zero), axis)


def _conv(
    node: ir.Node, operator: Operator, index: int, shape: Shape, is_constant: IsConstant
) -> Role | None:
    """[output, input of the group, *kernel]."""
    groups = attribute(node, "group", 1)
    if index not in operator.weights or len(shape) < 3 or groups < 1 or shape[0] % groups:
        return None
    # A patch of (C_in / groups) · kernel inputs drives the rows (im2col); C_out / groups columns per group.
    matrix = CrossbarMatrix(groups, math.prod(shape[1:]), shape[0] // groups, math.prod(shape[2:]))
    return Role((0,), matrix, _decode(node, operator, index, 0))


def _blocked_conv(
    node: ir.Node, operator: Operator, index: int, shape: Shape, is_constant: IsConstant
) -> Role | None:
    """Conv of a file that ONNX Runtime saved after its own optimisation: [O, I, *kernel] in blocks.

    Output channels are cut into blocks whose channels lie next to each other, and so are input channels but
    where these are few or each has its own filter. Both are filled up with zeros to whole blocks, whose
    results are dropped later on; they are devices all the same.
    """
    # The stored order is [O/b, I/b, *kernel, b of I, b of O], or [O/b, I, *kernel, b of O] where the inputs
    # are not cut; the declared shape stays [O, I, *kernel]. ``view`` says how to read it so.
    size = block_size(shape)
    if index != 1 or len(shape) < 3 or not size or shape[0] % size:
        return None
    groups = attribute(node, "group", 1)
    outputs, inputs, *kernel = shape
    if groups > 1 and inputs == 1:
        groups = outputs  # the channels that were filled up have filters too
    axes = tuple(range(2, 2 + len(kernel)))
    if inputs < size or (groups > 1 and inputs == 1):
        cut: Shape = (outputs // size, inputs, *kernel, size)
        perm: Shape = (0, len(cut) - 1, 1, *axes)
    elif inputs % size:
        return None
    else:
        cut = (outputs // size, inputs // size, *kernel, size, size)
        perm = (0, len(cut) - 1, 1, len(cut) - 2, *axes)
    if outputs % groups:
        return None
    matrix = CrossbarMatrix(groups, math.prod(shape[1:]), outputs // groups, math.prod(kernel))
    return Role((0,), matrix, view=Layout([("reshape", cut), ("transpose", perm), ("reshape", shape)]))


def _conv_transpose(
    node: ir.Node, operator: Operator, index: int, shape: Shape, is_constant: IsConstant
) -> Role | None:
    """[input, output of the group, *kernel]."""
    groups = attribute(node, "group", 1)
    if index not in operator.weights or len(shape) < 3 or groups < 1 or shape[0] % groups:
        return None
    # An output gathers over input channels and kernel positions, as in a convolution of the spread-out input
    # with the flipped kernel; so these make the rows here too.
    kernel = math.prod(shape[2:])
    return Role((1,), CrossbarMatrix(groups, shape[0] // groups * kernel, shape[1], kernel))


def _matmul_role(
    shape: Shape, left: bool, transposed: bool = False, decode: Decode | None = None
) -> Role | None:
    """A MatMul operand; batch axes make separate matrices, hence separate outputs."""
    if not shape:
        return None
    if len(shape) == 1:
        # A vector is summed over whole: K rows, one column, no axis of outputs.
        return Role((), CrossbarMatrix(1, shape[0], 1), decode)
    inner_last = left != transposed  # [.., M, K] on the left, or [.., N, K] on the right
    inner, outer = (-1, -2) if inner_last else (-2, -1)
    batch = tuple(range(len(shape) - 2))
    axes = (*batch, len(shape) + outer)
    return Role(axes, CrossbarMatrix(math.prod(shape[:-2]), shape[inner], shape[outer]), decode)


def _product(
    node: ir.Node, operator: Operator, index: int, shape: Shape, is_constant: IsConstant
) -> Role | None:
    """One operand of a pair whose other one is not constant."""
    if index not in operator.weights or (operator.decode and index not in operator.decode):
        return None
    first, second = operator.weights
    left = index == first
    other = operand(node, second if left else first)
    if other is None or is_constant(other):
        return None
    side = "A" if left else "B"
    if attribute(node, f"transBatch{side}", 0) or (operator.family == "Gemm" and len(shape) != 2):
        return None
    if operator.decode and node.domain and len(shape) < 2:
        return None
    transposed = bool(attribute(node, f"trans{side}", 0))
    # Scales and zero points may differ along the axis of the outputs: columns on the right, rows on the left.
    axis = max(len(shape) - (2 if left != transposed else 1), 0)
    return _matmul_role(shape, left, transposed, _decode(node, operator, index, axis))


def _recurrent(
    node: ir.Node, operator: Operator, index: int, shape: Shape, is_constant: IsConstant
) -> Role | None:
    """[direction, gates × hidden, input]."""
    if index not in operator.weights or len(shape) != 3:
        return None
    # y = W x for each direction (or expert): the last axis is summed over and makes the rows.
    return Role((0, 1), CrossbarMatrix(shape[0], shape[2], shape[1]))


def _attention(
    node: ir.Node, operator: Operator, index: int, shape: Shape, is_constant: IsConstant
) -> Role | None:
    if index not in operator.weights or len(shape) != 2:
        return None
    return Role((1,), CrossbarMatrix(1, shape[0], shape[1]))


def _einsum(
    node: ir.Node, operator: Operator, index: int, shape: Shape, is_constant: IsConstant
) -> Role | None:
    """Any equation that sums over an axis of the operand.

    Axes that other operands have too and the result keeps make separate matrices; those that only this
    operand has are outputs; the others are summed over.
    """
    terms, result = split_einsum(attribute(node, "equation", ""), len(node.inputs))
    if terms is None or all(is_constant(value) for i, value in enumerate(node.inputs) if i != index):
        return None
    mine = _spelled(terms[index], len(shape))
    # A label that stands twice takes a diagonal, and the elements beside it are in no product.
    if mine is None or len(mine) != len(shape) or len(set(mine)) != len(mine):
        return None
    others = [(term, node.inputs[i]) for i, term in enumerate(terms) if i != index]
    rest = set().union(*(_labels(term, value, len(shape)) for term, value in others))
    kept = _labels(result, None, len(shape))
    groups = [axis for axis, label in enumerate(mine) if label in kept and label in rest]
    cols = [axis for axis, label in enumerate(mine) if label in kept and label not in rest]
    rows = [axis for axis, label in enumerate(mine) if label not in kept]
    # Of several constants in a row, the first to meet the data has the rows of the next one as outputs.
    later = [
        axis
        for axis in rows
        if mine[axis] in rest
        and not any(mine[axis] in _labels(t, v, len(shape)) for t, v in others if not is_constant(v))
    ]
    if len(later) < len(rows):
        rows, cols = [axis for axis in rows if axis not in later], sorted(cols + later)
    sizes = (math.prod(shape[axis] for axis in axes) for axes in (groups, rows, cols))
    return Role(tuple(sorted(groups + cols)), CrossbarMatrix(*sizes)) if rows else None


def _spelled(term: str, rank: int) -> list[str] | None:
    """Labels of every axis; an ellipsis' are numbered from the last one, as broadcasting aligns them."""
    before, dots, after = term.partition("...")
    hidden = rank - len(before) - len(after)
    if (hidden and not dots) or hidden < 0 or "." in before + after:
        return None
    return [*before, *(f"...{number}" for number in range(hidden, 0, -1)), *after]


def _labels(term: str, value: ir.Value | None, at_most: int) -> set[str]:
    """Labels of a term; of unknown rank, its ellipsis may stand for every axis of the weight."""
    plain = len(term.replace(".", ""))
    rank = plain + at_most if value is None or value.shape is None else len(value.shape)
    return set(_spelled(term, rank if "." in term else plain) or term)


def split_einsum(equation: str, count: int) -> tuple[list[str] | None, str]:
    """Split an einsum equation.

    Parameters
    ----------
    equation : str
        For instance ``"bij,jk->bik"`` or ``"...i,ij->...j"``.
    count : int
        Number of operands.

    Returns
    -------
    tuple of list of str (or None), and str
        The labels of each operand and of the result; None where there are more or fewer operands.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != count:
        return None, ""
    if not arrow:
        # numpy's convention: what an ellipsis hides comes first, then labels that stand once, in order.
        once = sorted(label for label in set(left) - {",", "."} if left.count(label) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    return terms, right


def _packed(
    node: ir.Node, operator: Operator, index: int, shape: Shape, is_constant: IsConstant
) -> Role | None:
    """MatMulNBits: K inputs × N outputs of a few bits each, several to a byte."""
    scale, zero = operand(node, 2), operand(node, 3)
    sizes = (attribute(node, "K", 0), attribute(node, "N", 0))
    bits, block = attribute(node, "bits", 4), attribute(node, "block_size", 0)
    if index != 1 or scale is None or bits not in (2, 4, 8) or block < 1 or min(sizes) < 1:
        return None
    # K is filled up to whole blocks, so the bytes hold at least K · N integers, 8 / bits to a byte.
    if operand(node, 4) is not None or math.prod(shape) * 8 // bits < math.prod(sizes):
        return None  # inputs in an order of their own
    role = _matmul_role(sizes, False, False, Decode(None, None, 1))
    return None if role is None else replace(role, unpack=Unpack(bits, block, sizes, scale, zero))


_RULES: dict[Family, RoleRule] = {
    "convolution": _conv,
    "deformable convolution": _conv,
    "blocked convolution": _blocked_conv,
    "transposed convolution": _conv_transpose,
    "matrix product": _product,
    "Gemm": _product,
    "einsum": _einsum,
    "recurrent": _recurrent,
    "projection": _attention,
    "experts": _recurrent,  # stacks are laid out alike: [expert, output, input]
    "packed": _packed,
}


_KNOWN = (16, 8, 4)


def block_size(shape: tuple[int, ...]) -> int:
    """Channels of a block, for a filter [O, I, *kernel] of a file in the blocked layout.

    The file does not say it: the layout is that of the processor, and a file runs right on the kind of
    processor that it was saved on. So ONNX Runtime is asked what it does here; where it uses no blocks, the
    largest size that the channels allow is taken.
    """
    here = _here()
    sizes = (here, *_KNOWN) if here else _KNOWN
    return next((size for size in sizes if shape and shape[0] % size == 0), 0)


@cache
def _here() -> int:
    """Output channels to which ONNX Runtime fills up a convolution with one; 0 where it does not."""
    kernel = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [kernel],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    try:
        ort = runtime()
        with tempfile.TemporaryDirectory() as folder:
            options = ort.SessionOptions()
            options.log_severity_level = 4
            options.optimized_model_filepath = str(Path(folder) / "probe.onnx")
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            saved = onnx.load(options.optimized_model_filepath)
    except (EngineError, RuntimeError, OSError):
        return 0
    blocked = [node for node in saved.graph.node if node.domain == "com.microsoft.nchwc"]
    # The probe's one output channel was filled up to a whole block, which the saved filter shows.
    sizes = {tensor.name: tensor.dims[0] for tensor in saved.graph.initializer}
    return next((int(sizes.get(node.input[1], 0)) for node in blocked if node.op_type == "Conv"), 0)

"""Batch rules of the products: samples may be rows, columns or a leading axis, never what is summed."""

from __future__ import annotations

from nvaudit.model.batch.node import SHARED, NodeView, Operand, Step, broadcast, keep, mixes, refuse
from nvaudit.model.batch.rules import rule


@rule("Gemm")
def gemm(view: NodeView) -> Step:
    """Rows of the left operand are samples."""
    rows = 1 if view.int_attribute("transA", 0) else 0
    if view.x.state == 1 - rows:
        return mixes(view, "sums over the batch")
    if view.x.state != rows or not view.shared(1):
        return refuse(view, "has samples in its right operand")
    bias = view.operand(2)
    return broadcast(view, [Operand(0, (None, None)), *([] if bias is None else [bias])])


@rule("MatMul")
def matmul(view: NodeView) -> Step:
    """See `product`."""
    right = view.operand(1)
    return refuse(view, "lacks an operand") if right is None else product(view, view.x, right)


@rule("MatMulInteger")
def matmul_integer(view: NodeView) -> Step:
    """Multiply with zero points that must be single numbers."""
    right = view.operand(1)
    if right is None or not _singles(view, 2, 3):
        return refuse(view, "has a zero point that is not one shared number")
    return product(view, view.x, right)


@rule("QLinearMatMul")
def qlinear_matmul(view: NodeView) -> Step:
    """Left, scale, zero point, right, scale, zero point, scale and zero point of the result."""
    right = view.operand(3)
    per_column = right is not None and right.state is SHARED and view.shared(4, 5)
    if right is None or not _singles(view, 1, 2, 6, 7, *(() if per_column else (4, 5))):
        return refuse(view, "has a scale that is not one shared number")
    return product(view, view.x, right)


def _singles(view: NodeView, *indices: int) -> bool:
    """Whether these inputs are left out or hold one shared number."""
    chosen = [op for op in map(view.operand, indices) if op is not None]
    return all(op.state is SHARED and op.is_single for op in chosen)


def product(view: NodeView, left: Operand, right: Operand) -> Step:
    """Matrix product: rows of the left, columns of the right, or a leading axis may be the batch."""
    if left.rank is None or right.rank is None:
        return refuse(view, "has an input of unknown rank")
    # A vector is a matrix of one row (left) or one column (right), which the result then lacks.
    a = left if left.rank > 1 else _as_matrix(left, 0)
    b = right if right.rank > 1 else _as_matrix(right, 1)
    if _place(a) == 1 or _place(b) == 2:
        return mixes(view, "sums over the batch")
    step = broadcast(view, [_without(a, 1), _without(b, 2)])
    if step.problem or not isinstance(step.states[0], int):
        return step
    rank = max(len(a.shape or ()), len(b.shape or ()))
    lost = int(left.rank == 1 and step.states[0] > rank - 2)
    return keep(view, step.states[0] - lost)


def _place(op: Operand) -> int | None:
    """Return the position of the batch axis from the right."""
    return op.rank - op.state if isinstance(op.state, int) and op.rank is not None else None


def _as_matrix(op: Operand, new_axis: int) -> Operand:
    """Add the axis that MatMul adds to a vector, which can be batched only along the sum."""
    (size,) = op.shape or (None,)
    shape = (1, size) if new_axis == 0 else (size, 1)
    state = 1 - new_axis if isinstance(op.state, int) else op.state
    return Operand(state, shape)


def _without(op: Operand, place: int) -> Operand:
    """Return the operand as broadcasting sees it: the summed axis counts as 1."""
    shape = op.shape or ()
    index = len(shape) - place
    return Operand(op.state, (*shape[:index], 1, *shape[index + 1 :]))


@rule("Einsum")
def einsum(view: NodeView) -> Step:
    """Look for the batch letter in the result and in no shared operand."""
    left, arrow, right = view.text_attribute("equation", "").replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or "." in left or len(terms) != len(view.inputs):
        return refuse(view, "has an equation that is not covered")
    pairs = [(term, op) for term, op in zip(terms, view.inputs, strict=True) if op is not None]
    letters = {term[op.state] for term, op in pairs if isinstance(op.state, int)}
    letter = letters.pop()
    counts = [term.count(letter) for term, op in pairs]
    wanted = [int(isinstance(op.state, int)) for _, op in pairs]
    if letters or counts != wanted or right.count(letter) > 1:
        return refuse(view, "aligns the batch axis with another axis")
    return keep(view, right.index(letter)) if letter in right else mixes(view, "sums over the batch")

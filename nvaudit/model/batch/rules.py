"""Batch rules of the operators that compute: one small function per family.

A rule is asked only when some input carries samples and none is unknown. It must answer "kept apart" only
where that holds for every batch size; what it does not cover, it refuses.
"""

from __future__ import annotations

from collections.abc import Callable

from nvaudit.model.batch.node import (
    SHARED,
    BatchRule,
    NodeView,
    Operand,
    RuleAnswer,
    broadcast,
    keep,
    mixes,
    normalise,
    normalise_all,
    refuse,
)

RULES: dict[str, BatchRule] = {}
"""Operator of the standard domain → its rule."""


def rule(*op_types: str) -> Callable[[BatchRule], BatchRule]:
    """Enter a function into the table."""

    def enter(function: BatchRule) -> BatchRule:
        RULES.update(dict.fromkeys(op_types, function))
        return function

    return enter


UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "CastLike", "Ceil",
    "Celu", "Clip", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round",
    "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan",
    "Tanh", "ThresholdedRelu",
)  # fmt: skip

BROADCAST = (
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu",
    "Sub", "Sum", "Where", "Xor",
)  # fmt: skip

REDUCE = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip


@rule(*UNARY)
def unary(view: NodeView) -> RuleAnswer:
    """Each element by itself; bounds and the like must be shared."""
    return keep(view, view.x.state) if view.shared() else refuse(view, "has a parameter that carries samples")


@rule(*BROADCAST)
def elementwise(view: NodeView) -> RuleAnswer:
    """Two or more inputs, broadcast."""
    return broadcast(view, [op for op in view.inputs if op is not None])


@rule(
    "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "AveragePool", "LpPool", "GlobalAveragePool",
    "GlobalMaxPool", "GlobalLpPool", "LRN", "InstanceNormalization", "GroupNormalization", "DepthToSpace",
    "SpaceToDepth",
)  # fmt: skip
def images(view: NodeView) -> RuleAnswer:
    """[N, C, …]: everything happens within one index of axis 0."""
    if view.x.state != 0:
        return refuse(view, "does not have the batch on axis 0 of its first input")
    return keep(view, 0) if view.shared() else refuse(view, "has a parameter that carries samples")


@rule("MaxPool")
def max_pool(view: NodeView) -> RuleAnswer:
    """As other pools, but the indices count through the whole batch."""
    if view.is_used(1):
        return refuse(view, "returns indices that count through the batch")
    return images(view)


@rule("BatchNormalization")
def batch_normalization(view: NodeView) -> RuleAnswer:
    """Accept fixed statistics; training mode takes them from the batch."""
    outputs = sum(bool(out.name) for out in view.node.outputs)
    training = bool(view.int_attribute("training_mode", 0)) if view.version >= 14 else outputs > 1
    if training:
        return mixes(view, "is in training mode: it takes its statistics from the batch", view.x.state)
    return images(view)


@rule("Dropout")
def dropout(view: NodeView) -> RuleAnswer:
    """Nothing happens at inference."""
    training = view.operand(2)
    # A flag that is computed has no ints() and proves nothing, so it is refused as training itself is.
    if training is not None and training.ints() != (0,):
        return refuse(view, "is not provably in inference mode")
    return unary(view)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(view: NodeView) -> RuleAnswer:
    """Along one axis; before opset 13 over all axes from the given one on."""
    axis = normalise(view.int_attribute("axis", -1 if view.version >= 13 else 1), view.x.rank)
    if axis is None:
        return refuse(view, "has an input of unknown rank")
    batch = view.x.state
    # Until set 12 all axes from the given one on are one; a batch among them is normalised over.
    crosses = axis == batch if view.version >= 13 else isinstance(batch, int) and batch >= axis
    return mixes(view, "normalises over the batch", batch) if crosses else keep(view, batch)


@rule("LayerNormalization", "RMSNormalization")
def layer_norm(view: NodeView) -> RuleAnswer:
    """Over all axes from the given one on; scale and bias are broadcast."""
    batch, rank = view.x.state, view.x.rank
    axis = normalise(view.int_attribute("axis", -1), rank)
    if axis is None or rank is None or not isinstance(batch, int) or not view.shared():
        return refuse(view, "has an input of unknown rank, or a parameter that carries samples")
    if batch >= axis:
        return mixes(view, "normalises over the batch", batch)
    if not all(op is None or op.one_at(rank - batch) for op in view.inputs[1:]):
        return refuse(view, "has a scale or bias that spans the batch axis")
    return keep(view, batch)


@rule("MeanVarianceNormalization")
def mean_variance(view: NodeView) -> RuleAnswer:
    """Over the listed axes, which by default include axis 0."""
    attr = view.attribute("axes")
    axes = normalise_all((0, 2, 3) if attr is None else attr.as_ints(), view.x.rank)
    if axes is None:
        return refuse(view, "has an input of unknown rank")
    return mixes(view, "normalises over the batch", view.x.state) if view.x.state in axes else unary(view)


@rule("ArgMax", "ArgMin")
def arg_reduce(view: NodeView) -> RuleAnswer:
    """Find the place of the extreme along one axis."""
    return _reduced(view, (view.int_attribute("axis", 0),))


@rule(*REDUCE)
def reduce(view: NodeView) -> RuleAnswer:
    """Over the listed axes; over all of them when none is listed."""
    since = 13 if view.node.op_type == "ReduceSum" else 18
    axes = view.list_of("axes", 1, since)
    if axes is None and not view.lacks("axes", 1, since):
        return refuse(view, "computes its axes")
    if axes:
        return _reduced(view, axes)
    if view.int_attribute("noop_with_empty_axes", 0):
        return unary(view)
    return mixes(view, "reduces over all axes, the batch included", SHARED)


def _reduced(view: NodeView, axes: tuple[int, ...]) -> RuleAnswer:
    """Place the batch axis after the given axes have been reduced."""
    placed, batch = normalise_all(axes, view.x.rank), view.x.state
    if placed is None or not isinstance(batch, int):
        return refuse(view, "has an input of unknown rank")
    if batch in placed:
        return mixes(view, "reduces over the batch", SHARED)
    # Without keepdims each reduced axis in front of the batch moves it one to the left.
    return keep(view, batch if view.int_attribute("keepdims", 1) else batch - sum(a < batch for a in placed))


@rule("TopK", "LpNormalization", "CumSum")
def along(view: NodeView) -> RuleAnswer:
    """Within one axis."""
    given = view.operand(1)
    if view.node.op_type == "CumSum":
        listed = None if given is None else given.ints()
        axis = None if not listed else normalise(listed[0], view.x.rank)
    else:
        axis = normalise(view.int_attribute("axis", -1), view.x.rank)
    if axis is None or not view.shared():
        return refuse(view, "has an axis or a parameter that is not known beforehand")
    if axis == view.x.state:
        return mixes(view, "works along the batch", view.x.state)
    return keep(view, view.x.state)


@rule("QuantizeLinear", "DequantizeLinear")
def quantize(view: NodeView) -> RuleAnswer:
    """Scale and zero point per tensor, or along an axis that is not the batch."""
    scale = view.operand(1)
    if scale is None or not view.shared() or view.int_attribute("block_size", 0):
        return refuse(view, "has a scale that carries samples, or one per block")
    if scale.is_single:
        return keep(view, view.x.state)
    axis = normalise(view.int_attribute("axis", 1), view.x.rank)
    # Scales per axis came with opset 13. One entry per index of the batch would be one per sample.
    if scale.rank != 1 or axis is None or axis == view.x.state or view.version < 13:
        return refuse(view, "has a scale that is not provably apart from the batch axis")
    return keep(view, view.x.state)


@rule("DynamicQuantizeLinear")
def dynamic_quantize(view: NodeView) -> RuleAnswer:
    """One range for the whole tensor, hence for the whole batch.

    Samples then influence each other through a step size only. That is what the file says, but results depend
    on how the set is cut into batches, which the report must say.
    """
    why = f"{view.label} takes one range over the whole batch"
    states = (view.x.state, SHARED, SHARED)[: len(view.node.outputs)]
    return RuleAnswer(states, why, coupled=True, by_range=True)


@rule("LSTM", "GRU", "RNN")
def recurrent(view: NodeView) -> RuleAnswer:
    """Follow X [seq, batch, in], states and Y [seq, dirs, batch, hidden]; layout 1 has the batch first."""
    batch_first = view.int_attribute("layout", 0) == 1
    axis = 0 if batch_first else 1
    # h[t] = f(x[t], h[t-1]) runs along the other one of the first two axes.
    if view.x.state == 1 - axis:
        return mixes(view, "runs along the batch: each step remembers those before it")
    # W, R, B and the peepholes (1, 2, 3, 7) are shared; lengths (4) and initial states (5, 6) have an entry
    # per sample, so constants there would fix the batch size.
    if view.x.state != axis or not view.shared(1, 2, 3, 7):
        return refuse(view, f"does not have the batch on axis {axis} of its first input")
    lengths = view.operand(4)
    if lengths is not None and lengths.state != 0:
        return refuse(view, "has sequence lengths for a fixed batch")
    for state in map(view.operand, (5, 6)):
        if state is not None and state.state != axis:
            return refuse(view, "has an initial state for a fixed batch")
    return RuleAnswer((0 if batch_first else 2, axis, axis)[: len(view.node.outputs)])


@rule("Resize", "Upsample")
def resize(view: NodeView) -> RuleAnswer:
    """Accept a scale of 1 along the batch; sizes would fix it unless its axis is left out."""
    batch = view.x.state
    crop = view.text_attribute("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    if not isinstance(batch, int) or not view.shared() or crop:
        return refuse(view, "has a parameter that carries samples, or crops")
    attr = view.attribute("axes")
    axes = None if attr is None else normalise_all(attr.as_ints(), view.x.rank)
    if axes is not None and batch not in axes:
        return keep(view, batch)
    scales = _scales(view)
    place = batch if axes is None else axes.index(batch)
    if scales is None or place >= len(scales) or scales[place] != 1:
        return refuse(view, "resizes the batch axis, or its scales are not known beforehand")
    return keep(view, batch)


def _scales(view: NodeView) -> tuple[float, ...] | None:
    """Read the scales: an attribute up to opset 8, then input 1, from opset 11 on input 2."""
    if view.version < 9:
        attr = view.attribute("scales")
        return None if attr is None else tuple(attr.as_floats())
    given = view.operand(1 if view.version < 11 else 2)
    numbers = None if given is None else given.numbers()
    return None if numbers is None else tuple(float(n) for n in numbers)


@rule("Shape", "Size")
def size_of(view: NodeView) -> RuleAnswer:
    """Refuse the batch size as a number: computing with it is not followed."""
    return refuse(view, "computes with the batch size", SHARED)


@rule("NonZero", "Unique", "Compress", "NonMaxSuppression")
def gathers_from_all(view: NodeView) -> RuleAnswer:
    """Refuse a result whose size depends on all samples together."""
    return mixes(view, "makes one list out of the whole batch")


@rule("Gemm")
def gemm(view: NodeView) -> RuleAnswer:
    """Rows of the left operand are samples."""
    rows = 1 if view.int_attribute("transA", 0) else 0
    if view.x.state == 1 - rows:
        return mixes(view, "sums over the batch")
    if view.x.state != rows or not view.shared(1):
        return refuse(view, "has samples in its right operand")
    # The product is [samples, N] with or without transA; C is broadcast to that.
    bias = view.operand(2)
    return broadcast(view, [Operand(0, (None, None)), *([] if bias is None else [bias])])


@rule("MatMul")
def matmul(view: NodeView) -> RuleAnswer:
    """See `product`."""
    right = view.operand(1)
    return refuse(view, "lacks an operand") if right is None else product(view, view.x, right)


@rule("MatMulInteger")
def matmul_integer(view: NodeView) -> RuleAnswer:
    """Multiply with zero points that must be single numbers."""
    right = view.operand(1)
    if right is None or not _singles(view, 2, 3):
        return refuse(view, "has a zero point that is not one shared number")
    return product(view, view.x, right)


@rule("QLinearMatMul")
def qlinear_matmul(view: NodeView) -> RuleAnswer:
    """Left, scale, zero point, right, scale, zero point, scale and zero point of the result."""
    right = view.operand(3)
    # y = s_a·s_b/s_y · Σ_k (a - z_a)(b - z_b): s_b and z_b per column of a shared b never meet the sample
    # index; s_a per row of a would be one per sample.
    per_column = right is not None and right.state is SHARED and view.shared(4, 5)
    if right is None or not _singles(view, 1, 2, 6, 7, *(() if per_column else (4, 5))):
        return refuse(view, "has a scale that is not one shared number")
    return product(view, view.x, right)


def _singles(view: NodeView, *indices: int) -> bool:
    """Whether these inputs are left out or hold one shared number."""
    chosen = [op for op in map(view.operand, indices) if op is not None]
    return all(op.state is SHARED and op.is_single for op in chosen)


def product(view: NodeView, left: Operand, right: Operand) -> RuleAnswer:
    """Matrix product: rows of the left, columns of the right, or a leading axis may be the batch."""
    if left.rank is None or right.rank is None:
        return refuse(view, "has an input of unknown rank")
    # A vector is a matrix of one row (left) or one column (right), which the result then lacks.
    a = left if left.rank > 1 else _as_matrix(left, 0)
    b = right if right.rank > 1 else _as_matrix(right, 1)
    # y[.., m, n] = Σ_k a[.., m, k] b[.., k, n]: a batch along k is summed over; along m, n or a leading axis
    # it is kept, where the other operand has size 1 there, as in any broadcast.
    if _place(a) == 1 or _place(b) == 2:
        return mixes(view, "sums over the batch")
    step = broadcast(view, [_without(a, 1), _without(b, 2)])
    if step.problem or not isinstance(step.states[0], int):
        return step
    rank = max(len(a.shape or ()), len(b.shape or ()))
    # The row added to a left vector (axis rank - 2) leaves the result again, and a batch along the columns
    # moves up.
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
def einsum(view: NodeView) -> RuleAnswer:
    """Look for the batch letter in the result and in no shared operand."""
    left, arrow, right = view.text_attribute("equation", "").replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or "." in left or len(terms) != len(view.inputs):
        return refuse(view, "has an equation that is not covered")
    pairs = [(term, op) for term, op in zip(terms, view.inputs, strict=True) if op is not None]
    letters = {term[op.state] for term, op in pairs if isinstance(op.state, int)}
    letter = letters.pop()
    # Einsum sums over the letters that the result lacks and takes a diagonal where one stands twice: samples
    # stay apart if their letter stands once in each term that carries them, in no other, and in the result.
    counts = [term.count(letter) for term, op in pairs]
    wanted = [int(isinstance(op.state, int)) for _, op in pairs]
    if letters or counts != wanted or right.count(letter) > 1:
        return refuse(view, "aligns the batch axis with another axis")
    return keep(view, right.index(letter)) if letter in right else mixes(view, "sums over the batch")

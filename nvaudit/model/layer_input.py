"""What the crossbars of a weight take: an activation, unfolded into the rows of its matrices.

A layer is one product or several, y = Wᵀ x: rows of W are inputs × kernel, columns are outputs, as
:class:`nvaudit.model.roles.CrossbarMatrix` counts them. The x of a convolution is the patch under the kernel
(im2col); a recurrent layer takes the sequence with W and its own state, one step late, with R.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from nvaudit.arrays import Array
from nvaudit.model.build import Names
from nvaudit.model.load import LoadedModel
from nvaudit.model.operators import is_float
from nvaudit.model.walk import attribute, operand, places
from nvaudit.model.weights import Weight, WeightUse

Unfold = Callable[[Array], Iterable[Array]]

_PIECE = 1 << 24
"""Numbers that one piece of an unfolded activation holds, about: 64 MiB in single precision."""


@dataclass(frozen=True)
class LayerInput:
    """What one use of a weight takes.

    Attributes
    ----------
    value : str
        Name of the activation that is to be watched.
    unfold : callable
        From this activation to the rows, in pieces of shape (matrix, part, position, row): ``matrix``
        counts the weight's matrices, and has length 1 where all of them take the same.
    by_sample : bool
        Whether a part is one sample; else it is the whole batch.
    rows_last : bool
        Whether the rows are the activation's last axis, and all matrices take the same.
    """

    value: str
    unfold: Unfold = field(repr=False, compare=False)
    by_sample: bool = False
    rows_last: bool = False


def layer_inputs(weight: Weight) -> tuple[LayerInput, ...] | str:
    """Find what a weight is multiplied by.

    Returns
    -------
    tuple of LayerInput, or str
        One for each use that takes the weight in its primary layout. Where there is none: the reason.
    """
    inputs, reason = list[LayerInput](), "has no use"
    for use in weight.uses:
        one = _layer_input(use, weight)
        if isinstance(one, str):
            reason = one
        else:
            inputs.append(one)
    return tuple(inputs) or reason


def _layer_input(use: WeightUse, weight: Weight) -> LayerInput | str:
    rule = _RULES.get((use.domain, use.op_type))
    if use.turned:
        return "is taken in several layouts, or as a part of a stack"
    if rule is None:
        return f"the inputs of {use.op_type} are not watched"
    taken = rule(use, weight)
    if not use.graph_path or isinstance(taken, str):
        return taken
    if not taken.rows_last:
        return f"{use.op_type} inside a loop or a branch: its input comes without its shape"
    rows = weight.matrix.rows  # a value of a body comes flat, of all rounds together
    return LayerInput(taken.value, lambda x: (x.reshape(1, 1, -1, rows),))


def _named(
    value: ir.Value | None, unfold: Unfold, by_sample: bool = False, rows_last: bool = False
) -> LayerInput | str:
    if value is None or not value.name:
        return "takes no named activation"
    return LayerInput(value.name, unfold, by_sample, rows_last)


def with_named_states(loaded: LoadedModel) -> LoadedModel:
    """A copy whose recurrent operators return the state of every step, so that it can be watched."""
    model = loaded.model.clone()
    names = Names(model.graph)
    for place in places(model.graph):
        if is_float(place.node, "recurrent") and not place.node.outputs[0].name:
            place.node.outputs[0].name = names.fresh(f"{place.node.name or place.node.op_type}/states")
    return replace(loaded, model=model)


@dataclass(frozen=True)
class _Window:
    """How a kernel moves over its input, one number for each spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    groups: int
    spread: tuple[int, ...] = ()  # a transposed convolution: input positions are so far apart
    same: str = ""  # SAME_UPPER or SAME_LOWER: the padding follows from the size

    def patches(self, x: Array) -> Array:
        """im2col: (sample, channel, *space) to (group, sample, position, channel of the group × kernel)."""
        axes = len(self.kernel)
        if self.spread:
            x = _spread_out(x, self.spread)
        x = np.pad(x, [(0, 0), (0, 0), *self._padding(x.shape[2:])])
        reach = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(2, 2 + axes)))
        steps = tuple(slice(None, None, s) for s in self.strides)
        taps = tuple(slice(None, None, d) for d in self.dilations)
        view = view[(slice(None), slice(None), *steps, *taps)]
        # (batch, channel, *place, *tap) to (group, batch, *place, channel of the group, *tap)
        view = view.reshape(view.shape[0], self.groups, -1, *view.shape[2:])
        place, tap = range(3, 3 + axes), range(3 + axes, 3 + 2 * axes)
        view = view.transpose(1, 0, *place, 2, *tap)
        return view.reshape(self.groups, view.shape[1], math.prod(view.shape[2 : 2 + axes]), -1)

    def pieces(self, x: Array) -> Iterator[Array]:
        """As :meth:`patches`, some samples at a time: patches overlap and take more memory than x."""
        elements = x.size * math.prod(self.kernel) // math.prod(self.strides)
        parts = min(max(-(-elements // _PIECE), 1), max(len(x), 1))
        for part in np.array_split(x, parts):
            yield self.patches(part)

    def _padding(self, size: tuple[int, ...]) -> list[tuple[int, int]]:
        if not self.same:
            return list(zip(self.before, self.after, strict=True))
        pads = []
        for n, k, d, s in zip(size, self.kernel, self.dilations, self.strides, strict=True):
            # SAME makes ⌈n/s⌉ positions: the last window begins at (⌈n/s⌉ − 1) s and is (k − 1) d + 1 long.
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            less, more = total // 2, total - total // 2
            pads.append((less, more) if self.same == "SAME_UPPER" else (more, less))
        return pads


def _spread_out(x: Array, steps: tuple[int, ...]) -> Array:
    """Put zeros between positions, as a transposed convolution does."""
    size = tuple((n - 1) * s + 1 for n, s in zip(x.shape[2:], steps, strict=True))
    wide = np.zeros((*x.shape[:2], *size), x.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, s) for s in steps))] = x
    return wide


def _window(node: ir.Node, kernel: tuple[int, ...]) -> _Window | str:
    axes, auto = len(kernel), attribute(node, "auto_pad", "NOTSET")
    pads = tuple(attribute(node, "pads", [0] * (2 * axes)))
    if any(pad < 0 for pad in pads):
        return "has negative padding"
    if auto == "VALID":
        pads = (0,) * (2 * axes)
    return _Window(
        kernel,
        tuple(attribute(node, "strides", [1] * axes)),
        tuple(attribute(node, "dilations", [1] * axes)),
        pads[:axes],
        pads[axes:],
        attribute(node, "group", 1),
        same=auto if auto.startswith("SAME") else "",
    )


def _conv(use: WeightUse, weight: Weight) -> LayerInput | str:
    window = _window(use.node, weight.shape[2:])
    return window if isinstance(window, str) else _named(use.node.inputs[0], window.pieces, True)


def _conv_transpose(use: WeightUse, weight: Weight) -> LayerInput | str:
    """A transposed convolution: a plain one over the spread-out input, its kernel turned round."""
    node, kernel = use.node, weight.shape[2:]
    window = _window(node, kernel)
    if isinstance(window, str):
        return window
    if window.same or attribute(node, "output_shape", []) or attribute(node, "output_padding", []):
        return "its padding follows from the size of its output"
    # With padding p it is a plain convolution of stride 1 over the spread-out input, its padding
    # d (k − 1) − p.
    full = [d * (k - 1) for k, d in zip(kernel, window.dilations, strict=True)]
    before = tuple(f - p for f, p in zip(full, window.before, strict=True))
    after = tuple(f - p for f, p in zip(full, window.after, strict=True))
    if min((*before, *after), default=0) < 0:
        return "crops more than its kernel reaches"
    plain = _Window(
        kernel, (1,) * len(kernel), window.dilations, before, after, window.groups, window.strides
    )

    def unfold(x: Array) -> Iterator[Array]:
        for rows in plain.pieces(x):
            taps = rows.reshape(*rows.shape[:3], -1, *kernel)
            # The plain one meets the kernel turned round; turning the patch instead keeps the order of the
            # weight's rows.
            yield np.flip(taps, tuple(range(4, 4 + len(kernel)))).reshape(rows.shape)

    return _named(node.inputs[0], unfold, True)


def _product(use: WeightUse, weight: Weight) -> LayerInput | str:
    """MatMul and Gemm; the activation is the other operand, its inner axis the rows."""
    node, left = use.node, use.input_index == 0  # whether the weight is the left operand
    turned = bool(attribute(node, "transA" if not left else "transB", 0))
    batch = math.prod(weight.shape[:-2])

    def unfold(x: Array) -> tuple[Array]:
        if x.ndim == 1:
            return (x[None, None, None, :],)
        x = x if left == turned else np.swapaxes(x, -1, -2)  # now (.., positions, inner)
        if batch == 1:
            return (x.reshape(1, 1, -1, x.shape[-1]),)
        shape = np.broadcast_shapes(x.shape[:-2], weight.shape[:-2])
        x = np.broadcast_to(x, (*shape, *x.shape[-2:]))
        extra = len(shape) - len(weight.shape[:-2])
        # Leading axes that the weight lacks are more positions: (extra, *batch, p, i) becomes
        # (*batch, extra, p, i).
        x = np.moveaxis(x.reshape(-1, *shape[extra:], *x.shape[-2:]), 0, -3)
        return (x.reshape(batch, 1, -1, x.shape[-1]),)

    last = left == turned and batch == 1
    return _named(operand(node, 1 if left else 0), unfold, rows_last=last)


def _last_axis(use: WeightUse, weight: Weight) -> LayerInput | str:
    return _named(operand(use.node, 0), _by_last_axis, rows_last=True)


def _by_last_axis(x: Array) -> tuple[Array]:
    return (x.reshape(1, 1, -1, x.shape[-1]),)


def _recurrent(use: WeightUse, weight: Weight) -> LayerInput | str:
    """W takes the sequence, R the state of the step before: [step, batch, ..], or batch first."""
    node = use.node
    batch_first = bool(attribute(node, "layout", 0))
    if use.input_index == 1:
        return _named(operand(node, 0), _by_last_axis, rows_last=True)
    if attribute(node, "linear_before_reset", 0) == 0 and node.op_type == "GRU":
        return "a GRU multiplies its state by a gate before one of its products"
    if operand(node, 4) is not None:
        return "sequences of several lengths: the state of a step is not what it returned before"
    direction = attribute(node, "direction", "forward")
    backward = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]

    def unfold(y: Array) -> tuple[Array]:  # [step, direction, batch, hidden]; or batch, step, direction
        y = np.moveaxis(y, 0, 2) if batch_first else y
        # R multiplies the state of the step before, in the direction's own order of time. The first one is
        # taken for zero, a given initial state too: it is one position among all steps.
        late = [
            np.concatenate([np.zeros_like(y[:1, d]), y[1:, d] if back else y[:-1, d]])
            for d, back in enumerate(backward)
        ]
        return (np.stack(late).reshape(len(late), 1, -1, y.shape[-1]),)

    if not node.outputs[0].name:
        return "does not return its states"
    return _named(node.outputs[0], unfold)


_RULES: dict[tuple[str, str], Callable[[WeightUse, Weight], LayerInput | str]] = {
    ("", "Conv"): _conv,
    ("", "ConvTranspose"): _conv_transpose,
    ("", "MatMul"): _product,
    ("", "Gemm"): _product,
    ("com.microsoft", "FusedGemm"): _product,
    ("com.microsoft", "Attention"): _last_axis,
    ("com.microsoft", "FusedConv"): _conv,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
}

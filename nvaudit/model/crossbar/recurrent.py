"""Recurrent layers written out step by step, so that their products can be split over crossbars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from nvaudit.model.build import Builder, Names
from nvaudit.model.layout import Layout, Move
from nvaudit.model.walk import attribute, operand

MOST_STEPS = 256
"""Longer sequences would make graphs that take longer to open than to run."""

_USUAL = {"LSTM": [["sigmoid", "tanh", "tanh"]], "GRU": [["sigmoid", "tanh"]], "RNN": [["tanh"], ["relu"]]}
"""Activations of one direction that a layer is written out with; the first are the default."""
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}

MakePart = Callable[[int, Layout, tuple[int, int]], ir.Value]
"""From 1 for W or 2 for R, moves from the operator's layout, and a shape: an open place for a part of it."""


def find_lengths(model: ir.Model) -> None:
    """Work out the shapes of a model where it does not state them, to know how long sequences are.

    Parameters
    ----------
    model : onnx_ir.Model
        The model; only stated shapes are changed.
    """
    ShapeInferencePass(check_type=False, strict_mode=False)(model)


def why_not_unrolled(node: ir.Node) -> str | None:
    """Say why a recurrent operator is not written out, or None if it is.

    Parameters
    ----------
    node : onnx_ir.Node
        An LSTM, GRU or RNN.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in _USUAL:
        return f"its operator {node.op_type} is not taken apart into column sums"
    directions = 2 if attribute(node, "direction", "forward") == "bidirectional" else 1
    given = [str(name).lower() for name in attribute(node, "activations", None) or ()]
    unusual = given and given not in [usual * directions for usual in _USUAL[node.op_type]]
    odd = attribute(node, "clip", None) is not None or attribute(node, "input_forget", 0)
    if unusual or odd or attribute(node, "layout", 0) or operand(node, 4) is not None:
        return f"its {node.op_type} has sequence lengths, clipping, or other activations or layout than usual"
    if operand(node, 7) is not None:
        return f"its {node.op_type} has peepholes"
    if not _fits(node, directions):
        return f"its {node.op_type} has weights of other sizes than its hidden_size and direction say"
    x = operand(node, 0)
    length = x.shape[0] if x is not None and x.shape is not None and len(x.shape) == 3 else None
    if not isinstance(length, int) or not 1 <= length <= MOST_STEPS:
        return f"its {node.op_type} has sequences of no fixed length from 1 to {MOST_STEPS}"
    return None


def _fits(node: ir.Node, directions: int) -> bool:
    """Whether a layer's attributes fit its weights; ONNX Runtime refuses others when it loads the model."""
    hidden = int(attribute(node, "hidden_size", 0))
    if str(attribute(node, "direction", "forward")) not in ("forward", "reverse", "bidirectional"):
        return False
    for index, columns in ((1, None), (2, hidden)):
        value = operand(node, index)
        shape = None if value is None or value.shape is None else list(value.shape)
        if shape is not None and (
            len(shape) != 3
            or shape[:2] != [directions, _GATES[node.op_type] * hidden]
            or columns not in (None, shape[2])
        ):
            return False
    return True


@dataclass(frozen=True)
class _Direction:
    """One direction of a layer: its inputs' products, and what it multiplies its state by."""

    gates: ir.Value
    recurrent: Sequence[ir.Value]
    bias: ir.Value | None
    first: ir.Value | None
    cell: ir.Value | None


class _Writer:
    """Writes one layer out."""

    def __init__(self, node: ir.Node, names: Names, opset: int) -> None:
        self.build = Builder(node, names)
        self.node, self.opset = node, opset
        self.kind = node.op_type
        self.hidden = int(attribute(node, "hidden_size", 0))
        self.reset_after = bool(attribute(node, "linear_before_reset", 0))
        first = str((attribute(node, "activations", None) or ["tanh"])[0]).lower()
        self.of_rnn = "Relu" if first == "relu" else "Tanh"

    def op(self, name: str, *inputs: ir.Value) -> ir.Value:
        return self.build.node(name, *inputs)

    def cut(self, value: ir.Value, axis: int, start: int, stop: int) -> ir.Value:
        return self.build.slice(value, axis, start, stop, self.opset)

    def shaped(self, value: ir.Value, *shape: int) -> ir.Value:
        return self.op("Reshape", value, self.build.constant(np.array(shape, np.int64)))

    def joined(self, values: Sequence[ir.Value], axis: int) -> ir.Value:
        return self.build.node("Concat", *values, attributes={"axis": axis})

    def direction(self, number: int, part: MakePart, inputs: int) -> _Direction:
        """Products of all inputs at once, and the places of the recurrent matrix."""
        x, bias = operand(self.node, 0), operand(self.node, 3)
        assert x is not None
        rows = _GATES[self.kind] * self.hidden
        own: Move = ("slice", (0, number, number + 1))
        turn: Move = ("transpose", (1, 0))
        w = part(1, Layout([own, ("reshape", (rows, inputs)), turn]), (inputs, rows))
        # A GRU that resets before its product multiplies two different states.
        cuts = [(0, rows)]
        if self.kind == "GRU" and not self.reset_after:
            cuts = [(0, 2 * self.hidden), (2 * self.hidden, rows)]
        recurrent = []
        for start, stop in cuts:
            some: list[Move] = [("slice", (0, start, stop))] if len(cuts) > 1 else []
            steps = Layout([own, ("reshape", (rows, self.hidden)), *some, turn])
            recurrent.append(part(2, steps, (self.hidden, stop - start)))
        # x_t W for all steps in one product: [steps, batch, inputs] by [inputs, gates].
        gates = self.op("MatMul", x, w)
        rest = None
        if bias is not None:
            # B is [b_W, b_R]. b_W is added for all steps at once; b_R stays apart, for a GRU that resets
            # after its product multiplies it by r.
            flat = self.shaped(self.cut(bias, 0, number, number + 1), 2 * rows)
            gates = self.op("Add", gates, self.cut(flat, 0, 0, rows))
            rest = self.cut(flat, 0, rows, 2 * rows)
        states = [operand(self.node, index) for index in (5, 6)]
        first, cell = (
            None if s is None else self.shaped(self.cut(s, 0, number, number + 1), -1, self.hidden)
            for s in states
        )
        return _Direction(gates, recurrent, rest, first, cell)

    def product(self, state: ir.Value | None, matrix: ir.Value) -> ir.Value | None:
        """A state times a matrix; nothing for the state that is zero."""
        return None if state is None else self.op("MatMul", state, matrix)

    def sum(self, *values: ir.Value | None) -> ir.Value:
        there = [value for value in values if value is not None]
        total = there[0]
        for value in there[1:]:
            total = self.op("Add", total, value)
        return total

    def gate(self, value: ir.Value | None, number: int) -> ir.Value | None:
        size = self.hidden
        return None if value is None else self.cut(value, -1, number * size, (number + 1) * size)

    def lstm(
        self, at: _Direction, x: ir.Value, h: ir.Value | None, c: ir.Value | None
    ) -> tuple[ir.Value, ir.Value | None]:
        # [i o f c] = x W + h R + b; c ← σ(f) c + σ(i) tanh(c̃); h ← σ(o) tanh(c). The first c may be zero.
        total = self.sum(x, self.product(h, at.recurrent[0]), at.bias)
        i, o, f = (self.op("Sigmoid", self.cut_gate(total, n)) for n in range(3))
        new = self.op("Mul", i, self.op("Tanh", self.cut_gate(total, 3)))
        c = new if c is None else self.op("Add", self.op("Mul", f, c), new)
        return self.op("Mul", o, self.op("Tanh", c)), c

    def cut_gate(self, value: ir.Value, number: int) -> ir.Value:
        return self.cut(value, -1, number * self.hidden, (number + 1) * self.hidden)

    def gru(
        self, at: _Direction, x: ir.Value, h: ir.Value | None, c: ir.Value | None
    ) -> tuple[ir.Value, ir.Value | None]:
        # z, r = σ(x W + h R + b); h̃ = tanh(x W + r (h R + b_R)) where the product is taken before the reset
        # (linear_before_reset), else tanh(x W + (r h) R + b_R); h ← (1 − z) h̃ + z h = h̃ − z h̃ + z h.
        product = self.product(h, at.recurrent[0])
        z, r = (
            self.op("Sigmoid", self.sum(self.cut_gate(x, n), self.gate(product, n), self.gate(at.bias, n)))
            for n in range(2)
        )
        bias = self.gate(at.bias, 2)
        if self.reset_after:
            parts = [value for value in (self.gate(product, 2), bias) if value is not None]
            inner = self.op("Mul", r, self.sum(*parts)) if parts else None
            new = self.op("Tanh", self.sum(self.cut_gate(x, 2), inner))
        else:
            reset = None if h is None else self.op("Mul", r, h)
            new = self.op("Tanh", self.sum(self.cut_gate(x, 2), self.product(reset, at.recurrent[1]), bias))
        kept = self.op("Sub", new, self.op("Mul", z, new))
        return (kept if h is None else self.op("Add", kept, self.op("Mul", z, h))), None

    def rnn(
        self, at: _Direction, x: ir.Value, h: ir.Value | None, c: ir.Value | None
    ) -> tuple[ir.Value, ir.Value | None]:
        return self.op(self.of_rnn, self.sum(x, self.product(h, at.recurrent[0]), at.bias)), None

    def run(self, at: _Direction, length: int, backward: bool) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """All steps of one direction: outputs in order of time, last state, last cell."""
        step = {"LSTM": self.lstm, "GRU": self.gru, "RNN": self.rnn}[self.kind]
        h, c = at.first, at.cell
        outputs: dict[int, ir.Value] = {}
        width = _GATES[self.kind] * self.hidden
        for time in reversed(range(length)) if backward else range(length):
            x = self.shaped(self.cut(at.gates, 0, time, time + 1), -1, width)
            h, c = step(at, x, h, c)
            # By time, not in the order in which they are made: a backward direction begins at the end.
            outputs[time] = self.shaped(h, 1, 1, -1, self.hidden)
        assert h is not None
        ordered = [outputs[time] for time in range(length)]
        return (
            self.joined(ordered, 0),
            self.shaped(h, 1, -1, self.hidden),
            (None if c is None else self.shaped(c, 1, -1, self.hidden)),
        )


def unroll(node: ir.Node, part: MakePart, inputs: int, names: Names, opset: int) -> None:
    """Replace a recurrent operator by its steps.

    Parameters
    ----------
    node : onnx_ir.Node
        One that :func:`why_not_unrolled` has nothing against; it is removed.
    part : callable
        Makes the open place for a part of W or R.
    """
    writer = _Writer(node, names, opset)
    x = operand(node, 0)
    assert x is not None
    assert x.shape is not None
    length = x.shape[0]
    assert isinstance(length, int)
    name = attribute(node, "direction", "forward")
    backward = {"forward": [False], "reverse": [True]}.get(str(name), [False, True])
    runs = [
        writer.run(writer.direction(number, part, inputs), length, turned)
        for number, turned in enumerate(backward)
    ]
    # Y is [step, direction, batch, hidden], Y_h and Y_c are [direction, batch, hidden].
    made = [
        writer.joined([run[0] for run in runs], 1),
        writer.joined([run[1] for run in runs], 0),
    ]
    cells = [run[2] for run in runs if run[2] is not None]
    if cells:
        made.append(writer.joined(cells, 0))
    for old, new in zip(node.outputs, made, strict=False):
        new.type, new.shape = old.type, old.shape
        name, old.name = old.name, names.fresh(f"{old.name}/replaced")
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        if name:
            new.name = name
    graph = node.graph
    assert graph is not None
    graph.remove(node, safe=True)

"""Recurrent layers.

Gates are stacked in ONNX's order: input, output, forget, cell for LSTM; update, reset, hidden for GRU. The
plain forms go to torch's fused kernels, with the gates put in torch's order; the others run step by step, and
so do all of them where somebody else computes their products, such as crossbars.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nvaudit.retrain.executor.ops.registry import Function, Op, op

# For torch: input, forget, cell, output; and reset, update, new.
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_USUAL = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}

Activation = Callable[[Tensor], Tensor]
GatePart = tuple[int, int, int]
"""Which product: 1 for W or 2 for R, the direction, and the part of the matrix."""
Multiply = Callable[[GatePart, Tensor, Tensor], Tensor]
"""Of a part, values (…, row) and a matrix (column, row)."""


@dataclass(frozen=True)
class _RecurrentLayer:
    """One recurrent node; ``parts`` are the rows of R that one product takes."""

    kind: str
    hidden: int
    directions: tuple[bool, ...]  # per direction, whether it runs backwards
    names: tuple[tuple[str, ...], ...]
    activations: tuple[tuple[Activation, ...], ...]
    clip: float | None
    reset_after: bool
    coupled: bool

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        size = self.hidden
        if self.kind == "GRU" and not self.reset_after:  # it multiplies two different states
            return (0, 2 * size), (2 * size, 3 * size)
        return ((0, len(_ORDER[self.kind]) * size),)


def _activation(op: Op, name: str, alpha: float | None, beta: float | None) -> Activation:
    name = name.lower()
    table: dict[str, Activation] = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "softsign": F.softsign,
        "softplus": F.softplus,
        "leakyrelu": lambda x: F.leaky_relu(x, 0.01 if alpha is None else alpha),
        "thresholdedrelu": lambda x: F.threshold(x, 1.0 if alpha is None else alpha, 0.0),
        "elu": lambda x: F.elu(x, 1.0 if alpha is None else alpha),
        "affine": lambda x: x * (1.0 if alpha is None else alpha) + (beta or 0.0),
        "scaledtanh": lambda x: (1.0 if alpha is None else alpha) * torch.tanh(x * (beta or 1.0)),
        "hardsigmoid": lambda x: torch.clamp(
            x * (0.2 if alpha is None else alpha) + (0.5 if beta is None else beta), 0.0, 1.0
        ),
    }
    if name not in table:
        raise op.refuse(f"the activation {name!r}")
    return table[name]


def _layer(op: Op) -> _RecurrentLayer:
    kind = op.node.op_type
    direction = str(op.attr("direction", "forward"))
    directions = {"forward": (False,), "reverse": (True,)}.get(direction, (False, True))
    given = op.attr("activations") or _USUAL[kind] * len(directions)
    alphas, betas = list(op.attr("activation_alpha", ())), list(op.attr("activation_beta", ()))
    functions = []
    for position, name in enumerate(given):
        alpha = alphas[position] if position < len(alphas) else None
        beta = betas[position] if position < len(betas) else None
        functions.append(_activation(op, str(name), alpha, beta))
    each = len(_USUAL[kind])
    names = tuple(str(name).lower() for name in given)
    count = range(len(directions))
    return _RecurrentLayer(
        kind=kind,
        hidden=op.attr("hidden_size"),
        directions=directions,
        names=tuple(names[i * each : (i + 1) * each] for i in count),
        activations=tuple(tuple(functions[i * each : (i + 1) * each]) for i in count),
        clip=op.attr("clip"),
        reset_after=bool(op.attr("linear_before_reset", 0)),
        coupled=bool(op.attr("input_forget", 0)),
    )


def _fusible(layer: _RecurrentLayer, op: Op) -> bool:
    """Whether torch's kernel computes this layer."""
    # torch's kernels have no peepholes, clip or coupled gates, and lengths only for packed sequences. Its
    # GRU resets after the product, r ∘ (R h + b): ONNX's default, R (r ∘ h) + b, is another function.
    usual = all(names == _USUAL[layer.kind] for names in layer.names)
    if layer.kind == "RNN":
        usual = len(set(layer.names)) == 1 and layer.names[0] in (("tanh",), ("relu",))
    return (
        usual
        and not op.has(4)
        and not op.has(7)
        and layer.clip is None
        and not layer.coupled
        and (layer.kind != "GRU" or layer.reset_after)
    )


@dataclass(frozen=True)
class Recurrent:
    """The function of a recurrent node."""

    layer: _RecurrentLayer
    batch_first: bool
    fused: bool
    outputs: int

    def __call__(self, x: Tensor, w: Tensor, r: Tensor, *rest: Tensor | None) -> Any:
        """Run it."""
        return self._run(None if self.fused and w.dtype == x.dtype else _plain, x, w, r, *rest)

    def through(self, multiply: Multiply, x: Tensor, w: Tensor, r: Tensor, *rest: Tensor | None) -> Any:
        """Run it step by step, with somebody else's products; a state that is zero needs none."""
        return self._run(multiply, x, w, r, *rest)

    def parts(self) -> dict[GatePart, tuple[int, int]]:
        """Every product, and the rows of its matrix that it takes."""
        rows_of: dict[GatePart, tuple[int, int]] = {}
        for direction in range(len(self.layer.directions)):
            rows_of[1, direction, 0] = (0, len(_ORDER[self.layer.kind]) * self.layer.hidden)
            rows_of |= {(2, direction, number): rows for number, rows in enumerate(self.layer.parts)}
        return rows_of

    def _run(self, multiply: Multiply | None, x: Tensor, w: Tensor, r: Tensor, *rest: Tensor | None) -> Any:
        layer = self.layer
        bias, lengths, first, cell, peep = (*rest, *(None,) * 5)[:5]
        if self.batch_first:
            x = x.transpose(0, 1)
            first = None if first is None else first.transpose(0, 1)
            cell = None if cell is None else cell.transpose(0, 1)
        if multiply is None:
            start = x.new_zeros(len(layer.directions), x.shape[1], layer.hidden)
            states = (start if first is None else first, start if cell is None else cell)
            y, last, last_cell = _fused(layer, x, w, r, bias, states)
        else:
            sizes = None if lengths is None else lengths.tolist()
            y, last, last_cell = _stepped(layer, multiply, x, (w, r, bias, peep), (first, cell), sizes)
        if self.batch_first:
            y, last, last_cell = y.permute(2, 0, 1, 3), last.transpose(0, 1), last_cell.transpose(0, 1)
        return (y, last, last_cell)[: self.outputs] if self.outputs > 1 else y


@op("LSTM", "GRU", "RNN", host=(4,))
def _recurrent(op: Op) -> Function:
    layer = _layer(op)
    return Recurrent(layer, bool(op.attr("layout", 0)), _fusible(layer, op), len(op.node.outputs))


def _fused(
    layer: _RecurrentLayer,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None,
    states: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """All directions by torch's kernel; a lone backward one sees time turned round."""
    hidden = layer.hidden
    backward = layer.directions == (True,)
    x = x.flip(0) if backward else x
    parameters: list[Tensor] = []
    for number in range(len(layer.directions)):
        parameters += [_reordered(layer.kind, part[number]) for part in (w, r)]
        # ONNX has one vector, first the bias of W, then that of R. Their sum would not do: a GRU that
        # resets after the product multiplies only the second by r.
        if bias is not None:
            parameters += [_reordered(layer.kind, part) for part in bias[number].chunk(2)]
    options = (bias is not None, 1, 0.0, False, len(layer.directions) == 2, False)
    cell = states[1]
    if layer.kind == "LSTM":
        y, last, cell = torch.lstm(x, states, parameters, *options)
    elif layer.kind == "GRU":
        y, last = torch.gru(x, states[0], parameters, *options)
    else:
        function = torch.rnn_tanh if layer.names[0] == ("tanh",) else torch.rnn_relu
        y, last = function(x, states[0], parameters, *options)
    y = y.flip(0) if backward else y
    # torch joins the directions in the last axis: (T, B, D·H) becomes ONNX's (T, D, B, H).
    return y.reshape(*y.shape[:2], -1, hidden).transpose(1, 2), last, cell


def _reordered(kind: str, part: Tensor) -> Tensor:
    """Rows of a gate-stacked tensor in torch's order."""
    order = _ORDER[kind]
    if len(order) == 1:
        return part
    blocks = part.chunk(len(order))
    return torch.cat([blocks[place] for place in order])


def _plain(part: GatePart, values: Tensor, matrix: Tensor) -> Tensor:
    return values @ matrix.t()


@dataclass(frozen=True)
class _RunningDirection:
    """One direction of a layer while it runs.

    ``gates`` holds, step by step, what the inputs give, with the first half of the bias.
    """

    layer: _RecurrentLayer
    number: int
    multiply: Multiply
    gates: Tensor
    recurrent: Tensor
    bias: Tensor | None
    peepholes: Tensor | None

    @property
    def activations(self) -> tuple[Activation, ...]:
        return self.layer.activations[self.number]

    def product(self, state: Tensor | None, part: int = 0) -> Tensor | float:
        """A state times its part of R, with that part of the bias."""
        start, stop = self.layer.parts[part]
        made: Tensor | float = 0.0
        if state is not None:
            made = self.multiply((2, self.number, part), state, self.recurrent[start:stop])
        return made if self.bias is None else made + self.bias[start:stop]

    def clipped(self, x: Tensor) -> Tensor:
        clip = self.layer.clip
        return x if clip is None else torch.clamp(x, -clip, clip)


def _stepped(
    layer: _RecurrentLayer,
    multiply: Multiply,
    x: Tensor,
    parameters: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    states: tuple[Tensor | None, Tensor | None],
    sizes: list[int] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step by step: any activation, peepholes, clipping, sequences of several lengths."""
    results = []
    for number in range(len(layer.directions)):
        w, r, bias, peep = (None if p is None else p[number] for p in parameters)
        assert w is not None
        assert r is not None
        gates = multiply((1, number, 0), x, w).reshape(*x.shape[:2], -1)
        of_inputs, of_states = (None, None) if bias is None else bias.chunk(2)
        gates = gates if of_inputs is None else gates + of_inputs
        at = _RunningDirection(layer, number, multiply, gates, r, of_states, peep)
        first, cell = (None if state is None else state[number] for state in states)
        results.append(_one_direction(at, first, cell, sizes))
    ys, lasts, cells = zip(*results, strict=True)
    return torch.stack(ys, 1), torch.stack(lasts), torch.stack(cells)


def _one_direction(
    at: _RunningDirection, first: Tensor | None, cell: Tensor | None, sizes: list[int] | None
) -> tuple[Tensor, Tensor, Tensor]:
    layer, gates = at.layer, at.gates
    zero = gates.new_zeros(gates.shape[1], layer.hidden)
    # A first state of None is zero, and its product with R is left out: through crossbars it would be
    # converted (offset encoding, an ADC that does not have zero) although the audit leaves it out too.
    h, c = first, zero if cell is None else cell
    length = gates.shape[0]
    limits = None if sizes is None else torch.tensor(sizes, device=gates.device).unsqueeze(-1)
    outputs: list[Tensor] = [zero] * length
    # Backwards, a short sequence begins at its own end: until there the first state stays as it is.
    for time in reversed(range(length)) if layer.directions[at.number] else range(length):
        new_h, new_c = _CELLS[layer.kind](at, gates[time], h, c)
        if limits is None:
            h, c, outputs[time] = new_h, new_c, new_h
            continue
        # Past the end of a sequence the state stays and the output is zero, as ONNX has it.
        alive = time < limits
        h, c = torch.where(alive, new_h, zero if h is None else h), torch.where(alive, new_c, c)
        outputs[time] = torch.where(alive, new_h, zero)
    return torch.stack(outputs) if length else gates.new_zeros(0, *zero.shape), zero if h is None else h, c


def _lstm_cell(at: _RunningDirection, gates: Tensor, h: Tensor | None, c: Tensor) -> tuple[Tensor, Tensor]:
    f, g, out = at.activations
    i_gate, o_gate, f_gate, new = (gates + at.product(h)).chunk(4, -1)
    # P holds i, o, f. Input and forget gate look at the old cell, the output gate at the new one.
    peeps = None if at.peepholes is None else at.peepholes.chunk(3)
    if peeps is not None:
        i_gate, f_gate = i_gate + peeps[0] * c, f_gate + peeps[2] * c
    i_gate = f(at.clipped(i_gate))
    f_gate = 1 - i_gate if at.layer.coupled else f(at.clipped(f_gate))
    c = f_gate * c + i_gate * g(at.clipped(new))
    if peeps is not None:
        o_gate = o_gate + peeps[1] * c
    return f(at.clipped(o_gate)) * out(c), c


def _gru_cell(at: _RunningDirection, gates: Tensor, h: Tensor | None, c: Tensor) -> tuple[Tensor, Tensor]:
    f, g = at.activations
    size = at.layer.hidden
    product = at.product(h)
    of_state = product if isinstance(product, Tensor) else gates.new_full((gates.shape[-1],), product)
    update, reset = f(at.clipped(gates[..., : 2 * size] + of_state[..., : 2 * size])).chunk(2, -1)
    # linear_before_reset: new = g(W x + r ∘ (R h + b)); without it new = g(W x + R (r ∘ h) + b).
    if at.layer.reset_after:
        inner: Tensor | float = reset * of_state[..., 2 * size :]
    else:
        inner = at.product(None if h is None else reset * h, 1)
    new = g(at.clipped(gates[..., 2 * size :] + inner))
    # h_t = (1 − z) ∘ new + z ∘ h_{t−1}: z is the share of the old state, not of the new.
    kept = (1 - update) * new
    return kept if h is None else kept + update * h, c


def _rnn_cell(at: _RunningDirection, gates: Tensor, h: Tensor | None, c: Tensor) -> tuple[Tensor, Tensor]:
    return at.activations[0](at.clipped(gates + at.product(h))), c


_CELLS: dict[str, Any] = {"LSTM": _lstm_cell, "GRU": _gru_cell, "RNN": _rnn_cell}

"""Recurrent layers.

Gates are stacked in ONNX's order: input, output, forget, cell for LSTM; update, reset, hidden for GRU. The
plain forms go to torch's fused kernels, with the gates put in torch's order; the others run step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nvaudit.retrain.ops.registry import Function, Op, op

# For torch: input, forget, cell, output; and reset, update, new.
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_USUAL = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Layer:
    """One recurrent node."""

    kind: str
    hidden: int
    directions: tuple[bool, ...]  # per direction, whether it runs backwards
    names: tuple[tuple[str, ...], ...]
    activations: tuple[tuple[Activation, ...], ...]
    clip: float | None
    reset_after: bool
    coupled: bool


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


def _layer(op: Op) -> _Layer:
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
    return _Layer(
        kind=kind,
        hidden=op.attr("hidden_size"),
        directions=directions,
        names=tuple(names[i * each : (i + 1) * each] for i in count),
        activations=tuple(tuple(functions[i * each : (i + 1) * each]) for i in count),
        clip=op.attr("clip"),
        reset_after=bool(op.attr("linear_before_reset", 0)),
        coupled=bool(op.attr("input_forget", 0)),
    )


def _fusible(layer: _Layer, op: Op) -> bool:
    """Whether torch's kernel computes this layer."""
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


@op("LSTM", "GRU", "RNN", host=(4,))
def _recurrent(op: Op) -> Function:
    layer = _layer(op)
    batch_first = bool(op.attr("layout", 0))
    fused = _fusible(layer, op)
    count = len(op.node.outputs)

    def run(x: Tensor, w: Tensor, r: Tensor, *rest: Tensor | None) -> Any:
        bias, lengths, first, cell, peep = (*rest, *(None,) * 5)[:5]
        if batch_first:
            x = x.transpose(0, 1)
            first = None if first is None else first.transpose(0, 1)
            cell = None if cell is None else cell.transpose(0, 1)
        start = x.new_zeros(len(layer.directions), x.shape[1], layer.hidden)
        states = (start if first is None else first, start if cell is None else cell)
        if fused and (w.dtype == x.dtype):
            y, last, last_cell = _fused(layer, x, w, r, bias, states)
        else:
            sizes = None if lengths is None else lengths.tolist()
            y, last, last_cell = _stepped(layer, x, (w, r, bias, peep), states, sizes)
        if batch_first:
            y, last, last_cell = y.permute(2, 0, 1, 3), last.transpose(0, 1), last_cell.transpose(0, 1)
        return (y, last, last_cell)[:count] if count > 1 else y

    return run


def _fused(
    layer: _Layer, x: Tensor, w: Tensor, r: Tensor, bias: Tensor | None, states: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """All directions by torch's kernel; a lone backward one sees time turned round."""
    hidden = layer.hidden
    backward = layer.directions == (True,)
    x = x.flip(0) if backward else x
    parameters: list[Tensor] = []
    for number in range(len(layer.directions)):
        parameters += [_reordered(layer.kind, part[number]) for part in (w, r)]
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
    return y.reshape(*y.shape[:2], -1, hidden).transpose(1, 2), last, cell


def _reordered(kind: str, part: Tensor) -> Tensor:
    """Rows of a gate-stacked tensor in torch's order."""
    order = _ORDER[kind]
    if len(order) == 1:
        return part
    blocks = part.chunk(len(order))
    return torch.cat([blocks[place] for place in order])


def _stepped(
    layer: _Layer,
    x: Tensor,
    parameters: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    states: tuple[Tensor, Tensor],
    sizes: list[int] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step by step: any activation, peepholes, clipping, sequences of several lengths."""
    results = [
        _one_direction(
            layer, number, x, [None if p is None else p[number] for p in parameters], states, sizes
        )
        for number in range(len(layer.directions))
    ]
    ys, lasts, cells = zip(*results, strict=True)
    return torch.stack(ys, 1), torch.stack(lasts), torch.stack(cells)


def _one_direction(
    layer: _Layer,
    number: int,
    x: Tensor,
    parameters: list[Tensor | None],
    states: tuple[Tensor, Tensor],
    sizes: list[int] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    backward = layer.directions[number]
    h, c = states[0][number], states[1][number]
    length = x.shape[0]
    limits = None if sizes is None else torch.tensor(sizes, device=x.device).unsqueeze(-1)
    outputs: list[Tensor] = [h] * length
    for time in reversed(range(length)) if backward else range(length):
        new_h, new_c = _CELLS[layer.kind](layer, number, x[time], h, c, parameters)
        if limits is None:
            h, c, outputs[time] = new_h, new_c, new_h
            continue
        alive = time < limits
        h, c = torch.where(alive, new_h, h), torch.where(alive, new_c, c)
        outputs[time] = torch.where(alive, new_h, torch.zeros_like(new_h))
    y = torch.stack(outputs) if length else x.new_zeros(0, *h.shape)
    return y, h, c


def _clipped(layer: _Layer, x: Tensor) -> Tensor:
    return x if layer.clip is None else torch.clamp(x, -layer.clip, layer.clip)


def _lstm_cell(
    layer: _Layer, number: int, x: Tensor, h: Tensor, c: Tensor, parameters: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    w, r, bias, peep = parameters
    assert w is not None
    assert r is not None
    f, g, out = layer.activations[number]
    total = x @ w.t() + h @ r.t()
    if bias is not None:
        total = total + sum(bias.chunk(2))
    i_gate, o_gate, f_gate, new = total.chunk(4, -1)
    peeps = peep.chunk(3) if peep is not None else None
    if peeps is not None:
        i_gate, f_gate = i_gate + peeps[0] * c, f_gate + peeps[2] * c
    i_gate = f(_clipped(layer, i_gate))
    f_gate = 1 - i_gate if layer.coupled else f(_clipped(layer, f_gate))
    c = f_gate * c + i_gate * g(_clipped(layer, new))
    if peeps is not None:
        o_gate = o_gate + peeps[1] * c
    return f(_clipped(layer, o_gate)) * out(c), c


def _gru_cell(
    layer: _Layer, number: int, x: Tensor, h: Tensor, c: Tensor, parameters: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    w, r, bias, _ = parameters
    assert w is not None
    assert r is not None
    f, g = layer.activations[number]
    size = layer.hidden
    both = bias.chunk(2) if bias is not None else (w.new_zeros(3 * size),) * 2
    update_x, reset_x, new_x = (x @ w.t() + both[0]).chunk(3, -1)
    gates = h @ r[: 2 * size].t() + both[1][: 2 * size]
    update = f(_clipped(layer, update_x + gates[..., :size]))
    reset = f(_clipped(layer, reset_x + gates[..., size:]))
    if layer.reset_after:
        inner = reset * (h @ r[2 * size :].t() + both[1][2 * size :])
    else:
        inner = (reset * h) @ r[2 * size :].t() + both[1][2 * size :]
    new = g(_clipped(layer, new_x + inner))
    return (1 - update) * new + update * h, c


def _rnn_cell(
    layer: _Layer, number: int, x: Tensor, h: Tensor, c: Tensor, parameters: list[Tensor | None]
) -> tuple[Tensor, Tensor]:
    w, r, bias, _ = parameters
    assert w is not None
    assert r is not None
    total = x @ w.t() + h @ r.t()
    if bias is not None:
        total = total + sum(bias.chunk(2))
    return layer.activations[number][0](_clipped(layer, total)), c


_CELLS: dict[str, Any] = {"LSTM": _lstm_cell, "GRU": _gru_cell, "RNN": _rnn_cell}

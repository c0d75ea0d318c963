"""Cutting pieces out of tensors, and padding them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nvaudit.retrain.executor.ops.registry import Function, Op, op


def _one_slice(x: Tensor, start: int, stop: int, step: int, axis: int) -> Tensor:
    size = x.shape[axis]
    low, high, stride = slice(start, stop, step).indices(size) if step > 0 else (0, 0, 0)
    if step > 0:
        if (low, high, stride) == (0, size, 1):
            return x
        length = len(range(low, high, stride))
        if stride == 1:
            return x.narrow(axis, low, length)
        index = [slice(None)] * (axis % x.dim()) + [slice(low, high, stride)]
        return x[tuple(index)]
    # Python's own rules read -1 as the end; ONNX clamps to before the first element.
    start = min(max(start + size if start < 0 else start, -1), size - 1)
    stop = min(max(stop + size if stop < 0 else stop, -1), size - 1) if stop > -size - 1 else -1
    places = torch.tensor(list(range(start, stop, step)), dtype=torch.int64, device=x.device)
    return x.index_select(axis, places)


def _fixed(numbers: Any) -> Callable[[Any], list[int] | None]:
    return lambda arguments: None if numbers is None else list(numbers)


@op("Slice", host=(1, 2, 3, 4))
def _slice(op: Op) -> Function:
    if op.version < 10:
        given = [op.attr("starts"), op.attr("ends"), op.attr("axes"), None]
        readers: list[Callable[[Any], list[int] | None]] = [_fixed(part) for part in given]
    else:
        readers = [op.ints(index) for index in (1, 2, 3, 4)]

    def run(*arguments: Any) -> Tensor:
        x: Tensor = arguments[0]
        starts, stops, axes, steps = (read(arguments) for read in readers)
        assert starts is not None
        assert stops is not None
        axes = list(range(len(starts))) if axes is None else axes
        steps = [1] * len(starts) if steps is None else steps
        for start, stop, axis, step in zip(starts, stops, axes, steps, strict=True):
            x = _one_slice(x, start, stop, step, axis)
        return x

    return run


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@op("Pad", host=(1, 2, 3))
def _pad(op: Op) -> Function:
    mode = _PAD_MODES[str(op.attr("mode", "constant"))]
    old = op.version < 11
    fixed = op.attr("pads", op.attr("paddings")) if old else None
    read, axes_of = op.ints(1), op.ints(3)
    value_at = op.known(2)
    number = op.attr("value", 0.0) if old else (None if value_at is None else value_at.item())

    def run(*arguments: Any) -> Tensor:
        x: Tensor = arguments[0]
        pads = list(fixed) if fixed is not None else read(arguments) or []
        axes = None if old else axes_of(arguments)
        axes = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in axes]
        fill = number
        if fill is None:
            fill = arguments[2].item() if op.has(2) else 0
        befores = dict(zip(axes, pads[: len(axes)], strict=True))
        afters = dict(zip(axes, pads[len(axes) :], strict=True))
        widths = [(befores.get(axis, 0), afters.get(axis, 0)) for axis in range(x.dim())]
        return _pad_by(x, widths, mode, fill)

    return run


def _pad_by(x: Tensor, widths: list[tuple[int, int]], mode: str, fill: float) -> Tensor:
    flat = [width for pair in reversed(widths) for width in pair]
    if mode == "constant" or not any(flat):
        return F.pad(x, flat, value=fill) if any(flat) else x
    # Axis by axis through indices: torch's own modes know the last axes only.
    for axis, (before, after) in enumerate(widths):
        if before < 0 or after < 0:
            cut = x.shape[axis] + min(before, 0) + min(after, 0)
            x = x.narrow(axis, -min(before, 0), cut)
        before, after = max(before, 0), max(after, 0)
        if before or after:
            x = x.index_select(axis, _border(x.shape[axis], before, after, mode).to(x.device))
    return x


def _border(size: int, before: int, after: int, mode: str) -> Tensor:
    places = torch.arange(-before, size + after)
    if mode == "replicate":
        return places.clamp(0, size - 1)
    if mode == "circular":
        return places % size
    period = max(2 * (size - 1), 1)
    places = places % period
    return torch.where(places >= size, period - places, places)

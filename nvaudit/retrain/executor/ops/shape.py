"""Operators that move, cut and pad, and those that speak of shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nvaudit.retrain.executor.ops.registry import Function, Op, op, simple, to_tensor


@op("Reshape", host=(1,))
def _reshape(op: Op) -> Function:
    keep_zero = bool(op.attr("allowzero", 0))
    fixed = op.attr("shape")
    read = op.ints(1)
    known = list(fixed) if fixed is not None else read(()) if op.known(1) is not None else None
    if known is not None and (keep_zero or 0 not in known):
        target = tuple(known)
        return lambda x, *_: x.reshape(target)

    def run(*arguments: Any) -> Tensor:
        x = arguments[0]
        wanted = known if known is not None else read(arguments) or []
        if not keep_zero:
            wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
        return x.reshape(wanted)  # type: ignore[no-any-return]

    return run


@op("Flatten")
def _flatten(op: Op) -> Function:
    axis = op.attr("axis", 1)
    if axis == 1:
        return lambda x: x.flatten(1) if x.dim() > 1 else x.reshape(x.shape[0] if x.dim() else 1, -1)

    def run(x: Tensor) -> Tensor:
        split = axis % x.dim() if axis < 0 else axis
        rows = 1
        for size in x.shape[:split]:
            rows *= size
        return x.reshape(rows, -1) if x.numel() else x.reshape(rows, x.numel() // max(rows, 1))

    return run


@op("Squeeze", host=(1,))
def _squeeze(op: Op) -> Function:
    fixed = op.attr("axes")
    read = op.ints(1)

    def run(*arguments: Any) -> Tensor:
        axes = list(fixed) if fixed is not None else read(arguments)
        return arguments[0].squeeze() if axes is None else arguments[0].squeeze(tuple(axes))  # type: ignore[no-any-return]

    return run


@op("Unsqueeze", host=(1,))
def _unsqueeze(op: Op) -> Function:
    fixed = op.attr("axes")
    read = op.ints(1)

    def run(*arguments: Any) -> Tensor:
        x: Tensor = arguments[0]
        axes = list(fixed) if fixed is not None else read(arguments) or []
        rank = x.dim() + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return run


@op("Transpose")
def _transpose(op: Op) -> Function:
    perm = op.attr("perm")
    if perm is None:
        return lambda x: x.permute(*reversed(range(x.dim())))
    order = tuple(perm)
    return lambda x: x.permute(order)


def _broadcast(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """The shape that two shapes broadcast to."""
    rank = max(len(first), len(second))
    left = [1] * (rank - len(first)) + list(first)
    right = [1] * (rank - len(second)) + list(second)
    return [a if b == 1 else b for a, b in zip(left, right, strict=True)]


@op("Expand", host=(1,))
def _expand(op: Op) -> Function:
    read = op.ints(1)

    def run(*arguments: Any) -> Tensor:
        x: Tensor = arguments[0]
        return x.expand(_broadcast(x.shape, read(arguments) or []))

    return run


@op("Tile", host=(1, 2))
def _tile(op: Op) -> Function:
    read, axis_of = op.ints(1), op.ints(2)

    def run(*arguments: Any) -> Tensor:
        x: Tensor = arguments[0]
        times = read(arguments) or []
        if op.version < 6:  # a number of tiles and an axis
            axis = (axis_of(arguments) or [0])[0]
            times = [times[0] if position == axis else 1 for position in range(x.dim())]
        return x.repeat(times) if x.dim() else x.clone()

    return run


@op("Concat")
def _concat(op: Op) -> Function:
    axis = op.attr("axis", 1)

    def run(*values: Tensor) -> Tensor:
        kinds = {value.dtype for value in values}
        if len(kinds) > 1:  # codes of a trained weight are carried as floats
            values = tuple(value.to(torch.float32) for value in values)
        return torch.cat(values, axis)

    return run


@op("Split", host=(1,))
def _split(op: Op) -> Function:
    axis = op.attr("axis", 0)
    fixed = op.attr("split")
    read = op.ints(1)
    count = op.attr("num_outputs", len(op.node.outputs))

    def run(*arguments: Any) -> Any:
        x: Tensor = arguments[0]
        sizes = list(fixed) if fixed is not None else read(arguments)
        if sizes is None:
            # ⌈n / count⌉ each; the last part has what is left.
            step = -(-x.shape[axis] // count)
            sizes = [min(step, x.shape[axis] - step * i) for i in range(count)]
        parts = torch.split(x, sizes, axis)
        return parts if len(op.node.outputs) > 1 else parts[0]

    return run


@op("Shape")
def _shape(op: Op) -> Function:
    start, end = op.attr("start", 0), op.attr("end")
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


@op("Size")
def _size(op: Op) -> Function:
    return lambda x: torch.tensor(x.numel(), dtype=torch.int64)


@op("ConstantOfShape", host=(0,))
def _constant_of_shape(op: Op) -> Function:
    given = op.attr("value")
    fill = torch.zeros(1) if given is None else to_tensor(given).reshape(-1)
    number, dtype = fill[0].item(), fill.dtype
    return lambda shape: torch.full(shape.tolist(), number, dtype=dtype)


@op("Range", host=(0, 1, 2))
def _range(op: Op) -> Function:
    def run(start: Tensor, stop: Tensor, step: Tensor) -> Tensor:
        return torch.arange(start.item(), stop.item(), step.item(), dtype=start.dtype)

    return run


op("Trilu", host=(1,))(
    lambda op: (
        lambda x, k=None: (torch.triu if op.attr("upper", 1) else torch.tril)(
            x, 0 if k is None else int(k.item())
        )
    )
)


@op("EyeLike")
def _eye_like(op: Op) -> Function:
    from nvaudit.retrain.executor.ops.registry import DTYPE_NAMES, carrier

    dtype = carrier(DTYPE_NAMES.get(int(op.attr("dtype", 0)), ""))
    k = op.attr("k", 0)

    def run(x: Tensor) -> Tensor:
        ones = torch.ones(x.shape, dtype=torch.float32, device=x.device)
        return (torch.triu(ones, k) - torch.triu(ones, k + 1)).to(dtype or x.dtype)

    return run


@op("DepthToSpace")
def _depth_to_space(op: Op) -> Function:
    size = op.attr("blocksize")
    if str(op.attr("mode", "DCR")) == "CRD":
        return lambda x: F.pixel_shuffle(x, size)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        # DCR: channel = (row in the block, column in the block, new channel). pixel_shuffle is CRD, which
        # has the new channel first.
        blocks = x.reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return blocks.reshape(n, c // size**2, h * size, w * size)

    return run


@op("SpaceToDepth")
def _space_to_depth(op: Op) -> Function:
    size = op.attr("blocksize")
    if str(op.attr("mode", "DCR")) == "CRD":
        return lambda x: F.pixel_unshuffle(x, size)

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        # The inverse of DCR: the place in the block is the slow part of the channel's number, not the fast
        # one.
        blocks = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(n, c * size**2, h // size, w // size)

    return run


op("Optional", "OptionalGetElement")(simple(lambda x=None: x))


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
    # 0 … n − 1 … 0 without the edges twice: a triangle wave of period 2(n − 1), so that padding may be
    # wider than the input.
    period = max(2 * (size - 1), 1)
    places = places % period
    return torch.where(places >= size, period - places, places)

"""Operators that move elements, and those that speak of shapes."""

from __future__ import annotations

from collections.abc import Sequence
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
        blocks = x.reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
        return blocks.reshape(n, c * size**2, h // size, w // size)

    return run


op("Optional", "OptionalGetElement")(simple(lambda x=None: x))

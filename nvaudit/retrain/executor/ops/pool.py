"""Pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nvaudit.retrain.executor.ops.registry import Function, Op, op, simple
from nvaudit.retrain.executor.ops.window import KernelWindow, Sizes, window_of

_MAX: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}

op("GlobalMaxPool")(simple(lambda x: torch.amax(x, tuple(range(2, x.dim())), keepdim=True)))


@op("GlobalAveragePool")
def _global_average(op: Op) -> Function:
    def run(x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, 1) if x.dim() == 4 else x.mean(tuple(range(2, x.dim())), keepdim=True)

    return run


@op("GlobalLpPool")
def _global_lp(op: Op) -> Function:
    p = float(op.attr("p", 2))
    return lambda x: x.abs().pow(p).sum(tuple(range(2, x.dim())), keepdim=True).pow(1 / p)


def _extent(
    window: KernelWindow, x: Tensor, kernel: Sizes, ceil: bool
) -> tuple[list[tuple[int, int]], list[int]]:
    """Padding of each axis, and what must be added behind it for a rounded-up output."""
    sizes = tuple(x.shape[2:])
    rank = len(sizes)
    strides, dilations = window.strides_for(rank), window.dilations_for(rank)
    befores, afters = window.pads_for(sizes, kernel)
    more = []
    for axis in range(rank):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        # Window i covers i·stride … i·stride + reach − 1. The last whole one is i = ⌊free / stride⌋;
        # rounding up adds one that hangs over the end by (count − 1)·stride − free.
        free = sizes[axis] + befores[axis] + afters[axis] - reach
        count = (-(-free // strides[axis]) if ceil else free // strides[axis]) + 1
        # A window that starts in the padding behind the input is dropped.
        if ceil and (count - 1) * strides[axis] >= sizes[axis] + befores[axis]:
            count -= 1
        more.append(max((count - 1) * strides[axis] - free, 0))
    return list(zip(befores, afters, strict=True)), more


def _behind(pads: list[tuple[int, int]], more: list[int]) -> list[int]:
    # F.pad wants the last axis first.
    return [n for (a, b), m in zip(reversed(pads), reversed(more), strict=True) for n in (a, b + m)]


@op("MaxPool")
def _max_pool(op: Op) -> Function:
    window = window_of(op)
    kernel = tuple(op.attr("kernel_shape"))
    rank = len(kernel)
    ceil = bool(op.attr("ceil_mode", 0))
    strides, dilations = window.strides_for(rank), window.dilations_for(rank)
    wants_places = len(op.node.outputs) > 1 and bool(op.node.outputs[1])
    column_major = bool(op.attr("storage_order", 0))
    function = _MAX.get(rank)
    if function is None:
        raise op.refuse(f"a pool over {rank} axes")

    def run(x: Tensor) -> Any:
        kind = x.dtype
        # ONNX pools 8-bit integers too: float32 holds them exactly, and −∞ besides.
        if not x.is_floating_point():
            x = x.to(torch.float32)
        pads, more = _extent(window, x, kernel, ceil)
        symmetric = all(a == b and 2 * a <= k for (a, b), k in zip(pads, kernel, strict=True))
        if symmetric and not any(more) and not wants_places:
            return function(x, kernel, strides, [a for a, _ in pads], dilations).to(kind)
        # torch pads alike at both ends, by half a kernel at most; all else is padded here, with −∞: 0 would
        # be the largest of a window whose values are negative.
        padded = F.pad(x, _behind(pads, more), value=float("-inf"))
        y, places = function(padded, kernel, strides, 0, dilations, return_indices=True)
        return (y.to(kind), _unpadded(places, x, padded, pads, column_major)) if wants_places else y.to(kind)

    symmetric = window.befores == window.afters and not window.automatic
    if (
        symmetric
        and not ceil
        and not wants_places
        and all(2 * a <= k for a, k in zip(window.befores or (0,) * rank, kernel, strict=True))
    ):
        pads = window.befores or (0,) * rank

        def fixed(x: Tensor) -> Any:
            return function(x, kernel, strides, pads, dilations) if x.is_floating_point() else run(x)

        return fixed
    return run


def _unpadded(
    places: Tensor, x: Tensor, padded: Tensor, pads: list[tuple[int, int]], column_major: bool
) -> Tensor:
    """Places in the padded planes as ONNX counts them: over the whole input tensor."""
    sizes, wide = tuple(x.shape[2:]), tuple(padded.shape[2:])
    # torch numbers the places of one padded plane, row by row. Take the number apart, last axis first, go
    # back by the padding, and number anew in the plane without it; column-major has axis 0 as the fastest.
    coordinates: list[Tensor] = []
    for size in reversed(wide):
        coordinates.insert(0, places % size)
        places = places // size
    order = range(len(sizes)) if not column_major else reversed(range(len(sizes)))
    flat = torch.zeros_like(coordinates[0])
    for axis in order:
        flat = flat * sizes[axis] + coordinates[axis] - pads[axis][0]
    plane = 1
    for size in sizes:
        plane *= size
    # Plane (n, c) begins at (n·C + c) times the size of a plane.
    number = torch.arange(x.shape[0] * x.shape[1], device=x.device)
    return flat + number.reshape(x.shape[0], x.shape[1], *(1,) * len(sizes)) * plane


@op("AveragePool")
def _average_pool(op: Op) -> Function:
    window = window_of(op)
    kernel = tuple(op.attr("kernel_shape"))
    rank = len(kernel)
    ceil, counts = bool(op.attr("ceil_mode", 0)), bool(op.attr("count_include_pad", 0))
    strides, dilations = window.strides_for(rank), window.dilations_for(rank)
    function = _AVERAGE.get(rank)
    if function is None:
        raise op.refuse(f"a pool over {rank} axes")

    def run(x: Tensor) -> Tensor:
        pads, more = _extent(window, x, kernel, ceil)
        symmetric = all(a == b and 2 * a <= k for (a, b), k in zip(pads, kernel, strict=True))
        if symmetric and not any(more) and max(dilations, default=1) == 1:
            return function(x, kernel, strides, [a for a, _ in pads], False, counts)  # type: ignore[no-any-return]
        # Mean = Σ x / count. What is counted are the window's taps on the input, with count_include_pad
        # also those on the stated padding, and never those on what rounding up has added behind it.
        total = _window_sums(F.pad(x, _behind(pads, more)), kernel, strides, dilations)
        inside = F.pad(torch.ones_like(x[:1, :1]), _behind(pads, [0] * rank), value=float(counts))
        inside = F.pad(inside, _behind([(0, 0)] * rank, more))
        return total / _window_sums(inside, kernel, strides, dilations)

    return run


def _window_sums(x: Tensor, kernel: Sizes, strides: Sizes, dilations: Sizes) -> Tensor:
    """Sums over windows, axis by axis."""
    for axis in range(len(kernel)):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        # A sum over a box is one along each axis in turn; of the window's reach only every dilation-th is a
        # tap.
        x = x.unfold(2 + axis, reach, strides[axis])[..., :: dilations[axis]].sum(-1)
    return x


@op("LpPool")
def _lp_pool(op: Op) -> Function:
    window = window_of(op)
    kernel = tuple(op.attr("kernel_shape"))
    p = float(op.attr("p", 2))
    ceil = bool(op.attr("ceil_mode", 0))
    strides, dilations = window.strides_for(len(kernel)), window.dilations_for(len(kernel))

    def run(x: Tensor) -> Tensor:
        pads, more = _extent(window, x, kernel, ceil)
        # Padding adds 0 to Σ |x|^p, and nothing is divided by a count: padding needs no special case here.
        powers = F.pad(x.abs().pow(p), _behind(pads, more))
        return _window_sums(powers, kernel, strides, dilations).pow(1 / p)

    return run

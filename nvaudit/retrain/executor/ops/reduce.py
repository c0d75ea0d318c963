"""Reductions, and searches for the largest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nvaudit.retrain.executor.ops.registry import Function, Op, op


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    # torch.prod takes one axis; from the last on, those still to come keep their numbers without keepdims.
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep, dtype=x.dtype)
    return x


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.logsumexp(x if x.is_floating_point() else x.to(torch.float32), axes, keep)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.mean(x, axes, keep)
    return torch.mean(x.to(torch.float64), axes, keep).to(x.dtype)


def _extreme(function: Function, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Largest or smallest; of nothing, the least or the greatest number there is."""
    if x.numel():
        return function(x, axes, keep)  # type: ignore[no-any-return]
    least = function is torch.amax
    if x.dtype == torch.bool:
        fill: float = not least
    elif x.is_floating_point():
        fill = float("-inf") if least else float("inf")
    else:
        fill = torch.iinfo(x.dtype).min if least else torch.iinfo(x.dtype).max
    shape = torch.sum(x, axes, keep).shape
    return torch.full(shape, fill, dtype=x.dtype, device=x.device)


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    wide = x if x.is_floating_point() else x.to(torch.float64)
    return torch.sqrt(torch.sum(wide * wide, axes, keep)).to(x.dtype)


_REDUCTIONS: dict[str, Function] = {
    "ReduceSum": lambda x, axes, keep: torch.sum(x, axes, keep, dtype=x.dtype),
    "ReduceMean": _mean,
    "ReduceMax": lambda x, axes, keep: _extreme(torch.amax, x, axes, keep),
    "ReduceMin": lambda x, axes, keep: _extreme(torch.amin, x, axes, keep),
    "ReduceProd": _prod,
    "ReduceL1": lambda x, axes, keep: torch.sum(torch.abs(x), axes, keep, dtype=x.dtype),
    "ReduceL2": _l2,
    "ReduceSumSquare": lambda x, axes, keep: torch.sum(x * x, axes, keep, dtype=x.dtype),
    "ReduceLogSum": lambda x, axes, keep: torch.log(torch.sum(x, axes, keep)),
    "ReduceLogSumExp": _log_sum_exp,
}


@op(*_REDUCTIONS, host=(1,))
def _reduce(op: Op) -> Function:
    function = _REDUCTIONS[op.node.op_type]
    keep = bool(op.attr("keepdims", 1))
    empty_keeps = bool(op.attr("noop_with_empty_axes", 0))
    fixed = op.attr("axes")
    read = op.ints(1) if fixed is None else None

    def run(*arguments: Any) -> Tensor:
        x: Tensor = arguments[0]
        axes = list(fixed) if read is None else read(arguments)
        if not axes:
            if empty_keeps:
                axes = []
                return _without_axes(function, x)
            axes = list(range(x.dim()))
        if not axes:  # a scalar: nothing to reduce over, but the function still applies
            return _without_axes(function, x)
        return function(x, axes, keep)  # type: ignore[no-any-return]

    return run


def _without_axes(function: Function, x: Tensor) -> Tensor:
    """Reduce groups of one element."""
    return function(x.unsqueeze(-1), [-1], False)  # type: ignore[no-any-return]


@op("ArgMax", "ArgMin")
def _arg(op: Op) -> Function:
    axis, keep = op.attr("axis", 0), bool(op.attr("keepdims", 1))
    function = torch.argmax if op.node.op_type == "ArgMax" else torch.argmin
    if not op.attr("select_last_index", 0):
        return lambda x: function(x, axis, keep)
    # The last of equal values is the first of the turned axis: place p there is n − 1 − p here.
    return lambda x: x.shape[axis] - 1 - function(x.flip(axis), axis, keep)


@op("TopK", host=(1,))
def _top_k(op: Op) -> Function:
    axis = op.attr("axis", -1)
    largest, ordered = bool(op.attr("largest", 1)), bool(op.attr("sorted", 1))
    fixed = op.attr("k")
    read = op.ints(1)

    def run(*arguments: Any) -> tuple[Tensor, Tensor]:
        k = int(fixed) if fixed is not None else (read(arguments) or [1])[0]
        x = arguments[0]
        if not ordered:
            return tuple(torch.topk(x, k, axis, largest, False))  # type: ignore[return-value]
        # Equal values keep their order, which topk does not promise.
        values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
        return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)

    return run

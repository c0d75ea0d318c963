"""Operators that pick elements by index, or put them there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nvaudit.retrain.executor.ops.registry import Function, Op, op


def _positive(indices: Tensor, size: int) -> Tensor:
    """Count negative indices from the end."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


@op("Gather")
def _gather(op: Op) -> Function:
    axis = op.attr("axis", 0)
    known = op.known(1)
    if known is not None and known.ndim == 0:
        place = int(known)
        return lambda x, _: x.select(axis, place)

    def run(x: Tensor, indices: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            return x[indices]
        at = axis % x.dim()
        places = _positive(indices, x.shape[at])
        if places.dim() == 0:
            return x.index_select(at, places.reshape(1)).squeeze(at)
        # Rows of a table: the gradient of an embedding adds up rows that are taken more than once, and is
        # faster.
        if at == 0 and x.dim() == 2 and x.is_floating_point():
            return F.embedding(places, x)
        picked = x.index_select(at, places.reshape(-1))
        return picked.reshape(x.shape[:at] + places.shape + x.shape[at + 1 :])

    return run


@op("GatherElements")
def _gather_elements(op: Op) -> Function:
    axis = op.attr("axis", 0)
    return lambda x, indices: torch.gather(x, axis, _positive(indices, x.shape[axis]))


def _flat_places(indices: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Linear places of coordinates along the leading axes."""
    places = torch.zeros_like(indices[..., 0], dtype=torch.int64)
    for position, size in enumerate(sizes):
        # Horner's scheme: ((i₀ n₁ + i₁) n₂ + i₂) …, the place in row-major order.
        places = places * size + _positive(indices[..., position], size)
    return places


@op("GatherND")
def _gather_nd(op: Op) -> Function:
    batch = op.attr("batch_dims", 0)

    def run(x: Tensor, indices: Tensor) -> Tensor:
        lead, depth = indices.shape[:batch], indices.shape[-1]
        sizes = tuple(x.shape[batch : batch + depth])
        rest = tuple(x.shape[batch + depth :])
        rows = x.reshape(-1, *x.shape[batch:]) if batch else x.unsqueeze(0)
        table = rows.reshape(rows.shape[0], -1, *rest)
        places = _flat_places(indices, sizes).reshape(table.shape[0], -1)
        # Row b of the table is read at the places of row b of the indices only.
        each = torch.arange(table.shape[0], device=x.device).unsqueeze(1)
        return table[each, places].reshape(*lead, *indices.shape[batch:-1], *rest)

    return run


_REDUCED = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@op("ScatterElements", "Scatter")
def _scatter_elements(op: Op) -> Function:
    axis, reduction = op.attr("axis", 0), str(op.attr("reduction", "none"))

    def run(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        places = _positive(indices, x.shape[axis])
        if reduction == "none":
            return x.scatter(axis, places, updates)
        return x.scatter_reduce(axis, places, updates, _REDUCED[reduction])

    return run


@op("ScatterND")
def _scatter_nd(op: Op) -> Function:
    reduction = str(op.attr("reduction", "none"))

    def run(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        depth = indices.shape[-1]
        rest = tuple(x.shape[depth:])
        table = x.reshape(-1, *rest)
        places = _flat_places(indices, tuple(x.shape[:depth])).reshape(-1)
        new = updates.reshape(-1, *rest)
        if reduction == "none":
            return table.index_put((places,), new).reshape(x.shape)
        # scatter_reduce wants a place for every element, not one for a row.
        wide = places.reshape(-1, *(1,) * len(rest)).expand(new.shape)
        return table.scatter_reduce(0, wide, new, _REDUCED[reduction]).reshape(x.shape)

    return run


@op("OneHot", host=(1,))
def _one_hot(op: Op) -> Function:
    axis = op.attr("axis", -1)

    def run(indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        count = int(depth.reshape(-1)[0].item())
        at = axis % (indices.dim() + 1)
        places = _positive(indices, count).unsqueeze(at)
        shape = [1] * places.dim()
        shape[at] = count
        each = torch.arange(count, device=places.device).reshape(shape)
        return torch.where(places == each, values[1], values[0])

    return run


@op("NonZero")
def _non_zero(op: Op) -> Function:
    return lambda x: torch.nonzero(x).t().contiguous()


@op("Compress")
def _compress(op: Op) -> Function:
    axis = op.attr("axis")

    def run(x: Tensor, condition: Tensor) -> Tensor:
        x = x.reshape(-1) if axis is None else x
        return x.index_select(axis or 0, torch.nonzero(condition).reshape(-1))

    return run


@op("ReverseSequence", host=(1,))
def _reverse_sequence(op: Op) -> Function:
    time, batch = op.attr("time_axis", 0), op.attr("batch_axis", 1)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        sizes = lengths.tolist()
        rows = []
        for number, size in enumerate(sizes):
            row = x.select(batch, number)
            # The row has lost its batch axis: a time axis behind it moves up by one.
            at = time - (time > batch)
            tail = row.narrow(at, size, row.shape[at] - size)
            rows.append(torch.cat([row.narrow(at, 0, size).flip(at), tail], at))
        return torch.stack(rows, batch)

    return run


@op("SequenceConstruct")
def _sequence(op: Op) -> Function:
    return lambda *values: list(values)


@op("SequenceEmpty")
def _empty(op: Op) -> Function:
    return list


@op("SequenceAt", host=(1,))
def _at(op: Op) -> Function:
    return lambda values, place: values[int(place.item())]


@op("SequenceInsert", host=(2,))
def _insert(op: Op) -> Function:
    def run(values: list[Any], value: Any, place: Tensor | None = None) -> list[Any]:
        at = len(values) if place is None else int(place.item())
        return [*values[:at], value, *values[at:]] if at else [value, *values]

    return run


@op("SequenceErase", host=(1,))
def _erase(op: Op) -> Function:
    def run(values: list[Any], place: Tensor | None = None) -> list[Any]:
        at = len(values) - 1 if place is None else int(place.item()) % len(values)
        return [*values[:at], *values[at + 1 :]]

    return run


@op("SequenceLength")
def _length(op: Op) -> Function:
    return lambda values: torch.tensor(len(values), dtype=torch.int64)


@op("SplitToSequence", host=(1,))
def _split_to_sequence(op: Op) -> Function:
    axis, keep = op.attr("axis", 0), bool(op.attr("keepdims", 1))

    def run(x: Tensor, split: Tensor | None = None) -> list[Tensor]:
        if split is None:
            return [part if keep else part.squeeze(axis) for part in torch.split(x, 1, axis)]
        sizes = split.tolist()
        return list(torch.split(x, sizes, axis))

    return run


@op("ConcatFromSequence")
def _concat_from_sequence(op: Op) -> Function:
    axis, new = op.attr("axis"), op.attr("new_axis", 0)
    return lambda values: torch.stack(values, axis) if new else torch.cat(values, axis)

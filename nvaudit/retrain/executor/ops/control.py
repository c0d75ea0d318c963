"""If, Loop and Scan.

A compiled body takes its own inputs and then what it reads from outside, and returns its outputs as a list.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nvaudit.retrain.executor.ops.registry import Function, Op, op


def truth(value: Any) -> bool:
    """A condition as a Python truth value."""
    return bool(value.reshape(-1)[0].item()) if isinstance(value, Tensor) else bool(value)


def _returned(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


@op("If", host=(0,), pure=False)
def _if(op: Op) -> Function:
    assert op.body is not None
    known = op.known(0)
    if known is not None:  # the other branch need not even be supported
        only = op.body(op.attr("then_branch" if known.reshape(-1)[0] else "else_branch"))
        return lambda _, *outside: _returned(only([], outside))
    then, other = op.body(op.attr("then_branch")), op.body(op.attr("else_branch"))

    # Which branch runs, and how often a loop does, is no function that has a gradient; what the chosen branch
    # computes has one, and only that one.
    def run(condition: Tensor, *outside: Any) -> Any:
        return _returned((then if truth(condition) else other)([], outside))

    return run


@op("Loop", host=(0, 1), pure=False)
def _loop(op: Op) -> Function:
    assert op.body is not None
    graph = op.attr("body")
    body = op.body(graph)
    given = len(op.node.inputs)
    carried = len(graph.inputs) - 2

    def run(*arguments: Any) -> Any:
        limit, condition, *rest = arguments[:given]
        outside = arguments[given:]
        values = list(rest)
        count = int(limit.reshape(-1)[0].item()) if limit is not None else None
        going = condition is None or truth(condition)
        collected: list[list[Any]] = [[] for _ in graph.outputs[1 + carried :]]
        step = 0
        while going and (count is None or step < count):
            flag = torch.tensor(True)
            results = body([torch.tensor(step, dtype=torch.int64), flag, *values], outside)
            going = truth(results[0])
            values = list(results[1 : 1 + carried])  # the gradient goes back through every step
            for rows, row in zip(collected, results[1 + carried :], strict=True):
                rows.append(row)
            step += 1
        return _returned([*values, *(_stacked(rows, 0, False) for rows in collected)])

    return run


def _stacked(rows: list[Any], axis: int, backward: bool) -> Any:
    if not rows:
        # No step was made: nothing tells the shape of a row, and what reads the result can read only its
        # length, 0.
        return torch.zeros(0)
    return torch.stack(rows[::-1] if backward else rows, axis)


@op("Scan", pure=False)
def _scan(op: Op) -> Function:
    assert op.body is not None
    graph = op.attr("body")
    body = op.body(graph)
    scanned = op.attr("num_scan_inputs")
    old = op.version < 9
    given = len(op.node.inputs)
    states = len(graph.inputs) - scanned
    outputs = len(graph.outputs) - states

    def flags(name: str, count: int) -> list[int]:
        return list(op.attr(name) or [0] * count)

    backward = flags("directions" if old else "scan_input_directions", scanned)
    backward_out = [0] * outputs if old else flags("scan_output_directions", outputs)
    axes = [0] * scanned if old else flags("scan_input_axes", scanned)
    axes_out = [0] * outputs if old else flags("scan_output_axes", outputs)

    def once(values: list[Any], series: list[Tensor], outside: tuple[Any, ...]) -> list[Any]:
        length = series[0].shape[axes[0]] if series else 0
        rows: list[list[Any]] = [[] for _ in range(outputs)]
        for step in range(length):
            now = [
                part.select(axis, length - 1 - step if back else step)
                for part, axis, back in zip(series, axes, backward, strict=True)
            ]
            results = body([*values, *now], outside)
            values = list(results[:states])
            for kept, row in zip(rows, results[states:], strict=True):
                kept.append(row)
        stacked = [
            _stacked(kept, axis, bool(back))
            for kept, axis, back in zip(rows, axes_out, backward_out, strict=True)
        ]
        return [*values, *stacked]

    def run(*arguments: Any) -> Any:
        own, outside = arguments[:given], arguments[given:]
        if not old:
            return _returned(once(list(own[:states]), list(own[states:]), outside))
        lengths, *rest = own
        if lengths is not None:
            raise op.refuse("a scan over sequences of several lengths")
        batches = [
            once([v[n] for v in rest[:states]], [v[n] for v in rest[states:]], outside)
            for n in range(rest[0].shape[0])
        ]
        return _returned([torch.stack(parts) for parts in zip(*batches, strict=True)])

    return run

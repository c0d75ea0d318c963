"""Activations of few bits while training: what enters a weight's operator is rounded first.

An ONNX file has no place for a converter's resolution, so the audit of the result does not round
activations; training with it makes room for the converters that will.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nvaudit.retrain.quant import quantise_activation

if TYPE_CHECKING:
    from nvaudit.retrain.executor.module import Executor

_FIRST = frozenset({"Conv", "ConvTranspose", "Gemm", "LSTM", "GRU", "RNN"})
"""Operators whose first input is the activation."""


def round_activations(executor: Executor, bits: int) -> int:
    """Make an executor round the activations that enter products, with straight-through gradients.

    Parameters
    ----------
    executor : Executor
        Changed in place: its parameters stay shared with nobody else's.
    bits : int

    Returns
    -------
    int
        Operators whose input is rounded.
    """
    program = executor._program
    weights = {slot for *_, outputs, _, _ in program.weight_steps for slot in _slots(outputs)}
    weights |= set(executor._slots.values())
    steps, count = [], 0
    for function, inputs, outputs, dead, node in program.data_steps:
        kind = "" if node is None else node.op_type
        which = [0] if kind in _FIRST else []
        if kind == "MatMul":
            which = [i for i, slot in enumerate(inputs) if slot not in weights]
        count += bool(which)
        rounded = _rounding(function, which, bits) if which else function
        steps.append((rounded, inputs, outputs, dead, node))
    executor._program = replace(program, data_steps=steps)
    return count


def _slots(outputs: int | tuple[int, ...]) -> tuple[int, ...]:
    return (outputs,) if isinstance(outputs, int) else outputs


def _rounding(function: Callable[..., Any], which: list[int], bits: int) -> Callable[..., Any]:
    def run(*inputs: Any) -> Any:
        given = list(inputs)
        for i in which:
            if given[i].is_floating_point():
                given[i] = quantise_activation(given[i], bits)
        return function(*given)

    return run

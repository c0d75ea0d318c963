"""Does a gradient pass from the trained output to the weights? Asked before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nvaudit.errors import ModelError
from nvaudit.retrain.executor.before import upstream
from nvaudit.retrain.executor.module import Executor


def check_finite(executor: Executor, inputs: Mapping[str, Any], output: str) -> None:
    """Refuse an output that overflows before anything is trained: it has no gradient, and no copy agrees.

    Raises
    ------
    ModelError
    """
    mode = executor.training
    executor.eval()
    try:
        with torch.no_grad():
            scores = executor(inputs)[output]
    finally:
        executor.train(mode)
    if isinstance(scores, Tensor) and not bool(torch.isfinite(scores).all()):
        raise ModelError(
            f"{executor.network.path}: the output {output!r} of the given model is NaN or infinite on the "
            "data, so it has no gradient; check the scale of weights and data"
        )


def check_gradient(executor: Executor, inputs: Mapping[str, Any], output: str) -> tuple[str, ...]:
    """Find the weights that no gradient of the output reaches.

    Parameters
    ----------
    executor : Executor
        Left in the mode that it was in.
    inputs : mapping of str to Tensor
        One batch.
    output : str
        The trained one.

    Returns
    -------
    tuple of str
        Their keys.

    Raises
    ------
    ModelError
        If it reaches none; the message names the node where it stops.
    """
    parameters = {key: executor.weights[key] for key in executor.mapped if key in executor.weights}
    weights = {key: tensor for key, tensor in parameters.items() if tensor.requires_grad}
    mode = executor.training
    executor.eval()
    try:
        with torch.enable_grad():
            values = executor.trace(inputs)
            found: Sequence[Tensor | None] = [None] * len(weights)
            scores = values.get(output)
            if scores is not None and scores.requires_grad:
                found = torch.autograd.grad(scores.sum(), list(weights.values()), allow_unused=True)
    finally:
        executor.train(mode)
    unreached = tuple(key for key, gradient in zip(weights, found, strict=True) if gradient is None)
    stopped = isinstance(scores, Tensor) and not scores.requires_grad
    if stopped or (weights and len(unreached) == len(weights)):
        raise ModelError(f"{executor.network.path}: {_where(executor, values, output)}")
    return unreached


def _where(executor: Executor, values: Mapping[str, Tensor], output: str) -> str:
    """Where the gradient stops, in words."""
    cure = (
        "choose another output with --output-name, export the model without it, or use a method that needs "
        "no training"
    )

    def carries(name: str) -> bool:
        return name in values and values[name].requires_grad

    for node in reversed(upstream(executor.network.graph.nodes, [output])):
        if any(map(carries, node.inputs)) and not any(map(carries, node.outputs)):
            return (
                f"no gradient passes node {node.name!r} ({node.op_type}), which stands between the weights "
                f"and the output {output!r}: it rounds, counts or chooses; {cure}"
            )
    return f"the output {output!r} depends on no weight that is trained; {cure}"

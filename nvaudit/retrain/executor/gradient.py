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
    """Find the weights that no gradient of the output reaches on some data.

    Rounding (Floor, Round, Sign) has a gradient that is zero everywhere. So that sums which cancel (those of
    a softmax) are not taken for it, the outputs are weighted by fixed random numbers.

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
    behind = {key: executor.behind(key) for key in executor.mapped}
    behind = {key: trained for key, trained in behind.items() if trained}
    parameters = list(dict.fromkeys(tensor for trained in behind.values() for tensor in trained))
    mode = executor.training
    executor.eval()
    try:
        with torch.enable_grad():
            values = executor.trace(inputs)
            found: Sequence[Tensor | None] = [None] * len(parameters)
            scores = values.get(output)
            if parameters and scores is not None and scores.requires_grad:
                total = _mixed(scores)
                found = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)
            reached = {
                one
                for one, gradient in zip(parameters, found, strict=True)
                if gradient is not None and bool((gradient != 0).any())  # NaN is for others to say
            }
            if behind and not reached:
                raise ModelError(f"{executor.network.path}: {_where(executor, values, output)}")
    finally:
        executor.train(mode)
    if isinstance(scores, Tensor) and not scores.requires_grad:
        raise ModelError(f"{executor.network.path}: {_where(executor, values, output)}")
    return tuple(key for key, trained in behind.items() if reached.isdisjoint(trained))


def _mixed(scores: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    signs = torch.randn(scores.shape, generator=generator).to(scores.device)
    return (scores.abs() if scores.is_complex() else scores * signs).sum()


def _where(executor: Executor, values: Mapping[str, Tensor], output: str) -> str:
    """Where the gradient stops, in words."""
    cure = (
        "choose another output with --output-name, export the model without it, or use a method that needs "
        "no training"
    )

    def carries(name: str) -> bool:
        return name in values and values[name].requires_grad

    live = _live(values, output)
    for node in reversed(upstream(executor.network.graph.nodes, [output])):
        if not any(map(carries, node.inputs)):
            continue
        lost = not any(map(carries, node.outputs))
        if lost or (not live.isdisjoint(node.outputs) and live.isdisjoint(node.inputs)):
            return (
                f"no gradient passes node {node.name!r} ({node.op_type}), which stands between the weights "
                f"and the output {output!r}: it rounds, counts or chooses, or is flat on all data; {cure}"
            )
    return f"the output {output!r} depends on no weight that is trained; {cure}"


def _live(values: Mapping[str, Tensor], output: str) -> set[str]:
    """Values that the output's gradient with respect to is not zero."""
    scores = values.get(output)
    if scores is None or not scores.requires_grad:
        return set()
    passed = {name: value for name, value in values.items() if value.requires_grad}
    with torch.enable_grad():
        found = torch.autograd.grad(
            _mixed(scores), list(passed.values()), allow_unused=True, retain_graph=True
        )
    pairs = zip(passed, found, strict=True)
    return {name for name, gradient in pairs if gradient is not None and bool((gradient != 0).any())}

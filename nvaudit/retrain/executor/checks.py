"""Before any training: the torch module is the model's function, and a gradient reaches its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nvaudit.arrays import Array
from nvaudit.errors import ModelError
from nvaudit.model.graph import Network
from nvaudit.model.load import LoadedModel
from nvaudit.model.message import whole_message
from nvaudit.model.probe import expose, inner_values
from nvaudit.perturb.session import literal_session, run_session
from nvaudit.retrain.executor.before import upstream, with_bodies
from nvaudit.retrain.executor.module import Executor
from nvaudit.retrain.executor.ops.registry import HALVES

# Relative to the largest magnitude of a value, not to each number: sums in another order err by the size of
# their terms, and a number near zero has no size of its own.
TOLERANCE = 1e-4
"""Of a value's largest magnitude, for float32 graphs: sums in another order, through many layers."""

HALF_TOLERANCE = 2e-2
"""Where the graph computes in half precision, which we do in float32."""

GRID_TOLERANCE = 5e-2
"""Where activations are quantised: a tie may be rounded to the other side, a step of 1/256 of the range."""


@dataclass(frozen=True)
class Parity:
    """A comparison that held.

    Attributes
    ----------
    error : float
        Largest difference of an output, as a share of the output's largest magnitude.
    """

    error: float
    tolerance: float


def check_parity(
    executor: Executor,
    loaded: LoadedModel,
    inputs: Mapping[str, Array],
    *,
    tolerance: float | None = None,
) -> Parity:
    """Compare the executor with ONNX Runtime on some data.

    Parameters
    ----------
    executor : Executor
        Untrained; it is compared in evaluation mode and left in the mode that it was in.
    loaded : LoadedModel
        The model that it was built from.
    inputs : mapping of str to ndarray
        One batch of data.
    tolerance : float, optional
        Largest difference, as a share of the largest magnitude; by default 1e-4, more where the model
        quantises activations or uses half precision.

    Returns
    -------
    Parity
        The largest difference found.

    Raises
    ------
    ModelError
        If they differ by more; the message names the first node whose result differs.
    """
    allowed = tolerance_of(executor.network) if tolerance is None else tolerance
    message = whole_message(loaded)
    names = executor.outputs
    wanted = _run(message, names, inputs)
    mode = executor.training
    executor.eval()
    try:
        with torch.no_grad():
            outputs = executor(_tensors(inputs))
            error = max((difference(wanted[name], outputs[name]) for name in names), default=0.0)
            if not error <= allowed:
                raise _divergence(executor, loaded.path, message, inputs, allowed, error)
    finally:
        executor.train(mode)
    return Parity(error, allowed)


def tolerance_of(network: Network) -> float:
    """The default tolerance of a network."""
    operators = {inner.op_type for node in network.graph.nodes for inner in with_bodies(node)}
    if operators & {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm"}:
        return GRID_TOLERANCE
    if any(stored.dtype in HALVES for stored in network.stored):
        return HALF_TOLERANCE
    return TOLERANCE


def difference(wanted: Any, ours: Any) -> float:
    """Largest difference as a share of the largest magnitude; infinite where shapes differ."""
    if isinstance(wanted, list) and wanted and isinstance(wanted[0], dict):
        wanted = np.array([list(row.values()) for row in wanted])  # ZipMap
    if not isinstance(wanted, np.ndarray) or not isinstance(ours, torch.Tensor):
        return 0.0  # sequences and text are not compared
    theirs = wanted.astype(np.float64)
    ours = ours.detach().cpu().to(torch.float64).numpy()
    if theirs.shape != ours.shape:
        return float("inf")
    same = (theirs == ours) | (np.isnan(theirs) & np.isnan(ours))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(theirs - ours)).max()
    # A share of the largest, not element by element: what is near 0 is left of sums that cancel, and has
    # the rounding errors of their terms.
    finite = np.abs(theirs[np.isfinite(theirs)])
    size = float(finite.max()) if finite.size else 0.0
    return float(gap) / max(size, 1e-30) if np.isfinite(gap) else float("inf")


def _divergence(
    executor: Executor, path: Path, message: bytes, inputs: Mapping[str, Array], allowed: float, error: float
) -> ModelError:
    """Name the first node whose result differs."""
    data, outputs = expose(message, inner_values(message))
    wanted = _run(data, [name for name in outputs if name not in inputs], inputs)
    values = executor.trace(_tensors(inputs))
    text = f"{path}: in torch an output differs from ONNX Runtime's by {error:.1e} of its range"
    for node in executor.network.graph.nodes:
        for name in node.outputs:
            if name in values and name in wanted and not difference(wanted[name], values[name]) <= allowed:
                gap = difference(wanted[name], values[name])
                return ModelError(
                    f"{text}, more than {allowed:.1e}; the first node that differs is {node.name!r} "
                    f"({node.op_type}), by {gap:.1e}; use a method that needs no training, and report this"
                )
    return ModelError(
        f"{text}, more than {allowed:.1e}, though no single node does: differences add up; "
        "use a method that needs no training"
    )


def _tensors(inputs: Mapping[str, Array]) -> dict[str, Any]:
    """Inputs as the executor takes them; text stays text."""
    return {
        name: torch.from_numpy(np.array(a)) if a.dtype.kind in "biufc" else a for name, a in inputs.items()
    }


def _run(data: bytes, names: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Any]:
    """Run a model literally, without the rewrites that change what is rounded where."""
    return dict(zip(names, run_session(literal_session(data), list(names), inputs), strict=True))


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
            gradients: Sequence[Tensor | None] = [None] * len(parameters)
            scores = values.get(output)
            if parameters and scores is not None and scores.requires_grad:
                total = _mixed(scores)
                gradients = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)
            # A gradient that is zero everywhere reaches nothing: rounding gives that, and so does a branch
            # that the data never take.
            reached = {
                one
                for one, gradient in zip(parameters, gradients, strict=True)
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
    # Weighted, since a plain sum may be constant (of a softmax it is 1), whatever the weights are.
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
        gradients = torch.autograd.grad(
            _mixed(scores), list(passed.values()), allow_unused=True, retain_graph=True
        )
    pairs = zip(passed, gradients, strict=True)
    return {name for name, gradient in pairs if gradient is not None and bool((gradient != 0).any())}

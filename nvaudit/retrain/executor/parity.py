"""Is the torch module the same function as the model in ONNX Runtime? Asked before any training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nvaudit.errors import ModelError
from nvaudit.model.graph import Graph, Network, Node
from nvaudit.model.load import LoadedModel
from nvaudit.model.message import whole_message
from nvaudit.model.probe import expose, inner_values
from nvaudit.perturb.session import literal_session, run_session
from nvaudit.retrain.executor.module import Executor
from nvaudit.retrain.executor.ops.registry import HALVES, Array

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
    tolerance : float
        What was allowed.
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
            found = executor(_tensors(inputs))
            error = max((difference(wanted[name], found[name]) for name in names), default=0.0)
            if not error <= allowed:
                raise _divergence(executor, loaded.path, message, inputs, allowed, error)
    finally:
        executor.train(mode)
    return Parity(error, allowed)


def tolerance_of(network: Network) -> float:
    """The default tolerance of a network."""
    operators = {node.op_type for node in _all_nodes(network.graph)}
    if operators & {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm"}:
        return GRID_TOLERANCE
    if any(stored.dtype in HALVES for stored in network.stored):
        return HALF_TOLERANCE
    return TOLERANCE


def difference(wanted: Any, found: Any) -> float:
    """Largest difference as a share of the largest magnitude; infinite where shapes differ."""
    if isinstance(wanted, list) and wanted and isinstance(wanted[0], dict):
        wanted = np.array([list(row.values()) for row in wanted])  # ZipMap
    if not isinstance(wanted, np.ndarray) or not isinstance(found, torch.Tensor):
        return 0.0  # sequences and text are not compared
    theirs = wanted.astype(np.float64)
    ours = found.detach().cpu().to(torch.float64).numpy()
    if theirs.shape != ours.shape:
        return float("inf")
    same = (theirs == ours) | (np.isnan(theirs) & np.isnan(ours))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(theirs - ours)).max()
    finite = np.abs(theirs[np.isfinite(theirs)])
    size = float(finite.max()) if finite.size else 0.0
    return float(gap) / max(size, 1e-30) if np.isfinite(gap) else float("inf")


def _divergence(
    executor: Executor, path: Path, message: bytes, inputs: Mapping[str, Array], allowed: float, error: float
) -> ModelError:
    """Name the first node whose result differs."""
    data, outputs = expose(message, inner_values(message))
    wanted = _run(data, [name for name in outputs if name not in inputs], inputs)
    found = executor.trace(_tensors(inputs))
    text = f"{path}: in torch an output differs from ONNX Runtime's by {error:.1e} of its range"
    for node in executor.network.graph.nodes:
        for name in node.outputs:
            if name in found and name in wanted and not difference(wanted[name], found[name]) <= allowed:
                gap = difference(wanted[name], found[name])
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


def _all_nodes(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        yield node
        for value in node.attributes.values():
            if isinstance(value, Graph):
                yield from _all_nodes(value)

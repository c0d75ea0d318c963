"""Which part of a network is trained: without what its output does not need, after what has no weights.

A gradient has to pass from the trained output to the weights. Nodes that the output does not depend on, and
nodes that depend on inputs only, need none: the first are left out, and of the second those that torch does
not have (spectra, text, label encoders, random draws), with what they need, are run by ONNX Runtime. A
network whose operators are all supported is left whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nvaudit.errors import ModelError
from nvaudit.model.graph import Graph, Network, Node
from nvaudit.model.load import LoadedModel
from nvaudit.model.message import part_message
from nvaudit.perturb.session import literal_session, run_session
from nvaudit.retrain.executor.ops.registry import supported, to_tensor


class Before:
    """Runs the part of a model that stands in front of its weights, in ONNX Runtime.

    Every run begins with a new session where the part draws random numbers: its draws are then the same for
    every batch, and a training that is resumed goes on as if it had not been cut off.
    """

    def __init__(self, loaded: LoadedModel, names: Sequence[str], *, fresh: bool) -> None:
        self._names, self._fresh = list(names), fresh
        self._data, self._inputs = part_message(loaded, names)
        self._session: Any = None

    def __call__(self, inputs: Mapping[str, Any], device: torch.device) -> dict[str, Tensor]:
        """Values at the cut, by name, where the parameters are."""
        if self._session is None or self._fresh:
            self._session = literal_session(self._data)
        given = {name: inputs[name] for name in self._inputs}
        feeds = {n: v.detach().cpu().numpy() if isinstance(v, Tensor) else v for n, v in given.items()}
        values = run_session(self._session, self._names, feeds)
        return {name: _tensor(a, device) for name, a in zip(self._names, values, strict=True)}

    def __deepcopy__(self, memo: dict[int, Any]) -> Before:
        """Share it: it has no state that a run leaves behind."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session out: it is made again where it is needed."""
        return {**self.__dict__, "_session": None}


def _tensor(array: Any, device: torch.device) -> Any:
    value = to_tensor(array) if isinstance(array, np.ndarray) else array
    return value.to(device) if isinstance(value, Tensor) and value.is_floating_point() else value


@dataclass(frozen=True)
class Trained:
    """What is trained of a network.

    Attributes
    ----------
    network : Network
        The nodes that torch runs; values at the cut are inputs.
    cut : tuple of str
        These values.
    random : bool
        Whether what is before the cut draws random numbers.
    """

    network: Network
    cut: tuple[str, ...] = ()
    random: bool = False


def trained_part(
    network: Network,
    trained: Collection[str],
    outputs: Sequence[str] | None,
    refused: Collection[str],
    draws: Mapping[str, str],
) -> Trained:
    """Leave out and cut off what torch does not have and need not run.

    Parameters
    ----------
    trained : collection of str
        Names of the stored tensors that are trained or get noise.
    outputs : sequence of str, optional
        Outputs that are needed; by default all.
    refused : collection of str
        Names of the nodes, at any depth, that torch cannot run.
    draws : mapping of str to str
        Nodes whose results differ from run to run, by name, in words.

    Returns
    -------
    Trained
        The network itself where no node is refused.

    Raises
    ------
    ModelError
        If a random node stands behind a weight.
    """

    def obstacle(node: Node) -> bool:
        return any(inner.name in refused for inner in with_bodies(node))

    graph = network.graph
    if not any(map(obstacle, graph.nodes)):
        return Trained(network)
    wanted = list(graph.outputs if outputs is None else outputs)
    nodes = upstream(graph.nodes, wanted)
    # A refused node that no weight stands before needs no gradient: it runs in ONNX Runtime, with all that it
    # needs. What those nodes hand over to the others is the cut, and is an input of the part that torch runs.
    behind = _downstream(nodes, trained)
    for node in nodes:
        if obstacle(node) and not behind.isdisjoint(node.outputs):
            _refuse_draws(network, node, draws)
    first = [node for node in nodes if obstacle(node) and behind.isdisjoint(node.outputs)]
    before = upstream(nodes, [name for node in first for name in node.outputs])
    chosen = {id(node) for node in before}
    rest = [node for node in nodes if id(node) not in chosen]
    # Only what somebody reads is handed over: an input of the part that torch runs costs a copy in every
    # step.
    used = {name for node in rest for name in _read(node)} | set(wanted)
    cut = tuple(name for node in before for name in node.outputs if name and name in used)
    return Trained(
        replace(network, graph=Graph((*graph.inputs, *cut), tuple(wanted), tuple(rest))),
        cut,
        any(inner.name in draws for node in before for inner in with_bodies(node)),
    )


def _refuse_draws(network: Network, node: Node, draws: Mapping[str, str]) -> None:
    for inner in with_bodies(node):
        if inner.name in draws:
            raise ModelError(
                f"{network.path}: node {inner.name!r}: operator {draws[inner.name]} behind the first weight "
                "makes results differ from run to run and cannot be trained; export the model in evaluation "
                "mode (model.eval() in torch), or use a method that needs no training; operators that are "
                f"trained are: {', '.join(supported())}"
            )


def with_bodies(node: Node) -> Iterator[Node]:
    """The node and those in its bodies."""
    yield node
    for value in node.attributes.values():
        if isinstance(value, Graph):
            for inside in value.nodes:
                yield from with_bodies(inside)


def _read(node: Node) -> Iterator[str]:
    """Names that a node reads, in its bodies too."""
    for inner in with_bodies(node):
        yield from (name for name in inner.inputs if name)
        for value in inner.attributes.values():
            if isinstance(value, Graph):
                yield from value.outputs


def upstream(nodes: Sequence[Node], names: Sequence[str]) -> list[Node]:
    """The nodes that some values depend on, in order."""
    needed, before = set(names), []
    # Nodes are in topological order, so one walk from the end is enough: whoever makes a needed value
    # stands before all who need it.
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(_read(node))
            before.append(node)
    return before[::-1]


def _downstream(nodes: Sequence[Node], names: Collection[str]) -> set[str]:
    """The values that depend on some others, these included."""
    reached = set(names)
    for node in nodes:
        if not reached.isdisjoint(_read(node)):
            reached.update(name for name in node.outputs if name)
    return reached

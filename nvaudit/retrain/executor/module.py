"""Any ONNX graph as a trainable torch module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from nvaudit.arrays import Array
from nvaudit.errors import DataError, ModelError
from nvaudit.model.graph import Network, read_network
from nvaudit.model.layout import UNMOVED, Layout
from nvaudit.model.load import LoadedModel
from nvaudit.model.settle import COMPUTED
from nvaudit.retrain.executor.before import Before, trained_part
from nvaudit.retrain.executor.compile import Compiler
from nvaudit.retrain.executor.leaves import Leaves, Trainable, computed_places, integer_outputs, train_default
from nvaudit.retrain.executor.ops.registry import HALVES, RunState, find
from nvaudit.retrain.executor.program import ProgramStep, RefusedNode, arranged, run_steps


def build_executor(
    loaded: LoadedModel, *, trainable: Trainable = train_default, outputs: Sequence[str] | None = None
) -> Executor:
    """Turn a model into a torch module.

    Parameters
    ----------
    loaded : LoadedModel
        The model; it is not changed.
    trainable : callable
        Given a stored tensor, whether it is trained. Weights that are not still become parameters,
        without gradient, so that noise can be put on them.
    outputs : sequence of str, optional
        Outputs that are needed; by default all. What they do not depend on is left out where torch does not
        have it.

    Returns
    -------
    Executor
        In training mode, as a new torch module is.

    Raises
    ------
    ModelError
        If an operator is not supported: the message names the node and lists those that are.
    """
    network = read_network(loaded, knows=lambda domain, name: find(domain, name) is not None)
    parts = ("weight", "statistic")
    trained = {stored.name for stored in network.stored if trainable(stored) or stored.part in parts}
    draws = {draw.label: draw.what for draw in loaded.draws if not draw.by_batch}
    # A Dropout in training mode is an operator that torch has, and none whose results can be compared.
    refused = {draw.label for draw in loaded.draws if draw.node.op_type == "Dropout"}
    while True:
        part = trained_part(network, trained, outputs, refused, draws)
        before = Before(loaded, part.cut, fresh=part.random) if part.cut else None
        try:
            return Executor(part.network, trainable, before)
        except RefusedNode as error:
            # Whether torch can build a node is found out by building it. Each refusal tries to cut that node
            # off; one that cannot be cut off is refused again, and that is the end.
            if error.node in refused:
                raise
            refused.add(error.node)


class Executor(torch.nn.Module):
    """A network whose stored tensors are parameters.

    Attributes
    ----------
    weights : dict of str to Parameter
        Every weight, bias, factor of a normalisation and table, by the key of ``nvaudit.model``; weights in
        the primary layout of ``nvaudit.model.Weight``. Half-precision tensors have float32 masters;
        integers on a grid have the floats that they stand for. What several operators share is one
        parameter.
    statistics : dict of str to Tensor
        Running means and variances of batch normalisations, by key.
    mapped : tuple of str
        Keys of the weights that stand on a crossbar, those that are computed from others included; without
        those that the outputs do not depend on and those of a type that torch cannot train.
    untrainable : dict of str to str
        Element types of these, by key.
    network : Network
        What was compiled; ``network.batch`` says where the batch axes are.
    frozen_statistics : bool
        Use the stored statistics in training mode too.

    Notes
    -----
    Half-precision values are computed in float32, parameters rounded to half precision at each run with a
    straight-through gradient. Integers from quantisation travel as float32 codes; an output that the model
    declares as integer is given as one.
    """

    weights: dict[str, Parameter]
    statistics: dict[str, Tensor]

    def __init__(
        self, network: Network, trainable: Trainable = train_default, before: Before | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self._before = before
        self.frozen_statistics = False
        self.seed(0)
        self._state = RunState()
        leaves = Leaves(self._state, trainable)
        self._program = Compiler(network, self._state, leaves).compile()
        self._slots, self._moves = leaves.slots, leaves.moves
        self._places = leaves.places | computed_places(network, self._program)
        self.mapped = tuple(key for key in network.weights if key in self._places)
        self.untrainable = dict(leaves.untrainable)
        self.outputs = tuple(name for name, _ in self._program.outputs)
        self._integers = integer_outputs(network)
        # Parameters first, then statistics: the order in which torch keeps them. It allows no dots in names,
        # which initializers often have, so that they are numbered.
        self._keys = (*leaves.parameters, *leaves.statistics)
        for number, parameter in enumerate(leaves.parameters.values()):
            self.register_parameter(f"weight_{number}", parameter)
        for number, statistic in enumerate(leaves.statistics.values()):
            self.register_buffer(f"statistic_{number}", statistic)
        self._index()

    def forward(
        self, inputs: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Run the network.

        Parameters
        ----------
        inputs : mapping of str to Tensor
            One tensor per input of the model, where the parameters are.
        weights : mapping of str to Tensor, optional
            Tensors to use instead of the parameters in this run, by key, laid out as ``weights`` are; those
            in ``mapped`` that are computed from others too. They are taken as they are: neither rounded to
            half precision nor put back on an integer grid, so that noise survives.

        Returns
        -------
        dict of str to Tensor
            The model's outputs, half precision as float32.

        Raises
        ------
        DataError
            If an input is missing.
        ModelError
            If a key is no weight, or an operation fails; the message names the node.
        """
        values = self._run(inputs, weights)
        return {name: self._declared(name, values[slot]) for name, slot in self._program.outputs}

    def clean(self, keys: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Weights as the network uses them, differentiable with respect to the parameters.

        Parameters
        ----------
        keys : iterable of str, optional
            Which; by default all in ``mapped``.

        Returns
        -------
        dict of str to Tensor
            By key, in the layout that ``forward`` takes them in: rounded to half precision or to their
            integer grid where they are stored so.
        """
        self._begin(None)
        values = self._filled(None)
        run_steps(self._program.weight_steps, values)
        weights = {}
        for key in self.mapped if keys is None else keys:
            if key not in self._places:
                raise self._no_weight(key)
            weights[key] = self._places[key].read(values)
        return weights

    def trace(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every value of the main graph, by name; for comparison."""
        values = self._run(inputs, None, keep=True)
        return {
            name: values[ref.slot]
            for name, ref in self._program.names.items()
            if isinstance(values[ref.slot], Tensor)
        }

    def recalibrate(
        self, batches: Iterable[Mapping[str, Tensor]], weights: Mapping[str, Tensor] | None = None
    ) -> int:
        """Replace the running statistics by the averages over some batches.

        Parameters
        ----------
        batches : iterable of mapping of str to Tensor
            Inputs, as for ``forward``.
        weights : mapping of str to Tensor, optional
            Overrides, as for ``forward``.

        Returns
        -------
        int
            Number of batches; with none, nothing changes.
        """
        count = 0
        with torch.no_grad():
            for batch in batches:
                count += 1
                self._run(batch, weights, momentum=1.0 / count)  # the n-th batch gets the share 1/n
        return count

    def values(self) -> dict[str, Array]:
        """Parameters and statistics as float arrays in the stored layout, for write-back.

        See :func:`nvaudit.model.update.update_values`. Weights that were computed because torch lacks their
        operators are left out: the file has no tensor for them, and they are not trained.
        """
        held = set(self.held)
        tensors = {key: t for key, t in {**self.weights, **self.statistics}.items() if key not in held}
        return {key: self._stored(key, tensor).cpu().numpy().copy() for key, tensor in tensors.items()}

    @property
    def held(self) -> tuple[str, ...]:
        """Weights that stay as the graph computes them, as torch lacks an operator on the way."""
        keys = (s.key for s in self.network.stored if s.origin == COMPUTED and s.key in self.weights)
        return tuple(keys)

    def behind(self, key: str) -> list[Parameter]:
        """Parameters that are trained and that a weight on a crossbar is, or is computed from."""
        folded = self.network.folded.get(key)
        keys = {key} if folded is None else self._program.names[folded.names[0]].keys
        return [weight for name, weight in self.weights.items() if name in keys and weight.requires_grad]

    def last_weight(self, keys: Sequence[str]) -> str | None:
        """Key of the weight that is used last; None where only the bodies of control flow use them."""
        known = {self._slots[key]: key for key in keys if key in self._slots}
        for _, inputs, outputs, _, _ in self._program.weight_steps:
            source = next((known[slot] for slot in inputs if slot in known), None)
            if source is not None:
                for slot in (outputs,) if isinstance(outputs, int) else outputs:
                    known.setdefault(slot, source)
        for _, inputs, _, _, _ in reversed(self._program.data_steps):
            for slot in inputs:
                if slot in known:
                    return known[slot]
        return None

    def weight_slots(self) -> set[int]:
        """Slots of the parameters and of all that is computed from parameters alone."""
        made = (outputs for *_, outputs, _, _ in self._program.weight_steps)
        flat = {slot for out in made for slot in ((out,) if isinstance(out, int) else out)}
        return flat | set(self._slots.values())

    def replace_functions(self, replacement: Callable[[ProgramStep], Callable[..., Any]]) -> None:
        """Put another function in the place of each step that depends on data."""
        steps = [(replacement(step), *step[1:]) for step in self._program.data_steps]
        self._program = replace(self._program, data_steps=steps)

    def load_values(self, values: Mapping[str, Array | Tensor]) -> None:
        """Set parameters and statistics, by key, from what ``values`` gives.

        Raises
        ------
        ModelError
            If a key is unknown or a shape differs.
        """
        tensors = {**self.weights, **self.statistics}
        for key, value in values.items():
            if key not in tensors:
                raise self._no_weight(key)
            given = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
            wanted = self._stored(key, tensors[key]).shape
            if given.shape != wanted:
                raise ModelError(
                    f"{self.network.path}: {key!r} has shape {list(wanted)}, got {list(given.shape)}; "
                    "use values of the same model"
                )
            with torch.no_grad():
                tensors[key].copy_(arranged(given, self._moves[key].forth if key in self._moves else UNMOVED))

    def seed(self, seed: int) -> None:
        """Seed what draws the masks of dropout."""
        self._generator_seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Executor:
        """Copy parameters and statistics; what is compiled is shared."""
        new = Executor.__new__(Executor)
        torch.nn.Module.__init__(new)
        # The copies share the RunState that the compiled functions hold. Every run sets it anew when it
        # begins, so that they may run in turn, but not at once.
        own = {name: value for name, value in self.__dict__.items() if name not in new.__dict__}
        new.__dict__.update(own)
        new.training = self.training
        new.seed(self._generator_seed)
        for name, parameter in self._parameters.items():
            new.register_parameter(name, copy.deepcopy(parameter, memo))
        for name, buffer in self._buffers.items():
            new.register_buffer(name, copy.deepcopy(buffer, memo))
        new._index()
        return new

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Executor:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._index()
        device = self._device()
        for table in self._program.tables:
            table.move(lambda tensor: tensor.to(device))
        return self

    def _begin(self, weights: Mapping[str, Tensor] | None, momentum: float | None = None) -> None:
        """Tell the functions of the program how this run is to be."""
        for key in weights or ():
            if key not in self._places:
                raise self._no_weight(key)
        state = self._state
        state.overrides = dict(weights or {})
        state.training = self.training
        state.batch_statistics = momentum is not None or (self.training and not self.frozen_statistics)
        state.momentum = momentum
        state.device = self._device()
        if self.training:
            if state.device not in self._generators:
                generator = torch.Generator(state.device)
                generator.manual_seed(self._generator_seed)
                self._generators[state.device] = generator
            state.generator = self._generators[state.device]

    def _filled(self, weights: Mapping[str, Tensor] | None) -> list[Any]:
        values = self._program.table.values.copy()
        for slot, tensor in self._leaves:
            values[slot] = tensor
        for key, tensor in (weights or {}).items():
            if key in self._slots:
                values[self._slots[key]] = tensor
        return values

    def _run(
        self,
        inputs: Mapping[str, Tensor],
        weights: Mapping[str, Tensor] | None,
        *,
        keep: bool = False,
        momentum: float | None = None,
    ) -> list[Any]:
        self._begin(weights, momentum)
        values = self._filled(weights)
        program = self._program
        for spec in self.network.inputs:
            if spec.name not in inputs:
                raise DataError(f"{self.network.path}: input {spec.name!r} is missing; give every input")
        if self._before is not None:
            inputs = {**inputs, **self._before(inputs, self._device())}
        for name, slot in program.inputs.items():
            given = inputs[name]
            half = isinstance(given, Tensor) and given.dtype in HALVES.values()
            values[slot] = given.to(torch.float32) if half else given
        run_steps(program.weight_steps, values)
        steps = program.data_steps
        # With no slots to drop after a step: a trace wants every value.
        run_steps([(f, i, o, (), n) for f, i, o, _, n in steps] if keep else steps, values)
        return values

    def _declared(self, name: str, value: Any) -> Any:
        """Codes carried as floats become what the model declares."""
        dtype = self._integers.get(name)
        return value.to(dtype) if dtype is not None and value.is_floating_point() else value

    def _device(self) -> torch.device:
        return self._leaves[0][1].device if self._leaves else torch.device("cpu")

    def _index(self) -> None:
        """Find parameters and statistics again by key, after torch made or moved them."""
        tensors = dict(zip(self._keys, (*self._parameters.values(), *self._buffers.values()), strict=True))
        self.weights = {k: t for k, t in tensors.items() if isinstance(t, Parameter)}
        self.statistics = {k: t for k, t in tensors.items() if k not in self.weights and t is not None}
        self._leaves = [(self._slots[key], tensor) for key, tensor in tensors.items() if tensor is not None]

    def stored_layout(self, key: str) -> Layout:
        """From the primary layout of a parameter to that in which it is stored, which training sees."""
        return self._moves[key].back if key in self._moves else UNMOVED

    def _stored(self, key: str, tensor: Tensor) -> Tensor:
        """A parameter in the stored layout."""
        return arranged(tensor.detach(), self.stored_layout(key))

    def _no_weight(self, key: str) -> ModelError:
        return ModelError(
            f"{self.network.path}: {key!r} is not a weight of this model; see `nvaudit inspect`"
        )

"""Stored tensors as a program takes them: parameters with their masters, running statistics, constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from nvaudit.model.graph import Moves, Network, Stored
from nvaudit.model.parameters import QuantizationGrid
from nvaudit.model.settle import COMPUTED
from nvaudit.retrain.executor.compile import Compiled, Compiler, Ref
from nvaudit.retrain.executor.ops.quantize import half_through, quantise
from nvaudit.retrain.executor.ops.registry import HALVES, RunState, carrier, to_tensor
from nvaudit.retrain.executor.program import arranged

Trainable = Callable[[Stored], bool]
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def train_default(stored: Stored) -> bool:
    """Train weights, biases, factors of normalisations and embedding tables.

    Numbers inside a node's attribute, and those that were computed where torch lacks an operator, cannot be
    written back and stay as they are.
    """
    return stored.part in ("weight", "bias", "norm", "table") and stored.origin not in ("attribute", COMPUTED)


@dataclass(frozen=True)
class WeightSlot:
    """Where a run has a weight: its slot, and those of its grid's scale and zero point if it has a grid."""

    slot: int
    moves: Moves
    scale: int | None = None
    zero: int | None = None

    def read(self, values: list[Any]) -> Tensor:
        """The weight as floats, in its primary layout."""
        value: Tensor = values[self.slot]
        if self.scale is not None and self.zero is not None:
            value = (value - values[self.zero]) * values[self.scale]
        return arranged(value, self.moves.forth)


class Leaves:
    """Makes the parameters and statistics of a network while it is compiled.

    Parameters
    ----------
    state : RunState
        Says which weights a run overrides.
    trainable : callable
        Given a stored tensor, whether it is trained.

    Attributes
    ----------
    parameters : dict of str to Parameter
        Masters by key: float32 for half precision and for integers.
    statistics : dict of str to Tensor
        Running means and variances by key.
    slots : dict of str to int
        Where a run takes each from.
    places : dict of str to WeightSlot
        Where a run has each weight as the network uses it.
    moves : dict of str to Moves
        Between the layout of each parameter, which is the primary one, and the stored layout.
    untrainable : dict of str to str
        Element types of the weights that cannot be parameters, by key.
    """

    def __init__(self, state: RunState, trainable: Trainable) -> None:
        self.state = state
        self.trainable = trainable
        self.parameters: dict[str, Parameter] = {}
        self.statistics: dict[str, Tensor] = {}
        self.slots: dict[str, int] = {}
        self.places: dict[str, WeightSlot] = {}
        self.moves: dict[str, Moves] = {}
        self.untrainable: dict[str, str] = {}

    def __call__(self, stored: Stored, compiler: Compiler) -> Ref:
        """Make the reference of a stored tensor."""
        trained = self.trainable(stored)
        grid = None
        if stored.dtype not in _FLOATS:
            grid = stored.grid() if trained or stored.part == "weight" else None
        wanted = trained or stored.part in ("weight", "statistic")
        if not wanted or (stored.dtype not in _FLOATS and grid is None):
            if stored.key in compiler.network.weights:
                self.untrainable[stored.key] = stored.dtype
            return compiler.constant(stored.load(), compiler.root)
        key, slot = stored.key, compiler.root.table.new()
        self.slots[key] = slot
        array = stored.load()
        tensor = to_tensor(array if grid is None else grid.values(array))
        if stored.part == "statistic":
            self.statistics[key] = tensor
            return Ref(slot, "weight", False, frozenset({key}), True)
        # The parameter is a float32 master in the primary layout; what the graph reads is made of it at every
        # run: laid out as stored, then rounded to half precision or put on its grid, straight through. Small
        # updates add up in the master that would vanish in ten bits or between two codes.
        forth, back = stored.moves.forth, stored.moves.back
        master = arranged(tensor, forth).clone(memory_format=torch.contiguous_format)
        self.parameters[key] = Parameter(master, requires_grad=trained)
        self.moves[key] = stored.moves
        if back:
            slot = compiler.weight_step(lambda x: arranged(x, back), (slot,), None)
        if stored.dtype in HALVES:
            slot = self._half(stored, slot, compiler)
        elif grid is not None:
            slot = self._codes(stored, grid, slot, compiler)
        else:
            self.places[key] = WeightSlot(slot, stored.moves)
        return Ref(slot, "weight", False, frozenset({key}))

    def _half(self, stored: Stored, slot: int, compiler: Compiler) -> int:
        """Round the master to the stored type at each run."""
        key, half, state = stored.key, HALVES[stored.dtype], self.state

        def encode(x: Tensor) -> Tensor:
            # An override is a chip's weight, drawn in single precision: rounding it to the stored type
            # would be noise that the array does not have.
            return x if key in state.overrides else half_through(x, half)

        slot = compiler.weight_step(encode, (slot,), None)
        self.places[key] = WeightSlot(slot, stored.moves)
        return slot

    def _codes(self, stored: Stored, grid: QuantizationGrid, slot: int, compiler: Compiler) -> int:
        """Put the master on its grid at each run; the graph reads codes."""
        key, table, state = stored.key, compiler.root.table, self.state
        low, high = grid.low, grid.high
        scale = table.new(torch.from_numpy(grid.scale.copy()), movable=True)
        zero = table.new(torch.from_numpy(grid.zero.copy()), movable=True)

        def encode(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
            # The graph behind multiplies by the scale again: a chip's weight, which lies between codes,
            # goes through as it is, W / s + z.
            return x / scale + zero if key in state.overrides else quantise(x, scale, zero, low, high)

        slot = compiler.weight_step(encode, (slot, scale, zero), None)
        self.places[key] = WeightSlot(slot, stored.moves, scale, zero)
        return slot


def integer_outputs(network: Network) -> dict[str, torch.dtype]:
    """Outputs that the model declares as integers."""
    kinds = {spec.name: carrier(spec.dtype) for spec in network.outputs}
    return {name: kind for name, kind in kinds.items() if kind is not None and not kind.is_floating_point}


def computed_places(network: Network, program: Compiled) -> dict[str, WeightSlot]:
    """Where a run has the weights that are computed from others."""
    slots = {}
    for key, folded in network.folded.items():
        ref = program.names.get(folded.names[0])
        if ref is not None and ref.kind == "weight":
            slots[key] = WeightSlot(ref.slot, folded.moves)
    return slots

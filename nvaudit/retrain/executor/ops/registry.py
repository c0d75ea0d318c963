"""The table of operators: one builder per operator makes a function of tensors out of a node.

A builder reads attributes, constant operands and the operator set once; the function that it returns is all
that runs in a training step. The function takes one argument per input of the node (None where an input is
left out) and returns one value, or a tuple where the node has several outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nvaudit.arrays import Array
from nvaudit.errors import ModelError
from nvaudit.model.graph import Graph, Node

Function = Callable[..., Any]

_CARRIERS = {
    "float16": torch.float32,
    "bfloat16": torch.float32,
    "float32": torch.float32,
    "float64": torch.float64,
    "int4": torch.int8,
    "uint4": torch.uint8,
    "int2": torch.int8,
    "uint2": torch.uint8,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "uint16": torch.int32,
    "int32": torch.int32,
    "uint32": torch.int64,
    "int64": torch.int64,
    "uint64": torch.int64,
    "bool": torch.bool,
}
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

# ONNX's numbers of element types.
DTYPE_NAMES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
    21: "uint4",
    22: "int4",
    25: "uint2",
    26: "int2",
}


@dataclass
class RunState:
    """What a run sets before it starts, for the functions to read.

    Attributes
    ----------
    training : bool
        Whether dropout is on.
    batch_statistics : bool
        Whether batch normalisation uses the batch at hand and updates its statistics.
    momentum : float or None
        Share of the new batch in the statistics; None for each node's own.
    overrides : mapping of str to Tensor
        Weights that this run uses instead of the parameters.
    device : torch.device
        Where the parameters are.
    generator : torch.Generator or None
        Draws dropout masks.
    """

    training: bool = False
    batch_statistics: bool = False
    momentum: float | None = None
    overrides: dict[str, torch.Tensor] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    generator: torch.Generator | None = None

    def overridden(self, keys: frozenset[str]) -> bool:
        """Whether any of these weights is overridden in this run."""
        return bool(self.overrides) and not keys.isdisjoint(self.overrides)


@dataclass(frozen=True)
class Op:
    """A node as its builder sees it.

    Attributes
    ----------
    constants : tuple of ndarray or None
        The inputs that are known when the executor is built.
    state : RunState
        For functions that behave otherwise in training.
    kinds : tuple of str
        Element type in which each of them is stored, ``""`` for the others.
    sources : frozenset of str
        Keys of the parameters that the first input is computed from, if from parameters alone.
    buffers : frozenset of int
        Inputs that are running statistics, to be updated in training.
    body : callable
        Compiles a graph that the node holds.
    """

    node: Node
    constants: tuple[Array | None, ...]
    state: RunState
    kinds: tuple[str, ...] = ()
    sources: frozenset[str] = frozenset()
    buffers: frozenset[int] = frozenset()
    body: Callable[[Graph], Any] | None = None

    @property
    def version(self) -> int:
        """Version of the operator set."""
        return self.node.version

    def attr(self, name: str, default: Any = None) -> Any:
        """Read an attribute."""
        return self.node.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index])

    def known(self, index: int) -> Array | None:
        """The value of an input where it is constant."""
        return self.constants[index] if index < len(self.constants) else None

    def kind(self, index: int) -> str:
        """Element type of a constant input: as stored, or that of its carrier where it was computed."""
        known = self.known(index)
        stored = self.kinds[index] if index < len(self.kinds) else ""
        return stored or ("" if known is None else known.dtype.name)

    def refuse(self, what: str) -> ModelError:
        """The error for a node that is beyond what its operator's builder can do."""
        return ModelError(
            f"node {self.node.name!r} ({self.node.op_type}): {what} cannot be trained; "
            "export the model without it, or use a method that needs no training"
        )

    def ints(self, index: int) -> Callable[[tuple[Any, ...]], list[int] | None]:
        """Make a reader of a list of integers: known when built, or read from the arguments at run time."""
        known = self.known(index)
        if known is not None:
            fixed = [int(number) for number in np.asarray(known).reshape(-1)]
            return lambda arguments: fixed
        if not self.has(index):
            return lambda arguments: None
        return lambda arguments: [int(number) for number in arguments[index].reshape(-1).tolist()]


OpBuilder = Callable[[Op], Function]


@dataclass(frozen=True)
class Registered:
    """One operator: its builder, the inputs that hold sizes or indices on the host, whether it is pure."""

    build: OpBuilder
    host: frozenset[int]
    pure: bool


_TABLE: dict[tuple[str, str], Registered] = {}


def op(
    *names: str, host: tuple[int, ...] = (), pure: bool = True, domains: tuple[str, ...] = ("",)
) -> Callable[[OpBuilder], OpBuilder]:
    """Enter a builder into the table.

    Parameters
    ----------
    host : tuple of int
        Inputs that are read as Python numbers.
    pure : bool
        Whether equal inputs give equal outputs, in training too.

    Returns
    -------
    callable
        A decorator.
    """

    def enter(build: OpBuilder) -> OpBuilder:
        for domain in domains:
            for name in names:
                _TABLE[domain, name] = Registered(build, frozenset(host), pure)
        return build

    return enter


def simple(function: Function) -> OpBuilder:
    """Make a builder of an operator without attributes."""
    return lambda op: function


def find(domain: str, name: str) -> Registered | None:
    """Look up an operator; None if it is not supported."""
    return _TABLE.get(("" if domain == "ai.onnx" else domain, name))


def supported() -> Iterator[str]:
    """Names of all supported operators, sorted, with their domain unless it is ONNX's own."""
    # Constant is not in the table: a network has its numbers among the stored tensors.
    own = (f"{domain}.{name}" if domain else name for domain, name in _TABLE)
    return iter(sorted(("Constant", *own)))


def carrier(dtype: str) -> torch.dtype | None:
    """The torch type that carries a numpy type; None where there is none.

    Half-precision values are computed in float32, so that small gradients survive.
    """
    return _CARRIERS.get(dtype, torch.float32 if dtype.startswith("float8") else None)


def to_tensor(array: Array) -> Any:
    """Make the tensor of an array, on the CPU, in its carrier; text stays an array."""
    dtype = carrier(array.dtype.name)
    if dtype is None:
        return array
    name = str(dtype).removeprefix("torch.")
    return torch.from_numpy(np.array(array.astype(name), order="C", copy=True))

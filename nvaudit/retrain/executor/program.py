"""What a compiled graph is: a flat list of steps over numbered slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from nvaudit.errors import ModelError, NvauditError
from nvaudit.model.graph import Node
from nvaudit.model.layout import Layout

# Function, slots of its arguments, slot or slots of its results, slots that nobody reads later, its node.
ProgramStep = tuple[Callable[..., Any], tuple[int, ...], int | tuple[int, ...], tuple[int, ...], Node | None]

NOTHING = 0
"""The slot of an input that is left out, and of an output that nobody wants."""


def arranged(value: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Lay a tensor out differently, differentiably."""
    return layout.apply(value, torch.permute, _only)


def _only(value: torch.Tensor, axis: int, start: int, stop: int) -> torch.Tensor:
    part = value.narrow(axis, start, stop - start)
    return torch.slice_scatter(torch.zeros_like(value), part, axis, start, stop)


def run_steps(steps: Sequence[ProgramStep], values: list[Any]) -> None:
    """Run steps over their slots, in place.

    Raises
    ------
    ModelError
        If torch refuses an operation; the message names the node.
    """
    node = None
    try:
        for function, inputs, outputs, dead, node in steps:  # noqa: B007 - read in the handler
            result = function(*[values[slot] for slot in inputs])
            if type(outputs) is int:
                values[outputs] = result
            else:
                for slot, part in zip(outputs, result, strict=False):  # type: ignore[arg-type]
                    values[slot] = part
                values[NOTHING] = None
            for slot in dead:
                values[slot] = None
    except NvauditError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        if node is None or isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        text = " ".join(str(error).split())
        raise ModelError(
            f"node {node.name!r} ({node.op_type}): cannot be run in torch: {text[:300]}; "
            "check the data, or use a method that needs no training"
        ) from error


class RefusedNode(ModelError):
    """A node that cannot be run in torch; ``node`` is its name."""

    def __init__(self, text: str, node: str) -> None:
        super().__init__(text)
        self.node = node

    def __reduce__(self) -> tuple[type[RefusedNode], tuple[str, str]]:
        """Let it travel between processes."""
        return RefusedNode, (str(self), self.node)


@dataclass
class SlotTable:
    """Slots of one graph while and after it is compiled.

    Attributes
    ----------
    values : list
        Initial values: constants, None elsewhere.
    movable : list of int
        Slots of constants that must be where the parameters are.
    """

    values: list[Any] = field(default_factory=lambda: [None])
    movable: list[int] = field(default_factory=list)

    def new(self, value: Any = None, *, movable: bool = False) -> int:
        """Add a slot."""
        self.values.append(value)
        if movable:
            self.movable.append(len(self.values) - 1)
        return len(self.values) - 1

    def move(self, place: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Bring the constants to where the parameters are."""
        for slot in self.movable:
            if isinstance(self.values[slot], torch.Tensor):
                self.values[slot] = place(self.values[slot])


@dataclass
class Body:
    """A compiled body of a control-flow node.

    Attributes
    ----------
    inputs, outputs : tuple of int
        Slots of its own inputs and outputs.
    captures : list of (int, int)
        Position among the values from outside, and the slot it goes to.
    """

    table: SlotTable
    inputs: tuple[int, ...]
    outputs: tuple[int, ...] = ()
    captures: list[tuple[int, int]] = field(default_factory=list)
    steps: list[ProgramStep] = field(default_factory=list)

    def __call__(self, inputs: Sequence[Any], outside: Sequence[Any]) -> list[Any]:
        """Run the body."""
        values = self.table.values.copy()
        for slot, value in zip(self.inputs, inputs, strict=True):
            values[slot] = value
        for position, slot in self.captures:
            values[slot] = outside[position]
        run_steps(self.steps, values)
        return [values[slot] for slot in self.outputs]


def free_dead(steps: list[ProgramStep], kept: set[int], freeable: set[int]) -> list[ProgramStep]:
    """Let each step drop the slots that it is the last to read.

    Parameters
    ----------
    kept : set of int
        Slots that are read after the last step.
    freeable : set of int
        Slots that may be dropped: results of these steps, and inputs.

    Returns
    -------
    list of ProgramStep
        The same steps.
    """
    # From the end: the last step that reads a slot is the first one met. In training, autograd holds what it
    # needs by itself; in scoring this is what bounds the memory.
    seen = set(kept) | {NOTHING}
    result: list[ProgramStep] = []
    for function, inputs, outputs, _, node in reversed(steps):
        made = (outputs,) if isinstance(outputs, int) else outputs
        dead = {slot for slot in (*inputs, *made) if slot not in seen and slot in freeable}
        seen |= dead | set(inputs)
        result.append((function, inputs, outputs, tuple(sorted(dead)), node))
    return result[::-1]

"""Values and graphs while they are compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from nvaudit.model.layout import Layout
from nvaudit.retrain.executor.program import NOTHING, Step, Table

Kind = Literal["constant", "weight", "data"]


@dataclass(frozen=True)
class Ref:
    """A value while its graph is compiled.

    Attributes
    ----------
    slot : int
        Where it is.
    kind : {"constant", "weight", "data"}
        Known when built; computed from parameters alone; anything else.
    host : bool
        Whether it stays on the CPU wherever the parameters are: sizes and indices.
    keys : frozenset of str
        The parameters that it is computed from.
    buffer : bool
        Whether it is a running statistic.
    dtype : str
        Element type in which it is stored; "" where it is computed.
    """

    slot: int
    kind: Kind
    host: bool = False
    keys: frozenset[str] = frozenset()
    buffer: bool = False
    dtype: str = ""


MISSING = Ref(NOTHING, "constant", True)


class Scope:
    """One graph while it is compiled."""

    def __init__(self, parent: Scope | None, table: Table) -> None:
        self.parent = parent
        self.table = table
        self.refs: dict[str, Ref] = {}
        self.steps: list[Step] = []
        self.freeable: set[int] = set()
        self.placed: dict[int, Ref] = {}
        # For a body: what its node hands in from outside (references of the parent), and where it goes.
        self.outside: list[Ref] = []
        self.captures: list[tuple[int, int]] = []

    def fresh(self, name: str, kind: Kind, **more: Any) -> Ref:
        """Enter a value that a step or the caller will put into its slot."""
        ref = Ref(self.table.new(), kind, **more)
        self.freeable.add(ref.slot)
        if name:
            self.refs[name] = ref
        return ref


def moved(value: Tensor, layout: Layout) -> Tensor:
    """Lay a tensor out differently."""
    return layout.apply(value, torch.permute)

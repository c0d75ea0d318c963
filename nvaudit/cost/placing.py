"""Where every operator runs, and what therefore travels: the graph's own edges between layers.

A layer runs on its crossbars; what is worked out digitally runs where the last of its operands is made. An
operator that only hands numbers on has no place: what reads it reads where they come from. So a residual
travels from where it was made to where it is added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nvaudit.mapping.select import Decision
from nvaudit.model.macs.find import ProductCount
from nvaudit.model.macs.steps import INPUT, Arithmetic, OperandSource, Step

Arriving = list[tuple[int, float]]
"""Places, and how many numbers come from each; infinite where all that an operand holds does."""


@dataclass(frozen=True)
class Flow:
    """Numbers that go from one place to another in one inference.

    Places count the layers; ``INPUT`` is the port of the chip.
    """

    source: int
    target: int
    numbers: float


class Placing:
    """Places and flows while the steps of a model are entered in their order."""

    def __init__(
        self,
        samples: int,
        place: Mapping[int, int],
        entries: Sequence[ProductCount],
        decisions: Sequence[Decision],
    ) -> None:
        self.samples = samples
        self.arithmetic: dict[int, Arithmetic] = {}
        self.multiply_adds: dict[int, float] = {}
        self._layers: dict[str, list[int]] = {}
        self._off: dict[str, float] = {}
        for product in entries:
            served = next((i for i in product.on_array if decisions[i].mapped), None)
            if served is not None:
                self._layers.setdefault(product.name, []).append(place[served])
            else:
                self._off[product.name] = self._off.get(product.name, 0.0) + (product.products or 0)
        self._origin: list[Arriving] = []
        self._flows: dict[tuple[int, int], float] = {}

    def enter(self, step: Step) -> None:
        """Place the next step."""
        runs = (step.runs or 0) / self.samples
        arriving = [one for source in step.sources for one in self._resolved(source)]
        layers = self._layers.get(step.name, [])
        if step.moves and not layers:
            # What is handed on is at most what comes out.
            most = math.inf if step.elements is None else float(step.elements)
            self._origin.append([(source, min(count, most)) for source, count in arriving])
            return
        here = layers[0] if layers else max((place for place, _ in arriving), default=INPUT)
        self._origin.append([(here, math.inf)])
        for source, count in arriving:
            for target in layers or [here]:
                self._send(source, target, count * runs)
        if step.arithmetic is not None and step.arithmetic.total:
            before = self.arithmetic.get(here, Arithmetic())
            self.arithmetic[here] = before.plus(step.arithmetic.times(runs))
        if macs := self._off.get(step.name):
            self.multiply_adds[here] = self.multiply_adds.get(here, 0.0) + macs / self.samples

    def leave(self, results: Iterable[OperandSource]) -> None:
        """Send results to the port."""
        for result in results:
            for source, count in self._resolved(result):
                self._send(source, INPUT, count / self.samples)

    def flows(self) -> tuple[Flow, ...]:
        """Everything that travels."""
        return tuple(Flow(source, target, count) for (source, target), count in self._flows.items())

    def _send(self, source: int, target: int, numbers: float) -> None:
        if source != target and math.isfinite(numbers):
            self._flows[source, target] = self._flows.get((source, target), 0.0) + numbers

    def _resolved(self, operand: OperandSource) -> Arriving:
        """Where the numbers of an operand were made, and how many come from each place."""
        count = math.inf if operand.elements is None else operand.elements
        if operand.step == INPUT:
            return [(INPUT, count)]
        if operand.step >= len(self._origin):  # a state of a loop that a later step makes
            return []
        return [(place, min(most, count)) for place, most in self._origin[operand.step]]

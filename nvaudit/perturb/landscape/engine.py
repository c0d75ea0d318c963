"""What runs inside a worker: the loss at one point of the plane."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.errors import ModelError
from nvaudit.model.template import Slot
from nvaudit.perturb.chip import CACHE_BYTES, DrawnWeights
from nvaudit.perturb.engine import Engine, place
from nvaudit.perturb.landscape.directions import draw_direction
from nvaudit.perturb.landscape.workload import Plane
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.outcome import Outcome

Directions = tuple[NDArray[np.float32], NDArray[np.float32]]


class PlaneEngine:
    """Runs the calls of one landscape; keeps the directions of a pair for the next point if small."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._engine = Engine(plane.base)
        self._weights = [weight.values.open() for weight in plane.weights]
        self._small = 8 * sum(values.size for values in self._weights) <= CACHE_BYTES
        self._kept: tuple[int, dict[int, Directions]] = (-1, {})

    def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """Run ``probe`` or ``nominal`` of the engine of chips, ``unmoved`` or ``point``."""
        calls: dict[str, Callable[..., Any]] = {
            "probe": self._engine.probe,
            "nominal": self._engine.nominal,
            "unmoved": self.unmoved,
            "point": self.point,
        }
        return calls[method](*args)

    def unmoved(self, metric: Metric, keep: str | None) -> float:
        """Loss of the unmodified model."""
        return self._engine.score_graph(metric, keep, self._plane.base.ideal)

    def point(self, metric: Metric, keep: str | None, pair: int, alpha: float, beta: float) -> Outcome:
        """Loss at the weights W + α X + β Y, for the directions X and Y of a pair.

        Raises
        ------
        ModelError
            If it is not a finite number.
        """
        begin = time.perf_counter()
        with np.errstate(over="ignore", invalid="ignore"):  # what it makes is looked at below
            loss = self._engine.mean_score(metric, keep, self.fill(pair, alpha, beta))
        if not np.isfinite(loss):
            raise ModelError(
                f"the loss is {loss} at ({alpha:g}, {beta:g}) of direction pair {pair}: the outputs overflow "
                "there; take a smaller --span"
            )
        return Outcome(loss, self._plane.base.count, time.perf_counter() - begin)

    def fill(self, pair: int, alpha: float, beta: float) -> Iterator[tuple[Slot, NDArray[Any]]]:
        """Move tensor after tensor and hand out the slots that hold it."""
        for index, values in enumerate(self._weights):
            x, y = self._directions(pair, index)
            # The sum in brackets first: it is the same for (α, X) and (β, Y) exchanged.
            moved = values + (np.float32(alpha) * x + np.float32(beta) * y)
            for slot in self._plane.base.slots:
                if slot.weight_key == self._plane.weights[index].key:
                    yield slot, place(DrawnWeights(moved, None), slot)

    def _directions(self, pair: int, index: int) -> Directions:
        if self._kept[0] != pair:
            self._kept = (pair, {})
        kept = self._kept[1].get(index)
        if kept is not None:
            return kept
        weight, values, seed = self._plane.weights[index], self._weights[index], self._plane.base.seed
        x, y = (draw_direction(values, weight.filters, seed, pair, axis, weight.key) for axis in (0, 1))
        if self._small:
            self._kept[1][index] = (x, y)
        return x, y

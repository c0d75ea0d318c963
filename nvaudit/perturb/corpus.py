"""Metrics over a whole set: what is gathered from batches, and the one value that is made of it.

Such a value is no mean over samples. It is a metric of a chip like any other, so KPP, gates and paired
differences hold; what looks at single samples (races, the error of a finite set) does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Array
from nvaudit.perturb.boxes import MeanAveragePrecision
from nvaudit.perturb.own_metric import as_value, gathers, load_metric, new_one, run_own
from nvaudit.perturb.scores import (
    Metric,
    decision_of,
    given_outputs,
    given_target,
    labelled,
    score,
)


class Accumulator(Protocol):
    """Gathers batches of a set."""

    def update(self, outputs: Any, labels: Any) -> object:
        """Take a batch."""

    def compute(self) -> Any:
        """Give the value over all batches."""


def accumulator(metric: Metric) -> Accumulator:
    """Make what gathers a metric, empty."""
    if metric.kind == "function":
        return _Own(metric)
    if metric.kind == "boxes":
        return MeanAveragePrecision(metric.name)
    if metric.kind == "perplexity":
        return _Perplexity(metric)
    return _Confusion(metric)


def over_all(metric: Metric, pieces: Iterable[tuple[Array, Array | None]]) -> float:
    """A metric that has one value for a whole set, of outputs and what they are compared with."""
    gathered = accumulator(metric)
    for output, target in pieces:
        gathered.update(output, target)
    return float(gathered.compute())


class _Own:
    """A user's own: a class or an object with update and compute, or a function of all samples."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        own = load_metric(metric.name)
        self.function = None if gathers(own) else own
        self.parts: list[tuple[Any, Any]] = []
        if self.function is None:
            self.own = new_one(metric.name, own)

    def update(self, outputs: Array, labels: Array | None) -> None:
        """Take a batch."""
        if self.function is None:
            given = (given_outputs(self.metric, outputs), given_target(self.metric, labels))
            run_own(self.metric.name, f" on {len(outputs)} samples", self.own.update, *given)
        else:
            self.parts.append((outputs, labels))

    def compute(self) -> float:
        """Give the value, which must be one number."""
        if self.function is None:
            return as_value(self.metric.name, run_own(self.metric.name, "", self.own.compute))
        outputs, labels = (
            None if side[0] is None else np.concatenate(side) for side in zip(*self.parts, strict=True)
        )
        given = given_outputs(self.metric, outputs), given_target(self.metric, labels)
        return as_value(self.metric.name, run_own(self.metric.name, "", self.function, *given))


class _Perplexity:
    """Exponential of the mean cross-entropy, in nats, over all positions with a label."""

    def __init__(self, metric: Metric) -> None:
        self.metric, self.total, self.count = metric, 0.0, 0

    def update(self, outputs: Array, labels: Array) -> None:
        """Take a batch."""
        # Of a sample: a mean over its positions; where some are left out, their sum over `positions`, which
        # is of the set that the metric was settled on. What is counted here may be a part of it.
        total = float(score(self.metric, outputs, labels).sum())
        if self.metric.ignore:
            self.total += total * (self.metric.positions or 1)
            self.count += int(labelled(self.metric, labels).sum())
        else:
            self.total += total
            self.count += len(outputs)

    def compute(self) -> float:
        """Give exp(mean)."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.total / self.count))


class _Confusion:
    """How often each class was decided where each was meant; F1 and intersection over union are made of it.

    With labels meant ``t`` and decided ``d`` of class c: ``IoU = |t∧d| / |t∨d|`` (M. Everingham et al.,
    IJCV 88, 2010, section 4.3), ``F1 = 2 |t∧d| / (|t| + |d|)``. Means over classes are over those that occur
    among the labels: which ones count is then the same for all chips.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.both, self.meant, self.decided = (np.zeros(0, np.int64) for _ in range(3))

    def update(self, outputs: Array, labels: Array) -> None:
        """Take a batch."""
        decided, meant = decision_of(self.metric, outputs), np.asarray(labels)
        if self.metric.class_axis is None and not self.metric.decided and meant.size == decided.size:
            meant = meant.reshape(decided.shape)
        if self.metric.several:
            self._several(decided, meant)
            return
        kept = labelled(self.metric, meant).reshape(-1)
        pair = (meant.reshape(-1)[kept].astype(np.int64), decided.reshape(-1)[kept].astype(np.int64))
        same = pair[0][pair[0] == pair[1]]
        self._add(same, *pair)

    def _several(self, decided: Array, meant: Array) -> None:
        """Of 0 or 1 for each output, an output is a class."""
        width = int(np.prod(meant.shape[1:]))
        yes, wanted = decided.reshape(-1, width) > 0, meant.reshape(-1, width) == 1
        classes = np.broadcast_to(np.arange(width), yes.shape)
        self._add(classes[yes & wanted], classes[wanted], classes[yes & (meant.reshape(-1, width) >= 0)])

    def _add(self, both: NDArray[Any], meant: NDArray[Any], decided: NDArray[Any]) -> None:
        size = max(len(self.meant), *(int(part.max(initial=-1)) + 1 for part in (meant, decided)))
        self.both, self.meant, self.decided = (
            np.pad(old, (0, size - len(old))) + np.bincount(new, minlength=size)[:size]
            for old, new in ((self.both, both), (self.meant, meant), (self.decided, decided))
        )

    def compute(self) -> float:
        """Give the mean over classes, or over all decisions."""
        if self.metric.name == "f1_micro":
            return float(2 * self.both.sum() / max(self.meant.sum() + self.decided.sum(), 1))
        there = self.meant > 0
        both, sizes = self.both[there], (self.meant + self.decided)[there]
        if self.metric.name == "miou":
            return float((both / (sizes - both)).mean())
        return float((2 * both / sizes).mean())

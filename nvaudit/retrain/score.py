"""The KPP of a network in training: simulated chips of the audited device, several in one pass.

Chips differ in their weights only, so a stack of them can be one vectorised pass (``torch.func.vmap``): a
convolution becomes a grouped one, a product of matrices a batched one. That pays on a GPU; on a CPU grouped
convolutions cost more than they save (measured on LeNet: 140 against 40 µs an inference), and the chips run
one by one. The numbers are the same.

Beside the KPP stands what training costs without noise (:class:`CleanLossBudget`).
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.corpus import accumulator
from nvaudit.perturb.metrics import Metric, over_set, reference_of, score
from nvaudit.retrain.device_noise import DeviceNoise
from nvaudit.retrain.feed import Batch, Feed
from nvaudit.retrain.noise import Noise, no_noise, torch_generator
from nvaudit.retrain.prune import with_devices
from nvaudit.retrain.quant import quantise_all
from nvaudit.retrain.train import Task, evaluating
from nvaudit.stats.kpp import kpp_index

if TYPE_CHECKING:
    from torch import Tensor

    from nvaudit.retrain.crossbar.hardware import Crossbars


ChipWeights = dict[str, "Tensor"]

_STACK_BYTES = 64 << 20
_MOST = 16
"""Chips in one pass at most: more gain nothing and fill the caches."""

_SAMPLES = 256
"""Samples in one pass."""


@dataclass
class Scorer:
    """Scores the network of a task on simulated chips.

    Attributes
    ----------
    task : Task
        Its network is what is scored; its feed is not used.
    feed : Feed
        Validation samples.
    noise : DeviceNoise
        Of the audited device.
    trials : int
        Chips.
    stacked : bool or None
        Whether several chips run in one pass; None: if every operator can be vectorised, which is tried once.
    seconds : float
        Spent on scores so far.
    scored : int
        Chips of the last KPP.
    """

    task: Task
    feed: Feed
    metric: Metric
    noise: DeviceNoise
    trials: int
    percentile: float
    seed: int
    stacked: bool | None = False
    seconds: float = 0.0
    scored: int = 0
    _targets: dict[int, NDArray[Any]] = field(default_factory=dict)

    def keep_reference(self) -> None:
        """Remember the outputs of the unmodified network, if the metric compares with them."""
        if self.metric.against != "nominal":
            return
        with evaluating(self.task.network):
            for start, batch in self._batches():
                outputs = self.task.scores(self.task.network, batch).cpu().numpy()
                self._targets[start] = reference_of(self.metric, outputs)

    def clean(self) -> float:
        """Metric of the network with its weights on the grid and no noise."""
        with evaluating(self.task.network):
            if self.task.crossbars is not None:
                return float(self._through_crossbars(self.task.crossbars, no_noise, 0, 1)[0])
            grids = quantise_all(self.task.network, self.task.where)
            one = {key: grid.values[None] for key, grid in grids.items()}
            return float(self._values(one, 1)[0])

    def kpp(self, epoch: int, trials: int | None = None, until: float = math.inf) -> float:
        """K-th percentile performance (T, Algorithm 2) on the chips of an epoch, or on some of them.

        ``until`` is when it is to end, as ``time.perf_counter`` has it; it is then that of the first chips.
        """
        begin = time.perf_counter()
        # T, Algorithm 2, lines 9 and 10: sorted from worst to best, so for a loss from the largest down.
        ordered = np.sort(self.values(epoch, trials, until))
        self.scored = len(ordered)
        self.seconds += time.perf_counter() - begin
        if not self.metric.higher_is_better:
            ordered = ordered[::-1]
        return float(ordered[kpp_index(self.percentile, len(ordered))])

    def values(self, epoch: int, trials: int | None = None, until: float = math.inf) -> NDArray[np.float64]:
        """Metric of every chip.

        Parameters
        ----------
        epoch : int
            Each epoch has chips of its own; candidates of one epoch are scored on the same.
        trials : int, optional
            Chips; without it those of the scorer.
        until : float
            As of :meth:`kpp`.

        Returns
        -------
        ndarray, float64, shape (trials,)
        """
        task = self.task
        trials = self.trials if trials is None else trials
        scores = []
        with evaluating(task.network):
            if task.crossbars is not None:
                return self._through_crossbars(task.crossbars, self.noise, epoch, trials, until)
            grids = quantise_all(task.network, task.where)
            there = {place.key: with_devices(place, grids[place.key]) for place in task.where}
            # Chips follow from seed, epoch and the number of their first one: candidates of an epoch are
            # scored on the same chips, so that their differences are those of the weights, not of luck.
            for start, count in self._stacks(grids, trials):
                generator = torch_generator(self.feed.device, self.seed, "score-chips", epoch, start)
                chips = {}
                for place in task.where:
                    deviation = self.noise.draw(place, grids[place.key], generator, count)
                    alive = there[place.key]
                    if alive is not None:
                        deviation.mul_(alive)
                    chips[place.key] = deviation.add_(grids[place.key].values)
                scores.append(self._values(chips, count))
                if time.perf_counter() > until:
                    break
        return np.concatenate(scores)

    def _through_crossbars(
        self, crossbars: Crossbars, noise: Noise, epoch: int, trials: int, until: float = math.inf
    ) -> NDArray[np.float64]:
        """Metric of chips with converters; their ranges are set anew, so that no history counts."""
        crossbars.calibrate()
        scores = np.empty(trials)
        for trial in range(trials):
            generator = torch_generator(self.feed.device, self.seed, "score-chips", epoch, trial)
            with crossbars.programmed(noise, generator) as weights:
                scores[trial] = self._values({key: weight[None] for key, weight in weights.items()}, 1)[0]
            if time.perf_counter() > until:
                return scores[: trial + 1]
        return scores

    def _stacks(self, grids: dict[str, Any], trials: int) -> Iterator[tuple[int, int]]:
        # A stack's seed is the number of its first chip, so the size of stacks decides which chips there are:
        # it may follow from the network's size alone. Taken from free memory, a run that is repeated would be
        # scored on other chips.
        one = sum(4 * grid.values.numel() for grid in grids.values())
        size = max(1, min(_MOST, _STACK_BYTES // max(one, 1)))
        for start in range(0, trials, size):
            yield start, min(size, trials - start)

    def _batches(self) -> Iterator[tuple[int, Batch]]:
        yield from enumerate(self.feed.in_order(_SAMPLES))

    def _values(self, chips: ChipWeights, count: int) -> NDArray[np.float64]:
        """Mean score of each chip of a stack."""
        total, seen, metric = np.zeros(count), 0, self._over_rows()
        gathered = [accumulator(metric) for _ in range(count)] if metric.corpus else []
        for number, batch in self._batches():
            target = self._targets.get(number)
            if target is None and batch.labels is not None:
                target = batch.labels.cpu().numpy()
            outputs = self._outputs(batch, chips, count)
            for one, output in zip(gathered, outputs, strict=False):
                one.update(output, target)
            if gathered:
                continue
            total += [float(score(metric, output, target).sum()) for output in outputs]
            seen += len(batch.rows)
        if gathered:
            return np.array([float(one.compute()) for one in gathered])
        return np.asarray(total / seen, np.float64)

    def _over_rows(self) -> Metric:
        """The metric scaled for the validation samples."""
        labels = self.feed.dataset.labels
        if not self.metric.by_length or labels is None:
            return self.metric
        return over_set(self.metric, np.asarray(labels[self.feed.rows]))

    def _outputs(self, batch: Batch, chips: ChipWeights, count: int) -> list[NDArray[Any]]:
        if count > 1 and self.stacked is not False:
            outputs = self._together(batch, chips)
            if outputs is not None:
                return list(outputs)
        return [self._alone(batch, chips, i) for i in range(count)]

    def _alone(self, batch: Batch, chips: ChipWeights, chip: int) -> NDArray[Any]:
        weights = {key: stack[chip] for key, stack in chips.items()}
        return np.asarray(self.task.scores(self.task.network, batch, weights).float().cpu().numpy())

    def _together(self, batch: Batch, chips: ChipWeights) -> NDArray[Any] | None:
        """All chips of a stack in one pass; None if that is impossible, which is found out once."""
        import torch

        def one(weights: ChipWeights) -> Tensor:
            return self.task.scores(self.task.network, batch, weights)

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "performance drop": an operator that is looped over
                stacked = torch.func.vmap(one)(chips).float().cpu().numpy()
        except Exception:  # whatever an operator makes of a batched weight
            if self.stacked is not None:
                raise
            self.stacked = False
            return None
        # An operator that vmap batches along the wrong axis gives a result, and a wrong one: the first stack
        # is compared with a chip run alone. Sums in another order differ by far less than a thousandth.
        if self.stacked is None:
            alone = self._alone(batch, chips, 0)
            span = float(np.abs(alone).max(initial=0)) + 1e-12
            self.stacked = bool(np.abs(stacked[0] - alone).max(initial=0) <= 1e-3 * span)
        return np.asarray(stacked) if self.stacked else None


FREE_LOSS = 0.015
"""Where no limit is given: what a network may lose without noise before that counts against its KPP."""

_ROUNDING = 1e-9
"""Differences of two metrics are not exact."""


@dataclass(frozen=True)
class CleanLossBudget:
    """What training costs without noise, on all held-out samples, and what it may cost.

    Attributes
    ----------
    scorer : Scorer
        Of the network in training, on these samples.
    allowed : float or None
        In the unit of the metric; None: no network is ruled out.
    given : float
        Metric of the given network, quantised, without noise.
    """

    scorer: Scorer
    allowed: float | None
    given: float

    def loss(self) -> float:
        """How much worse the network has become without noise; negative: better."""
        change = self.given - self.scorer.clean()
        return change if self.scorer.metric.higher_is_better else -change

    def affords(self, loss: float) -> bool:
        """Whether this loss is allowed."""
        return self.allowed is None or loss <= self.allowed + _ROUNDING

    def is_free(self, loss: float) -> bool:
        """Whether a loss counts nothing: within the bound, or where there is none within ``FREE_LOSS``."""
        if self.allowed is not None:
            return self.affords(loss)
        return self.scorer.metric.unit != "fraction" or loss <= FREE_LOSS + _ROUNDING

    def worth(self, kpp: float, loss: float) -> float:
        """What a network is chosen by; higher is better.

        Its KPP, less what it lost beyond ``FREE_LOSS``: from there on a point without noise weighs as much
        as a point of KPP. With a bound of the user's, the KPP alone, and nothing beyond the bound.
        """
        value = kpp if self.scorer.metric.higher_is_better else -kpp
        if self.is_free(loss):
            return value
        return value - (loss - FREE_LOSS) if self.affords(loss) else -math.inf

"""Stability-VAT (S, Algorithm 1 and section 5): the spread to train with is chosen by the roughness.

One network is trained at each of several spreads of the device, all from the same start and without knowing
the spread that the result will meet. The one whose loss landscape is the least rough is the result. A network
that is to be compressed is first quantised and pruned without noise (models B and C of Algorithm 1); this is
then the start of all candidates (models D), and what was pruned stays so. The landscape of model A is that
of the given weights, those of B, C and D are around the weights on their grid, as the array holds them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Literal

from nvaudit.perturb.schedule import Progress
from nvaudit.retrain.checkpoint import MEASURED_FILE, CheckpointFolder
from nvaudit.retrain.loop import TrainingPlan, TrainingState, naming, part_of, run_epochs
from nvaudit.retrain.noise import Noise, no_noise
from nvaudit.retrain.protocol import TrainableNetwork
from nvaudit.retrain.prune import Pruner
from nvaudit.retrain.quant import ArrayPlace, quantise, settle_ternary
from nvaudit.retrain.score import Scorer
from nvaudit.retrain.train import Snapshot, Trainer

VatKeep = Literal["roughness", "kpp"]
Judge = Callable[[], tuple[float, float | None]]
"""Roughness of the network as it stands, and its spread over direction pairs."""

_MEASURED = 0.5
"""Share of a candidate's time that what is measured of it has."""


@dataclass(frozen=True)
class VatCandidate:
    """A network that was trained at one spread.

    Attributes
    ----------
    sigma : float or None
        In the unit of the profile; None: the start of all.
    loss : float or None
        Of its last epoch.
    clean : float
        Metric on the validation samples with its weights on their grid, without noise.
    kpp : float
        On chips of the audited device, the same for all candidates.
    roughness : float
        Around the weights on their grid.
    spread : float or None
        Of the roughness over direction pairs.
    """

    sigma: float | None
    loss: float | None
    clean: float
    kpp: float
    roughness: float
    spread: float | None


@dataclass(frozen=True)
class VatStage:
    """A model of Algorithm 1.

    Attributes
    ----------
    model : str
        A as given; B quantised; C quantised and pruned; D trained with the spread that is kept.
    """

    model: Literal["A", "B", "C", "D"]
    roughness: float
    spread: float | None


@contextmanager
def on_grid(network: TrainableNetwork, where: Sequence[ArrayPlace]) -> Iterator[None]:
    """Put the weights of a network on their grid; afterwards they are as they were."""
    import torch

    weights = {place.key: network.weights[place.key] for place in where if place.key in network.weights}
    kept = {key: weight.detach().clone() for key, weight in weights.items()}
    with torch.no_grad():
        for place in where:
            if place.key in weights:
                weights[place.key].copy_(quantise(weights[place.key], place).values)
    try:
        yield
    finally:
        with torch.no_grad():
            for key, weight in weights.items():
                weight.copy_(kept[key])


def choose_candidate(candidates: list[VatCandidate], keep: VatKeep, higher_is_better: bool) -> int:
    """Choose a candidate; of equals the one of the smallest spread of the device.

    Parameters
    ----------
    keep : {"roughness", "kpp"}
        The least rough one (S, Algorithm 1), or the one of the best KPP on the audited device.

    Returns
    -------
    int
        Its place.
    """
    # S, Algorithm 1: argmin of the roughness over the models D. The spread that the network will meet enters
    # only where the user asks for the best KPP at it. Equal landscapes: the one that was disturbed less.
    sign = -1 if higher_is_better else 1
    keys = [
        (one.roughness if keep == "roughness" else sign * one.kpp, one.sigma or 0.0) for one in candidates
    ]
    return keys.index(min(keys))


@dataclass
class VatSearch:
    """What candidates are made with.

    Attributes
    ----------
    trainer : callable
        Makes a trainer of the network as it stands.
    compresses : bool
        Whether the start is made by a training of its own, without noise.
    checkpoints : CheckpointFolder or None
        A folder of its own for each candidate is made in its folder.
    keep : {"roughness", "kpp"}
        What the choice goes by; see :func:`choose_candidate`.
    deadline : float
        When candidates are to end, as ``time.perf_counter`` has it: there are fewer then, at least one.
    whole : bool
        Whether no training was cut off for want of time so far.
    """

    trainer: Callable[[], Trainer]
    pruner: Pruner | None
    scorer: Scorer
    judge: Judge
    compresses: bool
    progress: Progress
    checkpoints: CheckpointFolder | None
    keep: VatKeep = "roughness"
    deadline: float = math.inf
    whole: bool = True

    def run(
        self, noises: Mapping[float, Noise]
    ) -> tuple[TrainingState, list[VatCandidate], int, list[VatStage]]:
        """Train every candidate; the network ends as the chosen one.

        Parameters
        ----------
        noises : mapping of float to Noise
            By the spread of the device.

        Returns
        -------
        state : TrainingState
            Of the training of the one that is kept.
        candidates : list of VatCandidate
            The start, then one for each spread.
        kept : int
            Which of them.
        stages : list of VatStage
            Models A, B, C and D of Algorithm 1; without C where nothing is pruned.
        """
        given = self._rough("given", grid=False)
        plain = None if self.compresses and self.pruner is None else self._rough("given-on-grid", grid=True)
        if self.compresses:
            self.whole = self._train("start", 0.0, no_noise, 1 / (1 + len(noises))).whole
            if self.pruner is not None:
                self.pruner.cut = 0  # what was cut stays cut
        # All candidates begin here, with a fresh optimiser: they differ by their spread alone.
        start = self.trainer().snapshot()
        candidates = [self._measured("start", None, None)]
        ends: list[tuple[TrainingState, Snapshot]] = []
        longest, since = 0.0, time.perf_counter()
        for sigma, noise in noises.items():
            if ends and time.perf_counter() + longest > self.deadline:
                break
            self.trainer().restore(start)
            name = f"sigma-{sigma:g}"
            state = self._train(name, sigma, noise, 1 / (len(noises) - len(ends)))
            # What is measured of a network that was cut off is nothing of the longer training's.
            self.whole = self.whole and state.whole
            candidates.append(self._measured(name, sigma, state.history[-1]["loss"][0]))
            ends.append((state, self.trainer().snapshot()))
            longest, since = max(longest, time.perf_counter() - since), time.perf_counter()
        # Not among the choices: the start, which no noise has met. Algorithm 1 compares models D alone.
        kept = choose_candidate(candidates[1:], self.keep, self.scorer.metric.higher_is_better)
        state, best = ends[kept]
        self.trainer().restore(best)
        first, last = candidates[0], candidates[kept + 1]
        # Of a network that is quantised by training and not pruned, the start of the candidates is model B.
        quantised = (first.roughness, first.spread) if plain is None else plain
        stages = [VatStage("A", *given), VatStage("B", *quantised)]
        if self.pruner is not None:
            stages.append(VatStage("C", first.roughness, first.spread))
        return state, candidates, kept + 1, [*stages, VatStage("D", last.roughness, last.spread)]

    def _rough(self, name: str, *, grid: bool) -> tuple[float, float | None]:
        """Roughness of the network as it stands, or read what was measured before."""
        checkpoints, task = self._measured_folder(name), self.scorer.task
        kept = None if checkpoints is None else checkpoints.load(MEASURED_FILE)
        if kept is not None:
            return kept["roughness"], kept["spread"]
        self.progress("measuring roughness", 0, 1)
        with on_grid(task.network, task.where) if grid else nullcontext():
            roughness, spread = self.judge()
        if checkpoints is not None:
            made = {"roughness": roughness, "spread": spread}
            checkpoints.save(made, MEASURED_FILE)
        return roughness, spread

    def _train(self, name: str, sigma: float, noise: Noise, share: float) -> TrainingState:
        """Train one network, in a share of the time that is left."""
        plan, trainer = TrainingPlan(lambda _: noise, sigma, None, 0, "last"), self.trainer()
        trainer.deadline = part_of(self.deadline, share * (1 - _MEASURED))
        return run_epochs(trainer, plan, self.scorer, naming(self.progress, name), self._own_folder(name))

    def _own_folder(self, name: str) -> CheckpointFolder | None:
        """A folder of its own; neither other candidates nor another choice make it another training."""
        if self.checkpoints is None or not self.whole:
            return None
        return self.checkpoints.inner(name, "candidate", without=("--vat-sigmas", "--vat-keep"))

    def _measured_folder(self, name: str) -> CheckpointFolder | None:
        """Where what was measured is kept: not within a limit on time, where it is of fewer directions."""
        return self._own_folder(name) if self.deadline == math.inf else None

    def _measured(self, name: str, sigma: float | None, loss: float | None) -> VatCandidate:
        """Settle the network as it would be written, and measure it, or read what was measured before."""
        task, checkpoints = self.scorer.task, self._measured_folder(name)
        # Also where the numbers are read back: a candidate's snapshot is taken next, and must be the network
        # as measured.
        settle_ternary(task.network, task.where)
        kept = None if checkpoints is None else checkpoints.load(MEASURED_FILE)
        if kept is not None:
            return VatCandidate(**kept)
        roughness, spread = self._rough(f"{name}-on-grid", grid=True)
        candidate = VatCandidate(sigma, loss, self.scorer.clean(), self.scorer.kpp(0), roughness, spread)
        if checkpoints is not None:
            checkpoints.save(asdict(candidate), MEASURED_FILE)
        return candidate

"""Stability-VAT (S, Algorithm 1 and section 5): the spread to train with is chosen by the roughness.

One network is trained at each of several spreads of the device, all from the same start and without knowing
the spread that the result will meet. The one whose loss landscape is the least rough is the result. A network
that is to be compressed is first quantised and pruned without noise (models B and C of Algorithm 1); this is
then the start of all candidates (models D), and what was pruned stays so. The landscape of model A is that
of the given weights, those of B, C and D are around the weights on their grid, as the array holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Literal

from nvaudit.perturb.schedule import Progress
from nvaudit.retrain.checkpoint import MEASURED_FILE, load_checkpoint, save_checkpoint
from nvaudit.retrain.loop import Plan, Shelf, State, run_epochs
from nvaudit.retrain.noise import Noise, no_noise
from nvaudit.retrain.protocol import Network
from nvaudit.retrain.prune import Pruner
from nvaudit.retrain.quant import Place, quantise, settle_ternary
from nvaudit.retrain.score import Scorer
from nvaudit.retrain.train import Snapshot, Trainer

VatKeep = Literal["roughness", "kpp"]
Judge = Callable[[], tuple[float, float | None]]
"""Roughness of the network as it stands, and its spread over direction pairs."""


@dataclass(frozen=True)
class Candidate:
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
class Stage:
    """A model of Algorithm 1.

    Attributes
    ----------
    model : str
        A as given; B quantised; C quantised and pruned; D trained with the spread that is kept.
    roughness : float
    spread : float or None
    """

    model: Literal["A", "B", "C", "D"]
    roughness: float
    spread: float | None


@contextmanager
def on_grid(network: Network, where: Sequence[Place]) -> Iterator[None]:
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


def chosen(candidates: list[Candidate], keep: VatKeep, higher_is_better: bool) -> int:
    """Choose a candidate; of equals the one of the smallest spread of the device.

    Parameters
    ----------
    candidates : list of Candidate
    keep : {"roughness", "kpp"}
        The least rough one (S, Algorithm 1), or the one of the best KPP on the audited device.
    higher_is_better : bool
        Of the metric.

    Returns
    -------
    int
        Its place.
    """
    sign = -1 if higher_is_better else 1
    keys = [
        (one.roughness if keep == "roughness" else sign * one.kpp, one.sigma or 0.0) for one in candidates
    ]
    return keys.index(min(keys))


@dataclass
class Search:
    """What candidates are made with.

    Attributes
    ----------
    trainer : callable
        Makes a trainer of the network as it stands.
    pruner : Pruner or None
        Of the network.
    scorer : Scorer
    judge : callable
    compresses : bool
        Whether the start is made by a training of its own, without noise.
    progress : callable
    shelf : Shelf or None
        A folder of its own for each candidate is made in its folder.
    keep : {"roughness", "kpp"}
        What the choice goes by; see :func:`chosen`.
    """

    trainer: Callable[[], Trainer]
    pruner: Pruner | None
    scorer: Scorer
    judge: Judge
    compresses: bool
    progress: Progress
    shelf: Shelf | None
    keep: VatKeep = "roughness"

    def run(self, noises: Mapping[float, Noise]) -> tuple[State, list[Candidate], int, list[Stage]]:
        """Train every candidate; the network ends as the chosen one.

        Parameters
        ----------
        noises : mapping of float to Noise
            By the spread of the device.

        Returns
        -------
        state : State
            Of the training of the one that is kept.
        candidates : list of Candidate
            The start, then one for each spread.
        kept : int
            Which of them.
        stages : list of Stage
            Models A, B, C and D of Algorithm 1; without C where nothing is pruned.
        """
        given = self._rough("given", grid=False)
        plain = None if self.compresses and self.pruner is None else self._rough("given-on-grid", grid=True)
        if self.compresses:
            self._train("start", 0.0, no_noise)
            if self.pruner is not None:
                self.pruner.cut = 0  # what was cut stays cut
        start = self.trainer().snapshot()
        found = [self._measured("start", None, None)]
        ends: list[tuple[State, Snapshot]] = []
        for sigma, noise in noises.items():
            self.trainer().restore(start)
            name = f"sigma-{sigma:g}"
            state = self._train(name, sigma, noise)
            found.append(self._measured(name, sigma, state.history[-1]["loss"][0]))
            ends.append((state, self.trainer().snapshot()))
        kept = chosen(found[1:], self.keep, self.scorer.metric.higher_is_better)
        state, best = ends[kept]
        self.trainer().restore(best)
        first, last = found[0], found[kept + 1]
        # Of a network that is quantised by training and not pruned, the start of the candidates is model B.
        quantised = (first.roughness, first.spread) if plain is None else plain
        stages = [Stage("A", *given), Stage("B", *quantised)]
        if self.pruner is not None:
            stages.append(Stage("C", first.roughness, first.spread))
        return state, found, kept + 1, [*stages, Stage("D", last.roughness, last.spread)]

    def _rough(self, name: str, *, grid: bool) -> tuple[float, float | None]:
        """Roughness of the network as it stands, or read what was measured before."""
        shelf, task = self._shelf(name), self.scorer.task
        kept = None if shelf is None else load_checkpoint(shelf.folder, shelf.identity, MEASURED_FILE)
        if kept is not None:
            return kept["roughness"], kept["spread"]
        self.progress("measuring roughness", 0, 1)
        with on_grid(task.network, task.where) if grid else nullcontext():
            roughness, spread = self.judge()
        if shelf is not None:
            made = {"roughness": roughness, "spread": spread}
            save_checkpoint(shelf.folder, shelf.identity, made, MEASURED_FILE)
        return roughness, spread

    def _train(self, name: str, sigma: float, noise: Noise) -> State:
        plan = Plan(lambda _: noise, sigma, None, 0, "last")

        def tell(what: str, done: int, total: int) -> None:
            self.progress(what.replace("training", f"training, {name}", 1), done, total)

        return run_epochs(self.trainer(), plan, self.scorer, tell, self._shelf(name))

    def _shelf(self, name: str) -> Shelf | None:
        """A folder of its own; neither other candidates nor another choice make it another training."""
        if self.shelf is None:
            return None
        return self.shelf.inner(name, "candidate", without=("--vat-sigmas", "--vat-keep"))

    def _measured(self, name: str, sigma: float | None, loss: float | None) -> Candidate:
        """Settle the network as it would be written, and measure it, or read what was measured before."""
        task, shelf = self.scorer.task, self._shelf(name)
        settle_ternary(task.network, task.where)
        kept = None if shelf is None else load_checkpoint(shelf.folder, shelf.identity, MEASURED_FILE)
        if kept is not None:
            return Candidate(**kept)
        roughness, spread = self._rough(f"{name}-on-grid", grid=True)
        found = Candidate(sigma, loss, self.scorer.clean(), self.scorer.kpp(0), roughness, spread)
        if shelf is not None:
            save_checkpoint(shelf.folder, shelf.identity, asdict(found), MEASURED_FILE)
        return found

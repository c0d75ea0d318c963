"""The epochs of a training: one network, or three in lock-step; scores, checkpoints, the best one kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nvaudit.perturb.montecarlo import Progress
from nvaudit.perturb.record import Identity
from nvaudit.retrain.checkpoint import load_checkpoint, save_checkpoint
from nvaudit.retrain.noise import Noise
from nvaudit.retrain.score import Scorer
from nvaudit.retrain.train import Snapshot, Trainer, recalibrate
from nvaudit.retrain.trice import SIDES, Interval, winner

Keep = Literal["best", "better", "last"]

COMPARED_SHARE = 0.2
"""Chips of the last comparison with the given network: it takes about so many inferences of those that
training made."""

FEWEST_COMPARED = 50


@dataclass(frozen=True)
class Plan:
    """How a training goes.

    Attributes
    ----------
    noise : callable
        Makes the noise of a σ.
    sigma : float
        Of a single network.
    interval : Interval or None
        Where TRICE searches; None trains one network at ``sigma``.
    warm : int
        Epochs without scores.
    keep : {"best", "better", "last"}
        Which network is the result: that with the best KPP seen, the better of the last epoch's and the given
        one, or that of the last epoch.
    given : bool
        Whether training begins with a trained network, which then takes part in the choice of the best.
    since : int
        Epoch, from 0, from which on a network can be the result.
    """

    noise: Callable[[float], Noise]
    sigma: float
    interval: Interval | None
    warm: int
    keep: Keep
    given: bool = False
    since: int = 0


@dataclass
class State:
    """Where a training is; all of it goes into a checkpoint."""

    epoch: int
    lanes: list[Snapshot]
    interval: Interval | None
    best: float | None = None
    best_epoch: int | None = None
    kept: Snapshot | None = None
    compared: tuple[float, float] | None = None
    """KPP of the given and of the kept network on the same chips, which no epoch was scored on."""
    history: list[dict[str, Any]] = field(default_factory=list)

    def packed(self) -> dict[str, Any]:
        """For a checkpoint."""
        ends = None if self.interval is None else [self.interval.start, self.interval.end]
        return {
            "epoch": self.epoch,
            "lanes": self.lanes,
            "interval": ends,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "kept": self.kept,
            "history": self.history,
        }

    @classmethod
    def unpacked(cls, found: Mapping[str, Any]) -> State:
        """From a checkpoint."""
        ends = found["interval"]
        interval = None if ends is None else Interval(*ends)
        return cls(
            found["epoch"], found["lanes"], interval, found["best"], found["best_epoch"], found["kept"],
            history=found["history"],
        )  # fmt: skip


@dataclass(frozen=True)
class Shelf:
    """Where checkpoints are kept, and what they are tied to."""

    folder: Path
    identity: Identity


def run_epochs(
    trainer: Trainer, plan: Plan, scorer: Scorer, progress: Progress, shelf: Shelf | None
) -> State:
    """Train; the trainer's network ends as the result.

    Parameters
    ----------
    trainer : Trainer
    plan : Plan
    scorer : Scorer
        Of the trainer's network.
    progress : callable
        Called with (what, epochs done, epochs).
    shelf : Shelf or None

    Returns
    -------
    State
        With what happened in every epoch.
    """
    given = trainer.snapshot()
    found = None if shelf is None else load_checkpoint(shelf.folder, shelf.identity)
    if found is None:
        lanes = [given] * (1 if plan.interval is None else 3)
        state = State(0, lanes, plan.interval)
        if plan.given and plan.keep == "best" and trainer.recipe.epochs:
            state.best, state.best_epoch, state.kept = scorer.kpp(0), 0, lanes[0]
    else:
        state = State.unpacked(found)
    epochs = trainer.recipe.epochs
    progress("training: epochs", state.epoch, epochs)
    while state.epoch < epochs:
        _epoch(trainer, plan, scorer, state)
        state.epoch += 1
        if shelf is not None:
            save_checkpoint(shelf.folder, shelf.identity, state.packed())
        progress("training: epochs", state.epoch, epochs)
    trainer.restore(state.kept if plan.keep == "best" and state.kept is not None else state.lanes[0])
    if plan.given and plan.keep == "best" and state.best_epoch:
        _compare(trainer, scorer, given, state, scorer.trials)
    elif plan.given and plan.keep == "better" and epochs:
        state.best_epoch = epochs
        _compare(trainer, scorer, given, state, _compared_chips(trainer, scorer))
    return state


def _compared_chips(trainer: Trainer, scorer: Scorer) -> int:
    """How many chips keep two scores cheap beside the training."""
    passes = trainer.recipe.epochs * trainer.task.feed.count
    wanted = int(COMPARED_SHARE * passes / scorer.feed.count)
    return min(scorer.trials, max(FEWEST_COMPARED, wanted))


def _compare(trainer: Trainer, scorer: Scorer, given: Snapshot, state: State, chips: int) -> None:
    """Go back to the given network if it is better than the kept one on the same, fresh chips.

    The best of many scores flatters, so it does not count here.
    """
    kept, fresh = trainer.snapshot(), trainer.recipe.epochs
    after = scorer.kpp(fresh, chips)
    trainer.restore(given)
    before = scorer.kpp(fresh, chips)
    state.compared = (before, after)
    gain = after - before if scorer.metric.higher_is_better else before - after
    if gain < 0:
        state.best, state.best_epoch, state.kept = before, 0, given
    else:
        trainer.restore(kept)


def _epoch(trainer: Trainer, plan: Plan, scorer: Scorer, state: State) -> None:
    number, last = state.epoch, state.epoch + 1 == trainer.recipe.epochs
    sigmas = (plan.sigma,) if state.interval is None else state.interval.candidates()
    state.lanes = state.lanes[: len(sigmas)]
    losses, scores = [], []
    # Three networks must come down to one, and the best one must be known, even if all epochs are warm-up.
    wanted = plan.keep == "best" and number >= plan.since
    scored = (number >= plan.warm or last) and (wanted or len(sigmas) > 1)
    for i, sigma in enumerate(sigmas):
        trainer.restore(state.lanes[i])
        losses.append(trainer.epoch(number, plan.noise(sigma)))
        if scored:
            recalibrate(trainer.task, trainer.recipe, number)
            scores.append(scorer.kpp(number))
        state.lanes[i] = trainer.snapshot()
    row: dict[str, Any] = {"epoch": number + 1, "sigma": list(sigmas), "loss": losses, "kpp": scores}
    chosen = 0
    if scored:
        chosen = _select(state, scores, scorer.metric.higher_is_better, number >= plan.since)
        row["winner"] = SIDES[chosen] if len(sigmas) > 1 else None
    state.history.append(row)


def _select(state: State, scores: list[float], higher_is_better: bool, eligible: bool) -> int:
    """Spread the best network, shrink the interval, and remember the best of all."""
    chosen = 0
    if len(scores) > 1 and state.interval is not None:
        side = winner(scores, higher_is_better)
        chosen = SIDES.index(side)
        state.lanes = [state.lanes[chosen]] * 3  # the optimiser's state goes with the weights it belongs to
        state.interval = state.interval.shrunk(side)
    gain = 0.0 if state.best is None else scores[chosen] - state.best
    if not eligible:
        return chosen
    if state.best is None or (gain if higher_is_better else -gain) >= 0:  # of equals the longer-trained
        state.best, state.kept = scores[chosen], state.lanes[chosen if len(state.lanes) > chosen else 0]
        state.best_epoch = state.epoch + 1
    return chosen

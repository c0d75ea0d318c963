"""The epochs of a training: one network, or three in lock-step; scores, checkpoints, the best one kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nvaudit.perturb.schedule import Progress
from nvaudit.retrain.checkpoint import CheckpointFolder
from nvaudit.retrain.noise import Noise
from nvaudit.retrain.score import CleanLossBudget, Scorer
from nvaudit.retrain.train import Snapshot, Trainer, recalibrate
from nvaudit.retrain.trice import SIDES, SigmaInterval, winner

Keep = Literal["best", "better", "last"]

GIVEN, COMPARED, _SCORED = 0.1, 0.2, 0.4
"""Shares of the time of a training: the score of the given network, the comparison with it, and in an epoch
that has too little time its scores."""


@dataclass(frozen=True)
class TrainingPlan:
    """How a training goes.

    Attributes
    ----------
    noise : callable
        Makes the noise of a σ.
    sigma : float
        Of a single network.
    interval : SigmaInterval or None
        Where TRICE searches; None trains one network at ``sigma``.
    warm : int
        Epochs without scores.
    keep : {"best", "better", "last"}
        Which network is the result: that with the best KPP seen, the better of the last epoch's and the given
        one (see :mod:`nvaudit.retrain.attempts`), or that of the last epoch.
    given : bool
        Whether training begins with a trained network, which then takes part in the choice of the best.
    since : int
        Epoch, from 0, from which on a network can be the result.
    budget : CleanLossBudget or None
        What a network may lose without noise to be the result.
    """

    noise: Callable[[float], Noise]
    sigma: float
    interval: SigmaInterval | None
    warm: int
    keep: Keep
    given: bool = False
    since: int = 0
    budget: CleanLossBudget | None = None


@dataclass
class TrainingState:
    """Where a training is; all of it goes into a checkpoint."""

    epoch: int
    lanes: list[Snapshot]
    interval: SigmaInterval | None
    best: float | None = None
    best_epoch: int | None = None
    kept: Snapshot | None = None
    compared: tuple[float, float] | None = None
    """KPP of the given and of the kept network on the same chips, which no epoch was scored on."""
    clean_loss: float | None = None
    """What the trained network lost without noise; measured where there is a budget."""
    history: list[dict[str, Any]] = field(default_factory=list)
    whole: bool = True
    """Whether all epochs were trained: not where the time was over before."""

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
    def unpacked(cls, packed: Mapping[str, Any]) -> TrainingState:
        """From a checkpoint."""
        ends = packed["interval"]
        interval = None if ends is None else SigmaInterval(*ends)
        return cls(
            packed["epoch"], packed["lanes"], interval, packed["best"], packed["best_epoch"], packed["kept"],
            history=packed["history"],
        )  # fmt: skip


def naming(progress: Progress, name: str) -> Progress:
    """Say which training it is, where one run has several."""
    return lambda what, done, total: progress(what.replace("training", f"training, {name}", 1), done, total)


def run_epochs(
    trainer: Trainer,
    plan: TrainingPlan,
    scorer: Scorer,
    progress: Progress,
    checkpoints: CheckpointFolder | None,
) -> TrainingState:
    """Train; the trainer's network ends as the result.

    Returns
    -------
    TrainingState
        With what happened in every epoch.
    """
    given = trainer.snapshot()
    packed = None if checkpoints is None else checkpoints.load()
    if packed is None:
        # One snapshot three times is safe: restoring copies it, so that lanes never share a tensor that is
        # trained.
        lanes = [given] * (1 if plan.interval is None else 3)
        state = TrainingState(0, lanes, plan.interval)
        if plan.given and plan.keep == "best" and trainer.recipe.epochs:
            # What the choice between the given and the trained network takes has its part of the time.
            until = part_of(trainer.deadline, GIVEN)
            state.best, state.best_epoch, state.kept = scorer.kpp(0, until=until), 0, lanes[0]
    else:
        state = TrainingState.unpacked(packed)
    epochs = trainer.recipe.epochs
    progress("training: epochs", state.epoch, epochs)
    compares = plan.given and plan.keep == "best"
    deadline = part_of(trainer.deadline, 1 - COMPARED if compares else 1.0)
    longest, over, cut = 0.0, False, False
    while state.epoch < epochs and not over:
        begin = time.perf_counter()
        # Known before the last epoch that it is the last, since that one is scored: after this one there is
        # no time for another. Where weights are pruned, epochs up to the cut are there in any case.
        over = begin + 2 * longest >= deadline and state.epoch >= plan.since
        over = over or state.epoch + 1 == epochs
        cut = _epoch(trainer, plan, scorer, state, over, deadline)
        over = over or cut
        state.epoch += 1
        # An epoch that was the last for want of time is none of a longer training: that one makes it anew.
        if checkpoints is not None and not cut and (not over or state.epoch == epochs):
            checkpoints.save(state.packed())
        progress("training: epochs", state.epoch, epochs)
        longest = max(longest, time.perf_counter() - begin)
    state.whole = state.epoch >= epochs and not cut
    trainer.restore(state.kept if plan.keep == "best" and state.kept is not None else state.lanes[0])
    if compares and state.best_epoch:
        _compare(trainer, plan, scorer, given, state)
    return state


def _compare(
    trainer: Trainer, plan: TrainingPlan, scorer: Scorer, given: Snapshot, state: TrainingState
) -> None:
    """Go back to the given network if it is better than the kept one, or if that one lost too much.

    The kept network is the best of many scores, and the largest of many noisy numbers is larger than its
    own mean: E[max_i (s_i + ε_i)] ≥ max_i s_i. So its score does not count here; both networks are scored
    anew on the same chips, which no epoch was scored on.
    """
    # Epochs are counted from 0 to epochs − 1: the chips of number `epochs` are ones that no choice has seen.
    kept, fresh = trainer.snapshot(), trainer.recipe.epochs
    after = scorer.kpp(fresh, until=part_of(trainer.deadline, 0.5))
    if plan.budget is not None:
        state.clean_loss = plan.budget.loss()
    trainer.restore(given)
    before = scorer.kpp(fresh, scorer.scored)  # on as many chips
    state.compared = (before, after)
    gain = after - before if scorer.metric.higher_is_better else before - after
    if gain < 0 or not _afforded(plan, state.clean_loss):
        state.best, state.best_epoch, state.kept = before, 0, given
    else:
        trainer.restore(kept)


def part_of(deadline: float, share: float) -> float:
    """When a share of the time that is left is over."""
    now = time.perf_counter()
    return now + share * max(deadline - now, 0.0)


def _epoch(
    trainer: Trainer, plan: TrainingPlan, scorer: Scorer, state: TrainingState, last: bool, deadline: float
) -> bool:
    """Train an epoch, and score it if it is to be; whether it was cut off, so that no other can follow."""
    number = state.epoch
    sigmas = (plan.sigma,) if state.interval is None else state.interval.candidates()
    # Once the interval has converged the first lane goes on: it shrank in a scored epoch, after which all
    # three hold the winner (Algorithm 3, lines 21 to 26), so none is lost.
    state.lanes = state.lanes[: len(sigmas)]
    losses, scores, clean = [], [], []
    # Scored are the epochs past the warm-up (T, Algorithm 3, line 15). The last one is in any case: three
    # networks must come down to one, and the best one must be known, even if all epochs are warm-up.
    wanted = (plan.keep == "best" and number >= plan.since) or len(sigmas) > 1
    trained, cut = part_of(deadline, 1 - _SCORED if wanted else 1.0), False
    for i, sigma in enumerate(sigmas):
        trainer.restore(state.lanes[i])
        # Where the time of the whole training is not enough for one epoch, the networks have equal parts.
        until = part_of(trained, 1 / (len(sigmas) - i))
        losses.append(trainer.epoch(number, plan.noise(sigma), until=until))
        cut = cut or trainer.was_cut
        state.lanes[i] = trainer.snapshot()
    scored, chips = wanted and (number >= plan.warm or last or cut), None
    for i in range(len(sigmas) if scored else 0):
        trainer.restore(state.lanes[i])
        # Statistics learned under noise belong to noisy activations; the audit runs the file, whose
        # statistics are these. Averages over the quantised weights stand for all chips.
        recalibrate(trainer.task, trainer.recipe, number)
        # All on as many chips as there is time for with the first.
        until = part_of(deadline, 1 / len(sigmas)) if chips is None else math.inf
        scores.append(scorer.kpp(number, chips, until))
        chips = scorer.scored
        if plan.budget is not None:
            clean.append(plan.budget.loss())
        # Copied after the statistics were learned anew: what is kept is the very network that was scored.
        state.lanes[i] = trainer.snapshot()
    cut = cut or (chips is not None and chips < scorer.trials)
    row: dict[str, Any] = {
        "epoch": number + 1,
        "sigma": list(sigmas),
        "loss": losses,
        "kpp": scores,
        "clean_loss": clean,
    }
    chosen = 0
    if scored:
        # An epoch of the warm-up is scored only to find the result: it tells nothing of the interval.
        chosen = _winner(state, scores, scorer.metric.higher_is_better, shrink=number >= plan.warm)
        if number >= plan.since and _afforded(plan, clean[chosen] if clean else None):
            _remember(state, scores[chosen], chosen, scorer.metric.higher_is_better)
        row["winner"] = SIDES[chosen] if len(sigmas) > 1 else None
    state.history.append(row)
    return cut


def _afforded(plan: TrainingPlan, loss: float | None) -> bool:
    """Whether a network that has lost so much without noise can be the result."""
    return plan.budget is None or (loss is not None and plan.budget.affords(loss))


def _winner(state: TrainingState, scores: list[float], higher_is_better: bool, *, shrink: bool) -> int:
    """Spread the best network of an epoch, and past the warm-up shrink the interval."""
    if len(scores) == 1 or state.interval is None:
        return 0
    side = winner(scores, higher_is_better)
    chosen = SIDES.index(side)
    state.lanes = [state.lanes[chosen]] * 3  # the optimiser's state goes with the weights it belongs to
    if shrink:
        state.interval = state.interval.shrunk(side)
    return chosen


def _remember(state: TrainingState, score: float, chosen: int, higher_is_better: bool) -> None:
    """Keep the winner of an epoch if it is the best so far; of equals the longer-trained."""
    gain = 0.0 if state.best is None else score - state.best
    if state.best is None or (gain if higher_is_better else -gain) >= 0:
        state.best, state.kept = score, state.lanes[chosen if len(state.lanes) > chosen else 0]
        state.best_epoch = state.epoch + 1

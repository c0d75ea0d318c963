"""``--keep better``: the trained network or the given one; ``best`` may train a second, gentle time.

Bold training (weights within one standard deviation, a high rate) bears noise best, but takes a network far
from where it was; with few samples it does not find back to its accuracy without noise. A gentle one stays
near. Which of them a model needs is not known beforehand, so it is tried: the second is trained only where
the first one lost more without noise than is free, or is worth less than the given network. All networks are
scored on the same chips and held-out samples; what they are worth is :meth:`CleanLossBudget.worth`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nvaudit.perturb.schedule import Progress
from nvaudit.retrain.checkpoint import CheckpointFolder
from nvaudit.retrain.loop import (
    COMPARED,
    GIVEN,
    TrainingPlan,
    TrainingState,
    naming,
    part_of,
    run_epochs,
)
from nvaudit.retrain.score import CleanLossBudget, Scorer
from nvaudit.retrain.spec import HardenSpec
from nvaudit.retrain.train import Recipe, Snapshot, Trainer

BEST_CLIP = 1.0
"""Standard deviations at which --method best clips weights."""

GENTLE_LR = 3e-4
GENTLE_CLIP = 2.5
"""Of the second training of --method best: few weights are changed at the beginning, and none goes far."""

BOLD, GENTLE = "bold", "gentle"


def recipes_of(spec: HardenSpec) -> tuple[tuple[str, Recipe], ...]:
    """Give the ways to train in the order in which they are tried, with their names.

    There is a second one only for ``best`` with its own learning rate and clipping.
    """
    clip = spec.clip_weights
    if clip is None and spec.method == "best":
        clip = BEST_CLIP
    first = Recipe(
        epochs=spec.run_epochs,
        batch_size=spec.step_samples,
        optimiser=spec.optimiser,
        lr=spec.rate,
        weight_decay=spec.weight_decay,
        schedule=spec.schedule,
        clip_gradient=spec.clip_gradient,
        clip_weights=clip,
        augment=spec.augment,
        draws=spec.draws,
        seed=spec.seed,
    )
    chosen_by_user = spec.lr is not None or spec.clip_weights is not None or spec.optimiser != "adam"
    if spec.method != "best" or chosen_by_user:
        return ((BOLD, first),)
    return (BOLD, first), (GENTLE, replace(first, lr=GENTLE_LR, clip_weights=GENTLE_CLIP))


COMPARED_SHARE = 0.2
"""Inferences of a comparison as a share of those of a training."""

FEWEST_COMPARED = 100
"""Chips of a comparison at least."""

_SECOND = 0.5
"""A second training needs so much of the time of the first, at least."""


@dataclass(frozen=True)
class Attempt:
    """A network that was trained, and what it was chosen or passed over by.

    Attributes
    ----------
    clip_weights : float or None
        Standard deviations that weights were kept within.
    kpp : float
        On validation samples and chips that no epoch was scored on.
    clean_loss : float
        What it lost without noise against the given network, on all held-out samples.
    """

    name: str
    lr: float
    clip_weights: float | None
    kpp: float
    clean_loss: float


def run_attempts(
    trainer: Callable[[Recipe], Trainer],
    recipes: Sequence[tuple[str, Recipe]],
    plan: TrainingPlan,
    scorer: Scorer,
    budget: CleanLossBudget,
    progress: Progress,
    checkpoints: CheckpointFolder | None,
) -> tuple[TrainingState, list[Attempt], int | None]:
    """Train until a network is worth more than the given one at no cost; the network ends as the best.

    Parameters
    ----------
    trainer : callable
        Makes a trainer of the network as it stands.
    recipes : sequence of (str, Recipe)
        In the order in which they are tried, with their names, which are those of the folders of their
        checkpoints from the second on.

    Returns
    -------
    state : TrainingState
        Of the training that is kept; where the given network is, of the best of those that were tried.
    attempts : list of Attempt
        In the order in which they were tried.
    kept : int or None
        Which of them; None: the given network.
    """
    _, first = recipes[0]
    begin = trainer(first)
    start, deadline = begin.snapshot(), begin.deadline
    # As many chips as take this share of the inferences of a training: scores stay cheap beside it.
    wanted = int(COMPARED_SHARE * first.epochs * scorer.task.feed.count / scorer.feed.count)
    chips = min(scorer.trials, max(FEWEST_COMPARED, wanted))
    given = scorer.kpp(first.epochs, chips, part_of(deadline, GIVEN))
    chips = scorer.scored
    began = time.perf_counter()
    attempts: list[Attempt] = []
    ends: list[tuple[TrainingState, Snapshot]] = []
    for name, recipe in recipes:
        trainer(recipe).restore(start)
        one = trainer(recipe)  # where weights are clipped follows from the weights it begins with
        one.deadline = part_of(deadline, 1 - COMPARED)
        own = checkpoints if checkpoints is None or not attempts else checkpoints.inner(name, "attempt")
        state = run_epochs(
            one,
            # The choice is made here, on chips that no epoch was scored on; scoring every epoch as well
            # would cost and decide nothing.
            replace(plan, keep="last", budget=None),
            scorer,
            naming(progress, name) if attempts else progress,
            own,
        )
        # Chips of the epoch after the last: no epoch was scored on them, and all attempts share them.
        kpp = scorer.kpp(first.epochs, chips)
        attempt = Attempt(name, recipe.lr, recipe.clip_weights, kpp, budget.loss())
        attempts.append(attempt)
        ends.append((state, one.snapshot()))
        if budget.is_free(attempt.clean_loss) and _worth(budget, attempt) >= budget.worth(given, 0.0):
            break
        if time.perf_counter() + _SECOND * (time.perf_counter() - began) > deadline:
            break
    # Of equals the first; a network that is ruled out is still the better of two such ones by its KPP.
    best = max(range(len(attempts)), key=lambda i: (_worth(budget, attempts[i]), -i))
    state, end = ends[best]
    state.compared, state.clean_loss = (given, attempts[best].kpp), attempts[best].clean_loss
    kept = _worth(budget, attempts[best]) >= budget.worth(given, 0.0)
    state.best_epoch = first.epochs if kept else 0
    trainer(first).restore(end if kept else start)
    return state, attempts, best if kept else None


def _worth(budget: CleanLossBudget, attempt: Attempt) -> float:
    return budget.worth(attempt.kpp, attempt.clean_loss)

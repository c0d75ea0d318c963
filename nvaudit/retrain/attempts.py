"""``--keep better``: the trained network or the given one; ``best`` may train a second, gentle time.

Bold training (weights within one standard deviation, a high rate) bears noise best, but takes a network far
from where it was; with few samples it does not find back to its accuracy without noise. A gentle one stays
near. Which of them a model needs is not known beforehand, so it is tried: the second is trained only where
the first one lost more without noise than is free, or is worth less than the given network. All networks are
scored on the same chips and held-out samples; what they are worth is :meth:`Budget.worth`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nvaudit.perturb.schedule import Progress
from nvaudit.retrain.budget import Budget
from nvaudit.retrain.loop import Plan, Shelf, State, run_epochs
from nvaudit.retrain.score import Scorer
from nvaudit.retrain.train import Recipe, Snapshot, Trainer

COMPARED_SHARE = 0.2
"""Chips of the comparison: a score takes about half so many inferences of those that a training made."""

FEWEST_COMPARED = 100


@dataclass(frozen=True)
class Attempt:
    """A network that was trained, and what it was chosen or passed over by.

    Attributes
    ----------
    name : str
    lr : float
        Learning rate.
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
    plan: Plan,
    scorer: Scorer,
    budget: Budget,
    progress: Progress,
    shelf: Shelf | None,
) -> tuple[State, list[Attempt], int | None]:
    """Train until a network is worth more than the given one at no cost; the network ends as the best.

    Parameters
    ----------
    trainer : callable
        Makes a trainer of the network as it stands.
    recipes : sequence of (str, Recipe)
        In the order in which they are tried, with their names, which are those of the folders of their
        checkpoints from the second on.
    plan : Plan
    scorer : Scorer
        Of the network.
    budget : Budget
        Of the network.
    progress : callable
        Called with (what, done, total).
    shelf : Shelf or None

    Returns
    -------
    state : State
        Of the training that is kept; where the given network is, of the best of those that were tried.
    attempts : list of Attempt
    kept : int or None
        Which of them; None: the given network.
    """
    _, first = recipes[0]
    start = trainer(first).snapshot()
    chips = _compared_chips(first, scorer)
    given = scorer.kpp(first.epochs, chips)
    attempts: list[Attempt] = []
    ends: list[tuple[State, Snapshot]] = []
    for name, recipe in recipes:
        trainer(recipe).restore(start)
        one = trainer(recipe)  # where weights are clipped follows from the weights it begins with
        own = shelf if shelf is None or not attempts else shelf.inner(name, "attempt")
        state = run_epochs(
            one, replace(plan, keep="last", budget=None), scorer, _told(progress, name, attempts), own
        )
        found = Attempt(name, recipe.lr, recipe.clip_weights, scorer.kpp(first.epochs, chips), budget.loss())
        attempts.append(found)
        ends.append((state, one.snapshot()))
        if budget.is_free(found.clean_loss) and _worth(budget, found) >= budget.worth(given, 0.0):
            break
    # Of equals the first; a network that is ruled out is still the better of two such ones by its KPP.
    best = max(range(len(attempts)), key=lambda i: (_worth(budget, attempts[i]), -i))
    state, end = ends[best]
    state.compared, state.clean_loss = (given, attempts[best].kpp), attempts[best].clean_loss
    kept = _worth(budget, attempts[best]) >= budget.worth(given, 0.0)
    state.best_epoch = first.epochs if kept else 0
    trainer(first).restore(end if kept else start)
    return state, attempts, best if kept else None


def _worth(budget: Budget, attempt: Attempt) -> float:
    return budget.worth(attempt.kpp, attempt.clean_loss)


def _compared_chips(recipe: Recipe, scorer: Scorer) -> int:
    """How many chips keep the scores cheap beside a training."""
    passes = recipe.epochs * scorer.task.feed.count
    wanted = int(COMPARED_SHARE * passes / scorer.feed.count)
    return min(scorer.trials, max(FEWEST_COMPARED, wanted))


def _told(progress: Progress, name: str, before: list[Attempt]) -> Progress:
    """Say which training it is, from the second on."""
    if not before:
        return progress
    return lambda what, done, total: progress(what.replace("training", f"training, {name}", 1), done, total)

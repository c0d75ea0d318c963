"""``--keep better``: what a second training is for, and which network is the result."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_nets import recipe, scorer, task

from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.record import Identity
from nvaudit.perturb.schedule import Progress
from nvaudit.retrain.attempts import GENTLE_CLIP, GENTLE_LR, Attempt, recipes_of, run_attempts
from nvaudit.retrain.checkpoint import CheckpointFolder
from nvaudit.retrain.loop import TrainingPlan, TrainingState
from nvaudit.retrain.noise import no_noise
from nvaudit.retrain.options import make_harden_spec
from nvaudit.retrain.score import FREE_LOSS, CleanLossBudget
from nvaudit.retrain.train import Recipe, Task, Trainer

PLAN = TrainingPlan(lambda _: no_noise, 0.0, None, 0, "better", given=True)
RUIN = recipe(lr=30.0, schedule="constant", epochs=2)
"""Leaves a network that knows nothing."""

GOOD = recipe(lr=0.01, epochs=6)
NOTHING = recipe(lr=1e-9, epochs=2)


def taught() -> Task:
    """A network that has learned its task, as a given one has."""
    of = task()
    trainer = Trainer(of, GOOD)
    for epoch in range(GOOD.epochs):
        trainer.epoch(epoch, no_noise)
    return of


def attempt(
    of: Task,
    recipes: list[Recipe],
    limit: float | None = None,
    checkpoints: CheckpointFolder | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[TrainingState, list[Attempt], int | None]:
    judge = scorer(of)
    budget = CleanLossBudget(judge, limit, judge.clean())
    named = list(zip(("bold", "gentle"), recipes, strict=False))

    def trainer(how: Recipe) -> Trainer:
        return Trainer(of, how)

    return run_attempts(trainer, named, PLAN, judge, budget, progress, checkpoints)


def values(of: Task) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in of.network.weights.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def test_one_training_that_costs_nothing_is_the_only_one():
    """A network that learns is better than the given one at no cost: nothing else is trained."""
    of = task()  # it knows nothing yet
    state, attempts, kept = attempt(of, [GOOD, RUIN])
    assert (len(attempts), kept, state.best_epoch) == (1, 0, GOOD.epochs)
    assert state.compared is not None
    assert state.compared[1] == attempts[0].kpp > state.compared[0]
    assert state.clean_loss == attempts[0].clean_loss < 0


def test_a_gentle_training_follows_one_that_ruins():
    """The second begins with the given weights, not with what the first has left, and is the result."""
    of = taught()
    start = values(of)
    state, attempts, kept = attempt(of, [RUIN, NOTHING])
    assert [one.name for one in attempts] == ["bold", "gentle"]
    assert attempts[0].clean_loss > 0.2
    assert attempts[1].clean_loss == pytest.approx(0, abs=1e-9)
    assert (kept, state.best_epoch) == (1, NOTHING.epochs)
    for key, weight in values(of).items():
        torch.testing.assert_close(weight, start[key], rtol=0, atol=1e-5)


def test_weights_are_clipped_by_what_they_were_given_as():
    """The edges of the second training are those of the given weights, which the first has blown up."""
    of = taught()
    start = values(of)
    edge = {key: float(value.std()) for key, value in start.items() if key != "b1"}
    _, _, kept = attempt(of, [RUIN, replace(NOTHING, clip_weights=1.5)])
    assert kept == 1
    edge = {key: 1.5 * value for key, value in edge.items()}
    assert any(float(start[key].abs().max()) > value for key, value in edge.items())
    assert all(float(values(of)[key].abs().max()) <= value * (1 + 1e-6) for key, value in edge.items())


def test_the_given_network_is_kept_where_all_others_are_worse():
    """Both trainings ruin it: the weights come back bit for bit."""
    of = taught()
    start = values(of)
    state, attempts, kept = attempt(of, [RUIN, replace(RUIN, lr=40.0)])
    assert (len(attempts), kept, state.best_epoch) == (2, None, 0)
    assert same(values(of), start)


def test_a_limit_rules_networks_out():
    """With a limit of 0 a network that lost anything is not the result, however good its KPP."""
    of = taught()
    start = values(of)
    _, attempts, kept = attempt(of, [RUIN], limit=0.0)
    assert attempts[0].clean_loss > 0
    assert kept is None
    assert same(values(of), start)


def test_what_a_network_is_worth():
    """Up to 1.5 points are free; beyond, a point without noise is a point of KPP; a limit is a limit."""
    judge = scorer(task())
    free = CleanLossBudget(judge, None, judge.clean())
    assert free.worth(0.8, -0.1) == free.worth(0.8, 0.0) == free.worth(0.8, FREE_LOSS) == 0.8
    assert free.worth(0.8, FREE_LOSS + 0.1) == pytest.approx(0.7)
    assert (free.is_free(FREE_LOSS), free.is_free(FREE_LOSS + 1e-6)) == (True, False)
    assert free.affords(1.0)
    strict = CleanLossBudget(judge, 0.05, judge.clean())
    assert strict.worth(0.8, 0.05) == 0.8
    assert strict.worth(0.8, 0.06) == float("-inf")
    assert strict.is_free(0.05)
    loss = Metric("cross_entropy", "cross_entropy", higher_is_better=False, unit="nats", class_axis=1)
    in_nats = replace(judge, metric=loss)
    nats = CleanLossBudget(in_nats, None, in_nats.clean())
    assert nats.worth(0.3, 5.0) == -0.3 > nats.worth(0.4, 0.0)  # no part of a nat is free by itself


def test_a_resumed_second_training(tmp_path: Path):
    """Each training has its own checkpoints; the same command ends with the same bits."""
    checkpoints = CheckpointFolder(tmp_path, Identity(inputs={}, options={"--lr": None}, versions={}))
    of = taught()
    _, first, _ = attempt(of, [RUIN, GOOD], checkpoints=checkpoints)
    end = values(of)
    assert (tmp_path / "training.ckpt").exists()
    assert (tmp_path / "gentle" / "training.ckpt").exists()
    again = taught()
    told: list[tuple[str, int, int]] = []
    _, second, _ = attempt(
        again, [RUIN, GOOD], checkpoints=checkpoints, progress=lambda *one: told.append(one)
    )
    assert told == [("training: epochs", 2, 2), ("training, gentle: epochs", 6, 6)]  # no epoch ran again
    assert first == second
    assert same(values(again), end)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 2),
        ({"lr": 0.003}, 1),
        ({"clip_weights": 1.0}, 1),
        ({"optimiser": "sgd"}, 1),
        ({"method": "gaussian"}, 1),
        ({"epochs": 7, "augment": "flip"}, 2),
    ],
)
def test_what_is_tried(options: dict[str, object], count: int):
    """Only ``best`` with its own rate and clipping has a second way, which is the gentle one of the first."""
    (_, first), *others = recipes_of(make_harden_spec(model="m.onnx", device="rram", **options))
    assert 1 + len(others) == count
    for name, other in others:
        assert name == "gentle"
        assert other == replace(first, lr=GENTLE_LR, clip_weights=GENTLE_CLIP)
        assert (other.lr, other.clip_weights) != (first.lr, first.clip_weights)

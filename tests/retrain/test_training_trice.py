"""TRICE: the search to the letter of Algorithm 3, and what training does around it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_nets import TOP1, Net, recipe, scorer, task

from nvaudit.retrain.loop import TrainingPlan, run_epochs
from nvaudit.retrain.noise import shaped_noise
from nvaudit.retrain.train import Trainer
from nvaudit.retrain.trice import SIDES, SigmaInterval, winner


@pytest.mark.parametrize(
    ("scores", "side"),
    [
        ((1, 2, 3), "right"),
        ((3, 2, 1), "left"),
        ((1, 3, 2), "mid"),
        ((2, 2, 1), "mid"),
        ((1, 2, 2), "mid"),
        ((2, 2, 2), "mid"),
        ((2, 1, 2), "left"),
    ],
)
def test_winner(scores: tuple[float, ...], side: str):
    """The best KPP wins; ties go to the middle, then to the left, as the branches of Algorithm 3 do."""
    assert winner(scores) == side
    assert winner([-score for score in scores], higher_is_better=False) == side


def test_quartiles_and_rules():
    """Candidates are the quartiles; mid: [left, right], left: end = right, right: start = left."""
    whole = SigmaInterval(0.0, 0.8)
    assert whole.candidates() == pytest.approx((0.2, 0.4, 0.6))
    assert whole.shrunk("mid") == SigmaInterval(*whole.candidates()[::2])
    assert whole.shrunk("left") == SigmaInterval(0.0, whole.candidates()[2])
    assert whole.shrunk("right") == SigmaInterval(whole.candidates()[0], 0.8)


@given(st.lists(st.sampled_from(SIDES), max_size=60), st.floats(0, 1), st.floats(1e-3, 1))
def test_interval_only_shrinks(sides: list[Any], start: float, width: float):
    """By a half where the middle wins, by a quarter else; never beyond its ends; until it has converged."""
    interval = SigmaInterval(start, start + width)
    for side in sides:
        if interval.converged:
            assert interval.candidates() == (interval.start,)
            return
        inner = interval.shrunk(side)
        assert interval.start <= inner.start < inner.end <= interval.end
        share = 0.5 if side == "mid" else 0.75
        assert inner.end - inner.start == pytest.approx(share * (interval.end - interval.start), rel=1e-9)
        interval = inner


class FakeScorer:
    """Scores by a list instead of by chips, and remembers which network it was asked about."""

    metric, trials, scored = TOP1, 20, 20

    def __init__(self, of: Any, script: dict[int, tuple[float, ...]]) -> None:
        self.of, self.script, self.seen = of, script, []

    def kpp(self, epoch: int, trials: int | None = None, until: float = math.inf) -> float:
        asked = sum(1 for number, _ in self.seen if number == epoch)
        self.seen.append((epoch, self.of.network.weights["w1"].detach().clone()))
        return self.script[epoch][asked]


def fake_run(script: dict[int, tuple[float, ...]], epochs: int, warm: int, interval: SigmaInterval) -> Any:
    of = task()
    sigmas: list[float] = []

    def noise(sigma: float) -> Any:
        sigmas.append(sigma)
        return shaped_noise("rc", sigma, 2.0)

    trainer = Trainer(of, recipe(epochs=epochs))
    fake = FakeScorer(of, script)
    state = run_epochs(
        trainer,
        TrainingPlan(noise, 0.0, interval, warm, "best"),
        fake,  # type: ignore[arg-type]
        lambda *_: None,
        None,
    )
    return state, sigmas, fake, of


def test_algorithm_3_to_the_letter():
    """Warm-up without scores, quartiles each epoch, the interval by the winner, its weights to all."""
    script = {2: (1.0, 3.0, 2.0), 3: (5.0, 4.0, 4.0), 4: (0.0, 0.0, 1.0)}
    state, sigmas, fake, _ = fake_run(script, 5, 2, SigmaInterval(0.0, 0.8))
    assert sigmas[:6] == pytest.approx([0.2, 0.4, 0.6] * 2)  # warm-up: nothing moves
    assert sigmas[6:9] == pytest.approx([0.2, 0.4, 0.6])
    assert sigmas[9:12] == pytest.approx([0.3, 0.4, 0.5])  # mid had won: [0.2, 0.6]
    assert sigmas[12:] == pytest.approx([0.275, 0.35, 0.425])  # left had won: end = 0.5
    assert (state.interval.start, state.interval.end) == pytest.approx((0.275, 0.5))  # right: start = left
    assert [number for number, _ in fake.seen] == [2] * 3 + [3] * 3 + [4] * 3
    assert [row.get("winner") for row in state.history] == [None, None, "mid", "left", "right"]


def test_winners_weights_go_to_all():
    """After a scored epoch the three networks are equal; before it they are not."""
    state, *_ = fake_run({1: (1.0, 0.0, 0.0)}, 2, 1, SigmaInterval(0.0, 0.8))
    first = [lane["network"]["weights.w1"] for lane in state.lanes]
    assert all((one == first[0]).all() for one in first)
    script = {0: (0.0, 1.0, 0.0), 1: (0.0, 1.0, 0.0)}
    _, _, fake, _ = fake_run(script, 2, 0, SigmaInterval(0.0, 0.8))
    trained = [weights for number, weights in fake.seen if number == 1]
    assert (trained[0] != trained[1]).any()


def test_best_checkpoint_is_kept():
    """The result is the network with the best KPP of all epochs, not the last."""
    script = {0: (0.5, 0.9, 0.5), 1: (0.1, 0.2, 0.1), 2: (0.3, 0.2, 0.1)}
    state, _, fake, of = fake_run(script, 3, 0, SigmaInterval(0.0, 0.8))
    assert state.best == 0.9
    assert (of.network.weights["w1"] == fake.seen[1][1]).all()


def test_converged_search_trains_one():
    """Below 1e-4 one network is left, at the start of the interval, and goes on being scored."""
    script = {0: (0.0, 1.0, 0.0), 1: (1.0,), 2: (2.0,)}
    state, sigmas, *_ = fake_run(script, 3, 0, SigmaInterval(0.1, 0.1 + 1.5e-4))
    assert len(sigmas) == 3 + 1 + 1
    assert len(state.lanes) == 1
    assert sigmas[3] == state.interval.start == pytest.approx(0.1 + 0.375e-4)
    assert state.best == 2.0


def test_all_epochs_warm():
    """If every epoch is warm-up, the last one is scored all the same: three must come down to one."""
    state, *_ = fake_run({1: (0.0, 0.0, 1.0)}, 2, 50, SigmaInterval(0.0, 0.8))
    assert state.history[-1]["winner"] == "right"
    assert state.interval == SigmaInterval(0.0, 0.8)  # but it tells nothing of the interval


def test_candidates_are_scored_on_the_same_chips():
    """Equal networks have equal KPP in an epoch, and other chips in the next."""
    judge = scorer(task(), trials=30)
    assert (judge.values(0) == judge.values(0)).all()
    assert (judge.values(0) != judge.values(1)).any()


def test_stacked_chips_have_the_same_values():
    """Several chips in one vectorised pass score as one by one."""
    of = task(norm=True)
    alone, stacked = scorer(of), scorer(of)
    stacked.stacked = None
    assert (alone.values(0) == stacked.values(0)).all()
    assert stacked.stacked is True


def test_chips_that_cannot_be_stacked():
    """An operator that cannot be vectorised makes the chips run one by one."""

    class Stubborn(Net):
        def forward(self, inputs: Any, weights: Any = None) -> Any:
            found = super().forward(inputs, weights)
            float(found["y"].sum())  # a number out of a batched tensor
            return found

    of = replace(task(), network=Stubborn())
    tried, plain = scorer(of), scorer(replace(of, network=Net()))
    tried.stacked = None
    assert (tried.values(0) == plain.values(0)).all()
    assert tried.stacked is False


def test_score_is_the_kpp():
    """The score is sorted(a)[int(k/100 · N)] of the chips' metric."""
    judge = scorer(task(), trials=50, percentile=10)
    assert judge.kpp(3) == np.sort(judge.values(3))[5]
    assert 0 < judge.clean() <= 1

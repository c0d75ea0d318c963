"""Group pruning: the clipped penalty (S-3, S-4), which groups are cut, and what a cut group is afterwards."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_nets import Net, place, point, recipe, scorer, task

from nvaudit.errors import OptionError
from nvaudit.mapping.groups import group_numbers
from nvaudit.mapping.tiling import Lines
from nvaudit.retrain.device_noise import DeviceNoise
from nvaudit.retrain.loop import TrainingPlan, run_epochs
from nvaudit.retrain.noise import no_noise, noisy_weights, torch_generator
from nvaudit.retrain.prune import (
    PrunableLayer,
    Pruner,
    choose_groups,
    clipped_penalty,
    group_norms,
    make_pruner,
    with_devices,
)
from nvaudit.retrain.quant import Groups, quantise
from nvaudit.retrain.train import Trainer

HALVES = Groups(np.array([[0, 0, 1, 1], [2, 2, 3, 3]]), 4)


def grouped(key: str, shape: tuple[int, int], rows: int = 4) -> object:
    number = group_numbers(shape, Lines((0,), shape[1], shape[0]), rows)
    return replace(place(key), groups=Groups(number, int(number.max()) + 1))


PLACES = (grouped("w1", (16, 8)), grouped("w2", (3, 16)))


def pruned_task(sparsity: float, *, dense: tuple[str, ...] = (), strength: float = 3.0, epochs: int = 6):
    given = replace(task(), where=PLACES)
    how = recipe(epochs=epochs)
    pruner = make_pruner(
        given.network, PLACES, dense, sparsity=sparsity, strength=strength, epochs=epochs,
        steps=given.feed.steps(how.batch_size),
    )  # fmt: skip
    return given, Trainer(given, how, pruner), pruner


def test_penalty_by_hand():
    """Norms 5, 1, 0 and 13 have the mean 4.75; with α = 1 the threshold δ is that, with α = 2 it is 9.5."""
    weight = torch.tensor([[3.0, 4.0, 0.0, 1.0], [0.0, 0.0, 5.0, 12.0]], requires_grad=True)
    assert group_norms(weight, HALVES).tolist() == [5.0, 1.0, 0.0, 13.0]
    one = clipped_penalty([(weight, HALVES)], [1.0])
    assert one.item() == pytest.approx(4.75 + 1 + 0 + 4.75)
    two = clipped_penalty([(weight, HALVES)], [2.0])
    assert two.item() == pytest.approx(5 + 1 + 0 + 9.5)
    both = clipped_penalty([(weight, HALVES), (weight, HALVES)], [1.0, 2.0])
    assert both.item() == pytest.approx(one.item() + two.item())


def test_gradient_of_the_penalty():
    """Groups below the threshold are pulled along their own direction; those above it, and zeros, are not."""
    weight = torch.tensor([[3.0, 4.0, 0.0, 1.0], [0.0, 0.0, 5.0, 12.0]], requires_grad=True)
    (found,) = torch.autograd.grad(clipped_penalty([(weight, HALVES)], [2.0]), weight)
    assert found.tolist() == [[pytest.approx(0.6), pytest.approx(0.8), 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]


def test_scores_by_hand():
    """‖W_i‖² over those as large or larger: 1/14, 4/13 and 1 for norms of 1, 2 and 3; zeros come first."""
    layer = PrunableLayer(np.array([2.0, 1.0, 3.0]), np.array([4, 4, 4]))
    assert layer.scores == pytest.approx([4 / 13, 1 / 14, 1.0])
    assert PrunableLayer(np.zeros(3), np.ones(3, np.int64)).scores.tolist() == [0, 0, 0]
    assert [layer.alpha(count) for count in (0, 1, 2)] == pytest.approx([0, 0.75, 1.25])
    assert layer.alpha(3) > 1.5


def test_as_few_groups_as_reach_the_share():
    """Groups go in the order of their scores until enough weights are gone; of every layer one stays."""
    layers = [
        PrunableLayer(np.array([1.0, 1.0]), np.array([6, 6])),
        PrunableLayer(np.arange(1.0, 7.0), np.full(6, 2)),
    ]
    assert [gone.sum() for gone in choose_groups(layers, 0)] == [0, 0]
    assert [gone.tolist() for gone in choose_groups(layers, 2)] == [[False] * 2, [True] + [False] * 5]
    assert [gone.sum() for gone in choose_groups(layers, 3)] == [0, 2]
    assert [gone.tolist() for gone in choose_groups(layers, 1000)] == [
        [False, True],
        [True] * 5 + [False],
    ]


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.7])
def test_sparsity_is_reached_exactly_and_stays(sparsity):
    """From the cut on the share of zeros is the asked one, to a group, through all epochs with noise."""
    given, trainer, pruner = pruned_task(sparsity)
    noise = DeviceNoise(point())
    weights = given.network.weights
    total, shares = 16 * 8 + 3 * 16, []
    for epoch in range(6):
        trainer.epoch(epoch, noise)
        zero = 0
        for where in PLACES:
            norms = group_norms(weights[where.key], where.groups)
            size = np.bincount(where.groups.number.ravel())
            zero += int(size[(norms == 0).numpy()].sum())
        shares.append(zero / total)
    assert pruner.cut == 3
    assert shares[3] == shares[4] == shares[5]
    assert sparsity <= shares[5] < sparsity + 4 / total + 1e-9
    assert given.network.weights["w1"].abs().sum() > 0


def test_groups_shrink_before_they_are_cut():
    """Under the penalty the smallest groups are far smaller at the cut than without; the largest is not."""
    left = {}
    for strength in (0.0, 3.0):
        given, trainer, _ = pruned_task(0.5, strength=strength)
        for epoch in range(3):
            trainer.epoch(epoch, no_noise)
        left[strength] = np.sort(group_norms(given.network.weights["w1"], PLACES[0].groups).detach().numpy())
    assert left[3.0][:8].sum() < 0.2 * left[0.0][:8].sum()
    assert left[3.0][-4:].sum() > 0.8 * left[0.0][-4:].sum()


def test_a_step_ends_at_zero_not_beyond_it():
    """A group that is shorter than a step is zero after it."""
    network = Net()
    with torch.no_grad():
        network.weights["w1"][0] = 1e-6
    pruner = Pruner(network, PLACES[:1], 128, 0.5, 100.0, 1, 1)
    pruner.begin(0)
    pruner.after_step()
    assert (network.weights["w1"][0] == 0).all()
    assert torch.isfinite(network.weights["w1"]).all()
    pruner.after_step()
    assert torch.isfinite(network.weights["w1"]).all()


def test_what_has_no_devices_has_no_noise():
    """Weights of cut groups are exactly zero on every chip, in training and in scores; all others vary."""
    given, _, pruner = pruned_task(0.5)
    pruner.cut_groups()
    noise, generator = DeviceNoise(point()), torch_generator("cpu", 0, "test")
    drawn = noisy_weights(given.network, PLACES, noise, generator)
    cut = 0
    for where in PLACES:
        weight = given.network.weights[where.key]
        gone = (group_norms(weight, where.groups) == 0)[torch.from_numpy(where.groups.number)]
        assert (drawn[where.key][gone] == 0).all()
        assert (drawn[where.key][~gone] != weight[~gone]).all()
        there = with_devices(where, quantise(weight.detach(), where))
        assert (there == (~gone).float()).all()
        cut += int(gone.sum())
    assert cut >= 88
    of = scorer(replace(given, where=PLACES), trials=3)
    seen = []
    of._values = lambda chips, count: seen.append(chips) or np.zeros(count)  # type: ignore[method-assign]
    of.values(0)
    gone = given.network.weights["w1"] == 0
    assert all((chips["w1"][:, gone] == 0).all() and (chips["w1"][:, ~gone] != 0).any() for chips in seen)


def test_dense_weights_stay_whole():
    """What --dense names loses nothing; the others make up for it."""
    given, trainer, _ = pruned_task(0.4, dense=("w2",))
    for epoch in range(6):
        trainer.epoch(epoch, no_noise)
    assert (given.network.weights["w2"] != 0).all()
    zero = int((given.network.weights["w1"] == 0).sum())
    assert 0.4 * 176 <= zero < 0.4 * 176 + 4


def test_too_much_is_refused():
    """More than can be cut is an error that says how much can."""
    with pytest.raises(OptionError, match=r"--sparsity 0.99: only 0.954 of the weights on the array lie in"):
        pruned_task(0.99)
    with pytest.raises(OptionError, match=r"and all of w1\); use less"):
        pruned_task(0.5, dense=("w1",))


def test_only_a_pruned_network_is_the_result():
    """With --keep best no network from before the cut is kept, however good it is."""
    given, trainer, pruner = pruned_task(0.8)
    plan = TrainingPlan(lambda _: no_noise, 0.0, None, 0, "best", since=pruner.cut)
    state = run_epochs(trainer, plan, scorer(replace(given, where=PLACES), trials=5), lambda *_: None, None)
    assert state.best_epoch is not None
    assert state.best_epoch > pruner.cut
    assert (given.network.weights["w1"] == 0).sum() >= 64

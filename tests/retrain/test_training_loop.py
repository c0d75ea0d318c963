"""Training: what an epoch does, what it depends on, and how a run that was cut off goes on."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_nets import CROSS_ENTROPY, PLACES, Net, blobs, place, recipe, scorer, task

from nvaudit.errors import OptionError
from nvaudit.perturb.record import Identity, Input
from nvaudit.retrain import correctnet, score
from nvaudit.retrain.checkpoint import CHECKPOINT_FILE, CheckpointFolder
from nvaudit.retrain.feed import Batch, Feed, augmented, check_augment, split_rows
from nvaudit.retrain.loop import TrainingPlan, run_epochs
from nvaudit.retrain.loss import settle_loss
from nvaudit.retrain.noise import no_noise, shaped_noise
from nvaudit.retrain.train import Trainer, recalibrate
from nvaudit.retrain.trice import SigmaInterval
from nvaudit.rng import stream

QUIET = shaped_noise("gaussian", 0.05, 2.0)


def weights(of: Any) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in of.network.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all((a[key] == b[key]).all() for key in a)


def test_training_learns():
    """The loss falls, and chips get better."""
    of = task()
    judge, trainer = scorer(of, trials=30), Trainer(of, recipe(epochs=6))
    before = judge.kpp(0)
    losses = [trainer.epoch(number, QUIET) for number in range(6)]
    assert losses[-1] < 0.6 * losses[0]
    assert judge.kpp(0) > before + 0.2


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_an_epoch_depends_on_its_number_alone(optimiser: str):
    """Two runs give the same bits; another seed or another epoch gives others."""
    results = []
    for seed, number in ((0, 0), (0, 0), (1, 0), (0, 1)):
        of = task()
        Trainer(of, recipe(optimiser=optimiser, seed=seed)).epoch(number, QUIET)
        results.append(weights(of))
    assert equal(results[0], results[1])
    assert not equal(results[0], results[2])
    assert not equal(results[0], results[3])


def test_an_epoch_is_cut_off_when_its_time_is_over():
    """It makes one step at least, and says so only if steps were left."""
    of = task()
    trainer, steps = Trainer(of, recipe()), []
    before = weights(of)
    trainer.epoch(0, QUIET, lambda done, _: steps.append(done), until=0.0)
    assert steps == [1]
    assert trainer.was_cut
    assert not equal(before, weights(of))
    trainer.epoch(0, QUIET)
    assert not trainer.was_cut
    trainer = Trainer(task(), recipe(batch_size=240))
    trainer.epoch(0, QUIET, until=0.0)
    assert not trainer.was_cut


def test_scores_end_when_their_time_is_over(monkeypatch: pytest.MonkeyPatch):
    """The first chips are scored then, and another network can be scored on as many."""
    monkeypatch.setattr(score, "_MOST", 4)
    judge = scorer(task(), trials=20)
    cut = judge.kpp(0, until=0.0)
    assert judge.scored == 4
    assert judge.kpp(0, judge.scored) == cut
    assert (judge.values(0, until=0.0) == judge.values(0)[:4]).all()


@pytest.mark.parametrize("interval", [None, SigmaInterval(0.0, 0.4)])
def test_a_training_is_cut_off_inside_an_epoch(tmp_path: Path, interval: SigmaInterval | None):
    """No epoch follows; the networks are scored all the same, and no checkpoint holds half an epoch."""
    plan = TrainingPlan(lambda s: shaped_noise("rc", s, 2.0), 0.1, interval, 1, "best")
    trainer = Trainer(task(), recipe())
    trainer.deadline = 0.0
    checkpoints = CheckpointFolder(tmp_path, identity())
    state = run_epochs(trainer, plan, scorer(trainer.task), lambda *_: None, checkpoints)
    assert trainer.was_cut
    assert not state.whole
    (row,) = state.history
    assert len(row["kpp"]) == (1 if interval is None else 3)
    assert checkpoints.load() is None


def test_divergence_is_an_error():
    """A loss that is no number ends the training with what to do about it."""
    of = task()
    with torch.no_grad():
        of.network.weights["w1"].fill_(math.inf)
    with pytest.raises(
        OptionError, match=r"training diverged: the loss is nan at step 1 of epoch 1; use a lower"
    ):
        Trainer(of, recipe()).epoch(0, no_noise)


def test_weights_are_clipped():
    """With a limit no weight on the array is beyond it; what is digital, or has its own grid, is free."""
    of = task()
    edges = {key: float(of.network.weights[key].detach().std()) for key in ("w1", "w2")}
    trainer = Trainer(of, recipe(clip_weights=1.0))
    for number in range(3):  # the edges stay where they were, so that weights do not shrink away
        trainer.epoch(number, QUIET)
    for key, edge in edges.items():
        assert float(of.network.weights[key].detach().abs().max()) == pytest.approx(edge)
    own = replace(task(), where=(place("w1", grid=np.float32(0.1)), PLACES[1]))
    Trainer(own, recipe(clip_weights=0.5)).epoch(0, no_noise)
    peaks = own.network.weights["w1"].abs()
    assert (peaks >= peaks.max() * 0.999).sum() == 1


def test_gradient_and_schedule():
    """A bounded gradient moves weights less under plain descent; a cosine ends at nothing."""
    moved = []
    for limit in (None, 1e-6):
        of = task()
        before = weights(of)
        Trainer(of, recipe(optimiser="sgd", clip_gradient=limit)).epoch(0, no_noise)
        moved.append(float((weights(of)["weights.w1"] - before["weights.w1"]).abs().max()))
    assert moved[1] < 1e-3 * moved[0]
    of = task()
    trainer = Trainer(of, recipe(epochs=1))
    trainer._set_rate(trainer._steps)
    assert trainer._optimiser.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_several_draws_are_averaged():
    """More draws per step make another, less noisy gradient."""
    results = []
    for draws in (1, 4):
        of = task()
        Trainer(of, recipe(draws=draws)).epoch(0, shaped_noise("gaussian", 0.3, 2.0))
        results.append(weights(of))
    assert not equal(*results)


def test_statistics_are_recalibrated():
    """Batch statistics become those of the quantised network on the training samples; weights stay."""
    of = task(norm=True)
    before = weights(of)
    of.network.norm.running_mean.fill_(7.0)
    recalibrate(of, recipe(), 0)
    after = weights(of)
    assert (after["weights.w1"] == before["weights.w1"]).all()
    grid = PLACES[0]
    from nvaudit.retrain.quant import quantise

    hidden = torch.from_numpy(blobs().inputs["x"]) @ quantise(of.network.weights["w1"], grid).values.T
    assert after["norm.running_mean"].numpy() == pytest.approx(hidden.mean(0).detach().numpy(), abs=0.05)


def identity(seed: int = 0) -> Identity:
    return Identity(inputs={"model": Input(name="m", sha256="0")}, options={"--seed": seed}, versions={})


@pytest.mark.parametrize("interval", [None, SigmaInterval(0.0, 0.4)])
def test_resume_is_bit_identical(tmp_path: Path, interval: SigmaInterval | None):
    """A training killed after any epoch and resumed gives the same bits as one that was not."""
    plan = TrainingPlan(lambda s: shaped_noise("rc", s, 2.0), 0.1, interval, 1, "best")

    def run(checkpoints: CheckpointFolder | None, stop: int = 99) -> Any:
        of = task(norm=True)

        def progress(what: str, done: int, total: int) -> None:
            if done == stop:
                raise KeyboardInterrupt

        state = run_epochs(Trainer(of, recipe()), plan, scorer(of, trials=20), progress, checkpoints)
        return weights(of), state.history

    whole = run(None)
    checkpoints = CheckpointFolder(tmp_path, identity())
    for stop in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(checkpoints, stop)
    again = run(checkpoints)
    assert equal(whole[0], again[0])
    assert whole[1] == again[1]


def test_foreign_checkpoints_are_refused(tmp_path: Path):
    """A checkpoint of another training, or a file that is none, is named and left alone."""
    plan = TrainingPlan(lambda s: no_noise, 0.0, None, 0, "last")

    def run(seed: int) -> None:
        of = task()
        run_epochs(
            Trainer(of, recipe(epochs=1)),
            plan,
            scorer(of),
            lambda *_: None,
            CheckpointFolder(tmp_path, identity(seed)),
        )

    run(0)
    with pytest.raises(
        OptionError, match=r"it holds another training: --seed is 1, there 0; name another folder"
    ):
        run(1)
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"junk")
    with pytest.raises(OptionError, match=r"training.ckpt cannot be read"):
        run(0)


@pytest.mark.parametrize(("size", "steps"), [(1, 9), (2, 4), (4, 2), (5, 2), (9, 1), (64, 1)])
def test_batches(size: int, steps: int):
    """Every sample comes once in an epoch; of batches of several a last one of one sample is left out."""
    feed = Feed(blobs(9), np.arange(9))
    found = [batch.rows for batch in feed.shuffled(size, 0, 0)]
    assert len(found) == feed.steps(size) == steps
    seen = [int(row) for rows in found for row in rows]
    assert len(set(seen)) == len(seen) == (8 if size in (2, 4) else 9)


def test_split():
    """Every sample is on one side; the seed decides; an empty side is refused."""
    train, held = split_rows(100, 0.2, 0)
    assert sorted([*train, *held]) == list(range(100))
    assert len(held) == 20
    assert (split_rows(100, 0.2, 1)[1] != held).any()
    with pytest.raises(OptionError, match=r"--val-split 0.01 of 10 samples leaves 0 to validate on and 10"):
        split_rows(10, 0.01, 0)


@pytest.mark.parametrize("shape", [(6, 1, 8, 8), (6, 8, 8, 3)])
def test_augmentation(shape: tuple[int, ...]):
    """Images are flipped and shifted, each by itself, in either layout; others are refused."""
    images = np.random.Generator(np.random.SFC64(0)).normal(size=shape).astype(np.float32)
    data = replace(blobs(6), inputs={"x": images})
    check_augment("flip+crop", data)
    batch = Batch({"x": torch.from_numpy(images)}, None, np.arange(6))
    flipped = augmented(batch, "flip", data, stream(0, "augment", 0)).inputs["x"].numpy()
    width = 3 if shape[1] == 1 else 2
    turned = np.flip(images, width)
    is_turned = [bool((one == other).all()) for one, other in zip(flipped, turned, strict=True)]
    is_same = [bool((one == other).all()) for one, other in zip(flipped, images, strict=True)]
    assert all(a or b for a, b in zip(is_turned, is_same, strict=True))
    assert any(is_turned)
    assert any(is_same)
    shifted = augmented(batch, "crop", data, stream(0, "augment", 1)).inputs["x"].numpy()
    assert shifted.shape == shape
    assert set(np.unique(shifted)) <= set(np.unique(images))
    assert (shifted != images).any()
    with pytest.raises(OptionError, match=r"--augment crop: no input is a batch of images: x \[240, 8\]"):
        check_augment("crop", blobs())


def test_losses():
    """Labels, targets or the given model's outputs; probabilities and logits mean the same."""
    rng = np.random.Generator(np.random.SFC64(0))
    logits = rng.normal(size=(5, 4)).astype(np.float32)
    label = np.array([0, 1, 2, 3, 0])
    t, y = torch.from_numpy(logits), torch.from_numpy(label)
    loss = settle_loss(logits, label, "class", None, None)
    assert loss.description == "cross-entropy"
    assert loss(t, y, None).item() == pytest.approx(torch.nn.functional.cross_entropy(t, y).item(), rel=1e-6)
    prob = t.softmax(1)
    of_prob = settle_loss(prob.numpy(), label, "class", None, None)
    assert of_prob.scale == "probability"
    assert of_prob(prob, y, None).item() == pytest.approx(loss(t, y, None).item(), rel=1e-5)
    alone = settle_loss(logits, None, "none", None, None)
    assert alone.distill == 1
    assert alone(t, None, t).item() == pytest.approx(0, abs=1e-6)
    assert alone(t, None, t.flip(0)).item() > 0.1
    half = settle_loss(logits, label, "class", None, 0.5)
    assert half(t, y, t).item() == pytest.approx(loss(t, y, None).item() / 2, rel=1e-5)
    column = settle_loss(logits[:, :1], label % 2, "class", None, None)
    assert column.kind == "binary"
    assert column(t[:, :1], y % 2, None).item() > 0
    target = settle_loss(logits, logits + 1, "reference", None, None)
    assert target(t, t + 1, None).item() == pytest.approx(1, rel=1e-5)
    with pytest.raises(OptionError, match=r"--distill 0.5: the data have no labels"):
        settle_loss(logits, None, "none", None, 0.5)


def test_distillation_follows_the_teacher():
    """Without labels the network learns the given model's outputs."""
    teacher = Net(seed=5)
    data = replace(blobs(), labels=None, label_kind="none")
    of = replace(
        task(),
        feed=Feed(data, np.arange(data.count)),
        teacher=teacher,
        loss=replace(CROSS_ENTROPY, distill=1.0),
    )
    trainer = Trainer(of, recipe(epochs=6))
    losses = [trainer.epoch(number, no_noise) for number in range(6)]
    assert losses[-1] < 0.4 * losses[0]


def test_correctnet():
    """The penalty is β Σ ‖WᵀW − λ²I‖², zero for scaled orthonormal layers, and λ falls with σ."""
    assert correctnet.bound(0.0) == 1.0
    mean, spread = math.exp(0.125), math.sqrt((math.exp(0.25) - 1) * math.exp(0.25))
    assert correctnet.bound(0.5) == pytest.approx(1 / (mean + 3 * spread))
    net = Net()
    with torch.no_grad():
        for key in ("w1", "w2"):
            q, _ = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))
            shape = net.weights[key].shape
            net.weights[key].copy_(correctnet.bound(0.3) * q[: shape[0], : shape[1]] if shape[0] < 16 else
                                   correctnet.bound(0.3) * q[:, : shape[1]])  # fmt: skip
    assert correctnet.penalty(net, PLACES, 0.3, 1.0).item() == pytest.approx(0, abs=1e-8)
    with torch.no_grad():
        net.weights["w2"].mul_(2)
    square = correctnet.bound(0.3) ** 2
    assert correctnet.penalty(net, PLACES, 0.3, 0.1).item() == pytest.approx(
        0.1 * 3 * (3 * square) ** 2, rel=1e-4
    )

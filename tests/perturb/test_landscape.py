"""Landscapes of small models: the measure's laws, against numpy, and whatever runs the points."""

import os
import signal
from dataclasses import replace

import landscape_models as models
import numpy as np
import pytest

from nvaudit import landscape
from nvaudit.data import load_dataset
from nvaudit.errors import ModelError, OptionError
from nvaudit.jobs.landscaping import run_landscape, session_landscape
from nvaudit.model import analyse_batch, load_model
from nvaudit.perturb.landscape.spec import make_landscape_spec
from nvaudit.perturb.landscape.workload import PlaneRequest, build_plane
from nvaudit.rng import stream
from nvaudit.session import input_specs, prepare
from nvaudit.spec import make_spec

SMALL = {"grid": 5, "pairs": 2, "images": 16, "span": 0.5}


def surface(report):
    return np.array(report.surface.losses)


@pytest.fixture
def plain(tmp_path):
    """The landscape of the small network of two layers, computed in this process, and its files."""
    model, data = models.mlp(tmp_path / "mlp.onnx"), models.save_data(tmp_path / "d.npz", (6,))
    return landscape(model, data, **SMALL), model, data


def numpy_landscape(seed, axis, pairs, images):
    """The measure of the small network in a few lines of numpy."""
    data = np.random.Generator(np.random.PCG64(5))
    labels = data.integers(0, 3, models.SAMPLES)
    x = models.numbers(models.SAMPLES, 6, seed=5).astype(np.float64)
    chosen = np.sort(stream(seed, "landscape-samples").permutation(models.SAMPLES)[:images])
    x, labels = x[chosen], labels[chosen]
    w = {name: array.astype(np.float64) for name, array in models.MLP.items()}
    within = {"w1": 0, "w2": 1}  # x @ w1: filters are columns; w2 is transposed: filters are rows
    losses = np.empty((pairs, len(axis), len(axis)))
    for pair in range(pairs):
        d = {}
        for name, sum_axis in within.items():
            for way in (0, 1):
                n = stream(seed, "landscape", pair, way, name).standard_normal(w[name].shape, np.float32)
                size = [np.linalg.norm(a, axis=sum_axis, keepdims=True) for a in (w[name], n)]
                d[name, way] = n * size[0] / size[1]
        for i, alpha in enumerate(axis):
            for j, beta in enumerate(axis):
                w1, w2 = (w[name] + alpha * d[name, 0] + beta * d[name, 1] for name in ("w1", "w2"))
                z = np.maximum(x @ w1 + w["b1"], 0) @ w2.T + w["b2"]
                losses[pair, i, j] = (np.log(np.exp(z).sum(1)) - z[np.arange(images), labels]).mean()
    gx, gy = np.meshgrid(axis, axis, indexing="ij")
    design = np.stack([gx**2, gy**2, gx, gy, np.ones_like(gx)], -1).reshape(-1, 5)
    residual = [z.ravel() - design @ np.linalg.pinv(design) @ z.ravel() for z in losses]
    return losses, [np.mean(r**2) for r in residual]


@pytest.mark.parametrize("seed", [0, 7])
def test_it_agrees_with_numpy(seed, tmp_path):
    """Surface and roughness of a small network are those of an independent numpy implementation."""
    model, data = models.mlp(tmp_path / "mlp.onnx"), models.save_data(tmp_path / "d.npz", (6,))
    report = landscape(model, data, seed=seed, **SMALL)
    axis = np.linspace(-0.5, 0.5, 5)
    losses, expected = numpy_landscape(seed, axis, 2, 16)
    assert np.array(report.surface.axis) == pytest.approx(axis, abs=1e-15)
    assert surface(report) == pytest.approx(losses, rel=2e-5)
    assert [fit.roughness for fit in report.fits] == pytest.approx(expected, rel=1e-3)
    assert report.roughness.value == pytest.approx(np.mean(expected), rel=1e-3)
    assert report.roughness.spread == pytest.approx(np.std(expected, ddof=1), rel=1e-3)


def test_the_middle_is_the_unmodified_model(plain):
    """At (0, 0) nothing is moved: every pair has the loss of the model as it is."""
    report, _, _ = plain
    assert surface(report)[:, 2, 2] == pytest.approx(report.loss.nominal, rel=1e-6)
    assert len(set(surface(report)[:, 2, 2])) == 1
    assert report.moved == ("w1", "w2")
    assert report.moved_numbers == 45
    assert report.fixed == {}


def test_a_squared_loss_of_a_linear_model_leaves_the_cross_term(tmp_path):
    """y = x W with squared error is quadratic in W: only the cross term c αβ is left, which S-1 lacks."""
    from onnx import helper

    weight = models.numbers(6, 3, seed=1)
    model = models.save(
        tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], (6,), {"w": weight}
    )
    x, target = models.numbers(16, 6, seed=2), models.numbers(16, 3, seed=3)
    np.savez(tmp_path / "d.npz", x=x, y=target)
    report = landscape(model, tmp_path / "d.npz", **SMALL)
    assert report.loss.name == "mse"
    axis = np.array(report.surface.axis)
    for pair in range(2):
        moved = []
        for way in (0, 1):
            n = stream(0, "landscape", pair, way, "w").standard_normal(weight.shape, np.float32)
            moved.append(x @ (n * np.linalg.norm(weight, axis=0) / np.linalg.norm(n, axis=0)))
        c = 2 * np.mean(moved[0] * moved[1])
        expected = c**2 * np.square(axis).mean() ** 2
        assert report.fits[pair].roughness == pytest.approx(expected, rel=1e-3)
        assert report.fits[pair].coefficients[0] == pytest.approx(np.mean(moved[0] ** 2), rel=1e-4)


def test_exchanged_directions_transpose_the_surface(plain, monkeypatch):
    """With the two directions of every pair exchanged, the surface is transposed bit for bit."""
    from nvaudit.perturb.landscape import engine

    report, model, data = plain
    draw = engine.draw_direction
    monkeypatch.setattr(
        engine,
        "draw_direction",
        lambda weights, filters, seed, pair, axis, key: draw(weights, filters, seed, pair, 1 - axis, key),
    )
    other = landscape(model, data, **SMALL)
    assert np.array_equal(surface(other), surface(report).transpose(0, 2, 1))
    assert other.roughness.value == pytest.approx(report.roughness.value, rel=1e-12)


def test_a_rescaled_filter_pair_changes_nothing(tmp_path):
    """Filters times c, and the filters that take their channels divided by c: same function, same surface.

    This is what filter normalisation is for; powers of two, so that every product is exact.
    """
    data = models.save_data(tmp_path / "d.npz", (2, 8, 8))
    factor = np.array([8, 0.25, 1, 32], np.float32)
    other = models.CHAIN | {
        "w1": models.CHAIN["w1"] * factor[:, None, None, None],
        "b1": models.CHAIN["b1"] * factor,
        "w2": models.CHAIN["w2"] / factor[:, None, None, None],
    }
    first = landscape(models.chain(tmp_path / "a.onnx"), data, **SMALL)
    second = landscape(models.chain(tmp_path / "b.onnx", other), data, **SMALL)
    assert surface(second) == pytest.approx(surface(first), rel=1e-6)
    assert second.roughness.value == pytest.approx(first.roughness.value, rel=1e-3)
    assert first.roughness.value > 1e-4


def test_a_rescaled_pair_of_layers_changes_nothing(tmp_path):
    """A layer times c and the next one divided by c, with a relu between: same function, same surface."""
    data = models.save_data(tmp_path / "d.npz", (6,))
    other = models.MLP | {
        "w1": models.MLP["w1"] * 16,
        "b1": models.MLP["b1"] * 16,
        "w2": models.MLP["w2"] / 16,
    }
    first = landscape(models.mlp(tmp_path / "a.onnx"), data, **SMALL)
    second = landscape(models.mlp(tmp_path / "b.onnx", other), data, **SMALL)
    assert surface(second) == pytest.approx(surface(first), rel=1e-6)


def test_a_folded_batch_norm_changes_nothing(tmp_path):
    """Batch norm as nodes or folded into the weights: by filter normalisation the surface is the same."""
    data = models.save_data(tmp_path / "d.npz", (2, 8, 8))
    nodes = landscape(models.normed(tmp_path / "a.onnx", folded=False), data, **SMALL)
    folded = landscape(models.normed(tmp_path / "b.onnx", folded=True), data, **SMALL)
    assert surface(folded) == pytest.approx(surface(nodes), rel=1e-4)
    assert folded.roughness.value == pytest.approx(nodes.roughness.value, rel=1e-2)


def test_recalibrated_batch_norm(tmp_path):
    """With the statistics of the samples, filters may grow as they like: the surface stays low and finite."""
    model, data = (
        models.normed(tmp_path / "a.onnx", folded=False),
        models.save_data(tmp_path / "d.npz", (2, 8, 8)),
    )
    stored = landscape(model, data, **{**SMALL, "span": 20})
    calm = landscape(model, data, batch_norm="recalibrated", batch_size=3, **{**SMALL, "span": 20})
    assert surface(calm)[0, 0, 0] < surface(stored)[0, 0, 0]
    assert calm.roughness.value < stored.roughness.value
    assert calm.roughness.batch_norm == "recalibrated"
    again = landscape(model, data, batch_norm="recalibrated", **{**SMALL, "span": 20})
    assert surface(again).tobytes() == surface(calm).tobytes()  # always all samples at once


def test_recalibration_needs_batch_norm(tmp_path):
    """Where it is folded into the weights, or samples run one by one, recalibration is refused."""
    folded = models.normed(tmp_path / "b.onnx", folded=True)
    with pytest.raises(OptionError, match="has no BatchNormalization node"):
        landscape(folded, batch_norm="recalibrated", **SMALL)
    model = models.normed(tmp_path / "a.onnx", folded=False)
    loaded = load_model(model)
    rebatch = replace(analyse_batch(loaded.model), status="fixed", fixed_batch=1)
    dataset = load_dataset(None, input_specs(loaded, rebatch), model_path=model, scratch=tmp_path)
    request = PlaneRequest(loaded, rebatch, dataset, 16, "y", 64, "recalibrated", 0, "cpu")
    with pytest.raises(OptionError, match="takes 1 at a time, and the statistics are those of all images"):
        build_plane(request, tmp_path)


def test_an_lstm_moves_its_weights_and_no_bias(tmp_path):
    """W and R of an LSTM move, its bias does not, though it is stored with two dimensions."""
    data = models.save_data(tmp_path / "d.npz", (7, 5))
    report = landscape(models.lstm(tmp_path / "m.onnx"), data, **SMALL)
    assert set(report.moved) == {"W", "R", "last"}
    assert report.fixed == {}
    assert report.roughness.value > 0


def test_seeds(plain):
    """The same seed gives the same bits, another seed another surface; more pairs keep the first ones."""
    report, model, data = plain
    assert surface(landscape(model, data, **SMALL)).tobytes() == surface(report).tobytes()
    assert (surface(landscape(model, data, seed=1, **SMALL)) != surface(report)).mean() > 0.9
    more = surface(landscape(model, data, **{**SMALL, "pairs": 3}))
    assert more[:2].tobytes() == surface(report).tobytes()


def test_the_number_of_workers_does_not_matter(plain):
    """In other processes the surface is bit for bit the same."""
    report, model, data = plain
    other = landscape(model, data, workers=2, **SMALL)
    assert surface(other).tobytes() == surface(report).tobytes()
    assert other.events == ()


def test_it_survives_a_killed_worker(plain, monkeypatch):
    """A worker killed on the way is replaced, the report says so, and the surface is the same."""
    from nvaudit.perturb import workers

    report, model, data = plain
    pools = []
    begin = workers.WorkerPool.__enter__
    monkeypatch.setattr(workers.WorkerPool, "__enter__", lambda pool: pools.append(pool) or begin(pool))

    def kill_one(what, done, total):
        if done == 5 and what == "loss landscape":
            os.kill(next(iter(pools[0]._all))._process.pid, signal.SIGKILL)

    other = landscape(model, data, workers=1, progress=kill_one, **SMALL)
    assert surface(other).tobytes() == surface(report).tobytes()
    assert len(other.events) == 1
    assert "signal SIGKILL; replaced" in other.events[0]


def test_progress(plain):
    """Every point is told once."""
    _, model, data = plain
    told = []
    landscape(model, data, progress=lambda *step: told.append(step), **SMALL)
    points = [step for step in told if step[0] == "loss landscape"]
    assert points == [("loss landscape", done, 50) for done in range(1, 51)]


def test_samples_are_chosen_by_the_seed(plain):
    """Of more samples than wanted some are drawn, the same for all pairs; all are used if there are fewer."""
    report, model, data = plain
    assert report.roughness.images == 16
    every = landscape(model, data, **{**SMALL, "images": 1000})
    assert every.roughness.images == models.SAMPLES
    assert every.loss.nominal != report.loss.nominal
    assert landscape(model, data, limit=4, **SMALL).roughness.images == 4


def test_batches_do_not_matter(plain):
    """The batch size changes nothing beyond rounding."""
    report, model, data = plain
    other = landscape(model, data, batch_size=5, **SMALL)
    assert surface(other) == pytest.approx(surface(report), rel=1e-5)


def test_large_models_draw_each_direction_again(plain, monkeypatch):
    """Where directions are too large to be kept, they are drawn for every point: the same bits."""
    from nvaudit.perturb.landscape import engine

    report, model, data = plain
    monkeypatch.setattr(engine, "CACHE_BYTES", 0)
    assert surface(landscape(model, data, **SMALL)).tobytes() == surface(report).tobytes()


def test_large_models_go_through_a_file(plain, monkeypatch):
    """Weights that ONNX Runtime maps from a file give the same bits as weights in memory."""
    from nvaudit.perturb import engine

    report, model, data = plain
    monkeypatch.setattr(engine, "FILE_BYTES", 0)
    assert surface(landscape(model, data, **SMALL)).tobytes() == surface(report).tobytes()


def test_resumed(plain, tmp_path):
    """Finished points are kept: a second run, with more pairs, runs only what is new; values are the same."""
    report, model, data = plain
    folder = tmp_path / "kept"
    told = []
    first = landscape(model, data, resume=folder, **SMALL)
    again = landscape(model, data, resume=folder, progress=lambda *s: told.append(s), **{**SMALL, "pairs": 3})
    assert surface(first).tobytes() == surface(report).tobytes()
    assert surface(again)[:2].tobytes() == surface(report).tobytes()
    record = next(folder.glob("*.record")).stat().st_size
    landscape(model, data, resume=folder, **{**SMALL, "pairs": 3})
    assert next(folder.glob("*.record")).stat().st_size == record
    other = landscape(model, data, resume=folder, **{**SMALL, "span": 0.1})
    assert other.roughness.value < report.roughness.value
    with pytest.raises(OptionError, match="--seed is 1, there 0"):
        landscape(model, data, resume=folder, seed=1, **SMALL)


def test_the_landscape_of_an_audit(tmp_path):
    """What an audit has settled gives the landscape that the command gives with the same seed and data."""
    model, data = models.mlp(tmp_path / "mlp.onnx"), models.save_data(tmp_path / "d.npz", (6,))
    session = prepare(make_spec(model=model, data=data, device="rram", seed=3, limit=20), tmp_path)
    told = []
    report = session_landscape(session, lambda *step: told.append(step))
    alone = landscape(model, data, seed=3, limit=20)
    assert report.roughness == alone.roughness
    assert surface(report).tobytes() == surface(alone).tobytes()
    assert told[-1][1] == told[-1][2] == alone.roughness.pairs * alone.roughness.grid**2


def test_without_labels(tmp_path):
    """On synthetic inputs the unmodified model's decisions are the labels, and the first line says so."""
    report = landscape(models.mlp(tmp_path / "mlp.onnx"), **SMALL)
    assert report.label_free
    assert report.headline.startswith(
        "LABEL-FREE (no labels: the unmodified model is the reference): Roughness"
    )
    assert report.loss.against == "nominal"
    assert report.roughness.value > 0
    mse = landscape(models.mlp(tmp_path / "mlp.onnx"), loss="mse", **SMALL)
    assert surface(mse)[:, 2, 2].max() < 1e-10
    assert surface(mse).min() >= 0


def test_an_overflow_is_said(tmp_path):
    """A loss that is not a number names the point and the cure."""
    huge = models.MLP | {"w1": models.MLP["w1"] * np.float32(1e25), "w2": models.MLP["w2"] * np.float32(1e10)}
    model, data = models.mlp(tmp_path / "mlp.onnx", huge), models.save_data(tmp_path / "d.npz", (6,))
    with pytest.raises(ModelError, match=r"the loss is (nan|inf) .*take a smaller --span"):
        landscape(model, data, **{**SMALL, "span": 100})


def test_a_model_without_weights_is_refused(tmp_path):
    """Where nothing can be moved there is no landscape."""
    from onnx import helper

    model = models.save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], (6,), {})
    with pytest.raises(ModelError, match="no weight with two or more dimensions, so there is no landscape"):
        landscape(model, **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"span": 0}, "--span: got 0; use a number above 0, at most 100"),
        ({"span": float("nan")}, "--span: got nan; use a number above 0, at most 100"),
        ({"grid": 2}, "--grid: got 2; use a whole number from 3 to 1001"),
        ({"pairs": 0}, "--pairs: got 0; use a whole number from 1 to 10000"),
        ({"images": 0}, "--images: got 0; use a whole number, 1 or more"),
        ({"batch_norm": "folded"}, "--batch-norm: got 'folded'; use one of stored, recalibrated"),
        ({"loss": "hinge"}, "--loss: got 'hinge'; use one of cross_entropy, mse, binary_cross_entropy"),
        ({"output_name": "z"}, "--output-name 'z' is not an output; the model has y"),
        ({"sigma": 1}, "sigma: there is no such option; use one of model, span, grid"),
    ],
)
def test_wrong_options(options, message, tmp_path):
    """Each is named, with what was found and what is allowed."""
    with pytest.raises(OptionError) as caught:
        run_landscape(make_landscape_spec(model=models.mlp(tmp_path / "m.onnx"), **options))
    assert message in str(caught.value)

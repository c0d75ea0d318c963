"""Commands on a set whose samples influence each other: frames of a stream, and nodes of a graph."""

import json
import math

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from quick import audit

import nvaudit
from nvaudit.errors import DataError
from nvaudit.jobs.landscaping import landscape
from nvaudit.perturb.montecarlo import sample_seconds
from nvaudit.rng import stream
from nvaudit.session import prepare
from nvaudit.spec import make_spec

F, H, N = TensorProto.FLOAT, 6, 90


def draw(shape, *address):
    return stream(0, "test-together", *address).standard_normal(shape).astype(np.float32)


def finish(folder, nodes, inputs, arrays, data):
    """Write a model, and data labelled by what it says of all samples at once."""
    path = folder / "m.onnx"
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(name, *how) for name, how in inputs.items()],
        [helper.make_tensor_value_info("y", F, ["n", 3])],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.savez(folder / "m.npz", **data, y=session.run(None, data)[0].argmax(1))
    return path


@pytest.fixture(scope="module")
def stream_model(tmp_path_factory):
    """A recurrent network along the first axis, which remembers for long."""
    bias = draw((1, 8 * H), "B")
    bias[0, 2 * H : 3 * H] += 4
    nodes = [
        helper.make_node("Unsqueeze", ["x", "a1"], ["x3"]),
        helper.make_node("LSTM", ["x3", "W", "R", "B"], ["Y"], hidden_size=H),
        helper.make_node("Squeeze", ["Y", "a12"], ["h"]),
        helper.make_node("MatMul", ["h", "V"], ["y"]),
    ]
    arrays = {
        "W": draw((1, 4 * H, 5), "W"), "R": draw((1, 4 * H, H), "R"), "B": bias, "V": draw((H, 3), "V"),
        "a1": np.int64([1]), "a12": np.int64([1, 2]),
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("stream")
    return finish(folder, nodes, {"x": (F, ["n", 5])}, arrays, {"x": draw((N, 5), "x")})


@pytest.fixture(scope="module")
def graph_model(tmp_path_factory):
    """Two layers over a dense adjacency."""
    there = (draw((N, N), "edges") > 1.5) + np.eye(N, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("MatMul", ["adj", "h"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "V"], ["b"]),
        helper.make_node("MatMul", ["adj", "b"], ["y"]),
    ]
    inputs = {"x": (F, ["n", 5]), "adj": (F, ["n", "n"])}
    data = {"x": draw((N, 5), "nodes"), "adj": (there / there.sum(1, keepdims=True)).astype(np.float32)}
    arrays = {"W": draw((5, 8), "W1"), "V": draw((8, 3), "V1")}
    return finish(tmp_path_factory.mktemp("graph"), nodes, inputs, arrays, data)


@pytest.fixture(params=["stream_model", "graph_model"])
def model(request):
    return request.getfixturevalue(request.param)


def test_an_audit_runs_the_set_whole(model):
    """Labels are its own outputs on all samples, so it reaches 100 %; headline and note say how."""
    report = audit(model, trials=3)
    assert report.nominal == 1
    assert f", 3 chips, all {N} samples at once" in report.headline
    assert any(
        note.startswith("samples of a batch influence each other in this model") for note in report.notes
    )
    assert report.run["batch_size"] == N
    assert f"{N} run together" in report.model.batching


def test_a_batch_size_is_followed_and_told(stream_model, graph_model):
    """Runs of 8 frames forget what came before; nodes without their neighbours do not run."""
    report = audit(stream_model, trials=3, batch_size=8)
    assert report.nominal < 0.9
    assert ", 3 chips, 8 samples at a time" in report.headline
    assert any("results hold for --batch-size 8;" in note and "(LSTM" in note for note in report.notes)
    with pytest.raises(DataError, match=rf"give --batch-size {N}$"):
        audit(graph_model, trials=3, batch_size=8)


def test_converters_are_calibrated_and_losses_attributed_on_the_whole_set(model):
    """Both take some samples elsewhere; of such a set they take all."""
    report = audit(model, trials=3, adc_bits=8, attribute=("tensors",), attribution_images=5)
    assert report.crossbar.samples == N
    assert report.attribution_detail.tensors.images == N
    assert f"all {N} samples at once" in report.headline


def test_chips_are_not_raced(tmp_path, stream_model):
    """Frames drawn at random are no stream: with 1,000 of them and 100 chips each chip still sees all."""
    x = draw((1000, 5), "long")
    session = onnxruntime.InferenceSession(stream_model, providers=["CPUExecutionProvider"])
    np.savez(tmp_path / "long.npz", x=x, y=session.run(None, {"x": x})[0].argmax(1))
    report = audit(stream_model, "rram", tmp_path / "long.npz", trials=100)
    assert report.nominal == 1
    assert report.trials.race is None
    assert report.trials.images_evaluated == 100 * 1000
    assert (
        "every chip was run on every sample: samples of a batch influence each other in this model"
        in report.notes
    )


def test_a_landscape_takes_the_whole_set(model):
    """A loss over some of the samples is another one: its images are all, whatever is asked for."""
    report = landscape(model, pairs=1, grid=3, images=10)
    assert report.roughness.images == N
    assert report.run["batch_size"] == N
    assert any("influence each other" in note for note in report.notes)


def test_a_chip_is_replayed(command, tmp_path, model):
    """The report holds the batch size of the run, so its chips come again."""
    report = tmp_path / "r.json"
    assert command("audit", model, "-n", 3, "-j", 0, "--no-roughness", "-o", report).code == 0
    ran = command("replay", report, "-o", tmp_path / "chip.onnx")
    assert ran.code == 0, ran.err
    assert "the file measures the same" in ran.out
    assert json.loads(report.read_text())["run"]["batch_size"] == N


def test_remap_compare_and_verify_plan_run_it_whole(tmp_path, model):
    """What they measure is what an audit measures."""
    trials, data, written = 20, str(model.with_suffix(".npz")), tmp_path / "r.onnx"
    alone = audit(model, trials=trials).kpp[0].value
    remapped = nvaudit.remap(model, out=written, trials=trials, calibration_images=10, calibration_chips=4)
    assert (remapped.before.nominal, remapped.before.kpp) == (1, alone)
    assert remapped.run["batch_size"] == N
    assert f"on {N} samples of {N}" in remapped.calibration
    plan = nvaudit.verify_plan(model, trials=trials, ranking="magnitude")
    assert (plan.nominal, plan.run["batch_size"]) == (1, N)
    compared = nvaudit.compare([str(model), str(written)], data=data, trials=trials, roughness=False)
    values = {one.model: one.kpp[0].value for one in compared.models}
    assert values[str(model)] == alone
    assert all(any("influence each other" in note for note in one.notes) for one in compared.models)


def test_finished_models_of_a_comparison_are_not_run_again(tmp_path, model):
    """The batch size that a report holds is the one that is asked for by asking for none."""
    other, chips = tmp_path / "other.onnx", tmp_path / "chips"
    other.write_bytes(model.read_bytes())
    how = {"data": str(model.with_suffix(".npz")), "trials": 5, "roughness": False, "resume": chips}
    first = nvaudit.compare([str(model), str(other)], **how)
    kept = {path: path.stat().st_mtime_ns for path in chips.glob("*/report.json")}
    assert len(kept) == 2
    assert nvaudit.compare([str(model), str(other)], **how).models == first.models
    assert {path: path.stat().st_mtime_ns for path in chips.glob("*/report.json")} == kept


@pytest.mark.parametrize("options", [{}, {"batch_size": N}])
def test_samples_are_timed_together(graph_model, tmp_path, options):
    """What several audits take is said by runs of all samples together: fewer nodes do not run."""
    session = prepare(make_spec(model=str(graph_model), device="rram", **options), tmp_path)
    assert session.workload.together == N
    assert 0 < sample_seconds(session.workload) < math.inf


def test_weights_are_ranked_by_whole_runs(model):
    """The sensitivity of a loss, too, is that of all samples together."""
    pytest.importorskip("torch")
    plan = nvaudit.verify_plan(model, trials=3, sensitivity_images=8)
    assert f"{N} samples" in plan.ranked_by


@pytest.mark.parametrize("options", [{}, {"batch_size": 30}])
def test_training_keeps_samples_together(stream_model, tmp_path, options):
    """A step runs whole runs in order; without training steps the network scores what the audit says."""
    pytest.importorskip("torch")
    report = nvaudit.harden(
        stream_model,
        out=tmp_path / "h.onnx",
        epochs=1,
        trials=5,
        roughness=False,
        method="gaussian",
        **options,
    )
    size = options.get("batch_size", N)
    whole = audit(stream_model, trials=5, exhaustive=True, **options)
    assert report.before.nominal == whole.nominal
    assert report.run["batch_size"] == size
    assert any(f"results hold for --batch-size {size}" in note for note in report.notes)
    assert any("take their losses and scores at their own samples" in note for note in report.notes)

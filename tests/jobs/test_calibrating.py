"""Chips corrected one by one: planted faults are taken back, both KPPs stand side by side, nothing leaks."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit import audit
from nvaudit.errors import DataError, ModelError, OptionError
from nvaudit.model import build_template, constants, load_model
from nvaudit.model.rescale.centre import find_centres, watched_means
from nvaudit.model.rescale.chip_correction import chip_correction
from nvaudit.perturb.session import open_session, run_session

MODEL = "examples/digits_cnn.onnx"
OPTIONS = {"sigmas": (0.2,), "limit": 200, "trials": 12, "roughness": False}


def normed_model(path, gen, batch="n"):
    """x → Conv → BatchNormalization → Relu → Conv with bias → Relu → Flatten → Gemm → y."""
    arrays = {
        "w1": gen.standard_normal((4, 2, 3, 3)),
        "s": gen.uniform(0.5, 2, 4),
        "b": gen.standard_normal(4),
        "m": gen.standard_normal(4),
        "v": gen.uniform(5, 20, 4),
        "w2": gen.standard_normal((3, 4, 3, 3)),
        "c2": gen.standard_normal(3),
        "w3": gen.standard_normal((5, 12)),
        "c3": gen.standard_normal(5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["h1"]),
        helper.make_node("BatchNormalization", ["h1", "s", "b", "m", "v"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "c2"], ["h2"]),
        helper.make_node("Relu", ["h2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "c3"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "normed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return arrays


def test_planted_gains_and_offsets_are_taken_back(tmp_path):
    """A gain of its own in each output channel of a chip: corrected, it gives the ideal's outputs."""
    gen = np.random.default_rng(0)
    arrays = normed_model(tmp_path / "m.onnx", gen)
    loaded = load_model(tmp_path / "m.onnx")
    keys = [c.weight.key for c in constants(loaded) if c.weight]
    assert keys == ["w1", "w2", "w3"]
    x = gen.standard_normal((80, 2, 6, 6)).astype(np.float32)
    centres = find_centres(loaded.model, keys)
    plain = build_template(loaded, [])
    graph, names = watched_means(plain.proto, centres, norms=True, clean=None)
    session = open_session(graph, plain.digital)
    wanted = [name for pair in names.values() for name in pair]
    got = run_session(session, wanted, {"x": x[:40]})
    clean = {name: (got[2 * i], got[2 * i + 1]) for i, name in enumerate(names)}

    template = build_template(loaded, keys)
    made = chip_correction(template.proto, centres, clean)
    assert (made.norms, made.layers) == (("n1",), ("w2", "w3"))
    fills = {}
    for slot in template.slots:
        array = arrays[slot.weight_key].astype(np.float32)
        gain = gen.uniform(0.5, 1.5, array.shape[0]).astype(np.float32)
        fills[slot.name] = array * gain.reshape(-1, *[1] * (array.ndim - 1))
    finder = open_session(made.finder, {**template.digital, **fills})
    found = dict(zip(made.places, run_session(finder, list(made.places), {"x": x[:40]}), strict=True))
    corrected = open_session(made.template, {**template.digital, **fills, **found})
    spoiled = open_session(template.proto, {**template.digital, **fills})
    ideal = open_session(plain.proto, plain.digital)
    outputs = [run_session(s, ["y"], {"x": x[40:]})[0] for s in (ideal, corrected, spoiled)]
    assert np.abs(outputs[2] - outputs[0]).max() > 0.3 * np.abs(outputs[0]).max()
    np.testing.assert_allclose(outputs[1], outputs[0], atol=2e-4 * np.abs(outputs[0]).max())


def test_ideal_devices_are_corrected_by_nothing(tmp_path):
    """Without noise and with fine codes the corrected model scores what the model scores."""
    report = audit(
        MODEL, "rram", sigmas=(0.0,), trials=2, limit=100, bits=12, calibrate_chips=40, roughness=False
    )
    assert report.calibrated.points[0].trials.values == report.trials.values


def test_both_kpps_stand_side_by_side_and_the_chips_are_the_same():
    """As many samples are scored as without the option; the corrected chips are better."""
    plain = audit(MODEL, "fefet1", **OPTIONS)
    both = audit(MODEL, "fefet1", **OPTIONS, calibrate_chips=30)
    assert both.data.count == plain.data.count == 200
    assert both.calibrated.samples == 30
    assert both.calibrated.layers == 4
    (point,) = both.calibrated.points
    assert point.trials.count == both.trials.count == 12
    assert point.trials.mean > both.trials.mean + 0.02
    assert point.kpp[0].value > both.kpp[0].value


def test_workers_and_resume_change_nothing(tmp_path):
    """Corrected chips are the same bit for bit in worker processes, and as read from a folder."""
    first = audit(MODEL, "fefet1", **OPTIONS, calibrate_chips=30, resume=tmp_path / "kept")
    again = audit(MODEL, "fefet1", **OPTIONS, calibrate_chips=30, resume=tmp_path / "kept", workers=1)
    values = first.calibrated.points[0].trials.values
    assert again.calibrated.points[0].trials.values == values
    assert (
        audit(MODEL, "fefet1", **OPTIONS, calibrate_chips=30, workers=2).calibrated.points[0].trials.values
        == values
    )


def test_a_sweep_has_a_point_for_each_sigma():
    """Every sigma of a sweep is measured with and without."""
    report = audit(
        MODEL, "fefet1", sigmas=(0.1, 0.3), limit=100, trials=5, roughness=False, calibrate_chips=20
    )
    assert [point.sigma for point in report.calibrated.points] == [point.sigma for point in report.sweep]


def test_calibration_samples_are_not_scored(tmp_path):
    """The samples set aside are taken out of the data; what is left keeps its labels."""
    data = np.load("examples/digits_cnn.npz")
    x, y = data["image"] if "image" in data else data["x"], data["y"]
    np.savez(tmp_path / "d.npz", x=x[:60], y=y[:60])
    report = audit(MODEL, "rram", tmp_path / "d.npz", trials=2, roughness=False, calibrate_chips=20)
    assert report.data.count == 40
    with pytest.raises(DataError, match="60 samples, of which 60 are to calibrate"):
        audit(MODEL, "rram", tmp_path / "d.npz", trials=2, roughness=False, calibrate_chips=60)


def test_the_same_data_are_refused_for_calibration(tmp_path):
    """What is scored must not calibrate; too few samples are named with their number."""
    data = np.load("examples/digits_cnn.npz")
    x, y = data["image"] if "image" in data else data["x"], data["y"]
    np.savez(tmp_path / "d.npz", x=x[:60], y=y[:60])
    np.savez(tmp_path / "few.npz", x=x[60:70])
    common = {"trials": 2, "roughness": False, "calibrate_chips": 20}
    with pytest.raises(OptionError, match="these are the samples that are scored"):
        audit(MODEL, "rram", tmp_path / "d.npz", calibrate_data=str(tmp_path / "d.npz"), **common)
    with pytest.raises(DataError, match="has 10 samples; --calibrate-chips 20 wants more"):
        audit(MODEL, "rram", tmp_path / "d.npz", calibrate_data=str(tmp_path / "few.npz"), **common)
    with pytest.raises(OptionError, match="--calibrate-data: only with --calibrate-chips"):
        audit(MODEL, "rram", tmp_path / "d.npz", trials=2, calibrate_data=str(tmp_path / "few.npz"))


def test_a_gate_is_refused_and_says_what_to_do():
    """A gate decides about one KPP; with two it is refused before anything runs."""
    with pytest.raises(OptionError, match="run the gate without --calibrate-chips"):
        audit(MODEL, "rram", **OPTIONS, calibrate_chips=20, min_kpp=0.9)


def test_a_fixed_batch_is_refused(tmp_path):
    """Means are taken over all calibration samples at once, which a model for one sample cannot do."""
    gen = np.random.default_rng(1)
    normed_model(tmp_path / "m.onnx", gen, batch=2)
    model = onnx.load(tmp_path / "m.onnx")
    shape = numpy_helper.from_array(np.array([2, 12], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node[5].CopyFrom(helper.make_node("Reshape", ["r2", "shape"], ["f"]))
    mixed = helper.make_node("CumSum", ["f", "axis"], ["g"])
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "axis"))
    model.graph.node.insert(6, mixed)
    model.graph.node[7].input[0] = "g"
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=gen.standard_normal((20, 2, 6, 6)).astype(np.float32))
    with pytest.raises(ModelError, match="--calibrate-chips"):
        audit(tmp_path / "m.onnx", "rram", tmp_path / "d.npz", trials=2, roughness=False, calibrate_chips=4)


def test_the_public_command_writes_and_shows_both(tmp_path, command):
    """`nvaudit audit --calibrate-chips` prints both KPPs, and the JSON has them under calibrated.points."""
    out = tmp_path / "r.json"
    ran = command(
        *("audit", MODEL, "--device", "fefet1", "--sigma", 0.2, "--limit", 100, "-n", 5, "--no-roughness"),
        *("-j", 0, "--calibrate-chips", 20, "-q", "-o", out),
    )
    assert ran.code == 0
    assert "These numbers use the chip" in " ".join(ran.out.split())
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["calibrated"]["points"][0]["kpp"][0]["percentile"] == 1.0
    assert report["run"]["calibrate_chips"] == 20
    ran = command("audit", MODEL, "--calibrate-chips", 20, "--min-kpp", 0.9)
    assert ran.code == 2

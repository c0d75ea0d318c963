"""`nvaudit calibrate`: one chip that was read back, corrected digitally and written as a model."""

import importlib.util
import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper


def scored(path, data):
    """Share of right answers of a written model, in ONNX Runtime alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with np.load(data) as arrays:
        x, y = (arrays[name] for name in ("x", "y")) if "x" in arrays.files else arrays.values()
    out = session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})[0]
    return float((out.argmax(1) == y).mean())


@pytest.fixture
def chips(command, example, tmp_path):
    """Two chips with strong noise."""
    folder = tmp_path / "chips"
    noisy = ("--device", "fefet1", "--sigma", 0.4, "--simulate", 2)
    assert command("map", example, *noisy, "-o", folder, "-q").code == 0
    return folder


def _calibrate(command, example, tmp_path, chips, *options):
    report = tmp_path / "c.json"
    words = ("--chip", chips, "-o", tmp_path / "chip.onnx", "--report", report, "-q")
    ran = command("calibrate", example, *words, *options)
    assert ran.code == 0, ran.err
    return json.loads(report.read_text())


def weights(path):
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("method", ["least_squares", "moments"])
def test_a_chip_is_better_afterwards_and_its_devices_are_the_same(command, example, tmp_path, chips, method):
    """The written model scores what the report says; the weights in it are those of the chip as it is."""
    found = _calibrate(command, example, tmp_path, chips, "--name", "chip-1", "--method", method,
                       "--samples", 100)  # fmt: skip
    assert found["after"] > found["before"] + 0.03
    assert found["scored"] == 497  # the hundred that it is corrected by are not scored
    every = scored(tmp_path / "chip.onnx", example.with_suffix(".npz"))
    assert every == pytest.approx(found["after"], abs=0.02)  # of all samples, the hundred among them
    report = tmp_path / "a.json"
    common = ("--no-roughness", "-n", 2, "-j", 0, "-q", "--device", "fefet1", "--sigma", 0.4)
    assert command("audit", example, *common, "--report", report).code == 0
    assert command("replay", report, "--trial", 1, "-o", tmp_path / "plain.onnx").code == 0
    plain, corrected = weights(tmp_path / "plain.onnx"), weights(tmp_path / "chip.onnx")
    for name in ("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"):
        np.testing.assert_array_equal(corrected[name], plain[name])
    assert set(plain) < set(corrected)


def test_least_squares_bring_every_layer_nearer(command, example, tmp_path, chips):
    """The error of what each layer makes falls; it costs a product and a sum of each of its outputs."""
    found = _calibrate(command, example, tmp_path, chips, "--name", "chip-0")
    assert [layer["name"] for layer in found["layers"]] == [
        "conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"
    ]  # fmt: skip
    for layer in found["layers"]:
        assert layer["after"] < layer["before"]
    assert found["layers"][-1]["operations"] == 2 * 10
    assert found["left"] == {}


def test_moments_bring_what_layers_make_nearer(command, example, tmp_path, chips):
    """The report has each layer's error on the chip as it is and corrected, its gain and what it costs."""
    found = _calibrate(command, example, tmp_path, chips, "--name", "chip-0", "--method", "moments")
    assert [layer["name"] for layer in found["layers"]] == [
        "conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"
    ]  # fmt: skip
    least = _calibrate(command, example, tmp_path, chips, "--name", "chip-0")["layers"]
    for layer, other in zip(found["layers"], least, strict=True):
        assert layer["after"] < layer["before"]
        assert layer["operations"] == other["operations"]
        assert layer["channels"] == other["channels"]
    # Nothing was corrected before the first layer: both methods see the same error of the chip there.
    assert found["layers"][0]["before"] == pytest.approx(least[0]["before"], rel=1e-5)
    assert found["layers"][0]["after"] >= least[0]["after"]


def test_a_noiseless_chip_is_left_as_it_is(command, example, tmp_path):
    """A chip at its targets: gains of one within what quantising makes."""
    folder, ideal = tmp_path / "m", ("--sigma", 0, "--simulate", 1)
    ran = command("map", example, "--device", "rram", "--bits", 12, *ideal, "-o", folder, "-q")
    assert ran.code == 0, ran.err
    found = _calibrate(command, example, tmp_path, folder)
    for layer in found["layers"]:
        assert layer["gain"] == pytest.approx(1, abs=1e-3)
    assert found["after"] == found["before"] == found["ideal"]


def test_other_samples_are_taken_where_they_are_given(command, example, tmp_path, chips):
    """--data: samples that are scored as well are refused, others are used and the whole test set scored."""
    with np.load(example.with_suffix(".npz")) as arrays:
        files = {name: arrays[name] for name in arrays.files}
    for name, part in (("calib", slice(0, 200)), ("test", slice(200, None))):
        np.savez(tmp_path / f"{name}.npz", **{key: value[part] for key, value in files.items()})
    given = ("--data", tmp_path / "calib.npz", "--test-data", tmp_path / "test.npz", "--name", "chip-0")
    found = _calibrate(command, example, tmp_path, chips, *given, "--samples", 50)
    assert (found["samples"], found["scored"]) == (50, 397)
    same = ("--data", tmp_path / "test.npz", "--test-data", tmp_path / "test.npz", "--name", "chip-0")
    words = ("--chip", chips, "-o", tmp_path / "x.onnx", "-q")
    ran = command("calibrate", example, *words, *same)
    assert ran.code == 2
    assert "these are the samples that are scored" in ran.err
    assert not (tmp_path / "x.onnx").exists()


def test_one_of_several_chips_must_be_named(command, example, tmp_path, chips):
    """Exit 2 with the names; a name that is not there likewise."""
    words = ("calibrate", example, "--chip", chips, "-o", tmp_path / "x.onnx", "-q")
    assert "say which with --name: chip-0, chip-1" in command(*words).err
    ran = command(*words, "--name", "chip-9")
    assert (ran.code, "has chip-0, chip-1" in ran.err) == (2, True)


@pytest.mark.reference
def test_a_resnet_takes_its_correction_up_in_its_normalisations(command, shared_data, tmp_path):
    """ResNet-20 on a noisy chip: both methods bring most of the loss back; moments add no operation."""
    model = shared_data / "models" / "cifar_resnet20.onnx"
    spec = importlib.util.spec_from_file_location("reference_load", shared_data / "load.py")
    assert spec is not None
    assert spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    feeds, y = loader.load("cifar_resnet20", 150)
    data = tmp_path / "d.npz"
    np.savez(data, **feeds, y=y)
    noisy = ("--device", "fefet1", "--simulate", 1, "-o", tmp_path / "chip", "-q")
    assert command("map", model, *noisy).code == 0
    for method, kind in (("least_squares", "gain and offset"), ("moments", "normalisation")):
        found = _calibrate(command, model, tmp_path, tmp_path / "chip", "--test-data", data,
                           "--samples", 50, "--method", method)  # fmt: skip
        assert found["after"] >= found["before"]
        assert found["samples"] == 50
        assert kind in {layer["into"] for layer in found["layers"]}
        nearer = [layer["after"] < layer["before"] for layer in found["layers"]]
        assert np.mean(nearer) > 0.8

"""Batches of the reference models."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from nvaudit.model.batch.rebatch import BATCH_NAME, analyse_batch, rebatch

pytestmark = pytest.mark.reference

REBATCHED = (
    "cifar_resnet14_opset9_b1", "cifar_resnet_2b", "cifar_sri_resnet_b", "mnist_cnn_pt_opset14",
    "mnist_cnn_pt_opset9", "mnist_cntk_opset7", "mnist_conv_avgpool", "mnist_conv_maxpool",
    "mnist_eran_relu9x200", "mnist_eran_sigmoid6x200", "mnist_fc_256x2", "mnist_fc_256x4", "mnist_fc_256x6",
)  # fmt: skip
FIXED = ("imp_carvana_unet", "mnist_fc_256x4_dynquant")
IMAGES = 64


@pytest.fixture(scope="module")
def feeds_of(shared_data):
    """Preprocessed images by model name."""
    spec = importlib.util.spec_from_file_location("reference_load", shared_data / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda name: module.load(name, n=IMAGES)[0]


def session(model_bytes):
    """A quiet single-threaded session."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model_bytes, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", REBATCHED)
def test_rebatched_models_give_the_same_on_64_images_at_once(name, shared_data, feeds_of):
    """One batch of 64 through the edited model equals 64 batches of 1 through the file."""
    path = shared_data / "models" / f"{name}.onnx"
    model = ir.load(path)
    result = rebatch(model)
    assert result.status == "rebatched", result.reason
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    ((key, images),) = feeds_of(name).items()
    assert result.batch_axes == {key: 0}
    edited = session(proto.SerializeToString())
    original = session(path.read_bytes())
    assert edited.get_inputs()[0].shape[0] == BATCH_NAME
    (whole,) = edited.run(None, {key: images})
    singles = np.concatenate([original.run(None, {key: images[i : i + 1]})[0] for i in range(IMAGES)])
    np.testing.assert_allclose(whole, singles, rtol=1e-4, atol=1e-4 * np.abs(singles).max())
    (alone,) = edited.run(None, {key: images[:1]})
    np.testing.assert_allclose(alone, singles[:1], rtol=1e-4, atol=1e-4 * np.abs(singles).max())


def test_every_other_model_is_dynamic_or_known_to_be_fixed(shared_data):
    """No reference model ends otherwise than expected."""
    for row in json.loads((shared_data / "models.json").read_text()):
        path = shared_data / "models" / f"{row['name']}.onnx"
        expected = "rebatched" if row["name"] in REBATCHED else "fixed" if row["name"] in FIXED else "dynamic"
        result = analyse_batch(ir.load(path))
        assert result.status == expected, (row["name"], result.reason)
        assert result.coupled is (row["name"] == "mnist_fc_256x4_dynquant")


def test_dynamic_range_quantisation_couples_the_samples_of_a_batch(shared_data):
    """The reason names the operator, and the model stays at batch 1."""
    result = rebatch(ir.load(shared_data / "models" / "mnist_fc_256x4_dynquant.onnx"))
    assert (result.status, result.fixed_batch, result.output_axes) == ("fixed", 1, {"20": 0})
    assert "DynamicQuantizeLinear" in result.reason


def test_a_scalar_output_has_no_batch_axis(shared_data):
    """The U-Net that counts pixels of one image stays as it is."""
    result = rebatch(ir.load(shared_data / "models" / "imp_carvana_unet.onnx"))
    assert (result.status, result.fixed_batch, result.output_axes) == ("fixed", 1, {"out_num": None})


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("vad_silero_16k_op15", {"input": 0, "state": 1}, {"output": 0, "stateN": 1}),
        ("imp_silero_v4", {"input": 0, "h": 1, "c": 1}, {"output": 0, "hn": 1, "cn": 1}),
        ("cifar_resnet8_mlperf", {"input_1": 0}, {"dense": 0}),
        ("imp_qlstm_scan", {"input": 0}, {"output": 0}),
        ("mnist_lstm_keras", {"rows": 0}, {"logits": 0}),
    ],
)
def test_axes_of_dynamic_models(name, inputs, outputs, shared_data):
    """A recurrent state has its batch on axis 1; a 0-d sampling rate has none."""
    result = analyse_batch(ir.load(Path(shared_data) / "models" / f"{name}.onnx"))
    assert (result.status, result.batch_axes, result.output_axes) == ("dynamic", inputs, outputs)

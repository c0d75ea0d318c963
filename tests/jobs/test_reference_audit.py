"""Audits of real trained models on real data: the nominal accuracy and the identity law."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from quick import audit

pytestmark = pytest.mark.reference

IMAGES = 40
NAMES = [
    "mnist_cnn_tf2onnx", "mnist_cntk_opset7", "mnist_fc_256x2", "mnist_fc_256x4", "mnist_fc_256x6",
    "mnist_conv_maxpool", "mnist_conv_avgpool", "mnist_eran_relu9x200", "mnist_eran_sigmoid6x200",
    "mnist_cnn_pt_opset9", "mnist_cnn_pt_opset14", "mnist_lenet_keras", "mnist_lstm_keras",
    "mnist_fc_256x4_dynquant", "cifar_cnn_keras", "cifar_resnet8_mlperf", "cifar_resnet20",
    "cifar_resnet32", "cifar_resnet44_extdata", "cifar_resnet56", "cifar_resnet20_qdq_int8",
    "cifar_resnet14_opset9_b1", "cifar_resnet20_sandia", "cifar_resnet20_fp16_keepio", "cifar_resnet_2b",
    "cifar_sri_resnet_b", "cifar_marabou_large", "cifar_vit_pgd_2_3_16", "vad_silero_16k_op15",
]  # fmt: skip


@pytest.fixture(scope="module")
def loader(shared_data):
    """The module that loads and preprocesses the reference data."""
    spec = importlib.util.spec_from_file_location("reference_load", shared_data / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _plain_accuracy(path: Path, feeds: dict[str, np.ndarray], y: np.ndarray) -> float:
    """Plain ONNX Runtime on the file as it is, at the batch size it was exported with."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    fixed = session.get_inputs()[0].shape[0] == 1
    size = 1 if fixed else len(y)
    right = 0
    for start in range(0, len(y), size):
        part = {k: v if v.ndim == 0 or k == "state" else v[start : start + size] for k, v in feeds.items()}
        scores = session.run(None, part)[0]
        decided = scores.argmax(axis=1) if scores.shape[1] > 1 else scores[:, 0] > 0.5
        right += int((decided == y[start : start + size]).sum())
    return right / len(y)


@pytest.mark.parametrize("name", NAMES)
def test_nominal_is_plain_onnx_runtime_and_no_noise_is_the_quantised_model(
    shared_data, loader, tmp_path, name
):
    """The unmodified model scores as in plain ONNX Runtime; chips without noise equal the quantised model."""
    feeds, y = loader.load(name, IMAGES)
    data = tmp_path / "data.npz"
    np.savez(data, **feeds, y=y)
    path = shared_data / "models" / f"{name}.onnx"
    report = audit(path, "fefet1", data, trials=2, sigmas=(0,))
    assert report.nominal == pytest.approx(_plain_accuracy(path, feeds, y), abs=1e-12)
    assert set(report.trials.values) == {report.quantised}
    assert abs(report.quantised - report.nominal) <= 2 / IMAGES
    assert any(row.decision == "mapped" for row in report.tensors)
    assert not report.label_free


def test_every_reference_model_with_data_is_in_the_list(shared_data):
    """A new reference model must be audited too."""
    models = json.loads((shared_data / "models.json").read_text())
    assert [model["name"] for model in models if model["dataset"]] == NAMES

"""Remapping of real trained models on real data: the function is kept, the worst chip is better."""

import importlib.util

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from nvaudit.jobs.remapping import remap

pytestmark = pytest.mark.reference

EXACT = {"clip": False, "recalibrate": False, "rounding": False}
SETTINGS = {
    "mnist_lenet_keras": (0.2, 200),
    "mnist_cnn_pt_opset14": (0.25, 200),
    "cifar_resnet20": (0.05, 96),
}


@pytest.fixture(scope="module")
def loader(shared_data):
    """The module that loads and preprocesses the reference data."""
    spec = importlib.util.spec_from_file_location("reference_load", shared_data / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(shared_data, loader, folder, name, images, **options):
    feeds, y = loader.load(name, images)
    data = folder / "data.npz"
    np.savez(data, **feeds, y=y)
    model = shared_data / "models" / f"{name}.onnx"
    return remap(
        model, "rram", data, out=folder / "out.onnx", workers=2, calibration_images=images,
        sigma_unit="weight_max", **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "mnist_lenet_keras" else pytest.mark.slow) for name in SETTINGS],
)
def test_equalised_model_keeps_its_accuracy_and_survives_more(shared_data, loader, tmp_path, name):
    """On the same chips the mean rises beyond chance and so does the worst chip; clean accuracy is equal."""
    sigma, images = SETTINGS[name]
    report = run(
        shared_data, loader, tmp_path, name, images, sigma=sigma, **EXACT, trials=24, calibration_chips=6
    )
    assert report.exact
    assert report.after.nominal == report.before.nominal
    assert report.difference.mean.low > 0.02
    assert report.after.min > report.before.min


@pytest.mark.parametrize(
    ("name", "layers", "words"),
    [
        ("cifar_resnet20_qdq_int8", 0, "integer grid"),
        ("mnist_lstm_keras", 1, "LSTM"),
        ("cifar_vit_pgd_2_3_16", 14, ""),
    ],
)
def test_every_weight_says_what_became_of_it(shared_data, loader, tmp_path, name, layers, words):
    """Weights that cannot be rescaled give the reason; those that can are found through dynamic shapes."""
    report = run(
        shared_data, loader, tmp_path, name, 16, sigma=0.05, **EXACT, trials=0, calibration_chips=2,
        digital_scale="insert",
    )  # fmt: skip
    refused = [row for row in report.tensors if row.scales == "refused"]
    assert len(report.tensors) - len(refused) == layers
    assert all(row.scales_reason for row in refused)
    assert not words or any(words in row.scales_reason for row in refused)


def test_half_precision_model_comes_back_in_half_precision(shared_data, loader, tmp_path):
    """Every stored type of a half-precision ResNet stays, and the outputs stay within its rounding."""
    name = "cifar_resnet20_fp16_keepio"
    report = run(shared_data, loader, tmp_path, name, 32, sigma=0.05, **EXACT, trials=0, calibration_chips=2)
    assert report.exact
    kinds = [
        {t.name: numpy_helper.to_array(t).dtype for t in onnx.load(path).graph.initializer}
        for path in (shared_data / "models" / f"{name}.onnx", tmp_path / "out.onnx")
    ]
    assert kinds[0] == kinds[1]

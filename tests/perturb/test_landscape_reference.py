"""Landscapes of the reference models: every kind of model has one, and its middle is the model itself."""

import subprocess
import sys

import numpy as np
import pytest

from nvaudit import landscape
from nvaudit.errors import OptionError

pytestmark = pytest.mark.reference

TINY = {"grid": 3, "pairs": 1, "images": 8, "span": 0.1}

# Data come from load.py where it has some; the others run label-free on synthetic inputs.
MODELS = {
    "mnist_lenet_keras": ("cross_entropy", 1e-4),
    "mnist_lstm_keras": ("cross_entropy", 1e-4),
    "mnist_fc_256x4_dynquant": ("cross_entropy", 0.05),  # integer products become float ones
    "cifar_vit_pgd_2_3_16": ("cross_entropy", 1e-4),
    "cifar_resnet20_fp16_keepio": ("cross_entropy", 0.02),
    "cifar_resnet20_qdq_int8": ("cross_entropy", 0.1),  # ONNX Runtime runs the original in integers
    "cifar_resnet14_opset9_b1": ("cross_entropy", 1e-4),
    "cifar_resnet44_extdata": ("cross_entropy", 1e-4),
    "vad_silero_16k_op15": ("cross_entropy", 1e-4),  # LSTM in the branches of an If
}


@pytest.fixture(scope="module")
def data_of(shared_data, tmp_path_factory):
    """Some samples of a model, or None."""

    def load(name):
        if name.startswith("imp_"):
            return None
        path = tmp_path_factory.mktemp("data") / f"{name}.npz"
        command = [sys.executable, str(shared_data / "load.py"), name, "-n", "8", "-o", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        return path

    return load


def test_decisions_have_no_landscape(shared_data):
    """Class numbers do not change with a small step of the weights: refused, not drawn as a flat surface."""
    with pytest.raises(OptionError, match="'out_num' holds decisions"):
        landscape(shared_data / "models" / "imp_carvana_unet.onnx", None, **TINY)


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_has_a_landscape(name, shared_data, data_of):
    """Weights move, the loss with them, and in the middle it is that of the unmodified model."""
    loss, tolerance = MODELS[name]
    report = landscape(shared_data / "models" / f"{name}.onnx", data_of(name), **TINY)
    losses = np.array(report.surface.losses)[0]
    assert report.loss.name == loss
    assert report.moved
    assert losses[1, 1] == pytest.approx(report.loss.nominal, rel=tolerance, abs=tolerance)
    assert len(np.unique(losses)) > 5
    assert np.isfinite(report.roughness.value)


def test_what_stays_fixed_is_said(shared_data, data_of):
    """A table of positions has two dimensions and is added: it is not moved, and the report names it."""
    report = landscape(
        shared_data / "models" / "cifar_vit_pgd_2_3_16.onnx", data_of("cifar_vit_pgd_2_3_16"), **TINY
    )
    assert report.fixed
    assert set(report.fixed).isdisjoint(report.moved)

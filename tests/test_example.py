"""The example network, its data, and what is said about them agree."""

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(EXAMPLES / "digits_cnn.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def data() -> dict[str, np.ndarray]:
    with np.load(EXAMPLES / "digits_cnn.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def hits(session, data) -> int:
    (logits,) = session.run(["logits"], {"image": data["image"]})
    assert logits.shape == (597, 10)
    return int((logits.argmax(axis=1) == data["y"]).sum())


def test_data_has_the_documented_form(data):
    """The evaluation images are 597 float32 images in 0 … 1, and every digit occurs."""
    assert set(data) == {"image", "y"}
    assert data["image"].shape == (597, 1, 8, 8)
    assert data["image"].dtype == np.float32
    assert data["image"].min() == 0.0
    assert data["image"].max() == 1.0
    assert data["y"].shape == (597,)
    assert data["y"].dtype == np.int64
    assert np.bincount(data["y"]).min() >= 50
    assert set(data["y"]) == set(range(10))


def test_model_has_the_documented_interface(session):
    """The network takes `image` with a free batch size and gives ten scores."""
    (model_input,) = session.get_inputs()
    (model_output,) = session.get_outputs()
    assert (model_input.name, model_input.type) == ("image", "tensor(float)")
    assert model_input.shape == ["N", 1, 8, 8]
    assert (model_output.name, model_output.shape) == ("logits", ["N", 10])


def test_metadata_states_the_measured_accuracy(session, hits):
    """The test result in the ONNX file's metadata is what ONNX Runtime measures."""
    assert session.get_modelmeta().custom_metadata_map["test_correct"] == f"{hits}/597"


def test_readme_states_the_measured_accuracy(hits):
    """The accuracy in examples/README.md is what ONNX Runtime measures, and above 98 %."""
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    stated = re.search(r"test images: ([\d.]+) % \((\d+) of 597\)", text)
    assert stated is not None
    assert stated.groups() == (f"{100 * hits / 597:.2f}", str(hits))
    assert hits / 597 > 0.98


def test_example_is_small():
    """The example stays small enough to live in the repository."""
    assert sum(path.stat().st_size for path in EXAMPLES.glob("digits_cnn.*")) < 300_000

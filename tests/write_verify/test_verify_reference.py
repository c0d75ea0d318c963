"""A write-verify plan of a real trained model on real data."""

import importlib.util

import numpy as np
import onnx
import pytest

import nvaudit

pytestmark = pytest.mark.reference


def test_few_verified_weights_save_a_trained_network(shared_data, tmp_path):
    """LeNet with a tenth of its weights verified: the worst chips of the plan hold, those by |W| do not."""
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("reference_load", shared_data / "load.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    feeds, y = loader.load("mnist_lenet_keras", 200)
    np.savez(tmp_path / "d.npz", **feeds, y=y)
    model = shared_data / "models" / "mnist_lenet_keras.onnx"
    options = {
        "sigmas": (0.25,), "sigma_unit": "weight_max", "shares": (0.1,), "trials": 10, "workers": 0,
        "sensitivity_images": 128,
    }  # fmt: skip
    plan, by_size = (
        nvaudit.verify_plan(
            model, "rram", tmp_path / "d.npz", ranking=ranking, out=tmp_path / f"{ranking}.npz", **options
        )
        for ranking in ("swim", "magnitude")
    )
    none, tenth = plan.curve
    assert none.values == by_size.curve[0].values  # the same chips
    assert none.worst < 0.75
    assert tenth.worst > 0.82
    assert tenth.worst > by_size.curve[1].worst + 0.1
    stored = {t.name: tuple(t.dims) for t in onnx.load(model).graph.initializer}
    with np.load(tmp_path / "swim.npz") as masks:
        assert {name: masks[name].shape for name in masks.files} == {
            row.name: stored[row.name] for row in plan.tensors
        }

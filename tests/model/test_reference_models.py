"""Every reference model: each constant accounted for, and a template that is the model."""

import numpy as np
import pytest
from onnx_cases import filled_session, session, weights
from reference_models import MODELS

from nvaudit.model.load import load_model
from nvaudit.model.template import build_template
from nvaudit.model.uses import constants

pytestmark = pytest.mark.reference

SIZES = {"sequence": 512, "batch": 2}


def feeds(loaded):
    """Seeded inputs of a model."""
    rng = np.random.Generator(np.random.PCG64(0))
    made = {}
    for spec in loaded.inputs:
        if spec.name == "sr":
            made["sr"] = np.array(16000, np.int64)
            continue
        shape = [size if isinstance(size, int) else SIZES.get(size, 2) for size in spec.shape]
        made[spec.name] = rng.uniform(-1, 1, shape).astype(spec.dtype)
    return made


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch", ["keep", "free"])
def test_template_with_original_weights_is_the_model(shared_data, name, batch):
    """Same outputs as ONNX Runtime gives for the file, to 1e-5 of the largest; every reason is given."""
    path = shared_data / "models" / f"{name}.onnx"
    loaded = load_model(path)
    found = {constant.name: constant for constant in constants(loaded)}
    keys = weights(found)
    assert keys
    assert all(constant.weight or constant.reason for constant in found.values())
    template = build_template(loaded, keys, batch=batch)
    runner, kept = filled_session(template, {key: found[key].weight.load().values for key in keys})
    feed = feeds(loaded)
    # ONNX Runtime's own integer kernels round differently from the graph as written.
    original = session(str(path), literal=any(found[key].weight.is_integer for key in keys))
    for want, got in zip(original.run(None, feed), runner.run(None, feed), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(float(np.abs(want).max()), 1e-30))
    del kept


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vad_silero_16k_op15", 8),
        ("imp_qlstm_scan", 2),
        ("mnist_cntk_opset7", 3),
        ("cifar_resnet20_qdq_int8", 20),
    ],
)
def test_number_of_weights(shared_data, name, count):
    """LSTM matrices in two If branches are two arrays, not four; quantised and reshaped weights are found."""
    found = constants(load_model(shared_data / "models" / f"{name}.onnx"))
    assert sum(constant.weight is not None for constant in found) == count

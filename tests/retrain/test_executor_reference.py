"""Every reference model: the same function as in ONNX Runtime, trainable, and written back as it was."""

import filecmp

import numpy as np
import pytest
import torch
from reference_models import MODELS

from nvaudit.model.load import load_model
from nvaudit.model.update import update_values
from nvaudit.model.uses import constants
from nvaudit.retrain.executor.checks import check_parity
from nvaudit.retrain.executor.module import build_executor

pytestmark = pytest.mark.reference

# Lengths that only the data of a model tell.
LENGTHS = {"vad_silero_16k_op15": 576, "imp_silero_v4": 512}
# Weights that a run on 16 kHz does not reach; a scan over codes cut off at 0; a loss without gradient.
UNREACHED = {"imp_silero_v4", "imp_carvana_unet"}


def _feeds(name, loaded, network):
    """One batch of normal numbers, three samples where the batch is free."""
    batch = network.batch
    count = batch.fixed_batch or 3
    generator = np.random.Generator(np.random.PCG64(0))
    feeds = {}
    for spec in loaded.inputs:
        if spec.dtype == "int64":
            feeds[spec.name] = np.array(16000, np.int64)
            continue
        axis = batch.batch_axes.get(spec.name)
        shape = [
            count if place == axis else size if isinstance(size, int) else LENGTHS.get(name, 3)
            for place, size in enumerate(spec.shape)
        ]
        feeds[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
    return feeds


def test_every_reference_model_is_listed(shared_data):
    """No model is left out."""
    assert sorted(path.stem for path in (shared_data / "models").glob("*.onnx")) == MODELS


@pytest.mark.parametrize("name", MODELS)
def test_reference_model_agrees_and_trains(name, shared_data):
    """Outputs are ONNX Runtime's, clean weights are those of an audit, gradients reach all of them."""
    loaded = load_model(shared_data / "models" / f"{name}.onnx")
    executor = build_executor(loaded)
    feeds = _feeds(name, loaded, executor.network)
    parity = check_parity(executor, loaded, feeds)
    assert parity.error <= (1e-3 if parity.tolerance > 1e-3 else 2e-5)
    executor.eval()
    clean = executor.clean()
    audited = {c.weight.key: c.weight for c in constants(loaded) if c.weight is not None}
    assert set(clean) == set(audited)
    for key, weight in audited.items():
        values = weight.load().values.astype(np.float32)
        assert clean[key].shape == weight.shape
        assert np.allclose(clean[key].detach().numpy(), values, rtol=1e-6, atol=1e-7)
    outputs = executor({key: torch.from_numpy(np.array(a)) for key, a in feeds.items()}, clean)
    if name not in UNREACHED:
        torch.stack([y.square().sum() for y in outputs.values()]).sum().backward()
        without = [k for k, p in executor.weights.items() if p.grad is None or not p.grad.abs().sum() > 0]
        assert without == []


@pytest.mark.parametrize("name", MODELS)
def test_untrained_reference_model_is_written_back_as_it_was(name, shared_data, tmp_path):
    """Without a training step the file is the same byte for byte, or the file of its external data is."""
    path = shared_data / "models" / f"{name}.onnx"
    loaded = load_model(path)
    out = tmp_path / "out.onnx"
    assert update_values(loaded, build_executor(loaded).values(), out) == ()
    data = path.with_name(f"{path.name}.data")
    if data.exists():
        assert filecmp.cmp(data, tmp_path / "out.onnx.data", shallow=False)
        again = load_model(out)
        for before, after in zip(constants(loaded), constants(again), strict=True):
            assert before.name == after.name
    else:
        assert filecmp.cmp(path, out, shallow=False)

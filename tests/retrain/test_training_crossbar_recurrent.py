"""Recurrent layers through crossbars in training: outputs of the audit, gradients of the plain operator."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nvaudit.data import Dataset
from nvaudit.device import load_profile, override_profile
from nvaudit.mapping.conductance import layout
from nvaudit.model import CellReadout, Converter, Converters, CrossbarPlan, build_template, load_model
from nvaudit.perturb.cells import device_factors, device_offset, place_cells, target_cells
from nvaudit.perturb.crossbar import ConverterSpec
from nvaudit.retrain.crossbar.hardware import put_in_training
from nvaudit.retrain.executor.module import build_executor
from nvaudit.retrain.feed import Feed
from nvaudit.retrain.noise import no_noise, noisy_weights, shaped_noise, torch_generator
from nvaudit.retrain.quant import ArrayPlace

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from crossbar_cases import STEP, mapped, run
from test_crossbar_recurrent import BATCH, FORMS, INPUTS, STEPS, _model

ROWS = 4
COARSE = {"W": Converters(None, Converter(8.0, -15, 15)), "R": Converters(None, Converter(4.0, -7, 7))}
WITH_DACS = {
    "W": Converters(Converter(0.25, -7, 7), Converter(32.0, -15, 15)),
    "R": Converters(Converter(0.125, -7, 7), Converter(32.0, -7, 7)),
}


def _place(key, encoding="sign_magnitude"):
    # The lowest levels of a top slice: every level counts for a power of two, and sums are exact.
    profile = override_profile(load_profile("rram"), top_slice="lowest")
    array = layout(profile, bits=6, cell_bits=2, encoding=encoding)
    return ArrayPlace(key, array, (), (), 1, np.asarray(STEP, np.float32))


def _audited(path, weights, encoding, converters, x, outputs):
    """Outputs of the audit's graph without noise, and how it splits the weights."""
    tensors = {key: mapped(code, encoding) for key, code in weights.items()}
    cells = {
        key: CellReadout(device_factors(t.array), device_offset(t.array), t.scale)
        for key, t in tensors.items()
    }
    plan = CrossbarPlan(ROWS, cells, converters)
    template = build_template(load_model(path), list(tensors), crossbars=plan)
    devices = {key: target_cells(tensor) for key, tensor in tensors.items()}
    fills = {s.name: place_cells(devices[s.weight_key], s) for s in template.slots if s.cells}
    return run(template, fills, x, outputs), template.splits


def _trained(path, splits, x, places):
    executor = build_executor(load_model(path)).eval()
    data = Dataset({"x": x}, frozenset({"x"}), {"x": 1}, None, "none", BATCH, "x", "0" * 64)
    how = ConverterSpec(ROWS, 64, 6, None, "max")
    return executor, put_in_training(executor, places, splits, how, Feed(data, np.arange(BATCH)), 8)


def _generator(seed=0):
    return torch_generator("cpu", seed, "test")


def _inputs():
    return np.random.Generator(np.random.SFC64(1)).normal(size=(STEPS, BATCH, INPUTS)).astype("f")


@pytest.mark.parametrize("encoding", ["sign_magnitude", "offset"])
@pytest.mark.parametrize(("op", "attributes"), FORMS)
@pytest.mark.parametrize(("bias", "state"), [(False, False), (True, True)])
def test_the_forward_pass_is_the_audits(tmp_path, op, attributes, bias, state, encoding):
    """Every output of every form, with converters that change what comes out, with and without DACs."""
    path, weights, outputs = _model(tmp_path, op, attributes, bias, state)
    x, places = _inputs(), [_place(key, encoding) for key in weights]
    plain = build_executor(load_model(path)).eval()({"x": torch.from_numpy(x)})
    for converters in (COARSE, WITH_DACS):
        wanted, splits = _audited(path, weights, encoding, converters, x, outputs)
        executor, crossbars = _trained(path, splits, x, places)
        assert crossbars.facts()["layers"] == ("W", "R")
        crossbars.converters = converters
        with torch.no_grad(), crossbars.programmed(no_noise, _generator()) as programmed:
            found = executor({"x": torch.from_numpy(x)}, programmed)
        for name, value in zip(outputs, wanted, strict=True):
            assert np.allclose(found[name].numpy(), value, rtol=0, atol=2e-5)
        assert not torch.allclose(found["y"], plain["y"], atol=1e-2)  # the converters did something
        assert torch.equal(executor({"x": torch.from_numpy(x)})["y"], plain["y"])  # and are off outside


@pytest.mark.parametrize(("op", "attributes"), FORMS)
def test_gradients_are_those_of_the_plain_operator(tmp_path, op, attributes):
    """For all weights and the input, at the noisy weights, with converters too fine to change the states."""
    path, weights, _ = _model(tmp_path, op, attributes, True, True)
    x, places = _inputs(), [_place(key) for key in weights]
    _, splits = _audited(path, weights, "sign_magnitude", {}, x, ["y"])
    executor, crossbars = _trained(path, splits, x, places)
    fine = Converters(None, Converter(2.0**-12, -(2**30), 2**30))
    crossbars.converters = {"W": fine, "R": fine}
    noise, found = shaped_noise("gaussian", 0.1, 2.0), []
    for through in (False, True):
        given = torch.from_numpy(x).requires_grad_()
        executor.zero_grad()
        if through:
            with crossbars.programmed(noise, _generator()) as programmed:
                out = executor({"x": given}, programmed)["y"]
        else:
            out = executor({"x": given}, noisy_weights(executor, places, noise, _generator()))["y"]
        (out * torch.linspace(-1, 1, out.numel()).reshape(out.shape)).sum().backward()
        found.append((out.detach(), given.grad.clone(), *(p.grad.clone() for p in executor.parameters())))
        given.grad = None
    for one, other in zip(*found, strict=True):
        assert float(other.abs().max()) > 0
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_ranges_are_calibrated_on_what_enters_and_what_is_summed(tmp_path):
    """A larger input widens the ranges of W alone; states are bounded by their activations."""
    path, weights, _ = _model(tmp_path, "LSTM", {}, True, False)
    x, found = _inputs(), []
    for size in (1, 100):
        _, splits = _audited(path, weights, "sign_magnitude", {}, x, ["y"])
        _, crossbars = _trained(path, splits, x * np.float32(size), [_place(key) for key in weights])
        crossbars.calibrate()
        found.append({key: one.adc.step for key, one in crossbars.converters.items()})
    assert found[1]["W"] == pytest.approx(100 * found[0]["W"], rel=0.05)  # read off a histogram
    assert found[1]["R"] < 10 * found[0]["R"]


def test_a_layer_with_one_matrix_on_the_array_is_trained_whole(tmp_path):
    """The audit refuses it too: its operator is written out or it is not."""
    path, weights, _ = _model(tmp_path, "GRU", {}, True, False)
    x = _inputs()
    _, splits = _audited(path, weights, "sign_magnitude", {}, x, ["y"])
    refused = replace(splits[1], reason="it is refused", blocks=())
    with pytest.raises(Exception, match="no weight on the array can be trained through crossbars"):
        _trained(path, (splits[0], refused), x, [_place(key) for key in weights])

"""Training with the largest weights digital: they are exact, and the range is that of the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nvaudit
from nvaudit.device import load_profile, operating_point
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_OK
from nvaudit.mapping.mapping_file import mapping_beside, read_mapping
from nvaudit.mapping.tiling import Crossbar
from nvaudit.model import constants, load_model
from nvaudit.perturb.choose_codes import CodeRequest, choose_codes
from nvaudit.perturb.prepare import Placement, map_tensor
from nvaudit.retrain.device_noise import DeviceNoise
from nvaudit.retrain.noise import noisy_weights, torch_generator
from nvaudit.retrain.quant import places, quantise
from nvaudit.retrain.train import clip_weights

SHARE = 0.02
FEW = ("-n", "20", "--audit-images", "40", "-j", "0", "--quiet", "--no-roughness", "--epochs", "1", "--limit",
       "200", "--seed", "5", "--device", "fefet1", "--sigma", "0.3", "--method", "device")  # fmt: skip


def _where(model, codes=None, per_channel=False):
    profile = load_profile("fefet1")
    weights = [c.weight for c in constants(load_model(model)) if c.weight is not None]
    return weights, places(weights, profile, {}, per_channel=per_channel, codes=codes, outliers=SHARE)


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_are_those_of_an_audit(example, tmp_path, coded, per_channel):
    """Code, scale and what is digital, with slices and a code, one scale or one per output."""
    point, codes = operating_point(load_profile("fefet1"), 0.3), None
    weights, _ = _where(example)
    if coded:
        asked = CodeRequest((8, 4, 2, 1))
        codes = choose_codes(weights, [point], asked, per_channel=per_channel, size=Crossbar(256, 256))
    weights, where = _where(example, codes, per_channel)
    how = Placement(8, 2, "sign_magnitude", per_channel, codes=codes, outliers=SHARE)
    for i, (weight, place) in enumerate(zip(weights, where, strict=True)):
        audited = map_tensor(weight, point.profile, how, tmp_path, i)
        values = torch.from_numpy(np.array(weight.load().values, np.float32))
        grid = quantise(values, place)
        np.testing.assert_array_equal(grid.code.numpy(), audited.code.open())
        np.testing.assert_array_equal(grid.scale.numpy(), audited.scale)
        digital = audited.outliers[0].open()
        there = np.zeros(grid.code.shape, bool) if grid.digital is None else grid.digital.numpy()
        np.testing.assert_array_equal(np.flatnonzero(there), digital)
        np.testing.assert_array_equal(grid.values.numpy().reshape(-1)[digital], audited.outliers[1].open())


class _OneWeight:
    """A network of one weight."""

    def __init__(self, values):
        self.weights = {"w": torch.nn.Parameter(values)}

    def clean(self, keys=None):
        return self.weights


def test_no_noise_is_on_them_and_no_edge_cuts_them(example):
    """A noisy weight is the weight where it is digital, and clipping leaves it; the others move."""
    weights, where = _where(example)
    values = torch.from_numpy(np.array(weights[2].load().values, np.float32))
    place = where[2]
    network = _OneWeight(values)
    at = type("Task", (), {"network": network, "where": (type(place)(**{**vars(place), "key": "w"}),)})
    digital = quantise(values, place).digital
    noise = DeviceNoise(operating_point(load_profile("fefet1"), 0.3))
    drawn = noisy_weights(network, at.where, noise, torch_generator("cpu", 0, "test"))["w"]
    torch.testing.assert_close(drawn[digital], values[digital], rtol=0, atol=1e-7)
    assert (drawn[~digital] != values[~digital]).all()
    edge = float(values.abs()[~digital].max()) / 2
    before = values.clone()
    clip_weights(at, {"w": edge})
    after = network.weights["w"].detach()
    torch.testing.assert_close(after[digital], before[digital], rtol=0, atol=0)
    assert float(after[~digital].abs().max()) == pytest.approx(edge)


@pytest.mark.parametrize("code", [(), ("--code", "8,4,2,1")])
def test_the_result_comes_with_them(command, example, tmp_path, code):
    """Beside it lies a file from which a plain audit has the chips that were reported."""
    hardened = tmp_path / "h.onnx"
    ran = command("harden", example, *FEW, *code, "--digital-outliers", "2%", "-o", hardened,
                  "--test-data", example.with_suffix(".npz"), "--report", tmp_path / "r.json")  # fmt: skip
    assert ran.code == EXIT_OK, ran.err
    assert read_mapping(mapping_beside(hardened)).digital_outliers == SHARE
    found = nvaudit.audit(hardened, "fefet1", example.with_suffix(".npz"), sigmas=(0.3,), trials=2, limit=20,
                          roughness=False, workers=0)  # fmt: skip
    assert sum(row.outliers or 0 for row in found.tensors) == 363


@pytest.mark.parametrize("other", [("--bits", "ternary"), ("--adc-bits", "5")])
def test_what_cannot_be_beside_them_is_refused(command, example, tmp_path, other):
    """Three values have no outliers, and converters see no digital products."""
    hardened = tmp_path / "h.onnx"
    ran = command("harden", example, *FEW, *other, "--digital-outliers", "2%", "-o", hardened)
    assert ran.code == EXIT_BAD_INPUT
    assert "--digital-outliers 0.02 and" in ran.err
    assert other[0] in ran.err
    assert not list(tmp_path.iterdir())

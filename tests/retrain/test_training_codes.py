"""Training on a code: weights take its values, noise is its noise, and the result comes with its mapping."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import nvaudit
from nvaudit.device import load_profile, operating_point, override_profile
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_OK
from nvaudit.mapping.mapping_file import mapping_beside, read_mapping
from nvaudit.mapping.tiling import Crossbar
from nvaudit.model import constants, load_model
from nvaudit.perturb.choose_codes import CodeRequest, choose_codes, level_variance
from nvaudit.perturb.prepare import Placement, map_tensor
from nvaudit.retrain.device_noise import DeviceNoise, device_sigma
from nvaudit.retrain.noise import torch_generator
from nvaudit.retrain.quant import places, quantise

FEW = ("-n", "20", "--audit-images", "40", "-j", "0", "--quiet", "--no-roughness", "--epochs", "1",
       "--limit", "200", "--seed", "5", "--device", "fefet1")  # fmt: skip
SIGMA = ("--sigma", "0.3")
INSPECT = ("--device", "fefet1")
CODE = ("--code", "8,4,2,1")
ENCODINGS = ("sign_magnitude", "sign_per_device", "differential", "offset")


def _settled(model, encoding, per_channel, cell_bits=2):
    """Weights of a model with their codes, as training places them and as an audit maps them."""
    profile = override_profile(load_profile("fefet1"), encoding=encoding, cell_bits=cell_bits)
    point = operating_point(profile, 0.3)
    weights = [c.weight for c in constants(load_model(model)) if c.weight is not None]
    asked = CodeRequest((4, 1) if encoding == "differential" else (8, 4, 2, 1))
    codes = choose_codes(weights, [point], asked, per_channel=per_channel, size=Crossbar(256, 256))
    return point, weights, codes, places(weights, profile, {}, per_channel=per_channel, codes=codes)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_weights_take_the_values_of_an_audit(example, tmp_path, encoding, per_channel):
    """Value by value and scale by scale, for every encoding, also with one scale per output."""
    point, weights, codes, where = _settled(example, encoding, per_channel)
    how = Placement(8, 2, encoding, per_channel, codes=codes)
    for i, (weight, place) in enumerate(zip(weights, where, strict=True)):
        audited = map_tensor(weight, point.profile, how, tmp_path, i)
        grid = quantise(torch.from_numpy(np.array(weight.load().values, np.float32)), place)
        np.testing.assert_array_equal(grid.code.numpy(), audited.code.open())
        np.testing.assert_array_equal(grid.scale.numpy(), audited.scale)
        reached = codes.of[weight.key].reachable[grid.code.numpy().astype(int) + place.top]
        assert reached.all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_noise_is_that_of_the_code(example, encoding):
    """The spread of a weight in training is that of its value in the code's table (5 standard errors)."""
    point, weights, codes, where = _settled(example, encoding, per_channel=False)
    noise, weight, place = DeviceNoise(point), weights[0], where[0]
    grid = quantise(torch.from_numpy(np.array(weight.load().values, np.float32)), place)
    drawn = noise.draw(place, grid, torch_generator("cpu", 0, "test"), 4000) / grid.scale
    code = codes.of[weight.key]
    expected = code.value_variance(level_variance(point, 4))[grid.code.numpy().astype(int) + place.top]
    found = drawn.var(0).numpy()
    assert (np.abs(found / expected - 1) < 5.5 * np.sqrt(2 / 4000)).all()
    own = device_sigma(point, where[:1], {place.key: grid})
    assert own == pytest.approx(np.sqrt(expected.mean()) / code.top, rel=1e-6)


def test_a_stored_grid_is_rounded_to_the_code(example):
    """A weight that is stored as integers is put on its own grid first, as the file will hold it."""
    *_, where = _settled(example, "sign_magnitude", per_channel=False)
    place = where[0]
    weight = torch.randn(40, 30, generator=torch.Generator().manual_seed(1))
    scale = weight.abs().max().numpy() / 7
    stored = torch.round(weight / float(scale)) * float(scale)
    both = quantise(weight, replace(place, grid=np.asarray(scale, np.float32), grid_top=7))
    torch.testing.assert_close(both.values, quantise(stored, place).values)
    assert not torch.equal(both.code, quantise(weight, place).code)


@pytest.fixture
def tested(example, tmp_path) -> Path:
    """Forty samples of the example's data."""
    with np.load(example.with_suffix(".npz")) as data:
        np.savez(tmp_path / "test.npz", **{name: data[name][-40:] for name in data})
    return tmp_path / "test.npz"


def test_both_models_are_audited_on_the_code(command, example, tested, tmp_path):
    """Chip by chip: the given model as an audit with --code has it, the result as a plain audit has it."""
    hardened = tmp_path / "h.onnx"
    ran = command("harden", example, *FEW, *SIGMA, *CODE, "--method", "device", "--test-data", tested,
                  "-o", hardened, "--report", "-")  # fmt: skip
    assert ran.code == EXIT_OK, ran.err
    found = json.loads(ran.out)
    same = {"device": "fefet1", "sigmas": (0.3,), "data": tested, "trials": 20, "seed": 5,
            "exhaustive": True, "roughness": False}  # fmt: skip
    given = nvaudit.audit(example, code="8,4,2,1", **same)
    assert found["before"]["values"] == list(given.trials.values)
    after = nvaudit.audit(hardened, **same)
    assert found["after"]["values"] == list(after.trials.values)
    assert after.codes is not None
    assert found["codes"]["codes"][0]["significances"] == [8, 4, 2, 1]
    assert found["codes"]["asked"] == "8,4,2,1"
    slices = nvaudit.audit(hardened, code="slices", **same)
    assert found["after"]["values"] != list(slices.trials.values)
    # The noise of training is that of the code: less than half of that of slices.
    assert found["training"]["device_sigma"] < 0.5 * 0.149


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "trice", "--warm", "0", "--train-trials", "10", "--score-images", "40"),
        ("--method", "device", "--encoding", "sign_per_device", "--scale", "per_channel"),
        ("--method", "device", "--sparsity", "0.3", "--crossbar", "64x64"),
        ("--method", "device", "--adc-bits", "5", "--crossbar", "64x64", "--verify-plan"),
    ],
)
def test_methods(command, example, tmp_path, options):
    """Other methods, encodings, pruning, converters and plans work on a code; it lies beside the result."""
    hardened = tmp_path / "h.onnx"
    ran = command("harden", example, *FEW, *SIGMA, *CODE, *options, "-o", hardened, "--report", "-")
    assert ran.code == EXIT_OK, ran.err
    found = json.loads(ran.out)
    mapping = read_mapping(mapping_beside(hardened))
    assert mapping.model_sha256 == load_model(hardened).digest == found["hashes"]["hardened"]
    assert (mapping.device, mapping.sigma) == ("fefet1", 0.3)
    assert [code.significances for code in mapping.codes] == [(1, 2, 4, 8)]
    assert len(mapping.tensors) == 4


def test_a_mapping_file_is_as_good_as_a_code(command, example, tmp_path):
    """Given or beside the model it trains the same weights, bit for bit; --code slices leaves it out."""
    model = Path(shutil.copy(example, tmp_path / "m.onnx"))
    shutil.copy(example.with_suffix(".npz"), tmp_path / "m.npz")
    file = tmp_path / "codes.json"
    made = command("inspect", model, *INSPECT, *CODE, "--write-mapping", file)
    assert made.code == EXIT_OK, made.err

    def trained(name, *options):
        out = tmp_path / f"{name}.onnx"
        ran = command("harden", model, *FEW, "--method", "device", *options, "-o", out)
        assert ran.code == EXIT_OK, ran.err
        return out.read_bytes()

    code = trained("code", *CODE)
    assert trained("mapping", "--mapping", file) == code
    plain = trained("plain")
    assert plain != code
    assert not mapping_beside(tmp_path / "plain.onnx").exists()
    shutil.copy(file, mapping_beside(model))
    assert trained("beside") == code
    assert trained("slices", "--code", "slices") == plain


def test_a_search_is_made_for_the_given_weights(command, example, tmp_path):
    """`--code auto --allocate` gives layers the codes that `inspect` finds, and keeps them."""
    ran = command("inspect", example, *INSPECT, "--code", "auto", "--devices-per-weight", "2.5", "--allocate",
                  "devices", "--write-mapping", tmp_path / "i.json")  # fmt: skip
    assert ran.code == EXIT_OK, ran.err
    ran = command("harden", example, *FEW, "--method", "device", "--code", "auto", "--allocate", "devices",
                  "--devices-per-weight", "2.5", "-o", tmp_path / "h.onnx")  # fmt: skip
    assert ran.code == EXIT_OK, ran.err
    found, wanted = (read_mapping(tmp_path / name) for name in ("h.mapping.json", "i.json"))
    assert len(wanted.codes) > 1
    assert (found.codes, found.tensors) == (wanted.codes, wanted.tensors)


def test_resume(command, example, tmp_path):
    """A finished run is read back from its folder, audits included; another code is refused."""
    kept = ("--resume", tmp_path / "kept", "--method", "device")
    results = []
    for name in ("first", "again"):
        ran = command("harden", example, *FEW, *CODE, *kept, "-o", tmp_path / f"{name}.onnx", "--report", "-")
        assert ran.code == EXIT_OK, ran.err
        results.append(json.loads(ran.out))
    first, again = results
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert (first["before"], first["after"]) == (again["before"], again["after"])
    ran = command("harden", example, *FEW, "--code", "4,4,2,1", *kept, "-o", tmp_path / "other.onnx")
    assert ran.code == EXIT_BAD_INPUT
    assert "--code is 4,4,2,1, there 8,4,2,1" in " ".join(ran.err.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((*CODE, "--bits", "ternary"), "--bits ternary and the codes of 8,4,2,1: a weight of three values"),
        ((*CODE, "--bits", "6"), "--bits is for slices, not for --code 8,4,2,1"),
        (("--devices-per-weight", "3"), "--devices-per-weight is for --code auto"),
        (("--mapping", "no.json"), "cannot read no.json"),
        (("--code", "auto", "--crossbar", "64x64"), "--crossbar is for pruning"),
    ],
)
def test_wrong_options(command, example, options, message, tmp_path, monkeypatch):
    """Each ends with exit code 2 and its own message before any training; nothing is written."""
    monkeypatch.chdir(tmp_path)
    ran = command("harden", example, *FEW, "-o", "h.onnx", *options)
    assert ran.code == EXIT_BAD_INPUT, ran.err
    assert message in " ".join(ran.err.split())
    assert list(tmp_path.iterdir()) == []


def test_the_given_mapping_is_not_overwritten(command, example, tmp_path):
    """An output whose mapping file would be the one that is read is refused before anything runs."""
    file = tmp_path / "h.mapping.json"
    made = command("inspect", example, *INSPECT, *CODE, "--write-mapping", file)
    assert made.code == EXIT_OK, made.err
    before = file.read_bytes()
    ran = command("harden", example, *FEW, "--mapping", file, "-o", tmp_path / "h.onnx")
    assert ran.code == EXIT_BAD_INPUT
    assert "h.mapping.json: this is --mapping; choose another path" in " ".join(ran.err.split())
    assert file.read_bytes() == before
    assert not (tmp_path / "h.onnx").exists()

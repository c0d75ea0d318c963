"""Audits with the largest weights digital: exact on every chip, and the range is that of the others."""

from pathlib import Path

import numpy as np
import pytest

from nvaudit import audit
from nvaudit.errors import OptionError
from nvaudit.jobs.replaying import replay
from nvaudit.mapping.outliers import find_outliers
from nvaudit.model import constants, load_model
from nvaudit.rng import stream

MODEL = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"
FAST = {"limit": 80, "trials": 4, "workers": 0, "roughness": False, "data": MODEL.with_suffix(".npz")}


def weights_of(path):
    """The weights of a model, by name."""
    return {c.name: np.asarray(c.weight.load().values) for c in constants(load_model(path)) if c.weight}


@pytest.mark.parametrize("more", [{}, {"code": "8,4,2,1"}, {"scale": "per_channel"}, {"read_noise": "0.05"}])
def test_the_largest_weights_are_exact_on_a_chip_and_the_others_are_not(tmp_path, more):
    """A chip written out: the largest of each tensor are bit for bit what the model has."""
    report = audit(MODEL, "fefet1", **FAST, **more, sigmas=(0.2,), digital_outliers=0.02)
    replay(report, tmp_path / "chip.onnx", trial=1)
    given, chip = weights_of(MODEL), weights_of(tmp_path / "chip.onnx")
    rows = {row.name: row for row in report.tensors if row.decision == "mapped"}
    for name, row in rows.items():
        same = given[name] == chip[name]
        if "scale" not in more:
            assert row.outliers == int(0.02 * given[name].size)
            # By hand, without the function under test.
            limit = np.sort(np.abs(given[name]).reshape(-1))[given[name].size - row.outliers]
            assert same[np.abs(given[name]) >= limit].all()
        assert same.sum() >= row.outliers
        assert same.mean() < 0.2


def test_the_range_is_that_of_the_weights_that_are_left():
    """The scale of every tensor is max|W| of the others, and so is its noise."""
    plain = audit(MODEL, "rram", **FAST)
    report = audit(MODEL, "rram", **FAST, digital_outliers=0.02)
    before = {row.name: row for row in plain.tensors}
    for name, values in weights_of(MODEL).items():
        row = next(row for row in report.tensors if row.name == name)
        if row.decision != "mapped":
            continue
        left = np.delete(values.reshape(-1), find_outliers(values, 0.02, ()))
        assert row.scale == pytest.approx(np.abs(left).max() / 255, rel=1e-6)
        assert row.scale < before[name].scale or not row.outliers
    assert report.quantised == pytest.approx(plain.quantised, abs=0.03)


def test_a_share_of_less_than_one_weight_changes_nothing():
    """No tensor of the example has a hundred thousand weights: the same chips."""
    plain = audit(MODEL, "rram", **FAST, sigmas=(0.3,))
    none = audit(MODEL, "rram", **FAST, sigmas=(0.3,), digital_outliers=1e-5)
    assert none.trials.values == plain.trials.values
    assert sum(row.outliers or 0 for row in none.tensors) == 0


@pytest.mark.parametrize(
    ("shape", "axes"), [((7, 50), ()), ((7, 50), (0,)), ((7, 50), (1,)), ((3, 4, 20), (0, 1))]
)
def test_outliers_are_the_largest_of_each_group(shape, axes):
    """Group by group, by sorting."""
    values = stream(3, "outliers", *shape).standard_normal(shape)
    found = np.zeros(values.size, bool)
    found[find_outliers(values, 0.1, axes)] = True
    found = np.moveaxis(found.reshape(shape), axes, range(len(axes)))
    size = int(np.prod([shape[axis] for axis in axes], dtype=int))
    by_group = np.abs(np.moveaxis(values, axes, range(len(axes)))).reshape(size, -1)
    for magnitude, marked in zip(by_group, found.reshape(size, -1), strict=True):
        assert marked.sum() == int(0.1 * magnitude.size)
        if marked.any():
            assert magnitude[marked].min() >= magnitude[~marked].max()


def test_where_digital_products_are_not_simulated_they_are_refused():
    """Converters, and shares that are none."""
    with pytest.raises(OptionError, match="--digital-outliers and --adc-bits"):
        audit(MODEL, "rram", **FAST, digital_outliers=0.01, adc_bits=6)
    for share in (0.0, -0.1, 0.6):
        with pytest.raises(OptionError, match="--digital-outliers"):
            audit(MODEL, "rram", **FAST, digital_outliers=share)


def test_the_command_takes_percent_and_says_it_beside_the_headline(command):
    """With the number of weights."""
    ran = command(
        "audit", MODEL, "--device", "rram", "--digital-outliers", "1%", "-n", "2", "--limit", "20",
        "--no-roughness", "-q",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    top = " ".join(ran.out.split("The simulated chips")[0].split())
    assert "digital outliers" in top
    assert "180 of 18,248 weights on the array, the largest" in top

"""Audits with the largest weights digital: exact on every chip, and the range is that of the others."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from nvaudit import audit, remap, verify_plan
from nvaudit.errors import OptionError
from nvaudit.jobs.costing import estimate_cost
from nvaudit.jobs.replaying import replay
from nvaudit.mapping.mapping_file import mapping_beside, mapping_data, read_mapping, write_mapping
from nvaudit.mapping.outliers import find_outliers
from nvaudit.model import constants, load_model
from nvaudit.report.cost.result import CostPart
from nvaudit.rng import stream
from nvaudit.technology import load_technology

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
    both = {"digital_outliers": 0.01, "adc_bits": 6}
    with pytest.raises(OptionError, match=r"--digital-outliers 0\.01 and --adc-bits 6"):
        audit(MODEL, "rram", **FAST, **both)
    for share in (0.0, -0.1, 0.6):
        with pytest.raises(OptionError, match="--digital-outliers"):
            audit(MODEL, "rram", **FAST, digital_outliers=share)


def test_a_mapping_file_has_them(tmp_path):
    """With or without codes; an option that says otherwise, or converters beside it, are refused."""
    model = Path(shutil.copy(MODEL, tmp_path / "m.onnx"))
    digest = load_model(model).digest
    path = mapping_beside(model)
    write_mapping(path, mapping_data({}, model_sha256=digest, device="rram", sigma=0.1, variance=(),
                                     digital_outliers=0.02))  # fmt: skip
    found = audit(model, "rram", **FAST)
    asked = audit(MODEL, "rram", **FAST, digital_outliers=0.02)
    assert found.trials.values == asked.trials.values
    assert [row.outliers for row in found.tensors] == [row.outliers for row in asked.tensors]
    assert found.run["digital_outliers"] == 0.02
    # Slices stay a matter of options, and the file may be left out.
    assert audit(model, "rram", **FAST, bits=6).tensors[0].outliers
    assert not audit(model, "rram", **FAST, code="slices").tensors[0].outliers
    with pytest.raises(OptionError, match=r"which has 0\.02"):
        audit(model, "rram", **FAST, digital_outliers=0.01)
    with pytest.raises(OptionError, match="--adc-bits"):
        audit(model, "rram", **FAST, adc_bits=6)
    write_mapping(path, mapping_data({}, model_sha256=digest, device="rram", sigma=0.1, variance=()))
    with pytest.raises(OptionError, match="maps nothing"):
        audit(model, "rram", **FAST)


def test_digital_products_cost_energy_and_area():
    """As many multiply-adds as digital weights for each input vector, and a place in the buffer."""
    plain, digital = (
        estimate_cost(MODEL, "fefet1", "cmos_22nm_neurosim", adc_bits=6, digital_outliers=share)
        for share in (None, 0.02)
    )
    assert digital.components["digital"].energy_j > 2 * plain.components["digital"].energy_j
    assert digital.components["buffer"].area_m2 > plain.components["buffer"].area_m2
    assert "363 weights are digital" in digital.assumptions[0]
    unit = load_technology("cmos_22nm_neurosim").digital
    # The dense layers meet one vector a sample.
    each = 8**2 * unit.multiply_bit.si + 32 * unit.add_bit.si
    none = CostPart(energy_j=0, latency_s=0, area_m2=0)
    for name, count in {"fc1.weight": 327, "fc2.weight": 12}.items():
        parts = [one.layers[name].components.get("digital", none).energy_j for one in (plain, digital)]
        assert parts[1] - parts[0] == pytest.approx(count * each, rel=1e-9)


@pytest.mark.parametrize("more", [{}, {"code": "auto", "allocate": "devices"}, {"scale": "per_channel"}])
def test_a_remapped_model_keeps_them(tmp_path, more):
    """Rescaled, rounded and clipped are the others: these stay the largest, and audits find them."""
    found = remap(
        MODEL, "fefet1", MODEL.with_suffix(".npz"), out=tmp_path / "H.onnx", sigma=0.3, trials=4, limit=80,
        calibration_images=60, calibration_chips=4, time_budget=0, workers=0, digital_outliers=0.02, **more,
    )  # fmt: skip
    assert any(tensor.rounded for tensor in found.tensors)
    path = mapping_beside(tmp_path / "H.onnx")
    assert found.mapping == str(path)
    assert read_mapping(path).digital_outliers == 0.02
    after = audit(tmp_path / "H.onnx", "fefet1", **FAST, sigmas=(0.3,), exhaustive=True,
                  **({} if "code" in more else more))  # fmt: skip
    assert after.trials.mean == found.after.mean
    # A chip without noise has the numbers of the file where they are digital, and values of the code else.
    for name, values in weights_of(tmp_path / "H.onnx").items():
        row = next(row for row in after.tensors if row.name == name)
        if row.outliers and "scale" not in more:
            sizes = np.sort(np.abs(values).reshape(-1))
            assert sizes[-row.outliers] >= row.scale * (2**8 - 1 if "code" not in more else 1)


def test_converters_beside_them_are_refused_by_remap(tmp_path):
    """Before anything runs or is written."""
    with pytest.raises(OptionError, match=r"--digital-outliers 0\.01 and --adc-bits 6"):
        remap(MODEL, "rram", MODEL.with_suffix(".npz"), out=tmp_path / "r.onnx", digital_outliers=0.01,
              adc_bits=6)  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ranking", ["magnitude", "random"])
def test_what_is_digital_is_not_verified(tmp_path, ranking):
    """No mask names it, all others are everything, and then a chip is the quantised model."""
    plan = verify_plan(
        MODEL, "rram", MODEL.with_suffix(".npz"), out=tmp_path / "plan.npz", ranking=ranking, shares=(1.0,),
        trials=2, limit=60, workers=0, digital_outliers=0.02, metric="cross_entropy",
    )  # fmt: skip
    assert plan.curve[0].values != plan.curve[1].values == (plan.quantised,) * 2
    assert plan.weights == 18_248 - 363
    with np.load(tmp_path / "plan.npz") as masks:
        for name, values in weights_of(MODEL).items():
            if name in masks:
                places = np.flatnonzero(~masks[name].reshape(-1))
                assert set(find_outliers(values, 0.02, ())) == set(places)


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

"""Remap with codes: the mapping file beside the model, what is kept, and what reads it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit import audit
from nvaudit.errors import OptionError
from nvaudit.jobs.remapping import remap
from nvaudit.mapping.mapping_file import mapping_beside, read_mapping
from nvaudit.model import load_model

EXAMPLE = Path("examples/digits_cnn.onnx")
LIMIT = "OPENBLAS_NUM_THREADS"
QUICK = {"calibration_chips": 4, "calibration_images": 64, "trials": 0, "time_budget": 0}
ALONE = {"equalise": False, "clip": False, "recalibrate": False, "rounding": False}


def product(path, seed=0):
    """y = relu(x W) W', with data whose inputs depend on each other."""
    gen = np.random.default_rng(seed)
    weights = {"w1": gen.normal(0, 0.3, (12, 10)), "w2": gen.normal(0, 0.3, (10, 3))}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    x = gen.standard_normal((400, 4)) @ gen.standard_normal((4, 12))
    np.savez(path.with_suffix(".npz"), x=x.astype(np.float32))
    return path


def test_the_command_writes_a_mapping_that_an_audit_finds(tmp_path, command):
    """Two files: an audit of the model alone gives the reported number, well above the default's."""
    out, page, again = tmp_path / "H.onnx", tmp_path / "r.json", tmp_path / "a.json"
    same = ["--device", "fefet1", "--sigma", "0.2", "--data", EXAMPLE.with_suffix(".npz"), "--limit", "100"]
    hardened = command(
        "harden", EXAMPLE, "--method", "remap", "-o", out, *same, "--code", "auto",
        "-n", "8", "--calibration-chips", "4", "--calibration-images", "64",
        "--no-clip", "--no-recalibrate", "--time-budget", "0", "--report", page, "-q",
    )  # fmt: skip
    assert hardened.code == 0, hardened.err
    report = json.loads(page.read_text())
    assert report["mapping"] == str(tmp_path / "H.mapping.json")
    assert report["after"]["mean"] > report["before"]["mean"] + 0.04
    assert report["codes"]["devices_per_weight"] == 4
    audited = command(
        "audit", out, *same, "-n", "8", "--exhaustive", "--no-roughness", "--report", again, "-q"
    )
    assert audited.code == 0, audited.err
    found = json.loads(again.read_text())
    assert found["run"]["mapping"] == report["mapping"]
    assert found["kpp"][0]["value"] == report["after"]["kpp"]
    assert found["quantised"] == report["after"]["quantised"]


@pytest.mark.parametrize(("code", "scale"), [("8,4,2,1", "per_tensor"), ("9,9,1", "per_channel")])
def test_rounded_weights_are_taken_as_they_are(tmp_path, code, scale):
    """Codes for noise write values that the code has, the file says so, and no audit rounds them again."""
    out = tmp_path / "out.onnx"
    report = remap(
        product(tmp_path / "m.onnx"), "fefet1", out=out, code=code, scale=scale, equalise=False, clip=False,
        recalibrate=False, max_clean_loss=1.0, metric="mse", **{**QUICK, "trials": 8},
    )  # fmt: skip
    assert [tensor.rounded for tensor in report.tensors] == [True, True]
    data = read_mapping(mapping_beside(out))
    assert data.nearest == {"w1", "w2"}
    top = 3 * sum(map(int, code.split(",")))
    have = data.of("file")["w1"]
    for initializer in onnx.load(out).graph.initializer:
        values = numpy_helper.to_array(initializer).astype(np.float64)
        axis = 0 if scale == "per_channel" else None
        steps = values / (np.abs(values).max(axis=axis, keepdims=True) / top)
        whole = np.rint(steps).astype(int)
        assert np.abs(steps - whole).max() < 1e-3
        assert have.reachable[whole + top].all()
    options = {"scale": scale, "metric": "mse", "trials": 8, "exhaustive": True, "roughness": False}
    audited = audit(out, "fefet1", tmp_path / "m.npz", **options)
    # The levels are those of the numbers themselves, so that without noise nothing is off.
    assert audited.quantised == pytest.approx(audited.nominal, abs=1e-9)
    assert audited.kpp[0].value == report.after.kpp


def test_rounding_on_a_code_helps(tmp_path):
    """On the same code the chips are nearer to the model's results than with each weight by itself."""
    report = remap(
        product(tmp_path / "m.onnx", 3), "fefet1", out=tmp_path / "o.onnx", sigma=0.2, code="8,4,2,1",
        equalise=False, clip=False, recalibrate=False, max_clean_loss=1.0, metric="mse", **QUICK,
    )  # fmt: skip
    plain, chosen = report.steps[1:3]
    assert chosen.kept
    assert chosen.mean < 0.9 * plain.mean


def test_a_code_that_hardware_has_is_kept_whatever_it_costs(tmp_path):
    """Significances that are given hold: slices do better with one device each, and are not kept."""
    out = tmp_path / "o.onnx"
    report = remap(EXAMPLE, "rram", out=out, code="1", limit=100, **ALONE, **QUICK)
    assert [(step.name, step.kept) for step in report.steps] == [
        ("original", False),
        ("original, code 1", True),
    ]
    assert report.steps[0].mean > report.steps[1].mean
    assert report.codes.devices_per_weight == 1
    assert read_mapping(mapping_beside(out)).model_sha256 == load_model(out).digest


def test_fewer_devices_are_shared_out_between_layers(tmp_path):
    """Two and a half devices on average, each code by its layer, do better than four as slices."""
    report = remap(
        EXAMPLE, "fefet1", out=tmp_path / "o.onnx", code="auto", devices_per_weight=2.5, allocate="devices",
        sigma=0.2, limit=100, **ALONE, **{**QUICK, "calibration_chips": 12},
    )  # fmt: skip
    start, shared = report.steps
    assert shared.name.startswith("original, codes on 2.")
    assert shared.kept
    assert 2 < report.codes.devices_per_weight <= 2.5
    assert len({layer.code for layer in report.codes.layers}) > 1
    assert shared.worst_quarter > start.worst_quarter


def test_codes_that_were_tried_are_not_tried_again(tmp_path):
    """Where every layer gets the one code, that is said, and no candidate comes twice under one name."""
    report = remap(
        EXAMPLE, "fefet1", out=tmp_path / "o.onnx", encoding="differential", code="auto", allocate="devices",
        devices_per_weight=2, limit=60, **ALONE, **QUICK,
    )  # fmt: skip
    assert [step.name for step in report.steps] == ["original", "original, code 1"]
    assert "original, codes by layers: all layers get the code that was tried" in report.not_tried


def test_what_was_not_tried_is_in_no_other_candidates_way(tmp_path):
    """After codes by layers that came out as the code of all, means can still be corrected."""
    report = remap(
        EXAMPLE, "fefet1", out=tmp_path / "o.onnx", encoding="differential", code="auto", allocate="devices",
        devices_per_weight=2, limit=60, **{**ALONE, "recalibrate": True}, **QUICK,
    )  # fmt: skip
    assert "original, codes by layers: all layers get the code that was tried" in report.not_tried
    assert "original, code 1, means corrected" in [step.name for step in report.steps]


def test_without_a_code_no_mapping_is_left(tmp_path):
    """A model that is written over takes its mapping file with it; a note says what a code would give."""
    out = tmp_path / "o.onnx"
    options = {"sigma": 0.2, "limit": 100, **QUICK}
    remap(EXAMPLE, "fefet1", out=out, code="8,4,2,1", **ALONE, **options)
    assert mapping_beside(out).is_file()
    report = remap(EXAMPLE, "fefet1", out=out, **ALONE, **options)
    assert not mapping_beside(out).exists()
    assert report.mapping is None
    assert report.codes is None
    assert [step.name for step in report.steps] == ["original"]
    assert any(note.startswith("--code auto (code ") for note in report.notes)


def test_a_mapping_beside_the_model_is_what_is_hardened(tmp_path):
    """Codes of the given model hold for the written one too, though its weights are others."""
    model = tmp_path / "m.onnx"
    remap(EXAMPLE, "fefet1", out=model, code="8,4,2,1", limit=60, **ALONE, **QUICK)
    shutil.copy(EXAMPLE.with_suffix(".npz"), tmp_path / "m.npz")
    report = remap(model, "fefet1", out=tmp_path / "o.onnx", sigma=0.3, limit=60, **QUICK)
    assert report.codes.codes[0].text == "8,4,2,1"
    codes = [read_mapping(mapping_beside(path)).of("") for path in (model, tmp_path / "o.onnx")]
    assert codes[0] == codes[1]
    with pytest.raises(OptionError, match="--mapping and --code: choose one"):
        remap(model, out=tmp_path / "p.onnx", code="auto", mapping=str(mapping_beside(model)), **QUICK)


def test_training_keeps_the_codes_of_a_remapped_model(tmp_path):
    """The mapping file beside what was remapped is what training simulates, and it lies beside the result."""
    pytest.importorskip("torch")
    from nvaudit.jobs.hardening import harden

    model, hardened = tmp_path / "m.onnx", tmp_path / "o.onnx"
    remap(EXAMPLE, "fefet1", out=model, code="8,4,2,1", limit=60, **ALONE, **QUICK)
    report = harden(
        model, "fefet1", EXAMPLE.with_suffix(".npz"), out=hardened, method="device", epochs=1, limit=60,
        trials=5, audit_images=10, roughness=False,
    )  # fmt: skip
    assert report.codes.codes[0].text == "8,4,2,1"
    given, result = (read_mapping(mapping_beside(path)) for path in (model, hardened))
    assert (result.of(""), result.nearest) == (given.of(""), given.nearest)


def test_what_may_be_lost_follows_what_noise_costs(tmp_path):
    """By default half a point or a tenth of the loss on chips; what the user says is taken as it is."""
    free = remap(EXAMPLE, "fefet1", out=tmp_path / "a.onnx", sigma=0.4, limit=100, **ALONE, **QUICK)
    lost = free.steps[0].nominal - free.steps[0].mean
    assert lost > 0.1
    assert free.allowed_loss == pytest.approx(lost / 10)
    quiet = remap(EXAMPLE, "fefet1", out=tmp_path / "b.onnx", sigma=0.0, limit=100, **ALONE, **QUICK)
    assert quiet.allowed_loss == 0.005
    said = remap(
        EXAMPLE,
        "fefet1",
        out=tmp_path / "c.onnx",
        sigma=0.4,
        limit=100,
        max_clean_loss=0.001,
        **ALONE,
        **QUICK,
    )
    assert said.allowed_loss == 0.001


@pytest.mark.parametrize(
    ("method", "set_before", "want"), [("remap", "", "1"), ("remap", "3", "3"), ("vat", "", "")]
)
def test_products_of_remap_take_one_thread(method, set_before, want):
    """The command sets it before NumPy is loaded, for remap only, and not against the user."""
    words = ["harden", "--method", method, "--help"]
    lines = f"import os, nvaudit.cli; nvaudit.cli.run({words!r}); print(os.environ.get({LIMIT!r}, ''))"
    environment = {name: value for name, value in os.environ.items() if name != LIMIT}
    environment |= {LIMIT: set_before} if set_before else {}
    ran = subprocess.run(
        [sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.splitlines()[-1] == want


@pytest.mark.parametrize("allocated", [{}, {"allocate": "devices"}])
def test_a_code_is_kept_where_chips_cannot_tell(tmp_path, allocated):
    """Every chip is perfect: the code is kept, which errs less by calculation, not what was there."""
    options = {"sigma": 0.001, "code": "auto", **allocated, **ALONE, **QUICK}
    report = remap(product(tmp_path / "m.onnx"), "rram", out=tmp_path / "o.onnx", **options)
    assert {step.mean for step in report.steps} == {1.0}
    assert report.codes is not None
    assert [step.kept for step in report.steps] == [False] * (len(report.steps) - 1) + [True]


@pytest.mark.parametrize("devices", [1, 2.5])
def test_fewer_devices_than_slices_have_are_a_demand(tmp_path, devices):
    """Where there are fewer devices than slices take, slices are not kept, though chips like them better."""
    options = {"code": "auto", "devices_per_weight": devices, "limit": 100, **ALONE, **QUICK}
    options |= {} if devices == 1 else {"allocate": "devices"}
    report = remap(EXAMPLE, "rram", out=tmp_path / "o.onnx", **options)
    assert report.codes is not None
    assert report.codes.devices_per_weight <= devices


def test_a_code_starts_from_the_structure_of_least_noise(tmp_path):
    """Where no chip tells structures apart, a code is put on the rescaled one, not on the first of equals."""
    options = {"sigma": 0.001, "code": "auto", **ALONE, **QUICK, "equalise": True}
    report = remap(product(tmp_path / "m.onnx"), "rram", out=tmp_path / "o.onnx", **options)
    assert {step.mean for step in report.steps} == {1.0}
    (kept,) = [step.name for step in report.steps if step.kept]
    assert kept.startswith("equalised, code ")


def test_a_code_needs_no_chips(tmp_path):
    """Without time for a single further chip the code is chosen by calculation, and the report says so."""
    options = {"sigma": 0.4, "code": "auto", "limit": 100, **QUICK, "time_budget": 1e-6}
    report = remap(EXAMPLE, "fefet1", out=tmp_path / "H.onnx", **options)
    assert report.codes is not None
    (step,) = [step for step in report.steps if step.kept]
    assert (step.chips, step.mean, step.worst_quarter) == (0, None, None)
    assert step.reason.startswith("chosen by calculation, not measured")
    assert "chosen by calculation, not measured" in report.headline
    assert any("weights err by" in note for note in report.notes)
    assert any("codes for noise" in text for text in report.not_tried)
    assert report.exact
    assert all(tensor.noise < 1 for tensor in report.tensors)
    # The same code as with time for chips: it depends on the weights as they are, not rescaled.
    with_time = remap(EXAMPLE, "fefet1", out=tmp_path / "T.onnx", **{**options, "time_budget": 0}, **ALONE)
    assert read_mapping(tmp_path / "H.mapping.json").codes == read_mapping(tmp_path / "T.mapping.json").codes
    # With fewer devices by layers, too; slices, which were asked for by nobody, are never calculated.
    options |= {"allocate": "devices", "devices_per_weight": 4}
    shared = remap(EXAMPLE, "fefet1", out=tmp_path / "S.onnx", **options)
    assert shared.codes.devices_per_weight <= 4
    assert with_time.codes is not None


def test_candidates_are_judged_through_the_converters(tmp_path):
    """What a candidate measures is what an audit of its chips through these ADCs gives."""
    same = {"sigma": 0.2, "limit": 60, "workers": 1, "data": EXAMPLE.with_suffix(".npz")}
    adc = {"adc_bits": 4, "crossbar": (64, 64), "adc_range": "percentile:99.9"}
    options = {**same, **adc, **QUICK, **ALONE, "trials": 3, "code": "auto"}
    found = remap(EXAMPLE, "fefet1", out=tmp_path / "H.onnx", **options)
    chips = {**same, "sigmas": (same["sigma"],), "trials": 4, "roughness": False, "exhaustive": True}
    del chips["sigma"]
    plain, coded = (
        audit(EXAMPLE, "fefet1", **chips, **adc, seed=1, code=code) for code in ("slices", "auto")
    )
    ideal = audit(EXAMPLE, "fefet1", **chips, seed=1, code="slices")
    assert [step.mean for step in found.steps] == [plain.trials.mean, coded.trials.mean]
    assert [step.quantised for step in found.steps] == [plain.quantised, coded.quantised]
    assert plain.trials.mean != ideal.trials.mean
    assert found.codes == coded.codes
    assert found.codes.codes[0].errors.converters > 0
    assert "through 4-bit ADCs" in found.calibration
    after = audit(tmp_path / "H.onnx", "fefet1", **{**chips, "trials": 3}, **adc)
    assert (found.after.mean, found.after.quantised) == (after.trials.mean, after.quantised)


def test_ranges_of_converters_without_converters_are_refused(tmp_path):
    """As in an audit, before anything is tried."""
    with pytest.raises(OptionError, match="--adc-range is for crossbars with converters"):
        remap(EXAMPLE, "fefet1", out=tmp_path / "H.onnx", adc_range="full_scale", **QUICK)
    assert not (tmp_path / "H.onnx").exists()

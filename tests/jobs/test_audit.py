"""An audit from end to end: what the report's numbers mean, and that they come again."""

import json
import math
import shutil

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, save
from quick import audit

from nvaudit.errors import OptionError
from nvaudit.jobs.auditing import make_spec, run_audit
from nvaudit.jobs.landscaping import landscape
from nvaudit.report.jsontext import to_json
from nvaudit.report.result import from_json

FEW = {"trials": 8, "limit": 64}

STUCK = {
    "schema_version": 1, "name": "stuck", "technology": "test", "description": "Devices that do not switch.",
    "source": {"citation": "none", "where": "this test", "fit": "made up"}, "cell_bits": 2,
    "encoding": "sign_magnitude", "window": None, "sigma": None, "time": None, "valid_range": "all",
    "noise": [{"kind": "stuck_at", "p_low": 0.05, "p_high": 0.02}],
}  # fmt: skip


@pytest.fixture(scope="module")
def report(example):
    """One audit at a strong noise, so that chips differ."""
    return audit(example, sigmas=(0.4,), percentiles=(1, 10, 50), trials=40, limit=200, yield_at=(0.97,))


def test_ideal_is_what_onnx_runtime_measures(example, report):
    """The first number is the model's own accuracy on the same samples."""
    with np.load(example.with_suffix(".npz")) as data:
        image, label = data["image"][:200], data["y"][:200]
    session = onnxruntime.InferenceSession(example, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": image})
    assert report.nominal == pytest.approx((scores.argmax(axis=1) == label).mean(), abs=1e-12)
    assert report.data.standard_error == pytest.approx(
        math.sqrt(report.nominal * (1 - report.nominal) / 200), rel=1e-12
    )


def test_kpp_is_the_order_statistic_of_the_paper(report):
    """KPP_k is sorted(values)[int(k/100·N)], 0-based."""
    values = sorted(report.trials.values)
    assert len(set(values)) > 5
    for result in report.kpp:
        assert result.value == values[int(result.percentile / 100 * 40)]
        assert result.trials == 40
    assert report.trials.mean == pytest.approx(np.mean(values), rel=1e-12)
    assert report.trials.std == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert (report.trials.min, report.trials.max) == (values[0], values[-1])


def test_yield_is_a_share_of_the_chips(report):
    """A yield counts the chips at or above its threshold."""
    (result,) = report.yields
    assert result.share == sum(value >= 0.97 for value in report.trials.values) / 40


def test_kpp_of_a_loss_comes_from_the_other_end(example):
    """For a loss the worst chips are those with the largest values."""
    report = audit(example, metric="cross_entropy", percentiles=(10,), sigmas=(0.4,), trials=20, limit=32)
    assert report.kpp[0].value == sorted(report.trials.values, reverse=True)[2]
    assert not report.metric_info.higher_is_better


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential", "offset"])
@pytest.mark.parametrize("scale", ["per_tensor", "per_channel"])
@pytest.mark.parametrize("bits", [4, 8])
def test_without_noise_every_chip_is_the_quantised_model(example, encoding, scale, bits):
    """Ideal → quantised → noisy: at sigma 0 the last step costs nothing, to the last bit."""
    report = audit(
        example, sigmas=(0,), encoding=encoding, scale=scale, bits=bits, metric="cross_entropy",
        trials=3, limit=32,
    )  # fmt: skip
    assert set(report.trials.values) == {report.quantised}
    assert report.quantised != report.nominal


@pytest.mark.parametrize("device", ["fefet1", "fefet2", "rram_65nm", "pcm", "cmo_hfox", "sonos_day5"])
def test_without_noise_other_devices_are_the_quantised_model_too(example, device):
    """Sigma 0 means no noise, whatever the law."""
    report = audit(
        example, device, sigmas=(0,), metric="cross_entropy", every_device=True, trials=2, limit=16
    )
    assert set(report.trials.values) == {report.quantised}


def test_narrow_quantisation_costs_accuracy_before_any_noise(example):
    """The cost of mapping and that of noise are reported apart."""
    report = audit(example, bits=1, sigmas=(0,), trials=2)
    assert report.quantised < report.nominal - 0.05
    assert set(report.trials.values) == {report.quantised}


def test_a_sweep_uses_the_same_chips_and_shows_the_worst_point(example):
    """Each point of a sweep equals a run of its own; the largest sigma stands at the top, in any order."""
    report = audit(example, sigmas=(0.4, 0.0, 0.2), **FEW)
    assert [point.sigma for point in report.sweep] == [0.4, 0.0, 0.2]
    for point in report.sweep:
        assert audit(example, sigmas=(point.sigma,), **FEW).trials.values == point.trials.values
    assert report.operating_point.sigma == 0.4
    assert report.trials == report.sweep[0].trials
    alone = audit(example, sigmas=(0.4,), **FEW)
    assert report.tensors == alone.tensors


@pytest.mark.parametrize(
    "options",
    [
        {"sigmas": (0.1, 0.3), "percentiles": (1, 25), "min_kpp": 0.9, "yield_at": (0.5,), "seed": 5},
        {"device": "rram_65nm", "enable": ("aging",), "metric": "cross_entropy", "scale": "per_channel"},
        {"device": "pcm", "time_s": 86400.0, "encoding": "differential", "layers": ("conv*",)},
        {"every_device": True, "bits": 5, "cell_bits": 2, "digital": ("fc2*",), "crossbar": (64, 32)},
    ],
)
def test_a_report_can_be_run_again_from_itself(example, options):
    """The field `run` of the JSON text gives the same values, whatever the number of workers."""
    text = to_json(audit(example, **{"trials": 5, "limit": 24, "batch_size": 7, **options}))
    first = json.loads(text)
    again = run_audit(make_spec(**{**first["run"], "workers": 1}))
    second = json.loads(to_json(again))
    for key in first.keys() - {"timing", "run"}:
        assert second[key] == first[key], key
    assert from_json(text, "report.json").trials.values == again.trials.values


def test_seeds_make_different_chips(example):
    """Another seed draws other chips."""
    runs = [audit(example, seed=seed, metric="cross_entropy", **FEW).trials.values for seed in (0, 1)]
    assert not set(runs[0]) & set(runs[1])


def test_batch_size_does_not_change_the_chips(example):
    """How the samples are cut into batches changes rounding only."""
    options = {"metric": "cross_entropy", "sigmas": (0.4,), **FEW}
    whole, parts = (audit(example, batch_size=size, **options).trials.values for size in (64, 9))
    assert whole == pytest.approx(parts, rel=1e-5)


def test_without_labels_everything_says_so(unlabelled):
    """A label-free audit compares with the unmodified model, on seeded samples."""
    report = audit(unlabelled, sigmas=(0.4,), **FEW)
    assert report.label_free
    assert report.headline.startswith("LABEL-FREE (no labels: compared with the unperturbed model only): KPP")
    assert report.metric == "agreement"
    assert report.nominal == 1.0
    assert report.data.standard_error is None
    assert report.data.count == 64
    assert audit(unlabelled, sigmas=(0.4,), **FEW).trials.values == report.trials.values


def test_the_verdict_stands_in_the_headline(example):
    """Pass, fail and undecided are said first."""
    found = {}
    for threshold in (0.2, 0.96, 0.9999):
        report = audit(example, min_kpp=threshold, trials=400, limit=32, sigmas=(0.1,))
        found[threshold] = report.verdict
        assert report.headline.startswith(f"{report.verdict.upper()}: KPP 1 % top1 ")
    assert found[0.2] == "pass"
    assert found[0.9999] == "fail"
    assert audit(example, min_kpp=0.2, trials=5, limit=8).verdict == "undecided"


def test_every_point_of_a_sweep_must_pass(example):
    """One failing sigma fails the gate."""
    report = audit(example, min_kpp=0.9, trials=300, limit=16, sigmas=(0.0, 0.4), percentiles=(5,))
    assert [point.gate[0].verdict for point in report.sweep] == ["pass", "fail"]
    assert report.verdict == "fail"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_kpp": 90}, "--min-kpp 90: top1 is a fraction from 0 to 1; for 90 % write 0.9"),
        ({"yield_at": (-0.1,)}, "--yield-at -0.1: top1 is a fraction from 0 to 1"),
        ({"yield_at": (0.5, 500)}, "--yield-at 500: top1 is a fraction from 0 to 1"),
    ],
)
def test_a_threshold_that_is_no_fraction_is_refused(example, options, message):
    """A percentage given where a fraction is meant does not fail every chip in silence."""
    with pytest.raises(OptionError) as caught:
        audit(example, trials=1, limit=4, **options)
    assert str(caught.value) == message


def test_a_loss_may_have_any_threshold(example):
    """Only fractions are bounded."""
    report = audit(example, metric="cross_entropy", min_kpp=90, trials=400, limit=4)
    assert report.verdict == "pass"


def test_notes_of_the_mapping(example):
    """A top slice that is narrower, and what was found beside the model, are said."""
    report = audit(example, bits=5, cell_bits=2, trials=1, limit=4)
    narrow = "5 weight bits do not divide into the cell bits: the top slice holds 1 bit, "
    assert f"{narrow}its levels spread over the window" in report.notes
    assert "data found beside the model: digits_cnn.npz" in report.data.notes
    assert {t.slices for t in report.tensors if t.decision == "mapped"} == {3}


def test_layers_and_digital_choose_what_is_mapped(example):
    """Globs select by name, and every tensor says why it is where it is."""
    report = audit(example, layers=("conv*", "fc1*"), digital=("conv2*",), trials=1, limit=4)
    decided = {t.name: (t.decision, t.reason) for t in report.tensors if t.name.endswith("weight")}
    assert decided == {
        "conv1.weight": ("mapped", decided["conv1.weight"][1]),
        "conv2.weight": ("digital", "kept digital by --digital conv2*"),
        "fc1.weight": ("mapped", decided["fc1.weight"][1]),
        "fc2.weight": ("digital", "not selected by --layers"),
    }


def test_stuck_devices(tmp_path, example):
    """A profile file without any sigma works, and stuck devices cost accuracy."""
    path = tmp_path / "stuck.json"
    path.write_text(json.dumps(STUCK))
    report = audit(example, path, **FEW)
    assert report.device["name"] == "stuck"
    assert report.operating_point.terms == ("stuck_at",)
    assert report.trials.mean < report.quantised - 0.02


def test_time_and_terms_change_the_chips(example):
    """Drift over a day and an aging term that is off by default both show."""
    options = {"metric": "cross_entropy", "trials": 4, "limit": 64}
    fresh, old = (audit(example, "pcm", time_s=t, **options) for t in (0.0, 86400.0))
    assert old.operating_point.time_s == 86400.0
    assert min(old.trials.values) > max(fresh.trials.values)
    plain, aged = (audit(example, "rram_65nm", enable=e, **options) for e in ((), ("aging",)))
    assert plain.operating_point.terms == ("write",)
    assert aged.operating_point.terms == ("write", "aging")
    assert plain.trials.values != aged.trials.values


def test_data_may_be_anything_that_fits(tmp_path, example):
    """The same samples as npz and as npy files give the same values."""
    with np.load(example.with_suffix(".npz")) as data:
        np.save(tmp_path / "x.npy", data["image"][:32])
        np.save(tmp_path / "y.npy", data["y"][:32])
    plain = audit(example, trials=3, limit=32)
    assert audit(example, data=tmp_path, trials=3).trials.values == plain.trials.values


def test_working_files_are_gone_afterwards(tmp_path, monkeypatch, example):
    """Nothing is left in the folder for temporary files, after success and after failure."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    audit(example, trials=1, limit=4)
    with pytest.raises(OptionError):
        audit(example, trials=1, limit=4, metric="top99")
    assert list(tmp_path.iterdir()) == []


def test_a_report_of_another_folder_runs_again(tmp_path, monkeypatch, example):
    """Relative paths are kept as they were given."""
    for path in (example, example.with_suffix(".npz")):
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    report = audit("digits_cnn.onnx", trials=2, limit=8)
    assert report.run["model"] == "digits_cnn.onnx"
    assert run_audit(make_spec(**report.run)).trials.values == report.trials.values


def test_roughness_is_that_of_the_landscape(example):
    """An audit has the roughness that `landscape` gives, with the surface of its median direction pair."""
    report = audit(example, roughness=True, **FEW)
    alone = landscape(example, limit=64)
    assert report.roughness == alone.roughness
    by_roughness = sorted(zip((fit.roughness for fit in alone.fits), alone.surface.losses, strict=True))
    assert (report.landscape.roughness, report.landscape.losses) == by_roughness[(len(alone.fits) - 1) // 2]
    assert report.timing["roughness"] > 0


def test_roughness_can_be_left_out(example):
    """Without it the chips are the same, and the report has none."""
    report = audit(example, **FEW)
    assert report.roughness is report.landscape is None
    assert "roughness" not in report.timing
    assert report.trials == audit(example, roughness=True, **FEW).trials


def test_an_audit_stands_without_the_roughness_that_cannot_be_measured(tmp_path):
    """A model whose only weight has one dimension has no landscape; the audit says so and goes on."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (3,), [1.0, -2.0, 3.0])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n",))], [weight],
    )  # fmt: skip
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    report = audit(tmp_path / "m.onnx", trials=4, roughness=True)
    assert report.roughness is None
    assert any(
        "the roughness was not measured" in note and "no weight with two" in note for note in report.notes
    )


def test_a_resumed_audit_keeps_its_landscape(example, tmp_path):
    """Points of the landscape are kept beside the chips, and not run again."""
    first = audit(example, resume=tmp_path, roughness=True, **FEW)
    (kept,) = (tmp_path / "landscape").glob("*.record")
    size = kept.stat().st_size
    second = audit(example, resume=tmp_path, roughness=True, **FEW)
    assert kept.stat().st_size == size
    assert second.roughness == first.roughness

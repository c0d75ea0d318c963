"""`nvaudit harden --adc-bits`: converters in the audits, and in the forward pass of training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import nvaudit
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_OK
from nvaudit.jobs.harden_job import prepare_job
from nvaudit.perturb.metrics import Metric
from nvaudit.report.hardening.result import HardenReport
from nvaudit.retrain.checkpoint import CHECKPOINT_FILE
from nvaudit.retrain.crossbar.hardware import put_in_training
from nvaudit.retrain.device_noise import DeviceNoise
from nvaudit.retrain.executor.module import build_executor
from nvaudit.retrain.feed import Feed
from nvaudit.retrain.loss import TrainingLoss
from nvaudit.retrain.noise import no_noise
from nvaudit.retrain.options import make_harden_spec
from nvaudit.retrain.quant import places
from nvaudit.retrain.score import Scorer
from nvaudit.retrain.spec import HardenSpec
from nvaudit.retrain.train import Recipe, Task, Trainer
from nvaudit.retrain.vat import VatSearch
from nvaudit.session import prepare
from nvaudit.spec import make_spec

FEW = ("-n", "10", "--audit-images", "40", "-j", "0", "--quiet", "--no-roughness", "--limit", "200")
COARSE = ("--adc-bits", "3", "--crossbar", "72x64", "--device", "rram")


def weights(path: Path) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def recipe() -> Recipe:
    return Recipe(
        epochs=2, batch_size=64, optimiser="adam", lr=1e-3, weight_decay=0.0, schedule="constant",
        clip_gradient=5.0, clip_weights=None, augment="none", draws=1, seed=0,
    )  # fmt: skip


def prepared(model: Path, folder: Path, through: bool = True, **options) -> tuple[Task, DeviceNoise]:
    """What trains a model through crossbars, on the samples beside it."""
    spec = make_harden_spec(
        model=model, device="rram", data=model.with_suffix(".npz"), limit=200,
        **{"adc_bits": 3, "crossbar": (72, 64), **options},
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    job = prepare_job(spec, folder)
    network = build_executor(job.loaded)
    layouts = {weight.key: network.stored_layout(weight.key) for weight in job.weights}
    where = places(job.weights, job.point.profile, layouts, per_channel=False)
    feed = Feed(job.train[0], job.train[1])
    loss = TrainingLoss("classes", 1, "logit", 0.0, "cross-entropy")
    task = Task(network, where, feed, loss, job.output)
    if through:
        how = spec.converters
        assert how is not None
        task = replace(task, crossbars=put_in_training(network, where, job.splits, how, feed, 64))
    return task, DeviceNoise(job.point)


@pytest.fixture(scope="module")
def hardened(example_module, tmp_path_factory):
    """A hardware-aware run: its model, its report and its text."""
    from click.testing import CliRunner

    from nvaudit.cli.commands import cli

    folder = tmp_path_factory.mktemp("hardened")
    words = ["harden", example_module, *FEW, *COARSE, "--epochs", "2", "-o", folder / "h.onnx"]
    ran = CliRunner().invoke(cli, [str(word) for word in [*words, "--report", folder / "r.json"]])
    assert ran.exit_code == EXIT_OK, ran.output
    return folder / "h.onnx", json.loads((folder / "r.json").read_text(encoding="utf-8")), ran.stdout


@pytest.fixture(scope="module")
def example_module() -> Path:
    return Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"


def test_the_report_says_how_it_was_trained_and_audited(hardened):
    """Which ADC, which crossbars, which weights; the audits' crossbars are those of the hardened model."""
    _, report, out = hardened
    found = report["training"]["hardware_aware"]
    assert found == {
        "rows": 72, "cols": 64, "adc_bits": 3, "dac_bits": None, "adc_range": "max", "samples": 64,
        "layers": [{"name": f"{name}.weight", "reason": None} for name in ("conv1", "conv2", "fc1", "fc2")],
    }  # fmt: skip
    assert report["crossbar"]["adc_bits"] == 3
    assert report["crossbar"]["layers"][0]["adc_codes"] == [-3, 3]
    assert (report["run"]["adc_bits"], report["run"]["hardware_aware"]) == (3, None)
    HardenReport.model_validate(report)
    text = " ".join(out.split())
    assert "Hardware-aware: 4 of 4 weights trained through crossbars of 72 × 64 with 3-bit ADCs" in text
    assert "Crossbars of 72 × 64" in text


def test_both_audits_have_the_converters(hardened, example_module):
    """Quantised weights score less than in an audit with ideal converters."""
    path, report, _ = hardened
    for model, side in ((example_module, "before"), (path, "after")):
        same = {"data": example_module.with_suffix(".npz"), "limit": 200, "trials": 2, "workers": 0}
        fine = nvaudit.audit(model, "rram", roughness=False, **same)
        assert report[side]["quantised"] < fine.quantised - 0.05


def test_training_through_coarse_converters_is_better(example, tmp_path):
    """With ADCs of 3 bits, the same seed and epochs, and no noise while training: on the same chips, in an
    audit with these ADCs, what was trained through them has lost much less."""
    found = {}
    for through in (False, True):
        report = nvaudit.harden(
            example, "rram", example.with_suffix(".npz"), out=tmp_path / "h.onnx", method="none",
            hardware_aware=through, limit=400, epochs=6, trials=10, audit_images=80, workers=0,
            roughness=False, adc_bits=3, crossbar=(72, 64), adc_range="percentile:99",
        )  # fmt: skip
        assert (report.training.hardware_aware is not None) == through
        assert report.crossbar.adc_bits == 3
        found[through] = report
    assert found[True].before.values == found[False].before.values
    assert found[True].after.mean > found[False].after.mean + 0.02


def test_fine_converters_train_as_none_do(example, tmp_path):
    """16 bits: after two epochs the weights have moved the same way, to within 2 % of the way."""
    found = []
    for name, through in (("plain", False), ("through", True)):
        task, _ = prepared(example, tmp_path / name, through, adc_bits=16, dac_bits=16)
        given = {key: value.detach().clone() for key, value in task.network.weights.items()}
        trainer = Trainer(task, recipe())
        for epoch in range(2):
            trainer.epoch(epoch, no_noise)
        found.append({key: value.detach() - given[key] for key, value in task.network.weights.items()})
    for key, way in found[0].items():
        assert float(way.norm()) > 0
        assert float((found[1][key] - way).norm()) < 0.02 * float(way.norm()), key


def test_ranges_are_the_audits(example, tmp_path):
    """On the same samples the calibration of training gives the converters that the audit's gives."""
    for options in ({}, {"dac_bits": 6}, {"adc_range": "percentile:99"}, {"adc_range": "full_scale"}):
        folder = tmp_path / "-".join(["x", *(str(value) for value in options.values())]).replace(":", "")
        folder.mkdir()
        task, _ = prepared(example, folder / "training", **options)
        task.network.eval()
        rows = task.feed.rows
        np.savez(
            folder / "d.npz",
            **{name: value[rows] for name, value in task.feed.dataset.inputs.items()},
            y=task.feed.dataset.labels[rows],
        )
        task.crossbars.calibrate()
        spec = make_spec(
            model=example, device="rram", data=folder / "d.npz", workers=0, crossbar=(72, 64),
            **{"adc_bits": 3, **options},
        )  # fmt: skip
        session = prepare(spec, folder)
        assert session.crossbar.samples == task.crossbars.samples == 64
        for layer in session.crossbar.layers:
            ours, theirs = task.crossbars.converters[layer.split.key], layer.converters
            for one, other in ((ours.dac, theirs.dac), (ours.adc, theirs.adc)):
                assert (one is None) == (other is None)
                if one is not None:
                    assert (one.low, one.high) == (other.low, other.high)
                    assert one.step == pytest.approx(other.step, rel=0.04)  # one step of 6 bits at most


def test_calibration_changes_nothing(example, tmp_path):
    """No statistic of a batch normalisation, no weight; and a second time gives the same."""
    task, _ = prepared(example, tmp_path / "a")
    before = {key: value.clone() for key, value in task.network.state_dict().items()}
    task.network.train()
    task.crossbars.calibrate()
    first = task.crossbars.converters
    task.crossbars.calibrate()
    assert task.crossbars.converters == first
    assert len(first) == 4
    for key, value in task.network.state_dict().items():
        assert torch.equal(value, before[key])


def test_ranges_follow_the_weights(example, tmp_path):
    """An epoch begins with a calibration, whatever ranges were there before: a resumed one does the same."""
    results = []
    for spoilt in (False, True):
        task, noise = prepared(example, tmp_path / str(spoilt))
        if spoilt:
            with torch.no_grad():
                kept = task.network.weights["conv1.weight"].clone()
                task.network.weights["conv1.weight"].mul_(
                    torch.linspace(0.1, 1, kept.numel()).reshape(kept.shape)
                )
                task.crossbars.calibrate()
                task.network.weights["conv1.weight"].copy_(kept)
        Trainer(task, recipe()).epoch(0, noise)
        results.append((task.network.state_dict(), task.crossbars.converters))
    assert results[0][1] == results[1][1]
    for key, value in results[0][0].items():
        assert torch.equal(value, results[1][0][key])


def test_scores_go_through_the_converters(example, tmp_path):
    """A score is that of chips with converters; it does not depend on how they were set before."""
    task, noise = prepared(example, tmp_path / "a", adc_bits=2)
    feed = Feed(task.feed.dataset, task.feed.rows[:60])
    through = Scorer(task, feed, Metric("top1", "top_k", class_axis=1), noise, 5, 1.0, 0)
    values = through.values(0)
    plain = Scorer(replace(task, crossbars=None), feed, through.metric, noise, 5, 1.0, 0)
    assert values.mean() < plain.values(0).mean() - 0.1
    assert through.clean() < plain.clean() - 0.1
    Trainer(task, recipe()).epoch(0, noise)
    again, _ = prepared(example, tmp_path / "b", adc_bits=2)
    again.network.load_state_dict(task.network.state_dict())
    fresh = Scorer(again, feed, through.metric, noise, 5, 1.0, 0)
    assert np.array_equal(fresh.values(1), through.values(1))


@pytest.mark.parametrize(
    "method",
    [
        ("--method", "gaussian"),
        ("--method", "trice", "--trice-end", "0.1", "--train-trials", "3", "--warm", "0"),
        ("--bits", "ternary", "--sparsity", "0.3", "--dac-bits", "6"),
    ],
)
def test_resume(command, example, tmp_path, monkeypatch, method):
    """Cut off after an epoch, the same command goes on, and writes the same bytes as without a break; other
    converters are another training."""
    from nvaudit.retrain.checkpoint import CheckpointFolder

    options = (*FEW, *COARSE, *method, "--epochs", "2")
    assert command("harden", example, *options, "-o", tmp_path / "whole.onnx").code == EXIT_OK
    real = CheckpointFolder.save

    def save_then_stop(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    kept = tmp_path / "kept"
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", save_then_stop)
        ran = command("harden", example, *options, "-o", tmp_path / "again.onnx", "--resume", kept)
    assert ran.code == EXIT_INTERRUPTED
    assert (kept / CHECKPOINT_FILE).exists()
    ran = command("harden", example, *options, "--adc-bits", "4", "-o", tmp_path / "c.onnx", "--resume", kept)
    assert ran.code == EXIT_BAD_INPUT
    assert "it holds another training: --adc-bits is 4, there 3" in ran.err
    ran = command("harden", example, *options, "-o", tmp_path / "again.onnx", "--resume", kept)
    assert ran.code == EXIT_OK, ran.err
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()


def test_ternary_and_pruned_through_crossbars(command, example, tmp_path):
    """One bit, a cell of two levels, groups of zeros without devices: what comes out is ternary and pruned,
    and its audit maps it without any error but that of the converters."""
    ran = command(
        "harden", example, *FEW, *COARSE, "--bits", "ternary", "--sparsity", "0.4", "--epochs", "4",
        "-o", tmp_path / "h.onnx", "--report", tmp_path / "r.json",
    )  # fmt: skip
    assert ran.code == EXIT_OK, ran.err
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    for name in ("conv1.weight", "fc1.weight"):
        assert len(np.unique(np.abs(weights(tmp_path / "h.onnx")[name]))) <= 2
    assert report["zero_groups"]["sparsity"] >= 0.4
    assert report["crossbar"]["adc_bits"] == 3


def test_candidates_of_stability_vat_go_through_crossbars(example, tmp_path):
    """The start is the given model, through ADCs of 2 bits; the kept candidate scores the same again."""
    task, noise = prepared(example, tmp_path / "a", adc_bits=2)
    feed = Feed(task.feed.dataset, task.feed.rows[:60])
    judge = Scorer(task, feed, Metric("top1", "top_k", class_axis=1), noise, 5, 1.0, 0)
    one = replace(recipe(), epochs=1)
    search = VatSearch(
        lambda: Trainer(task, one), None, judge, lambda: (1.0, None), False, lambda *told: None, None
    )
    _, candidates, kept, stages = search.run({0.1: noise, 0.2: no_noise})
    assert [stage.model for stage in stages] == ["A", "B", "D"]
    assert [row.sigma for row in candidates] == [None, 0.1, 0.2]
    assert kept == 1  # of equals the smallest spread
    assert candidates[0].clean < 0.9
    assert candidates[1].clean == judge.clean()
    assert candidates[1].kpp == judge.kpp(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--adc-bits", "1"), "--adc-bits: got 1; use a whole number from 2 to 16"),
        (("--dac-bits", "6"), "--dac-bits is for crossbars with converters; give --adc-bits too"),
        (("--adc-range", "full_scale"), "--adc-range is for crossbars with converters; give --adc-bits too"),
        (("--adc-range", "most", "--adc-bits", "4"), "--adc-range: got 'most'; use max, full_scale, or"),
        (("--hardware-aware",), "--hardware-aware is for crossbars with converters; give --adc-bits too"),
        (("--no-hardware-aware",), "--no-hardware-aware is for crossbars with converters; give --adc-bits"),
        (
            ("--adc-bits", "4", "--device", "pcm", "--drift-compensation"),
            "--adc-bits and --drift-compensation: choose one",
        ),
        (
            ("--adc-bits", "4", "--sigma-unit", "weight_max", "--sigma", "0.1"),
            "is stated as a fraction of max|W|, not for devices, so it has no column sums",
        ),
    ],
)
def test_wrong_options(command, example, options, message, tmp_path, monkeypatch):
    """Each ends with exit code 2 and its own message, before any training; nothing is written."""
    monkeypatch.chdir(tmp_path)
    ran = command("harden", example, "-q", "-o", "h.onnx", *options)
    assert ran.code == EXIT_BAD_INPUT, ran.err
    assert message in " ".join(ran.err.split())
    assert ran.out == ""
    assert list(tmp_path.iterdir()) == []


def test_what_training_depends_on():
    """Converters are a part of it where training goes through them; the audits' own are not."""
    base = {"model": "m", "device": "rram"}
    plain = make_harden_spec(**base).training_options()
    audits = make_harden_spec(**base, adc_bits=4, hardware_aware=False)
    through = make_harden_spec(**base, adc_bits=4, adc_range="full_scale")
    assert audits.training_options() == plain
    assert through.training_options()["--adc-bits"] == 4
    assert through.training_options()["--adc-range"] == "full_scale"
    assert audits.trained_through is None
    assert audits.audit_spec(Path("m"), "d", ()).adc_bits == 4
    assert through.audit_spec(Path("m"), "d", (), given=True).adc_range == "full_scale"
    assert HardenSpec.model_fields["hardware_aware"].default is None

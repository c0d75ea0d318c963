"""Stability-VAT on a compressed network: candidates, the least rough one, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import nvaudit
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_OK, OptionError
from nvaudit.jobs.harden_job import prepare_job
from nvaudit.mapping.quantize import quantize
from nvaudit.report.hardening.result import CandidateInfo, TrainingInfo, rougher_but_better
from nvaudit.report.sections import MetricInfo
from nvaudit.retrain.checkpoint import CHECKPOINT_FILE
from nvaudit.retrain.options import make_harden_spec
from nvaudit.retrain.vat import VatCandidate, choose_candidate

OPTIONS = (
    "--device", "rram_65nm", "--sigma", "0.3", "--method", "stability-vat", "--vat-sigmas", "0.1,0.5",
    "--bits", "ternary", "--sparsity", "0.5", "--crossbar", "72x64", "--epochs", "6", "--lr", "0.003",
    "--train-trials", "10", "-n", "5", "--audit-images", "40", "-j", "0", "-q", "--no-roughness",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(example, tmp_path_factory):
    """Options that name the data to train, validate and test on, in files of their own."""
    folder, words = tmp_path_factory.mktemp("data"), []
    with np.load(example.with_suffix(".npz")) as whole:
        for name, part in (("", slice(0, 400)), ("val-", slice(400, 440)), ("test-", slice(500, 560))):
            path = folder / f"{name}data.npz"
            np.savez(path, image=whole["image"][part], y=whole["y"][part])
            words += [f"--{name}data", str(path)]
    return words


def start(example, data, output: Path, *more: object) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "nvaudit", "harden", example, *data, *OPTIONS, "-o", output, *more]
    return subprocess.Popen(
        [str(word) for word in line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def hardened(example, data, tmp_path_factory):
    """A run that nothing disturbed: its model, its report and its text."""
    folder = tmp_path_factory.mktemp("whole")
    run = start(example, data, folder / "h.onnx", "--report", folder / "r.json")
    out, err = run.communicate(timeout=300)
    assert run.returncode == EXIT_OK, err
    return folder / "h.onnx", json.loads((folder / "r.json").read_text(encoding="utf-8")), out


def test_the_least_rough_is_kept():
    """Of candidates the lowest roughness wins whatever the rest; of equals the smallest spread."""
    rows = [(0.1, 0.3), (0.2, 0.2), (0.3, 0.2), (0.4, 0.5)]
    candidates = [VatCandidate(sigma, 1.0, sigma, sigma, rough, None) for sigma, rough in rows]
    assert choose_candidate(candidates, "roughness", True) == 1
    assert choose_candidate(candidates[::-1], "roughness", True) == 2


@pytest.mark.parametrize(("higher", "best"), [(True, 2), (False, 0)])
def test_the_best_kpp_is_kept_where_that_is_wanted(higher, best):
    """In the direction of the metric, whatever the roughness; of equals the smallest spread."""
    rows = [(0.1, 0.3), (0.2, 0.4), (0.3, 0.5), (0.4, 0.5)]
    candidates = [VatCandidate(sigma, 1.0, 0.5, kpp, 1 - kpp, None) for sigma, kpp in rows]
    assert choose_candidate(candidates, "kpp", higher) == best


def test_candidates_and_the_choice(hardened, data):
    """The report lists the start and a candidate per spread, each with all its numbers; the kept one is the
    least rough, and what was written is that network."""
    path, report, out = hardened
    training = report["training"]
    start_row, *candidates = training["candidates"]
    assert [row["sigma"] for row in candidates] == [0.1, 0.5]
    assert start_row["sigma"] is None
    for row in candidates:
        assert row["loss"] > 0
        assert 0.2 < row["clean"] <= 1
        assert 0 <= row["kpp"] <= 1
        assert row["roughness"] > 0
        assert row["spread"] > 0
    assert candidates[0]["roughness"] != candidates[1]["roughness"]
    kept = training["candidates"][training["kept_candidate"]]
    assert kept["roughness"] == min(row["roughness"] for row in candidates)
    assert {row["sigma"][0] for row in training["history"]} == {kept["sigma"]}
    again = nvaudit.landscape(path, data[3], workers=0)
    assert again.roughness.value == pytest.approx(kept["roughness"], rel=1e-9)
    stages = {stage["model"]: stage["roughness"] for stage in training["stages"]}
    assert list(stages) == ["A", "B", "C", "D"]
    assert (stages["C"], stages["D"]) == (start_row["roughness"], kept["roughness"])
    assert "Roughness of the models of Algorithm 1: A (as given)" in " ".join(out.split())
    assert "kept" in out
    assert "the least rough one is kept" in " ".join(out.split())


@pytest.mark.slow
def test_the_landscapes_are_those_of_the_quantised_models(example, data, tmp_path):
    """Of A around the given weights, of B and D around 3-bit codes times their scale, as on the array."""
    words = dict(zip(data[::2], data[1::2], strict=True))
    report = nvaudit.harden(
        example, "rram_65nm", words["--data"], out=tmp_path / "h.onnx", val_data=words["--val-data"],
        test_data=words["--test-data"], method="stability-vat", vat_sigmas=(0.1,), bits=3, epochs=1, trials=2,
        train_trials=2, audit_images=20, roughness=False, workers=0,
    )  # fmt: skip

    def on_grid(path):
        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if tensor.name.startswith(("conv", "fc")) and tensor.name.endswith("weight"):
                codes = quantize(numpy_helper.to_array(tensor), 3, ())
                tensor.CopyFrom(numpy_helper.from_array((codes.code * codes.scale).astype("f"), tensor.name))
        onnx.save(model, tmp_path / "grid.onnx")
        return tmp_path / "grid.onnx"

    def rough(path):
        return pytest.approx(
            nvaudit.landscape(path, words["--val-data"], workers=0).roughness.value, rel=1e-6
        )

    found = {stage.model: stage.roughness for stage in report.training.stages}
    assert list(found) == ["A", "B", "D"]
    assert found["A"] == rough(example)
    assert found["B"] == rough(on_grid(example)) == report.training.candidates[0].roughness
    assert found["D"] == rough(on_grid(tmp_path / "h.onnx")) == report.training.candidates[1].roughness
    assert found["D"] != rough(tmp_path / "h.onnx")
    assert len(set(found.values())) == 3


def test_what_is_written_is_ternary_and_pruned(hardened, data):
    """At most three values a tensor; whole groups are exactly zero, as many as asked for; the audit counts
    them, and maps the rest without any error."""
    path, report, out = hardened
    values = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    for name in ("conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"):
        found = np.unique(np.abs(values[name]))
        assert len(found) == 2
        assert found[0] == 0
    groups = report["zero_groups"]
    assert 0.5 <= groups["sparsity"] < 0.52
    assert (groups["rows"], groups["cols"]) == (72, 64)
    assert next(x for x in groups["layers"] if x["name"] == "fc2.weight")["zero_groups"] == 0
    # fc1 has 256 inputs: blocks of at most 72 rows, of which whole groups are zero.
    assert (values["fc1.weight"] == 0).mean() > 0.5
    assert report["after"]["quantised"] == report["after"]["nominal"]
    assert "hold zeros only" in out
    assert any("at the profile's 8 bits" in note for note in report["notes"])
    alone = nvaudit.audit(
        path, "rram_65nm", bits=1, cell_bits=1, limit=40, trials=2, workers=0, roughness=False,
        data=data[5], skip_zero_groups=True, crossbar=(72, 64),
    )  # fmt: skip
    assert alone.quantised == alone.nominal
    assert alone.zero_groups.model_dump(mode="json") == groups


@pytest.mark.slow
def test_a_killed_search_goes_on(hardened, example, data, tmp_path):
    """Killed within its second candidate, the same command ends with the bytes of an unbroken run; each
    candidate has a folder of its own."""
    whole, report, _ = hardened
    doomed = start(example, data, tmp_path / "h.onnx", "--resume", tmp_path / "kept")
    mark = tmp_path / "kept" / "sigma-0.5" / CHECKPOINT_FILE
    while not mark.exists() and doomed.poll() is None:
        time.sleep(0.005)
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.communicate()
    assert doomed.returncode == -signal.SIGKILL
    assert not (tmp_path / "h.onnx").exists()
    names = ("start", "sigma-0.1", "sigma-0.5")
    assert all((tmp_path / "kept" / name / CHECKPOINT_FILE).exists() for name in names)
    finished = (tmp_path / "kept" / "sigma-0.1" / CHECKPOINT_FILE).read_bytes()
    again = start(
        example, data, tmp_path / "h.onnx", "--resume", tmp_path / "kept", "--report", tmp_path / "r.json"
    )
    _, err = again.communicate(timeout=300)
    assert again.returncode == EXIT_OK, err
    assert (tmp_path / "h.onnx").read_bytes() == whole.read_bytes()
    assert (tmp_path / "kept" / "sigma-0.1" / CHECKPOINT_FILE).read_bytes() == finished
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert found["training"] == report["training"]
    other = start(
        example, data, tmp_path / "k.onnx", "--resume", tmp_path / "kept", "--report", tmp_path / "k.json",
        "--vat-keep", "kpp",
    )  # fmt: skip
    _, err = other.communicate(timeout=300)
    assert other.returncode == EXIT_OK, err
    assert (tmp_path / "kept" / "sigma-0.1" / CHECKPOINT_FILE).read_bytes() == finished  # nothing was trained
    training = json.loads((tmp_path / "k.json").read_text(encoding="utf-8"))["training"]
    assert training["candidates"] == report["training"]["candidates"]
    kept = training["candidates"][training["kept_candidate"]]
    assert kept["kpp"] == max(row["kpp"] for row in training["candidates"][1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bits", "binary"), "--bits: got 'binary'; use a whole number from 1 to 14, or ternary"),
        (("--bits", "0"), "--bits: got 0; use a whole number from 1 to 14, or ternary"),
        (("--sparsity", "1"), "--sparsity: got 1.0; use a number above 0 and below 1"),
        (("--sparsity", "0.99"), "of the weights on the array lie in groups that may go"),
        (("--sparsity", "0.5", "--epochs", "0"), "--epochs 0: pruning is done while training"),
        (("--sparsity", "0.5", "--dense", "conv9*"), "--dense 'conv9*' matches no weight on the array"),
        (("--dense", "conv1*"), "--dense is for pruning; give --sparsity too"),
        (
            ("--crossbar", "72x64"),
            "--crossbar is for pruning; give --sparsity too, --adc-bits or --allocate crossbars",
        ),
        (("--crossbar", "72"), "--crossbar: got '72'; use rows and columns, whole numbers"),
        (("--prune-lambda", "-1", "--sparsity", "0.5"), "--prune-lambda: got -1.0; use a finite number, 0"),
        (("--vat-sigmas", "0.1"), "--vat-sigmas is for --method stability-vat, not best; leave it out"),
        (("--vat-keep", "kpp"), "--vat-keep is for --method stability-vat, not best; leave it out"),
        (
            ("--vat-sigmas", "a,b"),
            "--vat-sigmas: got 'a,b'; use 1 to 100 finite numbers, 0 or more, such as 0.1,0.2,0.3",
        ),
        (("--method", "stability-vat", "--vat-sigmas", "-1"), "--vat-sigmas: got -1.0; use 1 to 100 finite"),
        (("--method", "stability-vat", "--vat-sigmas", "7"), "--vat-sigmas: sigma: 7 is outside the"),
        (("--method", "stability-vat", "--keep", "best"), "it keeps the candidate that --vat-keep wants"),
        (("--method", "stability-vat", "--train-sigma", "1"), "it trains at each of --vat-sigmas"),
        (("--method", "stability-vat", "--epochs", "0"), "candidates are to be trained"),
        (("--method", "remap", "--sparsity", "0.5"), "--sparsity: for training; --method remap trains"),
    ],
)
def test_wrong_options(command, example, options, message, tmp_path, monkeypatch):
    """Each ends with exit code 2 and its own message, before any training; nothing is written."""
    monkeypatch.chdir(tmp_path)
    ran = command("harden", example, "-q", "--device", "rram_65nm", "-o", "h.onnx", *options)
    assert ran.code == EXIT_BAD_INPUT, ran.err
    assert message in " ".join(ran.err.split())
    assert ran.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.reference
def test_a_quantised_model_cannot_become_ternary(command, shared_data, tmp_path):
    """Weights that a model stores as integers keep their grid: that is said before any training."""
    model = shared_data / "models" / "cifar_resnet20_qdq_int8.onnx"
    samples = tmp_path / "d.npz"
    np.savez(samples, **{nvaudit_input(model): np.zeros((10, 3, 32, 32), np.float32)}, y=np.arange(10))
    ran = command("harden", model, "--data", samples, "--bits", "ternary", "-q", "-o", tmp_path / "h.onnx")
    assert ran.code == EXIT_BAD_INPUT
    assert "every weight on the array is stored as integers" in " ".join(ran.err.split())


def nvaudit_input(model: Path) -> str:
    """Name of the first input."""
    return str(onnx.load(model, load_external_data=False).graph.input[0].name)


def test_defaults_are_the_papers():
    """σ_train from 0.1 to 0.5; crossbars of 256 × 256 (S, sections 5 and 6.1)."""
    spec = make_harden_spec(model="m", device="rram_65nm", method="stability-vat", sparsity=0.8)
    assert spec.vat_sigmas == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert spec.crossbar == (256, 256)
    assert spec.keeps == "last"


@pytest.mark.parametrize(
    ("kpps", "higher", "said"),
    [((0.15, 0.75), True, "sigma 0.1 has"), ((0.75, 0.15), True, None), ((0.7, 0.7), True, None),
     ((2.0, 0.5), False, "sigma 0.1 has"), ((0.5, 2.0), False, None)],
)  # fmt: skip
def test_a_flat_network_that_learned_nothing_is_said(kpps, higher, said):
    """Where another candidate has a better KPP than the one of lowest roughness, a note says so."""
    kept, other = kpps
    start = {"sigma": None, "loss": None, "clean": 0.9, "kpp": 0.99 if higher else 0.0, "roughness": 0.1}
    rows = [
        {"sigma": 0.1, "loss": 1.0, "clean": 0.9, "kpp": other, "roughness": 0.05},
        {"sigma": 0.5, "loss": 1.0, "clean": 0.2, "kpp": kept, "roughness": 0.01},
    ]
    info = TrainingInfo.model_construct(
        candidates=tuple(CandidateInfo(**row, spread=None) for row in (start, *rows)), kept_candidate=2,
        kept_by="roughness",
    )  # fmt: skip
    unit = MetricInfo.model_construct(unit="fraction" if higher else "nats", higher_is_better=higher)
    notes = rougher_but_better(info, unit, 1.0)
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]
    assert rougher_but_better(info.model_copy(update={"kept_by": "kpp"}), unit, 1.0) == []


def test_default_spreads_outside_the_profile_are_left_out(example, data, tmp_path):
    """With a note; where they are typed, they are refused, as is a default of which none is left."""
    words = dict(zip(data[::2], data[1::2], strict=True))
    files = {name: words[f"--{name.replace('_', '-')}"] for name in ("data", "val_data", "test_data")}
    spec = make_harden_spec(model=example, device="fefet1", method="stability-vat", **files)
    job = prepare_job(spec, tmp_path)
    assert [point.sigma for point in job.vat_points] == [0.1, 0.2, 0.3, 0.4]
    (note,) = (note for note in job.notes if "vat-sigmas" in note)
    assert note.startswith(
        "left out of the default --vat-sigmas: sigma: 0.5 is outside the valid range 0 … 0.4"
    )
    with pytest.raises(OptionError, match=r"0\.5 is outside the valid range"):
        prepare_job(spec.model_copy(update={"vat_sigmas": (0.1, 0.5)}), tmp_path)

"""`nvaudit harden` and `nvaudit.harden`, from an ONNX file to a hardened one, on the example network."""

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
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_OK, OptionError
from nvaudit.retrain.checkpoint import CHECKPOINT_FILE
from nvaudit.retrain.options import make_harden_spec
from nvaudit.retrain.spec import HardenSpec

FEW = ("-n", "20", "--audit-images", "40", "-j", "0", "--quiet", "--no-roughness", "--epochs", "1")
NOISY = ("--sigma", "0.2", "--sigma-unit", "weight_max")


def weights(path: Path) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def test_hardened_model_is_better(command, example, tmp_path):
    """On the same chips the 1st percentile rises by a wide margin, and the report says so."""
    hardened, report = tmp_path / "hard.onnx", tmp_path / "hard.json"
    ran = command(
        "harden", example, *NOISY, "--epochs", "12", "--val-split", "0.4", "-n", "100", "-j", "0", "-q",
        "--no-roughness",
        "-o", hardened, "--report", report,
    )  # fmt: skip
    assert ran.code == EXIT_OK, ran.err
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["after"]["kpp"]["value"] > found["before"]["kpp"]["value"] + 0.2
    assert found["after"]["nominal"] > found["before"]["nominal"] - 0.03
    assert (found["training"]["kept"], found["training"]["kept_epoch"]) == ("better", 12)
    assert (
        "The result is the network of the last epoch (without noise, on all held-out samples: "
        in " ".join(ran.out.split())
    )
    given, trained = found["training"]["compared"]
    assert trained > given + 0.1
    assert found["difference"]["mean"]["low"] > 0.05
    assert ran.out.startswith("KPP 1 % on rram: ")
    assert f"hardened model: {hardened}" in ran.out
    assert found["training"]["samples"] + found["training"]["validation_samples"] == 597
    assert [row["epoch"] for row in found["training"]["history"]] == list(range(1, 13))
    # An audit of the written file, on other images too, agrees that it is better.
    shared = {"device": "rram", "data": example.with_suffix(".npz"), "trials": 40, "limit": 150,
              "sigmas": (0.2,), "sigma_unit": "weight_max", "seed": 7,
              "roughness": False}  # fmt: skip
    before, after = (nvaudit.audit(model, **shared) for model in (example, hardened))
    assert after.trials.mean > before.trials.mean + 0.1
    first, second = onnx.load(example), onnx.load(hardened)
    assert [node.name for node in first.graph.node] == [node.name for node in second.graph.node]
    assert weights(example).keys() == weights(hardened).keys()


def test_no_epochs_change_nothing(command, example, tmp_path):
    """Zero epochs give the same weights byte for byte, and no difference on any chip."""
    hardened, report = tmp_path / "same.onnx", tmp_path / "same.json"
    ran = command("harden", example, *FEW, "--epochs", "0", "-o", hardened, "--report", report)
    assert ran.code == EXIT_OK, ran.err
    old, new = weights(example), weights(hardened)
    assert all(old[name].tobytes() == new[name].tobytes() for name in old)
    assert json.loads(report.read_text(encoding="utf-8"))["difference"]["differing"] == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "trice", "--warm", "0", "--train-trials", "10", "--score-images", "40"),
        ("--method", "correctnet"),
        ("--method", "lognormal", "--distill", "0.5", "--activation-bits", "4"),
        ("--method", "lt", "--reset", "--optimiser", "sgd", "--augment", "crop", "--scale", "per_channel"),
    ],
)
def test_methods(command, example, tmp_path, options):
    """Each method trains all weights and writes a model that can be audited."""
    ran = command("harden", example, *FEW, *options, "-o", tmp_path / "h.onnx", "--report", "-")
    assert ran.code == EXIT_OK, ran.err
    found = json.loads(ran.out)
    assert found["method"] == options[1]
    old, new = weights(example), weights(tmp_path / "h.onnx")
    assert all((old[name] != new[name]).any() for name in old)
    row = found["training"]["history"][0]
    assert len(row["sigma"]) == len(row["loss"]) == (3 if options[1] == "trice" else 1)
    assert (row["winner"] is not None) == (options[1] == "trice")


def test_reset_forgets_the_given_weights(example, tmp_path):
    """From scratch nothing of the model is left: what comes out does not depend on it."""
    nvaudit.harden(
        example, out=tmp_path / "h.onnx", method="none", reset=True, epochs=1, trials=5, lr=1e-6,
        audit_images=20, roughness=False,
    )  # fmt: skip
    old, new = weights(example), weights(tmp_path / "h.onnx")
    for name in ("conv2.weight", "fc1.weight"):
        assert abs(np.corrcoef(old[name].ravel(), new[name].ravel())[0, 1]) < 0.1
    assert np.abs(new["fc1.bias"]).max() < 1e-3
    assert new["fc1.weight"].std() == pytest.approx((2 / 256) ** 0.5, rel=0.05)


SPOIL = ("--lr", "0.5", "--train-trials", "20")


def test_a_worse_network_is_called_so(command, example, tmp_path):
    """What makes the model worse is said first."""
    ran = command("harden", example, *FEW, *NOISY, *SPOIL, "--method", "none", "-o", tmp_path / "bad.onnx")
    assert ran.code == EXIT_OK, ran.err
    assert ran.out.startswith("WORSE: KPP 1 % on rram")
    assert "with --keep better" in " ".join(ran.out.split())


@pytest.mark.parametrize(
    "options", [("--method", "none", "--keep", "best"), ("--method", "none", "--keep", "better"), ()]
)
def test_a_worse_network_is_not_kept(command, example, tmp_path, options):
    """With --keep best and better, which is the default of best, the given weights come back instead."""
    hardened, report = tmp_path / "same.onnx", tmp_path / "same.json"
    ran = command("harden", example, *FEW, *NOISY, *SPOIL, *options, "-o", hardened, "--report", report)
    assert ran.code == EXIT_OK, ran.err
    assert not ran.out.startswith("WORSE")
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["training"]["kept_epoch"] == 0
    assert "The result is the given model: training did not surpass it" in " ".join(ran.out.split())
    assert any(note.startswith("no epoch surpassed the given model") for note in found["notes"])
    old, new = weights(example), weights(hardened)
    assert all(old[name].tobytes() == new[name].tobytes() for name in old)


LIMIT = "--max-clean-loss"


@pytest.mark.parametrize(
    "more",
    [
        ("--method", "gaussian", "--clip-weights", "1", "--lr", "0.003"),
        ("--keep", "best", "--train-trials", "20"),
    ],
)
def test_a_limit_that_holds(command, example, tmp_path, more):
    """The result is the trained network, and the report says what it lost on all held-out samples."""
    report = tmp_path / "h.json"
    options = ("--epochs", "6", LIMIT, "0.3", "--val-split", "0.4", *more)
    ran = command("harden", example, *FEW, *NOISY, *options, "-o", tmp_path / "h.onnx", "--report", report)
    assert ran.code == EXIT_OK, ran.err
    found = json.loads(report.read_text(encoding="utf-8"))["training"]
    assert (found["kept"], found["kept_epoch"]) == ("best" if "best" in more else "better", 6)
    assert found["max_clean_loss"] == 0.3
    assert found["clean_loss"] <= 0.3
    # Held out are 239 samples: the loss is a whole number of them, and that of an audit on them.
    held_out = found["validation_samples"]
    assert found["clean_loss"] * held_out == pytest.approx(round(found["clean_loss"] * held_out))
    assert "--max-clean-loss allows −30.00 points" in " ".join(ran.out.split())


def test_the_loss_is_that_of_an_audit(command, example, tmp_path):
    """What the limit goes by is what audits of both models on the held-out samples find."""
    report = tmp_path / "h.json"
    options = ("--epochs", "3", LIMIT, "1", "--audit-images", "1000")
    ran = command("harden", example, *FEW, *NOISY, *options, "-o", tmp_path / "h.onnx", "--report", report)
    assert ran.code == EXIT_OK, ran.err
    found = json.loads(report.read_text(encoding="utf-8"))
    lost = found["before"]["quantised"] - found["after"]["quantised"]
    assert found["training"]["clean_loss"] == pytest.approx(lost, abs=1e-9)


@pytest.mark.parametrize("keep", [("--keep", "best", "--warm", "0"), ()])
def test_beyond_the_limit_the_given_weights_come_back(command, example, tmp_path, keep):
    """However much the KPP gained, and the report says what ruled the network out."""
    hardened, report = tmp_path / "same.onnx", tmp_path / "same.json"
    options = ("--epochs", "2", "--train-trials", "20", LIMIT, "0", "--limit", "100", *keep)
    ran = command("harden", example, *FEW, *NOISY, "--lr", "0.03", *options,
                  "--val-data", example.with_suffix(".npz"), "-o", hardened, "--report", report)  # fmt: skip
    assert ran.code == EXIT_OK, ran.err
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["training"]["kept_epoch"] == 0
    rows = found["training"]["history"]
    lost = [loss for row in rows for loss in row["clean_loss"]] or [found["training"]["clean_loss"]]
    assert min(lost) > 0
    assert len(lost) == (2 if keep else 1)
    assert any("cost more without noise than --max-clean-loss allows" in note for note in found["notes"])
    (head,) = [line for line in ran.out.splitlines() if line.split()[:1] == ["epoch"]]
    assert ("without noise" in head) == bool(keep)
    old, new = weights(example), weights(hardened)
    assert all(old[name].tobytes() == new[name].tobytes() for name in old)


@pytest.mark.parametrize(
    "options",
    [
        {"keep": "last"},
        {"reset": True},
        {"method": "stability-vat"},
        {"sparsity": 0.5},
        {"bits": "ternary"},
    ],
    ids=str,
)
def test_a_limit_needs_something_to_fall_back_on(options):
    """Where the given weights cannot be the result a limit is refused, naming both options."""
    with pytest.raises(OptionError, match=r"^--max-clean-loss and --"):
        make_harden_spec(model="m.onnx", device="rram", max_clean_loss=0.01, **options)


def test_killed_training_goes_on(example, tmp_path):
    """After SIGKILL in the middle of an epoch the same command ends with the bytes of an unbroken run."""
    few = FEW[: FEW.index("--epochs")]
    options = [*few, *NOISY, "--epochs", "20", "--limit", "400", "--keep", "last"]

    def start(name: str, *more: str | Path) -> "subprocess.Popen[str]":
        line = [sys.executable, "-m", "nvaudit", "harden", str(example), *options, "-o", str(tmp_path / name)]
        return subprocess.Popen(
            [*line, *map(str, more)], stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    whole = start("whole.onnx")
    doomed = start("again.onnx", "--resume", tmp_path / "kept")
    while not (tmp_path / "kept" / CHECKPOINT_FILE).exists() and doomed.poll() is None:
        time.sleep(0.01)
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.communicate()
    assert doomed.returncode == -signal.SIGKILL
    assert not (tmp_path / "again.onnx").exists()
    again = start("again.onnx", "--resume", tmp_path / "kept")
    _, said = again.communicate(timeout=300)
    assert again.returncode == EXIT_OK, said
    whole.communicate(timeout=300)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()


def test_resume(command, example, tmp_path, monkeypatch):
    """Cut off after an epoch, the same command goes on, and writes the same bytes as without a break."""
    from nvaudit.retrain.checkpoint import CheckpointFolder

    options = (*FEW, "--epochs", "3", "--keep", "last")
    assert command("harden", example, *options, "-o", tmp_path / "whole.onnx").code == EXIT_OK
    real, saved = CheckpointFolder.save, []

    def save_then_stop(*arguments):
        real(*arguments)
        saved.append(1)
        raise KeyboardInterrupt

    kept = tmp_path / "kept"
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFolder, "save", save_then_stop)
        ran = command("harden", example, *options, "-o", tmp_path / "again.onnx", "--resume", kept)
    assert ran.code == EXIT_INTERRUPTED
    assert f"finished epochs are kept in {kept}; run the same command again to go on" in ran.err
    assert not (tmp_path / "again.onnx").exists()
    assert (kept / CHECKPOINT_FILE).exists()
    ran = command("harden", example, *options, "-o", tmp_path / "again.onnx", "--resume", kept)
    assert ran.code == EXIT_OK, ran.err
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    ran = command("harden", example, *options, "--lr", "0.1", "-o", tmp_path / "c.onnx", "--resume", kept)
    assert ran.code == EXIT_BAD_INPUT
    assert "it holds another training: --lr is 0.1, there not given" in ran.err


def test_label_free(command, unlabelled, example, tmp_path):
    """Without labels the given model's outputs are learned, and every output says so first."""
    with np.load(example.with_suffix(".npz")) as data:
        np.savez(tmp_path / "x.npz", image=data["image"][:200])
    ran = command("harden", unlabelled, *FEW, "--data", tmp_path / "x.npz", "-o", tmp_path / "h.onnx")
    assert ran.code == EXIT_OK, ran.err
    assert ran.out.startswith("LABEL-FREE (no labels: the given model's outputs are the reference): KPP 1 %")
    assert "cross-entropy to the given model's outputs" in " ".join(ran.out.split())


def test_validation_and_test_data(command, example, tmp_path):
    """Data of their own serve for validation and for the audits."""
    with np.load(example.with_suffix(".npz")) as data:
        for name, part in (("train", slice(0, 300)), ("val", slice(300, 400)), ("test", slice(400, 440))):
            np.savez(tmp_path / f"{name}.npz", image=data["image"][part], y=data["y"][part])
    ran = command(
        "harden", example, *FEW, "--data", tmp_path / "train.npz", "--val-data", tmp_path / "val.npz",
        "--test-data", tmp_path / "test.npz", "-o", tmp_path / "h.onnx", "--report", "-",
    )  # fmt: skip
    assert ran.code == EXIT_OK, ran.err
    found = json.loads(ran.out)
    assert found["training"]["samples"] == 300
    assert found["training"]["validation_samples"] == 100
    assert found["data"]["count"] == 40
    assert Path(found["data"]["source"]).exists()  # the user's data, not a file of the run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "magic"), "--method: got 'magic'; use one of best, trice, "),
        (("--lr", "0"), "--lr: got 0.0; use a finite number above 0, at most 1e30"),
        (
            ("--clip-weights", "1e308"),
            "--clip-weights: got 1e+308; use a finite number above 0, at most 1e30",
        ),
        (("--th", "-1"), "--th: got -1.0; use a finite number, 0 or more, at most 1e30"),
        (("--val-split", "1"), "--val-split: got 1.0; use a number above 0 and below 1"),
        (("--distill", "2"), "--distill: got 2.0; use a number from 0 to 1"),
        (("--val-split", "0.1", "--val-data", "d.npz"), "--val-data and --val-split: choose one"),
        (("--method", "trice", "--train-sigma", "0.1"), "--train-sigma and --method trice: TRICE searches"),
        (
            ("--method", "trice", "--trice-end", "0.1", "--trice-start", "0.2"),
            "--trice-end 0.1 must be above",
        ),
        (
            ("--method", "rc", "--trice-end", "0.1"),
            "--trice-start and --trice-end are for --method trice, not rc",
        ),
        (("--method", "none", "--train-sigma", "0.1"), "--train-sigma and --method none: it injects none"),
        (("--method", "trice", "--sigma", "0"), "give --trice-end or a larger --sigma"),
        (("--data", "nowhere.npz"), "nowhere.npz: no such file or folder"),
        (("--device", "rramm"), "rramm"),
        (("--digital", "*"), "no tensor would be mapped to the array, so there is nothing to harden"),
        (("--output-name", "nope"), "'nope' is not an output; the model has logits"),
        (("-o", "no/folder/h.onnx"), "no/folder/h.onnx: cannot be written: its folder does not exist"),
        (("-o", "-"), "-o -: a model may be several files; name a file"),
        (("--report", "h.onnx"), "-o and --report: both are h.onnx; choose two paths"),
        (("--digital-scale", "insert"), "--digital-scale: for --method remap, not best; leave it out"),
        (("--method", "remap", "--epochs", "3"), "--epochs: for training; --method remap trains nothing"),
    ],
)
def test_wrong_options(command, example, options, message, tmp_path, monkeypatch):
    """Each ends with exit code 2 and its own message, before any training; nothing is written."""
    monkeypatch.chdir(tmp_path)
    ran = command("harden", example, "-q", *(() if "-o" in options else ("-o", "h.onnx")), *options)
    assert ran.code == EXIT_BAD_INPUT, ran.err
    assert message in " ".join(ran.err.split())
    assert ran.out == ""
    assert list(tmp_path.iterdir()) == []


def test_inputs_are_not_overwritten(command, example, tmp_path):
    """Naming the model or its data as output or report is refused before anything runs."""
    for name in ("digits_cnn.onnx", "digits_cnn.npz"):
        (tmp_path / name).write_bytes((example.parent / name).read_bytes())
    model, data = tmp_path / "digits_cnn.onnx", tmp_path / "digits_cnn.npz"
    for path, what in ((model, "the model"), (data, "the data")):
        before = path.read_bytes()
        for flags in (("-o", path), ("-o", tmp_path / "h.onnx", "--report", path)):
            ran = command("harden", model, *FEW, *flags)
            assert ran.code == EXIT_BAD_INPUT
            assert f"{flags[-2]} {path}: this is {what}; choose another path" in ran.err
        assert path.read_bytes() == before


def test_without_data(command, unlabelled, tmp_path):
    """Training needs samples: synthetic ones are refused."""
    ran = command("harden", unlabelled, *FEW, "-o", tmp_path / "h.onnx")
    assert ran.code == EXIT_BAD_INPUT
    assert "--data: missing, and there is no digits_cnn.npz beside the model" in ran.err


def test_without_torch(command, example, tmp_path, monkeypatch):
    """Without torch one line says what to install."""
    monkeypatch.setitem(sys.modules, "torch", None)
    ran = command("harden", example, *FEW, "-o", tmp_path / "h.onnx")
    assert ran.code == EXIT_BAD_INPUT
    assert ran.err == "nvaudit: error: --method best needs torch; run: pip install 'nvaudit[harden]'\n"


def test_unknown_fields():
    """A misspelt option of the function is named with its neighbour."""
    with pytest.raises(OptionError, match=r"epoch: there is no such option; did you mean epochs\?"):
        make_harden_spec(model="m", device="rram", epoch=3)


def test_defaults_are_the_papers():
    """TRICE: start 0, th 2, warm 5, N_train 300, 100 epochs; its end is twice the device's spread."""
    spec = make_harden_spec(model="m", device="rram", method="trice")
    assert (spec.trice_start, spec.th, spec.warm, spec.train_trials, spec.run_epochs) == (0, 2, 5, 300, 100)
    assert spec.trice_end is None
    assert HardenSpec.model_fields["method"].default == "best"


@pytest.mark.parametrize(
    ("options", "rate"),
    [({}, 0.003), ({"method": "trice"}, 0.001), ({"optimiser": "sgd"}, 0.01), ({"lr": 0.02}, 0.02)],
)  # fmt: skip
def test_the_learning_rate_is_that_of_the_method(options, rate):
    """What pays with clipped weights is not what the papers' methods take; a given one is kept."""
    assert make_harden_spec(model="m", device="rram", **options).rate == rate


def test_a_plan_names_what_the_user_has(command, example, tmp_path):
    """The plan is made from working files; its report names the hardened model and the data instead."""
    out, report = tmp_path / "h.onnx", tmp_path / "h.json"
    ran = command("harden", example, "--limit", 60, "-n", 4, "-j", 0, "--epochs", 1, "--no-roughness", "-m",
                  "device", "--verify-plan", "-o", out, "--report", report)  # fmt: skip
    assert ran.code == 0, ran.err
    plan, data = json.loads(report.read_text())["verify_plan"], str(example.with_suffix(".npz"))
    assert plan["model"]["path"] == plan["run"]["model"] == str(out)
    assert plan["data"]["source"] == plan["run"]["data"] == data
    assert f"samples of {data}," in plan["ranked_by"]
    assert "hardened.onnx" not in report.read_text()
    assert "samples.npz" not in report.read_text()

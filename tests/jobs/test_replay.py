"""Replay: a chip of a report as an ordinary ONNX file that reaches the reported value exactly."""

import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from quick import audit

from nvaudit.cli import run
from nvaudit.errors import OptionError
from nvaudit.files import write_text_atomic
from nvaudit.jobs.replaying import replay
from nvaudit.report.jsontext import to_json

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"


def _accuracy(model: Path, data: Path, batch: int = 64) -> float:
    """Top-1 by plain ONNX Runtime, nothing of nvaudit involved."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with np.load(data) as arrays:
        x, y = arrays["image"], arrays["y"]
    right = 0
    for start in range(0, len(x), batch):
        (scores,) = session.run(None, {"image": x[start : start + batch]})
        right += int((scores.argmax(axis=1) == y[start : start + batch]).sum())
    return right / len(x)


@pytest.mark.parametrize("device", ["fefet1", "rram_65nm", "pcm"])
def test_worst_chip_runs_to_the_reported_accuracy(tmp_path, device):
    """The written file, run by plain ONNX Runtime, has exactly the lowest value of the report."""
    report = audit(EXAMPLE, device, trials=12, workers=0, sigmas=(0.3,) if device != "pcm" else ())
    done = replay(report, tmp_path / "chip.onnx")
    assert done.reported == min(report.trials.values)
    assert done.measured == done.reported
    assert _accuracy(tmp_path / "chip.onnx", EXAMPLE.with_suffix(".npz")) == done.reported


def test_any_trial_and_any_point_of_a_sweep(tmp_path):
    """--trial and --sigma choose; different chips are different files."""
    report = audit(EXAMPLE, "rram", trials=3, workers=0, sigmas=(0.2, 0.4))
    low = replay(report, tmp_path / "low.onnx", trial=1, sigma=0.2)
    high = replay(report, tmp_path / "high.onnx", trial=1)
    assert (low.sigma, high.sigma) == (0.2, 0.4)
    assert low.measured == report.sweep[0].trials.values[1]
    assert high.measured == report.trials.values[1]
    assert (tmp_path / "low.onnx").read_bytes() != (tmp_path / "high.onnx").read_bytes()


def test_another_model_is_refused_and_nothing_written(tmp_path, capsys):
    """The hashes in the report are checked before anything is written."""
    model = tmp_path / "m.onnx"
    shutil.copy(EXAMPLE, model)
    shutil.copy(EXAMPLE.with_suffix(".npz"), tmp_path / "m.npz")
    report = audit(model, "rram", trials=2, workers=0)
    write_text_atomic(tmp_path / "report.json", to_json(report))
    model.write_bytes(model.read_bytes() + b"\x72\x00")  # an empty metadata entry: same graph, other file
    code = run(["replay", str(tmp_path / "report.json"), "-o", str(tmp_path / "chip.onnx")])
    assert code == 2
    assert "the model is not the one of the report: SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "chip.onnx").exists()


def test_command_says_what_it_wrote(tmp_path, capsys):
    """One line: file, chip, sigma, reported value, and that it was checked."""
    report = audit(EXAMPLE, "fefet1", trials=5, workers=0)
    write_text_atomic(tmp_path / "report.json", to_json(report))
    chip = tmp_path / "chip.onnx"
    assert run(["replay", str(tmp_path / "report.json"), "--worst", "-o", str(chip)]) == 0
    trial = int(np.argmin(report.trials.values))
    assert capsys.readouterr().out == (
        f"{chip}: chip {trial} at sigma 0.1, reported {min(report.trials.values)!r}; "
        "the file measures the same\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trial": 5}, "--trial 5: the report has trials 0 … 1"),
        ({"sigma": 0.2}, "--sigma 0.2: the report has only 0.1"),
    ],
)
def test_what_the_report_does_not_have_is_refused(tmp_path, arguments, message):
    """No such trial or point: said with what there is."""
    report = audit(EXAMPLE, "rram", trials=2, workers=0)
    with pytest.raises(OptionError) as error:
        replay(report, tmp_path / "chip.onnx", **arguments)
    assert str(error.value) == message


def test_unreadable_reports_exit_2(tmp_path, capsys):
    """A missing file, another file, both options at once."""
    assert run(["replay", str(tmp_path / "no.json"), "-o", str(tmp_path / "c.onnx")]) == 2
    (tmp_path / "bad.json").write_text("{}")
    assert run(["replay", str(tmp_path / "bad.json"), "-o", str(tmp_path / "c.onnx")]) == 2
    assert (
        run(["replay", str(tmp_path / "bad.json"), "--worst", "--trial", "0", "-o", str(tmp_path / "c.onnx")])
        == 2
    )
    assert "--worst and --trial: choose one" in capsys.readouterr().err
    assert not (tmp_path / "c.onnx").exists()

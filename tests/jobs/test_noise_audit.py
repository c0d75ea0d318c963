"""Audits with noise that was added on the command line, whole."""

import re
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from nvaudit import audit
from nvaudit.cli.commands import cli
from nvaudit.errors import OptionError
from nvaudit.report.rerun import rerun_command

MODEL = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"
FAST = {"limit": 60, "trials": 4, "workers": 0, "roughness": False, "data": MODEL.with_suffix(".npz")}


def test_every_addition_costs_accuracy_and_stands_in_the_report():
    """Stuck devices, read noise and a common component each move the chips."""
    plain = audit(MODEL, "rram", **FAST, sigmas=(0.0,))
    for option, text, name in (
        ("stuck_at", "0.2,0.2", "added_stuck_at"),
        ("read_noise", "0.3", "added_read"),
        ("correlated", "0.3:64x64", "added_shared"),
    ):
        found = audit(MODEL, "rram", **FAST, sigmas=(0.0,), **{option: text})
        assert found.trials.mean < plain.trials.mean - 0.02, option
        assert found.run[option] == text
        assert name in found.operating_point.terms
        assert name in [term["name"] for term in found.device["noise"]]
        assert found.hashes.device != plain.hashes.device


def test_write_verify_gives_back_accuracy_and_the_report_says_so():
    """A tolerance of a tenth of sigma leaves almost nothing of it."""
    loud = audit(MODEL, "rram", **FAST, sigmas=(0.4,))
    held = audit(MODEL, "rram", **FAST, sigmas=(0.4,), write_verify=0.01)
    assert held.trials.mean > loud.trials.mean
    assert held.trials.mean == pytest.approx(held.quantised, abs=0.02)
    assert "write-verify: errors of 'programming' beyond 0.01 (level) were written again" in held.notes[-1]
    assert not any("write-verify" in note for note in loud.notes)


def test_drift_compensation_gives_back_accuracy_and_the_report_says_so():
    """A year of drift, with and without the factor; the same programming errors."""
    day = {"time_s": 31_557_600.0, "disable": ("read",)}
    lost = audit(MODEL, "pcm", **FAST, **day)
    kept = audit(MODEL, "pcm", **FAST, **day, drift_compensation=True)
    assert kept.trials.mean > lost.trials.mean
    assert any(note.startswith("drift compensation: ") for note in kept.notes)


def test_the_command_that_runs_it_again_has_the_additions():
    """The line in the report gives the same chips."""
    options = {"stuck_at": "0.01,0", "correlated": "0.02:tensor", "write_verify": 0.0}
    report = audit(MODEL, "rram", **FAST, **options)
    words = shlex.split(rerun_command(report))
    for option, text in (("--stuck-at", "0.01,0"), ("--correlated", "0.02:tensor"), ("--write-verify", "0")):
        assert words[words.index(option) + 1] == text
    assert "--read-noise" not in words
    again = CliRunner().invoke(cli, [*words[1:], "--quiet", "-j", "0", "-o", "-"], catch_exceptions=False)
    assert again.exit_code == 0
    values = re.search(r'"values": \[([^\]]*)\]', again.stdout)
    assert values is not None
    assert tuple(map(float, values[1].split(","))) == tuple(report.trials.values)


def test_crossbars_take_common_components_and_tolerances_and_refuse_compensation():
    """What acts on devices goes in front of the converters; the factor acts behind them."""
    with_adc = {**FAST, "adc_bits": 16, "crossbar": (64, 64)}
    noise = {"correlated": "0.05:64x64", "write_verify": 0.1, "sigmas": (0.3,)}
    assert (
        audit(MODEL, "rram", **with_adc, **noise).trials.values
        == audit(MODEL, "rram", **FAST, **noise).trials.values
    )
    with pytest.raises(OptionError, match=r"^--adc-bits and --drift-compensation: choose one"):
        audit(MODEL, "pcm", **with_adc, time_s=86400.0, drift_compensation=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stuck-at", "x"], "--stuck-at: got 'x'; use P_LOW,P_HIGH"),
        (["--correlated", "0.1:row"], "--correlated: got '0.1:row'; use S with"),
        (["--drift-compensation"], "drift-compensation: no term of profile 'rram'"),
        (["--write-verify", "-1"], "--write-verify: got -1.0; use a finite number, 0 or more"),
    ],
)
def test_wrong_additions_end_with_exit_code_2(command, words, message):
    """Each says what is wrong."""
    ran = command("audit", MODEL, *words)
    assert ran.code == 2
    assert message in ran.err


def test_hardening_takes_and_checks_them_too(command, tmp_path):
    """A wrong addition is refused before anything is trained."""
    ran = command("harden", MODEL, "--method", "none", "--correlated", "0.1:row", "-o", tmp_path / "out.onnx")
    assert ran.code == 2
    assert "--correlated: got '0.1:row'; use S with" in ran.err


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_read_noise_of_a_recurrent_layer_is_drawn_once_and_the_report_names_it(op, tmp_path):
    """It is no output term there; also where it is the only layer the report says what was done instead."""
    gates = {"LSTM": 4, "GRU": 3}[op]
    rng = np.random.default_rng(0)
    weights = {
        "W": rng.normal(size=(1, gates * 3, 5)).astype(np.float32),
        "R": rng.normal(size=(1, gates * 3, 3)).astype(np.float32),
    }
    node = helper.make_node(op, ["x", "W", "R"], ["y"], hidden_size=3)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, "n", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 1, "n", 3])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "rnn.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), path)
    options = {"trials": 2, "workers": 0, "roughness": False, "metric": "mse", "sigmas": (0.0,)}
    noisy = audit(path, "rram", **options, read_noise="0.05")
    assert min(noisy.trials.values) > 0
    named = [note for note in noisy.notes if note.startswith("read noise is drawn once per chip")]
    assert len(named) == 1
    assert "W" in named[0]
    assert "R" in named[0]
    assert not any("read noise" in note for note in audit(path, "rram", **options).notes)

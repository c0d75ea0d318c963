"""Audits that leave groups of zeros out of the array, whole."""

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from rich.console import Console

import nvaudit
from nvaudit.jobs.replaying import replay
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import print_report
from nvaudit.report.rerun import rerun_command
from nvaudit.report.result import from_json

FAST = {"limit": 80, "trials": 4, "workers": 0, "roughness": False}


@pytest.fixture(scope="module")
def pruned(example, tmp_path_factory):
    """The example without three outputs of its second convolution and a quarter of its first product."""
    model = onnx.load(example)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "conv2.weight":
            values[:3] = 0
        elif tensor.name == "fc1.weight":
            values[:, :64] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = Path(tmp_path_factory.mktemp("pruned")) / "pruned.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def reports(pruned, example):
    """Its audits with and without devices for groups of zeros."""
    data = example.with_suffix(".npz")
    how = {"device": "rram_65nm", "data": data, "crossbar": (64, 64), **FAST}
    return nvaudit.audit(pruned, **how), nvaudit.audit(pruned, **how, skip_zero_groups=True)


def test_the_report_counts_what_is_saved(reports):
    """Groups, weights and crossbars of every tensor, worked out by hand; devices without those of zeros."""
    plain, skipped = reports
    assert plain.zero_groups is None
    found = skipped.zero_groups
    by_name = {layer.name: layer for layer in found.layers}
    # conv2: 8 × 3 × 3 rows are two crossbars of 36; fc1: 256 inputs are four of 64, of which one is empty.
    conv, product = by_name["conv2.weight"], by_name["fc1.weight"]
    assert (conv.groups, conv.zero_groups, conv.zero_weights) == (32, 6, 3 * 72)
    assert (product.groups, product.zero_groups, product.zero_weights) == (256, 64, 64 * 64)
    # 64 outputs of 2 slices on crossbars of 64 columns: two for each block of rows.
    assert (product.crossbars, product.saved) == (8, 2)
    assert found.saved == sum(layer.saved for layer in found.layers) == 2
    assert found.sparsity == pytest.approx((3 * 72 + 64 * 64) / 18248)
    devices = [sum(row.devices or 0 for row in report.tensors) for report in (plain, skipped)]
    assert devices[0] - devices[1] == 2 * (3 * 72 + 64 * 64)
    boards = [sum(row.crossbars or 0 for row in report.tensors) for report in (plain, skipped)]
    assert boards == [found.crossbars, found.crossbars - found.saved] == [12, 10]


def test_other_chips_and_the_same_mapping(reports):
    """Quantised weights are the same; what the chips score is not, since part of their noise is gone."""
    plain, skipped = reports
    assert (skipped.nominal, skipped.quantised) == (plain.nominal, plain.quantised)
    assert skipped.trials.values != plain.trials.values


def test_every_output_says_so_and_can_be_read_back(reports):
    """JSON there and back; the text has the sentence, and none where nothing was skipped."""
    _, skipped = reports
    assert from_json(to_json(skipped), "r.json") == skipped
    texts = []
    for report in reports:
        console = Console(file=io.StringIO(), width=200)
        print_report(report, console)
        texts.append(" ".join(console.file.getvalue().split()))
    assert "Groups of zeros" not in texts[0]
    assert "70 of 306 groups hold zeros only (23.63 % of the mapped weights)" in texts[1]
    assert "saves 2 of 12 crossbars of 64 × 64" in texts[1]


def test_replay_writes_the_same_chip(reports, tmp_path, example):
    """A chip that is written as ONNX has zeros where there are no devices."""
    _, skipped = reports
    replay(skipped, tmp_path / "chip.onnx", trial=1)
    values = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "chip.onnx").graph.initializer}
    assert (values["conv2.weight"][:3] == 0).all()
    assert (values["fc1.weight"][:, :64] == 0).all()
    assert (values["fc1.weight"][:, 64:] != 0).all()


def test_with_converters(pruned, example):
    """On crossbars with fine converters the chips are the same."""
    how = {"device": "rram", "data": example.with_suffix(".npz"), "crossbar": (64, 64), **FAST}
    plain = nvaudit.audit(pruned, **how, skip_zero_groups=True)
    fine = nvaudit.audit(pruned, **how, skip_zero_groups=True, adc_bits=16, dac_bits=16)
    assert np.allclose(fine.trials.values, plain.trials.values, atol=1 / 80 + 1e-9)
    assert fine.zero_groups == plain.zero_groups


def test_command(command, pruned, example, tmp_path):
    """The option reaches the audit, and the command that runs it again has it."""
    ran = command(
        "audit", pruned, "--data", example.with_suffix(".npz"), "--limit", 20, "-n", 2, "-j", 0, "-q",
        "--skip-zero-groups", "--crossbar", "64x64", "-o", tmp_path / "r.json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "70 of 306 groups" in " ".join(ran.out.split())
    again = rerun_command(from_json((tmp_path / "r.json").read_text(encoding="utf-8"), "r.json"))
    assert "--crossbar 64x64 " in again
    assert "--skip-zero-groups" in again.split()

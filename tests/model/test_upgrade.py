"""Files of old operator sets and with operators of other domains: upgraded where possible, else named."""

import re

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_cases import make_model, numbers, save, value

import nvaudit
from nvaudit.errors import ModelError
from nvaudit.model import constants, load_model
from nvaudit.model.load import LoadedModel


def old(tmp_path, *, is_test=1, opset=6, batch="N"):
    """Two layers whose operators ONNX Runtime has from operator set 7 on only."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
        helper.make_node("Add", ["a", "b"], ["c"], "bias", broadcast=1),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Dropout", ["r"], ["d"], "drop", is_test=is_test),
        helper.make_node("MatMul", ["d", "w2"], ["y"], "second"),
    ]
    stored = {"w1": numbers(4, 8), "b": numbers(8, seed=1), "w2": numbers(8, 3, seed=2)}
    model = make_model(
        nodes,
        [value("x", [batch, 4])],
        [value("y", [batch, 3])],
        stored,
        opset=opset,
        ir_version=3,
        as_inputs=True,
    )
    x = numbers(50, 4, seed=3)
    hidden = np.maximum(x @ stored["w1"] + stored["b"], 0)
    np.savez(tmp_path / "model.npz", x=x, y=(hidden @ stored["w2"]).argmax(1))
    return save(tmp_path, model)


@pytest.mark.parametrize("batch", ["N", 1], ids=["free", "fixed"])
def test_an_old_file_is_audited_as_the_converter_brings_it(tmp_path, batch):
    """The numbers are the file's, the note says what was done, names stay."""
    path = old(tmp_path, batch=batch)
    report = nvaudit.audit(path, trials=2, workers=0, roughness=False)
    assert report.nominal == 1.0
    assert any("operator set 6" in note and "brought it to 7" in note for note in report.notes)
    assert [row.name for row in report.tensors if row.decision == "mapped"] == ["w1", "w2"]


@pytest.mark.parametrize("method", ["remap", "gaussian"])
def test_what_is_written_states_its_operator_set(command, tmp_path, method):
    """harden and remap write the converted file: it runs, and its operator set is 7."""
    path, out = old(tmp_path), tmp_path / "out.onnx"
    more = ("--epochs", 1, "--no-roughness") if method == "gaussian" else ()
    ran = command("harden", path, "-m", method, *more, "-n", 3, "-j", 0, "-q", "-o", out)
    assert ran.code == 0, ran.err
    assert "is of operator set 7" in " ".join(ran.out.split())
    written = onnx.load(out)
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [("", 7)]
    assert {tensor.name for tensor in written.graph.initializer} == {"w1", "b", "w2"}
    assert (
        nvaudit.audit(out, data=path.with_suffix(".npz"), trials=1, workers=0, roughness=False).nominal > 0.5
    )


def test_an_old_file_that_runs_is_left_alone(tmp_path):
    """Where no operator has changed until set 7, nothing is converted and nothing said."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    model = make_model(nodes, [value("x", ["N", 4])], [value("y", ["N", 3])], {"w": numbers(4, 3)}, opset=6)
    loaded = load_model(save(tmp_path, model))
    assert (loaded.opset, loaded.notes, loaded.as_filed) == (6, (), True)


def test_what_the_converter_cannot_do_is_said_with_a_command(tmp_path):
    """A Dropout in the training mode of old operator sets: node, reason and command; inspect still works."""
    path = old(tmp_path, is_test=0)
    said = r"operator set 6; .* begins at 7.*'drop' \(Dropout\).*is_test.*again.*convert_version\(onnx\.load"
    with pytest.raises(ModelError, match=said):
        nvaudit.audit(path, trials=1, workers=0)
    assert isinstance(load_model(path), LoadedModel)
    assert constants(load_model(path))


@pytest.mark.parametrize(
    ("domain", "operator", "cure"),
    [
        ("qonnx.custom_op.general", "Quant", r"qonnx-convert"),
        ("qonnx.custom_op.general", "BipolarQuant", r"qonnx-convert"),
        ("onnx.brevitas", "Trunc", r"qonnx-convert"),
        ("finn.custom_op.fpgadataflow", "MVAU", r"FINN's flow.*qonnx-convert"),
        ("com.acme", "Frobnicate", r"model-local function"),
    ],
)
@pytest.mark.parametrize("words", [("audit", "--no-roughness"), ("landscape",), ("harden", "--epochs", "1"),
                                   ("harden", "-m", "remap"), ("verify-plan",), ("roofline",)])  # fmt: skip
def test_operators_of_other_domains_are_named_with_what_to_do(
    command, tmp_path, domain, operator, cure, words
):
    """Domain, operator, node and the way out, in place of ONNX Runtime's own error; nothing is written."""
    nodes = [
        helper.make_node(operator, ["w"], ["q"], "strange", domain=domain),
        helper.make_node("MatMul", ["x", "w2"], ["h"]),
        helper.make_node("MatMul", ["h", "q"], ["y"]),
    ]
    stored = {"w": numbers(4, 3), "w2": numbers(4, 4)}
    path = save(tmp_path, make_model(nodes, [value("x", ["N", 4])], [value("y", ["N", 3])], stored))
    out = ("-o", tmp_path / "out.onnx") if words[0] == "harden" else ()
    ran = command(words[0], path, *words[1:], *out)
    assert ran.code == 2
    assert f"'strange' ({operator} of the domain '{domain}')" in ran.err
    assert re.search(cure, ran.err)
    assert not (tmp_path / "out.onnx").exists()

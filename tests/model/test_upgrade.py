"""Files of old operator sets and with operators of other domains: upgraded where possible, else named."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper
from onnx_cases import make_model, numbers, save, value

import nvaudit
from nvaudit.errors import ModelError
from nvaudit.model import constants, load_model, upgrade
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


ALONG = {
    # operator, shape of the first operand, of the second, attributes, where numpy has the second
    "bias of channels": ("Add", (4, 4, 5, 5), (4,), {"broadcast": 1, "axis": 1}, (4, 1, 1)),
    "as many channels as columns": ("Mul", (3, 4, 4, 4), (4,), {"broadcast": 1, "axis": 1}, (4, 1, 1)),
    "two axes": ("Sub", (2, 4, 6, 5), (4, 6), {"broadcast": 1, "axis": 1}, (4, 6, 1)),
    "from behind": ("Div", (2, 4, 6), (4,), {"broadcast": 1, "axis": -2}, (4, 1)),
    "rows": ("Pow", (5, 5), (5,), {"broadcast": 1, "axis": 0}, (5, 1)),
    "the last axes": ("Add", (2, 4, 5, 6), (5, 6), {"broadcast": 1}, (5, 6)),
    "slopes": ("PRelu", (2, 4, 4, 4), (4,), {}, (4, 1, 1)),
    "one slope": ("PRelu", (2, 4, 4, 4), (1,), {}, (1, 1, 1)),
    "slopes of columns": ("PRelu", (3, 4), (4,), {}, (4,)),
}  # fmt: skip


@pytest.mark.parametrize("case", ALONG)
@pytest.mark.parametrize("batch", ["N", None], ids=["free", "fixed"])
def test_the_old_broadcasting_keeps_its_axis(tmp_path, case, batch):
    """The second operand of old operator sets lies where ``axis`` says, PRelu's slopes on the channels."""
    operator, first, second, attributes, place = ALONG[case]
    other = np.abs(numbers(*second, seed=1)) + 0.5
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]) if operator == "Pow" else helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node(operator, ["a", "b"], ["y"], **attributes),
    ]
    free = batch if attributes.get("axis") != 0 else None  # a constant along the batch fixes it
    shape = [free or first[0], *first[1:]]
    model = make_model(nodes, [value("x", shape)], [value("y", shape)], {"b": other}, opset=6, ir_version=4)
    path = save(tmp_path, model)
    x = numbers(*first, seed=2)
    a = np.abs(x) if operator == "Pow" else -x
    b = other.reshape(place)
    right = {
        "Add": lambda: a + b, "Sub": lambda: a - b, "Mul": lambda: a * b, "Div": lambda: a / b,
        "Pow": lambda: a**b, "PRelu": lambda: np.where(a < 0, a * b, a),
    }[operator]()  # fmt: skip
    loaded = load_model(path)
    assert any("brought it to 7" in note for note in loaded.notes)
    session = ort.InferenceSession(ir.to_proto(loaded.model).SerializeToString())
    np.testing.assert_allclose(session.run(None, {"x": x})[0], right, rtol=1e-5)


def test_the_old_models_of_onnx_itself_give_their_stored_outputs():
    """Every model of onnx's backend tests before operator set 7, brought to 7 or run as it is."""
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data"
    seen = converted = 0
    for path in sorted(folder.rglob("model.onnx")):
        versions = [entry.version for entry in onnx.load(path).opset_import if entry.domain == ""]
        if not versions or versions[0] >= 7:
            continue
        loaded = load_model(path)
        seen, converted = seen + 1, converted + bool(loaded.notes)
        session = ort.InferenceSession(ir.to_proto(loaded.model).SerializeToString())
        arrays = {
            kind: [
                onnx.numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))
                for file in sorted(path.parent.glob(f"test_data_set_0/{kind}_*.pb"))
            ]
            for kind in ("input", "output")
        }
        feed = {spec.name: x for spec, x in zip(session.get_inputs(), arrays["input"], strict=True)}
        for found, stored in zip(session.run(None, feed), arrays["output"], strict=True):
            np.testing.assert_allclose(found, stored, rtol=1e-3, atol=1e-5, err_msg=str(path.parent.name))
    assert seen > 50
    assert converted > 20


def test_a_conversion_into_another_network_is_refused(tmp_path, monkeypatch):
    """What the converter gives another shape is no conversion: the value is named."""
    convert = upgrade.version_converter.convert_version

    def wrong(model, version):
        new = convert(model, version)
        new.graph.node[0].op_type = "Transpose"
        return new

    monkeypatch.setattr(upgrade.version_converter, "convert_version", wrong)
    nodes = [helper.make_node("Neg", ["x"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"], broadcast=1)]
    ends = [value("x", [2, 3])], [value("y", None)]
    path = save(tmp_path, make_model(nodes, *ends, {"b": numbers(3)}, opset=6, ir_version=4))
    with pytest.raises(ModelError, match=r"changes the shape of 'h' from \[2, 3\] to \[3, 2\]"):
        nvaudit.audit(path, trials=1, workers=0)


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

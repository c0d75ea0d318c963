"""What an assumed reading of the outputs is, every command says beside its headline, as an audit does."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def _save(path, nodes, out, arrays):
    """Write a model of one input [N, 12], and inputs for it beside it; no labels."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12])], [out],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    np.savez(
        path.with_suffix(".npz"), x=np.random.default_rng(1).standard_normal((40, 12)).astype(np.float32)
    )
    return path


@pytest.fixture
def decided(tmp_path):
    """A class number for each sample."""

    def make(name):
        w = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["s"]),
            helper.make_node("ArgMax", ["s"], ["y"], axis=1, keepdims=0),
        ]
        return _save(
            tmp_path / name, nodes, helper.make_tensor_value_info("y", TensorProto.INT64, ["N"]), {"w": w}
        )

    return make


@pytest.fixture
def ambiguous(tmp_path):
    """[N, 4, 6] of which nothing tells where the classes are."""
    w = np.random.default_rng(0).standard_normal((12, 24)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"]), helper.make_node("Reshape", ["s", "to"], ["y"])]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6])
    return _save(tmp_path / "b.onnx", nodes, out, {"w": w, "to": np.int64([-1, 4, 6])})


def _headline(ran):
    """The first paragraph of the text, on one line."""
    assert ran.code == 0, ran.err
    words = ran.out.split("\n\n")[0] if ran.out.startswith(("LABEL", "KPP")) else ran.out
    return " ".join(words.split())


def test_decisions_are_named_beside_every_headline(command, decided, tmp_path):
    """Class numbers are compared as they are: audit, compare, roofline and remap say it first."""
    model, other = decided("a.onnx"), decided("c.onnx")
    few = ("-n", 3, "-j", 0, "-q")
    said = "(output 'y' holds decisions (class numbers), compared with those of the unmodified model)"
    for words in (
        ("audit", model, *few),
        ("compare", model, other, *few),
        ("roofline", model, *few),
        ("harden", model, "-m", "remap", "-o", tmp_path / "h.onnx", *few),
    ):
        assert said in _headline(command(*words)), words[0]


def test_an_unproved_reading_is_named_beside_every_headline(command, ambiguous):
    """Outputs that may be classes or not are compared as numbers: audit, verify-plan and landscape say so."""
    few = ("-j", 0, "-q")
    said = "so outputs are compared as numbers; --class-axis makes it agreement)"
    for words in (
        ("audit", ambiguous, "-n", 3, *few),
        ("landscape", ambiguous, *few),
        ("verify-plan", ambiguous, "-n", 3, *few),
    ):
        assert said in _headline(command(*words)), words[0]

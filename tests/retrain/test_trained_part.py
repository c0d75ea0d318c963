"""harden trains what its output needs: no dead branches, and what has no weights runs in ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.errors import ModelError, OptionError
from nvaudit.model import load_model
from nvaudit.model.graph import Node
from nvaudit.retrain.executor.checks import check_parity
from nvaudit.retrain.executor.compile import _unsupported
from nvaudit.retrain.executor.module import build_executor

RNG = np.random.default_rng(2)
FEW = ("--epochs", 1, "--method", "gaussian", "-n", 3, "-j", 0, "-q", "--no-roughness")


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


W1, W2, X = floats(12, 16), floats(16, 5), floats(40, 12)


def info(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def save(folder, nodes, inputs, outputs, stored, data=None, *, opset=17, ir=8, domains=()):
    """Write a model and its data."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*domain) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir), folder / "m.onnx")
    if data is not None:
        np.savez(folder / "m.npz", **data)
    return folder / "m.onnx"


def layers(start="x"):
    return [
        helper.make_node("MatMul", [start, "W1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "W2"], ["scores"]),
    ]


def whole_graph_is_kept(given, hardened):
    """Same nodes, inputs and outputs; other numbers in the weights."""
    before, after = onnx.load(given).graph, onnx.load(hardened).graph
    assert list(before.node) == list(after.node)
    assert list(before.output) == list(after.output)
    assert list(before.input) == list(after.input)
    changed = {
        a.name for a, b in zip(before.initializer, after.initializer, strict=True) if a.raw_data != b.raw_data
    }
    ort.InferenceSession(hardened)
    return changed


def labelled(folder):
    nodes = [
        *layers(),
        helper.make_node("ArgMax", ["scores"], ["top"], axis=1, keepdims=0),
        helper.make_node("LabelEncoder", ["top"], ["label"], domain="ai.onnx.ml",
                         keys_int64s=list(range(5)), values_int64s=[3, 1, 4, 0, 2]),
    ]  # fmt: skip
    y = (np.maximum(X @ W1, 0) @ W2).argmax(1)
    outputs = [info("label", TensorProto.INT64, ["N"]), info("scores", TensorProto.FLOAT, ["N", 5])]
    return save(folder, nodes, [info("x", TensorProto.FLOAT, ["N", 12])], outputs, {"W1": W1, "W2": W2},
                {"x": X, "y": y}, domains=[("ai.onnx.ml", 3)])  # fmt: skip


def test_a_label_branch_is_left_out(command, tmp_path):
    """What makes labels of the scores needs no gradient; it is still in the file."""
    given, out = labelled(tmp_path), tmp_path / "h.onnx"
    ran = command("harden", given, "--output-name", "scores", *FEW, "-o", out)
    assert ran.code == 0, ran.err
    assert whole_graph_is_kept(given, out) == {"W1", "W2"}


def test_a_detector_trains_up_to_its_raw_scores(command, tmp_path):
    """Suppression of boxes and the weights that only it needs: left out, said, and written as they are."""
    nodes = [
        helper.make_node("MatMul", ["x", "Wb"], ["b"]),
        helper.make_node("MatMul", ["x", "Ws"], ["s"]),
        helper.make_node("Reshape", ["b", "bs"], ["boxes"]),
        helper.make_node("Sigmoid", ["s"], ["p"]),
        helper.make_node("Reshape", ["p", "ps"], ["probs"]),
        helper.make_node("NonMaxSuppression", ["boxes", "probs", "most", "iou", "low"], ["chosen"]),
    ]
    stored = {
        "Wb": floats(12, 24), "Ws": floats(12, 12), "bs": np.int64([1, 6, 4]), "ps": np.int64([1, 2, 6]),
        "most": np.int64([6]), "iou": np.float32([0.9]), "low": np.float32([0.5]),
    }  # fmt: skip
    given = save(
        tmp_path, nodes, [info("x", TensorProto.FLOAT, [1, 12])],
        [info("chosen", TensorProto.INT64, ["K", 3]), info("p", TensorProto.FLOAT, [1, 12])], stored,
        {"x": X},
    )  # fmt: skip
    out = tmp_path / "h.onnx"
    ran = command("harden", given, "--output-name", "p", "--metric", "mse", *FEW, "-o", out)
    assert ran.code == 0, ran.err
    assert whole_graph_is_kept(given, out) == {"Ws"}
    assert "does not depend on 'Wb': written back as they are" in " ".join(ran.out.split())


def spectrum(folder):
    nodes = [
        helper.make_node("DFT", ["x", "", "axis"], ["c"], onesided=1),
        helper.make_node("ReduceL2", ["c", "last"], ["z"], keepdims=0),
        *layers("z"),
    ]
    stored = {"axis": np.int64(1), "last": np.int64([-1]), "W1": floats(33, 16), "W2": W2}
    wave = floats(40, 64, 1)
    path = save(folder, nodes, [info("x", TensorProto.FLOAT, ["N", 64, 1])],
                [info("scores", TensorProto.FLOAT, ["N", 5])], stored, opset=20, ir=9)  # fmt: skip
    y = ort.InferenceSession(path).run(None, {"x": wave})[0].argmax(1)
    np.savez(path.with_suffix(".npz"), x=wave, y=y)
    return path


def test_a_spectrum_in_front_runs_in_onnx_runtime(command, tmp_path):
    """What torch does not have and no weight stands before is no obstacle."""
    given, out = spectrum(tmp_path), tmp_path / "h.onnx"
    ran = command("harden", given, *FEW, "-o", out)
    assert ran.code == 0, ran.err
    assert whole_graph_is_kept(given, out) == {"W1", "W2"}


def test_only_what_must_is_cut_off(tmp_path):
    """The unsupported node and what it needs run outside; the rest of the preprocessing stays in torch."""
    loaded = load_model(spectrum(tmp_path))
    executor = build_executor(loaded)
    assert [node.op_type for node in executor.network.graph.nodes] == ["ReduceL2", "MatMul", "Relu", "MatMul"]
    assert check_parity(executor, loaded, {"x": floats(7, 64, 1)}).error < 1e-5


def test_text_in_front_of_the_weights(tmp_path):
    """Text inputs go through ONNX Runtime too: a normaliser and an encoder make numbers of them."""
    nodes = [
        helper.make_node("StringNormalizer", ["x"], ["low"], case_change_action="LOWER", locale="C"),
        helper.make_node("LabelEncoder", ["low"], ["number"], domain="ai.onnx.ml", default_float=0.0,
                         keys_strings=["a", "b", "c"], values_floats=[1.0, -1.0, 2.0]),
        helper.make_node("Unsqueeze", ["number", "one"], ["z"]),
        *layers("z"),
    ]  # fmt: skip
    stored = {"one": np.int64([1]), "W1": floats(1, 16), "W2": W2}
    path = save(tmp_path, nodes, [info("x", TensorProto.STRING, ["N"])],
                [info("scores", TensorProto.FLOAT, ["N", 5])], stored,
                domains=[("ai.onnx.ml", 4)])  # fmt: skip
    loaded = load_model(path)
    words = np.array(["A", "b", "C", "a"], dtype=object)
    executor = build_executor(loaded)
    assert check_parity(executor, loaded, {"x": words}).error < 1e-5
    executor({"x": words})["scores"].sum().backward()
    assert executor.weights["W1"].grad is not None


@pytest.mark.parametrize("kind", ["noise", "dropout"])
def test_random_draws_in_front_are_trained_through(command, tmp_path, kind):
    """Noise before the first weight runs in ONNX Runtime with the run's seed: trained twice, equal bytes."""
    first = {
        "noise": [helper.make_node("RandomNormalLike", ["x"], ["n"], scale=0.3),
                  helper.make_node("Add", ["x", "n"], ["z"])],
        "dropout": [helper.make_node("Dropout", ["x", "ratio", "on"], ["z"])],
    }[kind]  # fmt: skip
    stored = {"W1": W1, "W2": W2, "ratio": np.float32(0.3), "on": np.array(True)}
    y = (np.maximum(X @ W1, 0) @ W2).argmax(1)
    given = save(tmp_path, [*first, *layers("z")], [info("x", TensorProto.FLOAT, ["N", 12])],
                 [info("scores", TensorProto.FLOAT, ["N", 5])], stored, {"x": X, "y": y})  # fmt: skip
    written = []
    for number in range(2):
        out = tmp_path / f"h{number}.onnx"
        ran = command("harden", given, *FEW, "-o", out)
        assert ran.code == 0, ran.err
        assert "draws random numbers at inference" in " ".join(ran.out.split())
        written.append(out.read_bytes())
    assert written[0] == written[1]
    assert not any(a.name == "seed" for node in onnx.load(out).graph.node for a in node.attribute)


@pytest.mark.parametrize("kind", ["noise", "dropout"])
def test_random_draws_behind_a_weight_are_refused(command, tmp_path, kind):
    """They are named with the cure, and nothing is written."""
    last = {
        "noise": [helper.make_node("RandomNormalLike", ["scores"], ["n"], "shaky"),
                  helper.make_node("Add", ["scores", "n"], ["y"])],
        "dropout": [helper.make_node("Dropout", ["scores", "", "on"], ["y"], "shaky")],
    }[kind]  # fmt: skip
    given = save(tmp_path, [*layers(), *last], [info("x", TensorProto.FLOAT, ["N", 12])],
                 [info("y", TensorProto.FLOAT, ["N", 5])], {"W1": W1, "W2": W2, "on": np.array(True)},
                 {"x": X, "y": np.arange(40) % 5})  # fmt: skip
    out = tmp_path / "h.onnx"
    ran = command("harden", given, *FEW, "-o", out)
    assert ran.code == 2
    assert "node 'shaky': operator " in ran.err
    assert "model.eval()" in ran.err
    assert not out.exists()


def test_where_the_gradient_stops_is_named(command, tmp_path):
    """Rounding to whole numbers behind every weight leaves nothing to train: exit 2, with the node."""
    nodes = [
        *layers(),
        helper.make_node("Cast", ["scores"], ["whole"], "to_whole", to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["y"], to=TensorProto.FLOAT),
    ]
    given = save(tmp_path, nodes, [info("x", TensorProto.FLOAT, ["N", 12])],
                 [info("y", TensorProto.FLOAT, ["N", 5])], {"W1": W1, "W2": W2},
                 {"x": X, "y": np.arange(40) % 5})  # fmt: skip
    ran = command("harden", given, *FEW, "-o", tmp_path / "h.onnx")
    assert ran.code == 2
    assert "no gradient passes node 'to_whole' (Cast)" in ran.err


def normed(folder, between="Relu", behind="Identity"):
    """Two layers whose weights are all computed: each over a norm that the graph takes of it."""
    nodes = []
    for w in ("W1", "W2"):
        nodes += [
            helper.make_node("MatMul", [f"{w}_u", w], [f"{w}_uw"]),
            helper.make_node("MatMul", [f"{w}_uw", f"{w}_v"], [f"{w}_s"]),
            helper.make_node("Div", [w, f"{w}_s"], [f"{w}_n"]),
        ]
    nodes += [
        helper.make_node("MatMul", ["x", "W1_n"], ["h"]),
        helper.make_node(between, ["h"], ["r"], "between"),
        helper.make_node("MatMul", ["r", "W2_n"], ["scores"]),
        helper.make_node(behind, ["scores"], ["y"], "behind"),
    ]
    stored = {"W1": W1, "W2": W2}
    for w in ("W1", "W2"):
        left, _, right = np.linalg.svd(stored[w])
        stored |= {f"{w}_u": left[:, 0], f"{w}_v": right[0]}
    return save(folder, nodes, [info("x", TensorProto.FLOAT, ["N", 12])],
                [info("y", TensorProto.FLOAT, ["N", 5])], stored,
                {"x": X, "y": np.arange(40) % 5})  # fmt: skip


@pytest.mark.parametrize("method", ["gaussian", "trice", "correctnet"])
def test_a_network_of_computed_weights_alone(command, tmp_path, method):
    """No weight on the array is stored as it is (spectral norm): what they are computed from is trained."""
    given, out = normed(tmp_path), tmp_path / "h.onnx"
    few = [method if word == "gaussian" else word for word in FEW]
    ran = command("harden", given, *few, "-o", out)
    assert ran.code == 0, ran.err
    assert {"W1", "W2"} <= whole_graph_is_kept(given, out)


def test_a_sum_that_is_always_one_has_a_gradient(command, tmp_path):
    """The outputs of a softmax add up to 1 whatever the weights are: not taken for an output that is flat."""
    ran = command("harden", normed(tmp_path, behind="Softmax"), *FEW, "-o", tmp_path / "h.onnx")
    assert ran.code == 0, ran.err
    assert "no gradient" not in ran.out


def test_a_dictionary_of_scores_is_trained_as_its_columns(command, tmp_path):
    """The scores that skl2onnx wraps into a dictionary for each sample (ZipMap): by default, and by name."""
    nodes = [
        *layers(),
        helper.make_node("Softmax", ["scores"], ["p"]),
        helper.make_node("ArgMax", ["p"], ["label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["p"], ["prob"], domain="ai.onnx.ml", classlabels_int64s=list(range(5))),
    ]
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    outputs = [
        info("label", TensorProto.INT64, ["N"]),
        helper.make_value_info("prob", helper.make_sequence_type_proto(kind)),
    ]
    y = (np.maximum(X @ W1, 0) @ W2).argmax(1)
    given = save(tmp_path, nodes, [info("x", TensorProto.FLOAT, ["N", 12])], outputs, {"W1": W1, "W2": W2},
                 {"x": X, "y": y}, domains=[("ai.onnx.ml", 3)])  # fmt: skip
    for more in ((), ("--output-name", "prob")):
        out = tmp_path / f"h{len(more)}.onnx"
        ran = command("harden", given, *FEW, *more, "-o", out)
        assert ran.code == 0, ran.err
        assert whole_graph_is_kept(given, out) == {"W1", "W2"}


@pytest.mark.parametrize(
    ("operator", "domain", "cure"),
    [
        ("MatMulNBits", "com.microsoft", "before it was quantised"),
        ("Conv", "com.microsoft.nchwc", "before it, and optimise the hardened one"),
        ("LinearClassifier", "ai.onnx.ml", "with MatMul or Gemm in its place"),
        ("StringNormalizer", "", "supported are: Abs"),
    ],
)
def test_what_to_do_about_weights_in_a_form_of_their_own(operator, domain, cure):
    """The refusal says what to harden instead, where the operator tells it; else what is supported."""
    node = Node(operator, domain, 17, "n", ("x",), ("y",), {})
    with_cure = str(_unsupported(node, "m.onnx"))
    assert cure in with_cure
    assert ("supported are" in with_cure) == (operator == "StringNormalizer")


def test_computed_weights_that_no_gradient_reaches(command, tmp_path):
    """Rounding has a gradient, and it is zero: named as where it has none; weights behind it are trained."""
    out = tmp_path / "h.onnx"
    for operator in ("Floor", "Sign", "Ceil"):
        ran = command("harden", normed(tmp_path, behind=operator), *FEW, "-o", out)
        assert ran.code == 2
        assert f"no gradient passes node 'behind' ({operator})" in ran.err
        assert not out.exists()
    ran = command("harden", normed(tmp_path, between="Floor"), *FEW, "-o", out)
    assert ran.code == 0, ran.err
    assert "no gradient of 'y' reaches 'W1_n': not trained" in " ".join(ran.out.split())


@pytest.mark.parametrize("method", ["remap", "gaussian"])
def test_outputs_that_overflow_are_refused(command, tmp_path, method):
    """Weights of 1e38: exit 2 with the output, no warning of a library, no name of a Python argument."""
    nodes = [helper.make_node("MatMul", ["x", "W"], ["y"])]
    given = save(tmp_path, nodes, [info("x", TensorProto.FLOAT, ["N", 12])],
                 [info("y", TensorProto.FLOAT, ["N", 3])], {"W": np.full((12, 3), 1e38, np.float32)},
                 {"x": X * 10, "y": np.arange(40) % 3})  # fmt: skip
    more = ("--epochs", 1) if method == "gaussian" else ()
    ran = command("harden", given, "-m", method, *more, "-n", 3, "-j", 0, "-q", "-o", tmp_path / "h.onnx")
    assert ran.code == 2
    assert "output 'y' of the given model is NaN or infinite" in ran.err
    assert "Warning" not in ran.err


def test_eight_bit_floats_are_refused_by_their_name(command, tmp_path):
    """A weight that torch cannot train is named with its type and what to do."""
    import ml_dtypes

    codes = floats(12, 5).astype(ml_dtypes.float8_e4m3fn)
    nodes = [helper.make_node("Cast", ["W8"], ["W"], to=1), helper.make_node("MatMul", ["x", "W"], ["y"])]
    tensor = helper.make_tensor("W8", TensorProto.FLOAT8E4M3FN, [12, 5], codes.tobytes(), raw=True)
    graph = helper.make_graph(nodes, "g", [info("x", TensorProto.FLOAT, ["N", 12])],
                              [info("y", TensorProto.FLOAT, ["N", 5])], [tensor])  # fmt: skip
    given = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), given)
    np.savez(tmp_path / "m.npz", x=X, y=np.arange(40) % 5)
    ran = command("harden", given, *FEW, "-o", tmp_path / "h.onnx")
    assert ran.code == 2
    assert "weight 'W8' is stored as float8_e4m3fn" in ran.err
    assert "--digital W8" in ran.err


def test_an_output_without_weights_is_refused(command, tmp_path):
    """An output that no weight on the array reaches cannot be trained."""
    nodes = [*layers(), helper.make_node("NonZero", ["x"], ["where"]), helper.make_node("Neg", ["x"], ["y"])]
    outputs = [info("scores", TensorProto.FLOAT, ["N", 5]), info("y", TensorProto.FLOAT, ["N", 12])]
    nodes += [helper.make_node("StringConcat", ["t", "t"], ["tt"])]
    path = save(tmp_path, nodes, [info("x", TensorProto.FLOAT, ["N", 12])],
                [*outputs, info("tt", TensorProto.STRING, [1])],
                {"W1": W1, "W2": W2, "t": np.array(["a"], dtype=object)}, {"x": X, "y": np.arange(40) % 5},
                opset=20, ir=9)  # fmt: skip
    ran = command("harden", path, "--output-name", "y", *FEW, "-o", tmp_path / "h.onnx")
    assert ran.code == 2
    assert "the output 'y' depends on no weight on the array" in ran.err


def test_an_unsupported_node_behind_a_weight_is_still_named(tmp_path):
    """It is in the way of the gradient: refused with its name."""
    nodes = [*layers(), helper.make_node("DFT", ["scores3", "", "axis"], ["y"], "late")]
    nodes.insert(3, helper.make_node("Unsqueeze", ["scores", "two"], ["scores3"]))
    path = save(tmp_path, nodes, [info("x", TensorProto.FLOAT, ["N", 12])],
                [info("y", TensorProto.FLOAT, None)],
                {"W1": W1, "W2": W2, "axis": np.int64(1), "two": np.int64([2])}, opset=20, ir=9)  # fmt: skip
    with pytest.raises((ModelError, OptionError), match="node 'late': operator DFT cannot be trained"):
        build_executor(load_model(path))

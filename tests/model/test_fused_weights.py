"""Weights of fused, packed and blocked operators, of stacks that are picked from, and in attributes."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnx_cases import (
    FLOAT,
    compare,
    filled_session,
    integers,
    make_model,
    numbers,
    opened,
    save,
    session,
    value,
    weights,
)  # fmt: skip

from nvaudit.model import build_template
from nvaudit.model.load import load_model
from nvaudit.model.regrid import with_numbers
from nvaudit.model.rewrite import write_model
from nvaudit.model.roles import block_size
from nvaudit.model.uses import constants

node = helper.make_node
Y = value("y", None)
MS = "com.microsoft"


def optimised(tmp_path, model, name="optimised.onnx"):
    """The file that ONNX Runtime saves after all of its own optimisations."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / name)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return tmp_path / name


def convolutions():
    """Few input channels, one filter a channel, groups, and channels that fill no block."""
    nodes = [
        node("Conv", ["x", "few", "b"], ["a"], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "each"], ["c"], pads=[1, 1, 1, 1], group=32),
        node("Conv", ["c", "two"], ["d"], group=2),
        node("Conv", ["d", "odd"], ["e"]),
        node("GlobalAveragePool", ["e"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "fc", "fb"], ["h"]),
        node("Relu", ["h"], ["y"]),
    ]
    stored = {
        "few": numbers(32, 3, 3, 3),
        "b": numbers(32),
        "each": numbers(32, 1, 3, 3),
        "two": numbers(32, 16, 3, 3),
        "odd": numbers(20, 32, 1, 1),
        "fc": numbers(20, 5),
        "fb": numbers(5),
    }
    return make_model(nodes, [value("x", ["n", 3, 8, 8])], [Y], stored), stored


def test_a_file_that_onnx_runtime_optimised_has_its_weights_in_blocks(tmp_path):
    """Every convolution is mapped in its own layout, whatever the file's; the outputs are the same."""
    model, stored = convolutions()
    loaded = load_model(optimised(tmp_path, model))
    found = {c.name: c for c in constants(loaded)}
    keys = weights(found)
    if not any(n.domain.endswith("nchwc") for n in loaded.model.graph):
        pytest.skip("this processor has no blocked layout")
    arrays = {key: found[key].weight.load().values for key in keys}
    for name in ("few", "each", "two", "odd", "fc"):
        want = stored[name]
        there = [a[tuple(slice(0, n) for n in want.shape)] for a in arrays.values() if a.ndim == want.ndim]
        assert any(a.shape == want.shape and np.array_equal(a, want) for a in there), name
    assert all(found[key].weight.channel_axes == (0,) for key in keys if arrays[key].ndim == 4)
    feed = {"x": numbers(2, 3, 8, 8)}
    runner, kept = filled_session(build_template(loaded, keys), arrays)
    want = session(str(loaded.path)).run(None, feed)[0]
    np.testing.assert_array_equal(runner.run(None, feed)[0], want)
    del kept


def test_blocks_are_those_of_this_processor():
    """What is asked of ONNX Runtime is a power of two that divides the filters of a file saved here."""
    assert block_size((32, 16, 3, 3)) in (4, 8, 16)
    assert block_size((3, 16, 3, 3)) == 0


@pytest.mark.parametrize("per_channel", [False, True])
def test_channels_last_convolution_of_integers(tmp_path, per_channel):
    """com.microsoft's QLinearConv takes its data channels last and its filters as ever."""
    count = 4 if per_channel else 1
    stored = {
        "xs": np.float32(0.05), "xz": np.uint8(120),
        "w": integers(-120, 120, 4, 3, 3, 3),
        "ws": np.full(count, 0.02, np.float32), "wz": np.zeros(count, np.int8),
        "ys": np.float32(0.3), "yz": np.uint8(100), "b": integers(-500, 500, 4, dtype=np.int32),
    }  # fmt: skip
    inputs = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    conv = node("QLinearConv", inputs, ["y"], domain=MS, channels_last=1, pads=[1, 0, 1, 2], strides=[1, 2])
    model = make_model(
        [conv], [value("x", ["n", 7, 9, 3], TensorProto.UINT8)], [value("y", None, TensorProto.UINT8)], stored
    )
    compare(tmp_path, model, {"x": integers(0, 255, 2, 7, 9, 3, dtype=np.uint8)}, codes=1)


@pytest.mark.parametrize(
    ("bits", "zeros"),
    [(2, "none"), (4, "none"), (8, "none"), (2, "packed"), (4, "packed"), (8, "packed"), (4, "float")],
)
def test_matrices_packed_in_bytes(tmp_path, bits, zeros):
    """MatMulNBits: several integers a byte, lowest first, one scale and zero point a block of inputs."""
    inputs, outputs, block = 40, 6, 16
    blocks, per = -(-inputs // block), 8 // bits
    codes = integers(0, 2**bits, outputs, blocks, block, dtype=np.int32)
    scale = np.abs(numbers(outputs, blocks)) + np.float32(0.01)
    stored = {"w": packed(codes, bits), "s": scale.reshape(-1)}
    zero = np.full((outputs, blocks), 2 ** (bits - 1), np.float32)
    names = ["x", "w", "s"]
    if zeros == "packed":
        padded = integers(0, 2**bits, outputs, -(-blocks // per) * per, dtype=np.int32, seed=1)
        zero = padded[:, :blocks].astype(np.float32)
        stored["z"] = packed(padded, bits).reshape(-1)
    elif zeros == "float":
        zero = np.abs(numbers(outputs, blocks, seed=2))
        stored["z"] = zero.reshape(-1)
    names += ["z"] if zeros != "none" else []
    attributes = {"K": inputs, "N": outputs, "bits": bits, "block_size": block}
    model = make_model(
        [node("MatMulNBits", names, ["y"], domain=MS, **attributes)], [value("x", ["n", inputs])], [Y], stored
    )
    found = compare(tmp_path, model, {"x": numbers(3, inputs)}, rtol=1e-5)
    weight = found["w"].weight
    real = ((codes - zero[..., None]) * scale[..., None]).reshape(outputs, -1)[:, :inputs].T
    np.testing.assert_allclose(weight.load().values, real, rtol=1e-6)
    assert weight.shape == (inputs, outputs)
    assert weight.channel_axes == (1,)
    assert weight.grid_bits == (None if zeros == "float" else bits)


def packed(codes, bits):
    """Integers of few bits as bytes, along the last axis."""
    per = 8 // bits
    parts = [codes[..., place::per].astype(np.uint8) << np.uint8(bits * place) for place in range(per)]
    return np.bitwise_or.reduce(parts).astype(np.uint8)


@pytest.mark.parametrize(
    ("equation", "shape", "feed", "axes", "matrix"),
    [
        ("...i,ij->...j", (6, 4), (2, 3, 6), (1,), (1, 6, 4)),
        ("bi,...ij->b...j", (2, 6, 4), (3, 6), (0, 2), (1, 6, 8)),
        ("...bi,...ij->...bj", (2, 6, 4), (2, 3, 6), (0, 2), (2, 6, 4)),
        (" b i , i o -> b o", (6, 4), (3, 6), (1,), (1, 6, 4)),
        ("b...,...j", (6, 4), (3, 6), None, None),
        ("bhd,hdo->bo", (2, 3, 4), (5, 2, 3), (2,), (1, 6, 4)),
    ],
)
def test_einsum_of_any_equation(tmp_path, equation, shape, feed, axes, matrix):
    """Axes under an ellipsis count like named ones; what is summed over makes rows."""
    model = make_model(
        [node("Einsum", ["x", "w"], ["y"], equation=equation)],
        [value("x", list(feed))], [Y], {"w": numbers(*shape)},
    )  # fmt: skip
    if axes is None:
        _, found = opened(tmp_path, model)
        assert weights(found) == []  # element by element
        return
    found = compare(tmp_path, model, {"x": numbers(*feed)})
    weight = found["w"].weight
    assert weight.channel_axes == axes
    assert (weight.matrix.groups, weight.matrix.rows, weight.matrix.cols) == matrix


def test_einsum_of_two_weights_maps_both(tmp_path):
    """x·A·B: both are weights, each with its own rows and columns."""
    model = make_model(
        [node("Einsum", ["x", "a", "b"], ["y"], equation="ni,ij,jk->nk")],
        [value("x", ["n", 6])], [Y], {"a": numbers(6, 4), "b": numbers(4, 3)},
    )  # fmt: skip
    found = compare(tmp_path, model, {"x": numbers(2, 6)})
    assert [(w.matrix.rows, w.matrix.cols) for w in (found["a"].weight, found["b"].weight)] == [
        (6, 4),
        (4, 3),
    ]


ROUTE = [node("MatMul", ["x", "r"], ["g"])]
EXPERTS = numbers(3, 6, 4, seed=7)


def routed(nodes, experts, **more):
    stored = {"r": numbers(6, 3), "e": experts, "one": np.int64([1]), **more}
    return make_model([*ROUTE, *nodes], [value("x", ["n", 6])], [Y, value("g", None)], stored)


PICKED = {
    "the best": routed(
        [
            node("ArgMax", ["g"], ["i"], axis=1, keepdims=0),
            node("Gather", ["e", "i"], ["w"]),
            node("Unsqueeze", ["x", "one"], ["xu"]),
            node("MatMul", ["xu", "w"], ["yu"]),
            node("Squeeze", ["yu", "one"], ["y"]),
        ],
        EXPERTS,
    ),
    "the best two": routed(
        [
            node("TopK", ["g", "k"], ["p", "i"], axis=1),
            node("Gather", ["e", "i"], ["w"]),
            node("Einsum", ["x", "w"], ["each"], equation="nd,nkdh->nkh"),
            node("Einsum", ["each", "p"], ["y"], equation="nkh,nk->nh"),
        ],
        EXPERTS,
        k=np.int64([2]),
    ),
    "stored transposed": routed(
        [
            node("ArgMax", ["g"], ["i"], axis=1, keepdims=0),
            node("Gather", ["e", "i"], ["w"]),
            node("Transpose", ["w"], ["wt"], perm=[0, 2, 1]),
            node("Unsqueeze", ["x", "one"], ["xu"]),
            node("MatMul", ["xu", "wt"], ["yu"]),
            node("Squeeze", ["yu", "one"], ["y"]),
        ],
        np.ascontiguousarray(EXPERTS.transpose(0, 2, 1)),
    ),
    "stored flat": routed(
        [
            node("ArgMax", ["g"], ["i"], axis=1, keepdims=0),
            node("Gather", ["e", "i"], ["w"]),
            node("Reshape", ["w", "s"], ["wr"]),
            node("Unsqueeze", ["x", "one"], ["xu"]),
            node("MatMul", ["xu", "wr"], ["yu"]),
            node("Squeeze", ["yu", "one"], ["y"]),
        ],
        EXPERTS.reshape(3, 24),
        s=np.int64([-1, 6, 4]),
    ),
    "by index tuples": routed(
        [
            node("ArgMax", ["g"], ["i"], axis=1, keepdims=1),
            node("GatherND", ["e", "i"], ["w"]),
            node("Unsqueeze", ["x", "one"], ["xu"]),
            node("MatMul", ["xu", "w"], ["yu"]),
            node("Squeeze", ["yu", "one"], ["y"]),
        ],
        EXPERTS,
    ),
}
PICKED["by index tuples"].graph.value_info.append(value("i", ["n", 1], TensorProto.INT64))


@pytest.mark.parametrize("kind", PICKED)
def test_experts_that_are_picked_and_multiplied_are_weights(tmp_path, kind):
    """The whole stack is one array of as many matrices as there are experts."""
    found = compare(tmp_path, PICKED[kind], {"x": numbers(8, 6)})
    assert weights(found) == ["r", "e"]
    weight = found["e"].weight
    assert (weight.matrix.groups, weight.matrix.rows, weight.matrix.cols) == (3, 6, 4)
    assert 0 in weight.channel_axes
    assert "picked by Gather" in weight.product


def test_layers_that_a_scan_or_a_loop_steps_through(tmp_path):
    """A stack of layers, one of them at each step."""
    state, taken = value("s", [2, 4]), value("w", [4, 4])
    body = helper.make_graph(
        [node("MatMul", ["s", "w"], ["m"]), node("Tanh", ["m"], ["t"])],
        "b",
        [state, taken],
        [value("t", [2, 4])],
    )
    scan = node("Scan", ["x", "stack"], ["y"], body=body, num_scan_inputs=1)
    stored = {"stack": numbers(5, 4, 4)}
    model = make_model([scan], [value("x", [2, 4])], [Y], stored)
    assert weights(compare(tmp_path, model, {"x": numbers(2, 4)})) == ["stack"]
    counted, kept = value("i", [], TensorProto.INT64), value("c", [], TensorProto.BOOL)
    body = helper.make_graph(
        [
            node("Gather", ["stack", "i"], ["w"]),
            node("MatMul", ["s", "w"], ["m"]),
            node("Tanh", ["m"], ["t"]),
            node("Identity", ["c"], ["d"]),
        ],
        "b", [counted, kept, state], [value("d", [], TensorProto.BOOL), value("t", [2, 4])],
    )  # fmt: skip
    loop = node("Loop", ["n", "", "x"], ["y"], body=body)
    model = make_model([loop], [value("x", [2, 4])], [Y], stored | {"n": np.int64(5)})
    found = compare(tmp_path, model, {"x": numbers(2, 4)})
    assert weights(found) == ["stack"]
    assert found["stack"].weight.channel_axes == (0, 2)


@pytest.mark.parametrize("against", ["weight", "itself"])
def test_a_table_of_rows_stays_an_embedding(tmp_path, against):
    """Rows that are looked up are activations, also where two of them are multiplied."""
    nodes = [node("Gather", ["e", "ids"], ["v"]), node("MatMul", ["v", "w"], ["h"])]
    if against == "itself":
        nodes += [node("Transpose", ["v"], ["t"], perm=[0, 2, 1]), node("MatMul", ["h", "t"], ["y"])]
    else:
        nodes += [node("Relu", ["h"], ["y"])]
    model = make_model(
        nodes, [value("ids", ["n", "l"], TensorProto.INT64)], [Y], {"e": numbers(9, 4), "w": numbers(4, 4)}
    )
    _, found = opened(tmp_path, model)
    assert weights(found) == ["w"]
    assert found["e"].reason.startswith("embedding table")


def linear(kind, outputs, features=6, **attributes):
    coefficients = numbers(outputs, features)
    made = node(
        kind, ["x"], ["y"] if kind == "LinearRegressor" else ["label", "y"],
        domain="ai.onnx.ml", name="model",
        coefficients=coefficients.reshape(-1).tolist(), intercepts=numbers(outputs).tolist(), **attributes,
    )  # fmt: skip
    outs = [value("y", None)]
    if kind == "LinearClassifier":
        text = "classlabels_strings" in attributes
        outs.insert(0, value("label", ["n"], TensorProto.STRING if text else TensorProto.INT64))
    return made, outs, coefficients


LINEAR = {
    "several classes": ("LinearClassifier", 3, {"classlabels_ints": [4, 5, 6], "post_transform": "SOFTMAX"}),
    "text labels": (
        "LinearClassifier", 3, {"classlabels_strings": ["a", "b", "c"], "post_transform": "LOGISTIC"},
    ),
    "two classes, one row": (
        "LinearClassifier", 1, {"classlabels_ints": [0, 1], "post_transform": "LOGISTIC"},
    ),
    "two classes, no transform": (
        "LinearClassifier", 1, {"classlabels_ints": [0, 1], "post_transform": "NONE"},
    ),
    "two targets": ("LinearRegressor", 2, {"targets": 2}),
}  # fmt: skip


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("scaled", [False, True])
def test_linear_models_of_ai_onnx_ml_are_products(tmp_path, kind, scaled):
    """Their coefficients are mapped; labels and scores stay the same to the last bit."""
    op, outputs, attributes = LINEAR[kind]
    made, outs, coefficients = linear(op, outputs, **attributes)
    nodes = [made]
    if scaled:
        offset, scale = numbers(6, seed=1).tolist(), np.abs(numbers(6, seed=2)).tolist()
        nodes.insert(0, node("Scaler", ["x"], ["z"], domain="ai.onnx.ml", offset=offset, scale=scale))
        made.input[0] = "z"
    model = make_model(nodes, [value("x", ["n", 6])], outs)
    loaded, found = opened(tmp_path, model)
    assert weights(found) == ["model/coefficients"]
    weight = found["model/coefficients"].weight
    np.testing.assert_array_equal(weight.load().values, coefficients)
    feed = {"x": numbers(50, 6, seed=5)}
    runner, kept = filled_session(build_template(loaded, [weight.key]), {weight.key: coefficients})
    for want, have in zip(
        session(model.SerializeToString()).run(None, feed), runner.run(None, feed), strict=True
    ):
        np.testing.assert_array_equal(have, want)
    del kept
    if scaled:
        assert "offset in an attribute of Scaler" in found["Scaler_0/offset"].reason


@pytest.mark.parametrize("kind", LINEAR)
def test_a_written_linear_model_is_not_opened_twice(tmp_path, kind):
    """What was opened, written and read again has the same weights: the identity that is left is none."""
    op, outputs, attributes = LINEAR[kind]
    made, outs, coefficients = linear(op, outputs, **attributes)
    model = make_model([made], [value("x", ["n", 6])], outs)
    loaded, found = opened(tmp_path, model)
    write_model(with_numbers(loaded, {"model/coefficients": 2 * coefficients}), tmp_path / "again.onnx")
    again = {entry.name: entry for entry in constants(load_model(tmp_path / "again.onnx"))}
    assert weights(again) == ["model/coefficients"]
    np.testing.assert_array_equal(again["model/coefficients"].weight.load().values, 2 * coefficients)
    assert set(again) == set(found)


def test_coefficients_that_are_not_opened_are_listed(tmp_path):
    """Trees and kernels: every attribute with numbers stands among the digital tensors, with the reason."""
    tree = node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", name="forest", n_targets=1,
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_values=[0.5, 0.0, 0.0], nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0], target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0],
        target_weights=[1.0, 2.0],
    )  # fmt: skip
    _, found = opened(tmp_path, make_model([tree], [value("x", ["n", 6])], [Y]))
    assert weights(found) == []
    assert found["forest/target_weights"].size == 2
    assert found["forest/nodes_values"].reason == (
        "nodes values in an attribute of TreeEnsembleRegressor 'forest': "
        "a tree compares, it does not multiply; stays digital"
    )
    assert found["forest/nodes_values"].origin == "attribute"


def test_a_regressor_without_intercepts(tmp_path):
    """Zeros are added in their place."""
    made = node("LinearRegressor", ["x"], ["y"], domain="ai.onnx.ml", coefficients=[1.0, -2.0, 3.0])
    model = make_model([made], [value("x", ["n", 3], FLOAT)], [Y])
    loaded = load_model(save(tmp_path, model))
    (weight,) = (c.weight for c in constants(loaded) if c.weight)
    assert weight.shape == (1, 3)
    compare(tmp_path, model, {"x": numbers(4, 3)})


def test_a_quantised_lstm_names_its_operands(tmp_path):
    """Weights that it rounds with its state stay digital with a way out; scales and biases are no weights."""
    inputs = ["x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz"]
    stored = {
        "w": integers(1, 4, 12), "r": integers(1, 3, 12), "b": numbers(1, 24),
        "ws": numbers(1), "wz": np.zeros(1, np.int8), "rs": numbers(1), "rz": np.zeros(1, np.int8),
    }  # fmt: skip
    made = node("DynamicQuantizeLSTM", inputs, ["y"], domain=MS, hidden_size=3, name="cells")
    _, found = opened(tmp_path, make_model([made], [value("x", ["t", "n", 4])], [Y], stored))
    assert weights(found) == []
    for name in ("w", "r"):
        assert "audit the model from before it was quantised" in found[name].reason
    assert found["b"].reason == "bias of DynamicQuantizeLSTM 'cells'"
    assert found["rs"].reason == "quantisation scale of DynamicQuantizeLSTM 'cells'"
    assert found["wz"].reason == "quantisation zero point of DynamicQuantizeLSTM 'cells'"

"""What a weight is multiplied by: rows of activations that give a layer's own results."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.data import Dataset
from nvaudit.model import constants, load_model
from nvaudit.model.layer_input import layer_inputs, with_named_states
from nvaudit.model.layout import matrix_layout
from nvaudit.perturb.probe import probe_model
from nvaudit.remapping.input_moments import input_moments

GEN = np.random.default_rng(0)


def save(path, nodes, inputs, outputs, weights):
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load_model(path)


def normal(*shape):
    return GEN.standard_normal(shape).astype(np.float32)


def dataset(x):
    return Dataset({"x": x}, frozenset("x"), {"x": 0}, None, "none", len(x), "made up", "")


CASES = {
    "plain": ("Conv", {"pads": [1, 1, 1, 1]}, (6, 4, 3, 3)),
    "strides and dilations": ("Conv", {"strides": [2, 1], "dilations": [1, 2]}, (6, 4, 3, 3)),
    "groups": ("Conv", {"group": 2, "pads": [0, 1, 1, 0]}, (6, 2, 3, 3)),
    "depthwise": ("Conv", {"group": 4}, (8, 1, 3, 3)),
    "same upper": ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (6, 4, 3, 3)),
    "same lower": ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (6, 4, 2, 2)),
    "transposed": ("ConvTranspose", {"strides": [2, 2], "pads": [1, 0, 0, 1]}, (4, 5, 3, 3)),
    "transposed groups": ("ConvTranspose", {"group": 2, "dilations": [2, 1]}, (4, 3, 3, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_patches_times_weights_are_the_results(tmp_path, case):
    """The unfolded activation, multiplied by the matrices of the weight, gives what the operator gives."""
    op, attributes, shape = CASES[case]
    w, x = normal(*shape), normal(3, 4, 7, 8)
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    loaded = save(tmp_path / "m.onnx", [node], {"x": ["n", 4, 7, 8]}, ["y"], {"w": w})
    (weight,) = [c.weight for c in constants(loaded) if c.weight]
    (source,) = layer_inputs(weight)
    y = probe_model(loaded, dataset(x), ["y"]).run(np.arange(3))["y"]
    rows = np.concatenate(list(source.unfold(x)), axis=1)  # (group, sample, position, row)
    matrix = matrix_layout(w.shape, weight.channel_axes).apply(w)
    groups, size = weight.matrix.groups, weight.matrix.rows
    if op == "ConvTranspose":
        parts = [matrix[g * size : (g + 1) * size] for g in range(groups)]
    else:
        parts = np.split(matrix, groups, axis=1)
    made = np.concatenate([rows[g if len(rows) > 1 else 0] @ parts[g] for g in range(groups)], axis=-1)
    np.testing.assert_allclose(made.transpose(0, 2, 1).reshape(y.shape), y, atol=1e-4)


@pytest.mark.parametrize(
    ("op", "names", "attributes", "shape"),
    [
        ("MatMul", ["x", "w"], {}, (5, 3)),
        ("Gemm", ["x", "w"], {"transB": 1}, (3, 5)),
        ("Gemm", ["w", "x"], {"transA": 1, "transB": 1}, (5, 3)),
        ("Gemm", ["w", "x"], {"transB": 1}, (3, 5)),
    ],
)
def test_products_have_their_inner_axis_as_rows(tmp_path, op, names, attributes, shape):
    """MatMul and Gemm, on either side, stored either way: H = E[x xᵀ] of the other operand."""
    x = normal(40, 5)
    node = helper.make_node(op, names, ["y"], **attributes)
    loaded = save(tmp_path / "m.onnx", [node], {"x": ["n", 5]}, ["y"], {"w": normal(*shape)})
    found, refused = input_moments(loaded, ["w"], dataset(x), 40, 0, "cpu")
    assert not refused
    np.testing.assert_allclose(found["w"].blocks[0][0], x.T @ x / 40, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_weights_take_the_sequence_and_the_state_before(tmp_path, direction):
    """W takes the inputs of all steps, R the state one step late, of each direction."""
    ways, hidden = 2 if direction == "bidirectional" else 1, 3
    weights = {"w": normal(ways, 4 * hidden, 5), "r": normal(ways, 4 * hidden, hidden)}
    node = helper.make_node("LSTM", ["t", "w", "r"], ["", "y"], direction=direction, hidden_size=hidden)
    turn = helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2])
    loaded = save(tmp_path / "m.onnx", [turn, node], {"x": ["n", 6, 5]}, ["y"], weights)
    x = normal(8, 6, 5)
    found, refused = input_moments(loaded, ["w", "r"], dataset(x), 8, 0, "cpu")
    assert not refused
    flat = x.reshape(-1, 5)
    np.testing.assert_allclose(found["w"].blocks[0][0], flat.T @ flat / len(flat), rtol=1e-5, atol=1e-6)
    named = with_named_states(loaded)
    states = next(n for n in named.model.graph if n.op_type == "LSTM").outputs[0].name
    y = probe_model(named, dataset(x), [states]).run(np.arange(8))[states]  # step, way, sample, hidden
    for way in range(ways):
        back = direction == "reverse" or way == 1
        kept = y[1:, way] if back else y[:-1, way]
        rows = kept.reshape(-1, hidden)
        wanted = rows.T @ rows / (len(rows) + 8)  # the first step begins with zeros
        np.testing.assert_allclose(found["r"].blocks[0][way], wanted, rtol=1e-4, atol=1e-6)


def test_large_matrices_are_cut_into_blocks_and_memory_into_passes(tmp_path, monkeypatch):
    """Beyond the limit only blocks are kept, equal to those of the whole; several passes give the same."""
    import nvaudit.remapping.input_moments as module

    x = normal(64, 10)
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    loaded = save(
        tmp_path / "m.onnx", nodes, {"x": ["n", 10]}, ["y"], {"a": normal(10, 8), "b": normal(8, 2)}
    )
    whole, _ = input_moments(loaded, ["a", "b"], dataset(x), 64, 0, "cpu")
    monkeypatch.setattr(module, "LARGEST", 9)
    monkeypatch.setattr(module, "BLOCK", 4)
    monkeypatch.setattr(module, "TOGETHER", 50)
    cut, _ = input_moments(loaded, ["a", "b"], dataset(x), 64, 0, "cpu")
    assert cut["a"].starts == (0, 4, 8)
    for start, block in zip(cut["a"].starts, cut["a"].blocks, strict=True):
        end = start + block.shape[1]
        np.testing.assert_allclose(block[0], whole["a"].blocks[0][0][start:end, start:end], rtol=1e-6)
    np.testing.assert_allclose(cut["b"].blocks[0], whole["b"].blocks[0], rtol=1e-6)


def test_uses_that_cannot_be_watched_say_why(tmp_path):
    """A weight taken in two layouts is watched where it is taken as it is; a blocked one not at all."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Transpose", ["w"], ["wt"]),
        helper.make_node("MatMul", ["h", "wt"], ["y"]),
    ]
    loaded = save(tmp_path / "m.onnx", nodes, {"x": ["n", 4]}, ["y"], {"w": normal(4, 4)})
    (weight,) = [c.weight for c in constants(loaded) if c.weight]
    assert len(layer_inputs(weight)) == 1
    node = helper.make_node("GRU", ["x", "w", "r"], ["", "y"], hidden_size=3)
    loaded = save(
        tmp_path / "g.onnx", [node], {"x": [6, "n", 5]}, ["y"], {"w": normal(1, 9, 5), "r": normal(1, 9, 3)}
    )
    reasons = [layer_inputs(c.weight) for c in constants(with_named_states(loaded)) if c.weight]
    assert any(isinstance(reason, str) and "gate" in reason for reason in reasons)


def test_cross_terms_of_few_samples_are_shrunk_towards_what_is_sure(tmp_path):
    """Of few samples chance is most of the cross terms and goes; of many nearly nothing does; powers stay."""
    mixing = np.eye(30) + 0.3 * np.random.default_rng(0).standard_normal((30, 30))
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    loaded = save(tmp_path / "m.onnx", [node], {"x": ["n", 30]}, ["y"], {"w": normal(30, 4)})
    shares, gains = [], []
    for count in (20, 2000):
        x = (np.random.default_rng(1).standard_normal((count, 30)) @ mixing).astype(np.float32)
        found, _ = input_moments(loaded, ["w"], dataset(x), count, 0, "cpu")
        (raw,), (shrunk,) = found["w"].blocks[0], found["w"].shrunk(0)
        truth = mixing.T @ mixing
        np.testing.assert_array_equal(np.diag(shrunk), np.diag(raw))
        shares.append(found["w"].chance[0][0])
        gains.append(np.linalg.norm(shrunk - truth) / np.linalg.norm(raw - truth))
    assert 0.2 < shares[0] < 0.8
    assert shares[1] < 0.02
    assert gains[0] < 0.85
    assert gains[1] < 1.05  # on one draw; on average it is below 1, too

"""Operators of ordinary exports agree with ONNX Runtime, in the operator sets in which they changed."""

import numpy as np
import pytest
import torch
from executor_cases import (
    FLOAT,
    INT64,
    assert_same,
    built,
    make_model,
    node,
    numbers,
    run_ort,
    run_torch,
    value,
)

X = ("x", [2, 4, 7, 6])


def _case(op, opset, stored=(), shape=X[1], outputs=("y",), **attributes):
    """One node whose first input is fed and whose others are stored."""
    stored = {f"s{i}": np.asarray(array) for i, array in enumerate(stored)}
    made = node(op, ["x", *stored], list(outputs), **attributes)
    infos = [value(name, None, INT64 if name == "places" else FLOAT) for name in outputs]
    return make_model([made], [value("x", list(shape))], infos, stored, opset=opset)


def _ints(*values):
    return np.array(values, np.int64)


CASES = {
    "clip by attributes": _case("Clip", 7, min=-0.5, max=0.5),
    "clip by inputs": _case("Clip", 13, [np.float32(-0.5), np.float32(0.25)]),
    "slice by attributes": _case("Slice", 9, starts=[1, -3], ends=[9, -1], axes=[2, 3]),
    "slice backwards": _case("Slice", 13, [_ints(-1), _ints(-9), _ints(2), _ints(-2)]),
    "pad by attributes": _case("Pad", 9, pads=[0, 1, 2, 0, 0, 0, 1, 3], value=0.5),
    "pad by inputs": _case("Pad", 13, [_ints(0, 0, 1, -1, 0, 0, 2, 0), np.float32(2)]),
    "pad that reflects": _case("Pad", 13, [_ints(0, 0, 2, 3, 0, 0, 1, 2)], mode="reflect"),
    "softmax of a flat rest": _case("Softmax", 11, axis=1),
    "softmax along an axis": _case("Softmax", 13, axis=1),
    "sum along attributes": _case("ReduceSum", 11, axes=[1, 3], keepdims=0),
    "sum along inputs": _case("ReduceSum", 13, [_ints(-1)]),
    "squeeze and unsqueeze": _case("Unsqueeze", 11, axes=[0, 3]),
    "dropout at rest": _case("Dropout", 12, [np.float32(0.3)]),
    "upsample": _case("Upsample", 9, [np.array([1, 1, 2, 3], np.float32)], mode="nearest"),
    "resize, old": _case("Resize", 10, [np.array([1, 1, 2, 1.5], np.float32)], mode="linear"),
    "resize": _case(
        "Resize", 13, [np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)], mode="linear"
    ),
    "convolution, same size": _case("Conv", 11, [numbers(3, 4, 3, 2)], auto_pad="SAME_UPPER", strides=[2, 1]),
    "convolution, grouped": _case(
        "Conv", 11, [numbers(6, 2, 3, 3), numbers(6)], group=2, pads=[1, 0, 2, 1], dilations=[1, 2]
    ),
    "transposed": _case(
        "ConvTranspose",
        11,
        [numbers(4, 2, 3, 3), numbers(4)],
        group=2,
        strides=[2, 2],
        pads=[1, 0, 0, 1],
        output_padding=[1, 1],
    ),
    "average that counts padding": _case(
        "AveragePool", 11, kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 2], count_include_pad=1
    ),
    "average rounded up": _case("AveragePool", 11, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "maximum, same size": _case("MaxPool", 11, kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_LOWER"),
    "maximum rounded up": _case("MaxPool", 11, kernel_shape=[2, 4], strides=[2, 3], ceil_mode=1),
    "local response": _case("LRN", 13, size=3, alpha=0.01, beta=0.6),
    "instance norm": _case("InstanceNormalization", 13, [numbers(4), numbers(4)]),
    "layer norm": _case("LayerNormalization", 17, [numbers(6), numbers(6)]),
    "batch norm": _case(
        "BatchNormalization", 15, [numbers(4), numbers(4), numbers(4), np.abs(numbers(4)) + 0.1]
    ),
    "gemm": _case("Gemm", 13, [numbers(5, 4), numbers(5)], (3, 4), transB=1, alpha=0.5, beta=2.0),
    "gemm, plain": _case("Gemm", 13, [numbers(4, 5), numbers(3, 1)], (3, 4)),
    "gemm, turned": _case("Gemm", 13, [numbers(3, 5), numbers(5)], (3, 4), transA=1),
    "gather": _case("Gather", 13, [np.array([[0, -1], [2, 1]], np.int64)], axis=2),
    "split by number": _case("Split", 18, outputs=("y", "z"), axis=3, num_outputs=2),
    "split by sizes": _case("Split", 11, outputs=("y", "z"), axis=2, split=[3, 4]),
    "power of two": _case("Pow", 13, [np.float32(2)]),
    "depth to space": _case("DepthToSpace", 13, blocksize=2, mode="CRD"),
    "top three": _case("TopK", 11, [_ints(3)], outputs=("y", "places"), axis=2),
}


@pytest.mark.parametrize("name", CASES)
def test_operator_agrees(name, tmp_path):
    """One operator, in one operator set, gives what ONNX Runtime gives."""
    model = CASES[name]
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": numbers(*shape, seed=7)}
    wanted = run_ort(model.SerializeToString(), feeds)
    assert_same(run_torch(built(tmp_path, model), feeds), wanted)


def test_second_operand_of_an_old_operator_stands_at_its_axis(tmp_path):
    """Before operator set 7, which ONNX Runtime does not run any more, ``axis`` aligned the operand."""
    shift = numbers(4)
    model = _case("Add", 6, [shift], broadcast=1, axis=1)
    feeds = {"x": numbers(*X[1])}
    assert_same(run_torch(built(tmp_path, model), feeds), {"y": feeds["x"] + shift[:, None, None]})


FUSED = [
    ("FusedConv", [numbers(3, 4, 3, 3), numbers(3)], {"activation": "Relu", "pads": [1, 1, 1, 1]}, X[1]),
    ("FusedMatMul", [numbers(5, 6)], {"transB": 1, "alpha": 0.5}, (2, 3, 6)),
    ("FusedGemm", [numbers(6, 5), numbers(5)], {"activation": "LeakyRelu", "activation_alpha": 0.2}, (3, 6)),
    ("Gelu", [], {}, (3, 6)),
    ("FastGelu", [numbers(6)], {}, (3, 6)),
    ("BiasGelu", [numbers(6)], {}, (3, 6)),
    ("QuickGelu", [], {"alpha": 1.5}, (3, 6)),
    ("SkipLayerNormalization", [numbers(2, 3, 6), numbers(6), numbers(6), numbers(6)], {}, (2, 3, 6)),
]


@pytest.mark.parametrize(("op", "stored", "attributes", "shape"), FUSED)
def test_fused_operator_agrees(op, stored, attributes, shape, tmp_path):
    """The operators that ONNX Runtime's optimiser writes give what ONNX Runtime gives."""
    stored = {f"s{i}": array for i, array in enumerate(stored)}
    made = node(op, ["x", *stored], ["y"], domain="com.microsoft", **attributes)
    model = make_model(
        [made], [value("x", list(shape))], [value("y", None)], stored, domains=("com.microsoft",)
    )
    feeds = {"x": numbers(*shape, seed=7)}
    wanted = run_ort(model.SerializeToString(), feeds)
    assert_same(run_torch(built(tmp_path, model), feeds), wanted, 1e-4)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("plain", [True, False])
def test_recurrent_layer_agrees(kind, direction, plain, tmp_path):
    """Recurrent layers agree in torch's kernel and step by step, with initial states and both directions."""
    gates, both = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    size = 5
    stored = {
        "w": numbers(both, gates * size, 3, seed=1),
        "r": numbers(both, gates * size, size, seed=2),
        "b": numbers(both, 2 * gates * size, seed=3),
        "h": numbers(both, 2, size, seed=4),
    }
    inputs = ["x", "w", "r", "b", "", "h"]
    attributes = {"hidden_size": size, "direction": direction}
    if kind == "GRU":
        attributes["linear_before_reset"] = int(plain)
    if not plain:
        stored["n"] = np.array([4, 2], np.int32)
        inputs[4] = "n"
    if kind == "LSTM":
        stored["c"] = numbers(both, 2, size, seed=5)
        inputs.append("c")
        if not plain:
            stored["p"] = numbers(both, 3 * size, seed=6)
            inputs.append("p")
    outputs = ["y", "last", "cell"] if kind == "LSTM" else ["y", "last"]
    model = make_model(
        [node(kind, inputs, outputs, **attributes)],
        [value("x", [4, 2, 3])],
        [value(name, None) for name in outputs],
        stored,
        opset=14,
    )
    feeds = {"x": numbers(4, 2, 3, seed=7)}
    wanted = run_ort(model.SerializeToString(), feeds)
    executor = built(tmp_path, model)
    assert_same(run_torch(executor, feeds), wanted)
    executor({"x": torch.from_numpy(feeds["x"])})["y"].sum().backward()
    assert all(executor.weights[key].grad.abs().sum() > 0 for key in ("w", "r", "b"))


def test_shapes_are_computed_at_run_time(tmp_path):
    """Shape, Gather, Concat and Reshape follow the batch that is fed."""
    model = make_model(
        [
            node("Shape", ["x"], ["shape"]),
            node("Gather", ["shape", "zero"], ["batch"]),
            node("Unsqueeze", ["batch", "first"], ["row"]),
            node("Concat", ["row", "rest"], ["target"], axis=0),
            node("Reshape", ["x", "target"], ["y"]),
            node("Expand", ["one", "shape"], ["z"]),
        ],
        [value("x", ["n", 2, 6])],
        [value("y", None), value("z", None), value("batch", None, INT64)],
        {"zero": np.int64(0), "first": _ints(0), "rest": _ints(3, -1), "one": np.ones((1, 1, 1), np.float32)},
    )
    executor = built(tmp_path, model)
    for count in (1, 5):
        feeds = {"x": numbers(count, 2, 6)}
        assert_same(run_torch(executor, feeds), run_ort(model.SerializeToString(), feeds))


def test_constant_part_is_computed_once(tmp_path):
    """What depends on no parameter and no input leaves no step behind."""
    model = make_model(
        [
            node("Sqrt", ["a"], ["root"]),
            node("Reciprocal", ["root"], ["factor"]),
            node("MatMul", ["x", "w"], ["h"]),
            node("Mul", ["h", "factor"], ["y"]),
        ],
        [value("x", [2, 3])],
        [value("y", None, FLOAT)],
        {"a": np.float32(16), "w": numbers(3, 4)},
    )
    executor = built(tmp_path, model)
    assert len(executor._program.data_steps) == 2
    assert executor._program.weight_steps == []

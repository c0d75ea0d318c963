"""The digital part of a model on arrays: what it makes of the products is what the model makes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nvaudit.model import constants, load_model
from nvaudit.model.digital_part import digital_part


@pytest.fixture
def generator():
    """Numbers that are the same in every run."""
    return np.random.default_rng(3)


def cut(path):
    """The digital part of all weights of a model."""
    loaded = load_model(path)
    return digital_part(loaded, [c.weight.key for c in constants(loaded) if c.weight is not None])


def saved(path, nodes, inputs, weights, outputs, opset=17):
    """Write a model of some nodes."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.mark.parametrize("opset", [7, 17])
def test_bias_and_factors_stay_and_products_come_from_outside(tmp_path, generator, opset):
    """Conv, ConvTranspose, Gemm and MatMul on either side, against numpy's products of the same weights."""
    weights = {
        name: generator.standard_normal(shape).astype(np.float32)
        for name, shape in {"k": (6, 2, 3, 3), "b": (6,), "t": (6, 2, 2, 2), "tb": (2,), "g": (5, 32),
                            "gb": (5,), "l": (4, 5), "r": (3, 7)}.items()
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["c"], group=2),
        helper.make_node("ConvTranspose", ["c", "t", "tb"], ["d"], strides=[2, 2]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "gb"], ["h"], transB=1, alpha=0.5, beta=2.0),
        helper.make_node("Transpose", ["h"], ["i"], perm=[1, 0]),
        helper.make_node("MatMul", ["l", "i"], ["j"]),
        helper.make_node("MatMul", ["j", "r"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, {"x": [3, 4, 4, 4]}, weights, {"y": [4, 7]}, opset)
    part = cut(path)
    assert (len(part.cuts), part.whole) == (5, {})
    x = generator.standard_normal((3, 4, 4, 4)).astype(np.float32)
    run = onnxruntime.InferenceSession(part.template.proto, providers=["CPUExecutionProvider"])
    shapes = {"c": (3, 6, 2, 2), "d": (3, 2, 4, 4), "h": (3, 5), "j": (4, 3), "y": (4, 7)}
    feeds = {"x": x, **{cut.product: np.zeros(shapes[cut.result], np.float32) for cut in part.cuts}}
    outputs = [output.name for output in run.get_outputs()]
    for one in part.cuts:  # from array to array: what drives one needs only the products before it
        driver = x if one.driver == "x" else dict(zip(outputs, run.run(None, feeds), strict=True))[one.driver]
        feeds[one.product] = product(one.key, driver, weights[one.key])
    wanted = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(run.run(["y"], feeds)[0], wanted[0], rtol=1e-4, atol=1e-4)


def product(key, x, w):
    """What the array of a weight makes of what drives it, by numpy."""
    if key == "k":  # two groups
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
        parts = [np.einsum("nchwij,ocij->nohw", windows[:, 2 * g : 2 * g + 2], w[3 * g : 3 * g + 3])
                 for g in range(2)]  # fmt: skip
        return np.concatenate(parts, axis=1).astype(np.float32)
    if key == "t":
        return np.einsum("nchw,coij->nohiwj", x, w).reshape(x.shape[0], 2, 4, 4).astype(np.float32)
    return {"g": lambda: x @ w.T, "l": lambda: w @ x, "r": lambda: x @ w}[key]()


def test_a_recurrent_operator_stays_as_it_is(tmp_path, generator):
    """Its products are inside it, and the digital part says so; other layers are cut all the same."""
    weights = {
        "W": generator.standard_normal((1, 16, 3)).astype(np.float32),
        "R": generator.standard_normal((1, 16, 4)).astype(np.float32),
        "m": generator.standard_normal((4, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R"], ["", "h"], hidden_size=4),
        helper.make_node("MatMul", ["h", "m"], ["y"]),
    ]
    part = cut(saved(tmp_path / "m.onnx", nodes, {"x": [5, 2, 3]}, weights, {"y": [1, 2, 2]}))
    assert [one.key for one in part.cuts] == ["m"]
    assert set(part.whole) == {"W", "R"}
    assert "inside its LSTM" in part.whole["W"]

"""Weights that are stored as integers: another grid, the same function up to its rounding, still integers."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from nvaudit.jobs.remapping import remap
from nvaudit.model import constants, load_model
from nvaudit.model.decode import IntegerGrid
from nvaudit.model.regrid import code_ranges, with_numbers
from nvaudit.model.rewrite import write_model
from nvaudit.remapping.clip import regridded

RNG = np.random.Generator(np.random.PCG64(7))
CODES = RNG.integers(-31, 32, (8, 6)).astype(np.int8)
X = RNG.normal(0, 1, (16, 8)).astype(np.float32)


@given(
    arrays.arrays(np.int16, (3, 5), elements=st.integers(-127, 127)),
    st.floats(0.01, 2.0),
    st.floats(0.05, 1.5),
)
def test_new_grid_is_finer_and_cuts_off_at_the_limit(codes, scale, share):
    """No step becomes coarser; weights within the limit move by half a new step, others go to the limit."""
    old = IntegerGrid(codes, np.full((1, 1), scale, np.float32), 8)
    values = codes.astype(np.float64) * old.scale
    limit = share * 127 * scale
    new = regridded(old, limit, -127, 127)
    got = new.codes.astype(np.float64) * new.scale
    assert (new.scale <= old.scale).all()
    assert np.abs(new.codes).max(initial=0) <= 127
    edge = min(limit, 127 * scale)
    assert np.abs(got - np.clip(values, -edge, edge)).max() <= 0.5001 * float(new.scale.max()) + 1e-6 * edge


def test_scales_of_channels_get_limits_of_their_own():
    """A limit for each scale; a channel of zeros, and one whose limit is no limit, keep their scales."""
    codes = np.array([[10, -20], [0, 0], [50, 127]], np.int16)
    old = IntegerGrid(codes, np.array([[0.1], [0.2], [0.3]], np.float32), 8)
    new = regridded(old, np.array([[2.0], [0.0], [99.0]]), -127, 127)
    np.testing.assert_allclose(new.scale[:, 0], [2.0 / 127, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(new.codes, [[64, -127], [0, 0], [50, 127]])


def outputs(path):
    """The output of a model as it is written: fused, integer products round activations too."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


def graph(nodes, stored, shape):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *X.shape[1:]])]
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", *shape])]
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outs, stored),
        opset_imports=[helper.make_opsetid("", 13)], ir_version=8,
    )  # fmt: skip
    onnx.checker.check_model(model, full_check=True)
    return model


def dequantised(per_channel):
    scale = np.linspace(0.01, 0.03, 6).astype(np.float32) if per_channel else np.float32(0.02)
    node = helper.make_node("DequantizeLinear", ["w", "s"], ["real"], axis=1)
    stored = {"w": CODES, "s": scale}
    return graph([node, helper.make_node("MatMul", ["x", "real"], ["y"])], stored, (6,))


def unsigned():
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["real"]),
        helper.make_node("Transpose", ["real"], ["turned"], perm=[1, 0]),
        helper.make_node("Gemm", ["x", "turned", "b"], ["y"], transB=1),
    ]
    stored = {"w": (CODES + 120).astype(np.uint8), "s": np.float32(0.02), "z": np.uint8(120)}
    return graph(nodes, {**stored, "b": np.ones(6, np.float32)}, (6,))


def integer_bias():
    """As static quantisation exports it: the step of the bias is the product of the operands' steps."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xr"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["real"], axis=1),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bias"], axis=0),
        helper.make_node("Gemm", ["xr", "real", "bias"], ["y"]),
    ]
    s = np.linspace(0.01, 0.03, 6).astype(np.float32)
    stored = {"xs": np.float32(0.03), "xz": np.int8(0), "w": CODES, "s": s}
    stored |= {"b": np.arange(-3000, 3000, 1000).astype(np.int32), "bs": s * np.float32(0.03)}
    return graph(nodes, stored, (6,))


def dynamic():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("Mul", ["xs", "s"], ["both"]),
        helper.make_node("MatMulInteger", ["xq", "w", "xz"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "both"], ["y"]),
    ]
    return graph(nodes, {"w": CODES, "s": np.float32([0.02])}, (6,))


def integer_product():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("QLinearMatMul", ["xq", "xs", "xz", "w", "s", "z", "ys", "yz"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    stored = {"xs": np.float32(0.03), "xz": np.int8(0), "w": CODES, "s": np.float32(0.02), "z": np.int8(0)}
    return graph(nodes, {**stored, "ys": np.float32(0.05), "yz": np.int8(0)}, (6,))


FORMS = {
    "dequantised": lambda: dequantised(False),
    "one scale per channel": lambda: dequantised(True),
    "unsigned, transposed": unsigned,
    "integer bias": integer_bias,
    "bare integers, dynamic": dynamic,
    "integer product": integer_product,
}


@pytest.mark.parametrize("form", list(FORMS))
def test_finer_grid_keeps_the_function_and_the_form(tmp_path, form):
    """Codes three times as large with scales a third as large: the same function, nodes and types."""
    path = tmp_path / "m.onnx"
    path.write_bytes(FORMS[form]().SerializeToString())
    loaded = load_model(path)
    weight = next(c.weight for c in constants(loaded) if c.weight is not None)
    grid = weight.load().grid
    assert code_ranges(loaded.model, ["w"]) == {"w": (-120, 135) if "unsigned" in form else (-128, 127)}
    finer = IntegerGrid(grid.codes * 3, grid.scale / np.float32(3), grid.storage_bits)
    write_model(with_numbers(loaded, {"w": finer}), tmp_path / "o.onnx")
    want, got = outputs(path), outputs(tmp_path / "o.onnx")
    assert np.abs(want).max() > 0.2
    # An integer bias is rounded to a third of its step, an integer result to its step where a tie turns.
    slack = 0.0501 if "product" in form else 0.001 if "bias" in form else 1e-5
    np.testing.assert_allclose(got, want, atol=slack, rtol=1e-5)
    old, new = onnx.load(path).graph, onnx.load(tmp_path / "o.onnx").graph
    assert [node.op_type for node in new.node] == [node.op_type for node in old.node]
    kinds = [{t.name: t.data_type for t in g.initializer} for g in (old, new)]
    assert kinds[0] == kinds[1]
    stored = {t.name: numpy_helper.to_array(t) for t in new.initializer}
    zero = 120 if "unsigned" in form else 0
    np.testing.assert_array_equal(stored["w"].astype(int) - zero, 3 * CODES.astype(int))


def shared_scale():
    """The step of the weight is the step of another tensor too, which must not follow."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s"], ["xr"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["real"]),
        helper.make_node("MatMul", ["xr", "real"], ["y"]),
    ]
    return graph(nodes, {"w": CODES, "s": np.float32(0.02)}, (6,))


def test_a_shared_scale_is_copied(tmp_path):
    """What else takes the scale keeps the old one."""
    path = tmp_path / "m.onnx"
    path.write_bytes(shared_scale().SerializeToString())
    loaded = load_model(path)
    grid = next(c.weight for c in constants(loaded) if c.weight is not None).load().grid
    finer = IntegerGrid(grid.codes * 3, grid.scale / np.float32(3), grid.storage_bits)
    write_model(with_numbers(loaded, {"w": finer}), tmp_path / "o.onnx")
    np.testing.assert_allclose(outputs(tmp_path / "o.onnx"), outputs(path), atol=1e-5)


def bare():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
        helper.make_node("MatMulInteger", ["xq", "w", "xz"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["y"], to=TensorProto.FLOAT),
    ]
    return graph(nodes, {"w": CODES}, (6,))


def rounded_inside():
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["real"]),
        helper.make_node("MatMul", ["x", "real"], ["y"]),
    ]
    return graph(nodes, {"w": CODES * np.float32(0.02), "s": np.float32(0.02), "z": np.int8(0)}, (6,))


@pytest.mark.parametrize(
    ("make", "words"),
    [(bare, "counts in bare integers"), (rounded_inside, "rounded to its integer grid inside the graph")],
)
def test_what_cannot_be_rescaled_says_why(tmp_path, make, words):
    """A product of integers without a factor, and floats that the graph itself rounds."""
    path = tmp_path / "m.onnx"
    path.write_bytes(make().SerializeToString())
    assert words in code_ranges(load_model(path).model, ["w"])["w"]


def test_remap_clips_integer_weights_and_writes_integers(tmp_path):
    """On a quantised model with a few large codes the chips get better, and what is written is quantised."""
    rng = np.random.Generator(np.random.PCG64(3))
    codes = np.clip(rng.normal(0, 12, (8, 6)).round(), -30, 30).astype(np.int8)
    codes[0, :] = 127
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["real"], axis=1),
        helper.make_node("MatMul", ["x", "real"], ["y"]),
    ]
    path = tmp_path / "m.onnx"
    path.write_bytes(graph(nodes, {"w": codes, "s": np.full(6, 0.02, np.float32)}, (6,)).SerializeToString())
    x = rng.normal(0, 1, (200, 8)).astype(np.float32)
    x[:, 0] *= 0.01  # the large weights hardly matter
    labels = (x @ (codes * np.float32(0.02))).argmax(1)
    np.savez(tmp_path / "m.npz", x=x, y=labels)
    report = remap(
        path,
        "rram",
        out=tmp_path / "o.onnx",
        sigma=0.4,
        trials=40,
        calibration_chips=8,
        max_clean_loss=0.02,
    )
    row = report.tensors[0]
    assert (row.scales, row.clip_reason) == ("refused", "")
    assert row.clip < 0.6
    assert not report.exact
    assert report.difference.mean.low > 0
    assert report.before.nominal - report.after.nominal <= 0.02
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "o.onnx").graph.initializer}
    assert stored["w"].dtype == np.int8
    assert np.abs(stored["w"].astype(int)).max() <= 128
    assert (stored["s"] < 0.02).all()


def test_what_helps_and_costs_too_much_is_named(tmp_path):
    """Where clipping is refused for its price, a note says what it would bring."""
    rng = np.random.Generator(np.random.PCG64(3))
    codes = np.clip(rng.normal(0, 12, (8, 6)).round(), -30, 30).astype(np.int8)
    codes[0, :] = 127
    path = tmp_path / "m.onnx"
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["real"]),
        helper.make_node("MatMul", ["x", "real"], ["y"]),
    ]
    path.write_bytes(graph(nodes, {"w": codes, "s": np.float32(0.02)}, (6,)).SerializeToString())
    x = rng.normal(0, 1, (200, 8)).astype(np.float32)
    x[:, 0] *= 0.3
    np.savez(tmp_path / "m.npz", x=x, y=(x @ (codes * np.float32(0.02))).argmax(1))
    report = remap(
        path, "rram", out=tmp_path / "o.onnx", sigma=0.4, trials=0, calibration_chips=8,
        calibration_images=40, max_clean_loss=0.0, recalibrate=False, time_budget=0,
    )  # fmt: skip
    dear = [step for step in report.steps if step.chips == 8 and step.reason.startswith("costs too much")]
    assert dear
    assert any("--max-clean-loss 0 allows" in note for note in report.notes)

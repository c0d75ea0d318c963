"""Read noise in the graph: its law per operator, its seeds, and which weights can take it."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy import stats

from nvaudit.model import build_template, load_model, reseed_read_noise

N = 4000


def _save(tmp_path: Path, nodes, weights: dict[str, np.ndarray], x_shape: list, opset: int = 17) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def _run(template, fills: dict[str, np.ndarray], x: np.ndarray, proto: bytes | None = None) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_external_initializers(
        list(fills), [ort.OrtValue.ortvalue_from_numpy(a) for a in fills.values()]
    )
    session = ort.InferenceSession(proto or template.proto, options, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


rng = np.random.Generator(np.random.SFC64(7))


def _gemm():
    weights = {"w": rng.normal(size=(5, 6)).astype("f"), "b": rng.normal(size=5).astype("f")}
    return (
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1, alpha=1.5, name="fc")],
        weights,
        ["N", 6],
    )


def _matmul():
    return (
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")],
        {"w": rng.normal(size=(6, 5)).astype("f")},
        ["N", 6],
    )


def _conv():
    weights = {"w": rng.normal(size=(4, 1, 3, 3)).astype("f"), "b": rng.normal(size=4).astype("f")}
    node = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], group=2, pads=[1, 1, 1, 1], strides=[2, 2], name="c"
    )
    return [node], weights, ["N", 2, 4, 4]


def _einsum():
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="ni,io->no", name="e")
    return [node], {"w": rng.normal(size=(6, 5)).astype("f")}, ["N", 6]


@pytest.mark.parametrize("case", [_gemm, _matmul, _conv, _einsum])
def test_read_noise_is_normal_with_the_variance_of_independent_devices(tmp_path, case):
    """y gains N(0, Σ x² v): checked against summing device noise read by read; false alarm 1e-4 per case."""
    nodes, weights, shape = case()
    loaded = load_model(_save(tmp_path, nodes, weights, shape))
    template = build_template(loaded, ["w"], read_noise=["w"])
    slots = {slot.variance: slot.name for slot in template.slots}
    w = weights["w"]
    variance = rng.uniform(0.01, 0.2, w.shape).astype("f")
    one = rng.normal(size=(1, *shape[1:])).astype("f")
    x = np.repeat(one, N, axis=0)
    fills = {slots[False]: w, slots[True]: variance}
    noisy = _run(template, fills, x).reshape(N, -1)
    clean = _run(template, {**fills, slots[True]: np.zeros_like(variance)}, one).reshape(-1)
    # The same operator on single reads of single devices: the law that the term must have.
    reads = np.stack(
        [
            _run(template, {slots[False]: w + np.sqrt(variance) * rng.normal(size=w.shape).astype("f"),
                            slots[True]: np.zeros_like(variance)}, one).reshape(-1)
            for _ in range(800)
        ]
    )  # fmt: skip
    noise = noisy - clean
    assert np.abs(noise.mean(axis=0)).max() < 5 * (noise.std(axis=0) / np.sqrt(N)).max()
    ratio = noise.var(axis=0) / np.maximum(reads.var(axis=0), 1e-12)
    wanted = reads.var(axis=0) > 1e-9
    assert (np.abs(ratio[wanted] - 1) < 0.3).all()
    assert (noise[:, ~wanted] == 0).all()
    column = int(np.argmax(noise.std(axis=0)))
    assert stats.kstest(noise[:, column] / noise[:, column].std(), "norm").pvalue > 1e-4
    # Different samples of one batch are read apart.
    assert abs(np.corrcoef(noise[:-1, column], noise[1:, column])[0, 1]) < 0.08


def test_zero_variance_leaves_the_output_bit_for_bit(tmp_path):
    """A silent read changes nothing."""
    nodes, weights, shape = _conv()
    loaded = load_model(_save(tmp_path, nodes, weights, shape))
    x = rng.normal(size=(8, *shape[1:])).astype("f")
    noisy = build_template(loaded, ["w"], read_noise=["w"])
    slots = {slot.variance: slot.name for slot in noisy.slots}
    with_term = _run(noisy, {slots[False]: weights["w"], slots[True]: np.zeros_like(weights["w"])}, x)
    plain = build_template(loaded, ["w"])
    assert np.array_equal(with_term, _run(plain, {plain.slots[0].name: weights["w"]}, x))


def test_seeds_make_a_chip_reproducible_and_chips_different(tmp_path):
    """The same address gives the same noise, another chip another."""
    nodes, weights, shape = _matmul()
    loaded = load_model(_save(tmp_path, nodes, weights, shape))
    template = build_template(loaded, ["w"], read_noise=["w"])
    slots = {slot.variance: slot.name for slot in template.slots}
    fills = {slots[False]: weights["w"], slots[True]: np.ones_like(weights["w"])}
    x = rng.normal(size=(64, 6)).astype("f")
    first, again, other = (
        _run(template, fills, x, reseed_read_noise(template.proto, 0, trial)) for trial in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert abs(np.corrcoef((first - other).ravel(), first.ravel())[0, 1]) < 1
    assert not np.array_equal(first, other)


def test_recurrent_weights_get_no_output_term(tmp_path):
    """An LSTM reads its weights inside the operator, so no variance slot is opened for it."""
    w, r = rng.normal(size=(1, 16, 3)).astype("f"), rng.normal(size=(1, 16, 4)).astype("f")
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4, name="rnn")
    loaded = load_model(_save(tmp_path, [node], {"w": w, "r": r}, [5, "N", 3]))
    template = build_template(loaded, ["w", "r"], read_noise=["w", "r"])
    assert not any(slot.variance for slot in template.slots)


def test_half_precision_keeps_its_type_and_does_not_overflow(tmp_path):
    """Squares are summed in single precision: inputs of 300 would overflow float16."""
    w = (rng.normal(size=(6, 5)) * 0.01).astype(np.float16)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["N", 5])],
        [numpy_helper.from_array(w, "w")],
    )
    path = tmp_path / "half.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    template = build_template(load_model(path), ["w"], read_noise=["w"])
    slots = {slot.variance: slot.name for slot in template.slots}
    x = np.full((N, 6), 300, np.float16)
    fills = {slots[False]: w, slots[True]: np.full(w.shape, 1e-6, np.float32)}
    y = _run(template, fills, x)
    assert y.dtype == np.float16
    assert np.isfinite(y).all()
    wanted = np.sqrt(6 * 300**2 * 1e-6)
    assert abs(y.astype(float).std(axis=0).mean() / wanted - 1) < 0.05

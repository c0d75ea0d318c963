"""Computed, picked and wide weights through the commands: inspect, audit, replay, harden."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from quick import audit

from nvaudit.jobs.hardening import harden
from nvaudit.jobs.remapping import remap
from nvaudit.jobs.replaying import replay

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"
node = helper.make_node


def behind(operator, constants, target, skip=0):
    """The example network with its weights behind an operator that changes nothing."""
    model = onnx.load(EXAMPLE)
    kept = [t.name for t in model.graph.initializer if len(t.dims) > 1][skip:]
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items())
    nodes = []
    for one in model.graph.node:
        for place, name in enumerate(one.input):
            if name in kept:
                nodes.append(node(operator, [name, *constants], [f"{name}_e"]))
                one.input[place] = f"{name}_e"
        nodes.append(one)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    target.write_bytes(model.SerializeToString())
    target.with_suffix(".npz").write_bytes(EXAMPLE.with_suffix(".npz").read_bytes())
    return target


def mlp(folder, nodes, stored, *, opset=17, ir_version=8):
    """x·F, Relu, then a product with ``e``, which nodes compute; 40 samples of 5 classes beside it."""
    rng = np.random.Generator(np.random.PCG64(0))
    first = rng.standard_normal((16, 16)).astype(np.float32)
    graph = helper.make_graph(
        [
            node("MatMul", ["x", "F"], ["h"], name="first"),
            node("Relu", ["h"], ["r"]),
            *nodes,
            node("MatMul", ["r", "e"], ["y"], name="head"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in {"F": first, **stored}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    x = rng.standard_normal((40, 16)).astype(np.float32)
    np.savez(path.with_suffix(".npz"), x=x, y=rng.integers(0, 5, 40))
    return path


W = np.random.Generator(np.random.PCG64(1)).standard_normal((16, 5)).astype(np.float32)


def test_the_example_behind_clips_is_as_noisy_as_without(tmp_path):
    """All four weights are on the array, and a chip is no better than one of the plain network."""
    limits = {"lo": np.float32(-100), "hi": np.float32(100)}
    clipped = audit(behind("Clip", limits, tmp_path / "clip.onnx", skip=1), "fefet1", trials=60, workers=0)
    plain = audit(EXAMPLE, "fefet1", trials=60, workers=0)
    mapped = [tensor for tensor in clipped.tensors if tensor.decision == "mapped"]
    assert sum(int(np.prod(tensor.shape)) for tensor in mapped) == 18_248
    assert clipped.nominal == plain.nominal
    assert clipped.quantised == plain.quantised
    # Other names, other draws of one law: the means agree within five of their standard errors.
    spread = np.std(plain.trials.values) / np.sqrt(60)
    assert abs(np.mean(clipped.trials.values) - np.mean(plain.trials.values)) < 5 * np.sqrt(2) * spread


def test_a_replayed_chip_holds_the_noisy_computed_weight(tmp_path):
    """What computed the weight is gone from the chip's file, whose value is the reported one."""
    path = mlp(tmp_path, [node("Clip", ["w", "", "hi"], ["e"])], {"w": W, "hi": np.float32(1)})
    report = audit(path, "rram", trials=4, workers=0)
    done = replay(report, tmp_path / "chip.onnx", trial=2)
    assert done.measured == done.reported == report.trials.values[2]
    chip = onnx.load(tmp_path / "chip.onnx")
    assert "Clip" not in {one.op_type for one in chip.graph.node}
    held = {t.name: numpy_helper.to_array(t) for t in chip.graph.initializer}
    assert not np.array_equal(held["e"], np.minimum(W, 1))
    assert np.abs(held["e"] - np.minimum(W, 1)).max() < 1


def test_training_changes_what_a_computed_weight_comes_from(tmp_path):
    """The graph comes back as it was, with other numbers in the tensors that it computes the weight from."""
    nodes = [node("MatMul", ["a", "b"], ["ab"]), node("Add", ["w", "ab"], ["e"])]
    path = mlp(tmp_path, nodes, {"w": W, "a": W[:, :2], "b": W[:2]})
    harden(path, "rram", out=tmp_path / "hard.onnx", method="gaussian", epochs=1, trials=4, keep="last")
    before, after = onnx.load(path), onnx.load(tmp_path / "hard.onnx")
    assert [n.op_type for n in after.graph.node] == [n.op_type for n in before.graph.node]
    old = {t.name: numpy_helper.to_array(t) for t in before.graph.initializer}
    new = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    assert all(not np.array_equal(old[name], new[name]) for name in ("F", "w", "a", "b"))


def test_training_leaves_weights_that_torch_cannot_compute(tmp_path):
    """Unique is not known in torch: the weight is computed once, has noise on it, and is said to be left."""
    nodes = [node("Unique", ["w"], ["u"], sorted=1), node("Reshape", ["u", "s"], ["e"])]
    path = mlp(tmp_path, nodes, {"w": W, "s": np.int64([16, 5])})
    report = harden(path, "rram", out=tmp_path / "hard.onnx", epochs=1, trials=4, keep="last")
    assert any("not trained, as torch lacks an operator" in note and ": u" in note for note in report.notes)
    old = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    new = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "hard.onnx").graph.initializer}
    np.testing.assert_array_equal(old["w"], new["w"])
    assert not np.array_equal(old["F"], new["F"])


def test_remap_leaves_a_computed_weight_and_says_so(tmp_path):
    """Its stored parts are as they were; the written model computes the same weight."""
    path = mlp(tmp_path, [node("Clip", ["w", "", "hi"], ["e"])], {"w": W, "hi": np.float32(1)})
    report = remap(path, "rram", out=tmp_path / "hard.onnx", trials=4)
    (row,) = (tensor for tensor in report.tensors if tensor.name == "e")
    assert "is computed from other constants in the graph" in str(row)
    new = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "hard.onnx").graph.initializer}
    np.testing.assert_array_equal(new["w"], W)


def test_a_weight_of_sixteen_bits_takes_the_bits_of_the_device(command, tmp_path):
    """inspect and audit agree on H, and the reason says why its own grid is not kept."""
    stored = {"w": np.rint(9000 * W).astype(np.int16), "s": np.float32(1e-4), "z": np.int16(0)}
    path = mlp(tmp_path, [node("DequantizeLinear", ["w", "s", "z"], ["e"])], stored, opset=21, ir_version=10)
    rows = {row["name"]: row for row in json.loads(command("inspect", path, "--bits", 6, "--json").out)}
    assert (rows["w"]["decision"], rows["w"]["bits"]) == ("mapped", 6)
    assert rows["w"]["reason"].endswith(
        "its own 16 bits are more than devices hold: quantised like a float weight"
    )
    report = audit(path, "rram", trials=2, workers=0, bits=6)
    assert {tensor.name: tensor.bits for tensor in report.tensors}["w"] == 6


@pytest.mark.parametrize("bits", [2, 4])
def test_a_weight_of_few_bits_takes_as_many(command, tmp_path, bits):
    """inspect and audit count the slices of the integers that Clip leaves, not of their 8-bit type."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    stored = {"w": W, "s": np.float32(0.3), "z": np.int8(0), "lo": np.int8(low), "hi": np.int8(high)}
    nodes = [
        node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        node("Clip", ["q", "lo", "hi"], ["c"]),
        node("DequantizeLinear", ["c", "s", "z"], ["e"]),
    ]
    path = mlp(tmp_path, nodes, stored)
    rows = {row["name"]: row for row in json.loads(command("inspect", path, "--json").out)}
    assert (rows["w"]["bits"], rows["w"]["slices"]) == (bits, bits // 2)
    report = audit(path, "rram", trials=2, workers=0, sigmas=(0.0,))
    assert {tensor.name: tensor.bits for tensor in report.tensors}["w"] == bits
    done = replay(report, tmp_path / "chip.onnx", trial=0)
    chip = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "chip.onnx").graph.initializer}
    codes = np.clip(np.rint(W / np.float32(0.3)), low, high)
    np.testing.assert_array_equal(chip["w"], codes.astype(np.float32) * np.float32(0.3))
    assert done.measured == done.reported


def test_inspect_names_the_limit_that_was_hit(command, tmp_path):
    """A weight too large to be computed is not silently left out."""
    nodes = [
        node("MatMul", ["u", "v"], ["big"], name="outer"),
        node("ReduceSum", ["big", "axis"], ["sum"]),
        node("Add", ["w", "sum"], ["e"]),
    ]
    long = np.ones(100_000, np.float32)
    stored = {"w": W, "u": long[:, None], "v": long[None], "axis": np.int64([0, 1])}
    path = mlp(tmp_path, nodes, stored)
    rows = {row["name"]: row for row in json.loads(command("inspect", path, "--json").out)}
    assert rows["w"]["decision"] == "digital"
    assert "'outer' makes 10,000,000,000 elements, above the " in rows["w"]["reason"]


def test_a_picked_expert_is_said_to_be_a_weight(command, tmp_path):
    """Not an embedding table; the reason names the product."""
    experts = np.random.Generator(np.random.PCG64(2)).standard_normal((3, 16, 5)).astype(np.float32)
    nodes = [
        node("ArgMax", ["r"], ["i"], axis=1, keepdims=0),
        node("Mod", ["i", "three"], ["m"]),
        node("Gather", ["experts", "m"], ["picked"]),
        node("Unsqueeze", ["r", "one"], ["ru"]),
        node("MatMul", ["ru", "picked"], ["yu"]),
        node("Squeeze", ["yu", "one"], ["unused"]),
        node("Identity", ["w"], ["e"]),
    ]
    stored = {"experts": experts, "three": np.int64(3), "one": np.int64([1]), "w": W}
    path = mlp(tmp_path, nodes, stored)
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("unused", TensorProto.FLOAT, None))
    path.write_bytes(model.SerializeToString())
    rows = {row["name"]: row for row in json.loads(command("inspect", path, "--json").out)}
    assert rows["experts"]["decision"] == "mapped"
    assert rows["experts"]["reason"] == "weight of MatMul, picked by Gather"
    assert rows["experts"]["crossbars"] == 3


def test_noise_of_zero_gives_what_onnx_runtime_gives(tmp_path):
    """A chip without noise at many bits, of a computed weight, against the file itself."""
    nodes = [node("Tanh", ["w"], ["t"]), node("Pad", ["t", "p"], ["e"])]
    path = mlp(tmp_path, nodes, {"w": W[:14, :5], "p": np.int64([1, 0, 1, 0])})
    report = audit(path, "rram", trials=2, workers=0, sigmas=(0.0,), bits=14)
    replay(report, tmp_path / "chip.onnx", trial=0)
    x = np.load(path.with_suffix(".npz"))["x"]
    want, have = (ort.InferenceSession(str(p)).run(None, {"x": x})[0] for p in (path, tmp_path / "chip.onnx"))
    np.testing.assert_allclose(have, want, atol=2e-3 * np.abs(want).max())

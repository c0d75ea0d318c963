"""Which models may be re-batched, operator by operator, and which must not."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from rebatch_cases import FLOAT, KEPT, MIXED, SPACE, W, build, draw

from nvaudit.model.batch.rebatch import BATCH_NAME, analyse_batch, rebatch


def run(model, feeds):
    """Outputs of ONNX Runtime."""
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def assert_same_as_one_by_one(before, after, result, count=5, batch=1):
    """The edited model on all samples gives what the original gives on `batch` samples at a time."""
    inputs = [v for v in before.graph.inputs if v.name not in before.graph.initializers]
    sizes = {v.name: [d if isinstance(d, int) else 1 for d in v.shape] for v in inputs}
    feeds = {}
    for name, shape in sizes.items():
        if name in result.batch_axes:
            shape[result.batch_axes[name]] = count * batch
        feeds[name] = draw(shape, name)
    parts = []
    for k in range(count):
        part = dict(feeds)
        for name, axis in result.batch_axes.items():
            part[name] = np.take(feeds[name], range(k * batch, (k + 1) * batch), axis)
        parts.append(run(before, part))
    for i, (whole, out) in enumerate(zip(run(after, feeds), before.graph.outputs, strict=True)):
        axis = result.output_axes[out.name]
        wanted = parts[0][i] if axis is None else np.concatenate([part[i] for part in parts], axis)
        np.testing.assert_allclose(whole, wanted, rtol=1e-4, atol=1e-5)


def check_rebatched(model, batch=1):
    """Assert that the model is re-batched, and rightly so."""
    before = model.clone()
    result = rebatch(model)
    assert result.status == "rebatched", result.reason
    assert result.fixed_batch is None
    assert not result.coupled
    inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True)
    onnx.checker.check_model(inferred)
    assert_same_as_one_by_one(before, model, result, batch=batch)
    return result


@pytest.mark.parametrize("case", KEPT)
def test_operators_that_keep_samples_apart_are_rebatched(case):
    """A batch of five through the re-batched model equals five single samples through the original."""
    nodes, shape, constants = KEPT[case]
    if shape is None:  # the batch is on axis 1 of the product's left operand
        nodes, shape = [("Transpose", "x", "t"), *[(op, "t w", out, a) for op, _, out, a in nodes]], [1, 4]
    check_rebatched(build(nodes, {"x": shape}, constants))


@pytest.mark.parametrize("case", MIXED)
def test_operators_that_may_mix_samples_stay_fixed(case):
    """The model is left as it is, the reason names the node, and certain influence is reported."""
    nodes, shape, constants, coupled = MIXED[case]
    model = build(nodes, {"x": shape}, constants)
    text = ir.to_proto(model).SerializeToString()
    result = rebatch(model)
    assert (result.status, result.fixed_batch) == ("fixed", shape[0]), result.reason
    assert result.coupled is coupled
    assert any(f"{op} '{op}_" in result.reason for op, *_ in nodes) or case == "constant output"
    assert result.batch_axes == {"x": 0}
    assert ir.to_proto(model).SerializeToString() == text


def test_softmax_before_opset_13_normalises_over_all_later_axes():
    """Opset 11 softmax with the default axis 1 keeps [N, …] apart, but not a batch on axis 1."""
    check_rebatched(build([("Softmax", "x", "y")], {"x": [1, 2, 3]}, opset=11))
    moved = [("Transpose", "x", "t", {"perm": [1, 0, 2]}), ("Softmax", "t", "y")]
    assert rebatch(build(moved, {"x": [1, 2, 3]}, opset=11)).coupled
    assert rebatch(build(moved, {"x": [1, 2, 3]}, opset=13)).status == "rebatched"


def test_old_opsets_keep_their_parameters_in_attributes():
    """Axes, bounds and pads are read from attributes where the opset has them there."""
    nodes = [
        ("Slice", "x", "a", {"starts": [1], "ends": [3], "axes": [1]}),
        ("Pad", "a", "b", {"pads": [0, 1, 0, 1]}),
        ("Unsqueeze", "b", "c", {"axes": [0]}),
        ("Squeeze", "c", "d", {"axes": [0]}),
        ("ReduceSum", "d", "y", {"axes": [1]}),
    ]
    check_rebatched(build(nodes, {"x": [1, 4]}, opset=9))
    assert (
        rebatch(build([("Pad", "x", "y", {"pads": [1, 0, 0, 0]})], {"x": [1, 4]}, opset=9)).status == "fixed"
    )


def test_a_batch_of_several_samples_is_freed_too():
    """A model exported for 3 samples takes any number, unless constants differ from sample to sample."""
    nodes = [("MatMul", "x w", "a"), ("Reshape", "a s", "y")]
    constants = {"w": W, "s": np.array([3, 1, -1])}
    check_rebatched(build(nodes, {"x": [3, 4]}, constants), batch=3)
    result = rebatch(build([("Add", "x c", "y")], {"x": [3, 4]}, {"c": draw((3, 4), 1)}))
    assert (result.status, result.fixed_batch) == ("fixed", 3)


def test_a_shape_shared_by_two_reshapes_is_not_edited_in_place():
    """Each edited Reshape gets its own constant; another user of the old one keeps it."""
    nodes = [("Reshape", "x s", "a"), ("Reshape", "c s", "d"), ("Add", "a d", "y")]
    model = build(nodes, {"x": [1, 2, 4]}, {"s": np.array([1, 8]), "c": draw((2, 4), 1)})
    check_rebatched(model)
    assert model.graph.initializers["s"].const_value.numpy().tolist() == [1, 8]


def test_the_edit_names_the_batch_and_drops_old_shapes():
    """Inputs and outputs get a symbolic batch; stored shapes of values in between vanish."""
    model = build([("Relu", "x", "a"), ("Relu", "a", "y")], {"x": [1, 4]})
    model.graph.outputs[0].shape = ir.Shape([1, 4])
    model.graph.node(0).outputs[0].shape = ir.Shape([1, 4])
    result = rebatch(model)
    assert result.batch_axes == {"x": 0}
    assert result.output_axes == {"y": 0}
    assert model.graph.inputs[0].shape == [BATCH_NAME, 4]
    assert model.graph.outputs[0].shape == [BATCH_NAME, 4]
    assert model.graph.node(0).outputs[0].shape is None
    assert rebatch(model).status == "dynamic"


def test_initializers_are_inputs_too_before_ir_version_4():
    """The new shape is listed as the old format demands, and is no input that must be fed."""
    model = build([("Reshape", "x s", "y")], {"x": [1, 2, 4]}, {"s": np.array([1, 8])}, opset=7)
    model.ir_version = 3
    model.graph.inputs.append(model.graph.initializers["s"])
    result = check_rebatched(model)
    assert result.batch_axes == {"x": 0}
    assert run(model, {"x": draw((3, 2, 4), 1)})[0].shape == (3, 8)


def test_analysis_alone_changes_nothing():
    """`analyse_batch` gives the same answer as `rebatch` and leaves the model byte for byte."""
    model = build([("Reshape", "x s", "y")], {"x": [1, 2, 4]}, {"s": np.array([1, 8])})
    text = ir.to_proto(model).SerializeToString()
    result = analyse_batch(model)
    assert ir.to_proto(model).SerializeToString() == text
    assert result == rebatch(model)
    assert "Reshape 'Reshape_0' shape [1,8] became [-1,8]" in result.reason


def test_wrong_shapes_in_the_file_are_not_believed():
    """A stored shape that hides the mixing (here: a rank) has no say."""
    model = build([("ReduceMax", "x", "m", {"axes": [1], "keepdims": 0}), ("Add", "x m", "y")], {"x": [1, 4]})
    model.graph.node(0).outputs[0].shape = ir.Shape([1, 1])
    assert rebatch(model).status == "fixed"


def test_a_recurrent_state_is_batched_on_its_own_axis():
    """Of the axes of size 1 of a second input, the one with which the proof succeeds is the batch."""
    nodes = [("LSTM", "t w r   h", "y hn", {"hidden_size": 2})]
    constants = {"w": draw((1, 8, 3), 1), "r": draw((1, 8, 2), 2)}
    model = build(nodes, {"t": [5, 1, 3], "h": [1, 1, 2]}, constants, ("y", "hn"))
    result = check_rebatched(model)
    assert result.batch_axes == {"t": 1, "h": 1}
    assert result.output_axes == {"y": 2, "hn": 1}


def test_an_input_without_a_batch_is_constant_over_the_set():
    """A 0-d setting, or a vector that cannot be a batch, is shared by all samples."""
    result = check_rebatched(
        build([("Mul", "x t", "a"), ("Add", "a s", "y")], {"x": [1, 4], "t": [], "s": [1]})
    )
    assert result.batch_axes == {"x": 0}


def test_branches_are_followed():
    """An If whose condition is shared is walked through; reshapes inside it are edited."""
    shape = numpy_helper.from_array(np.array([1, 8]), "s")
    branches = []
    for name, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
        nodes = [
            helper.make_node("Constant", [], ["s"], value=shape),
            helper.make_node("Reshape", ["x", "s"], ["r"]),
            helper.make_node(op, ["r"], ["o"]),
        ]
        graph = helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("o", FLOAT, None)])
        branches.append((name, graph))
    model = build([("If", "c", "y", dict(branches))], {"x": [1, 2, 4]}, {"c": np.array(True)})
    check_rebatched(model)


def test_a_loop_is_not_followed():
    """A Scan stays fixed, with the reason."""
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "e"], ["t"]), helper.make_node("Identity", ["t"], ["u"])],
        "body",
        [helper.make_tensor_value_info(n, FLOAT, [1]) for n in ("s", "e")],
        [helper.make_tensor_value_info(n, FLOAT, [1]) for n in ("t", "u")],
    )
    model = build([("Scan", "i x", "f y", {"body": body, "num_scan_inputs": 1})], {"x": [1, 1]},
                  {"i": np.zeros(1, np.float32)})  # fmt: skip
    result = rebatch(model)
    assert result.status == "fixed"
    assert "Scan 'Scan_0' repeats" in result.reason


def test_a_malformed_node_is_a_reason_and_not_a_crash():
    """An attribute of the wrong type or too few bounds prove nothing."""
    bad_type = build([("Flatten", "x", "y", {"axis": "one"})], {"x": [1, 4]})
    bad_length = build([("Slice", "x f t", "y")], {"x": [1, 4]}, {"f": np.array([0]), "t": np.zeros(0, int)})
    for model in (bad_type, bad_length):
        result = rebatch(model)
        assert result.status == "fixed"
        assert "do not fit its operator" in result.reason


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ({"x": ["N", 4]}, {"x": 0}),
        ({"x": [None, 4]}, {"x": 0}),
        ({"x": [-1, 4]}, {"x": 0}),
        ({"x": ["batch", "length"], "h": [2, "batch", 8], "sr": []}, {"x": 0, "h": 1}),
        ({"x": ["unk__1", 4], "z": ["unk__2", 4]}, {"x": 0, "z": 0}),
        ({"x": [None, 4], "z": [None, 3]}, {"x": 0, "z": 0}),
        ({"x": ["N", 4], "points": ["count", 2]}, {"x": 0}),
        ({"x": [28, "batch_size", 4]}, {"x": 1}),
        ({"x": [1, "batch", 4]}, {"x": 1}),
        ({"x": [28, "N", 4]}, {"x": 1}),
    ],
)
def test_symbolic_dimensions_tell_the_batch(shapes, axes):
    """The name that says batch, else axis 0, else the only symbolic axis; others share its name."""
    result = analyse_batch(build([("Relu", "x", "y")], shapes))
    assert (result.status, result.batch_axes) == ("dynamic", axes)
    assert result.output_axes == {"y": axes["x"]}
    assert not result.coupled


def test_free_height_and_width_are_no_batch():
    """[1, 3, 'H', 'W'] is a batch of one image of any size, and can be re-batched as such."""
    model = build([("Conv", "x w b", "c"), ("GlobalAveragePool", "c", "p"), ("Reshape", "p s", "y")],
                  {"x": [1, 3, "H", "W"]}, {**SPACE, "s": np.array([1, -1])})  # fmt: skip
    result = rebatch(model)
    assert result.status == "rebatched"
    assert run(model, {"x": draw((4, 3, 5, 6), 0)})[0].shape == (4, 2)
    mean = build([("ReduceMean", "x", "y")], {"x": [3, "T"]})
    assert analyse_batch(mean).status == "fixed"


def test_coupling_is_reported_for_dynamic_models():
    """A free batch size does not mean that the samples are independent."""
    nodes = [("Shape", "x", "s"), ("Reshape", "x s", "r"), ("DynamicQuantizeLinear", "r", "q a z"),
             ("DequantizeLinear", "q a z", "y")]  # fmt: skip
    result = rebatch(build(nodes, {"x": ["N", 4]}))
    assert (result.status, result.coupled) == ("dynamic", True)
    assert "DynamicQuantizeLinear" in result.reason
    result = rebatch(build([("ReduceMean", "x", "m", {"axes": [0]}), ("Sub", "x m", "y")], {"x": ["N", 4]}))
    assert (result.status, result.coupled) == ("dynamic", True)


def test_output_axes_of_dynamic_models():
    """By the shared name, by the rules, or axis 0 where that is free."""
    model = build([("Transpose", "x", "y"), ("Det", "x", "z"), ("ReduceSum", "w", "c")],
                  {"x": ["N", 4]}, {"w": W}, ("y", "z", "c"))  # fmt: skip
    model.graph.outputs[1].shape = ir.Shape(["other"])
    assert analyse_batch(model).output_axes == {"y": 1, "z": 0, "c": None}


def test_a_model_without_inputs_is_fixed():
    """There is nothing to put a batch on."""
    result = analyse_batch(build([("Relu", "c", "y")], {}, {"c": W}))
    assert (result.status, result.batch_axes, result.fixed_batch) == ("fixed", {}, 1)

"""A template filled with the original weights is the original model, for every kind of weight."""

import numpy as np
import onnx
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
    tensor,
    value,
    weights,
)

from nvaudit.errors import ModelError
from nvaudit.model.load import load_model
from nvaudit.model.template import build_template
from nvaudit.model.uses import constants
from nvaudit.model.write import filled_model

node = helper.make_node
X = value("x", ["n", 4])
Y = value("y", None)
FEED = {"x": numbers(2, 4, seed=9)}
MS = "com.microsoft"


def single(nodes, stored, inputs=(X,), output=Y, **extra):
    return make_model(list(nodes), list(inputs), [output], stored, **extra)


@pytest.mark.parametrize("opset", [1, 6, 7, 9, 11, 13, 17, 21])
def test_conv_of_any_operator_set(tmp_path, opset):
    """A grouped convolution, exported for old and new operator sets."""
    nodes = [node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=2)]
    stored = {"w": numbers(6, 2, 3, 3), "b": numbers(6)}
    model = single(nodes, stored, [value("x", ["n", 4, 8, 8])], opset=opset, ir_version=3 if opset < 9 else 8)
    if opset < 9:
        model.graph.input.extend(value(t.name, list(t.dims)) for t in model.graph.initializer)
    compare(tmp_path, model, {"x": numbers(2, 4, 8, 8)})


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("trans", [0, 1])
def test_gemm_and_matmul_on_either_side(tmp_path, left, trans):
    """Constant operands on either side, as stored or transposed by the operator."""
    side = "transA" if left else "transB"
    shape = ((4, 3) if trans else (3, 4)) if left else ((3, 4) if trans else (4, 3))
    inputs = ["w", "x"] if left else ["x", "w"]
    feed = numbers(4, 2) if left else numbers(2, 4)
    nodes = [node("Gemm", [*inputs, "b"], ["y"], **{side: trans})]
    model = single(nodes, {"w": numbers(*shape), "b": numbers(1)}, [value("x", list(feed.shape))])
    compare(tmp_path, model, {"x": feed})


def test_matmul_with_a_constant_left_operand(tmp_path):
    """MatMul(W, x)."""
    model = single([node("MatMul", ["w", "x"], ["y"])], {"w": numbers(3, 4)}, [value("x", [4, "n"])])
    compare(tmp_path, model, {"x": numbers(4, 2)})


def test_conv_transpose_with_groups(tmp_path):
    """ConvTranspose with two groups and a bias."""
    nodes = [node("ConvTranspose", ["x", "w", "b"], ["y"], group=2, strides=[2, 2])]
    model = single(nodes, {"w": numbers(4, 3, 2, 2), "b": numbers(6)}, [value("x", ["n", 4, 5, 5])])
    compare(tmp_path, model, {"x": numbers(2, 4, 5, 5)})


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers(tmp_path, op, gates):
    """Both matrices of a bidirectional layer."""
    stored = {"w": numbers(2, 3 * gates, 4), "r": numbers(2, 3 * gates, 3), "b": numbers(2, 6 * gates)}
    nodes = [node(op, ["x", "w", "r", "b"], ["y"], hidden_size=3, direction="bidirectional")]
    found = compare(tmp_path, single(nodes, stored, [value("x", [5, 2, 4])]), {"x": numbers(5, 2, 4)})
    assert weights(found) == ["w", "r"]


def test_a_weight_shared_behind_a_transpose_fills_two_slots_from_one_array(tmp_path):
    """The slots differ by a transpose; a third use in the first layout shares the first slot."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        node("MatMul", ["a", "wt"], ["b"]),
        node("MatMul", ["b", "w"], ["y"]),
    ]
    model = single(nodes, {"w": numbers(4, 3)})
    compare(tmp_path, model, FEED)
    loaded, _ = opened(tmp_path, model)
    template = build_template(loaded, ["w"])
    assert [(slot.shape, slot.transform) for slot in template.slots] == [
        ((4, 3), ()),
        ((3, 4), (("transpose", (1, 0)),)),
    ]


def test_weights_behind_identity_cast_transpose_and_reshape(tmp_path):
    """The whole chain is folded into the slot."""
    nodes = [
        node("Identity", ["w"], ["i"]),
        node("Cast", ["i"], ["c"], to=FLOAT),
        node("Reshape", ["c", "s"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "t"], ["y"]),
    ]
    stored = {"w": numbers(12).astype(np.float16), "s": np.array([3, 4], np.int64)}
    compare(tmp_path, single(nodes, stored), FEED)
    loaded = load_model(tmp_path / "model.onnx")
    proto = onnx.ModelProto.FromString(build_template(loaded, ["w"]).proto)
    assert [n.op_type for n in proto.graph.node] == ["MatMul"]
    assert [t.name for t in proto.graph.initializer] == ["w"]


def test_tied_embedding_keeps_its_digital_copy(tmp_path):
    """Gather reads the stored table while the product reads the array."""
    nodes = [
        node("Gather", ["e", "x"], ["h"]),
        node("Transpose", ["e"], ["et"], perm=[1, 0]),
        node("MatMul", ["h", "et"], ["y"]),
    ]
    model = single(nodes, {"e": numbers(9, 4)}, [value("x", ["n"], TensorProto.INT64)])
    feed = {"x": np.array([0, 8, 3], np.int64)}
    compare(tmp_path, model, feed)
    loaded, _ = opened(tmp_path, model)
    template = build_template(loaded, ["e"])
    assert template.slots[0].name != "e"
    zero, kept = filled_session(template, {"e": np.zeros((4, 9), np.float32)})
    assert not zero.run(None, feed)[0].any()
    del kept


def test_constant_node_weight(tmp_path):
    """A weight in a Constant node gives its name to the slot."""
    nodes = [node("Constant", [], ["w"], value=tensor(numbers(4, 3))), node("MatMul", ["x", "w"], ["y"])]
    compare(tmp_path, single(nodes, {}), FEED)
    assert build_template(load_model(tmp_path / "model.onnx"), ["w"]).slots[0].name == "w"


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types_are_computed_in_their_own_type(tmp_path, dtype):
    """Slots of half and double precision."""
    element = tensor(np.zeros(1, dtype)).data_type
    model = single(
        [node("MatMul", ["x", "w"], ["y"])],
        {"w": numbers(4, 3).astype(dtype)},
        [value("x", ["n", 4], element)],
        value("y", ["n", 3], element),
    )
    compare(tmp_path, model, {"x": numbers(2, 4).astype(dtype)}, rtol=2e-3 if dtype == np.float16 else 1e-12)


def test_bfloat16_weight_behind_a_cast(tmp_path):
    """Stored in bfloat16, computed in float32."""
    raw = helper.make_tensor("w", TensorProto.BFLOAT16, [4, 3], numbers(12))
    model = single([node("Cast", ["w"], ["f"], to=FLOAT), node("MatMul", ["x", "f"], ["y"])], {})
    model.graph.initializer.append(raw)
    compare(tmp_path, model, FEED)


@pytest.mark.parametrize("per_axis", [False, True])
def test_qdq_weight(tmp_path, per_axis):
    """A DequantizeLinear weight; its slot takes floats."""
    scale = np.array([0.1, 0.2, 0.3], np.float32) if per_axis else np.float32(0.1)
    nodes = [node("DequantizeLinear", ["w", "s"], ["f"], axis=1), node("MatMul", ["x", "f"], ["y"])]
    compare(tmp_path, single(nodes, {"w": integers(-128, 128, 4, 3), "s": scale}), FEED)


def test_fake_quantised_weight(tmp_path):
    """Float → QuantizeLinear → DequantizeLinear on a weight."""
    nodes = [
        node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["f"]),
        node("MatMul", ["x", "f"], ["y"]),
    ]
    compare(tmp_path, single(nodes, {"w": numbers(4, 3), "s": np.float32(0.02), "z": np.int8(2)}), FEED)


BYTES = value("x", ["n", 4], TensorProto.UINT8)
BYTE_FEED = {"x": integers(0, 256, 2, 4, dtype=np.uint8, seed=5)}


@pytest.mark.parametrize("opset", [10, 17])
@pytest.mark.parametrize("zero", [np.uint8(131), np.array([100, 128, 140], np.uint8)])
def test_matmul_integer(tmp_path, opset, zero):
    """Integer products are exact: codes are small integers."""
    stored = {"w": integers(0, 256, 4, 3, dtype=np.uint8), "a": np.uint8(7), "z": zero}
    nodes = [node("MatMulInteger", ["x", "w", "a", "z"], ["y"])]
    compare(
        tmp_path,
        single(nodes, stored, [BYTES], value("y", ["n", 3], TensorProto.INT32), opset=opset),
        BYTE_FEED,
    )


def test_matmul_integer_with_a_constant_left_operand(tmp_path):
    """The weight may be the left integer operand."""
    nodes = [node("MatMulInteger", ["w", "x"], ["y"])]
    model = single(
        nodes,
        {"w": integers(0, 200, 3, 4, dtype=np.uint8)},
        [value("x", [4, "n"], TensorProto.UINT8)],
        value("y", [3, "n"], TensorProto.INT32),
    )
    compare(tmp_path, model, {"x": integers(0, 256, 4, 2, dtype=np.uint8)})


def test_conv_integer(tmp_path):
    """ConvInteger pads with the zero point of its input."""
    stored = {"w": integers(0, 256, 3, 2, 3, 3, dtype=np.uint8), "a": np.uint8(9), "z": np.uint8(120)}
    nodes = [node("ConvInteger", ["x", "w", "a", "z"], ["y"], pads=[1, 1, 1, 1])]
    model = single(
        nodes, stored, [value("x", ["n", 2, 6, 6], TensorProto.UINT8)], value("y", None, TensorProto.INT32)
    )
    compare(tmp_path, model, {"x": integers(0, 256, 2, 2, 6, 6, dtype=np.uint8)})


@pytest.mark.parametrize("per_channel", [False, True])
def test_qlinear_conv(tmp_path, per_channel):
    """QLinearConv with bias; outputs agree within one step."""
    stored = {
        "xs": np.float32(0.02),
        "xz": np.uint8(120),
        "w": integers(-128, 128, 3, 2, 3, 3),
        "ws": np.array([0.01, 0.02, 0.03], np.float32) if per_channel else np.float32(0.01),
        "wz": np.zeros(3, np.int8) if per_channel else np.int8(0),
        "ys": np.float32(0.15),
        "yz": np.uint8(128),
        "b": integers(-500, 500, 3, dtype=np.int32),
    }
    nodes = [node("QLinearConv", ["x", *stored], ["y"], pads=[1, 1, 1, 1])]
    nodes[0].input[:] = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    model = single(
        nodes, stored, [value("x", ["n", 2, 6, 6], TensorProto.UINT8)], value("y", None, TensorProto.UINT8)
    )
    found = compare(tmp_path, model, {"x": integers(0, 256, 2, 2, 6, 6, dtype=np.uint8)}, codes=1)
    assert found["b"].reason.startswith("bias of QLinearConv")


@pytest.mark.parametrize("left", [False, True])
def test_qlinear_matmul(tmp_path, left):
    """QLinearMatMul with the weight on either side."""
    stored = {
        "xs": np.float32(0.02),
        "xz": np.uint8(120),
        "w": integers(0, 256, *((3, 4) if left else (4, 3)), dtype=np.uint8),
        "ws": np.float32(0.01),
        "wz": np.uint8(128),
        "ys": np.float32(0.05),
        "yz": np.uint8(100),
    }
    pairs = [["w", "ws", "wz"], ["x", "xs", "xz"]]
    first, second = pairs if left else reversed(pairs)
    nodes = [node("QLinearMatMul", [*first, *second, "ys", "yz"], ["y"])]
    shape = [4, "n"] if left else ["n", 4]
    model = single(nodes, stored, [value("x", shape, TensorProto.UINT8)], value("y", None, TensorProto.UINT8))
    feed = BYTE_FEED["x"].T if left else BYTE_FEED["x"]
    compare(tmp_path, model, {"x": np.ascontiguousarray(feed)}, codes=1)


def test_dynamic_quantize_matmul(tmp_path):
    """The activation is still quantised as it arrives."""
    stored = {"w": integers(-100, 100, 4, 3), "s": np.float32(0.01), "z": np.int8(0), "b": numbers(3)}
    nodes = [node("DynamicQuantizeMatMul", ["x", "w", "s", "z", "b"], ["y"], domain=MS)]
    compare(tmp_path, single(nodes, stored), FEED)


def test_matmul_integer_to_float(tmp_path):
    """Scales per column and a bias."""
    stored = {
        "w": integers(0, 256, 4, 3, dtype=np.uint8),
        "as": np.float32(0.02),
        "s": np.array([0.1, 0.2, 0.3], np.float32),
        "az": np.uint8(3),
        "z": np.full(3, 128, np.uint8),
        "b": numbers(3),
    }
    nodes = [node("MatMulIntegerToFloat", ["x", "w", "as", "s", "az", "z", "b"], ["y"], domain=MS)]
    compare(tmp_path, single(nodes, stored, [BYTES]), BYTE_FEED)


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_qgemm(tmp_path, quantised, bias):
    """QGemm with alpha, transposed weight, optional bias and optional output scale."""
    stored = {
        "as": np.float32(0.02),
        "az": np.uint8(3),
        "w": integers(-100, 100, 3, 4),
        "s": np.float32(0.05),
        "z": np.int8(0),
    }
    inputs = ["x", "as", "az", "w", "s", "z", ""]
    if bias:
        stored["b"] = integers(-900, 900, 3, dtype=np.int32)
        inputs[-1] = "b"
    if quantised:
        stored |= {"ys": np.float32(0.1), "yz": np.uint8(120)}
        inputs += ["ys", "yz"]
    while not inputs[-1]:
        inputs.pop()
    nodes = [node("QGemm", inputs, ["y"], domain=MS, transB=1, alpha=0.5)]
    output = value("y", None, TensorProto.UINT8 if quantised else FLOAT)
    compare(tmp_path, single(nodes, stored, [BYTES], output), BYTE_FEED, codes=1)


def test_fused_operators(tmp_path):
    """FusedMatMul, FusedGemm and FusedConv of the runtime's own domain."""
    nodes = [
        node("FusedMatMul", ["x", "w"], ["h"], domain=MS, transB=1, alpha=2.0),
        node("FusedGemm", ["h", "v", "b"], ["y"], domain=MS, activation="Relu"),
    ]
    compare(tmp_path, single(nodes, {"w": numbers(5, 4), "v": numbers(5, 3), "b": numbers(3)}), FEED)


def test_einsum(tmp_path):
    """A constant einsum operand."""
    nodes = [node("Einsum", ["x", "w"], ["y"], equation="bi,ohi->bho")]
    compare(tmp_path, single(nodes, {"w": numbers(3, 2, 4)}), FEED)


def test_a_function_called_twice(tmp_path):
    """Both calls read the same array."""
    body = [node("Constant", [], ["w"], value=tensor(numbers(4, 4))), node("MatMul", ["a", "w"], ["b"])]
    function = helper.make_function("local", "layer", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    nodes = [node("layer", ["x"], ["h"], domain="local"), node("layer", ["h"], ["y"], domain="local")]
    found = compare(tmp_path, single(nodes, {}, functions=[function]), FEED)
    assert len(weights(found)) == 1


def test_nested_functions_with_attributes_and_clashing_names(tmp_path):
    """Functions that call functions, pass attributes and reuse the caller's names."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    inner = helper.make_function(
        "local",
        "scaled",
        ["x"],
        ["y"],
        [
            node("Constant", [], ["h"], value=tensor(numbers(4, 4))),
            node("MatMul", ["x", "h"], ["m"]),
            node("LeakyRelu", ["m"], ["y"]),
        ],
        opsets,
        ["alpha"],
    )
    inner.node[2].attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    )
    outer = helper.make_function(
        "local",
        "twice",
        ["x"],
        ["y"],
        [
            node("scaled", ["x"], ["h"], domain="local", alpha=0.5),
            node("scaled", ["h"], ["y"], domain="local", alpha=0.1),
        ],
        opsets,
    )
    nodes = [node("twice", ["x"], ["h"], domain="local"), node("Neg", ["h"], ["y"])]
    found = compare(tmp_path, single(nodes, {}, functions=[inner, outer]), FEED)
    assert len(weights(found)) == 1


def loop_body():
    nodes = [
        node("Constant", [], ["own"], value=tensor(numbers(4, 4, seed=1))),
        node("MatMul", ["state", "w"], ["a"]),
        node("MatMul", ["a", "own"], ["b"]),
        node("Tanh", ["b"], ["next"]),
        node("Identity", ["go"], ["on"]),
    ]
    inputs = [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("state", None)]
    return helper.make_graph(nodes, "body", inputs, [value("on", [], TensorProto.BOOL), value("next", None)])


def test_loop_body(tmp_path):
    """A captured weight and one inside the body of a Loop."""
    nodes = [node("Loop", ["count", "", "x"], ["y"], body=loop_body())]
    found = compare(tmp_path, single(nodes, {"w": numbers(4, 4), "count": np.int64(3)}), FEED)
    assert sorted(weights(found)) == ["own", "w"]


def test_scan_body(tmp_path):
    """Weights inside the body of a Scan, as an initializer of the body."""
    nodes = [
        node("MatMul", ["row", "w"], ["a"]),
        node("MatMul", ["a", "u"], ["b"]),
        node("Add", ["b", "state"], ["s"]),
        node("Identity", ["s"], ["o"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [value("state", [4]), value("row", [4])],
        [value("s", [4]), value("o", [4])],
        [tensor(numbers(4, 4), "w")],
    )
    stored = {"zero": np.zeros(4, np.float32), "u": numbers(4, 4, seed=2)}
    model = single([node("Scan", ["zero", "x"], ["last", "y"], body=body, num_scan_inputs=1)], stored)
    found = compare(tmp_path, model, FEED)
    assert sorted(weights(found)) == ["u", "w"]
    assert found["zero"].reason.startswith("initial state of Scan")


def test_if_branches(tmp_path):
    """One array captured by both branches; the branch taken reads it."""

    def body(name, op):
        nodes = [node("MatMul", ["x", "w"], [f"{name}m"]), node(op, [f"{name}m"], [name])]
        return helper.make_graph(nodes, name, [], [value(name, None)])

    nodes = [node("If", ["c"], ["y"], then_branch=body("t", "Relu"), else_branch=body("e", "Neg"))]
    model = single(nodes, {"w": numbers(4, 3)}, [X, value("c", [], TensorProto.BOOL)])
    for taken in (True, False):
        compare(tmp_path, model, FEED | {"c": np.array(taken)})


def test_only_the_chosen_weights_get_slots(tmp_path):
    """Weights that are not asked for stay as they are; so does an integer operator."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "v"], ["y"])]
    loaded, _ = opened(tmp_path, single(nodes, {"w": numbers(4, 3), "v": numbers(3, 2)}))
    template = build_template(loaded, ["v"])
    assert [slot.weight_key for slot in template.slots] == ["v"]
    runner, kept = filled_session(template, {"v": numbers(3, 2)})
    np.testing.assert_allclose(
        runner.run(None, FEED)[0], FEED["x"] @ numbers(4, 3) @ numbers(3, 2), rtol=1e-5
    )
    del kept


def test_unknown_keys_are_refused(tmp_path):
    """A key that is no weight of the model is named."""
    loaded, _ = opened(tmp_path, single([node("MatMul", ["x", "w"], ["y"])], {"w": numbers(4, 3)}))
    with pytest.raises(ModelError, match=r"'v' is not a weight of this model; see `nvaudit inspect`"):
        build_template(loaded, ["v"])


def test_building_a_template_leaves_the_model_as_it_was(tmp_path):
    """Two templates of one loaded model are the same."""
    nodes = [node("DequantizeLinear", ["w", "s"], ["f"]), node("MatMul", ["x", "f"], ["y"])]
    loaded, _ = opened(tmp_path, single(nodes, {"w": integers(-9, 9, 4, 3), "s": np.float32(0.1)}))
    first = build_template(loaded, ["w"])
    assert build_template(loaded, ["w"]) == first
    assert [constant.name for constant in constants(loaded)] == ["w", "s"]


def test_large_digital_tensors_are_handed_over_beside_the_message(tmp_path):
    """An embedding above 1 MiB leaves the message; slots and it start at aligned offsets."""
    nodes = [node("Gather", ["e", "x"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    stored = {"e": numbers(40000, 8), "w": numbers(8, 3)}
    model = single(nodes, stored, [value("x", ["n"], TensorProto.INT64)])
    compare(tmp_path, model, {"x": np.array([3, 39999], np.int64)})
    template = build_template(load_model(tmp_path / "model.onnx"), ["w"])
    assert len(template.proto) < 2000
    assert list(template.digital) == ["e"]
    assert template.offsets == {"w": 0, "e": 128}


@pytest.mark.parametrize("max_bytes", [10**9, 0])
def test_filled_model_is_an_ordinary_file(tmp_path, max_bytes):
    """Written in one file or with its data beside it, it computes what the template does."""
    nodes = [node("Gather", ["e", "x"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    stored = {"e": numbers(40000, 8), "w": numbers(8, 3)}
    inputs = [value("x", ["n"], TensorProto.INT64)]
    loaded, _ = opened(tmp_path, single(nodes, stored, inputs, value("y", ["n", 3])))
    template = build_template(loaded, ["w"])
    path = tmp_path / "out" / "chip.onnx"
    path.parent.mkdir()
    filled_model(template, {"w": 2 * stored["w"]}, path, max_bytes=max_bytes)
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == (["chip.onnx", "chip.onnx.data"] if max_bytes == 0 else ["chip.onnx"])
    feed = np.array([3, 39999], np.int64)
    got = session(str(path)).run(None, {"x": feed})[0]
    np.testing.assert_allclose(got, stored["e"][feed] @ (2 * stored["w"]), rtol=1e-5)
    onnx.checker.check_model(str(path))


def test_filled_model_wants_every_slot(tmp_path):
    """Missing and misshapen arrays are named."""
    loaded, _ = opened(tmp_path, single([node("MatMul", ["x", "w"], ["y"])], {"w": numbers(4, 3)}))
    template = build_template(loaded, ["w"])
    with pytest.raises(ModelError, match=r"slot 'w': no array is given; fill every slot"):
        filled_model(template, {}, tmp_path / "chip.onnx")
    with pytest.raises(ModelError, match=r"slot 'w': has shape \[4, 3\], got \[3, 4\]; use Slot.fill"):
        filled_model(template, {"w": numbers(3, 4)}, tmp_path / "chip.onnx")


def test_the_file_beside_the_template_serves_the_same_offsets(tmp_path):
    """A session from a file finds slots in nvaudit-slots.bin at their offsets."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "v"], ["y"])]
    stored = {"w": numbers(4, 3), "v": numbers(3, 2)}
    loaded, _ = opened(tmp_path, single(nodes, stored))
    template = build_template(loaded, ["w", "v"])
    save(tmp_path, onnx.ModelProto.FromString(template.proto), "template.onnx")
    with (tmp_path / "nvaudit-slots.bin").open("wb") as file:
        for slot in template.slots:
            file.seek(slot.offset)
            slot.fill(stored[slot.weight_key]).tofile(file)
    got = session(str(tmp_path / "template.onnx")).run(None, FEED)[0]
    np.testing.assert_allclose(got, FEED["x"] @ stored["w"] @ stored["v"], rtol=1e-5)


def test_a_fixed_batch_is_freed_on_request(tmp_path):
    """With batch="free" a model for a batch of one takes five samples."""
    nodes = [node("Conv", ["x", "w"], ["c"]), node("Flatten", ["c"], ["f"]), node("Gemm", ["f", "v"], ["y"])]
    stored = {"w": numbers(2, 1, 3, 3), "v": numbers(8, 3)}
    model = make_model(nodes, [value("x", [1, 1, 4, 4])], [value("y", [1, 3])], stored)
    loaded, _ = opened(tmp_path, model)
    template = build_template(loaded, ["w", "v"], batch="free")
    assert template.rebatch is not None
    assert template.rebatch.status == "rebatched"
    runner, kept = filled_session(template, stored)
    assert runner.run(None, {"x": numbers(5, 1, 4, 4)})[0].shape == (5, 3)
    del kept


def test_fused_convolution(tmp_path):
    """FusedConv keeps its activation."""
    nodes = [node("FusedConv", ["x", "w", "b"], ["y"], domain=MS, activation="Relu")]
    model = single(nodes, {"w": numbers(3, 2, 3, 3), "b": numbers(3)}, [value("x", ["n", 2, 6, 6])])
    compare(tmp_path, model, {"x": numbers(2, 2, 6, 6)})


def test_attention_with_its_projection_inside(tmp_path):
    """The stacked query, key and value projection of com.microsoft Attention is one weight."""
    nodes = [node("Attention", ["x", "w", "b"], ["y"], domain=MS, num_heads=2)]
    model = single(nodes, {"w": numbers(8, 24), "b": numbers(24)}, [value("x", ["n", 3, 8])])
    found = compare(tmp_path, model, {"x": numbers(2, 3, 8)})
    assert found["w"].weight.channel_axes == (1,)


def test_weight_normalisation_left_in_the_graph(tmp_path):
    """g · v / |v| computed at run time is one weight; its factors are not arrays of their own."""
    nodes = [
        node("ReduceL2", ["v"], ["n"], axes=[1, 2, 3], keepdims=1),
        node("Div", ["v", "n"], ["u"]),
        node("Mul", ["g", "u"], ["w"]),
        node("Conv", ["x", "w"], ["y"]),
    ]
    stored = {"v": numbers(3, 2, 3, 3), "g": numbers(3, 1, 1, 1)}
    found = compare(tmp_path, single(nodes, stored, [value("x", ["n", 2, 6, 6])]), {"x": numbers(2, 2, 6, 6)})
    assert weights(found) == ["w"]
    assert found["g"].reason == "computed into the weight 'w' by Mul 'Mul_2'"


def test_scaled_integers_written_out_as_arithmetic(tmp_path):
    """Cast, Sub and Mul on stored integers, as older quantisers wrote it."""
    nodes = [
        node("Cast", ["w"], ["f"], to=FLOAT),
        node("Sub", ["f", "z"], ["c"]),
        node("Mul", ["c", "s"], ["r"]),
        node("MatMul", ["x", "r"], ["y"]),
    ]
    stored = {"w": integers(-99, 99, 4, 3), "z": np.float32(3), "s": np.float32(0.1)}
    assert weights(compare(tmp_path, single(nodes, stored), FEED)) == ["r"]


def test_integers_cast_to_float_are_a_grid_of_step_one(tmp_path):
    """An int8 tensor that is only cast keeps its codes."""
    nodes = [node("Cast", ["w"], ["f"], to=FLOAT), node("MatMul", ["x", "f"], ["y"])]
    found = compare(tmp_path, single(nodes, {"w": integers(-99, 99, 4, 3)}), FEED)
    grid = found["w"].weight.load().grid
    np.testing.assert_array_equal(grid.codes, integers(-99, 99, 4, 3))
    assert (grid.scale.item(), grid.storage_bits) == (1.0, 8)

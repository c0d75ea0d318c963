"""Which constants are weights, in which layout, and why the others stay digital."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_cases import FLOAT, integers, make_model, numbers, opened, tensor, value, weights

from nvaudit.errors import ModelError

node = helper.make_node
X = value("x", ["n", 4])
Y = value("y", None)


def gemm_model(**attributes):
    shape = (3, 4) if attributes.get("transB") else (4, 3)
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], name="fc", **attributes)]
    return make_model(nodes, [X], [Y], {"w": numbers(*shape), "b": numbers(3)})


@pytest.mark.parametrize(("trans", "axis"), [(0, 1), (1, 0)])
def test_gemm_right_operand_counts_outputs_along_the_axis_that_is_not_contracted(tmp_path, trans, axis):
    """Gemm's B has its outputs on axis 1, with transB on axis 0."""
    _, found = opened(tmp_path, gemm_model(transB=trans))
    weight = found["w"].weight
    assert weight.channel_axes == (axis,)
    assert (weight.matrix.groups, weight.matrix.rows, weight.matrix.cols) == (1, 4, 3)
    assert found["b"].weight is None
    assert found["b"].reason == "bias of Gemm 'fc'"


@pytest.mark.parametrize(("trans", "axis"), [(0, 0), (1, 1)])
def test_gemm_left_operand_is_a_weight_when_only_it_is_constant(tmp_path, trans, axis):
    """Gemm's A may be the weight; its outputs are its rows, with transA its columns."""
    shape = (4, 3) if trans else (3, 4)
    nodes = [node("Gemm", ["w", "x"], ["y"], transA=trans)]
    _, found = opened(tmp_path, make_model(nodes, [value("x", [4, "n"])], [Y], {"w": numbers(*shape)}))
    assert found["w"].weight.channel_axes == (axis,)
    assert (found["w"].weight.matrix.rows, found["w"].weight.matrix.cols) == (4, 3)


def test_matmul_left_constant_counts_outputs_along_its_rows(tmp_path):
    """MatMul(W, x) has its outputs on the last axis but one of W."""
    model = make_model([node("MatMul", ["w", "x"], ["y"])], [value("x", [4, "n"])], [Y], {"w": numbers(3, 4)})
    _, found = opened(tmp_path, model)
    assert found["w"].weight.channel_axes == (0,)
    assert (found["w"].weight.matrix.rows, found["w"].weight.matrix.cols) == (4, 3)


def test_batched_matmul_makes_one_matrix_per_batch_element(tmp_path):
    """A constant of shape [b, K, N] is b crossbar matrices."""
    model = make_model(
        [node("MatMul", ["x", "w"], ["y"])], [value("x", [5, 2, 4])], [Y], {"w": numbers(5, 4, 3)}
    )
    _, found = opened(tmp_path, model)
    assert found["w"].weight.channel_axes == (0, 2)
    assert (
        found["w"].weight.matrix.groups,
        found["w"].weight.matrix.rows,
        found["w"].weight.matrix.cols,
    ) == (5, 4, 3)


def test_grouped_conv_makes_one_matrix_per_group(tmp_path):
    """Conv: rows are inputs of the group times kernel, columns its outputs."""
    model = make_model(
        [node("Conv", ["x", "w"], ["y"], group=2)],
        [value("x", ["n", 6, 8, 8])],
        [Y],
        {"w": numbers(4, 3, 5, 5)},
    )
    _, found = opened(tmp_path, model)
    assert found["w"].weight.channel_axes == (0,)
    matrix = found["w"].weight.matrix
    assert (matrix.groups, matrix.rows, matrix.cols) == (2, 75, 2)


def test_conv_transpose_counts_outputs_on_axis_1(tmp_path):
    """ConvTranspose stores [inputs, outputs / groups, kernel…]."""
    model = make_model(
        [node("ConvTranspose", ["x", "w"], ["y"], group=3)],
        [value("x", ["n", 6, 8, 8])],
        [Y],
        {"w": numbers(6, 4, 2, 2)},
    )
    _, found = opened(tmp_path, model)
    assert found["w"].weight.channel_axes == (1,)
    matrix = found["w"].weight.matrix
    assert (matrix.groups, matrix.rows, matrix.cols) == (3, 8, 4)


def test_lstm_has_two_weights_with_directions_as_groups(tmp_path):
    """LSTM: W and R are weights, B and the initial states are not."""
    stored = {"w": numbers(2, 12, 5), "r": numbers(2, 12, 3), "b": numbers(2, 24), "h": numbers(2, 1, 3)}
    nodes = [
        node("LSTM", ["x", "w", "r", "b", "", "h"], ["y"], hidden_size=3, direction="bidirectional", name="l")
    ]
    _, found = opened(tmp_path, make_model(nodes, [value("x", [7, 1, 5])], [Y], stored))
    assert weights(found) == ["w", "r"]
    assert found["w"].weight.channel_axes == (0, 1)
    matrix = found["w"].weight.matrix
    assert (matrix.groups, matrix.rows, matrix.cols) == (2, 5, 12)
    assert found["b"].reason == "bias of LSTM 'l'"
    assert found["h"].reason == "initial state of LSTM 'l'"


def test_einsum_axes_follow_the_equation(tmp_path):
    """Labels in the result alone are columns, those of both are groups, the others are rows."""
    model = make_model(
        [node("Einsum", ["x", "w"], ["y"], equation="bhi,hio->bho")],
        [value("x", ["b", 2, 4])],
        [Y],
        {"w": numbers(2, 4, 3)},
    )
    _, found = opened(tmp_path, model)
    matrix = found["w"].weight.matrix
    assert (matrix.groups, matrix.rows, matrix.cols) == (2, 4, 3)
    assert found["w"].weight.channel_axes == (0, 2)


def test_a_product_of_two_activations_is_no_weight(tmp_path):
    """Attention scores have no constant operand; the scale beside them is digital."""
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "t"], ["s"]),
        node("Mul", ["s", "c"], ["y"], name="scale"),
    ]
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], {"c": np.float32(0.5)}))
    assert weights(found) == []
    assert found["c"].reason == "scalar operand of Mul 'scale'"


def test_a_product_of_two_constants_is_no_weight_but_its_result_is(tmp_path):
    """MatMul of two constants is computed; what it makes is not followed further, and both say so."""
    nodes = [node("MatMul", ["a", "b"], ["ab"], name="both"), node("Add", ["x", "ab"], ["y"])]
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], {"a": numbers(2, 3), "b": numbers(3, 4)}))
    assert weights(found) == []
    assert found["a"].reason == "operand of MatMul 'both', whose operands are all constant"


def test_a_tensor_shared_behind_a_transpose_is_one_weight(tmp_path):
    """Two uses, one of them transposed: one array, in the layout of the first use."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        node("MatMul", ["h", "wt"], ["y"]),
    ]
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], {"w": numbers(4, 3)}))
    weight = found["w"].weight
    assert weight.shape == (4, 3)
    assert [use.op_type for use in weight.uses] == ["MatMul", "MatMul"]
    np.testing.assert_array_equal(weight.load().values, numbers(4, 3))


def test_the_primary_layout_is_that_of_the_first_use(tmp_path):
    """The first use takes the weight behind Transpose and Reshape; so do the loaded values."""
    nodes = [
        node("Reshape", ["w", "s"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[1, 0]),
        node("Identity", ["t"], ["i"]),
        node("MatMul", ["x", "i"], ["y"]),
    ]
    stored = {"w": numbers(12), "s": np.array([3, -1], np.int64)}
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], stored))
    np.testing.assert_array_equal(found["w"].weight.load().values, numbers(12).reshape(3, 4).T)
    assert found["w"].uses == ("MatMul",)
    assert found["s"].reason.startswith("shape operand of Reshape")


@pytest.mark.parametrize(
    ("op", "extra", "shape", "after"),
    [
        ("Flatten", {"axis": 1}, (4, 3, 1), (4, 3)),
        ("Squeeze", {}, (4, 3, 1), (4, 3)),
        ("Unsqueeze", {}, (4, 3), (1, 4, 3)),
    ],
)
def test_reshaping_operators_are_followed(tmp_path, op, extra, shape, after):
    """Flatten, Squeeze and Unsqueeze keep every element of a weight."""
    axes = {"a": np.array([2 if op == "Squeeze" else 0], np.int64)} if op != "Flatten" else {}
    nodes = [node(op, ["w", *axes], ["v"], **extra), node("MatMul", ["x", "v"], ["y"])]
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], {"w": numbers(*shape)} | axes))
    assert found["w"].weight.shape == after


def test_tied_embedding_is_mapped_for_the_product_alone(tmp_path):
    """A table used by Gather and by MatMul is an array for MatMul; Gather keeps the digital copy."""
    nodes = [
        node("Gather", ["e", "x"], ["h"], name="emb"),
        node("Transpose", ["e"], ["et"], perm=[1, 0]),
        node("MatMul", ["h", "et"], ["y"]),
    ]
    model = make_model(nodes, [value("x", ["n"], TensorProto.INT64)], [Y], {"e": numbers(9, 4)})
    _, found = opened(tmp_path, model)
    assert found["e"].weight.shape == (4, 9)
    assert found["e"].uses == ("Gather", "MatMul")
    assert found["e"].reason == (
        "the array serves the weight uses only; digital as embedding table (Gather 'emb') stays digital"
    )


def test_reasons_name_the_consumer(tmp_path):
    """Norms, shape operands, unused tensors and biases behind MatMul say what they are."""
    nodes = [
        node("BatchNormalization", ["x", "g", "b", "m", "v"], ["n"], name="bn"),
        node("MatMul", ["n", "w"], ["h"], name="fc"),
        node("Add", ["h", "c"], ["k"], name="plus"),
        node("Reshape", ["k", "s"], ["y"], name="rs"),
    ]
    stored = dict.fromkeys("gbmv", np.ones(4, np.float32)) | {
        "w": numbers(4, 3),
        "c": numbers(3),
        "s": np.array([-1], np.int64),
        "idle": numbers(2),
        "none": numbers(0, 3),
    }
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], stored))
    reasons = {name: constant.reason for name, constant in found.items()}
    assert reasons == {
        "g": "scale of BatchNormalization 'bn'",
        "b": "shift of BatchNormalization 'bn'",
        "m": "running mean of BatchNormalization 'bn'",
        "v": "running variance of BatchNormalization 'bn'",
        "w": "",
        "c": "bias (Add 'plus') of MatMul 'fc'",
        "s": "shape operand of Reshape 'rs'",
        "idle": "not used",
        "none": "not used",
    }


def test_constant_nodes_are_listed_in_every_form(tmp_path):
    """Constant with a tensor, with floats and with integers; as weight, bias and shape."""
    nodes = [
        node("Constant", [], ["w"], value=tensor(numbers(4, 3))),
        node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0]),
        node("Constant", [], ["s"], value_ints=[-1]),
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "c"], ["k"]),
        node("Reshape", ["k", "s"], ["y"]),
    ]
    _, found = opened(tmp_path, make_model(nodes, [X], [Y]))
    assert {name: (c.origin, c.dtype, c.shape) for name, c in found.items()} == {
        "w": ("constant", "float32", (4, 3)),
        "c": ("attribute", "float32", (3,)),
        "s": ("attribute", "int64", (1,)),
    }
    assert weights(found) == ["w"]


def test_initializers_that_are_inputs_too_are_weights(tmp_path):
    """Format version 3 lists initializers among the inputs; they are not fed."""
    model = gemm_model()
    graph = model.graph
    graph.input.extend(value(t.name, list(t.dims), t.data_type) for t in graph.initializer)
    loaded, found = opened(tmp_path, model)
    assert [spec.name for spec in loaded.inputs] == ["x"]
    assert weights(found) == ["w"]


def test_sparse_initializer_becomes_a_dense_weight(tmp_path):
    """A sparse initializer is a weight like any other; its origin stays known."""
    model = gemm_model()
    dense = np.zeros((4, 3), np.float32)
    dense[1, 2], dense[3, 0] = 5.0, -2.0
    del model.graph.initializer[0]
    values = helper.make_tensor("w", FLOAT, [2], [5.0, -2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [5, 9])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 3]))
    _, found = opened(tmp_path, model)
    assert found["w"].origin == "sparse"
    np.testing.assert_array_equal(found["w"].weight.load().values, dense)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_values_keep_the_stored_float_type(tmp_path, dtype):
    """Weights in half, brain and double precision come back in their own type."""
    kind = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64}[dtype]
    array = numbers(4, 3).astype(kind)
    element = tensor(array).data_type
    model = make_model(
        [node("MatMul", ["x", "w"], ["y"])], [value("x", ["n", 4], element)], [Y], {"w": array}
    )
    _, found = opened(tmp_path, model)
    loaded = found["w"].weight.load().values
    assert (found["w"].weight.dtype, loaded.dtype.name) == (dtype, dtype)
    np.testing.assert_array_equal(loaded.astype(np.float64), array.astype(np.float64))


def test_a_cast_weight_has_the_type_after_the_cast(tmp_path):
    """A half-precision weight behind Cast to float is a float32 weight."""
    nodes = [node("Cast", ["w"], ["f"], to=FLOAT), node("MatMul", ["x", "f"], ["y"])]
    array = numbers(4, 3).astype(np.float16)
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], {"w": array}))
    np.testing.assert_array_equal(found["w"].weight.load().values, array.astype(np.float32))
    assert not found["w"].weight.is_integer


def qdq_model(codes, scale, zero, perm=None, **attributes):
    nodes = [node("DequantizeLinear", ["w", "s", *(["z"] if zero is not None else [])], ["f"], **attributes)]
    if perm is not None:
        nodes.append(node("Transpose", ["f"], ["t"], perm=perm))
    nodes.append(node("MatMul", ["x", "t" if perm else "f"], ["y"]))
    stored = {"w": codes, "s": scale} | ({"z": zero} if zero is not None else {})
    return make_model(nodes, [X], [Y], stored, opset=21, ir_version=10)


def test_per_tensor_grid_is_the_stored_integers_less_the_zero_point(tmp_path):
    """DequantizeLinear with one scale: the codes are the stored integers minus the zero point."""
    codes = integers(0, 256, 4, 3, dtype=np.uint8)
    _, found = opened(tmp_path, qdq_model(codes, np.float32(0.1), np.uint8(131)))
    values = found["w"].weight.load()
    np.testing.assert_array_equal(values.grid.codes, codes.astype(np.int16) - 131)
    assert values.grid.storage_bits == 8
    expected = (codes.astype(np.int32) - 131).astype(np.float32) * np.float32(0.1)
    np.testing.assert_array_equal(values.values, expected)
    assert found["s"].reason.startswith("quantisation scale of DequantizeLinear")
    assert found["z"].reason.startswith("quantisation zero point of DequantizeLinear")


def test_per_axis_scale_moves_with_the_weight(tmp_path):
    """One scale per row of the stored tensor is one per column behind a transpose."""
    codes, scale = integers(-128, 128, 3, 4), np.array([0.1, 0.2, 0.3], np.float32)
    _, found = opened(tmp_path, qdq_model(codes, scale, None, perm=[1, 0], axis=0))
    values = found["w"].weight.load()
    np.testing.assert_array_equal(values.grid.codes, codes.T)
    np.testing.assert_array_equal(values.values, (codes * scale[:, None]).T)
    np.testing.assert_array_equal(values.grid.codes * values.grid.scale, values.values)


def test_blocked_scale_repeats_within_its_block(tmp_path):
    """With block_size 2, two neighbours along the axis share a scale."""
    codes, scale = integers(-128, 128, 4, 3), np.abs(numbers(2, 3))
    _, found = opened(tmp_path, qdq_model(codes, scale, None, axis=0, block_size=2))
    values = found["w"].weight.load().values
    np.testing.assert_array_equal(values, codes * np.repeat(scale, 2, 0))


def test_four_bit_weights_keep_their_width(tmp_path):
    """int4 through DequantizeLinear is a grid of 4 bits."""
    codes = integers(-8, 8, 4, 3).astype(ml_dtypes.int4)
    _, found = opened(tmp_path, qdq_model(codes, np.float32(0.5), None))
    grid = found["w"].weight.load().grid
    assert grid.storage_bits == 4
    np.testing.assert_array_equal(grid.codes, codes.astype(np.int16))


def test_fake_quantised_float_weight_uses_the_integers_that_it_rounds_to(tmp_path):
    """Float → QuantizeLinear → DequantizeLinear: the grid is what QuantizeLinear gives."""
    array = np.array([[0.05, -0.15, 9.0], [0.149, -9.0, 0.25]] * 2, np.float32)
    nodes = [
        node("QuantizeLinear", ["w", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["f"]),
        node("MatMul", ["x", "f"], ["y"]),
    ]
    stored = {"w": array, "s": np.float32(0.05), "z": np.int8(3)}
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], stored))
    weight = found["w"].weight
    assert weight.is_integer
    codes = np.clip(np.rint(array / np.float32(0.05)) + 3, -128, 127) - 3
    np.testing.assert_array_equal(weight.load().grid.codes, codes)


def test_integer_products_use_bare_integers(tmp_path):
    """MatMulInteger: scale 1, codes are the integers minus the zero points of the columns."""
    codes, zero = integers(0, 256, 4, 3, dtype=np.uint8), np.array([1, 2, 3], np.uint8)
    nodes = [node("MatMulInteger", ["x", "w", "", "z"], ["y"], name="mm")]
    model = make_model(nodes, [value("x", ["n", 4], TensorProto.UINT8)], [Y], {"w": codes, "z": zero})
    _, found = opened(tmp_path, model)
    values = found["w"].weight.load()
    np.testing.assert_array_equal(values.values, codes.astype(np.float32) - [1, 2, 3])
    assert values.grid.scale.size == 1
    assert values.grid.scale.item() == 1.0
    assert found["z"].reason == "quantisation zero point of MatMulInteger 'mm'"


def test_integer_weight_with_a_computed_zero_point_stays_digital(tmp_path):
    """A zero point that is fed leaves no fixed grid."""
    nodes = [node("MatMulInteger", ["x", "w", "", "z"], ["y"], name="mm")]
    inputs = [value("x", ["n", 4], TensorProto.UINT8), value("z", [], TensorProto.INT8)]
    _, found = opened(tmp_path, make_model(nodes, inputs, [Y], {"w": integers(-9, 9, 4, 3)}))
    assert found["w"].weight is None
    assert (
        found["w"].reason
        == "operand 1 of MatMulInteger 'mm': this form of the operator is not mapped; stays digital"
    )


def test_a_weight_put_together_from_parts_is_one_weight(tmp_path):
    """Slices concatenated again: the result is the weight, the parts say where they went."""
    stored = {"a": numbers(2, 3), "b": numbers(2, 3, seed=1)}
    nodes = [node("Concat", ["b", "a"], ["w"], axis=0, name="cat"), node("MatMul", ["x", "w"], ["y"])]
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], stored))
    assert found["w"].origin == "folded"
    np.testing.assert_array_equal(found["w"].weight.load().values, np.concatenate([stored["b"], stored["a"]]))
    assert found["a"].reason == "computed into the weight 'w' by Concat 'cat'"


def test_the_same_parts_put_together_twice_are_one_weight(tmp_path):
    """Exporters repeat the computation of a weight in every branch; it is one array."""
    stored = {"a": numbers(2, 4), "b": numbers(2, 4, seed=1)}
    nodes = [
        node("Concat", ["a", "b"], ["w1"], axis=0),
        node("MatMul", ["x", "w1"], ["h"]),
        node("Concat", ["a", "b"], ["w2"], axis=0),
        node("MatMul", ["h", "w2"], ["y"]),
    ]
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], stored))
    assert weights(found) == ["w1"]
    assert len(found["w1"].weight.uses) == 2


def branch(name, nodes, output):
    return helper.make_graph(nodes, name, [], [value(output, None)])


def test_weights_inside_branches_are_found_with_their_path(tmp_path):
    """If: a captured weight is one array for both branches, a constant inside one has its path."""
    then = branch("t", [node("MatMul", ["x", "w"], ["ty"], name="m")], "ty")
    inner = [
        node("Constant", [], ["own"], value=tensor(numbers(4, 3, seed=1))),
        node("MatMul", ["x", "own"], ["h"], name="a"),
        node("MatMul", ["x", "w"], ["k"], name="b"),
        node("Add", ["h", "k"], ["ey"]),
    ]
    nodes = [node("If", ["c"], ["y"], name="choose", then_branch=then, else_branch=branch("e", inner, "ey"))]
    inputs = [X, value("c", [], TensorProto.BOOL)]
    _, found = opened(tmp_path, make_model(nodes, inputs, [Y], {"w": numbers(4, 3)}))
    assert {use.graph_path for use in found["w"].weight.uses} == {"choose/then_branch", "choose/else_branch"}
    assert found["own"].path == "choose/else_branch"


def test_same_names_in_two_branches_get_their_paths(tmp_path):
    """Two constants of one name are two arrays with two keys."""

    def body(seed, output):
        nodes = [node("Constant", [], ["w"], value=tensor(numbers(4, 3, seed=seed)))]
        return branch(output, [*nodes, node("MatMul", ["x", "w"], [output])], output)

    nodes = [node("If", ["c"], ["y"], name="if", then_branch=body(1, "ty"), else_branch=body(2, "ey"))]
    inputs = [X, value("c", [], TensorProto.BOOL)]
    _, found = opened(tmp_path, make_model(nodes, inputs, [Y]))
    assert sorted(weights(found)) == ["if/else_branch/w", "if/then_branch/w"]


def test_a_function_called_twice_holds_one_array(tmp_path):
    """A constant inside a function is one weight however often the function is called."""
    body = [node("Constant", [], ["w"], value=tensor(numbers(4, 4))), node("MatMul", ["a", "w"], ["b"])]
    function = helper.make_function("local", "layer", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    nodes = [
        node("layer", ["x"], ["h"], domain="local", name="one"),
        node("layer", ["h"], ["y"], domain="local", name="two"),
    ]
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], functions=[function]))
    (key,) = weights(found)
    assert len(found[key].weight.uses) == 2


def test_fused_and_opaque_operators(tmp_path):
    """FusedMatMul with transB is mapped; MatMulNBits unpacks its own weight and stays digital."""
    nodes = [
        node("FusedMatMul", ["x", "w"], ["h"], domain="com.microsoft", transB=1),
        node(
            "MatMulNBits",
            ["h", "q", "s"],
            ["y"],
            domain="com.microsoft",
            name="nb",
            K=16,
            N=5,
            bits=4,
            block_size=16,
        ),
    ]
    stored = {"w": numbers(16, 4), "q": integers(0, 256, 5, 1, 8, dtype=np.uint8), "s": numbers(5)}
    _, found = opened(tmp_path, make_model(nodes, [X], [Y], stored))
    assert found["w"].weight.channel_axes == (0,)
    assert (found["q"].weight.shape, found["q"].weight.grid_bits) == ((16, 5), 4)


def test_weights_with_nan_are_refused_when_read(tmp_path):
    """The count of bad values and the tensor's name are in the message; listing still works."""
    array = numbers(4, 3)
    array[0, 0], array[1, 1] = np.nan, np.inf
    model = make_model([node("MatMul", ["x", "w"], ["y"])], [X], [Y], {"w": array})
    _, found = opened(tmp_path, model)
    with pytest.raises(ModelError, match=r"weight 'w': 2 of 12 values are NaN or infinite; repair the model"):
        found["w"].weight.load()

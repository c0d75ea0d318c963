"""Any valid ONNX file loads, with its inputs, outputs and a digest over all its files."""

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_cases import FLOAT, compare, make_model, numbers, opened, save, tensor, value, weights

from nvaudit.errors import ModelError
from nvaudit.model.load import TensorSpec, load_model
from nvaudit.model.uses import constants

node = helper.make_node
X = value("x", ["n", 4])
Y = value("y", None)


def external(tmp_path, name="model.onnx"):
    """A model with one weight in a file beside it."""
    model = make_model([node("MatMul", ["x", "w"], ["y"])], [X], [Y], {"w": numbers(4, 3)})
    path = tmp_path / name
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location=f"{name}.data",
        size_threshold=0,
        convert_attribute=True,
    )
    return path


def test_inputs_and_outputs_are_described(tmp_path):
    """Fixed, symbolic and unknown sizes, an unknown rank, and types."""
    inputs = [
        value("a", ["n", 3, None, -1]),
        value("b", None, TensorProto.FLOAT16),
        value("c", [], TensorProto.INT64),
    ]
    nodes = [node("Identity", ["a"], ["y"]), node("Identity", ["b"], ["z"]), node("Identity", ["c"], ["k"])]
    outputs = [
        value("y", ["n", 3, None, None]),
        value("z", None, TensorProto.FLOAT16),
        value("k", [], TensorProto.INT64),
    ]
    loaded = load_model(save(tmp_path, make_model(nodes, inputs, outputs)))
    assert loaded.inputs == (
        TensorSpec("a", "float32", ("n", 3, None, None)),
        TensorSpec("b", "float16", None),
        TensorSpec("c", "int64", ()),
    )
    assert loaded.outputs[2] == TensorSpec("k", "int64", ())
    assert (loaded.opset, loaded.ir_version) == (17, 8)


def test_digest_covers_the_file_and_its_external_data(tmp_path):
    """SHA-256 over the model file, then its data files."""
    path = external(tmp_path)
    data = tmp_path / "model.onnx.data"
    before = load_model(path).digest
    assert before == hashlib.sha256(path.read_bytes() + data.read_bytes()).hexdigest()
    data.write_bytes(numbers(4, 3, seed=1).tobytes())
    assert load_model(path).digest != before


def test_external_weights_are_read_when_asked_for(tmp_path):
    """Values come from the file beside the model, mapped rather than copied."""
    path = external(tmp_path)
    (constant,) = constants(load_model(path))
    np.testing.assert_array_equal(constant.weight.load().values, numbers(4, 3))


def test_external_file_that_shrinks_after_loading_is_an_error(tmp_path):
    """A data file that was cut while the model was open is reported when its weight is read."""
    path = external(tmp_path)
    (constant,) = constants(load_model(path))
    (tmp_path / "model.onnx.data").write_bytes(b"1234")
    with pytest.raises(ModelError, match=r"weight 'w': .*the file changed while it was in use"):
        constant.weight.load()


def test_external_constant_node(tmp_path):
    """A Constant node may keep its tensor outside, too."""
    nodes = [node("Constant", [], ["w"], value=tensor(numbers(4, 3), "w")), node("MatMul", ["x", "w"], ["y"])]
    path = tmp_path / "model.onnx"
    onnx.save(
        make_model(nodes, [X], [Y]),
        path,
        save_as_external_data=True,
        location="d",
        size_threshold=0,
        convert_attribute=True,
    )
    (constant,) = constants(load_model(path))
    np.testing.assert_array_equal(constant.weight.load().values, numbers(4, 3))


def test_model_behind_a_link_finds_its_data_beside_the_link(tmp_path):
    """A linked model file with its data beside the link loads."""
    path = external(tmp_path)
    (tmp_path / "real").mkdir()
    path.rename(tmp_path / "real" / "m.onnx")
    path.symlink_to("real/m.onnx")
    assert weights({c.name: c for c in constants(load_model(path))}) == ["w"]


def test_nodes_out_of_order_are_sorted(tmp_path):
    """Operators listed before their inputs are made; the order in the file does not matter."""
    nodes = [node("Relu", ["h"], ["y"]), node("MatMul", ["x", "w"], ["h"])]
    loaded, found = opened(tmp_path, make_model(nodes, [X], [Y], {"w": numbers(4, 3)}))
    assert [n.op_type for n in loaded.model.graph] == ["MatMul", "Relu"]
    assert weights(found) == ["w"]


def test_sparse_constants_are_expanded(tmp_path):
    """Constant.sparse_value with coordinates becomes a dense weight."""
    values = helper.make_tensor("v", FLOAT, [2], [5.0, -2.0])
    indices = numpy_helper.from_array(np.array([[1, 2], [3, 0]], np.int64))
    sparse = helper.make_sparse_tensor(values, indices, [4, 3])
    nodes = [node("Constant", [], ["w"], sparse_value=sparse), node("MatMul", ["x", "w"], ["y"])]
    _, found = opened(tmp_path, make_model(nodes, [X], [Y]))
    expected = np.zeros((4, 3), np.float32)
    expected[1, 2], expected[3, 0] = 5.0, -2.0
    assert found["w"].origin == "sparse"
    np.testing.assert_array_equal(found["w"].weight.load().values, expected)


def test_function_of_an_older_operator_set_is_inlined_where_its_operators_are_the_same(tmp_path):
    """Relu is the same in operator sets 14 and 17; a function that uses it needs no conversion."""
    body = [node("Relu", ["a"], ["b"])]
    function = helper.make_function("local", "act", ["a"], ["b"], body, [helper.make_opsetid("", 14)])
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("act", ["h"], ["y"], domain="local")]
    model = make_model(nodes, [X], [Y], {"w": numbers(4, 3)}, functions=[function])
    compare(tmp_path, model, {"x": numbers(2, 4)})


def test_function_of_another_operator_set_is_refused_where_it_matters(tmp_path):
    """BatchNormalization changed between 13 and 17."""
    body = [node("BatchNormalization", ["a", "s", "s", "s", "s"], ["b"])]
    function = helper.make_function("local", "bn", ["a", "s"], ["b"], body, [helper.make_opsetid("", 13)])
    nodes = [node("bn", ["x", "s"], ["y"], domain="local")]
    model = make_model(nodes, [X], [Y], {"s": numbers(4)}, functions=[function])
    with pytest.raises(
        ModelError,
        match=r"function 'bn': uses BatchNormalization of operator set 13, but the model uses 17, where it "
        r"differs; convert the model to one operator set",
    ):
        load_model(save(tmp_path, model))


def test_map_outputs_of_classical_models_do_not_prevent_loading(tmp_path):
    """ZipMap returns a sequence of maps; the model's products are found all the same."""
    model = make_model(
        [
            node("MatMul", ["x", "w"], ["p"]),
            node("ZipMap", ["p"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
        ],
        [X],
        [],
        {"w": numbers(4, 3)},
    )
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, []))
    model.graph.output.append(helper.make_value_info("y", helper.make_sequence_type_proto(kind)))
    loaded, found = opened(tmp_path, model)
    assert loaded.outputs == (TensorSpec("y", "sequence", None),)
    assert weights(found) == ["w"]


def test_text_and_flags_are_listed(tmp_path):
    """String and boolean tensors are constants like others."""
    nodes = [
        node("Constant", [], ["s"], value_strings=[b"a", b"b"]),
        node("Identity", ["s"], ["t"]),
        node("Where", ["m", "x", "x"], ["y"]),
    ]
    model = make_model(nodes, [X], [Y, value("t", [2], TensorProto.STRING)], {"m": np.ones((1, 4), bool)})
    _, found = opened(tmp_path, model)
    assert {name: (c.dtype, c.reason) for name, c in found.items()} == {
        "s": ("string", "output of the model"),
        "m": ("bool", "element-wise operand of Where 'Where_2'"),
    }

"""Trained values go back into the model in the types, layouts and files in which it had them."""

import numpy as np
import onnx
import pytest
from executor_cases import make_model, node, numbers, opened, value
from onnx import TensorProto, helper, numpy_helper

from nvaudit.errors import ModelError, OptionError
from nvaudit.model.load import load_model
from nvaudit.model.update import update_values
from nvaudit.retrain.executor.module import build_executor


def _model(array, **more):
    """A product with one stored matrix."""
    return make_model(
        [node("MatMul", ["x", "w"], ["y"], name="product")],
        [value("x", ["n", array.shape[0]])],
        [value("y", ["n", array.shape[1]])],
        {"w": array},
        **more,
    )


def _without_data(model):
    """A message with every stored number removed."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        for field in ("raw_data", "float_data", "int32_data", "external_data"):
            tensor.ClearField(field)
    return copy


def test_trained_values_arrive_and_nothing_else_changes(tmp_path):
    """New floats are stored under their name; graph, names, metadata and the original file stay."""
    model = _model(numbers(4, 3))
    model.producer_name, model.doc_string = "somebody", "about"
    model.metadata_props.add(key="k", value="v")
    loaded = opened(tmp_path, model)
    before = loaded.path.read_bytes()
    new = numbers(4, 3, seed=8)
    assert update_values(loaded, {"w": new}, tmp_path / "out.onnx") == ("w",)
    out = onnx.load(tmp_path / "out.onnx")
    assert np.array_equal(numpy_helper.to_array(out.graph.initializer[0]), new)
    assert _without_data(out) == _without_data(model)
    assert loaded.path.read_bytes() == before


@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE]
)
def test_typed_fields_stay_typed_fields(kind, tmp_path):
    """A tensor that keeps its numbers in the field of its type has them there afterwards, rounded."""
    model = _model(numbers(4, 3))
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    old = numbers(4, 3).astype(dtype)
    model.graph.initializer[0].CopyFrom(
        helper.make_tensor("w", kind, [4, 3], numbers(4, 3).reshape(-1).tolist())
    )
    model.graph.input[0].type.tensor_type.elem_type = kind
    model.graph.output[0].type.tensor_type.elem_type = kind
    assert not model.graph.initializer[0].HasField("raw_data")
    loaded = opened(tmp_path, model)
    new = np.where(np.arange(12).reshape(4, 3) % 2, numbers(4, 3, seed=5), old.astype(np.float32))
    update_values(loaded, {"w": new}, tmp_path / "out.onnx")
    tensor = onnx.load(tmp_path / "out.onnx").graph.initializer[0]
    assert not tensor.HasField("raw_data")
    assert tensor.data_type == kind
    assert np.array_equal(
        numpy_helper.to_array(tensor).astype(np.float32), new.astype(dtype).astype(np.float32)
    )


def _on_grid(kind, packed):
    codes = np.array([[-5, 3, 7], [0, 1, -8]], np.int64)
    weight = helper.make_tensor("w", packed, [2, 3], codes.reshape(-1).tolist())
    model = make_model(
        [node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1), node("MatMul", ["x", "d"], ["y"])],
        [value("x", ["n", 2])],
        [value("y", ["n", 3])],
        {"s": np.array([0.1, 0.2, 0.5], np.float32)},
        opset=21,
    )
    zero = helper.make_tensor("z", packed, [3], [0, 1, -1])
    model.graph.initializer.extend([weight, zero])
    return model


@pytest.mark.parametrize(("kind", "packed"), [("int8", TensorProto.INT8), ("int4", TensorProto.INT4)])
def test_quantised_weight_comes_back_as_integers(kind, packed, tmp_path):
    """New floats become the nearest codes of the same scales, within the range of the stored type."""
    loaded = opened(tmp_path, _on_grid(kind, packed))
    executor = build_executor(loaded)
    assert np.allclose(executor.values()["w"], (np.array([[-5, 2, 8], [0, 0, -7]])) * [0.1, 0.2, 0.5])
    new = np.array([[-0.44, 0.4, 99.0], [0.0, 0.19, -3.5]], np.float32)
    assert update_values(loaded, {"w": new}, tmp_path / "out.onnx") == ("w",)
    out = {t.name: t for t in onnx.load(tmp_path / "out.onnx").graph.initializer}
    top = 127 if kind == "int8" else 7
    codes = numpy_helper.to_array(out["w"]).astype(np.int64)
    assert out["w"].data_type == packed
    assert codes.tolist() == [[-4, 3, top], [0, 2, -8]]


def test_constant_node_and_branches_are_found(tmp_path):
    """Weights in Constant nodes, in branches and in functions are written where they lie."""
    inner = helper.make_graph(
        [node("MatMul", ["h", "w"], ["b"])],
        "b",
        [],
        [value("b", None)],
        [numpy_helper.from_array(numbers(3, 2), "w")],
    )
    other = helper.make_graph(
        [
            node("Constant", [], ["w"], value=numpy_helper.from_array(numbers(3, 2, seed=1))),
            node("MatMul", ["h", "w"], ["c"]),
        ],
        "c",
        [],
        [value("c", None)],
    )
    call = node("Layer", ["x"], ["h"], domain="own")
    function = helper.make_function(
        "own",
        "Layer",
        ["a"],
        ["r"],
        [
            node("Constant", [], ["k"], value=numpy_helper.from_array(numbers(4, 3))),
            node("MatMul", ["a", "k"], ["r"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    model = make_model(
        [call, node("If", ["flag"], ["y"], name="choice", then_branch=inner, else_branch=other)],
        [value("x", ["n", 4]), value("flag", [], TensorProto.BOOL)],
        [value("y", None)],
        domains=("own",),
    )
    model.functions.append(function)
    loaded = opened(tmp_path, model)
    values = build_executor(loaded).values()
    assert len(values) == 3
    new = {key: array + 1 for key, array in values.items()}
    assert set(update_values(loaded, new, tmp_path / "out.onnx")) == set(values)
    again = build_executor(load_model(tmp_path / "out.onnx")).values()
    assert again.keys() == new.keys()
    assert all(np.array_equal(again[key], new[key]) for key in new)
    assert len(onnx.load(tmp_path / "out.onnx").functions) == 1


def test_external_data_stay_external(tmp_path):
    """External tensors are copied beside the new model; what shares bytes with another is parted from it."""
    folder = tmp_path / "in"
    folder.mkdir()
    array = numbers(4, 4)
    (folder / "weights.bin").write_bytes(b"\0" * 64 + array.tobytes())
    model = make_model(
        [node("MatMul", ["x", "v"], ["h"]), node("MatMul", ["h", "w"], ["y"])],
        [value("x", ["n", 4])],
        [value("y", ["n", 4])],
        {"v": array, "w": array},
    )
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, text in (("location", "weights.bin"), ("offset", "64"), ("length", "64")):
            tensor.external_data.add(key=key, value=text)
    loaded = opened(folder, model)
    update_values(loaded, {"v": array, "w": array + 1}, tmp_path / "out.onnx")
    assert (folder / "weights.bin").read_bytes() == b"\0" * 64 + array.tobytes()
    message = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert {t.data_location for t in message.graph.initializer} == {TensorProto.EXTERNAL}
    again = build_executor(load_model(tmp_path / "out.onnx")).values()
    assert np.array_equal(again["v"], array)
    assert np.array_equal(again["w"], array + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.onnx", "out.onnx.data"]


def test_sparse_weight_becomes_dense_only_when_it_changes(tmp_path):
    """A sparse initializer is left alone, or replaced by a dense one of its name."""
    values = numpy_helper.from_array(np.array([1.5, -2.0], np.float32), "w")
    indices = numpy_helper.from_array(np.array([1, 5], np.int64), "i")
    model = _model(numbers(4, 3))
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 3]))
    loaded = opened(tmp_path, model)
    old = build_executor(loaded).values()
    assert update_values(loaded, old, tmp_path / "same.onnx") == ()
    assert (tmp_path / "same.onnx").read_bytes() == loaded.path.read_bytes()
    update_values(loaded, {"w": old["w"] + 1}, tmp_path / "out.onnx")
    out = onnx.load(tmp_path / "out.onnx").graph
    assert len(out.sparse_initializer) == 0
    assert np.array_equal(numpy_helper.to_array(out.initializer[0]), old["w"] + 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"q": np.zeros(1)}, "'q' is not a stored tensor"),
        ({"w": np.zeros((3, 4), np.float32)}, r"has shape \[4, 3\], got \[3, 4\]"),
        ({"w": np.full((4, 3), np.nan, np.float32)}, "NaN or infinite"),
    ],
)
def test_wrong_values_are_refused(values, message, tmp_path):
    """An unknown key, another shape and numbers that are none are refused, and nothing is written."""
    loaded = opened(tmp_path, _model(numbers(4, 3)))
    with pytest.raises(ModelError, match=message):
        update_values(loaded, values, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_half_precision_overflow_is_refused(tmp_path):
    """A trained value beyond half precision is not silently made infinite."""
    model = _model(numbers(4, 3).astype(np.float16))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    loaded = opened(tmp_path, model)
    with pytest.raises(ModelError, match="beyond the range of float16"):
        update_values(loaded, {"w": np.full((4, 3), 1e6, np.float32)}, tmp_path / "out.onnx")


def test_number_in_an_attribute_is_refused(tmp_path):
    """Plain numbers of a Constant node are not trained, and cannot be written."""
    model = make_model(
        [
            node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0]),
            node("MatMul", ["x", "w"], ["h"]),
            node("Add", ["h", "c"], ["y"]),
        ],
        [value("x", ["n", 4])],
        [value("y", ["n", 3])],
        {"w": numbers(4, 3)},
    )
    loaded = opened(tmp_path, model)
    assert set(build_executor(loaded).weights) == {"w"}
    with pytest.raises(ModelError, match="stored as numbers of a node's attribute"):
        update_values(loaded, {"c": np.zeros(3, np.float32)}, tmp_path / "out.onnx")


def test_model_is_not_written_over_itself(tmp_path):
    """The original is never the output, and a folder that is not there is named."""
    loaded = opened(tmp_path, _model(numbers(4, 3)))
    with pytest.raises(ModelError, match="is a file of the model itself"):
        update_values(loaded, {}, loaded.path)
    with pytest.raises(OptionError, match="its folder does not exist"):
        update_values(loaded, {}, tmp_path / "nowhere" / "out.onnx")


def test_file_that_changed_is_refused(tmp_path):
    """A model file that was replaced since it was read is noticed."""
    loaded = opened(tmp_path, _model(numbers(4, 3)))
    opened(tmp_path, _model(numbers(4, 5)))
    with pytest.raises(ModelError, match="changed since it was read"):
        update_values(loaded, {"w": numbers(4, 3)}, tmp_path / "out.onnx")

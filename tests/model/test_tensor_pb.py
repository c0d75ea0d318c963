"""Reading one serialised ONNX tensor."""

import contextlib

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from nvaudit.errors import DataError
from nvaudit.model.tensors import read_tensor_pb

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool", "bfloat16"])
def test_numeric_tensors_come_back_as_written(tmp_path, dtype):
    """Every numeric type keeps its values and shape."""
    array = VALUES.astype(getattr(ml_dtypes, dtype, dtype))
    path = tmp_path / "t.pb"
    path.write_bytes(numpy_helper.from_array(array).SerializeToString())
    got = read_tensor_pb(path)
    assert got.shape == (2, 3)
    np.testing.assert_array_equal(got.astype(np.float64), array.astype(np.float64))


def test_a_scalar_keeps_its_rank(tmp_path):
    """A 0-d tensor stays 0-d."""
    (tmp_path / "t.pb").write_bytes(numpy_helper.from_array(np.asarray(np.int64(5))).SerializeToString())
    assert read_tensor_pb(tmp_path / "t.pb").shape == ()


def damaged(**changes: object) -> bytes:
    tensor = numpy_helper.from_array(VALUES)
    for name, value in changes.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return tensor.SerializeToString()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xff\xff\xff", "not a serialised ONNX tensor: "),
        (b"", "not a serialised ONNX tensor: it states no element type"),
        (damaged(dims=[2, -3]), "not a serialised ONNX tensor: shape [2, -3] is negative"),
        (damaged(dims=[2, 4]), "not a serialised ONNX tensor: the values do not fill shape [2, 4]: "),
        (damaged(dims=[2**40, 2**40]), "not a serialised ONNX tensor: the values do not fill shape "),
        (damaged(data_type=9999), "not a serialised ONNX tensor: the values do not fill shape [2, 3]: "),
        (
            damaged(data_location=onnx.TensorProto.EXTERNAL),
            "keeps its values in another file, which is refused; save them inside",
        ),
        (
            numpy_helper.from_array(np.array(["a"], object)).SerializeToString(),
            "holds text; only numeric tensors can be fed",
        ),
    ],
    ids=["garbage", "empty", "negative", "short", "huge", "unknown type", "external", "text"],
)
def test_what_is_no_numeric_tensor_is_refused(tmp_path, content, message):
    """Each damage has its own message, with the file."""
    path = tmp_path / "t.pb"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_tensor_pb(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_missing_file_is_named(tmp_path):
    """The system's reason is passed on."""
    with pytest.raises(DataError, match=r"none\.pb: cannot be read: No such file or directory$"):
        read_tensor_pb(tmp_path / "none.pb")


@given(st.binary(max_size=80))
def test_random_bytes_give_an_array_or_a_data_error(tmp_path_factory, content):
    """No byte string ends in another exception."""
    path = tmp_path_factory.mktemp("pb") / "t.pb"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert isinstance(read_tensor_pb(path), np.ndarray)

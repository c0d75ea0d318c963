"""Reading one serialised ``onnx.TensorProto``, such as a ``.pb`` file of a ``test_data_set_*`` folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from nvaudit.errors import DataError


def read_tensor_pb(path: Path) -> npt.NDArray[Any]:
    """Read a tensor from a ``.pb`` file.

    Parameters
    ----------
    path : Path
        A serialised ``TensorProto``.

    Returns
    -------
    ndarray
        Boolean, integer or floating-point, with the stored shape.

    Raises
    ------
    DataError
        If the file cannot be read or decoded, keeps its data in another file, or holds text.
    """
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: not a serialised ONNX tensor: {error}") from error
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise DataError(f"{path}: keeps its values in another file, which is refused; save them inside")
    if tensor.data_type == onnx.TensorProto.UNDEFINED:
        raise DataError(f"{path}: not a serialised ONNX tensor: it states no element type")
    if tensor.data_type == onnx.TensorProto.STRING:
        raise DataError(f"{path}: holds text; only numeric tensors can be fed")
    if any(dimension < 0 for dimension in tensor.dims):
        raise DataError(f"{path}: not a serialised ONNX tensor: shape {list(tensor.dims)} is negative")
    return _values(tensor, path)


def _values(tensor: onnx.TensorProto, path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.asarray(numpy_helper.to_array(tensor))
    except (
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        MemoryError,
        RuntimeError,
        AttributeError,
    ) as error:
        raise DataError(
            f"{path}: not a serialised ONNX tensor: the values do not fill shape {list(tensor.dims)}: {error}"
        ) from error
    if array.shape != tuple(tensor.dims):
        raise DataError(
            f"{path}: not a serialised ONNX tensor: {array.size} values for shape {list(tensor.dims)}"
        )
    return array

"""Stored tensors as arrays, those of ``.pb`` files of a ``test_data_set_*`` folder too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from nvaudit.arrays import Array
from nvaudit.errors import DataError, ModelError
from nvaudit.model.cause import cause
from nvaudit.model.external import memory_map


def read_tensor(tensor: ir.TensorProtocol) -> Array:
    """Read a stored tensor.

    Parameters
    ----------
    tensor : onnx_ir.TensorProtocol
        An initializer's or attribute's tensor, in the file or in an external one.

    Returns
    -------
    ndarray
        Its values, in its own type (``ml_dtypes`` for bfloat16, float8 and 4-bit types). Read-only;
        external data of whole-byte types stays memory-mapped.

    Raises
    ------
    ModelError
        If the data cannot be decoded.
    """
    try:
        if not isinstance(tensor, ir.ExternalTensor):
            array: Array = tensor.numpy()
        elif tensor.dtype.bitwidth >= 8:
            data = memory_map(tensor).view(tensor.dtype.numpy().newbyteorder("<"))
            array = data.reshape(tensor.shape.numpy())
        else:
            array = _unpack(tensor)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"tensor {tensor.name!r}: its data cannot be decoded: {cause(error)}; export again"
        ) from error
    view = array.view()
    view.flags.writeable = False
    return view


def _unpack(tensor: ir.ExternalTensor) -> Array:
    """A packed 2- or 4-bit external tensor, through the decoder of packed messages."""
    proto = ir.serde.serialize_tensor(ir.Tensor(np.empty(0, np.float32)))
    proto.data_type = tensor.dtype.value
    del proto.dims[:]
    proto.dims.extend(tensor.shape.numpy())
    proto.raw_data = memory_map(tensor).tobytes()
    return ir.serde.deserialize_tensor(proto).numpy()


def find_bad(array: Array) -> int:
    """Count values that are not finite.

    Returns
    -------
    int
        Number of NaN and infinite values; 0 for integers.
    """
    if array.dtype.kind in "iub":
        return 0
    if array.dtype.kind == "V" or array.dtype.itemsize < 4:
        array = array.astype(np.float32)
    # One reduction first: the sum of finite float64 values is finite for every stored weight.
    return int(array.size - np.count_nonzero(np.isfinite(array)))


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

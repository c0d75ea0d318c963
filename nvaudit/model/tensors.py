"""Stored tensors as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from nvaudit.errors import ModelError
from nvaudit.model.cause import cause
from nvaudit.model.external import memory_map

Array = np.ndarray[Any, np.dtype[Any]]


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

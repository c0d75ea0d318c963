"""Write a model whose weights are given: an ordinary ONNX file that any runtime opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nvaudit.arrays import Array
from nvaudit.errors import EngineError, ModelError
from nvaudit.files import replacing, write_bytes_atomic
from nvaudit.model.template import ALIGNMENT, Slot, Template

MAX_ONE_FILE = 1_500_000_000  # bytes of tensors; a protobuf message ends at 2 GiB


def filled_model(
    template: Template, arrays: Mapping[str, Array], path: str | Path, *, max_bytes: int = MAX_ONE_FILE
) -> None:
    """Write a template with its slots filled.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        One array per slot name, in the slot's shape (see ``Slot.fill``).
    path : str or Path
        The ONNX file to write; where it would be too large, tensors go to ``<name>.data`` beside it.
    max_bytes : int
        Bytes of tensors from which on they go to the file beside it.

    Raises
    ------
    ModelError
        If an array is missing or does not fit its slot.
    EngineError
        If a file cannot be written.
    """
    path = Path(path)
    filled = {slot.name: _fit(slot, arrays) for slot in template.slots} | dict(template.digital)
    proto = onnx.ModelProto.FromString(template.proto)
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer if tensor.name in filled}
    data = path.with_name(path.name + ".data")
    try:
        if sum(array.nbytes for array in filled.values()) > max_bytes:
            _write_whole(data, [_outline(tensors[name], array, data.name) for name, array in filled.items()])
        else:
            for name, array in filled.items():
                del tensors[name].external_data[:]
                tensors[name].ClearField("data_location")
                tensors[name].raw_data = _little_endian(array).tobytes()
    except OSError as error:
        why = error.strerror or "the disk is full"  # ndarray.tofile does not say
        raise EngineError(f"{data}: cannot be written: {why}; free space or choose another place") from error
    write_bytes_atomic(path, proto.SerializeToString())


def _fit(slot: Slot, arrays: Mapping[str, Array]) -> Array:
    """The array of a slot, in its type."""
    if slot.name not in arrays:
        raise ModelError(f"slot {slot.name!r}: no array is given; fill every slot")
    array = arrays[slot.name]
    if array.shape != slot.shape:
        raise ModelError(
            f"slot {slot.name!r}: has shape {list(slot.shape)}, got {list(array.shape)}; use Slot.fill"
        )
    return slot.cast(array)


def _outline(tensor: Any, array: Array, location: str) -> tuple[int, Array]:
    """Point a tensor at the data file, where its offset already says."""
    offset = 0
    for entry in tensor.external_data:
        if entry.key == "location":
            entry.value = location
        elif entry.key == "offset":
            offset = int(entry.value)
    assert offset % ALIGNMENT == 0
    return offset, _little_endian(array)


def _little_endian(array: Array) -> Array:
    array = np.ascontiguousarray(array)
    return array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array


def _write_whole(path: Path, parts: list[tuple[int, Array]]) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        for offset, array in parts:
            file.seek(offset)
            array.tofile(file)

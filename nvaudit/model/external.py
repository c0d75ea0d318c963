"""External data files of a model: where they may lie, what they must hold, how they are read.

A model names its data files itself, so a name is untrusted: only plain files inside the model's own folder
are opened, and only after their length was checked against the shape that the tensor declares.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnx_ir as ir

from nvaudit.errors import ModelError
from nvaudit.files import note_files

_KEYS = ("location", "offset", "length", "checksum")
_PREPACKED = "prepacked"  # ONNX Runtime names what it keeps of its own this way


def external_entries(tensor: Any, place: str, model_path: Path) -> dict[str, str]:
    """Read the key-value pairs of an external tensor.

    Parameters
    ----------
    tensor : onnx.TensorProto
        A tensor whose data are external.
    place : str
        The tensor in words, for messages.

    Raises
    ------
    ModelError
        If a key occurs twice or is none of the format: ONNX Runtime refuses those, other readers drop them.
    """
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        where = f"{model_path}: {place}: external data key {str(entry.key)[:60]!r}"
        if entry.key in entries:
            raise ModelError(f"{where} occurs twice; export the model again")
        if entry.key not in _KEYS and not str(entry.key).startswith(_PREPACKED):
            raise ModelError(f"{where} is unknown; ONNX has {', '.join(_KEYS)}: remove it or export again")
        entries[entry.key] = entry.value
    return entries


def check_external(entries: dict[str, str], nbytes: int, place: str, model_path: Path) -> Path:
    """Check one external tensor and return its data file.

    Parameters
    ----------
    entries : dict of str to str
        The key-value pairs of the tensor: ``location``, ``offset``, ``length``.
    nbytes : int
        Bytes that the declared type and shape need.
    place : str
        The tensor in words, for messages.

    Returns
    -------
    Path
        The data file, resolved.

    Raises
    ------
    ModelError
        If the file lies outside the model's folder, is missing or no plain file, or is too short, or
        if offset and length are no whole numbers or do not fit the declared shape.
    """
    where = f"{model_path}: {place}"
    path = _inside(entries.get("location", ""), where, model_path)
    offset = _whole(entries, "offset", where)
    length = _whole(entries, "length", where) if "length" in entries else nbytes
    if length != nbytes:
        raise ModelError(
            f"{where}: its shape needs {nbytes} bytes but its external data has length {length}; "
            "the file is damaged, export the model again"
        )
    size = path.stat().st_size
    if offset + nbytes > size:
        raise ModelError(
            f"{where}: needs bytes {offset} to {offset + nbytes} of {path.name!r}, which has only {size}; "
            "the file is truncated, fetch or export it again"
        )
    return path


def _whole(entries: dict[str, str], key: str, where: str) -> int:
    """One entry as a number that is not negative."""
    text = entries.get(key, "0")
    # Python's int() takes signs, underscores and other scripts' digits; the format does not.
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(
            f"{where}: external data {key} is {text[:40]!r}, not a number of bytes; export again"
        )
    return int(text)


def _inside(location: str, where: str, model_path: Path) -> Path:
    """The data file of a location, refused unless it is a plain file inside the model's folder."""
    advice = "put the data file beside the model and refer to it by its bare name"
    if not location:
        raise ModelError(f"{where}: external data without a location; {advice}")
    # By the rules of both systems: a bare name for the one can be a drive or a way up for the other.
    parts = PurePosixPath(location).parts + PureWindowsPath(location).parts
    rooted = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    if "\0" in location or rooted or ".." in parts:
        raise ModelError(f"{where}: external data at {location!r}, outside the model's folder; {advice}")
    folder = Path(os.path.realpath(model_path)).parent
    path = Path(os.path.realpath(model_path.parent / location))
    # The model file may be a link itself, as in caches of downloads: its data may lie in the folder of the
    # link or in that of what it points to.
    if not any(path.is_relative_to(root) for root in (folder, Path(os.path.realpath(model_path.parent)))):
        raise ModelError(
            f"{where}: external data at {location!r} is a link out of the model's folder; {advice}"
        )
    if not path.exists():
        raise ModelError(f"{where}: its external data file {location!r} is missing; put it beside the model")
    if not path.is_file():
        raise ModelError(f"{where}: external data at {location!r} is not a plain file; {advice}")
    return path


def memory_map(tensor: ir.ExternalTensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Map the bytes of an external tensor, without reading them.

    Parameters
    ----------
    tensor : onnx_ir.ExternalTensor
        A tensor that ``check_external`` accepted.

    Returns
    -------
    ndarray, uint8
        Read-only bytes of the tensor.

    Raises
    ------
    ModelError
        If the file was shortened or removed since it was checked.
    """
    nbytes = int(tensor.nbytes)
    if nbytes == 0:
        return np.empty(0, np.uint8)
    try:
        return np.memmap(tensor.path, np.uint8, "r", offset=tensor.offset or 0, shape=(nbytes,))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{tensor.path}: external data of {tensor.name!r} cannot be read any more: {error}; "
            "the file changed while it was in use"
        ) from error


def digest_files(paths: Iterable[Path]) -> str:
    """Hash the files of a model, streamed, in the order given, and note them as inputs.

    Parameters
    ----------
    paths : iterable of Path
        The model file, then its data files.

    Returns
    -------
    str
        SHA-256, hexadecimal.
    """
    return note_files(paths)

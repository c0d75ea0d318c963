"""Copies of a model's external data files beside a new model, with some tensors replaced."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import onnx

from nvaudit.errors import EngineError
from nvaudit.files import check_writable, forget_input, write_bytes_atomic

ALIGNMENT = 4096
"""Tensors that get a new place start at a page."""


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file."""
    return os.path.realpath(first) == os.path.realpath(second)


class DataFiles:
    """The data files of a model and their copies.

    Parameters
    ----------
    files : sequence of Path
        The old model's data files.
    """

    def __init__(self, model: Path, path: Path, files: Sequence[Path]) -> None:
        self.model = model
        self.path = path
        self.files = list(files)
        self.copies: dict[str, Path] = {}
        for file in self.files:
            self.copies[os.path.realpath(file)] = self._free_name()
        # Per file: offset and bytes of what replaces a tensor; a list, for the places may coincide.
        self.patches: dict[str, list[tuple[Any, bytes]]] = {}

    def _free_name(self) -> Path:
        number = 0
        while True:
            name = f"{self.path.name}.{number}.data" if number else f"{self.path.name}.data"
            wish = self.path.with_name(name)
            if wish not in self.copies.values() and not any(same_file(wish, file) for file in self.files):
                return wish
            number += 1

    def replace(self, tensor: Any, data: bytes) -> None:
        """Note the new bytes of an external tensor of the new message."""
        self.patches.setdefault(self._source(tensor), []).append((tensor, data))

    def _source(self, tensor: Any) -> str:
        return os.path.realpath(self.model.parent / _entries(tensor)["location"])

    def write(self, tensors: Iterable[Any]) -> None:
        """Write the copies, and point the tensors of the new message at them.

        Raises
        ------
        OptionError, EngineError
            If a file cannot be written.
        """
        external = [t for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL]
        if not external:
            return
        check_writable(self.path)
        shared = _shared_places([(self._source(tensor), tensor) for tensor in external])
        try:
            for source, copy in self.copies.items():
                self._copy(Path(source), copy, shared)
        except OSError as error:
            raise EngineError(
                f"{self.path}: its data cannot be written: {error.strerror}; free space or write elsewhere"
            ) from error
        for tensor in external:
            _set(tensor, "location", self.copies[self._source(tensor)].name)

    def write_model(self, data: bytes) -> None:
        """Write the new message, after its data."""
        write_bytes_atomic(self.path, data)

    def _copy(self, source: Path, copy: Path, shared: set[int]) -> None:
        temporary = copy.with_name(f".{copy.name[:32]}.{secrets.token_hex(8)}.tmp")
        try:
            shutil.copyfile(source, temporary)
            with temporary.open("r+b") as file:
                for tensor, data in self.patches.get(str(source), []):
                    _patch(file, tensor, data, id(tensor) in shared)
                file.flush()
                os.fsync(file.fileno())
            forget_input(copy)
            temporary.replace(copy)
        finally:
            temporary.unlink(missing_ok=True)


def _patch(file: BinaryIO, tensor: Any, data: bytes, shared: bool) -> None:
    """Overwrite a tensor in its place, or at the end where its place serves another one too."""
    offset = int(_entries(tensor).get("offset", "0"))
    if shared:
        end = file.seek(0, os.SEEK_END)
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        _set(tensor, "offset", str(offset))
        _set(tensor, "length", str(len(data)))
    file.seek(offset)
    file.write(data)


def _shared_places(tensors: list[tuple[str, Any]]) -> set[int]:
    """Find the tensors that share bytes of a file with another one."""
    spans = []
    for source, tensor in tensors:
        entries = _entries(tensor)
        start = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else _nbytes(tensor)
        spans.append((source, start, start + length, id(tensor)))
    spans.sort(key=lambda span: span[:3])
    shared: set[int] = set()
    reach: tuple[str, int, int] | None = None
    for source, start, end, mark in spans:
        if reach is not None and reach[0] == source and start < reach[1]:
            shared |= {mark, reach[2]}
        if reach is None or reach[0] != source or end > reach[1]:
            reach = (source, end, mark)
    return shared


def _nbytes(tensor: Any) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(count * width)


def _entries(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _set(tensor: Any, key: str, value: str) -> None:
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = value
            return
    entry = tensor.external_data.add()
    entry.key, entry.value = key, value

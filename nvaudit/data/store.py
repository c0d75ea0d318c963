"""Arrays on disk: opening .npy files without pickle, writing converted ones, walking through in blocks."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
import tempfile
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit.arrays import Array
from nvaudit.errors import DataError, EngineError

# Conversions, checks and digests hold about this much at a time.
BLOCK_BYTES = 16 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_BAD_HEADER = (ValueError, TypeError, SyntaxError, ArithmeticError, MemoryError, RecursionError, EOFError)


class ScratchStore:
    """A fresh folder under the caller's scratch space; nothing in it is ever overwritten.

    Parameters
    ----------
    scratch : Path
        Folder for temporary files, made if absent. The caller removes it when the dataset is done with.

    Raises
    ------
    EngineError
        If the folder cannot be made.
    """

    def __init__(self, scratch: Path) -> None:
        try:
            scratch.mkdir(parents=True, exist_ok=True)
            self.root = Path(tempfile.mkdtemp(prefix="data-", dir=scratch))
        except OSError as error:
            raise EngineError(f"{scratch}: cannot make a scratch folder: {error.strerror}") from error
        self._files = 0

    def free_bytes(self) -> int:
        """Free space on the scratch disk, in bytes."""
        return shutil.disk_usage(self.root).free

    def new_path(self) -> Path:
        """Path of a new file; names are numbers, so nothing found in the data can steer them."""
        self._files += 1
        return self.root / f"{self._files:04d}.npy"

    def write(self, path: Path, chunks: Iterator[bytes]) -> None:
        """Write bytes to a new file of the folder.

        Raises
        ------
        EngineError
            If the file cannot be written. What reading the chunks raises passes through.
        """
        with path.open("xb", buffering=0) as file:
            for chunk in chunks:
                rest = memoryview(chunk)
                while rest:
                    try:
                        rest = rest[file.write(rest) :]
                    except OSError as error:
                        raise EngineError(f"{path}: cannot be written: {error.strerror}") from error

    def create(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """Make a writable memory-mapped array whose disk space is already reserved.

        Raises
        ------
        EngineError
            If the scratch disk has no room. Writing through a map on a full disk would kill the process,
            so the room is taken first.
        """
        path = self.new_path()
        need = math.prod(shape) * dtype.itemsize
        if need > self.free_bytes():
            raise EngineError(_no_room(self.root, need, self.free_bytes()))
        # The .npy format has no name for bfloat16 and its kin: their bits are stored as unsigned integers.
        plain = dtype if dtype.kind in "biuf" else np.dtype(f"u{dtype.itemsize}")
        try:
            array = np.lib.format.open_memmap(path, mode="w+", dtype=plain, shape=shape)
            _reserve(path)
        except OSError as error:
            raise EngineError(f"{path}: cannot be written: {error.strerror}") from error
        return array.view(dtype)


def _no_room(root: Path, need: int, free: int) -> str:
    return (
        f"{root}: {need} bytes are needed for the converted data and {free} are free; "
        "use a scratch folder on a larger disk, or fewer samples (--limit)"
    )


def _reserve(path: Path) -> None:
    if not hasattr(os, "posix_fallocate"):
        return
    # A file made by writing its last byte is sparse: its blocks are taken when they are first written through
    # the map, and a full disk then ends the process with a signal, not an error.
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            # Some file systems cannot reserve; the check of free space has to do there.
            if error.errno in _FULL:
                raise


def sealed(array: Array) -> Array:
    """Read-only view of an array that was written; flushes it first."""
    # The map itself may lie under several views (another element type, a part): the one that can be flushed
    # is searched for.
    base = array
    while base is not None:
        if isinstance(base, np.memmap):
            base.flush()
            break
        base = base.base  # type: ignore[assignment]
    view = array.view()
    view.flags.writeable = False
    return view


def open_npy(path: Path, where: str, *, text: bool = False) -> Array:
    """Memory-map one .npy file read-only; never unpickles.

    Parameters
    ----------
    where : str
        How messages name it.
    text : bool
        Text is wanted too: labels may be names.

    Returns
    -------
    ndarray
        Boolean, integer or floating-point, or text where it is wanted, as stored.

    Raises
    ------
    DataError
        If the file is not an intact .npy, or holds objects, text, complex numbers or records.
    """
    try:
        # A declared size that overflows is an error here, not a wrapped number; headers written by old
        # Python versions are read without remark.
        with np.errstate(over="raise"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _check_header(path)
            array: Array = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror or error}") from error
    except (*_BAD_HEADER, tokenize.TokenError) as error:
        if "Python objects" in str(error):
            raise DataError(
                f"{where}: holds Python objects, which are never loaded (pickle can run code); "
                "save a plain numeric array"
            ) from error
        raise DataError(f"{where}: not a complete .npy array: {str(error)[:200]}") from error
    if array.dtype.kind not in ("biufUS" if text else "biuf"):
        raise DataError(
            f"{where}: element type {array.dtype} cannot be used; save booleans, integers or floats"
        )
    return array


def _check_header(path: Path) -> None:
    """Refuse a size below 0 and elements of no bytes: NumPy divides by their size, and the process ends."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    if any(size < 0 for size in shape):
        raise ValueError(f"its header declares the shape {shape}")
    if dtype.itemsize == 0 and dtype.kind not in "US":
        raise ValueError(f"its header declares elements of no bytes ({dtype})")


def blocks(array: Array) -> Iterator[Array]:
    """Yield an array's elements in C order as contiguous pieces of at most about `BLOCK_BYTES`."""
    if array.ndim == 0 or array.nbytes <= BLOCK_BYTES:
        yield np.asarray(array, order="C")
        return
    row_bytes = array.nbytes // array.shape[0]
    if row_bytes > BLOCK_BYTES:
        for row in array:
            yield from blocks(row)
        return
    for part in row_slices(array):
        yield np.asarray(array[part], order="C")


def row_slices(array: Array) -> Iterator[slice]:
    """Cover axis 0 with slices of at most about `BLOCK_BYTES` each, one row at least."""
    row_bytes = max(1, array.nbytes // max(1, array.shape[0]))
    step = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, array.shape[0], step):
        yield slice(start, min(start + step, array.shape[0]))


def digest(inputs: dict[str, Array], labels: Array | None) -> str:
    """SHA-256 over names, dtypes, shapes and C-order bytes of all arrays, labels last."""
    total = hashlib.sha256()
    # Name, type and shape with their ends marked stand before the bytes: two sets that only cut the same
    # bytes otherwise get different digests.
    named = [(f"input:{name}", array) for name, array in inputs.items()]
    if labels is not None:
        named.append(("labels", labels))
    for name, array in named:
        total.update(f"{name}\0{array.dtype.name}\0{tuple(map(int, array.shape))}\0".encode())
        for block in blocks(array):
            total.update(block.tobytes())
    return total.hexdigest()

"""Types of arrays by what they hold (shapes stand in the docstrings), and how their files are read."""

from __future__ import annotations

import io
import threading
import zipfile
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]
Singles: TypeAlias = NDArray[np.float32]
Ids: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[np.intp]

_HEADERS = threading.Lock()
"""NumPy reads a header with `ast.literal_eval`, and CPython 3.11 counts the depth of syntax trees in one
place for all threads: two headers at a time end, rarely, in a SystemError."""


def load_array(path: str | Path, mmap_mode: Literal["r"] | None = None) -> Array:
    """Read or map a .npy file, in any thread.

    Raises
    ------
    OSError, ValueError
        As ``numpy.load``.
    """
    with _HEADERS:
        return np.asanyarray(np.load(path, mmap_mode=mmap_mode, allow_pickle=False))


def load_arrays(path: str | Path) -> dict[str, Array]:
    """Read every array of a .npz file, in any thread.

    Raises
    ------
    OSError, ValueError, zipfile.BadZipFile
        If it cannot be read, or holds anything else.
    """
    with zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
    with _HEADERS:
        return {
            name: np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
            for name, data in members.items()
        }

"""Scores of pilot chips, sample by sample, kept beside the record of finished chips."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvaudit.files import write_bytes_atomic

_CRC = struct.Struct("<I")


def load_scores(folder: Path, point: int, trial: int, count: int) -> NDArray[np.float32] | None:
    """Scores of a pilot chip, shape (sample,); None if they were not kept, or not whole."""
    path = _file(folder, point, trial)
    data = path.read_bytes() if path.exists() else b""
    if len(data) != _CRC.size + 4 * count or _CRC.unpack_from(data)[0] != zlib.crc32(data[_CRC.size :]):
        return None
    return np.frombuffer(data, np.float32, offset=_CRC.size)


def save_scores(folder: Path, point: int, trial: int, scores: NDArray[np.float32]) -> None:
    """Keep the scores of a pilot chip."""
    data = scores.astype(np.float32).tobytes()
    write_bytes_atomic(_file(folder, point, trial), _CRC.pack(zlib.crc32(data)) + data)


def _file(folder: Path, point: int, trial: int) -> Path:
    return folder / f"pilot-{point}-{trial}.scores"

"""The plan as a file: which weights to verify, by the name and in the layout of the initializer."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvaudit.files import write_bytes_atomic

_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal plans are equal files


def mask_bytes(masks: Mapping[str, NDArray[np.bool_]]) -> bytes:
    """Pack masks as numpy's ``.npz``.

    Parameters
    ----------
    masks : mapping of str to ndarray of bool
        By initializer; any name will do, which :func:`numpy.savez` does not allow.

    Returns
    -------
    bytes
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mask in masks.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, mask.copy(order="C"), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, member.getvalue())
    return packed.getvalue()


def write_masks(path: Path, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Write masks whole; as :func:`mask_bytes`."""
    write_bytes_atomic(path, mask_bytes(masks))

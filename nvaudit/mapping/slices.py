"""Codes to bit slices (T-12): one digit of at most B bits per device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def slice_widths(bits: int, cell_bits: int) -> tuple[int, ...]:
    """Bits that each slice holds, least significant first; the top slice may be narrower.

    Raises
    ------
    ValueError
        If either number is below 1.

    Examples
    --------
    >>> slice_widths(8, 3)
    (3, 3, 2)
    """
    if bits < 1 or cell_bits < 1:
        raise ValueError(f"bits and cell_bits must be at least 1, got {bits} and {cell_bits}")
    full, rest = divmod(bits, cell_bits)
    return (cell_bits,) * full + ((rest,) if rest else ())


def digits(code: NDArray[np.integer], bits: int, cell_bits: int) -> NDArray[np.int16]:
    """Split non-negative codes into slices.

    Parameters
    ----------
    code : ndarray, integer
        Codes, 0 … 2**bits − 1.
    bits, cell_bits : int
        Bits of a code and of a device.

    Returns
    -------
    ndarray, int16, shape (slice, *code.shape)
        ``g_i = (code >> i·B) mod 2**B``, least significant slice first.

    References
    ----------
    TRICE paper, Eq. 12.

    Examples
    --------
    >>> digits(np.array([0b110110]), 6, 2).ravel()
    array([2, 1, 3], dtype=int16)
    """
    # T-12: the i-th group of B bits, (c >> iB) mod 2^B.
    mask = 2**cell_bits - 1
    count = len(slice_widths(bits, cell_bits))
    return np.stack([(code >> (i * cell_bits)) & mask for i in range(count)]).astype(np.int16)

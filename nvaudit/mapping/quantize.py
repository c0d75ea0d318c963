"""Weights to signed integer codes (T-11), per tensor or per output channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_BITS = 14
"""Codes are stored as int16, and the offset encoding needs one bit more than the magnitude."""

_BLOCK = 1 << 20


def keeps_grid(bits: int | None) -> bool:
    """Whether a weight stored as integers of so many bits (None: as floats) is mapped as these integers.

    A wider grid is finer than any that devices hold: its weights are quantised as floats are.
    """
    return bits is not None and bits <= MAX_BITS


@dataclass(frozen=True)
class Codes:
    """A quantised tensor: the weight is ``scale * code``.

    Attributes
    ----------
    code : ndarray, int16
        Signed codes, magnitude 0 … 2**bits − 1.
    scale : ndarray, float32
        Weight units per code, broadcastable to ``code`` (0-d when there is one scale per tensor).
    bits : int
        Magnitude bits H.
    """

    code: NDArray[np.int16]
    scale: NDArray[np.float32]
    bits: int


def quantize(values: NDArray[np.floating], bits: int, channel_axes: tuple[int, ...] = ()) -> Codes:
    """Round weights to signed codes of ``bits`` magnitude bits.

    Parameters
    ----------
    values : ndarray, any float dtype
        The weights W, finite.
    bits : int
        Magnitude bits H, 1 … 14.
    channel_axes : tuple of int
        Axes that keep a scale of their own; empty for one scale per tensor (the papers' mapping).

    Returns
    -------
    Codes
        ``scale = max|W| / (2**H − 1)`` and ``code = round(W / scale)``. Where all weights are zero the
        scale is 0.

    Raises
    ------
    ValueError
        If ``bits`` is out of range.

    References
    ----------
    TRICE paper, Eq. 11.

    Examples
    --------
    >>> quantize(np.array([-1.0, 0.6, 0.0]), 2).code
    array([-3,  2,  0], dtype=int16)
    """
    if not 1 <= bits <= MAX_BITS:
        raise ValueError(f"bits must be 1 … {MAX_BITS}, got {bits}")
    top = 2**bits - 1
    code, scale = scaled_to(
        values, top, channel_axes, lambda scaled: np.clip(np.rint(scaled), -top, top).astype(np.int16)
    )
    return Codes(code=code, scale=scale, bits=bits)


def scaled_to(
    values: NDArray[np.floating],
    top: int,
    channel_axes: tuple[int, ...],
    rounded: Callable[[NDArray[np.float64]], NDArray[np.int16]],
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Scale weights so that max|W| is ``top``, and round them.

    Parameters
    ----------
    values : ndarray, any float dtype
        The weights W, finite.
    top : int
        Largest value.
    channel_axes : tuple of int
        Axes that keep a scale of their own; empty for one scale per tensor.
    rounded : callable
        Takes W / scale, in double precision; called for slabs of the weights.

    Returns
    -------
    value : ndarray, int16
    scale : ndarray, float32
        ``max|W| / top``, broadcastable to the values; 0 where all weights are zero.
    """
    # Rounded to single precision before anything is divided by it: codes are those of the scale that they
    # are multiplied by later.
    scale = np.asarray(peak_of(values, channel_axes) / top, np.float32)
    code = np.empty(values.shape, np.int16)
    for block, divisor in _blocks(values.shape, scale):
        # Division in double: in single precision W / scale can land on the wrong side of a half.
        safe = np.where(divisor > 0, divisor, 1.0).astype(np.float64)
        code[block] = rounded(values[block].astype(np.float64) / safe)
    return code, scale


def dequantize(code: NDArray[np.int16], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights that codes stand for: ``W_des = scale * code`` in single precision."""
    return code.astype(np.float32) * scale


def peak_of(values: NDArray[np.floating], channel_axes: tuple[int, ...]) -> NDArray[np.float64]:
    """max|W| over all axes but the channel axes, which stay (other axes have length 1)."""
    if values.size == 0:
        return np.zeros((), np.float64)
    if not channel_axes:
        return np.asarray(np.maximum(values.max(), -values.min()), np.float64)
    keep = {axis % values.ndim for axis in channel_axes}
    other = tuple(axis for axis in range(values.ndim) if axis not in keep)
    high, low = values.max(axis=other, keepdims=True), values.min(axis=other, keepdims=True)
    return np.asarray(np.maximum(high, -low), np.float64)


def _blocks(
    shape: tuple[int, ...], scale: NDArray[np.float32]
) -> list[tuple[tuple[slice, ...], NDArray[np.float32]]]:
    """Slabs along the first axis, each with its part of the scale, so that temporaries stay small."""
    if not shape:
        return [((), scale)]
    rows = max(1, _BLOCK // max(1, int(np.prod(shape[1:]))))
    spans = [slice(start, start + rows) for start in range(0, shape[0], rows)]
    per_row = scale.ndim > 0 and scale.shape[0] > 1
    return [((span,), scale[span] if per_row else scale) for span in spans]

"""Which devices a code is programmed into, and their target conductances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import DeviceProfile
from nvaudit.mapping.slices import digits, slice_widths

TopSlice = Literal["window", "lowest"]
Encoding = Literal["sign_magnitude", "differential", "offset"]


@dataclass(frozen=True)
class Array:
    """How one tensor's codes lie in devices.

    Attributes
    ----------
    encoding : str
        ``sign_magnitude``: one device per slice, the sign kept digitally; ``differential``: two devices
        per slice, the idle one at level 0; ``offset``: the code shifted to be non-negative and a noiseless
        reference subtracted, zero landing exactly on a level.
    bits : int
        Magnitude bits H of a code.
    cell_bits : int
        Bits B that one device holds.
    stored_bits : int
        Bits of what is stored: H, or H + 1 with ``offset``.
    top_level : int
        The level at g_max: 2**B − 1, or for an analog device (one device holds the whole code) the
        largest stored code.
    g_min, g_max : float
        Window in the profile's unit; 0 and ``top_level`` for a profile without a window.
    top_slice : str
        ``window``: a top slice of fewer bits uses every k-th level, as large a k as the window holds;
        ``lowest``: only the lowest levels.
    """

    encoding: Encoding
    bits: int
    cell_bits: int
    stored_bits: int
    top_level: int
    g_min: float
    g_max: float
    top_slice: TopSlice = "window"

    @property
    def slices(self) -> int:
        """Devices per weight and polarity, S."""
        return len(slice_widths(self.stored_bits, self.cell_bits))

    @property
    def polarities(self) -> int:
        """Device columns per weight column: 2 for ``differential``, else 1."""
        return 2 if self.encoding == "differential" else 1

    @property
    def step(self) -> float:
        """Conductance between neighbouring levels."""
        return (self.g_max - self.g_min) / self.top_level

    @property
    def stretch(self) -> tuple[int, ...]:
        """Levels from one digit to the next in each slice, least significant first."""
        found = [1] * self.slices
        if self.narrow_top and self.top_slice == "window":
            found[-1] = self.top_level // (2**self.narrow_top - 1)
        return tuple(found)

    @property
    def significance(self) -> tuple[float, ...]:
        """What one level of each slice counts for, in code units: ``2**(i·B)`` over the slice's stretch.

        Examples
        --------
        >>> Array("sign_magnitude", 7, 2, 7, 3, 0.0, 3.0).significance
        (1.0, 4.0, 16.0, 21.333333333333332)
        """
        return tuple(2.0 ** (i * self.cell_bits) / k for i, k in enumerate(self.stretch))

    @property
    def narrow_top(self) -> int:
        """Bits of the top slice when it is narrower than the others, else 0."""
        width = slice_widths(self.stored_bits, self.cell_bits)[-1]
        return width if width < self.cell_bits else 0


def layout(
    profile: DeviceProfile,
    *,
    bits: int,
    cell_bits: int | None = None,
    encoding: Encoding | None = None,
) -> Array:
    """Decide how codes of ``bits`` magnitude bits are stored in devices of a profile.

    Parameters
    ----------
    profile : DeviceProfile
        Gives the window and the defaults of the other two.
    bits : int
        Magnitude bits H.
    cell_bits : int, optional
        Bits per device; by default the profile's, and for an analog device the whole code.
    encoding : str, optional
        By default the profile's.

    Returns
    -------
    Array
    """
    encoding = encoding or profile.encoding
    stored = bits + 1 if encoding == "offset" else bits
    cell = cell_bits or profile.cell_bits
    if cell is None:
        # An analog device spans its window with exactly the codes in use: 0 … 2(2^H − 1) when shifted.
        cell = stored
        top = 2 * (2**bits - 1) if encoding == "offset" else 2**bits - 1
    else:
        top = 2**cell - 1
    window = profile.window
    g_min, g_max = (window.min, window.max) if window else (0.0, float(top))
    return Array(encoding, bits, cell, stored, top, g_min, g_max, profile.top_slice)


def stored_codes(code: NDArray[np.integer], array: Array) -> tuple[NDArray[np.integer], ...]:
    """Non-negative codes of each polarity for signed codes."""
    if array.encoding == "sign_magnitude":
        return (np.abs(code),)
    if array.encoding == "differential":
        return np.maximum(code, 0), np.maximum(-code, 0)
    return (code + (2**array.bits - 1),)


def slice_levels(stored: NDArray[np.integer], array: Array) -> NDArray[np.int16]:
    """Level of every slice's device for non-negative codes, shape (slice, *stored.shape).

    Examples
    --------
    >>> slice_levels(np.array([0b1000001]), Array("sign_magnitude", 7, 2, 7, 3, 0.0, 3.0)).ravel()
    array([1, 0, 0, 3], dtype=int16)
    """
    found = digits(stored, array.stored_bits, array.cell_bits)
    if array.stretch[-1] != 1:
        found[-1] *= array.stretch[-1]
    return found


def polarity_signs(code: NDArray[np.integer], array: Array) -> tuple[NDArray[np.float32] | float, ...]:
    """Factor by which each polarity's deviation enters the weight; a zero weight counts as positive."""
    if array.encoding == "sign_magnitude":
        return (np.where(code < 0, np.float32(-1), np.float32(1)),)
    return (1.0, -1.0) if array.encoding == "differential" else (1.0,)


def target_conductance(level: NDArray[np.integer], array: Array) -> NDArray[np.float64]:
    """Conductance of a level: ``g_min + level · (g_max − g_min) / top_level``, in the profile's unit."""
    return array.g_min + level.astype(np.float64) * array.step

"""Which devices a code is programmed into, and their target conductances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import DeviceProfile
from nvaudit.mapping.codes import Code, level_code, slice_code, slice_widths
from nvaudit.options import Encoding


@dataclass(frozen=True)
class DeviceArray:
    """How one tensor's weights lie in devices.

    Attributes
    ----------
    code : Code
        Levels of every device for each value of a weight: slices, or another code.
    bits : int
        Bits H that hold the magnitude of a value.
    cell_bits : int
        Bits B that one device holds.
    top_level : int
        The level at g_max: 2**B − 1, or for an analog device (one device holds the whole code) the
        largest stored code.
    g_min, g_max : float
        Window in the profile's unit; 0 and ``top_level`` for a profile without a window.
    narrow_top : int
        Bits of the top slice when it is narrower than the others, else 0.
    code_is_slices : bool
        Whether the code is slices of a whole number of bits each.
    """

    code: Code
    bits: int
    cell_bits: int
    top_level: int
    g_min: float
    g_max: float
    narrow_top: int = 0
    code_is_slices: bool = True

    @property
    def encoding(self) -> Encoding:
        """How signs are held; see :class:`nvaudit.mapping.codes.Code`."""
        return self.code.encoding

    @property
    def slices(self) -> int:
        """Devices per weight and polarity."""
        return len(self.code.significances)

    @property
    def polarities(self) -> int:
        """Device columns per weight column: 2 for ``differential``, else 1."""
        return 2 if self.encoding == "differential" else 1

    @property
    def step(self) -> float:
        """Conductance between neighbouring levels."""
        return (self.g_max - self.g_min) / self.top_level

    @property
    def top(self) -> int:
        """Largest magnitude of a value: 2**H − 1 of slices."""
        return self.code.top

    @property
    def significance(self) -> tuple[float, ...]:
        """What one level of each device counts for, in units of the value, least significant first."""
        return self.code.significances


def layout(
    profile: DeviceProfile,
    *,
    bits: int,
    cell_bits: int | None = None,
    encoding: Encoding | None = None,
) -> DeviceArray:
    """Decide how codes of ``bits`` magnitude bits are stored as slices in devices of a profile.

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

    Examples
    --------
    >>> from nvaudit.device import load_profile
    >>> layout(load_profile("rram"), bits=7).significance
    (1.0, 4.0, 16.0, 21.333333333333332)
    """
    encoding = encoding or profile.encoding
    stored = bits + 1 if encoding == "offset" else bits
    cell = cell_bits or profile.cell_bits
    if cell is None:
        # An analog device spans its window with exactly the codes in use: 0 … 2(2^H − 1) when shifted.
        top = 2 * (2**bits - 1) if encoding == "offset" else 2**bits - 1
        return _on_window(profile, level_code(top, encoding), bits, stored, top)
    width = slice_widths(stored, cell)[-1]
    narrow = width if width < cell else 0
    top = 2**cell - 1
    # Whole levels: the widest spacing at which the largest digit still lies inside the window.
    stretch = top // (2**narrow - 1) if narrow and profile.top_slice == "window" else 1
    # 2^H is one top digit and zeros, 2^H − 1 zero and the largest digits; either way max|W| is 2^H − 1.
    zero = 2**bits if encoding == "offset" and profile.offset_zero == "upper" else None
    return _on_window(profile, slice_code(stored, cell, encoding, stretch, zero), bits, cell, top, narrow)


def code_layout(profile: DeviceProfile, code: Code) -> DeviceArray:
    """Store values of a code in devices of a profile."""
    top = code.levels - 1
    array = _on_window(profile, code, code.top.bit_length(), top.bit_length(), top)
    return replace(array, code_is_slices=False)


def one_device(array: DeviceArray) -> DeviceArray:
    """One device of an array as an array of its own, whose value is its level."""
    top = array.top_level
    bits = max(1, top.bit_length())
    return DeviceArray(level_code(top, "sign_magnitude"), bits, bits, top, array.g_min, array.g_max)


def _on_window(
    profile: DeviceProfile, code: Code, bits: int, cell_bits: int, top: int, narrow: int = 0
) -> DeviceArray:
    window = profile.window
    g_min, g_max = (window.min, window.max) if window else (0.0, float(top))
    return DeviceArray(code, bits, cell_bits, top, g_min, g_max, narrow)


@dataclass(frozen=True)
class Held:
    """What one device of each of several weights is to hold.

    Attributes
    ----------
    significance : float
        What one of its levels counts for, in units of the value.
    sign : ndarray, float32, or float
        Factor by which it enters the weight; a zero weight counts as positive.
    level : ndarray, int16
        Its level, 0 … ``top_level``.
    """

    significance: float
    sign: NDArray[np.float32] | float
    level: NDArray[np.int16]


def held_levels(value: NDArray[np.integer], array: DeviceArray) -> Iterator[Held]:
    """Give every device of some weights: polarity by polarity, least significant first.

    Parameters
    ----------
    value : ndarray of int
        Signed values of the weights, magnitude 0 … ``array.top``.

    Examples
    --------
    >>> from nvaudit.device import load_profile
    >>> array = layout(load_profile("rram"), bits=7)
    >>> [int(one.level[0]) for one in held_levels(np.array([-0b1000011]), array)]
    [3, 0, 0, 3]
    """
    code, encoding = array.code, array.encoding
    factors = code.significances
    if encoding == "offset":
        place = value + code.zero
        for factor, row in zip(factors, code.table, strict=True):
            yield Held(factor, 1.0, row[place])
        return
    place, negative = np.abs(value), value < 0
    if encoding == "differential":
        plus, minus = code.table[: len(factors)], code.table[len(factors) :]
        for sign, own, other in ((1.0, plus, minus), (-1.0, minus, plus)):
            for d, factor in enumerate(factors):
                # A negative weight is the positive one with its two columns exchanged.
                yield Held(factor, sign, np.where(negative, other[d][place], own[d][place]))
        return
    sign_of_weight = np.where(negative, np.float32(-1), np.float32(1))
    for factor, row in zip(factors, code.table, strict=True):
        # The table gives the magnitude; an entry below 0 is a device in the − column, which counts against
        # the sign of the weight.
        level = row[place]
        if encoding == "sign_magnitude":
            yield Held(factor, sign_of_weight, level)
        else:
            yield Held(factor, np.where(level < 0, -sign_of_weight, sign_of_weight), np.abs(level))


def target_conductance(level: NDArray[np.integer], array: DeviceArray) -> NDArray[np.float64]:
    """Conductance of a level: ``g_min + level · (g_max − g_min) / top_level``, in the profile's unit."""
    return array.g_min + level.astype(np.float64) * array.step

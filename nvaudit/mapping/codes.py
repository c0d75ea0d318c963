"""Codes: which levels the devices of a weight hold for each value that the weight can take.

A weight on n devices of levels 0 … L − 1 is ``W = s · sgn · Σ_d f_d l_d`` with significances f_d, scale
``s = max|W| / T`` and ``T = (L − 1) Σ f``. If the devices err independently with variance σ²(l) at level l
(in squared level spacings), the weight errs with ``Var W = s² Σ_d f_d² σ²(l_d)``. Slices of significance 1,
2^B, 4^B … give each value one representation and let the top slice make most of the noise. Significances
that lie closer give a value several, of which the least noisy one is taken, and average the noise: bits that
are finer than the noise are spent on that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats, Ids
from nvaudit.options import Encoding


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


MOST_VALUE = 2**14 - 1
"""Largest value: codes are int16, and the offset encoding stores twice the range."""


@dataclass(frozen=True, eq=False)
class Code:
    """A code as data; two codes of equal contents are equal.

    Attributes
    ----------
    significances : tuple of float
        What one level of each device counts for, in units of the value, least significant first. Whole
        numbers but for a narrow top slice that is stretched over the window.
    levels : int
        Levels L of a device.
    encoding : str
        ``sign_magnitude``: the sign of the weight is kept digitally; ``sign_per_device``: each device adds or
        subtracts (it lies in the + or in the − column); ``differential``: each significance has a device in
        the + and one in the − column; ``offset``: values are shifted by ``zero`` and are not negative.
    table : ndarray, int16, shape (device, value)
        Level of each device for the stored values 0, 1, …; negative where a ``sign_per_device`` one
        subtracts. Of ``differential`` the + devices come first, then the − ones, and a negative value
        exchanges both. A value that the significances do not give holds what stands for the nearest one.
    zero : int
        Stored value of a zero weight: above 0 with ``offset`` only.
    """

    significances: tuple[float, ...]
    levels: int
    encoding: Encoding
    table: NDArray[np.int16]
    zero: int = 0

    @property
    def devices(self) -> int:
        """Devices of a weight, of both polarities."""
        return int(self.table.shape[0])

    @property
    def stored(self) -> int:
        """How many values can be stored: 0 … stored − 1."""
        return int(self.table.shape[1])

    @cached_property
    def top(self) -> int:
        """Largest magnitude of a weight's value, T: what max|W| is mapped to."""
        last = self.stored - 1
        # Shifted values reach unequally far to both sides of zero; a weight's range is symmetric.
        return min(self.zero, last - self.zero) if self.encoding == "offset" else last

    @cached_property
    def factors(self) -> tuple[float, ...]:
        """What a level of each device adds to the weight's value; negative in a − column."""
        minus = tuple(-one for one in self.significances)
        return self.significances + (minus if self.encoding == "differential" else ())

    @cached_property
    def reachable(self) -> NDArray[np.bool_]:
        """Which values −T … T the significances give exactly."""
        # A stretched top slice has significances that are not whole; the sum is whole but for rounding.
        held = np.asarray(self.factors) @ self.table
        exact = np.abs(held - np.arange(self.stored)) < 1e-6
        return np.asarray(exact[self._places(np.arange(-self.top, self.top + 1))])

    def _places(self, value: NDArray[np.integer]) -> NDArray[np.integer]:
        """Column of the table of each weight's value, its sign apart."""
        return value + self.zero if self.encoding == "offset" else np.abs(value)

    def value_variance(self, variance: Floats) -> Floats:
        """Variance of each value −T … T in squared units of the value; infinite where it has no code.

        Parameters
        ----------
        variance : ndarray, float64, shape (L,)
            Of one device at each level, in squared level spacings.
        """
        each = np.square(np.asarray(self.factors))[:, None] * variance[np.abs(self.table)]
        of_value = each.sum(axis=0)[self._places(np.arange(-self.top, self.top + 1))]
        return np.where(self.reachable, of_value, np.inf)

    def column_levels(self, value: NDArray[np.integer]) -> NDArray[np.int16]:
        """Level of each device as its column adds it up, of some values −T … T; shape (device, value).

        Negative where a sign that is kept digitally, or a device in the − column, makes the current count
        against the others before it is converted; columns of a pair are converted apart.
        """
        levels = self.table[:, self._places(value)]
        if self.encoding == "offset":
            return np.asarray(levels)
        if self.encoding == "differential":
            half = len(self.significances)
            return np.where(value < 0, np.concatenate([levels[half:], levels[:half]]), levels)
        return np.where(value < 0, -levels, levels)

    @property
    def text(self) -> str:
        """The significances as a user gives them, most significant first, such as ``8,4,2,1``."""
        return ",".join(f"{one:.6g}" for one in reversed(self.significances))

    @cached_property
    def _key(self) -> tuple[object, ...]:
        return (self.significances, self.levels, self.encoding, self.zero, self.table.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=64)
def slice_code(
    bits: int, cell_bits: int, encoding: Encoding, stretch: int = 1, zero: int | None = None
) -> Code:
    """The papers' slices as a code: significance 2^(iB), one digit a device (T-12).

    Parameters
    ----------
    bits : int
        Of what is stored: H, or H + 1 with ``offset``.
    cell_bits : int
        Bits B of a device. Where it does not divide ``bits`` the top slice holds fewer.
    stretch : int
        Levels from one digit to the next in the top slice.
    zero : int, optional
        Stored value of a zero weight; by default 2^H − 1 with ``offset``.

    Examples
    --------
    >>> slice_code(8, 2, "sign_magnitude").text
    '64,16,4,1'
    """
    table = digits(np.arange(2**bits), bits, cell_bits)
    # Digit d at level d · stretch, each level counting 2^(iB) / stretch: the value stays, and an additive
    # spread of the device counts for 1 / stretch of what it would.
    table[-1] *= stretch
    significances = [2.0 ** (i * cell_bits) for i in range(len(table))]
    significances[-1] /= stretch
    if zero is None:
        zero = 2 ** (bits - 1) - 1 if encoding == "offset" else 0
    return _as_code(significances, 2**cell_bits, encoding, table, zero)


@lru_cache(maxsize=64)
def level_code(top: int, encoding: Encoding) -> Code:
    """One device that holds the whole stored value, 0 … top, as its level."""
    zero = top // 2 if encoding == "offset" else 0
    return _as_code([1.0], top + 1, encoding, np.arange(top + 1, dtype=np.int16)[None], zero)


def _as_code(
    significances: list[float], levels: int, encoding: Encoding, table: NDArray[np.int16], zero: int
) -> Code:
    if encoding == "differential":  # the idle device of a pair stays at level 0
        table = np.concatenate([table, np.zeros_like(table)])
    return Code(tuple(significances), levels, encoding, _frozen(table), zero)


def least_noisy_code(
    significances: Sequence[int], variance: Floats, encoding: Encoding, zero: int | None = None
) -> Code:
    """Give each value its least noisy representation.

    The dynamic programme adds one device at a time: with the first d devices the least variance of value v is
    ``c_d(v) = min_l c_{d−1}(v − f_d l) + f_d² σ²(l)``; the level that gave the minimum is kept, and the
    representation is read back from the last device to the first. A device's choices l are its levels,
    levels with a sign, or for a pair the differences of two levels, the quietest pair of each.

    Parameters
    ----------
    significances : sequence of int
        Of each device, or of each pair with ``differential``, ≥ 1; in any order.
    variance : ndarray, float64, shape (L,)
        Of one device at each level, in squared level spacings.
    zero : int, optional
        Stored value of a zero weight with ``offset``, by default the one nearest to the middle.

    Raises
    ------
    ValueError
        If there is no significance, one is below 1, the largest value exceeds :data:`MOST_VALUE`, or a zero
        weight would have no code.

    Examples
    --------
    >>> code = least_noisy_code([8, 4, 2, 1], np.array([1.0, 16.0, 16.0, 1.0]), "sign_magnitude")
    >>> code.top, code.table[::-1, 12].tolist()
    (45, [0, 3, 0, 0])
    """
    f = check_significances(significances, len(variance))
    steps, costs, states = _choices(variance, encoding)
    span = int(steps.max()) * sum(f)
    # Devices that subtract make partial sums negative on the way: room for −span … −1 in front of 0.
    below = span if steps.min() < 0 else 0
    cost = np.full(below + span + 1, np.inf)
    cost[below] = 0.0
    picks = np.zeros((len(f), len(cost)), np.int16)
    for d, factor in enumerate(f):
        # A new array for each device: in place, c_d would read its own entries and use a device twice.
        best = np.full_like(cost, np.inf)
        for choice, (step, own) in enumerate(zip(steps, costs, strict=True)):
            shift = factor * int(step)
            to = slice(max(shift, 0), len(cost) + min(shift, 0))
            of = slice(max(-shift, 0), len(cost) - max(shift, 0))
            candidate = cost[of] + factor**2 * own
            # Strictly less, so that of equal variances the first choice stays (see `_choices`). Values that
            # cannot be reached are infinite and never less.
            better = candidate < best[to]
            best[to][better] = candidate[better]
            picks[d, to][better] = choice
        cost = best
    table = _read_back(picks, f, steps, states, _nearest(np.isfinite(cost[below:])) + below)
    if encoding == "offset":
        exact = np.flatnonzero(np.isfinite(cost[below:]))
        zero = int(exact[np.argmin(np.abs(2 * exact - span))]) if zero is None else zero
        if zero not in exact[1:-1]:
            raise ValueError(f"a zero weight needs a value that the code has inside 0 … {span}, got {zero}")
    return Code(tuple(map(float, f)), len(variance), encoding, _frozen(table), zero or 0)


def _read_back(
    picks: NDArray[np.int16], f: list[int], steps: NDArray[np.int64], states: NDArray[np.int16], value: Ids
) -> NDArray[np.int16]:
    """Levels of every device for each value, shape (device, value), from the choices of every stage."""
    levels = np.empty((len(f), states.shape[0], len(value)), np.int16)
    # Back from the last device: a choice is the best one only for the value that is left at its stage.
    for d in reversed(range(len(f))):
        choice_of = picks[d, value]
        levels[d] = states[:, choice_of]
        value = value - f[d] * steps[choice_of]
    # Polarity by polarity, as devices are drawn: (polarity, significance, value) → (device, value).
    return levels.transpose(1, 0, 2).reshape(-1, levels.shape[2])


def check_significances(significances: Sequence[int], levels: int) -> list[int]:
    """Significances, least first.

    Raises
    ------
    ValueError
        As :func:`least_noisy_code`.
    """
    f = sorted(int(one) for one in significances)
    if not f or f[0] < 1:
        raise ValueError("significances must be whole numbers, 1 or more")
    if (levels - 1) * sum(f) > MOST_VALUE:
        raise ValueError(
            f"devices of {levels} levels with significances {','.join(map(str, reversed(f)))} count up to "
            f"{(levels - 1) * sum(f)}, more than {MOST_VALUE}"
        )
    return f


def _choices(variance: Floats, encoding: Encoding) -> tuple[NDArray[np.int64], Floats, NDArray[np.int16]]:
    """What one significance may add to the value, at which variance, and by which levels of its devices.

    Adding nothing comes first: of equally quiet representations the one with more devices at level 0 is
    taken, which also draws less current.
    """
    level = np.arange(len(variance))
    if encoding == "differential":
        minus, plus = (one.reshape(-1) for one in np.meshgrid(level, level))
        both = variance[plus] + variance[minus]
        # np.unique keeps the first of each difference: the quietest pair, of equal ones the lowest levels.
        order = np.lexsort((plus + minus, both))
        difference = (plus - minus)[order]
        _, first = np.unique(difference, return_index=True)
        kept = order[first]
        # In the order 0, +1, −1, +2, …: of equally quiet representations the first choice stays.
        kept = kept[np.lexsort((-(plus - minus)[kept], np.abs(plus - minus)[kept]))]
        states = np.stack([plus[kept], minus[kept]]).astype(np.int16)
        return (plus - minus)[kept], both[kept], states
    if encoding == "sign_per_device":
        signed = np.concatenate([level[:1], np.stack([level[1:], -level[1:]], axis=1).reshape(-1)])
        return signed, variance[np.abs(signed)], signed[None].astype(np.int16)
    return level, variance, level[None].astype(np.int16)


def _nearest(there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of each value the nearest one that has a representation, the lower one of two."""
    have = np.flatnonzero(there)
    value = np.arange(len(there))
    above = np.minimum(np.searchsorted(have, value), len(have) - 1)
    low, high = have[np.maximum(above - 1, 0)], have[above]
    return np.asarray(np.where(np.abs(value - low) <= np.abs(high - value), low, high), np.int64)


def _frozen(table: NDArray[np.int16]) -> NDArray[np.int16]:
    table = np.ascontiguousarray(table)
    table.flags.writeable = False
    return table


@dataclass(frozen=True)
class RoundingTable:
    """Which value of a code each weight takes.

    Attributes
    ----------
    values : ndarray, int16
        Values that some weight takes, ascending.
    edges : ndarray, float64
        |w|/s (w/s where values are signed) at which the next value takes over.
    signed : bool
        Whether ``values`` are signed; else the sign of the weight is put to the value.
    """

    values: NDArray[np.int16]
    edges: Floats
    signed: bool

    def __call__(self, scaled: Floats) -> NDArray[np.int16]:
        """Values of weights that are given in units of the scale, w/s."""
        if self.signed:
            return np.asarray(self.values[np.searchsorted(self.edges, scaled)])
        values = self.values[np.searchsorted(self.edges, np.abs(scaled))]
        return np.asarray(np.where(scaled < 0, -values, values), np.int16)


def rounding(code: Code, variance: Floats | None = None) -> RoundingTable:
    """Round each weight to the value v of least expected squared error, ``argmin_v (v − w/s)² + c(v)``.

    Less t² = (w/s)², which is common to all v, the error is the line ``v² + c(v) − 2 v t`` of t: the best
    values are those on the lower convex hull of the points (v, v² + c(v)), and the one takes over from the
    other where its slope, half of it, is t.

    Parameters
    ----------
    variance : ndarray, float64, shape (L,), optional
        Of one device at each level, in squared level spacings. None: to the nearest value.
    """
    noise = code.value_variance(np.zeros(code.levels) if variance is None else variance)
    signed = code.encoding == "offset"
    value = np.arange(-code.top, code.top + 1) if signed else np.arange(code.top + 1)
    noise = noise if signed else noise[code.top :]
    kept = _lower_hull(value[np.isfinite(noise)], np.isfinite(noise), value**2 + noise)
    height = (value**2 + noise)[kept - value[0]]
    return RoundingTable(kept.astype(np.int16), np.diff(height) / np.diff(kept) / 2.0, signed)


def _lower_hull(points: NDArray[np.int64], there: NDArray[np.bool_], height: Floats) -> NDArray[np.int64]:
    """Abscissas of the lower convex hull of points given from left to right."""
    y = height[there]
    hull: list[int] = []
    for i in range(len(points)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            # b lies on or above the chord from a to i.
            cross = (y[b] - y[a]) * (points[i] - points[a]) - (y[i] - y[a]) * (points[b] - points[a])
            if cross < 0:
                break
            hull.pop()
        hull.append(i)
    return points[hull]

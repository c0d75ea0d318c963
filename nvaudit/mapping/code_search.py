"""Search for the code of least rms error on a device, and share devices out between layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.mapping.codes import MOST_VALUE, Code, least_noisy_code, rounding
from nvaudit.options import Encoding

CodeFamily = Literal["powers", "integers"]
"""``powers``: significances are powers of two, so that column sums are shifted and added; ``integers``: any
whole numbers, which takes a multiplication for each column sum."""

BINS = 2048
"""Bins of |w|/max|w| that a search looks at."""

_SLAB = 1 << 22

LARGEST = 64
"""Largest significance that a search tries."""

EVERY = 6
"""Codes of so many significances, powers of two, are all tried; of more, those near good ones."""

WORTH = 2e-3
"""A search goes on while a step takes away this share of the error."""

MOST_TRIED = 2000
"""Codes of one number of devices after which a search by steps ends with the best so far."""

_RATIOS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
_STEPS = (-8, -4, -2, -1, 1, 2, 4, 8)
_OFFSETS = 12


@dataclass(frozen=True)
class WeightDistribution:
    """How weights are distributed over −max|W| … max|W|.

    Attributes
    ----------
    at : ndarray, float64
        w / max|W| of each bin.
    share : ndarray, float64
        Of the weights; sums to 1.
    """

    at: Floats
    share: Floats

    @classmethod
    def of(
        cls, tensors: Iterable[tuple[NDArray[np.floating], NDArray[np.floating] | float]]
    ) -> WeightDistribution:
        """Count the weights of tensors, each with its max|W| (broadcastable; 0 where all are zero)."""
        counts = np.zeros(2 * BINS + 1, np.int64)
        for values, peak in tensors:
            values = np.atleast_1d(values)
            safe = np.broadcast_to(np.where(np.asarray(peak) > 0, peak, 1.0), values.shape)
            # Slab by slab: what is in double precision on the way must not be a large tensor several times.
            for start in range(0, len(values), step := max(1, _SLAB // max(1, values[:1].size))):
                part = slice(start, start + step)
                place = np.rint(np.asarray(values[part], np.float64) / safe[part] * BINS).astype(np.int64)
                place = np.clip(place + BINS, 0, 2 * BINS)
                counts += np.bincount(place.reshape(-1), minlength=2 * BINS + 1)
        used = np.flatnonzero(counts)
        at: Floats = used.astype(np.float64) / BINS - 1.0
        return cls(at, counts[used] / max(1, counts.sum()))

    @property
    def folded(self) -> WeightDistribution:
        """The distribution of magnitudes."""
        magnitude: Floats = np.abs(self.at)
        at, place = np.unique(magnitude, return_inverse=True)
        return WeightDistribution(at, np.asarray(np.bincount(place, self.share, len(at)), np.float64))


REACH = 8.0
"""Largest column sum over their standard deviation, where a range is set by what was seen: 4 to 9 in the
layers of a LeNet, 3 to 17 in those of a ResNet-20 (median 10)."""

WIDEST = 2.0
"""How much larger weights are in the column of the largest sums: of 1,1,1,1, which leaves small weights at
level 0, the ranges are 1.08 and 1.12 times those of 8,4,2,1 with it (1.19 and 0.95 in these two models), and
0.67 and 0.78 without."""

_MEAN_SHARE = 1.0 / np.pi
"""E[x]² / E[x²] of inputs behind a Relu: those of a normal around zero."""

_ACTIVE = 0.5
"""Share of such inputs that are not zero."""


@dataclass(frozen=True)
class Conversion:
    """ADCs behind the columns, as far as a code decides what they cost.

    The sum c of R inputs x times the levels of a device d has the mean ``R E[x] E[l_d]`` and the variance
    ``R (E[x²] E[l_d²] − E[x]² E[l_d]²)``. A layer's ADCs have one range, that of its largest sums, which are
    those of the column with the largest weights,

        A = max_d R |E[x] E[l_d]| + z · (standard deviation),

    and steps of Δ = A / (2^N − 1), or A / (2^(N−1) − 1) where sums have both signs. Rounding errs by Δ²/12
    for each device and block of rows, but by no more than the sum itself, and not at all where it is 0:

        E_d = min(Δ²/12, E[c_d²]) · P(c_d ≠ 0).

    With ``y = s Σ_d f_d Σ_r c_d`` and an error e of every weight, relative to max|W| = s T, making
    ``s² T² e² R E[x²]`` of one block, converters count as much as

        e² = Σ_d f_d² E_d / (T² R E[x²]),

    in which E[x²] cancels, and R too where columns have no mean and no sum is 0.

    Attributes
    ----------
    bits : int
        N.
    rows : int
        Of a crossbar, R.
    method : str
        How ranges are set: ``max``, ``full_scale`` (then A = R · (L − 1) · the largest input) or
        ``percentile:P``.
    """

    bits: int
    rows: int
    method: str = "max"

    def error(self, code: Code, weights: WeightDistribution, rounded_by: Floats | None) -> float:
        """Error of weights that counts as much as that of the converters, root mean square over max|W|."""
        most = self._reach(*self._moments(code, weights.at * WIDEST, weights.share, rounded_by)[:2])
        if self.method == "full_scale":
            most = np.array([REACH * self.rows * (code.levels - 1.0)])
        both = code.encoding in ("sign_magnitude", "sign_per_device")
        step = float(most.max()) / (2 ** (self.bits - 1) - 1 if both else 2**self.bits - 1)
        mean, square, used = self._moments(code, weights.at, weights.share, rounded_by)
        power = self.rows * square + self.rows * (self.rows - 1) * _MEAN_SHARE * np.square(mean)
        there = 1.0 - (1.0 - _ACTIVE * used) ** self.rows
        each = np.square(code.factors) * np.minimum(step**2 / 12, power) * there
        return float(np.sqrt(each.sum() / self.rows) / code.top)

    def _moments(
        self, code: Code, at: Floats, share: Floats, rounded_by: Floats | None
    ) -> tuple[Floats, Floats, Floats]:
        """E[l], E[l²] and P(l ≠ 0) of the levels of each device."""
        value = rounding(code, rounded_by)(np.clip(at, -1.0, 1.0) * code.top)
        levels = code.column_levels(value).astype(np.float64)
        return levels @ share, np.square(levels) @ share, (levels != 0) @ share

    def _reach(self, mean: Floats, square: Floats) -> Floats:
        """Largest column sums of each device, in units of √E[x²]."""
        kind, _, percentile = self.method.partition(":")
        reach = REACH
        if kind == "percentile":
            reach = min(REACH, NormalDist().inv_cdf(0.5 + min(float(percentile), 100 - 1e-9) / 200))
        spread = np.sqrt(self.rows * (square - _MEAN_SHARE * np.square(mean)))
        return np.asarray(self.rows * np.sqrt(_MEAN_SHARE) * np.abs(mean) + reach * spread)


@dataclass(frozen=True)
class CodeError:
    """What a code makes of weights, root mean square as a share of max|W|.

    Attributes
    ----------
    total : float
        Rounding, spread and converters together.
    rounding, noise, converters : float
        The last is 0 without converters.
    """

    total: float
    rounding: float
    noise: float
    converters: float = 0.0


def code_error(
    code: Code,
    variance: Floats,
    weights: WeightDistribution,
    *,
    rounded_by: Floats | None,
    conversion: Conversion | None = None,
) -> CodeError:
    """Expected error of weights on a code.

    Parameters
    ----------
    variance : ndarray, float64, shape (L,)
        Of one device at each level, in squared level spacings.
    rounded_by : ndarray or None
        The variance by which weights take the value of least expected error. None: the nearest value.
    conversion : Conversion, optional
        Without it converters are ideal.
    """
    scaled = weights.at * code.top
    value = rounding(code, rounded_by)(scaled).astype(np.int64)
    # E(Ŵ − W)² = (v − W/s)² + Var v in squared units of s: no cross term, as noise has no mean here.
    off = float(weights.share @ np.square(value - scaled))
    noise = float(weights.share @ code.value_variance(variance)[value + code.top])
    converters = 0.0 if conversion is None else conversion.error(code, weights, rounded_by)
    total = off + noise + (converters * code.top) ** 2
    total, off, noise = (float(np.sqrt(part)) / code.top for part in (total, off, noise))
    return CodeError(total, off, noise, converters)


def noise_of_level(
    code: Code, variance: Floats, weights: WeightDistribution, *, rounded_by: Floats | None
) -> Floats:
    """Share of the noise of weights that devices at each level make; zeros without noise.

    Parameters
    ----------
    code, variance, weights, rounded_by
        As of :func:`code_error`.

    Returns
    -------
    ndarray, float64, shape (L,)
    """
    value = rounding(code, rounded_by)(weights.at * code.top).astype(np.int64)
    place = value + code.zero if code.encoding == "offset" else np.abs(value)
    level = np.abs(code.table[:, place])
    each = np.square(np.asarray(code.factors))[:, None] * variance[level] * weights.share
    made: Floats = np.bincount(level.reshape(-1), each.reshape(-1), len(variance)).astype(np.float64)
    return made / made.sum() if made.any() else made


@dataclass(frozen=True)
class BestCode:
    """The best code of a search, its error, and how many codes were tried."""

    code: Code
    error: CodeError
    tried: int


class CodeSearch:
    """Searches codes for one device, encoding and distribution of weights; remembers what it has tried.

    Parameters
    ----------
    variance : ndarray, float64, shape (L,)
        Of one device at each level, in squared level spacings.
    family : {"powers", "integers"}
    conversion : Conversion, optional
        Converters whose error counts too; without it they are ideal.
    """

    def __init__(
        self,
        variance: Floats,
        encoding: Encoding,
        weights: WeightDistribution,
        family: CodeFamily = "powers",
        conversion: Conversion | None = None,
    ) -> None:
        # Signs matter where values are shifted and in column sums only; without them there is half as much
        # to look at.
        signed = encoding == "offset" or conversion is not None
        self.weights = weights if signed else weights.folded
        self.variance, self.encoding, self.family = variance, encoding, family
        self.conversion = conversion
        self._tried: dict[tuple[int, ...], tuple[Code, CodeError]] = {}
        self._best: dict[int, BestCode] = {}
        self._end = 0

    @property
    def tried(self) -> int:
        """Codes that were tried so far."""
        return len(self._tried)

    @property
    def per_significance(self) -> int:
        """Devices that one significance takes."""
        return 2 if self.encoding == "differential" else 1

    def best(self, devices: int) -> BestCode:
        """Find the code of least rms error on so many devices.

        Of ``powers`` with up to six significances every code is tried. Beyond, and of ``integers``, a
        significance is changed at a time while that helps, from geometric series of several ratios and from
        the best code of one device fewer.

        Raises
        ------
        ValueError
            If the devices cannot be that many, or no code of them fits.
        """
        count, rest = divmod(devices, self.per_significance)
        if rest or count < 1:
            raise ValueError(f"{self.encoding} takes {self.per_significance} devices each, got {devices}")
        if count not in self._best:
            before = len(self._tried)
            significances = self._search(count)
            code, error = self._score(significances)
            self._best[count] = BestCode(code, error, len(self._tried) - before)
        return self._best[count]

    def _search(self, count: int) -> tuple[int, ...]:
        if self.family == "powers" and count <= EVERY:
            powers = [2**i for i in range(LARGEST.bit_length())]
            # A common factor changes the scale only, so one significance is 1.
            every = ((1, *rest) for rest in itertools.combinations_with_replacement(powers, count - 1))
            return self._least(every)
        starts = self._starts(count)
        self._end = len(self._tried) + MOST_TRIED
        return self._least([self._descend(start) for start in starts])

    def _starts(self, count: int) -> list[tuple[int, ...]]:
        """Where to begin: geometric series, and the best code of one device fewer with another device."""
        series = [[min(LARGEST, round(ratio**i)) for i in range(count)] for ratio in _RATIOS]
        starts = [self._in_family(one) for one in series]
        if count > 1:
            before = self.best((count - 1) * self.per_significance).code
            fewer = [int(one) for one in before.significances]
            starts += [self._in_family([*fewer, one]) for one in (fewer[0], fewer[-1])]
        if self.family == "integers":
            powers = CodeSearch(self.variance, self.encoding, self.weights, conversion=self.conversion)
            # Powers of two are whole numbers too: a code that both searches come to is tried, and counted,
            # once.
            powers._tried = self._tried
            starts.append(powers._search(count))
        fits = [one for one in dict.fromkeys(starts) if self._fits(one)]
        if not fits:
            raise ValueError(f"{count} devices of {len(self.variance)} levels count beyond {MOST_VALUE}")
        return fits

    def _in_family(self, f: Sequence[int]) -> tuple[int, ...]:
        if self.family == "powers":
            return tuple(sorted(1 << max(0, round(float(np.log2(one)))) for one in f))
        return tuple(sorted(f))

    def _descend(self, start: tuple[int, ...]) -> tuple[int, ...]:
        """Change one significance at a time while that helps."""
        now = start
        while True:
            near = [one for one in self._near(now) if self._fits(one)]
            best = self._least([now, *near])
            gained = self._score(best)[1].total <= (1.0 - WORTH) * self._score(now)[1].total
            if not gained or len(self._tried) > self._end:
                return best
            now = best

    def _near(self, f: tuple[int, ...]) -> Iterable[tuple[int, ...]]:
        for i, one in enumerate(f):
            others = f[:i] + f[i + 1 :]
            changed = (2 * one, one // 2) if self.family == "powers" else [one + step for step in _STEPS]
            yield from (tuple(sorted((*others, new))) for new in changed if 1 <= new <= LARGEST)

    def _fits(self, f: tuple[int, ...]) -> bool:
        return (len(self.variance) - 1) * sum(f) <= MOST_VALUE

    def _least(self, codes: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
        # Of equal errors the smaller range: fewer bits in every column sum.
        # To nine digits: errors that differ only by the order of a sum count as equal, and the next rule
        # decides on every machine alike.
        fitting = [one for one in codes if self._fits(one)]
        return min(fitting, key=lambda one: (round(self._score(one)[1].total, 9), sum(one), one))

    def _score(self, f: tuple[int, ...]) -> tuple[Code, CodeError]:
        if f not in self._tried:
            self._tried[f] = best_zero(f, self.variance, self.encoding, self.weights, self.conversion)
        return self._tried[f]


def best_zero(
    significances: Sequence[int],
    variance: Floats,
    encoding: Encoding,
    weights: WeightDistribution,
    conversion: Conversion | None = None,
) -> tuple[Code, CodeError]:
    """Give the least noisy code of some significances, with ``offset`` at the best stored value of zero.

    Most weights are near zero, so that the representation of zero decides: one digit in the top device and
    no others is quieter than digits in all, and draws less current. The quietest values in the middle half
    of the range are tried, and the middle.
    """
    code = least_noisy_code(significances, variance, encoding)
    error = code_error(code, variance, weights, rounded_by=variance, conversion=conversion)
    if encoding != "offset":
        return code, error
    last = code.stored - 1
    # Every stored value's own variance does not depend on where zero lies.
    held = np.square(np.asarray(code.factors))[:, None] * variance[np.abs(code.table)]
    exact = np.asarray(code.factors) @ code.table == np.arange(code.stored)
    noise = np.where(exact, held.sum(axis=0), np.inf)
    middle = np.arange(last // 4, last - last // 4 + 1)
    # Of equally quiet ones that nearer to the middle: it leaves the larger range.
    order = np.lexsort((np.abs(2 * middle - last), noise[middle]))
    quiet = middle[order[:_OFFSETS]]
    best = code, error
    for zero in np.unique(quiet[(quiet > 0) & (quiet < last)]).tolist():
        other = Code(code.significances, code.levels, encoding, code.table, zero)
        other_error = code_error(other, variance, weights, rounded_by=variance, conversion=conversion)
        if other_error.total < best[1].total - 1e-12:
            best = other, other_error
    return best


def allocate(
    power: Mapping[str, Sequence[float]], cost: Mapping[str, Sequence[float]], budget: float
) -> dict[str, int]:
    """Share a budget out between layers: min Σ_l P_l(k_l) subject to Σ_l cost_l(k_l) ≤ budget.

    Choices are taken one after another, each time the step from a layer's present choice to a dearer one
    that takes away most noise for its cost; what no longer fits is left out. On the convex hull of every
    P_l that is the optimum of the Lagrangian, and differs from the whole-number optimum by the last step.
    Where that step is a large layer's, much of the budget may be left: so it is begun from every choice that
    all layers can have alike, too, and the best result counts. It is never worse than all layers alike.

    Parameters
    ----------
    power : mapping of str to sequence of float
        Of each layer, the relative noise power of each choice.
    cost : mapping of str to sequence of float
        What each choice takes (devices, or crossbars), ascending.

    Returns
    -------
    dict of str to int
        The choice of each layer.

    Raises
    ------
    ValueError
        If the cheapest choices already cost more than the budget.

    Examples
    --------
    >>> allocate({"a": [4.0, 1.0], "b": [4.0, 3.0]}, {"a": [1, 2], "b": [1, 2]}, 3)
    {'a': 1, 'b': 0}
    """
    alike = [
        sum(float(one[k]) for one in cost.values()) for k in range(min(map(len, cost.values()), default=0))
    ]
    if alike and alike[0] > budget:
        raise ValueError(f"the least choices cost {alike[0]:g}, more than the budget of {budget:g}")
    starts = [k for k, cost_of_all in enumerate(alike) if cost_of_all <= budget]
    paths = [_stepwise(power, cost, k, budget - alike[k]) for k in starts]
    return min(paths, key=lambda one: sum(power[layer][k] for layer, k in one.items()), default={})


def _stepwise(
    power: Mapping[str, Sequence[float]], cost: Mapping[str, Sequence[float]], start: int, room: float
) -> dict[str, int]:
    """Take the best steps from one choice of all layers while they fit."""
    chosen = dict.fromkeys(power, start)
    while True:
        steps = [
            (_gain(power[layer], cost[layer], chosen[layer], k), layer, k)
            for layer in power
            for k in range(chosen[layer] + 1, len(power[layer]))
            if cost[layer][k] - cost[layer][chosen[layer]] <= room + 1e-9
        ]
        best = max(steps, key=lambda step: step[0], default=(0.0, "", 0))
        if best[0] <= 0:
            return chosen
        _, layer, k = best
        room -= cost[layer][k] - cost[layer][chosen[layer]]
        chosen[layer] = k


def _gain(power: Sequence[float], cost: Sequence[float], now: int, then: int) -> float:
    """Noise taken away for the cost; free steps count as the best of all."""
    less, more = power[now] - power[then], cost[then] - cost[now]
    if more <= 0:
        return np.inf if less > 0 else 0.0
    return less / more

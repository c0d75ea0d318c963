"""Making a profile from programmed against measured arrays: levels, law, components, stuck devices, drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaincinv, ndtr, stdtrit

from nvaudit.device.fit_drift import DriftFit, fit_drift
from nvaudit.device.fit_laws import LEAST, FittedLaw, Sums, choose_laws
from nvaudit.device.fit_samples import FEWEST, CrossbarSample, Estimated, mean_and_spread
from nvaudit.errors import DataError

Doubles = NDArray[np.float64]

_OUTLIER = 6.0
"""Robust standard deviations beyond which a device does not follow its level."""
_END = 0.05
"""Share of the window around its ends within which a device that does not follow is stuck there."""
_CLIPPED = 0.01
"""Share of a level's devices at one and the same extreme value from which on they are limited to it."""
_BLOCKS = 8
"""Parts of a crossbar, of neighbouring rows, on which laws are judged."""
_TESTED = 2000
"""Devices of a level that its shape is tested on."""


@dataclass(frozen=True)
class LevelFit:
    """The devices of one level, stuck ones apart.

    Attributes
    ----------
    target : float
        In the window's unit.
    mean, spread : Estimated
        Of measured less target, in level spacings.
    distance, p_normal : float
        Kolmogorov-Smirnov distance to the normal of this mean and spread, and the chance of a larger one.
    clipped : float
        Share at the value that devices are limited to.
    """

    level: int
    devices: int
    target: float
    mean: Estimated
    spread: Estimated
    skewness: float
    distance: float
    p_normal: float
    clipped: float


@dataclass(frozen=True)
class ArrayFit:
    """What was found; spreads and shifts in level spacings.

    Attributes
    ----------
    components : dict of str to Estimated
        Standard deviation of what a chip, a crossbar, a row and a column have in common; of those that can
        be told.
    clip : tuple of float or None
        What conductances are limited to, in the unit.
    read : tuple of ndarray, or None
        Level and spread of one read.
    """

    crossbars: int
    chips: int
    devices: int
    levels: tuple[LevelFit, ...]
    laws: tuple[FittedLaw, ...]
    components: dict[str, Estimated]
    stuck_low: Estimated
    stuck_high: Estimated
    clip: tuple[float | None, float | None]
    read: tuple[NDArray[np.intp], Doubles] | None
    drift: DriftFit | None


def fit_arrays(
    samples: Sequence[CrossbarSample],
    top_level: int,
    window: tuple[float, float],
    levels: int | None,
    *,
    t0_s: float | None = None,
    confidence: float = 0.95,
) -> ArrayFit:
    """Describe the devices of some crossbars.

    Parameters
    ----------
    samples : sequence of CrossbarSample
        Of one or several chips, at one or several times; programming is judged at the first one.
    top_level : int
        The level at the upper end of the window.
    levels : int or None
        Of a cell; None: analog.
    t0_s : float, optional
        Reference time of a drift, where it is known.

    Raises
    ------
    DataError
        If there is too little to say anything.
    """
    low, high = window
    step = (high - low) / top_level
    first = min((one.time_s or 0.0) for one in samples)
    base = [one for one in samples if (one.time_s or 0.0) == first]
    d = [(one.g - low) / step - one.level for one in base]
    total = sum(map(len, d))
    if total < FEWEST:
        raise DataError(f"{total} devices were measured; {FEWEST} at least are needed")
    level = np.concatenate([one.level for one in base])
    error = np.concatenate(d)
    stuck, rates = _stuck(level, error, top_level, confidence)
    clip, at_clip = _clipped(level, error, ~stuck)
    kept = ~stuck
    usable = _usable(level, error, at_clip, kept, top_level)
    starts = np.cumsum([0, *map(len, d)])
    parts = [slice(a, b) for a, b in pairwise(starts)]
    inside = kept & usable[level]
    components = _components(base, level, error, inside, parts, top_level, confidence)
    common = sum(one.value**2 for one in sure(components).values())
    shared = _shared_by_level(base, level, kept, parts, top_level, components)
    fits = _level_fits(level, error, kept, at_clip, window, step, shared, confidence)
    laws = _laws(base, level, error, inside, top_level, low / step, common, levels)
    to_unit = tuple(None if one is None else low + step * one for one in clip)
    return ArrayFit(
        crossbars=len(base),
        chips=len({one.chip for one in base}),
        devices=total,
        levels=fits,
        laws=tuple(laws),
        components=components,
        stuck_low=rates[0],
        stuck_high=rates[1],
        clip=(to_unit[0], to_unit[1]),
        read=_read(base, step),
        drift=fit_drift(samples, top_level, window, t0_s, confidence),
    )


def _stuck(
    level: NDArray[np.intp], error: Doubles, top: int, confidence: float
) -> tuple[NDArray[np.bool_], tuple[Estimated, Estimated]]:
    """Devices that hold an end of the window instead of their level, and how often that is.

    Told where an end is far from a level: beyond ``_OUTLIER`` robust spreads, and further than ``_END``.
    """
    centre, spread = np.zeros(top + 1), np.full(top + 1, np.inf)
    for one in np.unique(level):
        values = error[level == one]
        centre[one] = np.median(values)
        # Scaled so that it is σ of a normal law; few stuck devices do not move it.
        spread[one] = 1.4826 * np.median(np.abs(values - centre[one])) + 1e-9
    held = level + error
    far = np.abs(error - centre[level]) > _OUTLIER * spread[level]
    stuck, rates = np.zeros(len(level), np.bool_), []
    for end in (0, top):
        near = np.abs(held - end) < _END * top
        away = np.abs(np.arange(top + 1) + centre - end) > _OUTLIER * spread + _END * top
        told = away[level]
        mine = near & far & told
        rates.append(_rate(int(mine.sum()), int(told.sum()), confidence))
        if mine.any():
            # Where they cannot be told from their level, those at the very value of the others are stuck too.
            value = np.median(held[mine])
            mine |= np.isclose(held, value, rtol=0, atol=1e-7) & (rates[-1].low > 0)
        stuck |= mine
    return stuck, (rates[0], rates[1])


def _rate(count: int, n: int, confidence: float) -> Estimated:
    """Clopper and Pearson."""
    if not n:
        return Estimated(0.0, 0.0, 1.0)
    error = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, error))
    high = 1.0 if count == n else float(betaincinv(count + 1, n - count, 1 - error))
    return Estimated(count / n, low, high)


def _clipped(
    level: NDArray[np.intp], error: Doubles, kept: NDArray[np.bool_]
) -> tuple[tuple[float | None, float | None], NDArray[np.bool_]]:
    """The values that conductances are limited to, and the devices at them."""
    held = (level + error)[kept]
    at = np.zeros(len(level), np.bool_)
    limits: list[float | None] = []
    for value in (held.min(), held.max()):
        mine = kept & np.isclose(level + error, value, rtol=0, atol=1e-6)
        there = np.unique(level[mine])
        limited = any(mine[level == one].sum() > max(3, _CLIPPED * (level == one).sum()) for one in there)
        limits.append(float(value) if limited else None)
        at |= mine & limited
    return (limits[0], limits[1]), at


def _usable(
    level: NDArray[np.intp],
    error: Doubles,
    at_clip: NDArray[np.bool_],
    kept: NDArray[np.bool_],
    top: int,
) -> NDArray[np.bool_]:
    """Levels that a law is judged by: not hidden by a limit, and with a spread that a reading resolves."""
    usable, seen = np.zeros(top + 1, np.bool_), np.zeros(top + 1, np.bool_)
    for one in np.unique(level):
        mine = kept & (level == one)
        if mine.sum() > 1:
            seen[one] = at_clip[mine].sum() <= _CLIPPED * mine.sum()
            usable[one] = seen[one] and error[mine].std() > LEAST
    return usable if usable.any() else seen


def _level_fits(
    level: NDArray[np.intp],
    error: Doubles,
    kept: NDArray[np.bool_],
    at_clip: NDArray[np.bool_],
    window: tuple[float, float],
    step: float,
    shared: Doubles,
    confidence: float,
) -> tuple[LevelFit, ...]:
    """Describe every level; ``shared`` is what its mean errs by that devices have in common, a variance."""
    fits = []
    for one in np.unique(level[kept]):
        mine = kept & (level == one)
        values = error[mine]
        if len(values) < FEWEST:
            continue
        mean, spread = mean_and_spread(values, confidence, float(shared[one]))
        some = values[:: max(1, len(values) // _TESTED)]
        scaled = (some - mean.value) / max(spread.value, 1e-12)
        distance, p = _lilliefors(scaled)
        fits.append(
            LevelFit(
                int(one), len(values), window[0] + step * int(one), mean, spread,
                float(np.mean(((values - mean.value) / max(spread.value, 1e-12)) ** 3)), distance, p,
                float(at_clip[mine].mean()),
            )
        )  # fmt: skip
    return tuple(fits)


def _shared_by_level(
    base: Sequence[CrossbarSample],
    level: NDArray[np.intp],
    kept: NDArray[np.bool_],
    parts: Sequence[slice],
    top: int,
    components: Mapping[str, Estimated],
) -> Doubles:
    """What a level's mean errs by in common, a variance: V · Σ (n_part / n)² over crossbars, and chips."""
    counts = np.array([np.bincount(level[part], kept[part], top + 1) for part in parts])
    names = list(dict.fromkeys(one.chip for one in base))
    of_chips = np.array([[one.chip == name for one in base] for name in names], float) @ counts
    total = np.maximum(counts.sum(axis=0), 1)
    variance = np.zeros(top + 1)
    for part, n in (("crossbar", counts), ("chip", of_chips)):
        if part in sure(components):
            variance += components[part].value ** 2 * np.square(n / total).sum(axis=0)
    return variance


def _lilliefors(scaled: Doubles) -> tuple[float, float]:
    """Distance to a normal whose mean and spread were fitted, and the chance of a larger one.

    References
    ----------
    Dallal and Wilkinson, The American Statistician 40 (1986) 294.
    """
    expected, steps = ndtr(np.sort(scaled)), np.arange(len(scaled) + 1) / len(scaled)
    distance = float(max((steps[1:] - expected).max(), (expected - steps[:-1]).max()))
    n = min(len(scaled), 100)
    d = distance if len(scaled) <= 100 else distance * (len(scaled) / 100) ** 0.49
    p = np.exp(-7.01256 * d**2 * (n + 2.78019) + 2.99587 * d * np.sqrt(n + 2.78019) - 0.122119
               + 0.974598 / np.sqrt(n) + 1.67997 / n)  # fmt: skip
    return distance, float(min(p, 1.0))


def _laws(
    base: Sequence[CrossbarSample],
    level: NDArray[np.intp],
    error: Doubles,
    kept: NDArray[np.bool_],
    top: int,
    offset: float,
    common: float,
    levels: int | None,
) -> list[FittedLaw]:
    """Choose the law of what devices do not have in common.

    Parameters
    ----------
    offset : float
        Conductance of level 0, in level spacings.
    common : float
        Variance of what devices have in common: a term of its own.
    """
    # Rows in blocks: as many numbers as a standard error needs, where there are few crossbars.
    part = np.concatenate([
        number * _BLOCKS + one.row * _BLOCKS // (one.row.max() + 1) for number, one in enumerate(base)
    ])  # fmt: skip
    there = np.unique(part[kept], return_inverse=True)
    index = there[1] * (top + 1) + level[kept]
    size = len(there[0]) * (top + 1)

    def sums(values: Doubles, jacobian: Doubles) -> Sums:
        each = (np.ones_like(values), values, values**2, jacobian)
        added = [np.bincount(index, one, size).astype(np.float64) for one in each]
        return Sums(*(one.reshape(-1, top + 1) for one in added))

    normal = sums(error[kept], np.zeros(int(kept.sum())))
    normal = replace(normal, second=np.maximum(normal.second - common * normal.count, 0.0))
    g, target = (offset + level + error)[kept], (offset + level)[kept]
    # Of a log-normal law both are positive.
    positive = bool((target > 0).all() and (g > 0).all())
    lognormal = sums(np.log(g / target), np.log(g)) if positive else None
    return choose_laws(normal, lognormal, np.arange(top + 1) / top, levels, there[0] // _BLOCKS)


def _components(
    base: Sequence[CrossbarSample],
    level: NDArray[np.intp],
    error: Doubles,
    kept: NDArray[np.bool_],
    parts: Sequence[slice],
    top: int,
    confidence: float,
) -> dict[str, Estimated]:
    """What devices of a chip, a crossbar, a row, a column have in common: standard deviations.

    With r = chip + crossbar + row + column + own, independent, the mean product of two devices' r is the sum
    of the variances of what both have in common; so each is a difference of two such means. Rows and columns
    are many: their intervals are those of a jackknife over crossbars, whatever their law. Crossbars and chips
    are few, and what they have in common is taken for normal: see :func:`_of_few_groups`.
    """
    count = np.bincount(level[kept], minlength=top + 1)
    mean = np.bincount(level[kept], error[kept], top + 1) / np.maximum(count, 1)
    residual = np.where(kept, error - mean[level], 0.0)
    pairs = np.array([
        _pairs(residual[part], kept[part], one.row, one.column)
        for part, one in zip(parts, base, strict=True)
    ])  # fmt: skip
    chips = {name: number for number, name in enumerate(dict.fromkeys(one.chip for one in base))}
    of, n = np.array([chips[one.chip] for one in base]), len(base)
    estimates = _variances(pairs, of, np.ones(n))
    there = pairs[:, 7] > 0
    means = [pairs[there & (of == chip), 6] / pairs[there & (of == chip), 7] for chip in chips.values()]
    groups = {"crossbar": means, "chip": [np.array([one.mean() for one in means if len(one)])]}
    estimated = {}
    for name, value in estimates.items():
        if (len(chips) if name == "chip" else n) < 3:
            continue
        if name in groups:
            low, high = _of_few_groups(value, groups[name], confidence)
        else:
            without = np.array([_variances(pairs, of, (np.arange(n) != i) * 1.0).get(name, value)
                                for i in range(n)])  # fmt: skip
            error_of = float(np.sqrt((n - 1) / n * np.square(without - without.mean()).sum()))
            half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error_of
            low, high = value - half, value + half
        roots = [float(np.sqrt(max(v, 0.0))) for v in (value, low, high)]
        estimated[name] = Estimated(*roots)
    return estimated


def _of_few_groups(value: float, means: Sequence[Doubles], confidence: float) -> tuple[float, float]:
    """Interval of a variance component V of some groups, from the variance T of their means.

    T estimates V + E, E being what the means err by, and df · T / (V + E) has a χ² distribution; E is known
    from many devices, so that T − V stands for it: V − T (1 − df / χ²_high) … V + T (df / χ²_low − 1).

    References
    ----------
    Burdick and Graybill, Confidence Intervals on Variance Components (1992), chapter 3.
    """
    df = sum(len(one) - 1 for one in means if len(one))
    spread = sum(float(np.square(one - one.mean()).sum()) for one in means if len(one)) / df
    error = (1 - confidence) / 2
    low, high = (2 * float(gammaincinv(df / 2, p)) for p in (error, 1 - error))
    return value - spread * (1 - df / high), value + spread * (df / low - 1)


def _pairs(
    residual: Doubles, kept: NDArray[np.bool_], row: NDArray[np.intp], column: NDArray[np.intp]
) -> Doubles:
    """Σ and number of products of pairs: same row, same column, any pair; then Σ r and the count."""
    there = kept.astype(float)

    def grouped(index: NDArray[np.intp]) -> tuple[float, float]:
        sums, squares = np.bincount(index, residual), np.bincount(index, residual**2)
        count = np.bincount(index, there)
        return float((sums**2 - squares).sum()), float((count * (count - 1)).sum())

    rows, columns = grouped(row), grouped(column)
    n, total = there.sum(), residual.sum()
    every = (float(total**2 - (residual**2).sum()), float(n * (n - 1)))
    other = (every[0] - rows[0] - columns[0], every[1] - rows[1] - columns[1])
    return np.array([*rows, *columns, *other, total, n])


def _variances(pairs: Doubles, chip: NDArray[np.intp], weight: Doubles) -> dict[str, float]:
    """Variance components from the sums of crossbars, each counted ``weight`` times (0 or 1)."""
    kept = pairs * weight[:, None]
    row_sum, row_n, column_sum, column_n, other_sum, other_n, _, _ = kept.sum(axis=0)

    def ratio(total: float, n: float) -> float:
        return total / n if n > 0 else float("nan")

    within = ratio(other_sum, other_n)
    estimates = {"row": ratio(row_sum, row_n) - within, "column": ratio(column_sum, column_n) - within}
    totals = np.array([np.bincount(chip, kept[:, index]) for index in (6, 7)])
    squares = np.array([np.bincount(chip, kept[:, index] ** 2) for index in (6, 7)])
    across = ratio(float((totals[0] ** 2 - squares[0]).sum()), float((totals[1] ** 2 - squares[1]).sum()))
    chips_sum = float(totals[0].sum() ** 2 - (totals[0] ** 2).sum())
    chips_n = float(totals[1].sum() ** 2 - (totals[1] ** 2).sum())
    if np.isfinite(across):
        # Residuals sum to zero, which makes crossbars (or chips) look opposite to each other by as much as
        # they have in common over their number; differences of such means are free of it only in pairs.
        estimates["crossbar"] = within - across
    if np.isfinite(across) and chips_n > 0:
        estimates["chip"] = across - ratio(chips_sum, chips_n)
    return {name: value for name, value in estimates.items() if np.isfinite(value)}


def _read(base: Sequence[CrossbarSample], step: float) -> tuple[NDArray[np.intp], Doubles] | None:
    """Spread of one read of each level, in level spacings."""
    several = [one for one in base if one.variance is not None]
    if not several:
        return None
    level = np.concatenate([one.level for one in several])
    variance = np.concatenate([one.variance for one in several if one.variance is not None])
    known = ~np.isnan(variance)
    levels = np.unique(level[known])
    if not levels.size:
        return None
    means = np.array([variance[known & (level == one)].mean() for one in levels])
    return levels, np.sqrt(means) / step


def sure(components: Mapping[str, Estimated]) -> dict[str, Estimated]:
    """The components that are surely there."""
    return {name: one for name, one in components.items() if one.low > 0}

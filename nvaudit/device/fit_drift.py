"""How conductances drift: exponents, and the time that they are counted from, from several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from nvaudit.device.fit_samples import FEWEST, CrossbarSample, Estimated, mean_and_spread

Doubles = NDArray[np.float64]

_TOLD = 8.0
"""By how much n ln S has to be higher at either end of what is looked at than at the best t0."""


@dataclass(frozen=True)
class DriftFit:
    """Exponents of g · ((t + t0) / t0)^(−ν), from several times.

    Attributes
    ----------
    t0_s : float
        Fitted where the times tell it, else as given, or the first time.
    t0 : Estimated or None
        As fitted; None where two times, or such as are all late, do not tell it.
    mean, spread : Estimated
        Over all devices.
    slope, intercept : float
        Of the mean on ln(g / g_max).
    low, high : float
        Least and greatest mean of a level.
    """

    times: tuple[float, ...]
    t0_s: float
    mean: Estimated
    spread: Estimated
    slope: float
    intercept: float
    low: float
    high: float
    t0: Estimated | None


def fit_drift(
    samples: Sequence[CrossbarSample],
    top: int,
    window: tuple[float, float],
    t0_s: float | None,
    confidence: float,
) -> DriftFit | None:
    """Exponents of devices that were measured at several times."""
    times = sorted({one.time_s for one in samples if one.time_s is not None})
    if len(times) < 2:
        return None
    by_name: dict[tuple[str, str], list[CrossbarSample]] = {}
    for sample in samples:
        if sample.time_s is not None:
            by_name.setdefault((sample.chip, sample.name), []).append(sample)
    crossbars = [one for several in by_name.values() if (one := _over_time(several)) is not None]
    fitted = _reference_time(crossbars, confidence)
    t0 = next((time for time in times if time > 0), 1.0) if t0_s is None else t0_s
    t0 = t0 if fitted is None else fitted.value
    nu = [_exponents(one, t0) for one in crossbars]
    level = [one.level for one in crossbars]
    if not nu:
        return None
    every, levels = np.concatenate(nu), np.concatenate(level)
    mean, spread = mean_and_spread(every, confidence)
    x = np.log(np.maximum((window[0] + levels * (window[1] - window[0]) / top) / window[1], 1e-7))
    slope, intercept = np.polyfit(x, every, 1) if np.ptp(x) > 0 else (0.0, mean.value)
    means = [
        float(every[levels == one].mean()) for one in np.unique(levels) if (levels == one).sum() >= FEWEST
    ]
    return DriftFit(
        tuple(times), float(t0), mean, spread, float(slope), float(intercept),
        min(means, default=mean.value), max(means, default=mean.value), fitted,
    )  # fmt: skip


@dataclass(frozen=True)
class _OverTime:
    """The devices of one crossbar that are there at every time, above level 0.

    Attributes
    ----------
    times : ndarray, float64, shape (time,)
    log_g : ndarray, float64, shape (time, device)
        Less its mean over the times.
    """

    times: Doubles
    log_g: Doubles
    level: NDArray[np.intp]


def _over_time(several: Sequence[CrossbarSample]) -> _OverTime | None:
    """Bring the readings of one crossbar together; None where too few devices are there at every time."""
    if len({one.time_s for one in several}) < 2:
        return None
    several = sorted(several, key=lambda one: one.time_s or 0.0)
    keys = [one.row * (1 << 20) + one.column for one in several]
    shared = keys[0]
    for key in keys[1:]:
        shared = np.intersect1d(shared, key)
    at = [np.argsort(key)[np.searchsorted(np.sort(key), shared)] for key in keys]
    g = np.array([one.g[index] for one, index in zip(several, at, strict=True)])
    level = several[0].level[at[0]]
    kept = (g > 0).all(axis=0) & (level > 0)
    if kept.sum() < FEWEST:
        return None
    y = np.log(g[:, kept])
    return _OverTime(np.array([one.time_s or 0.0 for one in several]), y - y.mean(axis=0), level[kept])


def _exponents(one: _OverTime, t0: float) -> Doubles:
    """−slope of ln g on ln((t + t0) / t0), device by device."""
    x = np.log1p(one.times / t0)
    dx = x - x.mean()
    return np.asarray(-(dx @ one.log_g) / np.square(dx).sum())


def _reference_time(crossbars: Sequence[_OverTime], confidence: float) -> Estimated | None:
    """t0 by least squares, every device with an exponent of its own.

    The interval has what a likelihood ratio allows: n ln(S / S_min) ≤ χ² of one degree of freedom, S the sum
    of squares and n its degrees of freedom. Late times, t ≫ t0, only see ln t − ln t0: then S hardly depends
    on t0, and the interval reaches an end of what is looked at.
    """
    n = sum((len(one.times) - 2) * one.log_g.shape[1] for one in crossbars)
    latest = max((float(one.times.max()) for one in crossbars), default=0.0)
    if n <= 0 or latest <= 0:
        return None
    total = sum(float(np.square(one.log_g).sum()) for one in crossbars)

    def left(log_t0: float) -> float:
        explained = 0.0
        for one in crossbars:
            x = np.log1p(one.times / np.exp(log_t0))
            dx = x - x.mean()
            explained += float(np.square(dx @ one.log_g).sum() / np.square(dx).sum())
        # Single-precision readings that fit exactly leave their rounding.
        return max(total - explained, 1e-12 * total)

    ends = float(np.log(latest * 1e-9)), float(np.log(latest * 1e3))
    grid = np.linspace(ends[0], ends[1], 120)
    sums = np.array([left(float(one)) for one in grid])
    best = int(np.argmin(sums))
    if best in (0, len(grid) - 1) or n * np.log(sums[[0, -1]].min() / sums[best]) < _TOLD:
        return None
    from scipy.optimize import brentq, minimize_scalar  # takes a quarter of a second to load

    found = minimize_scalar(left, bounds=(grid[best - 1], grid[best + 1]), method="bounded",
                            options={"xatol": 1e-9})  # fmt: skip
    allowed = float(found.fun) * np.exp(float(ndtri((1 + confidence) / 2)) ** 2 / n)
    low, high = (float(brentq(lambda x: left(x) - allowed, *bounds))
                 for bounds in ((ends[0], found.x), (found.x, ends[1])))  # fmt: skip
    return Estimated(*(float(np.exp(one)) for one in (found.x, low, high)))

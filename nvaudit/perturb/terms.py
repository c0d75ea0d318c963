"""Noise terms as arithmetic on conductances: one sampler per kind of term.

Every law is evaluated on the target conductance of a device. Because devices have few levels, each law
becomes a table over levels once per run, and a sampler looks its numbers up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import Law, NoiseTerm, OperatingPoint, evaluate, log_decay_at, one_over_f_factor
from nvaudit.device.terms import Clip, Drift, LogDecay, Lognormal, Normal, Read, Shared, StuckAt, Table
from nvaudit.mapping.conductance import Array, target_conductance
from nvaudit.perturb.truncated import Truncated

Float = NDArray[np.float32]
Levels = NDArray[np.integer]
Sampler = Callable[[Levels, Float, np.random.Generator], Float]
"""(levels, present conductance, generator) → new conductance; never changes its inputs."""


@dataclass(frozen=True)
class Setting:
    """Where terms act: the operating point, the devices, and the levels 0 … top with their targets."""

    point: OperatingPoint
    array: Array
    level: NDArray[np.int64]
    target: NDArray[np.float64]

    @classmethod
    def of(cls, point: OperatingPoint, array: Array) -> Setting:
        """All levels that a device of this array can be programmed to."""
        # An analog device may hold fewer levels than its bits could count; the rest are never used.
        level = np.arange(max(array.top_level + 1, 2**array.cell_bits))
        return cls(point, array, level, target_conductance(level, array))

    def law(self, law: Law) -> NDArray[np.float64]:
        """A law at every level."""
        return evaluate(law, level=self.level, g=self.target, g_max=self.array.g_max)

    @property
    def multiplier(self) -> float:
        """What laws with a unit of their own are multiplied by."""
        return self.point.sigma if self.point.sigma_unit == "multiplier" else 1.0

    def unit(self, unit: str) -> NDArray[np.float64] | float:
        """Conductance (in the window's unit) per one of ``unit``, the knob or multiplier included."""
        if unit == "sigma":
            return self.point.sigma * self.knob_unit
        return self.multiplier * self.plain_unit(unit)

    @property
    def knob_unit(self) -> NDArray[np.float64] | float:
        """Conductance per one of the knob's unit."""
        if self.point.sigma_unit == "level" and self.point.cell_spacing:
            return self.array.step
        return self.plain_unit(self.point.sigma_unit)

    def plain_unit(self, unit: str) -> NDArray[np.float64] | float:
        """Conductance per one of ``unit``, whatever the knob says."""
        if unit == "level":
            own = self.point.profile.level_bits
            if own is None:
                return self.array.step
            return (self.array.g_max - self.array.g_min) / float(2**own - 1)
        if unit == "full_scale":
            return self.array.g_max - self.array.g_min
        if unit == "relative":
            return self.target
        return 1.0  # us, na: the window's own unit; log: a factor's exponent


def in_weight_space(term: NoiseTerm, point: OperatingPoint) -> bool:
    """Whether a term is stated as a fraction of max|W| and so acts on weights, not devices."""
    return isinstance(term, Normal) and (
        term.unit == "weight_max" or (term.unit == "sigma" and point.sigma_unit == "weight_max")
    )


def normal_moments(term: NoiseTerm, at: Setting) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Mean shift and standard deviation per level, if the term adds an independent normal, else None.

    Of a normal with a tolerance they are those before it is truncated.
    """
    if isinstance(term, Normal):
        unit = at.unit(term.unit)
        mean = at.law(term.mean) * unit if term.mean is not None else np.zeros(len(at.level))
        return mean, np.abs(at.law(term.sigma) * unit)
    if isinstance(term, LogDecay):
        shift, spread = log_decay_at(term, at.point.time_s)
        unit = at.unit(term.unit) * np.ones(len(at.level))
        return unit * shift, unit * spread
    if isinstance(term, Table) and term.levels is not None:
        rows = sorted(term.levels, key=lambda row: row.level)
        base, unit = table_origin(term, at), at.plain_unit(term.unit)
        off = base + unit * np.array([row.mean for row in rows]) - at.target
        return at.multiplier * off, at.multiplier * unit * np.array([row.std for row in rows])
    return None


def is_truncated(term: NoiseTerm) -> bool:
    """Whether a term's errors are limited by a tolerance."""
    return isinstance(term, Normal) and term.tolerance is not None


def is_timed(term: NoiseTerm) -> bool:
    """Whether a term is what time does after programming."""
    return isinstance(term, Drift | LogDecay) or (isinstance(term, Clip) and term.timed)


def shared_spread(term: Shared, at: Setting) -> NDArray[np.float64]:
    """Standard deviation of a common component per level."""
    return np.abs(at.law(term.sigma) * at.unit(term.unit))


def table_origin(term: Table, at: Setting) -> float:
    """Where a table counts from: g_min in level or full-scale units; in µS or nA it is the conductance."""
    return 0.0 if term.unit in ("us", "na") else at.array.g_min


def is_idle(term: NoiseTerm, at: Setting) -> bool:
    """Whether a term changes nothing at this operating point (and so costs no draws)."""
    moments = normal_moments(term, at)
    if moments is not None:
        return not (moments[0].any() or moments[1].any())
    if isinstance(term, Shared):
        return not shared_spread(term, at).any()
    if isinstance(term, Lognormal):
        return not (at.law(term.sigma) * at.unit(term.unit)).any()
    if isinstance(term, StuckAt):
        return term.p_low == 0 and term.p_high == 0
    if isinstance(term, Drift) or (isinstance(term, Clip) and term.timed):
        return at.point.time_s == 0
    if isinstance(term, Read):
        return not read_spread(term, at).any()
    return isinstance(term, Table) and at.multiplier == 0


def sampler(term: NoiseTerm, at: Setting) -> Sampler:
    """Make the sampler of a term that acts on each device by itself (all but ``shared`` and ``read``)."""
    moments = normal_moments(term, at)
    if isinstance(term, Normal) and term.tolerance is not None:
        assert moments is not None
        return _truncated(term.tolerance, *moments, term, at)
    if moments is not None:
        return _normal(*moments)
    if isinstance(term, Lognormal):
        return _lognormal(term, at)
    if isinstance(term, StuckAt):
        return _stuck_at(term, at)
    if isinstance(term, Drift):
        return _drift(term, at)
    if isinstance(term, Table):
        return _samples(term, at)
    assert isinstance(term, Clip)
    low = -np.inf if term.min is None else term.min
    high = np.inf if term.max is None else term.max
    return lambda level, g, gen: np.clip(g, np.float32(low), np.float32(high))


def _draw(gen: np.random.Generator, like: NDArray[np.generic]) -> Float:
    return gen.standard_normal(like.shape, dtype=np.float32)


def _normal(mean: NDArray[np.float64], std: NDArray[np.float64]) -> Sampler:
    """g + N(mean, σ²), both per level."""
    shift, spread = mean.astype(np.float32), std.astype(np.float32)
    return lambda level, g, gen: np.asarray(g + (shift[level] + spread[level] * _draw(gen, g)))


def _truncated(
    tolerance: float, mean: NDArray[np.float64], std: NDArray[np.float64], term: Normal, at: Setting
) -> Sampler:
    """g + an error that was written again until it was within the tolerance."""
    unit = at.knob_unit if term.unit == "sigma" else at.plain_unit(term.unit)
    law = Truncated.of(mean, std, np.broadcast_to(tolerance * np.asarray(unit), mean.shape))
    return lambda level, g, gen: np.asarray(g + law.draw(level, gen))


def _lognormal(term: Lognormal, at: Setting) -> Sampler:
    """Multiply g by e^−θ (on resistance) or e^θ, θ ~ N(0, σ²), if asked shifted so that the mean stays."""
    sigma = at.law(term.sigma) * at.unit(term.unit)
    # E[e^θ] = e^(σ²/2): preserving the mean of r or g divides by it. On r, g = 1/r gains e^(+σ²/2).
    shift = 0.5 * sigma**2 if term.preserve == "mean" else np.zeros_like(sigma)
    sign = -1.0 if term.on == "resistance" else 1.0
    spread, offset = (sign * sigma).astype(np.float32), (-sign * shift).astype(np.float32)
    return lambda level, g, gen: g * np.exp(offset[level] + spread[level] * _draw(gen, g))


def _stuck_at(term: StuckAt, at: Setting) -> Sampler:
    """Each device independently at g_min with p_low, at g_max with p_high."""
    low, high = np.float32(at.array.g_min), np.float32(at.array.g_max)

    def sample(level: Levels, g: Float, gen: np.random.Generator) -> Float:
        u = gen.random(g.shape)
        stuck = np.where(u < term.p_low, low, high)
        return np.where(u < term.p_low + term.p_high, stuck, g).astype(np.float32)

    return sample


def _drift(term: Drift, at: Setting) -> Sampler:
    """g · ((t + t0) / t0)^−ν with one ν per device, ν ~ N(mean, std²) or its absolute value."""
    log_ratio = np.float32(np.log((at.point.time_s + term.t0_s) / term.t0_s))
    mean = at.law(term.nu_mean).astype(np.float32)
    std = (at.law(term.nu_std) * at.multiplier).astype(np.float32)

    def sample(level: Levels, g: Float, gen: np.random.Generator) -> Float:
        nu = mean[level] + std[level] * _draw(gen, g)
        if term.nu_law == "folded_normal":
            nu = np.abs(nu)
        return g * np.exp(-nu * log_ratio)

    return sample


def _samples(term: Table, at: Setting) -> Sampler:
    """Replace g by one of the values that were measured at its level."""
    assert term.samples is not None
    base, unit = table_origin(term, at), at.plain_unit(term.unit)
    target, scale = at.target.astype(np.float32), np.float32(at.multiplier)
    flat = np.concatenate([base + unit * np.array(row) for row in term.samples]).astype(np.float32)
    count = np.array([len(row) for row in term.samples])
    start = np.concatenate([[0], np.cumsum(count)[:-1]])

    def sample(level: Levels, g: Float, gen: np.random.Generator) -> Float:
        pick = start[level] + (gen.random(g.shape) * count[level]).astype(np.int64)
        return np.asarray(g + scale * (flat[pick] - target[level]))

    return sample


def read_spread(term: Read, at: Setting) -> NDArray[np.float64]:
    """Standard deviation of one read per level; with unit ``relative`` per unit of present conductance."""
    unit = at.multiplier if term.unit == "relative" else at.unit(term.unit)
    return np.abs(at.law(term.sigma) * unit) * one_over_f_factor(term.one_over_f, at.point.time_s)

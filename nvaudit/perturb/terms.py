"""What each noise term does to conductances: one class for each kind of term, in one table.

Every law is evaluated on the target conductance of a device. Because devices have few levels, each law
becomes a table over levels once per run, and a sampler looks its numbers up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats, Singles
from nvaudit.device import Law, NoiseTerm, OperatingPoint, evaluate, log_decay_at, one_over_f_factor
from nvaudit.device.law import scaled_law
from nvaudit.device.terms import Clip, Drift, LogDecay, Lognormal, Normal, Read, Shared, StuckAt, TableTerm
from nvaudit.mapping.conductance import DeviceArray, target_conductance
from nvaudit.perturb.truncated import Truncated

LevelNumbers = NDArray[np.integer]
Sampler = Callable[[LevelNumbers, Singles, np.random.Generator], Singles]
"""(levels, present conductance, generator) → new conductance; never changes its inputs."""


@dataclass(frozen=True)
class Setting:
    """Where terms act: the operating point, the devices, and the levels 0 … top with their targets."""

    point: OperatingPoint
    array: DeviceArray
    level: NDArray[np.int64]
    target: NDArray[np.float64]

    @classmethod
    def of(cls, point: OperatingPoint, array: DeviceArray) -> Setting:
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
        # "sigma" stands for the knob itself, σ_d of T-13 to T-17. A law with a unit of its own follows only
        # a knob that multiplies.
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
            # A spread measured in spacings of the profile's own cells is a conductance: other bits per cell
            # in the same window do not change it.
            own = self.point.profile.level_bits
            if own is None:
                return self.array.step
            return (self.array.g_max - self.array.g_min) / float(2**own - 1)
        if unit == "full_scale":
            return self.array.g_max - self.array.g_min
        if unit == "relative":
            return self.target
        return 1.0  # us, na: the window's own unit; log: a factor's exponent


AnyTerm = TypeVar("AnyTerm", bound=NoiseTerm)


@dataclass(frozen=True)
class Effect(Generic[AnyTerm]):
    """One term at one operating point; each kind of term has a subclass, entered in :data:`EFFECTS`.

    A term that adds an independent normal to each device gives ``moments``; sampler, idleness and the
    collapse to one draw per weight follow. Any other says what it does by itself.
    """

    term: AnyTerm
    at: Setting

    def moments(self) -> tuple[Floats, Floats] | None:
        """Mean shift and standard deviation per level, if it adds an independent normal, else None.

        Of a normal with a tolerance they are those before it is truncated.
        """
        return None

    def is_idle(self) -> bool:
        """Whether it changes nothing here (and so costs no draws)."""
        moments = self.moments()
        return moments is not None and not (moments[0].any() or moments[1].any())

    def sampler(self) -> Sampler | None:
        """How it acts on each device by itself; None if it does not (``shared``, ``read``)."""
        moments = self.moments()
        return None if moments is None else _add_normal(*moments)

    def reduced(self, factor: float) -> NoiseTerm:
        """Give the term with its spread and its mean shift multiplied by a factor of 0 or more.

        Only of errors of programming.
        """
        raise TypeError(f"writing again does not correct a {self.term.kind!r} term")

    def on_weights(self, code: NDArray[np.integer], peak_code: int) -> tuple[Floats, Floats]:
        """Mean and spread, in code units, of a term stated as a fraction of max|W|."""
        raise TypeError(f"a {self.term.kind!r} term acts on devices")

    def weight_law(self, code: NDArray[np.integer], peak_code: int) -> Truncated | tuple[Singles, Singles]:
        """Give ``on_weights`` in the form it is drawn from: mean and spread, or a truncated normal."""
        shift, std = self.on_weights(code, peak_code)
        return shift.astype(np.float32), std.astype(np.float32)


class _Normal(Effect[Normal]):
    def moments(self) -> tuple[Floats, Floats]:
        term, at = self.term, self.at
        unit = at.unit(term.unit)
        mean = at.law(term.mean) * unit if term.mean is not None else np.zeros(len(at.level))
        return mean, np.abs(at.law(term.sigma) * unit)

    def sampler(self) -> Sampler:
        if self.term.tolerance is None:
            return _add_normal(*self.moments())
        # The tolerance is not multiplied by the knob: it is what the writing circuit checks.
        at, (mean, std) = self.at, self.moments()
        unit = at.knob_unit if self.term.unit == "sigma" else at.plain_unit(self.term.unit)
        law = Truncated.of(mean, std, np.broadcast_to(self.term.tolerance * np.asarray(unit), mean.shape))
        return lambda level, g, gen: np.asarray(g + law.draw(level, gen))

    def reduced(self, factor: float) -> NoiseTerm:
        mean = None if self.term.mean is None else scaled_law(self.term.mean, factor)
        return self.term.model_copy(update={"sigma": scaled_law(self.term.sigma, factor), "mean": mean})

    def on_weights(self, code: NDArray[np.integer], peak_code: int) -> tuple[Floats, Floats]:
        # The law sees |W|/max|W| as the relative conductance; a law per level sees equal parts of that range,
        # as in the FeFET model of the TRICE authors' code (inner levels: 0.25 < |W|/max|W| < 0.75).
        term, at = self.term, self.at
        knob = at.point.sigma if term.unit == "sigma" else at.multiplier
        part = np.abs(code) / max(peak_code, 1)
        levels = at.array.top_level + 1
        level = np.minimum((part * levels).astype(np.int64), levels - 1)
        spread = evaluate(term.sigma, level=level, g=part, g_max=1.0) * knob * peak_code
        if term.mean is None:
            return np.zeros(len(code)), np.abs(spread)
        shift = evaluate(term.mean, level=level, g=part, g_max=1.0) * knob * peak_code
        # The law is one of the magnitude, so its shift is mirrored with the sign of the weight.
        return np.where(code < 0, -shift, shift), np.abs(spread)

    def weight_law(self, code: NDArray[np.integer], peak_code: int) -> Truncated | tuple[Singles, Singles]:
        if self.term.tolerance is None:
            return super().weight_law(code, peak_code)
        limit = np.full(len(code), self.term.tolerance * peak_code)
        return Truncated.of(*self.on_weights(code, peak_code), limit)


class _Shared(Effect[Shared]):
    def is_idle(self) -> bool:
        return not shared_spread(self.term, self.at).any()


class _Lognormal(Effect[Lognormal]):
    """Multiply g by e^−θ (on resistance) or e^θ, θ ~ N(0, σ²), if asked shifted so that the mean stays."""

    def _sigma(self) -> Floats:
        return np.asarray(self.at.law(self.term.sigma) * self.at.unit(self.term.unit))

    def is_idle(self) -> bool:
        return not self._sigma().any()

    def sampler(self) -> Sampler:
        sigma = self._sigma()
        # E[e^θ] = e^(σ²/2): preserving the mean of r or g divides by it. On r, g = 1/r gains e^(+σ²/2).
        shift = 0.5 * sigma**2 if self.term.preserve == "mean" else np.zeros_like(sigma)
        sign = -1.0 if self.term.on == "resistance" else 1.0
        spread, offset = (sign * sigma).astype(np.float32), (-sign * shift).astype(np.float32)
        return lambda level, g, gen: g * np.exp(offset[level] + spread[level] * _draw(gen, g))

    def reduced(self, factor: float) -> NoiseTerm:
        return self.term.model_copy(update={"sigma": scaled_law(self.term.sigma, factor)})


class _StuckAt(Effect[StuckAt]):
    def is_idle(self) -> bool:
        return self.term.p_low == 0 and self.term.p_high == 0

    def sampler(self) -> Sampler:
        term, array = self.term, self.at.array
        low, high = np.float32(array.g_min), np.float32(array.g_max)

        def sample(level: LevelNumbers, g: Singles, gen: np.random.Generator) -> Singles:
            # One uniform number for both faults, which exclude each other: [0, p_low) is low, then p_high.
            u = gen.random(g.shape)
            stuck = np.where(u < term.p_low, low, high)
            return np.where(u < term.p_low + term.p_high, stuck, g).astype(np.float32)

        return sample


class _Drift(Effect[Drift]):
    """g · ((t + t0) / t0)^−ν with one ν per device, ν ~ N(mean, std²) or its absolute value."""

    def is_idle(self) -> bool:
        return self.at.point.time_s == 0

    def sampler(self) -> Sampler:
        term, at = self.term, self.at
        # ((t + t0)/t0)^−ν = e^(−ν ln((t + t0)/t0)): the logarithm is the same for all devices.
        log_ratio = np.float32(np.log((at.point.time_s + term.t0_s) / term.t0_s))
        mean = at.law(term.nu_mean).astype(np.float32)
        std = (at.law(term.nu_std) * at.multiplier).astype(np.float32)

        def sample(level: LevelNumbers, g: Singles, gen: np.random.Generator) -> Singles:
            nu = mean[level] + std[level] * _draw(gen, g)
            if term.nu_law == "folded_normal":
                nu = np.abs(nu)
            return g * np.exp(-nu * log_ratio)

        return sample


class _LogDecay(Effect[LogDecay]):
    def moments(self) -> tuple[Floats, Floats]:
        shift, spread = log_decay_at(self.term, self.at.point.time_s)
        unit = self.at.unit(self.term.unit) * np.ones(len(self.at.level))
        return unit * shift, unit * spread


class _Read(Effect[Read]):
    def is_idle(self) -> bool:
        return not read_spread(self.term, self.at).any()


class _Table(Effect[TableTerm]):
    def _origin(self) -> float:
        """Where it counts from: g_min in level or full-scale units; in µS or nA it is the conductance."""
        return 0.0 if self.term.unit in ("us", "na") else self.at.array.g_min

    def moments(self) -> tuple[Floats, Floats] | None:
        at = self.at
        if self.term.levels is None:
            return None
        rows = sorted(self.term.levels, key=lambda row: row.level)
        base, unit = self._origin(), at.plain_unit(self.term.unit)
        # A table replaces the target, so its shift is what was measured less the target. The multiplier
        # scales this deviation, not the conductance: at 0 the device is ideal.
        off = base + unit * np.array([row.mean for row in rows]) - at.target
        return at.multiplier * off, at.multiplier * unit * np.array([row.std for row in rows])

    def is_idle(self) -> bool:
        return super().is_idle() if self.term.levels is not None else self.at.multiplier == 0

    def sampler(self) -> Sampler | None:
        at = self.at
        if self.term.samples is None:
            return super().sampler()
        base, unit = self._origin(), at.plain_unit(self.term.unit)
        target, scale = at.target.astype(np.float32), np.float32(at.multiplier)
        # The samples of all levels in one row: those of a level begin at `start` and are `count` in number.
        flat = np.concatenate([base + unit * np.array(row) for row in self.term.samples]).astype(np.float32)
        count = np.array([len(row) for row in self.term.samples])
        start = np.concatenate([[0], np.cumsum(count)[:-1]])

        def sample(level: LevelNumbers, g: Singles, gen: np.random.Generator) -> Singles:
            pick = start[level] + (gen.random(g.shape) * count[level]).astype(np.int64)
            return np.asarray(g + scale * (flat[pick] - target[level]))

        return sample

    def reduced(self, factor: float) -> NoiseTerm:
        # A table states conductances, not errors: what is multiplied is their distance from the target.
        target = (self.at.target - self._origin()) / self.at.plain_unit(self.term.unit)
        if self.term.levels is not None:
            rows = [
                row.model_copy(
                    update={
                        "mean": float(target[row.level] + factor * (row.mean - target[row.level])),
                        "std": factor * row.std,
                    }
                )
                for row in self.term.levels
            ]
            return self.term.model_copy(update={"levels": tuple(rows)})
        samples = tuple(
            tuple(float(goal + factor * (value - goal)) for value in values)
            for goal, values in zip(target, self.term.samples or (), strict=False)
        )
        return self.term.model_copy(update={"samples": samples})


class _Clip(Effect[Clip]):
    def is_idle(self) -> bool:
        return self.term.timed and self.at.point.time_s == 0

    def sampler(self) -> Sampler:
        low = -np.inf if self.term.min is None else self.term.min
        high = np.inf if self.term.max is None else self.term.max
        return lambda level, g, gen: np.clip(g, np.float32(low), np.float32(high))


EFFECTS: dict[type, type[Effect[Any]]] = {
    Normal: _Normal,
    Shared: _Shared,
    Lognormal: _Lognormal,
    StuckAt: _StuckAt,
    Drift: _Drift,
    LogDecay: _LogDecay,
    Read: _Read,
    TableTerm: _Table,
    Clip: _Clip,
}
"""What each kind of term does."""


def effect(term: NoiseTerm, at: Setting) -> Effect[Any]:
    """A term at an operating point, on the devices of an array."""
    return EFFECTS[type(term)](term, at)


def shared_spread(term: Shared, at: Setting) -> Floats:
    """Standard deviation of a common component per level."""
    return np.abs(at.law(term.sigma) * at.unit(term.unit))


def read_spread(term: Read, at: Setting) -> Floats:
    """Standard deviation of one read per level; with unit ``relative`` per unit of present conductance."""
    unit = at.multiplier if term.unit == "relative" else at.unit(term.unit)
    return np.abs(at.law(term.sigma) * unit) * one_over_f_factor(term.one_over_f, at.point.time_s)


def active_terms(point: OperatingPoint, at: Setting) -> tuple[NoiseTerm, ...]:
    """Terms that change anything at this operating point, read noise excluded, in order.

    A clip that nothing noisy precedes is dropped too: targets lie inside the window.
    """
    active: list[NoiseTerm] = []
    for term in point.terms:
        if term.place == "last" or effect(term, at).is_idle() or (term.limits and not active):
            continue
        active.append(term)
    return tuple(active)


def read_terms(point: OperatingPoint, at: Setting) -> tuple[Read, ...]:
    """Read-noise terms that are not silent at this operating point."""
    return tuple(term for term in point.terms if isinstance(term, Read) and not effect(term, at).is_idle())


def _draw(gen: np.random.Generator, like: NDArray[np.generic]) -> Singles:
    return gen.standard_normal(like.shape, dtype=np.float32)


def _add_normal(mean: Floats, std: Floats) -> Sampler:
    """g + N(mean, σ²), both per level."""
    shift, spread = mean.astype(np.float32), std.astype(np.float32)
    return lambda level, g, gen: np.asarray(g + (shift[level] + spread[level] * _draw(gen, g)))

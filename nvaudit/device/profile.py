"""The device profile: one JSON file that says what a device does to a programmed conductance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from nvaudit.arrays import Floats
from nvaudit.device.law import LAW_TYPES, IntArray, Law, PerLevel, Piecewise, evaluate, fault
from nvaudit.device.terms import NoiseTerm, NotNegativeNumber, Slug, TableTerm
from nvaudit.options import Encoding

# An analog cell is checked on a grid that holds both ends.
GRID_POINTS = 257
# Devices are drawn in float32, squares of their errors included; no device errs by a thousandth of this.
MAX_WINDOWS = 1e6
_LEVELS_HINT = "an analog cell (cell_bits null) has no levels; set cell_bits, or use a law of g"

# Printable text on one line: a profile is shown on terminals.
Text = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
KnobUnit: TypeAlias = Literal["level", "full_scale", "weight_max", "log", "multiplier"]
MAX_TERMS = 32
_LEAST_CONDUCTANCE = 1e-9
_LEAST_WINDOW = 1e-3


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Source(_Section):
    """Where the numbers come from, and how they were obtained."""

    citation: Text
    where: Text
    fit: Text
    doi: Annotated[str, Field(pattern=r"^10\.[0-9]{4,9}/[!-~]{1,200}$")] | None = None


class Window(_Section):
    """The conductances (µS) or read currents (nA) of level 0 and of the top level."""

    unit: Literal["us", "na"]
    min: float = Field(ge=0, le=1e9, allow_inf_nan=False)
    max: float = Field(gt=0, le=1e9, allow_inf_nan=False)

    @model_validator(mode="after")
    def _in_order(self) -> Window:
        if self.min >= self.max:
            raise fault("min", f"{self.min:g} is not below max {self.max:g}; make min < max")
        # Conductances are float32: of a window that is narrow beside its end, or next to 0, nothing is left.
        if self.max < _LEAST_CONDUCTANCE or self.max - self.min < _LEAST_WINDOW * self.max:
            raise fault(
                "max",
                f"{self.max:g} {'µS' if self.unit == 'us' else 'nA'} leaves no window above min {self.min:g} "
                f"that float32 resolves; max must be at least {_LEAST_CONDUCTANCE:g}, and min below "
                f"{1 - _LEAST_WINDOW:g} of it",
            )
        return self


class SigmaKnob(_Section):
    """The one number that `--sigma` sets: its unit, its default, and the range where the fit holds."""

    default: NotNegativeNumber
    unit: KnobUnit
    min: NotNegativeNumber
    max: NotNegativeNumber

    @model_validator(mode="after")
    def _in_order(self) -> SigmaKnob:
        _check_knob(self.default, self.min, self.max, "")
        return self


class TimeKnob(_Section):
    """Time since programming, in seconds: default and the range where the fit holds."""

    default_s: NotNegativeNumber
    min_s: NotNegativeNumber
    max_s: NotNegativeNumber

    @model_validator(mode="after")
    def _in_order(self) -> TimeKnob:
        _check_knob(self.default_s, self.min_s, self.max_s, "_s")
        return self


def _check_knob(default: float, low: float, high: float, suffix: str) -> None:
    if low >= high:
        raise fault(f"min{suffix}", f"{low:g} is not below max{suffix} {high:g}; make min < max")
    if default != 0 and not low <= default <= high:
        raise fault(
            f"default{suffix}", f"{default:g} is outside {low:g} … {high:g}; move it inside, or use 0"
        )


@dataclass(frozen=True)
class Scale:
    """The window as numbers: what one level, and the full scale, are in conductance.

    Attributes
    ----------
    unit : str
        ``"us"``, ``"na"``, or ``"level"`` where the profile has no window.
    g_min, g_max : float
        Conductance of level 0 and of the top level, in `unit`.
    levels : int
        Number of levels of one cell, 2^B.
    counted : int
        Number of levels in whose spacings the unit ``level`` counts.
    """

    unit: str
    g_min: float
    g_max: float
    levels: int
    counted: int

    @property
    def full_scale(self) -> float:
        """g_max − g_min, in `unit`."""
        return self.g_max - self.g_min

    @property
    def step(self) -> float:
        """Δ = (g_max − g_min)/(2^B − 1), the spacing of two levels, in `unit`."""
        return self.full_scale / (self.levels - 1)

    def conductance(self, level: IntArray) -> Floats:
        """Target conductance of each level: g_min + level · Δ, in `unit`."""
        return np.asarray(self.g_min + level * self.step, dtype=np.float64)

    def factor(self, unit: str) -> float:
        """How much conductance one `level`, `full_scale`, `us` or `na` is, in this scale's unit."""
        if unit == "level":
            return self.full_scale / (self.counted - 1)
        if unit == "full_scale":
            return self.full_scale
        if unit == self.unit:
            return 1.0
        raise ValueError(f"{unit!r} is not a conductance in a window in {self.unit!r}")


class DeviceProfile(_Section):
    """A device: how weights are held, and which noise terms act on them, in order.

    Notes
    -----
    The spread of a random term is its law times the sigma knob if the term's unit is ``"sigma"`` (the
    number is then in the knob's unit) or if the knob's unit is ``"multiplier"`` (the law is then in the
    term's own unit); otherwise the law alone. A multiplier scales the sigma and mean of `normal`, the
    sigma of `lognormal` and `read`, `log_decay`, `nu_std`, and the deviation of a `table` from the
    target; it scales neither `nu_mean` nor the probabilities of `stuck_at`.
    """

    schema_version: Literal[1]
    name: Slug
    technology: Text
    description: Text
    source: Source
    cell_bits: int | None = Field(ge=1, le=12)
    level_bits: int | None = Field(
        default=None,
        ge=1,
        le=12,
        description="Bits of the cells in whose level spacings the unit level counts; null: cell_bits.",
    )
    top_slice: Literal["window", "lowest"] = Field(
        default="window",
        description="Levels of a top slice of fewer bits: spread over the window, or the lowest ones.",
    )
    offset_zero: Literal["lower", "upper"] = Field(
        default="lower",
        description="Stored value of a zero weight on offset slices: 2^H − 1, or 2^H, one digit and zeros.",
    )
    weight_bits: int = Field(default=8, ge=1, le=14)
    encoding: Encoding
    window: Window | None = None
    sigma: SigmaKnob | None = None
    time: TimeKnob | None = None
    measured_after_s: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds between programming and the measurement of its spread, which then holds what "
        "happened since and no verifying while programming reduces; null: directly after.",
    )
    valid_range: Text
    noise: tuple[NoiseTerm, ...] = Field(max_length=MAX_TERMS)

    @model_validator(mode="after")
    def _consistent(self) -> DeviceProfile:
        check_profile(self)
        return self

    @property
    def bits_per_cell(self) -> int:
        """Bits that one cell holds: `cell_bits`, or the whole code of an analog cell."""
        return self.weight_bits if self.cell_bits is None else self.cell_bits

    @property
    def scale(self) -> Scale:
        """The window as numbers; in level units Δ = 1."""
        levels = 2**self.bits_per_cell
        counted = levels if self.level_bits is None else 2**self.level_bits
        if self.window is None:
            return Scale("level", 0.0, float(levels - 1), levels, counted)
        return Scale(self.window.unit, self.window.min, self.window.max, levels, counted)


def check_profile(profile: DeviceProfile) -> None:
    """Check the rules that span several keys.

    Raises
    ------
    pydantic_core.PydanticCustomError
        Naming the key and the cure, for the first rule that does not hold.
    """
    if profile.level_bits is not None and profile.cell_bits is None:
        raise fault("level_bits", "an analog cell (cell_bits null) has no levels; leave it out")
    names: set[str] = set()
    previous: list[NoiseTerm] = []
    for index, term in enumerate(profile.noise):
        path = f"noise.{index}"
        if term.name in names:
            raise fault(f"{path}.name", f"{term.name!r} is used twice; give each term its own name")
        _check_order(term, previous, path)
        _check_units(profile, term, path)
        _check_laws(profile, term, path)
        if isinstance(term, TableTerm):
            _check_table(profile, term, path)
        _check_reach(profile, term, path)
        if term.is_timed and profile.time is None:
            what = "kind" if term.ages else "timed"
            raise fault(f"{path}.{what}", f"{term.kind!r} needs the key 'time' in the profile; add it")
        names.add(term.name)
        previous.append(term)


def _check_order(term: NoiseTerm, previous: list[NoiseTerm], path: str) -> None:
    """Require tables first (they replace the target) and reads last (they see the finished chip)."""
    if term.place == "first" and any(other.place != "first" for other in previous):
        raise fault(f"{path}.kind", f"a {term.kind!r} replaces the target conductance; move it to the front")
    if previous and previous[-1].place == "last" and term.place != "last":
        raise fault(f"{path}.kind", f"{term.kind!r} comes after a 'read'; move the read terms to the end")


def unit_of(term: NoiseTerm) -> str | None:
    """The unit of a term; None where its numbers have none."""
    unit: str | None = getattr(term, "unit", None)
    return unit


def _check_units(profile: DeviceProfile, term: NoiseTerm, path: str) -> None:
    unit = unit_of(term)
    if unit in ("us", "na") and (profile.window is None or profile.window.unit != unit):
        window_unit = "null" if profile.window is None else repr(profile.window.unit)
        raise fault(
            f"{path}.unit", f"{unit!r} is not the unit of the window ({window_unit}); make them equal"
        )
    if unit == "sigma":
        _check_sigma_unit(profile, term, path)


def _check_sigma_unit(profile: DeviceProfile, term: NoiseTerm, path: str) -> None:
    """Require that the unit of the knob, which unit `sigma` takes, is one that the term can have."""
    if profile.sigma is None:
        raise fault(f"{path}.unit", "'sigma' needs the key 'sigma' in the profile; add it, or state a unit")
    knob = profile.sigma.unit
    if knob == "multiplier":
        raise fault(
            f"{path}.unit", "'sigma' has no unit under a 'multiplier' knob; state the unit of the law"
        )
    if knob not in term.knob_units:
        raise fault(
            f"{path}.unit",
            f"'sigma' takes the unit {knob!r} of the knob, which a {term.kind!r} term cannot have; "
            f"use one of {', '.join(term.knob_units)} in sigma.unit",
        )


def laws_of(term: NoiseTerm) -> Iterator[tuple[str, Law]]:
    """Each law of a term, with the key that holds it."""
    for key in type(term).model_fields:
        value = getattr(term, key)
        if isinstance(value, LAW_TYPES):
            yield key, value


def _nested(law: Law, path: str) -> Iterator[tuple[str, Law]]:
    yield path, law
    if isinstance(law, Piecewise):
        yield from _nested(law.below, f"{path}.below")
        yield from _nested(law.above, f"{path}.above")


def _check_laws(profile: DeviceProfile, term: NoiseTerm, path: str) -> None:
    for key, law in laws_of(term):
        for where, part in _nested(law, f"{path}.{key}"):
            if isinstance(part, PerLevel):
                _check_length(profile, len(part.values), f"{where}.values")
        _check_values(profile, term, key, law, f"{path}.{key}")


def _check_length(profile: DeviceProfile, entries: int, path: str) -> None:
    if profile.cell_bits is None:
        raise fault(path, _LEVELS_HINT)
    if entries != 2**profile.cell_bits:
        raise fault(
            path,
            f"{entries} entries for {2**profile.cell_bits} levels ({profile.cell_bits} bits); give one each",
        )


def _grid(scale: Scale) -> tuple[IntArray, Floats]:
    """Levels on which laws are checked, and their conductances."""
    level = np.unique(
        np.linspace(0, scale.levels - 1, min(scale.levels, GRID_POINTS)).round().astype(np.int64)
    )
    return level, scale.conductance(level)


def _check_values(profile: DeviceProfile, term: NoiseTerm, key: str, law: Law, path: str) -> None:
    """Refuse a spread that is negative anywhere, and an exponent beyond any device."""
    level, g = _grid(profile.scale)
    value = evaluate(law, level=level, g=g, g_max=profile.scale.g_max)
    if key in term.spreads and float(value.min()) < 0.0:
        worst = int(value.argmin())
        raise fault(
            path,
            f"the spread is {value[worst]:.3g} at level {level[worst]}; a spread is 0 or more, "
            f"set its key 'min' to 0 to floor it",
        )
    if term.law_limit is not None:
        limit, noun = term.law_limit
        reached = float(np.abs(value).max()) * _most(profile, unit_of(term))
        if reached > limit:
            raise fault(path, f"reaches {reached:.3g}; {noun} is at most {limit:g}")


def _most(profile: DeviceProfile, unit: str | None) -> float:
    """What a law in a unit is multiplied by at most: the end of the knob's range, where the knob acts."""
    knob = profile.sigma
    # A knob acts on a law in two ways: as its unit ("sigma"), or as a factor on every law (a multiplier).
    # The end of its range is what the profile has to bear.
    acts = knob is not None and unit is not None and (unit == "sigma" or knob.unit == "multiplier")
    return knob.max if knob is not None and acts else 1.0


def _check_reach(profile: DeviceProfile, term: NoiseTerm, path: str) -> None:
    """Refuse what moves a conductance by more than :data:`MAX_WINDOWS` times the window."""
    unit = unit_of(term)
    if unit == "log":
        return
    factor, scale = _conductance_per(profile, unit), profile.scale
    for key, value in _numbers_of(profile, term):
        reached = float(np.abs(value).max()) * factor / scale.full_scale
        # Not "> ": a NaN is refused too.
        if not reached <= MAX_WINDOWS:
            raise fault(
                f"{path}.{key}",
                f"reaches {reached:.3g} times the window of conductances; at most {MAX_WINDOWS:g} can be "
                "computed in float32; correct the number or its unit",
            )


def _conductance_per(profile: DeviceProfile, unit: str | None) -> float:
    """How much conductance one of a term's unit is at most, the knob at the end of its range."""
    knob, scale = profile.sigma, profile.scale
    if unit is None:  # the limits of a clip
        return 1.0
    multiplier = _most(profile, unit)
    own = knob.unit if unit == "sigma" and knob is not None else unit
    if own == "relative":
        return multiplier * scale.g_max
    # max|W| is the full scale of the code: a spread that is stated in weight space is bounded as if it lay
    # on one device.
    if own == "weight_max":
        return multiplier * scale.full_scale
    if own in ("level", "full_scale"):
        return multiplier * scale.factor(own)
    return multiplier


def _numbers_of(profile: DeviceProfile, term: NoiseTerm) -> Iterator[tuple[str, Floats]]:
    """What a term shifts and spreads conductances by, in its unit, with the keys."""
    if term.moves:
        level, g = _grid(profile.scale)
        for key, law in laws_of(term):
            yield key, evaluate(law, level=level, g=g, g_max=profile.scale.g_max)
    yield from term.plain_numbers()


def _check_table(profile: DeviceProfile, term: TableTerm, path: str) -> None:
    if term.levels is not None:
        _check_length(profile, len(term.levels), f"{path}.levels")
        for index, entry in enumerate(term.levels):
            if entry.level != index:
                raise fault(
                    f"{path}.levels.{index}.level",
                    f"got level {entry.level} in place of {index}; list each level once, in ascending order",
                )
    if term.samples is not None:
        _check_length(profile, len(term.samples), f"{path}.samples")
        for index, values in enumerate(term.samples):
            if not values:
                raise fault(f"{path}.samples.{index}", "no samples; give at least one for each level")

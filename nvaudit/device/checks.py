"""The rules of a profile that span several keys: units, table sizes, signs, and the order of the terms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nvaudit.device.law import LAW_TYPES, Law, Levels, Piecewise, evaluate, fault
from nvaudit.device.terms import (
    Clip,
    Drift,
    LogDecay,
    Lognormal,
    NoiseTerm,
    Normal,
    Read,
    Shared,
    Table,
)

if TYPE_CHECKING:
    from nvaudit.device.profile import DeviceProfile

# An analog cell is checked on a grid that holds both ends.
GRID_POINTS = 257
MAX_LOG_SIGMA = 5.0
MAX_NU = 1.0
_LEVELS_HINT = "an analog cell (cell_bits null) has no levels; set cell_bits, or use a law of g"


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
        if isinstance(term, Table):
            _check_table(profile, term, path)
        timed = isinstance(term, Drift | LogDecay) or (isinstance(term, Clip) and term.timed)
        if timed and profile.time is None:
            what = "kind" if isinstance(term, Drift | LogDecay) else "timed"
            raise fault(f"{path}.{what}", f"{term.kind!r} needs the key 'time' in the profile; add it")
        names.add(term.name)
        previous.append(term)


def _check_order(term: NoiseTerm, previous: list[NoiseTerm], path: str) -> None:
    """Require tables first (they replace the target) and reads last (they see the finished chip)."""
    if isinstance(term, Table) and not all(isinstance(other, Table) for other in previous):
        raise fault(f"{path}.kind", "a 'table' replaces the target conductance; move it to the front")
    if previous and isinstance(previous[-1], Read) and not isinstance(term, Read):
        raise fault(f"{path}.kind", f"{term.kind!r} comes after a 'read'; move the read terms to the end")


def _unit_of(term: NoiseTerm) -> str | None:
    return term.unit if isinstance(term, Normal | Shared | Lognormal | Read | LogDecay | Table) else None


def _check_units(profile: DeviceProfile, term: NoiseTerm, path: str) -> None:
    unit = _unit_of(term)
    if unit in ("us", "na") and (profile.window is None or profile.window.unit != unit):
        found = "null" if profile.window is None else repr(profile.window.unit)
        raise fault(f"{path}.unit", f"{unit!r} is not the unit of the window ({found}); make them equal")
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
    allowed: tuple[str, ...] = ("level", "full_scale")
    if isinstance(term, Lognormal):
        allowed = ("log",)
    elif isinstance(term, Normal):
        allowed = ("level", "full_scale", "weight_max")
    if knob not in allowed:
        raise fault(
            f"{path}.unit",
            f"'sigma' takes the unit {knob!r} of the knob, which a {term.kind!r} term cannot have; "
            f"use one of {', '.join(allowed)} in sigma.unit",
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
            if isinstance(part, Levels):
                _check_length(profile, len(part.values), f"{where}.values")
        _check_values(profile, term, key, law, f"{path}.{key}")


def _check_length(profile: DeviceProfile, found: int, path: str) -> None:
    if profile.cell_bits is None:
        raise fault(path, _LEVELS_HINT)
    if found != 2**profile.cell_bits:
        raise fault(
            path,
            f"{found} entries for {2**profile.cell_bits} levels ({profile.cell_bits} bits); give one each",
        )


def _check_values(profile: DeviceProfile, term: NoiseTerm, key: str, law: Law, path: str) -> None:
    """Refuse a spread that is negative anywhere, and an exponent beyond any device."""
    scale = profile.scale
    level = np.unique(
        np.linspace(0, scale.levels - 1, min(scale.levels, GRID_POINTS)).round().astype(np.int64)
    )
    value = evaluate(law, level=level, g=scale.conductance(level), g_max=scale.g_max)
    if key in ("sigma", "nu_std") and float(value.min()) < 0.0:
        worst = int(value.argmin())
        raise fault(
            path,
            f"the spread is {value[worst]:.3g} at level {level[worst]}; a spread is 0 or more, "
            f"set its key 'min' to 0 to floor it",
        )
    if isinstance(term, Drift) and float(np.abs(value).max()) > MAX_NU:
        raise fault(path, f"reaches {np.abs(value).max():.3g}; a drift exponent is at most {MAX_NU:g}")
    if isinstance(term, Lognormal) and key == "sigma":
        knob = 1.0
        if profile.sigma is not None and (term.unit == "sigma" or profile.sigma.unit == "multiplier"):
            knob = profile.sigma.max
        if float(value.max()) * knob > MAX_LOG_SIGMA:
            raise fault(
                path, f"reaches {value.max() * knob:.3g}; a log-normal sigma is at most {MAX_LOG_SIGMA:g}"
            )


def _check_table(profile: DeviceProfile, term: Table, path: str) -> None:
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

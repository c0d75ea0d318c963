"""The operating point: a profile with its sigma and time chosen, inside the range where it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nvaudit.device.profile import DeviceProfile, SigmaKnob, unit_of
from nvaudit.device.terms import NoiseTerm, Normal
from nvaudit.errors import ProfileError

_ADDITIVE_UNITS = ("level", "full_scale", "weight_max")
# A spread above the largest weight is no longer a perturbation of it.
MAX_WEIGHT_SIGMA = 1.0
# Converting a unit must not push the end of a range out of it.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class OperatingPoint:
    """A device at one sigma and one time.

    Attributes
    ----------
    profile : DeviceProfile
        The device.
    sigma : float
        Value of the sigma knob; 1.0 where the profile has none.
    sigma_unit : str
        Unit of `sigma`; ``"multiplier"`` where the profile has no knob.
    time_s : float
        Time since programming, seconds.
    terms : tuple of NoiseTerm
        The terms that are switched on, in order.
    drift_compensation : bool
        Whether each tensor is multiplied by what it lost to time as a whole.
    cell_spacing : bool
        Whether a sigma in `level` counts the spacings of the cells in use, not those of the profile's own.
    """

    profile: DeviceProfile
    sigma: float
    sigma_unit: str
    time_s: float
    terms: tuple[NoiseTerm, ...]
    drift_compensation: bool = False
    cell_spacing: bool = False

    @property
    def level_of(self) -> str | None:
        """Whose level spacings sigma is in, where cells hold other numbers of bits than the profile's own."""
        own, used = self.profile.level_bits, self.profile.cell_bits
        if self.sigma_unit != "level" or own is None or own == used:
            return None
        return f"of the {used}-bit cells in use" if self.cell_spacing else f"of {own}-bit cells"


def operating_point(
    profile: DeviceProfile,
    sigma: float | None = None,
    sigma_unit: str | None = None,
    time_s: float | None = None,
    enable: Sequence[str] = (),
    disable: Sequence[str] = (),
    write_verify: float | None = None,
    drift_compensation: bool = False,
) -> OperatingPoint:
    """Choose sigma, time and the active terms of a device.

    Parameters
    ----------
    profile : DeviceProfile
        The device.
    sigma : float, optional
        Value of the knob; the profile's default without it. 0 is always allowed.
    sigma_unit : str, optional
        ``"level"``, ``"full_scale"`` or ``"weight_max"``, to state an additive sigma otherwise than the
        profile does; given ``"level"`` counts the spacings of the cells in use, where without it those of
        the profile's own cells count. A number in `level` or `full_scale` is checked against the
        profile's range after conversion, one in `weight_max` (which is not a property of the device)
        against 0 … 1.
    time_s : float, optional
        Seconds since programming; the profile's default without it. 0 is always allowed.
    enable, disable : sequence of str, optional
        Names of terms to switch on and off.
    write_verify : float, optional
        Tolerance of programming: the error of every `normal` term is truncated there, in the unit of the
        term's sigma. A narrower one that the profile states stays.
    drift_compensation : bool
        Multiply each tensor by its total conductance before it drifted over that after.

    Returns
    -------
    OperatingPoint
        Frozen.

    Raises
    ------
    ProfileError
        If a value is outside the valid range, the profile has no such knob or unit, a name is unknown, or
        there is nothing to verify or to compensate.
    """
    unit = _sigma_unit(profile, sigma_unit)
    terms = _terms(profile, enable, disable)
    _check_tolerance(profile, terms, unit)
    if write_verify is not None:
        terms = _verified(profile, terms, write_verify)
    if drift_compensation and not any(term.ages for term in terms):
        raise ProfileError(
            f"drift-compensation: no term of profile {profile.name!r} that is switched on changes with time; "
            "leave it out"
        )
    return OperatingPoint(
        profile=profile,
        sigma=_sigma(profile, sigma, unit),
        sigma_unit=unit,
        time_s=_time(profile, time_s),
        terms=terms,
        drift_compensation=drift_compensation,
        cell_spacing=sigma_unit == "level",
    )


def _check_tolerance(profile: DeviceProfile, terms: Sequence[NoiseTerm], unit: str) -> None:
    """Refuse to take a tolerance that the profile states in the unit of its sigma for one in another."""
    if profile.sigma is None or unit == profile.sigma.unit:
        return
    for term in terms:
        if isinstance(term, Normal) and term.unit == "sigma" and term.tolerance is not None:
            raise ProfileError(
                f"sigma-unit: {unit!r}: the tolerance of the noise term {term.name!r} of profile "
                f"{profile.name!r} is in {profile.sigma.unit!r}; use that unit"
            )


def _verified(profile: DeviceProfile, terms: Sequence[NoiseTerm], tolerance: float) -> tuple[NoiseTerm, ...]:
    """Truncate the errors of programming."""
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ProfileError(f"write-verify: {tolerance:g} is not a tolerance; use a number of 0 or more")
    if not any(isinstance(term, Normal) for term in terms):
        raise ProfileError(
            f"write-verify: no term of kind 'normal' is switched on in profile {profile.name!r}, so there is "
            "no programming error that a tolerance truncates; leave it out"
        )

    def verified(term: NoiseTerm) -> NoiseTerm:
        if not isinstance(term, Normal):
            return term
        # Writing until two tolerances hold is writing until the narrower one does.
        own = math.inf if term.tolerance is None else term.tolerance
        return term.model_copy(update={"tolerance": min(tolerance, own)})

    return tuple(map(verified, terms))


def _sigma_unit(profile: DeviceProfile, asked: str | None) -> str:
    knob = profile.sigma
    own = "multiplier" if knob is None else knob.unit
    if asked is None or asked == own:
        return own
    allowed = _ADDITIVE_UNITS if own in _ADDITIVE_UNITS else (own,)
    if asked not in allowed:
        other = ""
        if own == "multiplier":
            other = (
                ", by which the deviations that the profile holds are multiplied (1: as they are); for a "
                f"published sigma use a profile of one spread: --device rram --sigma S --sigma-unit {asked}"
            )
        raise ProfileError(
            f"sigma-unit: {asked!r} does not fit profile {profile.name!r}; use one of "
            f"{', '.join(allowed)}{other}"
        )
    if asked == "weight_max":
        _check_weight_space(profile)
    return asked


def _check_weight_space(profile: DeviceProfile) -> None:
    """Refuse sigma in weight space where a term other than `normal` would take it."""
    for term in profile.noise:
        if unit_of(term) == "sigma" and "weight_max" not in term.knob_units:
            raise ProfileError(
                f"sigma-unit: 'weight_max' does not fit the {term.kind!r} term {term.name!r} of profile "
                f"{profile.name!r}; use one of level, full_scale"
            )


def _sigma(profile: DeviceProfile, asked: float | None, unit: str) -> float:
    knob = profile.sigma
    if knob is None:
        if asked is not None:
            raise ProfileError(f"sigma: {asked:g}: profile {profile.name!r} has no sigma; leave it out")
        return 1.0
    if asked is None:
        if unit == knob.unit:
            return knob.default
        raise ProfileError(
            f"sigma-unit: {unit!r} without a sigma: the default of profile {profile.name!r} is in "
            f"{knob.unit!r}; give the sigma too"
        )
    # 0 is outside the range of many a profile, and allowed: it switches the knob's terms off.
    low, high = _sigma_range(profile, knob, unit)
    inside = low * (1 - _ROUNDING) <= asked <= high * (1 + _ROUNDING)
    if asked != 0 and not (math.isfinite(asked) and inside):
        raise ProfileError(
            f"sigma: {asked:g} is outside the valid range {low:g} … {high:g} of profile {profile.name!r} "
            f"({profile.valid_range}); choose one inside it, in unit {unit!r}"
        )
    return float(asked)


def _sigma_range(profile: DeviceProfile, knob: SigmaKnob, unit: str) -> tuple[float, float]:
    """Convert the valid range to `unit`: 1 full scale is 2^B − 1 levels."""
    if unit == knob.unit:
        return knob.min, knob.max
    if "weight_max" in (unit, knob.unit):
        return 0.0, MAX_WEIGHT_SIGMA
    # A sigma asked for in `level` counts spacings of the cells in use; a knob stated in `level` counts those
    # of the profile's own cells. σ in full scale is σ in levels / (2^B − 1), with the bits B of either.
    own = profile.level_bits or profile.bits_per_cell
    steps = 2.0 ** (profile.bits_per_cell if unit == "level" else own) - 1.0
    ratio = 1.0 / steps if unit == "full_scale" else steps
    return knob.min * ratio, knob.max * ratio


def _time(profile: DeviceProfile, asked: float | None) -> float:
    knob = profile.time
    if knob is None:
        if asked:
            raise ProfileError(
                f"time: {asked:g} s: profile {profile.name!r} does not change with time; leave it out"
            )
        return 0.0
    if asked is None:
        return knob.default_s
    if asked != 0 and not (math.isfinite(asked) and knob.min_s <= asked <= knob.max_s):
        raise ProfileError(
            f"time: {asked:g} s is outside the valid range {knob.min_s:g} … {knob.max_s:g} s of profile "
            f"{profile.name!r} ({profile.valid_range}); choose a time inside it"
        )
    return float(asked)


def _terms(profile: DeviceProfile, enable: Sequence[str], disable: Sequence[str]) -> tuple[NoiseTerm, ...]:
    names = [term.name for term in profile.noise]
    for name in (*enable, *disable):
        if name not in names:
            known = f"its terms are {', '.join(names)}" if names else "it has no terms"
            raise ProfileError(f"noise term: {name!r} is not in profile {profile.name!r}; {known}")
    both = sorted(set(enable) & set(disable))
    if both:
        raise ProfileError(f"noise term: {both[0]!r} is both enabled and disabled; choose one")
    return tuple(
        term for term in profile.noise if term.name in enable or (term.enabled and term.name not in disable)
    )

"""Laws: how one number of a device (a spread, a mean shift, a drift exponent) follows its conductance.

Every law is evaluated on the target conductance, the one that was to be programmed, so that two noise
terms of one device never depend on the order in which they are drawn.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from nvaudit.arrays import Floats

# Bounds that keep every evaluation finite in float64, also for a hostile file; no device comes near them.
LARGEST = 1e12
MAX_COEFFICIENTS = 16
# The floor of x in logarithms and powers, as in the published PCM fits (aihwkit pcm.py, hermes.py).
X_FLOOR = 1e-7
_LARGEST_EXPONENT = 700.0

IntArray: TypeAlias = npt.NDArray[np.integer[Any]]
FiniteNumber = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
PositiveNumber = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
Argument: TypeAlias = Literal["rel", "g"]


def fault(path: str, problem: str) -> PydanticCustomError:
    """Make the error of a rule that pydantic's types do not express, with the key it is about."""
    return PydanticCustomError("profile_rule", "{path}: {problem}", {"path": path, "problem": problem})


class _Law(BaseModel):
    """What all laws share: optional bounds of the result."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    min: FiniteNumber | None = None
    max: FiniteNumber | None = None

    @model_validator(mode="after")
    def _bounds_in_order(self) -> _Law:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise fault("min", f"{self.min:g} is above max {self.max:g}; swap them")
        return self


class ConstantLaw(_Law):
    """The same value at every conductance."""

    kind: Literal["constant"]
    value: FiniteNumber


class PerLevel(_Law):
    """One value per level, level 0 first."""

    kind: Literal["levels"]
    values: tuple[FiniteNumber, ...] = Field(min_length=2, max_length=4096)


class Polynomial(_Law):
    """Σ c_k x^k, coefficients ascending."""

    kind: Literal["polynomial"]
    coefficients: tuple[FiniteNumber, ...] = Field(min_length=1, max_length=MAX_COEFFICIENTS)
    of: Argument


class Log(_Law):
    """slope · ln(x) + intercept."""

    kind: Literal["log"]
    slope: FiniteNumber
    intercept: FiniteNumber
    of: Argument


class Power(_Law):
    """scale · x^exponent."""

    kind: Literal["power"]
    scale: FiniteNumber
    exponent: float = Field(ge=-8, le=8, allow_inf_nan=False)
    of: Argument


class Saturating(_Law):
    """A (1 − exp(−x/B)): amplitude A, decay B in the units of x."""

    kind: Literal["saturating"]
    amplitude: FiniteNumber
    decay: PositiveNumber
    of: Argument


class Piecewise(_Law):
    """`below` where x < split, `above` elsewhere."""

    kind: Literal["piecewise"]
    split: FiniteNumber
    of: Argument
    below: Law
    above: Law


Law: TypeAlias = Annotated[
    ConstantLaw | PerLevel | Polynomial | Log | Power | Saturating | Piecewise, Field(discriminator="kind")
]
Piecewise.model_rebuild()

LAW_TYPES = (ConstantLaw, PerLevel, Polynomial, Log, Power, Saturating, Piecewise)
LAW_KINDS = ("constant", "levels", "polynomial", "log", "power", "saturating", "piecewise")


def _argument(of: Argument, g: Floats, g_max: float) -> Floats:
    return g / g_max if of == "rel" else g


def _unclipped(law: Law, level: IntArray, g: Floats, g_max: float) -> Floats:
    match law:
        case ConstantLaw():
            return np.full(g.shape, law.value)
        case PerLevel():
            return np.asarray(law.values, dtype=np.float64)[level]
        case Polynomial():
            result = np.polynomial.polynomial.polyval(_argument(law.of, g, g_max), np.array(law.coefficients))
            return np.asarray(result, dtype=np.float64)
        case Log():
            x = np.maximum(_argument(law.of, g, g_max), X_FLOOR)
            return law.slope * np.log(x) + law.intercept
        case Power():
            x = np.maximum(_argument(law.of, g, g_max), X_FLOOR)
            return np.asarray(law.scale * x**law.exponent, dtype=np.float64)
        case Saturating():
            with np.errstate(over="ignore"):  # beyond all numbers the law has saturated
                x = _argument(law.of, g, g_max) / law.decay
            # 1 − e^(−x/B) by expm1, which keeps its digits where x is small.
            # exp(-700) is still a normal number: no underflow, and 1 − it is 1.
            return -law.amplitude * np.expm1(-np.minimum(x, _LARGEST_EXPONENT))
        case Piecewise():
            below = evaluate(law.below, level=level, g=g, g_max=g_max)
            above = evaluate(law.above, level=level, g=g, g_max=g_max)
            return np.where(_argument(law.of, g, g_max) < law.split, below, above)


def evaluate(law: Law, *, level: IntArray, g: Floats, g_max: float) -> Floats:
    """Evaluate a law on an array of devices.

    Parameters
    ----------
    law : Law
        The law, with its optional bounds of the result.
    level : numpy.ndarray, integer, any shape
        Target level of each device; only `levels` reads it.
    g : numpy.ndarray, float64, same shape
        Target conductance (µS or nA as the window says, else level units).
    g_max : float
        Upper end of the window in the unit of `g`, > 0.

    Returns
    -------
    numpy.ndarray, float64, same shape
        The value of the law; its unit is stated by the term that holds it.

    Examples
    --------
    >>> law = Saturating(kind="saturating", amplitude=2.0, decay=1.0, of="g", max=1.0)
    >>> evaluate(law, level=np.array([0, 1]), g=np.array([0.0, 9.0]), g_max=9.0)
    array([0., 1.])
    """
    value = _unclipped(law, level, g, g_max)
    if law.min is None and law.max is None:
        return value
    return np.clip(value, law.min, law.max)


def scaled_law(law: Law, factor: float) -> Law:
    """Multiply a law by a factor of 0 or more, its bounds included."""
    # k · clip(x, a, b) = clip(k x, k a, k b) holds for k ≥ 0 only. Scaled is what the result is linear in;
    # exponents, decays and splits belong to the argument.
    changed: dict[str, object] = {
        name: None if bound is None else factor * bound
        for name, bound in (("min", law.min), ("max", law.max))
    }
    match law:
        case ConstantLaw():
            changed["value"] = factor * law.value
        case PerLevel():
            changed["values"] = tuple(factor * value for value in law.values)
        case Polynomial():
            changed["coefficients"] = tuple(factor * value for value in law.coefficients)
        case Log():
            changed |= {"slope": factor * law.slope, "intercept": factor * law.intercept}
        case Power():
            changed["scale"] = factor * law.scale
        case Saturating():
            changed["amplitude"] = factor * law.amplitude
        case Piecewise():
            changed |= {"below": scaled_law(law.below, factor), "above": scaled_law(law.above, factor)}
    return law.model_copy(update=changed)

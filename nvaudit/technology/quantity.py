"""A number of a technology profile: with its unit, where it comes from, and how far it may be moved."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nvaudit.device.law import fault
from nvaudit.device.profile import Text

Evidence = Literal["published", "derived", "scaled", "estimated"]
"""``derived``: worked out from published numbers, or by running published code; ``scaled``: from another
node; ``estimated``: by judgement."""

Magnitude = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]


Positive = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
FromOne = Annotated[float, Field(ge=1, le=1e15, allow_inf_nan=False)]


class TechnologyPart(BaseModel):
    """A part of a technology profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Quantity(TechnologyPart):
    """A number with its unit and source.

    ``valid`` are the least and the greatest value that it may be set to: beyond them it would be another
    technology. Of a circuit's energy or area that is how far its evidence leaves it open; of a choice of the
    designer, such as columns for each ADC, what the source covers.
    """

    value: Magnitude
    unit: str
    source: Text
    evidence: Evidence
    valid: tuple[Magnitude, Magnitude]
    note: Text | None = None

    units: ClassVar[dict[str, float]] = {}
    """SI units in one of each unit that may stand in a file."""

    @model_validator(mode="after")
    def _inside(self) -> Quantity:
        low, high = self.valid
        if low > high:
            raise fault("valid", f"{low:g} is above {high:g}; swap them")
        if not low <= self.value <= high:
            raise fault("value", f"{self.value:g} is outside its valid range {low:g} … {high:g} {self.unit}")
        return self

    @property
    def si(self) -> float:
        """The number in SI units."""
        return self.value * self.units[self.unit]


class Energy(Quantity):
    """Of one event."""

    unit: Literal["aJ", "fJ", "pJ", "nJ"]
    units = {"aJ": 1e-18, "fJ": 1e-15, "pJ": 1e-12, "nJ": 1e-9}


class WireEnergy(Quantity):
    """Of one bit over a length of wire."""

    unit: Literal["fJ/mm"]
    units = {"fJ/mm": 1e-12}


class Wattage(Quantity):
    """While something is switched on."""

    unit: Literal["nW", "uW", "mW", "W"]
    units = {"nW": 1e-9, "uW": 1e-6, "mW": 1e-3, "W": 1.0}


class SensePower(Quantity):
    """For each siemens that conducts."""

    unit: Literal["W/S"]
    units = {"W/S": 1.0}


class Footprint(Quantity):
    """Area of a circuit."""

    unit: Literal["um2", "mm2"]
    units = {"um2": 1e-12, "mm2": 1e-6}


class Duration(Quantity):
    """A time."""

    unit: Literal["ps", "ns", "us"]
    units = {"ps": 1e-12, "ns": 1e-9, "us": 1e-6}


class Frequency(Quantity):
    """Of a clock, or of conversions."""

    value: Positive
    valid: tuple[Positive, Positive]
    unit: Literal["MHz", "GHz", "GS/s"]
    units = {"MHz": 1e6, "GHz": 1e9, "GS/s": 1e9}


class Voltage(Quantity):
    """A voltage."""

    value: Positive
    valid: tuple[Positive, Positive]
    unit: Literal["V"]
    units = {"V": 1.0}


class Capacitance(Quantity):
    """A capacitance."""

    unit: Literal["aF", "fF"]
    units = {"aF": 1e-18, "fF": 1e-15}


class Ratio(Quantity):
    """A plain number."""

    unit: Literal["1"]
    units = {"1": 1.0}


class Factor(Quantity):
    """By which a number may be off, up or down."""

    value: FromOne
    valid: tuple[FromOne, FromOne]
    unit: Literal["1"]
    units = {"1": 1.0}


class Tally(Quantity):
    """A whole number of things."""

    unit: Literal["1", "bit", "cycle"]
    units = {"1": 1.0, "bit": 1.0, "cycle": 1.0}

    @model_validator(mode="after")
    def _whole(self) -> Tally:
        if self.value != int(self.value):
            raise fault("value", f"{self.value:g} is no whole number; give one")
        return self

    @property
    def count(self) -> int:
        """The number."""
        return int(self.value)


class PositiveTally(Tally):
    """A whole number of things, one at least."""

    value: FromOne
    valid: tuple[FromOne, FromOne]

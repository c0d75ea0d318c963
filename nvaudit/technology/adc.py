"""Kinds of ADC: energy, time and area of a conversion to N bits.

Respected models differ by more than ten times in the energy, and hardly in what 8 bits cost over 5, but for
flash; so the kind is a choice of the profile.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from nvaudit.device.law import fault
from nvaudit.device.profile import Text
from nvaudit.errors import OptionError
from nvaudit.technology.quantity import (
    Duration,
    Energy,
    Footprint,
    Frequency,
    Ratio,
    TechnologyPart,
    Voltage,
    Wattage,
)

MOST_BITS = 16


class _Converter(TechnologyPart):
    """What all kinds have: the bits that the model holds for."""

    bits: tuple[int, int] = Field(description="Least and most bits that the model holds for.")
    source: Text

    @model_validator(mode="after")
    def _bits_in_order(self) -> _Converter:
        low, high = self.bits
        if not 1 <= low <= high <= MOST_BITS:
            raise fault("bits", f"{low} … {high} is no range of bits within 1 … {MOST_BITS}; correct it")
        return self

    def check(self, bits: int) -> None:
        """Refuse bits that the model does not hold for.

        Raises
        ------
        OptionError
            Naming the range.
        """
        low, high = self.bits
        if not low <= bits <= high:
            raise OptionError(
                f"--adc-bits {bits}: the ADC of this technology is known from {low} to {high} bits "
                f"({self.source}); choose among these, or another technology"
            )


class SarAdc(_Converter):
    """Successive approximation: power a·N + b for N + 1 steps; area grows by a share for each bit over 5."""

    kind: Literal["sar"]
    power_per_bit: Wattage
    power: Wattage
    idle_power: Wattage = Field(description="While no row of the crossbar is driven.")
    step: Duration
    area: Footprint = Field(description="At 5 bits.")
    area_per_bit: Ratio

    def time(self, bits: int, rows: int) -> float:
        """Seconds of a conversion."""
        return self.step.si * (bits + 1)

    def energy(self, bits: int) -> float:
        """Joules of a conversion."""
        return (self.power_per_bit.si * bits + self.power.si) * self.time(bits, 0)

    def idle_energy(self, bits: int) -> float:
        """Joules of a conversion while no row is driven."""
        return self.idle_power.si * self.time(bits, 0)

    def footprint(self, bits: int) -> float:
        """Square metres of one ADC."""
        return self.area.si * (1 + self.area_per_bit.si * (bits - 5))


class FlashAdc(_Converter):
    """A comparator for each of 2^N − 1 thresholds."""

    kind: Literal["flash"]
    level_power: Wattage
    conversion: Duration
    level_area: Footprint

    def time(self, bits: int, rows: int) -> float:
        """Seconds of a conversion."""
        return self.conversion.si

    def energy(self, bits: int) -> float:
        """Joules of a conversion."""
        return float(self.level_power.si * (2**bits - 1) * self.conversion.si)

    def idle_energy(self, bits: int) -> float:
        """Joules of a conversion while no row is driven: the comparators work all the same."""
        return self.energy(bits)

    def footprint(self, bits: int) -> float:
        """Square metres of one ADC."""
        return float(self.level_area.si * (2**bits - 1))


class AdcEntry(TechnologyPart):
    """One resolution of a table."""

    bits: int = Field(ge=1, le=MOST_BITS)
    energy: Energy
    area: Footprint


class TableAdc(_Converter):
    """Energy and area as published for each resolution."""

    kind: Literal["table"]
    rate: Frequency
    entries: tuple[AdcEntry, ...] = Field(min_length=1, max_length=MOST_BITS)

    @model_validator(mode="after")
    def _every_resolution(self) -> TableAdc:
        low, high = self.bits
        have = [entry.bits for entry in self.entries]
        if have != list(range(low, high + 1)):
            raise fault("entries", f"bits {have} instead of {low} … {high}, each once in order; correct them")
        return self

    def _entry(self, bits: int) -> AdcEntry:
        return self.entries[bits - self.bits[0]]

    def time(self, bits: int, rows: int) -> float:
        """Seconds of a conversion."""
        return 1.0 / self.rate.si

    def energy(self, bits: int) -> float:
        """Joules of a conversion."""
        return self._entry(bits).energy.si

    def idle_energy(self, bits: int) -> float:
        """Joules of a conversion while no row is driven: a table says nothing else."""
        return self.energy(bits)

    def footprint(self, bits: int) -> float:
        """Square metres of one ADC."""
        return self._entry(bits).area.si


class SurveyAdc(_Converter):
    """The best converters of a survey at a rate and node: optimistic.

    References
    ----------
    Andrulis et al., arXiv 2404.06553; coefficients of Accelergy's ADC plug-in (``model.yaml`` at 246af7e).
    """

    kind: Literal["survey"]
    rate: Frequency
    node_nm: float = Field(ge=5, le=250)

    def time(self, bits: int, rows: int) -> float:
        """Seconds of a conversion."""
        return 1.0 / self.rate.si

    def energy(self, bits: int) -> float:
        """Joules of a conversion."""
        # Schreier's figure of merit, the lower one of the speed-limited and the resolution-limited branch;
        # then E = ½ · 10^((SNDR − FOM)/10) times a fit to node and resolution, in pJ.
        merit = min(213.7807 - 2.87190 * math.log(self.rate.si), 128.3068 + 3.22051 * bits)
        sndr = 6.0206 * bits + 1.7609
        fit = 26.04962 + 1.880037 * math.log(self.node_nm) - 2.829126 * math.log(bits) - 1.470202
        return float(0.5 * 10.0 ** ((sndr - merit) / 10.0) * math.exp(fit) * 1e-12)

    def idle_energy(self, bits: int) -> float:
        """Joules of a conversion while no row is driven."""
        return self.energy(bits)

    def footprint(self, bits: int) -> float:
        """Square metres of one ADC."""
        logarithms = (
            0.993279 * math.log(self.node_nm)
            + 0.180715 * math.log(self.rate.si)
            + 0.299124 * math.log(self.energy(bits) * 1e12)
            + 1.346192
        )
        return math.exp(logarithms) * 1e-12


class ZigzagAdc(_Converter):
    """A SAR converter by its capacitances, fitted to chips of 28 nm.

    References
    ----------
    zigzag-imc at df34a6f, ``AimcArrayUnit.py`` lines 37–55.
    """

    kind: Literal["zigzag"]
    supply: Voltage = Field(description="What its capacitances are charged to.")

    def time(self, bits: int, rows: int) -> float:
        """Seconds of a conversion; a longer column settles later."""
        return bits * (0.64 + 0.00653 * rows) * 1e-9

    def energy(self, bits: int) -> float:
        """Joules of a conversion."""
        return (100.0 * bits + 0.001 * 4.0**bits) * 1e-15 * self.supply.si**2

    def idle_energy(self, bits: int) -> float:
        """Joules of a conversion while no row is driven."""
        return self.energy(bits)

    def footprint(self, bits: int) -> float:
        """Square metres of one ADC."""
        return float(10.0 ** (1.206 - 0.0369 * bits) * 2.0**bits * 1e-12)


Adc: TypeAlias = SarAdc | FlashAdc | TableAdc | SurveyAdc | ZigzagAdc

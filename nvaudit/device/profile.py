"""The device profile: one JSON file that says what a device does to a programmed conductance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from nvaudit.device.checks import check_profile
from nvaudit.device.law import FloatArray, IntArray, fault
from nvaudit.device.terms import NoiseTerm, NotNegative, Slug

# Printable text on one line: a profile is shown on terminals.
Text = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Encoding: TypeAlias = Literal["sign_magnitude", "differential", "offset"]
KnobUnit: TypeAlias = Literal["level", "full_scale", "weight_max", "log", "multiplier"]
MAX_TERMS = 32


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
        return self


class SigmaKnob(_Section):
    """The one number that `--sigma` sets: its unit, its default, and the range where the fit holds."""

    default: NotNegative
    unit: KnobUnit
    min: NotNegative
    max: NotNegative

    @model_validator(mode="after")
    def _in_order(self) -> SigmaKnob:
        _check_knob(self.default, self.min, self.max, "")
        return self


class TimeKnob(_Section):
    """Time since programming, in seconds: default and the range where the fit holds."""

    default_s: NotNegative
    min_s: NotNegative
    max_s: NotNegative

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

    def conductance(self, level: IntArray) -> FloatArray:
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

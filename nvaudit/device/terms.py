"""Noise terms: the effects that move a conductance away from its target, one class per effect.

A term says what happens, and what a profile with it must keep to; what it does to devices stands beside its
entry in the table of :mod:`nvaudit.perturb.terms`. Nothing else in the project asks for the kind of a term.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self, TypeAlias, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from nvaudit.arrays import Floats
from nvaudit.device.law import LARGEST, FiniteNumber, Law, fault

MAX_LOG_SIGMA = 5.0
MAX_NU = 1.0

SLUG = r"^[a-z0-9][a-z0-9_-]{0,63}$"
Slug = Annotated[str, Field(pattern=SLUG)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=1e-9, le=LARGEST, allow_inf_nan=False)]
NotNegativeNumber = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
TileSide = Annotated[int, Field(ge=1, le=1_000_000)]

ConductanceUnit: TypeAlias = Literal["level", "full_scale", "us", "na"]
ReadUnit: TypeAlias = Literal["sigma", "level", "full_scale", "relative", "us", "na"]
NormalUnit: TypeAlias = Literal["sigma", "level", "full_scale", "relative", "us", "na", "weight_max"]


class _ProfilePart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class _Term(_ProfilePart):
    """What all terms share.

    Attributes
    ----------
    place : {"first", "middle", "last"}
        Where a profile must have it: first what replaces the target, last what sees the finished chip.
    ages : bool
        It is what time does after programming.
    programming : bool
        It is an error of programming, which reading back finds and writing again corrects.
    limits : bool
        It makes no noise, and only limits what other terms do.
    moves : bool
        Its laws give conductances, in its unit.
    spreads : tuple of str
        Laws of spreads, which are 0 or more.
    knob_units : tuple of str
        Units of the sigma knob that its unit ``sigma`` may stand for.
    law_limit : tuple or None
        Largest magnitude of its laws, and what that limits; None: only the window does.
    """

    place: ClassVar[Literal["first", "middle", "last"]] = "middle"
    ages: ClassVar[bool] = False
    programming: ClassVar[bool] = False
    limits: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    spreads: ClassVar[tuple[str, ...]] = ("sigma",)
    knob_units: ClassVar[tuple[str, ...]] = ("level", "full_scale")
    law_limit: ClassVar[tuple[float, str] | None] = None

    enabled: bool = True

    @property
    def is_timed(self) -> bool:
        """Whether it acts only once time has passed."""
        return self.ages

    @property
    def is_truncated(self) -> bool:
        """Whether its errors are limited by a tolerance."""
        return False

    def acts_on_weights(self, knob_unit: str) -> bool:
        """Whether it is stated as a fraction of max|W| and so acts on weights, not devices."""
        return False

    def of_one_weight(self, devices: int) -> Self:
        """Itself for weights each of which is a chip of its own, of so many devices."""
        return self

    def plain_numbers(self) -> Iterator[tuple[str, Floats]]:
        """What it moves conductances by, in its unit, apart from its laws: key and numbers."""
        yield from ()


class Normal(_Term):
    """g + N(mean, sigma²), drawn once per chip. References: T-13, T-15.

    With a `tolerance`, in the same unit and not multiplied by the knob, programming is repeated until the
    error is within ± tolerance: the normal is truncated there.
    """

    programming: ClassVar[bool] = True
    moves: ClassVar[bool] = True
    knob_units: ClassVar[tuple[str, ...]] = ("level", "full_scale", "weight_max")

    kind: Literal["normal"]
    name: Slug = "normal"
    sigma: Law
    mean: Law | None = None
    unit: NormalUnit
    tolerance: NotNegativeNumber | None = None

    @property
    def is_truncated(self) -> bool:
        """Whether there is a tolerance."""
        return self.tolerance is not None

    def acts_on_weights(self, knob_unit: str) -> bool:
        """Whether its unit is, or stands for, max|W|."""
        return self.unit == "weight_max" or (self.unit == "sigma" and knob_unit == "weight_max")


class Shared(_Term):
    """g + sigma · z with one z ~ N(0, 1) for all devices of a chip, of a tensor, or of a crossbar tile.

    A tile is `tile` = (rows, columns) devices of the tensor's crossbars, counted from their first row and
    column; a weight column takes slices × polarities neighbouring device columns.
    """

    moves: ClassVar[bool] = True

    kind: Literal["shared"]
    name: Slug = "shared"
    sigma: Law
    unit: ReadUnit
    scope: Literal["chip", "tensor", "tile"]
    tile: tuple[TileSide, TileSide] | None = None

    @model_validator(mode="after")
    def _tile_where_asked(self) -> Shared:
        if (self.scope == "tile") != (self.tile is not None):
            what = "is missing" if self.tile is None else f"is for scope 'tile', not {self.scope!r}"
            do = "add it, as [rows, columns]" if self.tile is None else "leave it out"
            raise fault("tile", f"{what}; {do}")
        return self

    def of_one_weight(self, devices: int) -> Self:
        """A component of its own for each weight: tiles of one row and no more than its devices."""
        cols = devices if self.tile is None else min(devices, self.tile[1])
        return self.model_copy(update={"scope": "tile", "tile": (1, cols)})


class Lognormal(_Term):
    """r · exp(θ) on the resistance or g · exp(θ) on the conductance, θ ~ N(0, sigma²).

    `preserve` says which statistic of the named quantity keeps its target: the median (θ centred at 0,
    S Table 2) or the mean (θ centred at −sigma²/2).
    """

    programming: ClassVar[bool] = True
    knob_units: ClassVar[tuple[str, ...]] = ("log",)
    law_limit: ClassVar[tuple[float, str] | None] = (MAX_LOG_SIGMA, "a log-normal sigma")

    kind: Literal["lognormal"]
    name: Slug = "lognormal"
    sigma: Law
    unit: Literal["sigma", "log"]
    on: Literal["resistance", "conductance"]
    preserve: Literal["median", "mean"]


class StuckAt(_Term):
    """Each device on its own is stuck at g_min with p_low, at g_max with p_high."""

    kind: Literal["stuck_at"]
    name: Slug = "stuck_at"
    p_low: Probability
    p_high: Probability

    @model_validator(mode="after")
    def _at_most_certain(self) -> StuckAt:
        if self.p_low + self.p_high > 1.0 + 1e-12:
            raise fault("p_high", f"p_low + p_high is {self.p_low + self.p_high:g}; make it 1 or less")
        return self


class Drift(_Term):
    """g · ((t + t0)/t0)^(−nu), nu per device. Reference: Nandakumar et al., ICECS 2019."""

    ages: ClassVar[bool] = True
    spreads: ClassVar[tuple[str, ...]] = ("nu_std",)
    law_limit: ClassVar[tuple[float, str] | None] = (MAX_NU, "a drift exponent")

    kind: Literal["drift"]
    name: Slug = "drift"
    nu_mean: Law
    nu_std: Law
    t0_s: Seconds
    nu_law: Literal["normal", "folded_normal"]


class LogDecay(_Term):
    """For t > 0: g + mean_per_ln_s · ln t + N(0, (std_const + std_per_ln_s · ln t)²), t in seconds."""

    ages: ClassVar[bool] = True

    kind: Literal["log_decay"]
    name: Slug = "log_decay"
    mean_per_ln_s: FiniteNumber
    std_const: NotNegativeNumber
    std_per_ln_s: FiniteNumber
    unit: ConductanceUnit

    def plain_numbers(self) -> Iterator[tuple[str, Floats]]:
        """Shift and spread at ln t = 1."""
        for key in ("mean_per_ln_s", "std_const", "std_per_ln_s"):
            yield key, np.array([getattr(self, key)])


class OneOverF(_ProfilePart):
    """1/f noise accumulated since programming: the spread grows by sqrt(ln((t + t0 + t_read)/(2 t_read)))."""

    t0_s: NotNegativeNumber
    t_read_s: Seconds


class Read(_Term):
    """Normal noise of each read, drawn anew for every inference; `relative` is of the current g."""

    place: ClassVar[Literal["first", "middle", "last"]] = "last"
    moves: ClassVar[bool] = True

    kind: Literal["read"]
    name: Slug = "read"
    sigma: Law
    unit: ReadUnit
    one_over_f: OneOverF | None = None


class TableLevel(_ProfilePart):
    """Measured mean and standard deviation of one level."""

    level: int = Field(ge=0, le=4095)
    mean: FiniteNumber
    std: NotNegativeNumber


class TableTerm(_Term):
    """Measured conductances that replace the target: N(mean, std²) of its level, or one of its raw samples.

    In unit `full_scale` 0 is g_min and 1 is g_max; in `level` units 1 is one level spacing above g_min.
    """

    place: ClassVar[Literal["first", "middle", "last"]] = "first"
    programming: ClassVar[bool] = True

    kind: Literal["table"]
    name: Slug = "table"
    unit: ConductanceUnit
    levels: tuple[TableLevel, ...] | None = Field(default=None, min_length=2, max_length=4096)
    samples: tuple[tuple[FiniteNumber, ...], ...] | None = Field(default=None, min_length=2, max_length=4096)

    @model_validator(mode="after")
    def _one_of_two(self) -> TableTerm:
        if (self.levels is None) == (self.samples is None):
            given = "neither" if self.levels is None else "both"
            raise fault("levels", f"{given} of levels and samples given; give exactly one")
        return self

    def plain_numbers(self) -> Iterator[tuple[str, Floats]]:
        """What was measured, level by level."""
        for index, row in enumerate(self.levels or ()):
            yield f"levels.{index}", np.array([row.mean, row.std])
        for index, values in enumerate(self.samples or ()):
            yield f"samples.{index}", np.array(values)


class Clip(_Term):
    """Limit g to [min, max], in the unit of the window (levels where there is none).

    With ``timed`` it limits what time does: at time 0, right after programming, it does nothing.
    """

    limits: ClassVar[bool] = True

    kind: Literal["clip"]
    name: Slug = "clip"
    min: FiniteNumber | None = None
    max: FiniteNumber | None = None
    timed: bool = False

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Clip:
        if self.min is None and self.max is None:
            raise fault("min", "neither min nor max given; give one or both")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise fault("min", f"{self.min:g} is not below max {self.max:g}; make min < max")
        return self

    @property
    def is_timed(self) -> bool:
        """Whether it limits what time does, and nothing before."""
        return self.timed

    def plain_numbers(self) -> Iterator[tuple[str, Floats]]:
        """Its ends."""
        for key in ("min", "max"):
            if getattr(self, key) is not None:
                yield key, np.array([getattr(self, key)])


NoiseTerm: TypeAlias = Annotated[
    Normal | Shared | Lognormal | StuckAt | Drift | LogDecay | Read | TableTerm | Clip,
    Field(discriminator="kind"),
]
TERM_TYPES: tuple[type[_Term], ...] = get_args(get_args(NoiseTerm)[0])
TERM_KINDS: tuple[str, ...] = tuple(get_args(kind.model_fields["kind"].annotation)[0] for kind in TERM_TYPES)


def one_over_f_factor(noise: OneOverF | None, time_s: float) -> float:
    """Growth of the read spread at `time_s` after programming; 1 without 1/f noise.

    Parameters
    ----------
    noise : OneOverF or None
        None: there is none.
    time_s : float
        Since programming, seconds, ≥ 0.

    Returns
    -------
    float
        sqrt(ln((t + t0 + t_read)/(2 t_read))), and 0 where the logarithm is negative (t + t0 < t_read).

    References
    ----------
    Nandakumar et al., ICECS 2019 (as in aihwkit pcm.py).
    """
    if noise is None:
        return 1.0
    ratio = (time_s + noise.t0_s + noise.t_read_s) / (2.0 * noise.t_read_s)
    return math.sqrt(max(math.log(ratio), 0.0))


def log_decay_at(term: LogDecay, time_s: float) -> tuple[float, float]:
    """Mean shift and standard deviation of a logarithmic decay, in the term's unit; (0, 0) at time 0.

    ``time_s`` is the time since programming, in seconds, ≥ 0; the shift is negative for a loss.
    """
    if time_s <= 0.0:
        return 0.0, 0.0
    # ln t is negative within the first second, and a fitted line may fall: a spread stops at 0.
    log_t = math.log(time_s)
    return term.mean_per_ln_s * log_t, max(term.std_const + term.std_per_ln_s * log_t, 0.0)

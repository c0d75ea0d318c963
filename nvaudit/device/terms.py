"""Noise terms: the effects that move a conductance away from its target, one class per effect.

A term only says what happens; the sampler that draws it stands in `nvaudit.perturb`.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nvaudit.device.law import LARGEST, Law, Number, fault

SLUG = r"^[a-z0-9][a-z0-9_-]{0,63}$"
Slug = Annotated[str, Field(pattern=SLUG)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=1e-9, le=LARGEST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
TileSide = Annotated[int, Field(ge=1, le=1_000_000)]

ConductanceUnit: TypeAlias = Literal["level", "full_scale", "us", "na"]
ReadUnit: TypeAlias = Literal["sigma", "level", "full_scale", "relative", "us", "na"]
NormalUnit: TypeAlias = Literal["sigma", "level", "full_scale", "relative", "us", "na", "weight_max"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class _Term(_Part):
    """What all terms share."""

    enabled: bool = True


class Normal(_Term):
    """g + N(mean, sigma²), drawn once per chip. References: T-13, T-15.

    With a `tolerance`, in the same unit and not multiplied by the knob, programming is repeated until the
    error is within ± tolerance: the normal is truncated there.
    """

    kind: Literal["normal"]
    name: Slug = "normal"
    sigma: Law
    mean: Law | None = None
    unit: NormalUnit
    tolerance: NotNegative | None = None


class Shared(_Term):
    """g + sigma · z with one z ~ N(0, 1) for all devices of a chip, of a tensor, or of a crossbar tile.

    A tile is `tile` = (rows, columns) devices of the tensor's crossbars, counted from their first row and
    column; a weight column takes slices × polarities neighbouring device columns.
    """

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


class Lognormal(_Term):
    """r · exp(θ) on the resistance or g · exp(θ) on the conductance, θ ~ N(0, sigma²).

    `preserve` says which statistic of the named quantity keeps its target: the median (θ centred at 0,
    S Table 2) or the mean (θ centred at −sigma²/2).
    """

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

    kind: Literal["drift"]
    name: Slug = "drift"
    nu_mean: Law
    nu_std: Law
    t0_s: Seconds
    nu_law: Literal["normal", "folded_normal"]


class LogDecay(_Term):
    """For t > 0: g + mean_per_ln_s · ln t + N(0, (std_const + std_per_ln_s · ln t)²), t in seconds."""

    kind: Literal["log_decay"]
    name: Slug = "log_decay"
    mean_per_ln_s: Number
    std_const: NotNegative
    std_per_ln_s: Number
    unit: ConductanceUnit


class OneOverF(_Part):
    """1/f noise accumulated since programming: the spread grows by sqrt(ln((t + t0 + t_read)/(2 t_read)))."""

    t0_s: NotNegative
    t_read_s: Seconds


class Read(_Term):
    """Normal noise of each read, drawn anew for every inference; `relative` is of the current g."""

    kind: Literal["read"]
    name: Slug = "read"
    sigma: Law
    unit: ReadUnit
    one_over_f: OneOverF | None = None


class TableLevel(_Part):
    """Measured mean and standard deviation of one level."""

    level: int = Field(ge=0, le=4095)
    mean: Number
    std: NotNegative


class Table(_Term):
    """Measured conductances that replace the target: N(mean, std²) of its level, or one of its raw samples.

    In unit `full_scale` 0 is g_min and 1 is g_max; in `level` units 1 is one level spacing above g_min.
    """

    kind: Literal["table"]
    name: Slug = "table"
    unit: ConductanceUnit
    levels: tuple[TableLevel, ...] | None = Field(default=None, min_length=2, max_length=4096)
    samples: tuple[tuple[Number, ...], ...] | None = Field(default=None, min_length=2, max_length=4096)

    @model_validator(mode="after")
    def _one_of_two(self) -> Table:
        if (self.levels is None) == (self.samples is None):
            found = "neither" if self.levels is None else "both"
            raise fault("levels", f"{found} of levels and samples given; give exactly one")
        return self


class Clip(_Term):
    """Limit g to [min, max], in the unit of the window (levels where there is none).

    With ``timed`` it limits what time does: at time 0, right after programming, it does nothing.
    """

    kind: Literal["clip"]
    name: Slug = "clip"
    min: Number | None = None
    max: Number | None = None
    timed: bool = False

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Clip:
        if self.min is None and self.max is None:
            raise fault("min", "neither min nor max given; give one or both")
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise fault("min", f"{self.min:g} is not below max {self.max:g}; make min < max")
        return self


NoiseTerm: TypeAlias = Annotated[
    Normal | Shared | Lognormal | StuckAt | Drift | LogDecay | Read | Table | Clip,
    Field(discriminator="kind"),
]
TERM_TYPES = (Normal, Shared, Lognormal, StuckAt, Drift, LogDecay, Read, Table, Clip)
TERM_KINDS = ("normal", "shared", "lognormal", "stuck_at", "drift", "log_decay", "read", "table", "clip")


def one_over_f_factor(noise: OneOverF | None, time_s: float) -> float:
    """Growth of the read spread at `time_s` after programming; 1 without 1/f noise.

    Parameters
    ----------
    noise : OneOverF or None
        The parameters of the read term.
    time_s : float
        Time since programming, seconds, ≥ 0.

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

    Parameters
    ----------
    term : LogDecay
        The decay.
    time_s : float
        Time since programming, seconds, ≥ 0.

    Returns
    -------
    mean, std : float
        Shift (negative for a loss) and spread, ≥ 0.
    """
    if time_s <= 0.0:
        return 0.0, 0.0
    log_t = math.log(time_s)
    return term.mean_per_ln_s * log_t, max(term.std_const + term.std_per_ln_s * log_t, 0.0)

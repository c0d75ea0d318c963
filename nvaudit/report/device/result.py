"""Device profiles: what the reports of `nvaudit devices` hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from nvaudit.report.header import Header
from nvaudit.report.records import Tables, flat, records_of
from nvaudit.report.sections import OperatingPointInfo, ReportPart

PROBS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the quantiles of a level."""


class DeviceLevel(ReportPart):
    """The devices that are programmed to one level."""

    level: int = Field(ge=0)
    g: float = Field(description="Conductance that is aimed at.")
    mean: float = Field(description="Conductance that the devices end up with.")
    std: float = Field(ge=0)
    quantiles: tuple[float, float, float, float, float] = Field(
        description="Of the conductance: 5, 25, 50, 75 and 95 %."
    )


class DeviceLevels(ReportPart):
    """The law of the device at the operating point, level by level; one read included."""

    unit: str = Field(description="Of the conductances: µS, nA or levels.")
    draws: int = Field(ge=1, description="Simulated devices for each level.")
    levels: tuple[DeviceLevel, ...] = Field(min_length=1)


def describe_levels(
    targets: Mapping[int, float], draws: Mapping[int, NDArray[np.float64]], unit: str
) -> DeviceLevels:
    """Sum up drawn conductances.

    Parameters
    ----------
    targets : mapping of int to float
        Conductance that each level aims at.
    draws : mapping of int to ndarray, float64, shape (device,)
        Conductances of devices of that level.
    """
    levels = []
    for level, values in draws.items():
        q = [float(value) for value in np.quantile(values, PROBS)]
        levels.append(
            DeviceLevel(
                level=level,
                g=targets[level],
                mean=float(values.mean()),
                std=float(values.std()),
                quantiles=(q[0], q[1], q[2], q[3], q[4]),
            )
        )
    return DeviceLevels(unit=unit, draws=len(next(iter(draws.values()))), levels=tuple(levels))


class SigmaRange(ReportPart):
    """The knob of a profile: how far its devices spread."""

    default: float
    min: float
    max: float
    unit: str


class ProfileSummary(ReportPart):
    """One bundled profile."""

    name: str
    description: str
    technology: str
    cell_bits: int | None = Field(description="Null: analog cells, one holds the whole code.")
    encoding: str
    sigma: SigmaRange | None = Field(description="Null: the spread is fixed.")
    unit: str = Field(
        default="level", description="Of conductances: us, na, or level where it has no window."
    )
    changes_with_time: bool = Field(default=False, description="Whether --time makes a difference.")
    read_noise: bool = Field(default=False, description="Whether every read draws noise anew.")


class ProfileList(Header):
    """The bundled profiles; written by ``nvaudit devices list``."""

    kind: Literal["devices"] = "devices"
    profiles: tuple[ProfileSummary, ...]


class LevelSpread(ReportPart):
    """One level: its conductance, its mean shift and its sigma (programming and one read) in each unit."""

    level: int = Field(ge=0)
    g: float
    shift_levels: float
    sigma_levels: float
    sigma_full_scale: float
    sigma_g: float
    sigma_relative: float | None = Field(description="Of the conductance itself; null where that is zero.")


class WeightSpread(ReportPart):
    """Sigma of a weight over all codes (rms, lowest, highest), and rms mean shift, per max|W|."""

    rms: float
    low: float
    high: float
    shift: float


class DeviceReport(Header):
    """A profile at an operating point; written by ``nvaudit devices show``.

    ``profile``, ``sigma``, ``sigma_unit``, ``level_of`` and ``time_s`` repeat the header.
    """

    kind: Literal["device"] = "device"
    device: dict[str, JsonValue] = Field(description="The full device profile.")
    operating_point: OperatingPointInfo
    profile: dict[str, JsonValue] = Field(description="The full device profile.")
    sigma: float
    sigma_unit: str
    level_of: str | None
    time_s: float
    unit: str = Field(description="Of the conductances: µS, nA or levels.")
    weight_bits: int
    slices: int
    levels: tuple[LevelSpread, ...] = Field(min_length=1)
    weight_sigma: WeightSpread
    moments: Literal["exact", "sampled"]
    laws: DeviceLevels = Field(description="Where the devices of each level end up.")


def tables(report: DeviceReport | ProfileList) -> Tables:
    """The levels of a profile, or the profiles."""
    if isinstance(report, ProfileList):
        return {"profiles": records_of(flat(profile) for profile in report.profiles)}
    return {"levels": records_of(flat(level) for level in report.levels)}

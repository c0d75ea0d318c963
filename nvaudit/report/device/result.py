"""Device profiles: what the reports of `nvaudit devices` hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from nvaudit.report.device_levels import DeviceLevels
from nvaudit.report.header import Header
from nvaudit.report.records import Tables, flat, records_of
from nvaudit.report.sections import OperatingPointInfo, ReportPart


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

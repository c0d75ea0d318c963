"""Technologies: what the reports of `nvaudit technology` hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from nvaudit.report.header import Header
from nvaudit.report.records import Tables, flat, records_of
from nvaudit.report.sections import ReportPart


class TechnologySummary(ReportPart):
    """One bundled technology."""

    name: str
    description: str
    node_nm: float
    adc: str = Field(description="Kind of ADC.")
    adc_bits: tuple[int, int] = Field(description="Least and most bits that are known.")
    input_mode: str
    missing: tuple[str, ...] = Field(description="Blocks that it does not have: not modelled.")


class TechnologyList(Header):
    """The bundled technologies; written by ``nvaudit technology list``."""

    kind: Literal["technologies"] = "technologies"
    technologies: tuple[TechnologySummary, ...]


class TechnologyNumber(ReportPart):
    """One number of a technology."""

    path: str = Field(description="Where it stands, as for --technology-set.")
    value: float
    unit: str
    low: float = Field(description="The least that it may be set to.")
    high: float = Field(description="The greatest.")
    evidence: str
    source: str
    note: str | None = None


class PeakInfo(ReportPart):
    """A part of the chip at work all the time: what it takes, how large it is, and what it does."""

    name: str
    power_w: float = Field(ge=0)
    area_m2: float = Field(ge=0)
    operations_per_s: float = Field(ge=0, description="2 × multiply-accumulates.")
    operations_per_j: float = Field(ge=0)


class TechnologyReport(Header):
    """A technology; written by ``nvaudit technology show``."""

    kind: Literal["technology"] = "technology"
    technology: dict[str, JsonValue] = Field(description="The full profile.")
    summary: TechnologySummary
    numbers: tuple[TechnologyNumber, ...]
    peak: tuple[PeakInfo, ...] = Field(description="PE, tile and chip, all in use.")
    peak_at: str = Field(description="What the peak is of, in words.")


def tables(report: TechnologyReport | TechnologyList) -> Tables:
    """The numbers of a technology, or the technologies."""
    if isinstance(report, TechnologyList):
        return {"technologies": records_of(flat(one) for one in report.technologies)}
    return {
        "numbers": records_of(flat(one) for one in report.numbers),
        "peak": records_of(flat(one) for one in report.peak),
    }

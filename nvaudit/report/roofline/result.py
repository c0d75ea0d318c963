"""The roofline: what each number of levels reaches, what limits it, and what it costs (S Fig. 10)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from nvaudit.report.cases import kpp_numbers, kpp_text
from nvaudit.report.codes import CodesInfo
from nvaudit.report.comparison.result import ModelSize
from nvaudit.report.cost.result import CostFigures
from nvaudit.report.header import Header
from nvaudit.report.mapped import MappedShare
from nvaudit.report.records import Check, Tables, flat, records_of
from nvaudit.report.roofline.limits import LimitedBy, Range, range_of_kpp, range_of_mean
from nvaudit.report.sections import (
    DataInfo,
    Hashes,
    MetricInfo,
    ModelInfo,
    OperatingPointInfo,
    ReportPart,
    Run,
    TimeBox,
)
from nvaudit.report.wording import (
    kpp_name,
)
from nvaudit.spec import RooflineMeasure
from nvaudit.stats.kpp import KppResult

LIMIT_WORDS: dict[LimitedBy, str] = {
    "device": "device limits", "adc": "ADC limits", "both": "device and ADC limit",
    "neither": "neither limits",
}  # fmt: skip

ALONE_WORDS: dict[LimitedBy, str] = {**LIMIT_WORDS, "neither": "the device does not limit"}
"""Where there are no converters."""


class ChipsPoint(ReportPart):
    """What the simulated chips of one number of levels reach."""

    mean: float
    mean_error: float | None = Field(description="Standard error of the mean; null for one chip.")
    std: float
    kpp: KppResult
    trials: int = Field(ge=1)
    images_evaluated: int = Field(ge=0)
    images_exhaustive: int = Field(ge=0)
    exact: bool = Field(description="The KPP equals the one of an exhaustive evaluation.")

    def at(self, measure: RooflineMeasure) -> Range:
        """Give the value that the verdict reads, with its interval."""
        if measure == "kpp":
            return range_of_kpp(self.kpp)
        return range_of_mean(self.mean, self.mean_error, self.kpp.confidence)


class LevelResult(ReportPart):
    """One number of levels per cell."""

    levels: int = Field(ge=2)
    cell_bits: int = Field(ge=1)
    slices: int = Field(ge=1, description="Cells per weight and polarity; the most of any tensor.")
    quantised: float = Field(description="Neither device variation nor converters.")
    device: ChipsPoint = Field(description="Device variation, ideal converters.")
    adc: float | None = Field(description="Converters, ideal devices; null without converters.")
    both: ChipsPoint | None = Field(description="Device variation and converters, the same chips.")
    limit: LimitedBy
    settled: bool = Field(description="Both ends of the interval give the same limit.")
    verdict: str = Field(description="The limit in words.")
    size: ModelSize
    share_converted: float | None = Field(
        default=None, description="Share of the mapped weights that go through converters; null without."
    )
    codes: CodesInfo | None = Field(default=None, description="Null: weights are slices.")
    cost: CostFigures | None = Field(default=None, description="Null: no --technology was given.")
    operating_point: OperatingPointInfo
    run: Run = Field(description="The specification of the audit without converters.")
    hashes: Hashes
    seconds: float
    notes: tuple[str, ...]
    events: tuple[str, ...]

    @property
    def realistic(self) -> ChipsPoint:
        """With everything that is modelled."""
        return self.device if self.both is None else self.both


class SkippedLevel(ReportPart):
    """A number of levels that the profile cannot do."""

    levels: int
    cell_bits: int
    reason: str


class RooflineReport(Header):
    """A model on one device, by the number of levels per cell."""

    kind: Literal["roofline"] = "roofline"
    metric: str
    metric_info: MetricInfo
    nominal: float = Field(description="Of the unmodified model.")
    device: dict[str, JsonValue]
    converters: dict[str, JsonValue] | None = Field(
        description="The options of the converters, by name on the command line; null without converters."
    )
    percentile: float
    confidence: float
    rank_by: RooflineMeasure = Field(description="What the verdicts and the best number of levels go by.")
    margin: float = Field(description="Losses up to it do not count, in the metric's unit.")
    levels: tuple[LevelResult, ...] = Field(description="Ascending.")
    skipped: tuple[SkippedLevel, ...]
    best: int = Field(description="Number of levels with the best realistic value.")
    cheapest: int = Field(description="Fewest devices within the margin of the best.")
    mapped: MappedShare | None = Field(
        default=None, description="How much of the model's products is on the array, the same at all levels."
    )
    time_boxed: TimeBox | None = Field(default=None, description="Null: the time was not used up.")
    data: DataInfo
    model: ModelInfo


def tables(report: RooflineReport) -> Tables:
    """The numbers of levels, and those that were left out."""
    return {
        "levels": records_of(
            {
                **flat(level, ("run", "hashes", "notes", "events", "codes")),
                "code": None if level.codes is None else level.codes.name,
            }
            for level in report.levels
        ),
        "skipped": records_of(flat(level) for level in report.skipped),
    }


def checks(report: RooflineReport) -> list[Check]:
    """Record what every number of levels reaches; nothing is demanded of them."""
    return [
        Check(
            f"{level.levels} levels per cell: {kpp_name(report.percentile)} of {report.metric}",
            None,
            (level.verdict, kpp_text(level.realistic.kpp, report.metric_info.unit)),
            kpp_numbers(level.realistic.kpp)
            | {"chips": level.realistic.trials, "mean": level.realistic.mean, "devices": level.size.devices},
        )
        for level in report.levels
    ]


def measure_name(report: RooflineReport) -> str:
    """Name what the verdicts go by, e.g. ``KPP 1 %``."""
    return kpp_name(report.percentile) if report.rank_by == "kpp" else "mean"


def margin_text(report: RooflineReport) -> str:
    """Show the margin, a fraction in points."""
    if report.metric_info.unit != "fraction":
        return f"{report.margin:.4g}"
    points = f"{100 * report.margin:.4g}"
    return f"{points} point" if points == "1" else f"{points} points"

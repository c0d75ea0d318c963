"""The report of a calibration: one chip that was corrected digitally."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from nvaudit.report.document import Bullets, Document, Facts, Hero, KeyFigure, Number, Table, short
from nvaudit.report.document import Section as Part
from nvaudit.report.header import Header
from nvaudit.report.records import Tables, flat, records_of
from nvaudit.report.sections import ReportPart, Run
from nvaudit.report.wording import count_text, difference_text, value_text


class CalibratedLayer(ReportPart):
    """What was corrected of one layer, or one normalisation."""

    name: str
    into: Literal["gain and offset", "normalisation"]
    channels: int | None
    gain: float | None = Field(description="Mean over the channels.")
    before: float | None = Field(description="Error of its results, rms over the spread of the ideal ones.")
    after: float | None = Field(description="The same, corrected.")
    operations: int | None = Field(description="Multiplications and additions more, for each sample.")


class CalibrateReport(Header):
    """One chip, corrected; written by ``nvaudit calibrate``."""

    kind: Literal["calibrate"] = "calibrate"
    metric: str
    device: dict[str, JsonValue]
    run: Run
    chip: str
    source: str
    out: str
    method: Literal["least_squares", "moments"]
    samples: int = Field(description="Unlabelled samples that it is corrected by; not scored.")
    unit: str
    scored: int = Field(description="Samples of the metric.")
    ideal: float
    quantised: float
    before: float
    after: float
    layers: tuple[CalibratedLayer, ...]
    left: dict[str, str] = Field(description="Weights whose results are as the chip makes them, and why.")

    @property
    def operations(self) -> int | None:
        """Digital operations more, for each sample; None where they were not counted."""
        known = [layer.operations for layer in self.layers if layer.operations is not None]
        return sum(known) if len(known) == len(self.layers) else None


def tables(report: CalibrateReport) -> Tables:
    """Every layer."""
    return {"layers": records_of(flat(layer) for layer in report.layers)}


def calibrate_document(report: CalibrateReport) -> Document:
    """Say what the chip reaches before and after, and what was corrected."""
    unit = report.unit
    gained = difference_text(report.after - report.before, unit)
    sections = [Part("layers", "Layers", (_layers(report),))]
    if report.left:
        rows = tuple(f"{name}: {why}" for name, why in report.left.items())
        sections.append(Part("left", "Not corrected", (Bullets(rows),)))
    if report.notes:
        sections.append(Part("notes", "Notes", (Bullets(report.notes),)))
    facts = (
        ("Chip", f"{report.chip} of {report.source}"),
        (
            "Corrected by",
            f"{count_text(report.samples, 'unlabelled sample')}, {report.method.replace('_', ' ')}",
        ),
        ("Scored on", count_text(report.scored, "sample")),
        ("Written to", report.out),
        ("nvaudit", report.nvaudit_version),
    )
    return Document(
        title=report.headline,
        subject=report.chip,
        subtitle=f"corrected on {short(report.device_name)}",
        hero=Hero(
            role="none", word="", title=f"{report.metric} {gained}", lines=(),
            numbers=(
                KeyFigure("ideal", value_text(report.ideal, unit), "the unmodified model"),
                KeyFigure("quantised", value_text(report.quantised, unit), "without noise"),
                KeyFigure("as it is", value_text(report.before, unit), "the chip"),
                KeyFigure("corrected", value_text(report.after, unit), gained, main=True),
                *(() if report.operations is None else (
                    KeyFigure("operations", f"{report.operations:,}", "more for each sample, digital"),)),
            ),
        ),
        sections=(*sections, Part("record", "How it was corrected", (Facts(facts),))),
        version=report.nvaudit_version,
    )  # fmt: skip


def _layers(report: CalibrateReport) -> Table:
    def number(value: float | None) -> Number:
        return Number(value, "" if value is None else f"{value:.3g}")

    rows = tuple(
        (
            short(one.name),
            one.into,
            number(one.channels),
            number(one.gain),
            number(one.before),
            number(one.after),
        )
        for one in report.layers
    )
    which = (
        "each after those before it"
        if report.method == "least_squares"
        else "of the chip as it is, and of all corrected"
    )
    caption = f"Errors of what layers make, over the spread of the ideal results; {which}."
    columns = ("layer", "corrected by", "channels", "gain", "error before", "after")
    return Table("layers", caption, columns, rows, numeric=(2, 3, 4, 5), sortable=True)

"""What is said of technologies: of the bundled ones, and of one."""

from __future__ import annotations

from nvaudit.report.document import (
    Bullets,
    Cell,
    Document,
    Facts,
    Hero,
    KeyFigure,
    Number,
    Section,
    Table,
    short,
)
from nvaudit.report.technology.result import TechnologyList, TechnologyNumber, TechnologyReport
from nvaudit.report.wording import si_text


def technologies_document(report: TechnologyList) -> Document:
    """List the bundled technologies."""
    rows: list[tuple[Cell, ...]] = [
        (
            one.name,
            Number(one.node_nm, f"{one.node_nm:g} nm"),
            f"{one.adc}, {one.adc_bits[0]} to {one.adc_bits[1]} bits",
            one.input_mode.replace("_", "-"),
            ", ".join(one.missing) or "nothing",
        )
        for one in report.technologies
    ]
    table = Table(
        "technologies", "`nvaudit technology show NAME` has every number with its source.",
        ("technology", "node", "ADC", "inputs", "not modelled"), tuple(rows), all_rows=True,
    )  # fmt: skip
    return Document(
        title=report.headline,
        subject="Technologies",
        subtitle="bundled with nvaudit",
        hero=Hero(role="none", word="", title=report.headline, lines=(), numbers=()),
        sections=(Section("technologies-section", "Technologies", (table,)),),
        version=report.nvaudit_version,
    )


def technology_document(report: TechnologyReport) -> Document:
    """Say what a technology is: every number with where it comes from."""
    summary = report.summary
    peak: list[tuple[Cell, ...]] = [
        (
            one.name,
            Number(one.power_w, si_text(one.power_w, "W")),
            Number(one.area_m2, f"{1e6 * one.area_m2:.4g}"),
            Number(one.operations_per_s, f"{one.operations_per_s * 1e-12:.4g}"),
            Number(one.operations_per_j, f"{one.operations_per_j * 1e-12:.4g}"),
        )
        for one in report.peak
    ]
    sources = list(dict.fromkeys(map(_source, report.numbers)))
    rows: list[tuple[Cell, ...]] = [
        (
            one.path,
            Number(one.value, f"{one.value:.6g} {one.unit}"),
            f"{one.low:.4g} … {one.high:.4g}",
            one.evidence,
            f"[{sources.index(_source(one)) + 1}]",
        )
        for one in report.numbers
    ]
    sections = (
        Section("peak", "All in use", (
            Table("peak-table", f"{report.peak_at}.", ("part", "power", "area, mm²", "TOPS", "TOPS/W"),
                  tuple(peak), numeric=(1, 2, 3, 4), all_rows=True),
        )),
        Section("numbers", "Numbers", (
            Table("numbers-table", "Every number, its valid range, and where it comes from.",
                  ("number", "value", "valid", "evidence", "source"), tuple(rows), numeric=(1,),
                  sortable=True, choices=3, all_rows=True),
            Bullets(tuple(f"[{number}] {text}" for number, text in enumerate(sources, 1))),
        )),
        Section("record", "The profile", (Facts((
            ("Description", summary.description),
            ("Valid for", str(report.technology.get("valid_range"))),
            ("Not modelled", ", ".join(summary.missing) or "nothing"),
            ("nvaudit", report.nvaudit_version),
        )),)),
    )  # fmt: skip
    return Document(
        title=report.headline,
        subject=short(summary.name),
        subtitle=f"{summary.node_nm:g} nm, inputs {summary.input_mode.replace('_', '-')}",
        hero=Hero(
            role="none", word="", title=summary.description, lines=(),
            numbers=tuple(
                KeyFigure(one.name, si_text(one.power_w, "W"), f"{1e6 * one.area_m2:.4g} mm², all in use",
                          main=number == 0)
                for number, one in enumerate(report.peak)
            ),
        ),
        sections=sections,
        version=report.nvaudit_version,
    )  # fmt: skip


def _source(number: TechnologyNumber) -> str:
    return number.source if number.note is None else f"{number.source}; {number.note}"

"""Which options have values from the configuration file: what the report of `nvaudit config` holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nvaudit.report.document import Block, Bullets, Document, Hero, Paragraph, Table
from nvaudit.report.document import Section as Part
from nvaudit.report.header import Header
from nvaudit.report.records import Tables, flat, records_of
from nvaudit.report.sections import ReportPart
from nvaudit.report.wording import count_text


class OptionValue(ReportPart):
    """An option of a command, its value where nothing is typed, and where that comes from."""

    command: str
    option: str = Field(description="Its key in the file.")
    value: str
    source: str = Field(description="The file with the line, the variable of the environment, or default.")


class ConfigReport(Header):
    """Options and where their values come from; written by ``nvaudit config``."""

    kind: Literal["config"] = "config"
    file: str | None = Field(description="The configuration file; null: there is none.")
    options: tuple[OptionValue, ...]
    audits: tuple[str, ...] = Field(
        description="Names of the audits of the matrix of the file, in their order."
    )
    skipped: tuple[str, ...] = Field(default=(), description="Those of it that skip = true leaves out.")


def config_report(
    version: str,
    file: str | None,
    options: tuple[OptionValue, ...],
    audits: tuple[str, ...],
    skipped: tuple[str, ...] = (),
) -> ConfigReport:
    """Put a report together; the line that stands first is made here."""
    # A line at the top is for every command that has the option, and still one line of the file.
    ours = len({(option.source, option.option) for option in options if _is_of(option.source, file)})
    headline = f"{file}: {count_text(ours, 'option')}, {count_text(len(audits), 'audit')} of `nvaudit check`"
    if file is None:
        headline = (
            "No configuration file: no nvaudit.toml, and no pyproject.toml with [tool.nvaudit], here or above"
        )
    return ConfigReport(
        nvaudit_version=version, headline=headline, file=file, options=options, audits=audits, skipped=skipped
    )


def _is_of(source: str, file: str | None) -> bool:
    return source == file or source.startswith(f"{file}, line ")


def config_document(report: ConfigReport) -> Document:
    """List the options of every command, and the audits of the matrix."""
    sections = []
    for command in dict.fromkeys(option.command for option in report.options):
        rows = tuple(
            (option.option, option.value, option.source)
            for option in report.options
            if option.command == command
        )
        table = Table(f"options-{command.replace(' ', '-')}", "Values where nothing is typed.",
                      ("option", "value", "from"), rows, all_rows=True)  # fmt: skip
        sections.append(Part(f"command-{command.replace(' ', '-')}", f"nvaudit {command}", (table,)))
    if report.audits:
        blocks: tuple[Block, ...] = (Bullets(report.audits),)
        if report.skipped:
            blocks += (Paragraph(f"Left out by skip = true: {'; '.join(report.skipped)}."),)
        sections.append(Part("matrix", "The audits of nvaudit check", blocks))
    if not sections:
        sections.append(Part("none", "Options", (Paragraph("Every option has its own default."),)))
    return Document(
        title=report.headline,
        subject=report.file or "no file",
        subtitle="values of options where nothing is typed",
        hero=Hero("none", "", report.headline, (), ()),
        sections=tuple(sections),
        version=report.nvaudit_version,
    )


def tables(report: ConfigReport) -> Tables:
    """The options."""
    return {"options": records_of(flat(option) for option in report.options)}

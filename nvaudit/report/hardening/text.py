"""A hardening on a terminal: the result first, then before and after, then how it was done."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from nvaudit.report.crossbar_text import crossbar_section
from nvaudit.report.groups import zero_groups_section
from nvaudit.report.hardening.result import HardenReport
from nvaudit.report.hardening.words import (
    CANDIDATES_NOTES,
    attempt_columns,
    attempt_rows,
    attempts_note,
    candidate_columns,
    candidate_rows,
    epoch_columns,
    epoch_rows,
    interval_lines,
    kept_text,
    run_lines,
    side_rows,
    stages_text,
    through_lines,
    training_text,
)
from nvaudit.report.mapped_text import share_warning_lines
from nvaudit.report.terminal import Kind, heading, sentence, show, table
from nvaudit.report.verify.text import curve_and_tensors
from nvaudit.report.wording import count_text

_MOST_EPOCHS = 12


def render_hardening(report: HardenReport, console: Console) -> None:
    """Print a hardening for a person; the first line is the headline.

    Parameters
    ----------
    report : HardenReport
    console : rich.console.Console
    """
    width = console.width
    parts = [
        sentence(report.headline, width, style="bold"),
        *share_warning_lines(report.mapped, width),
        *_sides(report, width),
        *zero_groups_section(report.zero_groups, width),
        *crossbar_section(report.crossbar, width),
        *_training(report, width),
        *_verify(report, width),
        *_basis(report, width),
    ]
    show(console, parts)


def _sides(report: HardenReport, width: int) -> Iterable[Text]:
    yield heading(f"{report.metric} on the same {count_text(report.difference.chips, 'chip')}", width)
    columns: list[tuple[str, Kind]] = [("", "left"), ("before", "right"), ("after", "right"), ("", "right")]
    yield table(columns, side_rows(report), width, "  ")
    for line in interval_lines(report):
        yield sentence(line, width, "  ", "    ")


def _training(report: HardenReport, width: int) -> Iterable[Text]:
    found = report.training
    if found is None:
        return
    yield heading("Training", width)
    if found.candidates:
        kinds: tuple[Kind, ...] = ("left", "right", "right", "right", "right", "left")
        columns = list(zip(candidate_columns(report), kinds, strict=True))
        yield table(columns, candidate_rows(report, found), width, "  ")
        yield sentence(CANDIDATES_NOTES[found.kept_by or "roughness"], width, "  ", "    ")
    stages = stages_text(found)
    if stages is not None:
        yield sentence(f"{stages}.", width, "  ", "    ")
    for line in (training_text(report, found), *through_lines(found.hardware_aware)):
        yield sentence(line, width, "  ", "    ")
    rows = epoch_rows(report, found)
    step = max(1, -(-len(rows) // _MOST_EPOCHS))
    shown = [row for i, row in enumerate(rows) if (i + 1) % step == 0 or i + 1 == len(rows)]
    if shown:
        first, *others = epoch_columns(found)
        sides: list[tuple[str, Kind]] = [(first, "right"), *((name, "left") for name in others)]
        yield table(sides, shown, width, "  ")
    tried = attempt_rows(report, found)
    if tried:
        ends: tuple[Kind, ...] = ("left", "right", "right", "right", "right", "left")
        yield table(list(zip(attempt_columns(report), ends, strict=True)), tried, width, "  ")
        yield sentence(attempts_note(found), width, "  ", "    ")
    kept = kept_text(report, found)
    if kept is not None:
        yield sentence(f"{kept}.", width, "  ", "    ")


def _verify(report: HardenReport, width: int) -> Iterable[Text]:
    plan = report.verify_plan
    if plan is not None:
        yield heading("Write-verify plan of the hardened model", width)
        yield sentence(plan.headline, width, "  ", "    ")
        yield from curve_and_tensors(plan, width)


def _basis(report: HardenReport, width: int) -> Iterable[Text]:
    parts = (("Events", report.events), ("Notes", report.notes), ("How it was run", run_lines(report)))
    for title, lines in parts:
        if lines:
            yield heading(title, width)
            for line in lines:
                yield sentence(line, width, "  ", "    ")

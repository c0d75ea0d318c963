"""A remapping on a terminal: what was gained, what was tried, what became of every weight."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from nvaudit.report.mapped import coverage_text
from nvaudit.report.mapped_text import share_warning_lines
from nvaudit.report.remap.result import RemapReport
from nvaudit.report.remap.words import (
    PAIR_COLUMNS,
    TENSOR_COLUMNS,
    pair_rows,
    step_columns,
    step_row,
    tensor_row,
)
from nvaudit.report.terminal import Kind, heading, sentence, show, table


def render_remap(report: RemapReport, console: Console) -> None:
    """Print a remapping for a person; the first line is the headline.

    Parameters
    ----------
    report : RemapReport
    console : rich.console.Console
        Nothing is cut at any width; a console that cannot encode Unicode gets ASCII.
    """
    width = console.width
    parts = [
        sentence(report.headline, width, style="bold"),
        *share_warning_lines(report.mapped, width),
        *_pair(report, width),
        *_steps(report, width),
        *_tensors(report, width),
        *(sentence(note, width, "  ", "    ") for note in report.notes),
    ]
    show(console, parts)


def _pair(report: RemapReport, width: int) -> Iterable[Text]:
    rows = pair_rows(report)
    if rows and report.difference is not None:
        kinds: tuple[Kind, ...] = ("left", "right", "right", "right", "fold")
        yield heading(f"The same {report.difference.chips:,} chips before and after", width)
        yield table(list(zip(PAIR_COLUMNS, kinds, strict=True)), rows, width, "  ")


def _steps(report: RemapReport, width: int) -> Iterable[Text]:
    kinds: tuple[Kind, ...] = ("left", "fold", "right", "right", "right", "right", "right", "fold")
    rows = [step_row(step, report.unit) for step in report.steps]
    yield heading("Tried on the calibration images", width)
    yield sentence(report.calibration, width, "  ")
    yield table(list(zip(step_columns(report), kinds, strict=True)), rows, width, "  ")
    for name in report.not_tried:
        yield sentence(f"not tried: {name}", width, "  ", "    ")


def _tensors(report: RemapReport, width: int) -> Iterable[Text]:
    kinds: tuple[Kind, ...] = ("fold", "left", "right", "fold", "fold")
    rows = [tensor_row(tensor) for tensor in report.tensors]
    yield heading("Weights", width)
    yield table(list(zip(TENSOR_COLUMNS, kinds, strict=True)), rows, width, "  ")
    if report.mapped is not None:
        yield sentence(f"On the array: {coverage_text(report.mapped)}", width, "  ", "    ")

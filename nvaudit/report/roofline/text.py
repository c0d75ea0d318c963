"""A roofline on a terminal: the best number of levels first, then the table, the verdicts, and a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from rich.console import Console
from rich.text import Text

from nvaudit.report.mapped_text import share_warning_lines
from nvaudit.report.roofline.result import LevelResult, RooflineReport
from nvaudit.report.roofline.words import (
    SIZE_COLUMNS,
    cells,
    cheaper_text,
    columns,
    condition_lines,
    remarks,
    size_cells,
    skipped_lines,
)
from nvaudit.report.terminal import Kind, heading, sentence, show, table
from nvaudit.report.wording import value_text

_WIDE = 180
"""Columns from which everything about a level stands in one line."""

_BAR_COLUMNS = 60
_ROUNDING = 1e-12

_QUANTISED, _ADC, _MEAN, _KPP = "|", "▲", "·", "█"


def render_roofline(report: RooflineReport, console: Console) -> None:
    """Print a roofline for a person; the first line is the headline.

    Parameters
    ----------
    report : RooflineReport
    console : rich.console.Console
        Nothing is cut at any width; a console that cannot encode Unicode gets ASCII.
    """
    width = console.width
    parts = [
        sentence(report.headline, width, style="bold"),
        *share_warning_lines(report.mapped, width),
        *_table(report, width),
        *_verdicts(report, width),
        *_picture(report, width),
        *_rest(report, width),
    ]
    show(console, parts)


def _table(report: RooflineReport, width: int) -> Iterator[Text]:
    cheaper = cheaper_text(report)
    if cheaper is not None:
        yield sentence(cheaper, width)
    unit = report.metric_info.unit
    yield heading(f"{report.metric} by levels per cell; ideal {value_text(report.nominal, unit)}", width)
    head: list[tuple[str, Kind]] = [("levels", "right")]
    names = [*columns(report), *SIZE_COLUMNS]
    rows = [[*cells(report, level), *size_cells(level)] for level in report.levels]
    half = len(columns(report)) if report.converters is None else len(columns(report)) // 2
    cuts = [0, len(names)] if width >= _WIDE else [*range(0, len(columns(report)) + 1, half), len(names)]
    for start, stop in pairwise(cuts):
        if start:
            yield Text()
        found: list[tuple[str, Kind]] = [(name, "right") for name in names[start:stop]]
        some = [[str(level.levels), *row[start:stop]] for level, row in zip(report.levels, rows, strict=True)]
        yield table([*head, *found], some, width, "  ")


def _verdicts(report: RooflineReport, width: int) -> Iterator[Text]:
    yield heading("What limits", width)
    for level in report.levels:
        yield sentence(f"{level.levels} levels: {level.verdict}", width, "  ", "    ")
    for line in (*skipped_lines(report), *remarks(report)):
        yield sentence(line, width, "  ", "    ")


def _picture(report: RooflineReport, width: int) -> Iterator[Text]:
    unit = report.metric_info.unit
    yield heading("Picture", width)
    longest = max(len(str(level.levels)) for level in report.levels)
    low, high = _range(report.levels)
    lines = bar_lines(report.levels, min(_BAR_COLUMNS, width - longest - 4))
    for level, line in zip(report.levels, lines, strict=True):
        yield Text(f"  {level.levels:>{longest}}  {line}".rstrip())
    adc = "" if report.converters is None else f", {_ADC} with ADC alone"
    what = "" if report.converters is None else ", both with device variation and ADC"
    yield sentence(
        f"from {value_text(low, unit)} to {value_text(high, unit)}: {_QUANTISED} quantised{adc}, {_MEAN} "
        f"mean of the chips, {_KPP} KPP{what}",
        width,
        "  ",
        "    ",
    )


def _marks(level: LevelResult) -> list[tuple[float, str]]:
    """Give what is drawn of a level; later marks stand before earlier ones."""
    found = [(level.quantised, _QUANTISED)]
    if level.adc is not None:
        found.append((level.adc, _ADC))
    return [*found, (level.realistic.mean, _MEAN), (level.realistic.kpp.value, _KPP)]


def _range(levels: Iterable[LevelResult]) -> tuple[float, float]:
    values = [value for level in levels for value, _ in _marks(level)]
    return min(values), max(values)


def bar_lines(levels: Iterable[LevelResult], size: int) -> list[str]:
    """Draw every level on a common scale.

    Parameters
    ----------
    levels : iterable of LevelResult
    size : int
        Columns of the drawing; at least 10 are used.

    Returns
    -------
    list of str
        One line for each level.
    """
    levels = tuple(levels)
    size = max(size, 10)
    low, high = _range(levels)
    flat = high - low <= _ROUNDING * max(abs(low), abs(high))
    lines = []
    for level in levels:
        line = [" "] * size
        for value, mark in _marks(level):
            line[0 if flat else round((value - low) / (high - low) * (size - 1))] = mark
        lines.append("".join(line))
    return lines


def _rest(report: RooflineReport, width: int) -> Iterator[Text]:
    own = [
        f"{level.levels} levels: {text}" for level in report.levels for text in (*level.notes, *level.events)
    ]
    total = report.timing.get("total")
    version = f"nvaudit {report.nvaudit_version}" + ("" if total is None else f", {total:.3g} s")
    for title, lines in (
        ("Notes", [*report.notes, *own]),
        ("How it was run", [*condition_lines(report), version]),
    ):
        if lines:
            yield heading(title, width)
            for line in lines:
                yield sentence(line, width, "  ", "    ")

"""A roofline as one page that opens offline."""

from __future__ import annotations

from nvaudit.report.page.content import (
    Big,
    Block,
    Bullets,
    Cell,
    Figure,
    Hero,
    Number,
    Page,
    Section,
    Table,
    file_name,
    short,
)
from nvaudit.report.page.share import share_blocks, share_numbers, warnings
from nvaudit.report.plots.figures import figure_data
from nvaudit.report.plots.roofline import roofline_figure
from nvaudit.report.roofline.result import LevelResult, RooflineReport
from nvaudit.report.roofline.words import (
    ALONE_WORDS,
    LIMIT_WORDS,
    SIZE_COLUMNS,
    cells,
    cheaper_text,
    columns,
    condition_lines,
    measure_name,
    remarks,
    size_cells,
    skipped_lines,
)
from nvaudit.report.wording import LABEL_FREE_CHIPS, count_text, interval_text, value_text


def roofline_page(report: RooflineReport) -> Page:
    """Work out what stands on the page of a roofline.

    Parameters
    ----------
    report : RooflineReport
    """
    name = file_name(report.model.path)
    return Page(
        title=report.headline,
        subject=name,
        subtitle=f"{report.metric} on {short(report.device)} by the number of levels per cell",
        hero=_hero(report),
        sections=(_roofline(report), _verdicts(report), _cost(report), _record(report)),
        version=report.nvaudit_version,
    )


def _hero(report: RooflineReport) -> Hero:
    unit = report.metric_info.unit
    words = LIMIT_WORDS if report.converters is not None else ALONE_WORDS
    numbers = []
    for level in report.levels[:6]:
        found = level.realistic.at(report.rank_by)
        note = f"{measure_name(report)}, {interval_text(found.low, found.high, unit)}; {words[level.limit]}"
        value = value_text(found.value, unit)
        numbers.append(Big(f"{level.levels} levels", value, note, main=level.levels == report.best))
    lines = (f"{report.headline}.", *(f"{text}." for text in (cheaper_text(report),) if text is not None))
    return Hero(
        role="none",
        word="",
        title=f"{report.best} levels per cell are best by {measure_name(report)}",
        lines=lines,
        numbers=(*numbers, *share_numbers(report.mapped)),
        warning=warnings(LABEL_FREE_CHIPS if report.label_free else None, report.mapped),
    )


def _roofline(report: RooflineReport) -> Section:
    unit, heads = report.metric_info.unit, columns(report)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (Number(level.levels, str(level.levels)), *cells(report, level)) for level in report.levels
    )
    table = Table(
        "levels", f"What each number of levels reaches; ideal {value_text(report.nominal, unit)}.",
        ("levels", *_distinct(heads)), rows, numeric=(0, *range(1, len(heads) + 1)),
    )  # fmt: skip
    ceilings = "the quantised model" if report.converters is None else "the quantised model and the ADC"
    caption = (
        f"{report.metric} over the levels per cell: the ceilings of {ceilings}, and what the chips reach; "
        f"the bands are the intervals of {measure_name(report)}. The numbers are those of the table."
    )
    figure = Figure("roofline", caption, figure_data(roofline_figure(report)), tall=True)
    return Section("roofline-section", "Roofline", (figure, table))


def _distinct(heads: list[str]) -> tuple[str, ...]:
    """Tell the two intervals apart."""
    last = len(heads) - 1
    more = heads.count("interval") > 1
    return tuple(
        f"{'both' if i == last else 'device'}: {name}" if more and name == "interval" else name
        for i, name in enumerate(heads)
    )


def _verdicts(report: RooflineReport) -> Section:
    lines = [f"{level.levels} levels: {level.verdict}." for level in report.levels]
    more = [f"{text}." for text in (*skipped_lines(report), *remarks(report))]
    return Section("limits", "What limits", (Bullets(tuple(lines)), Bullets(tuple(more))))


def _cost(report: RooflineReport) -> Section:
    def row(level: LevelResult) -> tuple[Cell, ...]:
        size, texts = level.size, size_cells(level)
        values = (level.slices, size.devices, size.crossbars, level.operating_point.sigma, level.seconds)
        numbers = (Number(value, text) for value, text in zip(values, texts, strict=True))
        return (Number(level.levels, str(level.levels)), *numbers)

    rows = tuple(row(level) for level in report.levels)
    table = Table(
        "cost", "What each number of levels takes.", ("levels", *SIZE_COLUMNS), rows,
        numeric=tuple(range(len(SIZE_COLUMNS) + 1)), sortable=True,
    )  # fmt: skip
    return Section("cost-section", "Devices and crossbars", (table, *share_blocks(report.mapped)))


def _record(report: RooflineReport) -> Section:
    lines = [*condition_lines(report), *report.notes]
    for level in report.levels:
        lines += [f"{level.levels} levels: {text}" for text in (*level.notes, *level.events)]
    hashes = report.levels[0].hashes
    lines += [f"SHA-256 of the model: {hashes.model}", f"SHA-256 of the data: {hashes.data}"]
    lines.append(f"{count_text(len(report.levels), 'number')} of levels in {report.timing['total']:.3g} s")
    blocks: tuple[Block, ...] = (Bullets(tuple(lines)),)
    return Section("record", "How it was run", blocks)

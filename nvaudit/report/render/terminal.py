"""A document on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.text import Text

from nvaudit.report.document import (
    Block,
    Bullets,
    Code,
    Document,
    Facts,
    Figure,
    Hero,
    Paragraph,
    Table,
    cell_text,
    for_medium,
)
from nvaudit.report.terminal import Kind, heading, sentence, show, stacked, table

_STYLE = {"pass": "bold green", "fail": "bold red", "undecided": "bold yellow", "none": "bold"}
_MAX_ROWS = 12
_INDENT, _HANGING = "  ", "    "


def print_document(document: Document, console: Console) -> None:
    """Print a document for a person; the first line is its headline.

    Parameters
    ----------
    document : Document
    console : rich.console.Console
        Nothing is cut at any width; colour never carries meaning by itself; a console that cannot encode
        Unicode gets ASCII.
    """
    width = console.width
    parts = [sentence(document.title, width, style="bold"), *_hero(document.hero, width)]
    for section in for_medium(document.sections, "terminal"):
        blocks = [part for block in for_medium(section.blocks, "terminal") for part in _block(block, width)]
        if blocks:
            parts += [heading(section.title, width), *blocks]
    show(console, parts)


def _hero(hero: Hero, width: int) -> Iterator[Text]:
    """What must be known first, the verdict with its reasons, then the numbers that stand out."""
    for text in hero.warnings:
        yield sentence(f"WARNING: {text}", width, hanging=_INDENT, style="bold yellow")
    if hero.role != "none":
        line = sentence(f"{hero.word}  {hero.title}", width, hanging=_INDENT)
        line.stylize(_STYLE[hero.role], 0, len(hero.word))
        yield Text()
        yield line
    for text in hero.lines:
        yield sentence(text, width, _INDENT, _HANGING)
    if hero.numbers:
        rows = [(figure.label, figure.value, figure.note) for figure in hero.numbers]
        yield heading(hero.about, width) if hero.about else Text()
        yield table([("", "left"), ("", "right"), ("", "fold")], rows, width, _INDENT)


def _block(block: Block, width: int) -> Iterable[Text]:
    """One block as indented lines."""
    match block:
        case Paragraph():
            return [sentence(block.text, width, _INDENT)]
        case Bullets():
            return [sentence(item, width, _INDENT, _HANGING) for item in block.items]
        case Facts():
            return [table([("", "left"), ("", "fold")], block.rows, width, _INDENT)]
        case Code():
            return [sentence(block.text, width, _INDENT, _HANGING)]
        case Table():
            return _table(block, width)
        case Figure():
            return _figure(block, width)


def _table(block: Table, width: int) -> Iterator[Text]:
    """A table with what it says; what does not fit on a screen is counted."""
    columns: list[tuple[str, Kind]] = [(name, block.side(index)) for index, name in enumerate(block.columns)]
    rows = [[cell_text(cell) for cell in row] for row in block.rows]
    left = 0 if block.whole else max(len(rows) - _MAX_ROWS, 0)
    if left == 1:  # a line that says so takes as much room
        left = 0
    yield sentence(block.caption, width, _INDENT, _HANGING)
    yield from stacked(columns, rows[: len(rows) - left], width, _INDENT)
    if left:
        yield sentence(f"… and {left:,} more; the JSON report and the page have all", width, _INDENT)


def _figure(block: Figure, width: int) -> Iterator[Text]:
    """The sketch of a figure, else its numbers, if it has them; what the figure says, in any case."""
    if block.sketch is not None:
        yield Text("\n".join((_INDENT + line).rstrip() for line in block.sketch(width - len(_INDENT))))
    yield sentence(block.caption, width, _INDENT, _INDENT)
    if block.sketch is None and block.numbers is not None:
        yield from _table(block.numbers, width)

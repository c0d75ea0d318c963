"""A document on a terminal: lines and tables that are never cut, also without Unicode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Literal, TypeAlias

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from nvaudit.report.document import (
    Block,
    Bullets,
    CodeBlock,
    Document,
    Facts,
    Figure,
    Hero,
    Paragraph,
    Table,
    cell_text,
    for_medium,
)
from nvaudit.report.wording import clean, wrap

ColumnKind: TypeAlias = Literal["left", "right", "fold"]

_STYLE = {"pass": "bold green", "fail": "bold red", "undecided": "bold yellow", "none": "bold"}
_MAX_ROWS = 12
_INDENT, _HANGING = "  ", "    "
_GAP = "  "
_NARROWEST = 12

# What an ASCII terminal shows instead; words stay readable even where a column then moves a little.
_ASCII = str.maketrans(
    {
        "σ": "sigma",
        "±": "+-",
        "≤": "<=",
        "≥": ">=",
        "×": "x",
        "·": "*",
        "−": "-",
        "–": "-",
        "→": "->",
        "…": "...",
        "▲": "^",
        "─": "-",
        "µ": "u",
        "⁻": "^-",
        "³": "3",
        **dict.fromkeys("▁▂▃▄", "."),
        **dict.fromkeys("▅▆▇█", "#"),
    }
)


def print_document(document: Document, console: Console) -> None:
    """Print a document for a person; the first line is its headline.

    Parameters
    ----------
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
            # A long name must not leave its value less than half of the line.
            long = max((cell_len(name) for name, _ in block.rows), default=0) > width // 2
            return [table([("", "fold" if long else "left"), ("", "fold")], block.rows, width, _INDENT)]
        case CodeBlock():
            return [sentence(block.text, width, _INDENT, _HANGING)]
        case Table():
            return _table(block, width)
        case Figure():
            return _figure(block, width)


def _table(block: Table, width: int) -> Iterator[Text]:
    """A table with what it says; what does not fit on a screen is counted."""
    columns: list[tuple[str, ColumnKind]] = [
        (name, block.side(index)) for index, name in enumerate(block.columns)
    ]
    rows = [[cell_text(cell) for cell in row] for row in block.rows]
    left = 0 if block.all_rows else max(len(rows) - _MAX_ROWS, 0)
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


def show(console: Console, parts: Iterable[Text]) -> None:
    """Print parts one below the other; in ASCII where the console cannot show more.

    Parameters
    ----------
    console : rich.console.Console
        Its colour and encoding decide; the parts are wrapped already.
    """
    for part in parts:
        if console.options.ascii_only:
            part = Text(
                part.plain.translate(_ASCII).encode("ascii", "replace").decode(),
                style=part.style,
                spans=part.spans,
            )
        console.print(part, highlight=False, markup=False, emoji=False, soft_wrap=True)


def sentence(text: str, width: int, indent: str = "", hanging: str | None = None, style: str = "") -> Text:
    """Wrap one sentence to the width."""
    lines = wrap(clean(text), width, indent, indent if hanging is None else hanging)
    return Text("\n".join(lines), style=style)


def heading(text: str, width: int) -> Text:
    """Start a section: an empty line, then its name."""
    return Text("\n").append_text(sentence(text, width, style="bold"))


def table(
    columns: Sequence[tuple[str, ColumnKind]], rows: Sequence[Sequence[str]], width: int, indent: str = ""
) -> Text:
    """Make a plain table that is complete at every width.

    Parameters
    ----------
    columns : sequence of (heading, kind)
        ``left`` and ``right`` columns are never broken; ``fold`` columns share the remaining width. Without
        any heading there is no heading line.
    width : int
        Columns of the terminal. Where even the narrowest table does not fit, every row becomes a paragraph
        of ``heading: cell``.
    indent : str
        What every line begins with.

    Returns
    -------
    rich.text.Text
        Without trailing spaces.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    sizes = _sizes(columns, cells, width - len(indent))
    if sizes is None:
        return _records(columns, cells, width, indent)
    text = Text()
    if any(name for name, _ in columns):
        line = indent + _GAP.join(
            _pad(name, size, kind) for (name, kind), size in zip(columns, sizes, strict=True)
        )
        text.append(line.rstrip() + "\n", style="bold")
        text.append(indent + "─" * (sum(sizes) + len(_GAP) * (len(sizes) - 1)) + "\n")
    lines = []
    common = _common_start([row[0] for row in cells])
    for row in cells:
        folded = [
            wrap(_cut(cell, size, common) if not place else cell, size, narrowest=1)
            if kind == "fold"
            else [cell]
            for place, (cell, size, (_, kind)) in enumerate(zip(row, sizes, columns, strict=True))
        ]
        for parts in zip_longest(*folded, fillvalue=""):
            joined = _GAP.join(
                _pad(part, size, kind) for part, size, (_, kind) in zip(parts, sizes, columns, strict=True)
            )
            lines.append((indent + joined).rstrip())
    text.append("\n".join(lines))
    return text


def _cut(name: str, size: int, common: str) -> str:
    """Cut a name that is too long for its column in the middle: its beginning and its end tell most.

    First goes what the names of the column begin with, else layers could no longer be told apart.

    Examples
    --------
    >>> _cut("encoder.layers.11.attention.weight", 21, ""), _cut("two words", 4, "")
    ('encoder.la…ion.weight', 'two words')
    >>> _cut("encoder.layers.11.attention.weight", 25, "encoder.layers.")
    '…11.attention.weight'
    """
    if len(name) <= size or size < _NARROWEST or " " in name:
        return name
    if common and len(rest := f"…{name[len(common) :]}") <= size:
        return rest
    return f"{name[: size // 2]}…{name[len(name) - (size - size // 2 - 1) :]}"


def _common_start(names: Sequence[str]) -> str:
    """What all names begin with, up to a separator; empty where that is little."""
    first, last = min(names, default=""), max(names, default="")  # all others lie between these
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return first[: 1 + max(first.rfind(mark, 0, same) for mark in "./:_")]


def stacked(
    columns: Sequence[tuple[str, ColumnKind]], rows: Sequence[Sequence[str]], width: int, indent: str = ""
) -> list[Text]:
    """Make as many tables below each other as it takes to show all columns, each with the first of them.

    A table that is too wide as a whole stays a table that way: a row of ``heading: cell`` is hard to compare
    with the next one. Only where two columns do not fit side by side is every row a paragraph.
    """
    room = width - len(indent)
    cells = [[clean(cell) for cell in row] for row in rows]

    def fits(chosen: Sequence[int]) -> bool:
        return (
            _sizes([columns[i] for i in chosen], [[row[i] for i in chosen] for row in cells], room)
            is not None
        )

    groups: list[list[int]] = [[0]]
    for index in range(1, len(columns)):
        if len(groups[-1]) > 1 and not fits([*groups[-1], index]):
            groups.append([0])
        groups[-1].append(index)
    if not all(map(fits, groups)):
        return [_records(columns, cells, width, indent)]
    tables = [
        table([columns[i] for i in group], [[row[i] for i in group] for row in rows], width, indent)
        for group in groups
    ]
    return [part for one in tables for part in (Text(), one)][1:]


def _pad(text: str, size: int, kind: ColumnKind) -> str:
    space = " " * max(size - cell_len(text), 0)
    return space + text if kind == "right" else text + space


def _sizes(
    columns: Sequence[tuple[str, ColumnKind]], rows: Sequence[Sequence[str]], width: int
) -> list[int] | None:
    """Widths of the columns, None if they do not fit even when folded."""
    sizes = [
        max(cell_len(text) for text in (name, *(row[index] for row in rows)))
        for index, (name, _) in enumerate(columns)
    ]
    least = [
        max(cell_len(name), min(size, _NARROWEST)) if kind == "fold" else size
        for size, (name, kind) in zip(sizes, columns, strict=True)
    ]
    room = width - len(_GAP) * (len(sizes) - 1)
    if sum(least) > room:
        return None
    # A name that is broken cannot be typed or searched for: words stay whole where there is room for them.
    unbroken = [
        max(small, min(size, max((cell_len(word) for row in rows for word in row[index].split()), default=0)))
        for index, (size, small) in enumerate(zip(sizes, least, strict=True))
    ]
    if sum(unbroken) <= room:
        least = unbroken
    while (excess := sum(sizes) - room) > 0:
        # The widest column that may still fold gives way, down to the next widest.
        order = sorted((i for i in range(len(sizes)) if sizes[i] > least[i]), key=lambda i: -sizes[i])
        first = order[0]
        floor = max(least[first], sizes[order[1]] - 1 if len(order) > 1 else 0)
        sizes[first] = max(floor, sizes[first] - excess)
    return sizes


def _records(
    columns: Sequence[tuple[str, ColumnKind]], rows: Sequence[Sequence[str]], width: int, indent: str
) -> Text:
    """One paragraph for each row, without its empty cells."""
    lines = []
    for row in rows:
        cells = (
            f"{name}: {cell}" if name else cell for (name, _), cell in zip(columns, row, strict=True) if cell
        )
        lines += wrap("; ".join(cells), width, indent, indent + "    ")
    return Text("\n".join(lines))

"""What the terminal renderers share: lines and tables that are never cut, also without Unicode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Literal, TypeAlias

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from nvaudit.report.wording import clean, wrap

Kind: TypeAlias = Literal["left", "right", "fold"]

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


def show(console: Console, parts: Iterable[Text]) -> None:
    """Print parts one below the other; in ASCII where the console cannot show more.

    Parameters
    ----------
    console : rich.console.Console
        Its colour and encoding decide; the parts are wrapped already.
    parts : iterable of rich.text.Text
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
    columns: Sequence[tuple[str, Kind]], rows: Sequence[Sequence[str]], width: int, indent: str = ""
) -> Text:
    """Make a plain table that is complete at every width.

    Parameters
    ----------
    columns : sequence of (heading, kind)
        ``left`` and ``right`` columns are never broken; ``fold`` columns share the remaining width. Without
        any heading there is no heading line.
    rows : sequence of sequence of str
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
    for row in cells:
        folded = [
            wrap(cell, size, narrowest=1) if kind == "fold" else [cell]
            for cell, size, (_, kind) in zip(row, sizes, columns, strict=True)
        ]
        for parts in zip_longest(*folded, fillvalue=""):
            joined = _GAP.join(
                _pad(part, size, kind) for part, size, (_, kind) in zip(parts, sizes, columns, strict=True)
            )
            lines.append((indent + joined).rstrip())
    text.append("\n".join(lines))
    return text


def stacked(
    columns: Sequence[tuple[str, Kind]], rows: Sequence[Sequence[str]], width: int, indent: str = ""
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


def _pad(text: str, size: int, kind: Kind) -> str:
    space = " " * max(size - cell_len(text), 0)
    return space + text if kind == "right" else text + space


def _sizes(
    columns: Sequence[tuple[str, Kind]], rows: Sequence[Sequence[str]], width: int
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
    while (excess := sum(sizes) - room) > 0:
        # The widest column that may still fold gives way, down to the next widest.
        order = sorted((i for i in range(len(sizes)) if sizes[i] > least[i]), key=lambda i: -sizes[i])
        first = order[0]
        floor = max(least[first], sizes[order[1]] - 1 if len(order) > 1 else 0)
        sizes[first] = max(floor, sizes[first] - excess)
    return sizes


def _records(
    columns: Sequence[tuple[str, Kind]], rows: Sequence[Sequence[str]], width: int, indent: str
) -> Text:
    """One paragraph for each row, without its empty cells."""
    lines = []
    for row in rows:
        cells = (
            f"{name}: {cell}" if name else cell for (name, _), cell in zip(columns, row, strict=True) if cell
        )
        lines += wrap("; ".join(cells), width, indent, indent + "    ")
    return Text("\n".join(lines))

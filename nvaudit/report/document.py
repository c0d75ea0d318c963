"""What a report says: a document of sections and blocks, written once and shown on every medium.

A report's numbers are its result; its words stand here, in one document, which ``report.render`` shows on a
terminal, as Markdown and as a page. A section or a block may name the media that it is for; nothing else
differs between media.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from nvaudit.report.wording import SIGMA_UNITS, sigma_text

MAX_ROWS = 1000
"""A table on a page has at most this many rows, so that a page stays small; report.json has all."""

_BAR = 8
"""Blocks of a bar in a cell."""

_NAME = 160
_ONE_LINE, _ONE_OF_MANY = 30, 18
_FEW_COLUMNS = 7
_PAGE, _GAP, _SORTED_GAP = 118, 4, 6
"""Characters across a page, and as many as the space between two columns takes."""


Medium = Literal["terminal", "markdown", "page"]
MEDIA: frozenset[Medium] = frozenset(("terminal", "markdown", "page"))
PAGE: frozenset[Medium] = frozenset(("page",))
FILES: frozenset[Medium] = MEDIA - {"terminal"}
"""What is kept: a terminal has no room for what its reader has just typed, or finds in a file."""

Sketch = Callable[[int], Sequence[str]]
"""Draws a figure with characters, in at most so many columns."""


@dataclass(frozen=True)
class Number:
    """A cell that is sorted by its value; None stands at the end.

    Attributes
    ----------
    part : float or None
        Drawn as a bar: 1 fills the cell, what is not above zero has none. None: no bar.
    """

    value: float | None
    text: str
    part: float | None = None


Cell = str | Number


def cell_text(cell: Cell) -> str:
    """Give what a cell shows where everything is text; a bar is made of blocks."""
    if isinstance(cell, str):
        return cell
    if cell.part is None:
        return cell.text
    # Anything above zero shows.
    size = min(max(round(_BAR * cell.part), 1 if cell.part > 0 else 0), _BAR)
    return f"{'█' * size:<{_BAR}} {cell.text}".rstrip()


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str
    role: Literal["", "lead", "note"] = ""
    media: frozenset[Medium] = MEDIA
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]
    media: frozenset[Medium] = MEDIA
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    rows: tuple[tuple[str, str], ...]
    media: frozenset[Medium] = MEDIA
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class CodeBlock:
    """A line to copy, such as a command."""

    text: str
    name: str
    media: frozenset[Medium] = MEDIA
    kind: ClassVar[str] = "code"

    @property
    def parts(self) -> list[str]:
        """Pieces that stay on one line where there is room; joined by blanks they are the text."""
        return re.split(" (?=--)", self.text)


@dataclass(frozen=True)
class Table:
    """A table with a caption; of each row the first cell is its header.

    Attributes
    ----------
    name : str
        Unique on the page; letters and hyphens.
    numeric : tuple of int
        Columns that are aligned as numbers.
    sortable : bool
        Whether a reader may sort and filter it.
    choices : int or None
        A column whose values a filter offers.
    all_rows : bool
        Whether a terminal shows every row, however many there are.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[int, ...] = ()
    sortable: bool = False
    choices: int | None = None
    all_rows: bool = False
    media: frozenset[Medium] = MEDIA
    kind: ClassVar[str] = "table"

    @property
    def wide(self) -> tuple[int, ...]:
        """Columns whose text needs several lines."""
        longest = [
            max((len(cell_text(row[i])) for row in self.rows), default=0) for i in range(len(self.columns))
        ]
        most = _ONE_OF_MANY if self.many else _ONE_LINE
        return tuple(i for i, length in enumerate(longest) if length > most)

    @property
    def many(self) -> bool:
        """Whether it has so many columns, or such long ones, that they must stand close to fit a page."""
        if len(self.columns) > _FEW_COLUMNS:
            return True
        longest = (
            max(len(name), *(min(len(cell_text(row[i])), _ONE_LINE) for row in self.rows), 0)
            for i, name in enumerate(self.columns)
        )
        return sum(longest) + (_SORTED_GAP if self.sortable else _GAP) * len(self.columns) > _PAGE

    def side(self, column: int) -> Literal["left", "right", "fold"]:
        """How a column of plain text is set: numbers to the right, what is long in several lines."""
        if column in self.numeric:
            return "right"
        return "fold" if column in self.wide or column == 0 else "left"

    @property
    def offered(self) -> list[str]:
        """Values that the filter offers."""
        if self.choices is None:
            return []
        return sorted({cell_text(row[self.choices]) for row in self.rows})


@dataclass(frozen=True)
class Figure:
    """A chart, what it says in words, and its numbers.

    Attributes
    ----------
    name : str
        Unique in the document; letters and hyphens.
    caption : str
        States the numbers.
    legend : str
        What the marks of the picture mean; a sketch has a legend of its own.
    draw : callable
        Makes the plotly figure; called for a page only, so that nothing else needs plotly. None: no picture.
    numbers : Table or None
        Folded away below the chart.
    tall : bool
        Whether it needs height.
    solid : bool
        Whether it is in 3-D, to be turned.
    offers : tuple of str
        Names of the surfaces of which one is shown.
    sketch : callable or None
        Draws it with characters, for media without pictures; None where the caption says it all.
    """

    name: str
    caption: str
    draw: Callable[[], Any] | None = None
    numbers: Table | None = None
    tall: bool = False
    solid: bool = False
    offers: tuple[str, ...] = ()
    sketch: Sketch | None = None
    legend: str = ""
    media: frozenset[Medium] = MEDIA
    kind: ClassVar[str] = "figure"


Block = Paragraph | Bullets | Facts | CodeBlock | Table | Figure


@dataclass(frozen=True)
class Section:
    """A part of a document with a heading; folded away where a medium can do that."""

    name: str
    title: str
    blocks: tuple[Block, ...]
    folded: bool = False
    media: frozenset[Medium] = MEDIA


@dataclass(frozen=True)
class KeyFigure:
    """A number that stands out."""

    label: str
    value: str
    note: str
    main: bool = False


@dataclass(frozen=True)
class Hero:
    """What stands at the top.

    Attributes
    ----------
    role : {"pass", "fail", "undecided", "none"}
    word : str
        The verdict.
    title : str
        The verdict in a sentence.
    lines : tuple of str
        What it rests on.
    about : str
        What the numbers are of: the metric, and whether higher is better.
    warnings : tuple of str
        What a reader must know before anything else.
    """

    role: Literal["pass", "fail", "undecided", "none"]
    word: str
    title: str
    lines: tuple[str, ...]
    numbers: tuple[KeyFigure, ...]
    about: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """What a report says.

    Attributes
    ----------
    title : str
        The headline: the result in one line.
    subject, subtitle : str
        What was examined, and how, e.g. the name of a model.
    version : str
        Of nvaudit.
    """

    title: str
    subject: str
    subtitle: str
    hero: Hero
    sections: tuple[Section, ...]
    version: str

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All charts of the page, in order."""
        blocks = (block for section in for_medium(self.sections, "page") for block in section.blocks)
        return tuple(
            block for block in for_medium(blocks, "page") if isinstance(block, Figure) and block.draw
        )


class _OnMedia(Protocol):
    @property
    def media(self) -> frozenset[Medium]: ...


MediaPart = TypeVar("MediaPart", bound=_OnMedia)


def for_medium(parts: Iterable[MediaPart], medium: Medium) -> list[MediaPart]:
    """Leave out what is meant for other media."""
    return [part for part in parts if medium in part.media]


class Point(Protocol):
    """Where on a device profile something was measured."""

    @property
    def sigma(self) -> float:
        """Spread of the devices."""

    @property
    def sigma_unit(self) -> str:
        """Its unit."""


def at_sigma(point: Point) -> str:
    """Say where something was measured, e.g. ``σ = 0.1 of the window``."""
    return sigma_text(point.sigma, point.sigma_unit).replace("sigma", "σ =", 1)


def unit_words(unit: str) -> str:
    """Write a unit as words.

    Examples
    --------
    >>> unit_words("full_scale"), unit_words("level"), unit_words("weight_max")
    ('share of the window', 'level spacings', 'share of max|W|')
    """
    words = SIGMA_UNITS.get(unit, unit.replace("_", " "))
    return f"share {words}" if words.startswith("of ") else words


def short(name: str) -> str:
    """Cut a name that is too long to be read.

    Examples
    --------
    >>> short("conv1.weight")
    'conv1.weight'
    """
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def file_name(path: str) -> str:
    r"""Name of a file without its folders, cut as :func:`short` does; also of a path from Windows.

    Examples
    --------
    >>> file_name("models/lenet.onnx"), file_name("models\\lenet.onnx")
    ('lenet.onnx', 'lenet.onnx')
    """
    return short(PurePosixPath(path.replace("\\", "/")).name)


def limited(rows: Sequence[tuple[Cell, ...]]) -> tuple[tuple[tuple[Cell, ...], ...], str]:
    """Cut a long table, and say so.

    Returns
    -------
    tuple
        The rows, and a sentence for the caption, empty if nothing is cut.
    """
    if len(rows) <= MAX_ROWS:
        return tuple(rows), ""
    return tuple(rows[:MAX_ROWS]), f" The first {MAX_ROWS:,} of {len(rows):,}; report.json has all."

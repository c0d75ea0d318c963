"""What a page is made of: sections of blocks, which the templates know how to show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, Protocol

MAX_ROWS = 1000
"""A table on a page has at most this many rows, so that a page stays small; report.json has all."""

_NAME = 160
_ONE_LINE, _ONE_OF_MANY = 30, 18
_FEW_COLUMNS = 7


@dataclass(frozen=True)
class Number:
    """A cell that is sorted by its value; None stands at the end."""

    value: float | None
    text: str


Cell = str | Number


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell.text


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str
    role: Literal["", "lead", "note"] = ""
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    rows: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Code:
    """A line to copy, such as a command."""

    text: str
    name: str
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
    caption : str
    columns : tuple of str
    rows : tuple of tuple of Cell
    numeric : tuple of int
        Columns that are aligned as numbers.
    sortable : bool
        Whether a reader may sort and filter it.
    choices : int or None
        A column whose values a filter offers.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[int, ...] = ()
    sortable: bool = False
    choices: int | None = None
    kind: ClassVar[str] = "table"

    @property
    def wide(self) -> tuple[int, ...]:
        """Columns whose text needs several lines."""
        longest = [
            max((len(_text(row[i])) for row in self.rows), default=0) for i in range(len(self.columns))
        ]
        most = _ONE_OF_MANY if self.many else _ONE_LINE
        return tuple(i for i, length in enumerate(longest) if length > most)

    @property
    def many(self) -> bool:
        """Whether it has so many columns that they must stand close to fit a page."""
        return len(self.columns) > _FEW_COLUMNS

    @property
    def offered(self) -> list[str]:
        """Values that the filter offers."""
        if self.choices is None:
            return []
        return sorted({_text(row[self.choices]) for row in self.rows})


@dataclass(frozen=True)
class Figure:
    """A chart, what it says in words, and its numbers.

    Attributes
    ----------
    name : str
        Unique on the page; letters and hyphens.
    caption : str
        States the numbers.
    data : dict
        Traces and layout, for plotly.
    numbers : Table or None
        Folded away below the chart.
    tall : bool
        Whether it needs height.
    solid : bool
        Whether it is in 3-D, to be turned.
    offers : tuple of str
        Names of the surfaces of which one is shown.
    """

    name: str
    caption: str
    data: dict[str, Any]
    numbers: Table | None = None
    tall: bool = False
    solid: bool = False
    offers: tuple[str, ...] = ()
    kind: ClassVar[str] = "figure"

    @property
    def height(self) -> int | None:
        """Height in pixels that the chart asks for, if it does."""
        height = self.data["layout"].get("height")
        return None if height is None else int(height)


Block = Paragraph | Bullets | Facts | Code | Table | Figure


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading."""

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Big:
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
    numbers : tuple of Big
    warning : str or None
        What a reader must know before anything else.
    """

    role: Literal["pass", "fail", "undecided", "none"]
    word: str
    title: str
    lines: tuple[str, ...]
    numbers: tuple[Big, ...]
    warning: str | None = None


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    subject: str
    subtitle: str
    hero: Hero
    sections: tuple[Section, ...]
    version: str
    figures: tuple[Figure, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = (block for section in self.sections for block in section.blocks)
        object.__setattr__(self, "figures", tuple(block for block in found if isinstance(block, Figure)))


class Point(Protocol):
    """Where on a device profile something was measured."""

    @property
    def sigma(self) -> float:
        """Spread of the devices."""

    @property
    def sigma_unit(self) -> str:
        """Its unit."""


def at_sigma(point: Point) -> str:
    """Say where something was measured, e.g. ``σ = 0.1 full scale``."""
    return f"σ = {point.sigma:g} {unit_words(point.sigma_unit)}"


def unit_words(unit: str) -> str:
    """Write a unit as words.

    Examples
    --------
    >>> unit_words("full_scale")
    'full scale'
    """
    return unit.replace("_", " ")


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

"""A document as GitHub-flavoured Markdown: the summary of a job, a comment on a change, a wiki page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from nvaudit.report.document import (
    Block,
    Bullets,
    CodeBlock,
    Document,
    Facts,
    Figure,
    Hero,
    Paragraph,
    Section,
    Table,
    cell_text,
    for_medium,
)
from nvaudit.report.wording import clean

_SIGN = {"pass": "✅ ", "fail": "❌ ", "undecided": "⚠️ ", "none": ""}
_MOST_ROWS = 100
"""Of a table or a list: GitHub takes a mebibyte for a step."""
_LONGEST = 400
"""Characters of a cell or a sentence."""
_SKETCH_COLUMNS = 72


def markdown_document(document: Document) -> str:
    """Write a document as Markdown.

    Returns
    -------
    str
        Without a final newline. Text from files is literal: no name can become markup, a link or a cell.
    """
    parts = [f"## {_SIGN[document.hero.role]}{literal(document.title)}", *_hero(document.hero)]
    for section in for_medium(document.sections, "markdown"):
        parts += _section(section)
    return "\n\n".join(parts)


def literal(text: str) -> str:
    """Make text from outside mean itself, in a paragraph, a table cell and within HTML.

    Examples
    --------
    >>> literal("a|b <i> `c`")
    'a&#124;b &#60;i&#62; &#96;c&#96;'
    """
    shown = clean(text)
    if len(shown) > _LONGEST:
        shown = f"{shown[: _LONGEST - 1]}…"
    # Entities never open markup. A colon or a full stop would only after "http" or "www".
    shown = re.sub(r"[!\"#$&'*<>@\[\\\]^_`{|}~]", lambda match: f"&#{ord(match[0])};", shown)
    return re.sub(r"(?i)(?<=\b(?:www))\.|:(?=//)", lambda match: f"&#{ord(match[0])};", shown)


def _hero(hero: Hero) -> Iterator[str]:
    for text in hero.warnings:
        yield f"⚠️ **Warning:** {literal(text)}"
    if hero.role != "none":
        yield f"**{literal(hero.word)}**: {literal(hero.title)}"
    if hero.lines:
        yield "\n".join(f"- {literal(line)}" for line in hero.lines)
    if hero.numbers:
        rows = [
            [_strong(figure.label, figure.main), _strong(figure.value, figure.main), literal(figure.note)]
            for figure in hero.numbers
        ]
        yield _grid([(literal(hero.about), "---"), ("", "---:"), ("", "---")], rows)


def _strong(text: str, main: bool) -> str:
    return f"**{literal(text)}**" if main else literal(text)


def _section(section: Section) -> Iterator[str]:
    """A section with its heading, folded away where the document says so."""
    blocks = [part for block in for_medium(section.blocks, "markdown") for part in _block(block)]
    if not blocks:
        return
    if section.folded:
        body = "\n\n".join(blocks)
        yield f"<details><summary>{literal(section.title)}</summary>\n\n{body}\n\n</details>"
    else:
        yield f"### {literal(section.title)}"
        yield from blocks


def _block(block: Block) -> Iterable[str]:
    match block:
        case Paragraph():
            return [literal(block.text)]
        case Bullets():
            return ["\n".join(f"- {literal(item)}" for item in _cut(block.items, "and {} more"))]
        case Facts():
            rows = [[literal(name), literal(value)] for name, value in block.rows]
            return [_grid([("", "---"), ("", "---")], rows)]
        case CodeBlock():
            return [_fenced(block.text, "sh")]
        case Table():
            return _table(block)
        case Figure():
            return _figure(block)


def _table(block: Table) -> Iterator[str]:
    sides = ["---:" if block.side(index) == "right" else "---" for index in range(len(block.columns))]
    rows = [[literal(cell_text(cell)) for cell in row] for row in block.rows[:_MOST_ROWS]]
    if left := len(block.rows) - len(rows):
        rows.append([f"… and {left:,} more, in the JSON report", *[""] * (len(sides) - 1)])
    yield literal(block.caption)
    yield _grid(list(zip(map(literal, block.columns), sides, strict=True)), rows)


def _figure(block: Figure) -> Iterator[str]:
    if block.sketch is not None:
        yield _fenced("\n".join(line.rstrip() for line in block.sketch(_SKETCH_COLUMNS)), "text")
    yield literal(block.caption)
    if block.sketch is None and block.numbers is not None:
        yield from _table(block.numbers)


def _cut(items: Sequence[str], more: str) -> list[str]:
    left = len(items) - _MOST_ROWS
    return list(items) if left <= 0 else [*items[:_MOST_ROWS], "… " + more.format(f"{left:,}")]


def _grid(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """A table; columns are (heading, rule), all cells are Markdown."""
    lines = [[name for name, _ in columns], [rule for _, rule in columns], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fenced(text: str, language: str) -> str:
    """Text as a block of its own, whatever backquotes it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"

"""A report says the same on a terminal, in Markdown and on a page, unless a block names its media."""

import html
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("plotly", reason="plotly draws the figures of the page")

from page_samples import Reader, hostile
from rich.console import Console

from nvaudit.report.document import (
    MEDIA,
    Bullets,
    CodeBlock,
    Document,
    Facts,
    Figure,
    Medium,
    Paragraph,
    Section,
    Table,
    cell_text,
    for_medium,
)
from nvaudit.report.kinds import document_of, read_any
from nvaudit.report.render.html import html_document
from nvaudit.report.render.markdown import markdown_document
from nvaudit.report.render.terminal import print_document

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/report.json"))
SHOWN = 150
"""Of a long text Markdown shows at least so much."""


def report_of(case: str):
    return read_any((GOLDEN / case / "report.json").read_text(encoding="utf-8"), case)[1]


def said(document: Document, medium: Medium) -> Iterator[str]:
    """Every text that a medium must show; of tables the headings and the first rows."""
    yield document.title
    hero = document.hero
    yield from (*hero.warnings, *hero.lines, hero.about)
    for figure in hero.numbers:
        yield from (figure.label, figure.value, figure.note)
    for section in for_medium(document.sections, medium):
        blocks = for_medium(section.blocks, medium)
        if blocks:
            yield section.title
            for block in blocks:
                yield from words_of(block)


def words_of(block) -> Iterator[str]:
    match block:
        case Paragraph() | CodeBlock():
            yield block.text
        case Bullets():
            yield from block.items[:12]
        case Facts():
            yield from (text for row in block.rows for text in row)
        case Table():
            yield block.caption
            yield from block.columns
        case Figure():
            yield block.caption


def pressed(text: str) -> str:
    """Letters and figures alone: media wrap, fold and escape the rest in ways of their own."""
    return re.sub(r"[\W_]", "", text)


def letters(document: Document) -> dict[Medium, str]:
    buffer = io.StringIO()
    print_document(document, Console(file=buffer, width=4000))
    return {
        "terminal": pressed(buffer.getvalue()),
        "markdown": pressed(html.unescape(markdown_document(document))),
        "page": pressed(Reader.of(html_document(document)).text),
    }


@pytest.mark.parametrize("case", CASES)
def test_every_medium_says_all_that_it_is_meant_to(case):
    """Title, warnings, verdict, numbers, sentences, captions and headings are in each of the three."""
    document = document_of(report_of(case))
    for medium, text in letters(document).items():
        for words in said(document, medium):
            assert pressed(words[:SHOWN]) in text, (medium, words)


def test_a_block_that_names_its_media_is_in_no_other():
    """What is for a page is on the page alone."""
    only = "words for the page alone"
    document = document_of(report_of("plan"))
    blocks = (Paragraph(only, media=frozenset({"page"})), Paragraph("words for all"))
    sections = (Section("s", "A section", blocks),)
    shown = letters(Document(document.title, "", "", document.hero, sections, ""))
    assert [medium for medium in MEDIA if pressed(only) in shown[medium]] == ["page"]
    assert all(pressed("words for all") in shown[medium] for medium in MEDIA)


def test_cells_are_the_same_in_every_medium():
    """Of a table for all media the first rows stand in each, whatever is in their names."""
    document = document_of(hostile())
    shown = letters(document)
    for section in for_medium(document.sections, "terminal"):
        for block in section.blocks:
            if isinstance(block, Table) and block.media == MEDIA and section.media == MEDIA:
                for row in block.rows[:2]:
                    for cell in row:
                        words = pressed(cell_text(cell))[:SHOWN]
                        assert all(words in shown[medium] for medium in MEDIA), (block.name, words)

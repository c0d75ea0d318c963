"""The share that is on the array, on a page."""

from __future__ import annotations

from nvaudit.report.document import MAX_ROWS, Block, KeyFigure, Paragraph, Table, short
from nvaudit.report.mapped import MappedShare, coverage_text, off_columns, off_rows, part_text, share_warning


def warnings(first: str | None, found: MappedShare | None) -> tuple[str, ...]:
    """What a reader must know before anything else: a warning of the page's own, and that of the share."""
    about = share_warning(found)
    return tuple(text for text in (first, None if about is None else f"{about}.") if text)


def share_numbers(found: MappedShare | None) -> list[KeyFigure]:
    """The share as a number that stands out; none where it is not known."""
    if found is None or found.share is None:
        return []
    if found.share_of_products is not None and found.products_total is not None:
        note = f"{found.products:,} of {found.products_total:,} products"
    else:
        note = f"{found.weights:,} of {found.weights_total:,} {found.noun}"
    return [KeyFigure("On the array", part_text(found.share), note)]


def share_blocks(found: MappedShare | None) -> list[Block]:
    """How much is on the array, and what is not."""
    if found is None:
        return []
    blocks: list[Block] = [Paragraph(f"{coverage_text(found)}.")]
    if rows := off_rows(found, MAX_ROWS):
        shown = tuple((short(name), products, weights, why) for name, products, weights, why in rows)
        caption = "Operators with a weight whose products the array does not do, the most products first."
        blocks.append(Table("off-array", caption, off_columns(), shown, numeric=(1, 2)))
    return blocks

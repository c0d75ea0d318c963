"""Records of a report as CSV: numbers as they are, not as they look."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from nvaudit.report.wording import clean

# What a spreadsheet would take for a formula, in a name that somebody else has chosen.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""Write records.

    Parameters
    ----------
    rows : iterable of sequence of object
        Floats are written exactly; None is an empty cell; truth is true or false; text that a spreadsheet
        would take for a formula gets an apostrophe before it.

    Returns
    -------
    str
        With a heading, without a final newline; RFC 4180 but for the ends of lines, which are ``\n``.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[_cell(value) for value in row] for row in rows])
    return buffer.getvalue().removesuffix("\n")


def _cell(value: object) -> object:
    if isinstance(value, str):
        shown = clean(value)
        return f"'{shown}" if shown.startswith(_FORMULA) else shown
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else value

"""JSON text that people can read and that holds nothing JSON does not know."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator
from typing import Any, NoReturn

from pydantic import BaseModel

from nvaudit.errors import unique_keys

_SCALARS = (str, int, float, bool, type(None))
_LINE = 100

HIDDEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Co", "Cs", "Cn"})
"""Unicode categories that a terminal acts on or that nobody sees: controls, ends of lines, marks of order."""


def write_json(value: Any) -> str:
    """Write a JSON value: objects indented, lists of scalars on few lines, floats exact.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    return "".join(_pieces(value, ""))


def to_json(report: BaseModel) -> str:
    """Write a report of any kind as JSON, without a final newline; equal reports give equal text."""
    return write_json(report.model_dump(mode="json"))


def read_json(text: str) -> Any:
    """Read JSON strictly: no NaN, no number beyond a double, no key twice.

    Raises
    ------
    ValueError
        Saying what was found.
    """
    try:
        return json.loads(
            text, parse_constant=_not_a_number, parse_float=_finite, object_pairs_hook=unique_keys
        )
    except RecursionError as error:
        raise ValueError("lists or objects are nested too deep") from error


def _pieces(value: Any, indent: str) -> Iterator[str]:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        opening = "{\n"
        for key, item in value.items():
            yield f"{opening}{inner}{_scalar(str(key))}: "
            yield from _pieces(item, inner)
            opening = ",\n"
        yield f"\n{indent}}}"
    elif isinstance(value, list) and all(isinstance(item, _SCALARS) for item in value):
        yield _flat_list([_scalar(item) for item in value], indent)
    elif isinstance(value, list):
        opening = "[\n"
        for item in value:
            yield f"{opening}{inner}"
            yield from _pieces(item, inner)
            opening = ",\n"
        yield f"\n{indent}]"
    else:
        yield _scalar(value)


def _flat_list(items: list[str], indent: str) -> str:
    """Scalars on one line, or filled into lines if they are many."""
    lines = [""]
    for item in items:
        if lines[-1] and len(lines[-1]) + len(item) + 2 > _LINE:
            lines.append("")
        lines[-1] += f", {item}" if lines[-1] else item
    if len(lines) == 1:
        return f"[{lines[0]}]"
    return f"[\n{indent}  " + f",\n{indent}  ".join(lines) + f"\n{indent}]"


def _scalar(value: Any) -> str:
    return escape_hidden(json.dumps(value, ensure_ascii=False, allow_nan=False))


def escape_hidden(text: str) -> str:
    r"""Write as ``\uXXXX`` what JSON may hold raw and a terminal acts on: DEL, C1, marks that reorder text.

    Examples
    --------
    >>> escape_hidden('"' + chr(0x85) + '"')
    '"\\u0085"'
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(
        (json.dumps(char)[1:-1] if char > "\x7f" else "\\u007f")
        if char >= "\x7f" and unicodedata.category(char) in HIDDEN
        else char
        for char in text
    )


def _not_a_number(token: str) -> NoReturn:
    raise ValueError(f"got {token}, which is not a JSON number")


def _finite(token: str) -> float:
    value = float(token)
    if math.isinf(value):
        raise ValueError(f"the number {token[:40]} is out of range")
    return value


def short_repr(value: object) -> str:
    """Show a value from a file in a message, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

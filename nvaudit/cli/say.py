"""Lines for a person: nothing that a file, a name or the command line holds acts on the terminal."""

from __future__ import annotations

import contextlib
import re
import warnings
from typing import Any

import click

_LONGEST_WORD = 400
"""Characters of a name in a message; the middle of a longer one is left out."""

_LONGEST_LINE = 4000


def plain(text: str) -> str:
    r"""Show lines as they are but for what a terminal would act on, which is shown as an escape.

    Examples
    --------
    >>> plain("conv" + chr(27) + "[2J\nnext")
    'conv\\x1b[2J\nnext'
    """
    from nvaudit.report.wording import clean  # takes a moment, which a command without output saves

    return "\n".join(clean(line) for line in text.split("\n"))


def shortened(text: str) -> str:
    """Cut the middle out of names of thousands of characters, and out of lines of many thousands.

    Examples
    --------
    >>> len(shortened("no such node: " + 5000 * "x"))
    414
    """
    words = re.sub(rf"\S{{{_LONGEST_WORD + 1},}}", lambda word: _cut(word[0], _LONGEST_WORD), text)
    return "\n".join(_cut(line, _LONGEST_LINE) for line in words.split("\n"))


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    mark = " … "
    head = (longest - len(mark) + 1) // 2
    return f"{text[:head]}{mark}{text[len(text) - (longest - len(mark) - head) :]}"


def say(text: str, err: bool = False) -> None:
    """Print lines for a person."""
    click.echo(plain(text), err=err)


def tell(text: str) -> None:
    """Print a message on standard error; where that is closed or full there is nobody to tell."""
    with contextlib.suppress(OSError):
        click.echo(shortened(plain(text)), err=True)


def show_warnings_plainly() -> None:
    """Have Python's own warnings, which quote files, go the same way."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any, **more: Any
    ) -> None:
        tell(f"nvaudit: warning: {message}")

    warnings.showwarning = show

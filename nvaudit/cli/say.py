"""Lines for a person: nothing that a file, a name or the command line holds acts on the terminal."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from nvaudit.errors import EngineError

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


class PlainConsole(Console):
    """A console that shows what a terminal would act on, and leaves a broken pipe to its caller."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render; what is rich's own, such as a colour, is no text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Pass the error on; rich would end the process with exit code 1."""
        raise  # rich calls this while it handles the error


@contextlib.contextmanager
def printing(stderr: bool = False) -> Iterator[Console]:
    """Print inside this block, with the console it gives or with :func:`nvaudit.cli.say.say`.

    Where the reader of a pipe has gone (``nvaudit … | head``), the rest is dropped in silence, so that the
    exit code stays that of the command.

    Parameters
    ----------
    stderr : bool
        Whether the console writes to standard error.

    Raises
    ------
    EngineError
        If the output cannot be written, such as on a full disk.
    """
    try:
        yield PlainConsole(stderr=stderr)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stderr if stderr else sys.stdout)
    except OSError as error:
        _discard(sys.stderr if stderr else sys.stdout)
        name = "standard error" if stderr else "standard output"
        raise EngineError(f"{name} cannot be written: {error.strerror or error}") from error


def _discard(stream: TextIO) -> None:
    """Send what is still in the buffer to nowhere, or Python fails again when it flushes at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def echo_bytes(data: str | bytes) -> None:
    """Write a file to standard output: text always in UTF-8, whatever the terminal speaks."""
    if sys.stdout is not None:  # closed by the caller
        sys.stdout.flush()
        text = data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace") + b"\n"
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()

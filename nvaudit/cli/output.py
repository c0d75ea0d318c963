"""Printing results: a reader that goes away is no failure, a full disk is."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from nvaudit.cli.say import plain
from nvaudit.errors import EngineError


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

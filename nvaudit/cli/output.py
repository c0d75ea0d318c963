"""Printing results: a reader that goes away is no failure, a full disk is."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console

from nvaudit.errors import EngineError


class PipeConsole(Console):
    """A console that leaves a broken pipe to its caller; rich would end the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        """Pass the error on."""
        raise  # rich calls this while it handles the error


@contextlib.contextmanager
def printing(stderr: bool = False) -> Iterator[Console]:
    """Print inside this block, with the console it gives or with ``click.echo``.

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
        yield PipeConsole(stderr=stderr)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as error:
        _discard(sys.stdout)
        raise EngineError(f"standard output cannot be written: {error.strerror or error}") from error


def _discard(stream: TextIO) -> None:
    """Send what is still in the buffer to nowhere, or Python fails again when it flushes at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def echo_json(text: str) -> None:
    """Write JSON to standard output: always UTF-8, whatever the terminal speaks."""
    if sys.stdout is not None:  # closed by the caller
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()

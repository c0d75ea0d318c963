"""The command line: parse, call, print, exit code. No numerics here.

Exit codes: 0 done and the gate (if any) holds; 1 the gate does not hold; 2 bad input or usage; 3 our own
failure; 130 interrupted.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import NoReturn

import click

from nvaudit.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_INTERRUPTED, NvauditError

_OUR_FAULT = "This is our fault. Please report it with the output of the same command under NVAUDIT_DEBUG=1."

_MACHINE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
    }
)
"""What the system refuses to any program: a full disk, no permission, too many files or processes."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup and in background jobs
            signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal cannot show must not end a run
            stream.reconfigure(errors="backslashreplace")
    _silence_libraries()
    sys.exit(run(sys.argv[1:]))


def _silence_libraries() -> None:
    """Keep remarks of libraries, meant for who programs with them, from the user of a command.

    ``python -W …``, PYTHONWARNINGS and NVAUDIT_DEBUG let them through.
    """
    if sys.warnoptions or os.environ.get("NVAUDIT_DEBUG"):
        return
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())  # else Python prints what no handler takes


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Stop in good order; a second Ctrl-C must not cut the cleaning up short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise KeyboardInterrupt


def run(arguments: list[str]) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : list of str
        The command line without the program's name.

    Returns
    -------
    int
        The exit code.
    """
    try:
        from nvaudit.cli.commands import cli  # takes a moment, in which Ctrl-C must work too

        result = cli.main(arguments, prog_name="nvaudit", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except NvauditError as error:
        click.echo(f"nvaudit: error: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return EXIT_BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        click.echo("nvaudit: interrupted; nothing was written", err=True)
        return EXIT_INTERRUPTED
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """Say what failed that nobody foresaw."""
    if os.environ.get("NVAUDIT_DEBUG"):
        traceback.print_exc()
    if isinstance(error, MemoryError):
        text = "error: out of memory; use fewer --workers, a smaller --batch-size or --limit"
    elif isinstance(error, OSError) and error.errno in _MACHINE:
        where = f"{error.filename}: " if error.filename else ""
        text = f"error: {where}{error.strerror}"
    else:
        text = f"internal error: {type(error).__name__}: {error}\n{_OUR_FAULT}"
    click.echo(f"nvaudit: {text}", err=True)
    return EXIT_FAILURE

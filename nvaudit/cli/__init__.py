"""The command line: parse, call, print, exit code. No numerics here.

Exit codes: 0 done and the gate (if any) holds; 1 the gate does not hold; 2 bad input or usage; 3 our own
failure; 130 interrupted.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import time
import traceback
import warnings

import click

from nvaudit.cli.interrupts import install
from nvaudit.cli.say import show_warnings_plainly, tell
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
    install()
    show_warnings_plainly()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal cannot show must not end a run
            stream.reconfigure(errors="backslashreplace")
    _silence_libraries()
    code = run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and done; Ctrl-C must not change the exit code
    sys.exit(code)


def _silence_libraries() -> None:
    """Keep remarks of libraries, meant for who programs with them, from the user of a command.

    ``python -W …``, PYTHONWARNINGS and NVAUDIT_DEBUG let them through.
    """
    if sys.warnoptions or os.environ.get("NVAUDIT_DEBUG"):
        return
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())  # else Python prints what no handler takes


def _one_thread_for_products(arguments: list[str]) -> None:
    """Let remap's products of matrices, and fits of devices, run on one thread unless told otherwise.

    They are many and small: on two busy cores OpenBLAS took 7 to 15 times as long on several, which wait for
    each other. It reads its environment once, when NumPy is loaded. Training has other libraries and is left
    alone.
    """
    if "numpy" not in sys.modules and any(word.endswith(("remap", "fit")) for word in arguments):
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


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
    begin = time.perf_counter()
    _one_thread_for_products(arguments)
    try:
        from nvaudit.cli.commands import cli  # takes a moment, in which Ctrl-C must work too
        from nvaudit.perturb.stop import command_began

        with command_began(begin):
            result = cli.main(arguments, prog_name="nvaudit", standalone_mode=False, obj=tuple(arguments))
        return result if isinstance(result, int) else 0
    except NvauditError as error:
        tell(f"nvaudit: error: {error}")
        return error.exit_code
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)  # with the usage, and quoting what was typed
        tell(shown.getvalue().rstrip("\n"))
        return EXIT_BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        tell("nvaudit: interrupted; nothing was written")
        return EXIT_INTERRUPTED
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """Say what failed that nobody foresaw."""
    if os.environ.get("NVAUDIT_DEBUG"):
        tell(traceback.format_exc().rstrip("\n"))
    if isinstance(error, MemoryError):
        text = "error: out of memory; use fewer --workers, a smaller --batch-size or --limit"
    elif isinstance(error, OSError) and error.errno in _MACHINE:
        where = f"{error.filename}: " if error.filename else ""
        text = f"error: {where}{error.strerror}"
    else:
        text = f"internal error: {type(error).__name__}: {error}\n{_OUR_FAULT}"
    tell(f"nvaudit: {text}")
    return EXIT_FAILURE

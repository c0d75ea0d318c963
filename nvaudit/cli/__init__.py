"""The command line: parse, call, print, exit code. No numerics here.

Exit codes: 0 done and the gate (if any) holds; 1 the gate does not hold; 2 bad input or usage; 3 our own
failure; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback

import click

from nvaudit import __version__
from nvaudit.cli.audit import audit_command
from nvaudit.cli.devices import devices_group
from nvaudit.cli.inspect import inspect_command
from nvaudit.errors import EXIT_BAD_INPUT, EXIT_FAILURE, EXIT_INTERRUPTED, NvauditError


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done and the gate holds; 1 the gate does not hold; 2 bad input or usage; "
    "3 our own failure; 130 interrupted.",
)
@click.version_option(__version__, prog_name="nvaudit")
def cli() -> None:
    """Audit any ONNX model for non-volatile compute-in-memory hardware."""


cli.add_command(audit_command)
cli.add_command(inspect_command)
cli.add_command(devices_group)


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


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
    except BrokenPipeError:  # the reader of a pipe went away, as in `nvaudit … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_OK_PIPE
    except Exception as error:
        if os.environ.get("NVAUDIT_DEBUG"):
            traceback.print_exc()
        click.echo(
            f"nvaudit: internal error: {type(error).__name__}: {error}\n"
            "This is our fault. Please report it with the output of the same command under NVAUDIT_DEBUG=1.",
            err=True,
        )
        return EXIT_FAILURE


EXIT_OK_PIPE = 0

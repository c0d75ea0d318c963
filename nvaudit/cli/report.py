"""`nvaudit report`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FilePath
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.errors import DataError, NvauditError, OptionError, why_unread
from nvaudit.report.kinds import print_report, read_any, report_text

if TYPE_CHECKING:
    from nvaudit.report.result import AuditReport


@click.command("report", cls=OnceCommand)
@click.argument("source", metavar="REPORT", type=FilePath())
@output_options(gate=True)
@click.option("--text", is_flag=True, help="Print the text too.  [default: only where no file is asked for]")
def report_command(source: Path, outputs: tuple[Output, ...], text: bool) -> None:
    """Write REPORT.json in other forms; - reads standard input.

    It is the JSON report of any command, or of the version before. The exit code says only whether that
    worked, whatever the verdict in the report is.
    """
    check_outputs(outputs, {} if str(source) == "-" else {"the report": source})
    text_of, name = _read(source, "the JSON report of a command of nvaudit")
    _, contents = read_any(text_of, name)
    show = print_report if text or not outputs else None
    _check_shown(contents, outputs, show, name)
    hand_out(contents, outputs, show)


def _check_shown(
    report: Any, outputs: Sequence[Output], show: Callable[[Any, Console], object] | None, name: str
) -> None:
    """Make every form once before the first is written: a file of somebody else may contradict itself.

    Raises
    ------
    DataError
        If a part of it refers to another one that is not there.
    """
    try:
        for output in outputs:
            output.render(report)
        if show is not None:
            show(report, Console(file=io.StringIO()))
    except (ArithmeticError, AssertionError, LookupError, StopIteration, TypeError, ValueError) as error:
        if isinstance(error, NvauditError):
            raise
        raise DataError(
            f"{name}: its parts contradict each other ({type(error).__name__}: {str(error)[:100]}); give a "
            "report.json as nvaudit wrote it"
        ) from error


def read_report(path: Path) -> AuditReport:
    """Read the report.json of an audit; - is standard input.

    Raises
    ------
    OptionError
        If it cannot be read.
    DataError
        If it is no such report.
    """
    from nvaudit.report.result import from_json

    return from_json(*_read(path))


def _read(path: Path, wanted: str = "a report.json of nvaudit audit") -> tuple[str, str]:
    """The text of a report.json, and its name; - is standard input."""
    if str(path) != "-":
        return report_text(path, wanted), str(path)
    name = "standard input"
    try:
        return sys.stdin.buffer.read().decode("utf-8"), name
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{name}: cannot be read: {why_unread(error)}; give {wanted}") from error

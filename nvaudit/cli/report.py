"""`nvaudit report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from nvaudit.cli.options import FilePath
from nvaudit.cli.outputs import check_outputs, extra_outputs, hand_out, take_outputs
from nvaudit.errors import OptionError
from nvaudit.report.result import AuditReport, from_json
from nvaudit.report.text import render_text


@click.command("report")
@click.argument("report", type=FilePath())
@extra_outputs()
@click.option("--text", is_flag=True, help="Print the text too.  [default: only where no file is asked for]")
def report_command(report: Path, text: bool, **options: Any) -> None:
    """Write REPORT.json, which `audit -o` has made, in other forms; - reads standard input.

    The exit code says only whether that worked, whatever the verdict in the report is.
    """
    outputs = take_outputs(options)
    check_outputs(outputs, {} if str(report) == "-" else {"the report": report})
    found = read_report(report)
    hand_out(found, outputs, (lambda console: render_text(found, console)) if text or not outputs else None)


def read_report(path: Path) -> AuditReport:
    """Read a report.json; - is standard input.

    Raises
    ------
    OptionError
        If it cannot be read.
    DataError
        If it is no report.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        text = raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"{name}: cannot be read: {error}; give a report.json of `nvaudit audit`"
        ) from error
    return from_json(text, name)

"""What a command writes of its result besides the text: declared, checked and written in one place.

A form that a report can be written in is an entry of ``EXTRAS``: its option exists in every command that
hands out reports, is checked before the run, and the file is written whole, also where the gate fails.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from rich.console import Console

from nvaudit.cli.options import FilePath
from nvaudit.cli.output import echo_json, printing
from nvaudit.cli.say import say
from nvaudit.errors import EngineError, NvauditError, OptionError
from nvaudit.files import check_writable, encoded, write_bytes_atomic
from nvaudit.report.kinds import document_of
from nvaudit.report.plots.figures import plotly_graphs
from nvaudit.report.result import AuditReport, to_json
from nvaudit.report.sections import Section

Command = TypeVar("Command", bound=Callable[..., Any])


def _junit(report: AuditReport) -> str:
    from nvaudit.report.junit import render_junit

    return render_junit(report)


def _markdown(report: Section) -> str:
    from nvaudit.report.render.markdown import markdown_document

    return markdown_document(document_of(report))


def render_page(report: Section) -> str:
    """Make the page of a report of any kind; the templates take a moment, so they are imported only now."""
    from nvaudit.report.render.html import html_document

    return html_document(document_of(report))


def _needs_plotly() -> object:
    return plotly_graphs("--html")


def _always() -> None:
    """Need nothing that may be missing."""


@dataclass(frozen=True)
class Extra:
    """A form that a report can be written in.

    Attributes
    ----------
    name : str
        For the line that says where the file is.
    render : callable
        From the report to the text, without a final newline.
    help : str
        Of the option.
    ready : callable
        Called before the run; raises OptionError where something that the renderer needs is missing.
    """

    name: str
    render: Callable[[Any], str]
    help: str
    ready: Callable[[], object] = _always


EXTRAS: dict[str, Extra] = {
    "html": Extra("page", render_page, "Write the report as one page that opens offline.", _needs_plotly),
    "junit": Extra(
        "JUnit",
        _junit,
        "Write the gate as JUnit XML, a test case for each percentile and sigma, and one for "
        "--require-mapped.",
    ),
    "markdown": Extra("Markdown", _markdown, "Write a summary in Markdown; an old file is replaced."),
}
"""By the name of the option."""


@dataclass(frozen=True)
class Output:
    """One result, where it goes, and how it is written.

    Attributes
    ----------
    option : str
        That asked for it, e.g. ``--junit``.
    name : str
        For the line that says where it is.
    path : Path
        ``-`` is standard output.
    render : callable
        From what was found to the text, without a final newline, or to the bytes of a binary file.
    ready : callable
        As :class:`Extra`'s.
    """

    option: str
    name: str
    path: Path
    render: Callable[[Any], str | bytes]
    ready: Callable[[], object] = _always

    @property
    def to_stdout(self) -> bool:
        """Whether it goes to standard output."""
        return str(self.path) == "-"


FORMS = ("html", "markdown")
"""Of ``EXTRAS``: what every report can be written as."""


def form_options() -> Callable[[Command], Command]:
    """Give a command the options of ``FORMS``; it takes what was asked for as ``forms``: Outputs."""

    def apply(command: Command) -> Command:
        @functools.wraps(command)
        def take(*arguments: Any, **options: Any) -> Any:
            return command(*arguments, forms=take_outputs(options, names=FORMS), **options)

        return _declare(FORMS)(cast(Command, take))

    return apply


def extra_outputs() -> Callable[[Command], Command]:
    """Give a command the options of ``EXTRAS``; see :func:`take_outputs`."""
    return _declare(tuple(EXTRAS))


def _declare(names: Sequence[str]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for name in reversed(names):
            text = f"{EXTRAS[name].help} - writes it to standard output.  [default: not]"
            command = click.option(f"--{name}", type=FilePath(), metavar="FILE", help=text)(command)
        return command

    return apply


def take_outputs(
    options: dict[str, Any], report: Path | None = None, names: Iterable[str] = ("html", "junit", "markdown")
) -> tuple[Output, ...]:
    """Take what :func:`extra_outputs` has declared out of a command's options.

    Parameters
    ----------
    options : dict
        Loses the entries of ``EXTRAS``.
    report : Path, optional
        Where ``-o`` wants report.json.
    names : iterable of str
        Of ``EXTRAS``.

    Returns
    -------
    tuple of Output
        What was asked for, report.json first.
    """
    wanted = [] if report is None else [Output("-o", "report", report, to_json)]
    wanted += [form_output(name, path) for name in names if (path := options.pop(name)) is not None]
    return tuple(wanted)


def form_output(name: str, path: Path) -> Output:
    """A form of ``EXTRAS`` that is to be written."""
    extra = EXTRAS[name]
    return Output(f"--{name}", extra.name, path, extra.render, extra.ready)


def json_output(wanted: bool, render: Callable[[Any], str]) -> tuple[Output, ...]:
    """What ``--json`` asks for: JSON instead of text; the lines that say what is where go elsewhere then."""
    return (Output("--json", "JSON", Path("-"), render),) if wanted else ()


def check_outputs(outputs: Sequence[Output], inputs: Mapping[str, Path], kept: Iterable[Path] = ()) -> None:
    """Find out before the run that everything can be written, and that it destroys nothing.

    Parameters
    ----------
    outputs : sequence of Output
    inputs : mapping
        What is read, with its name in words.
    kept : iterable of Path
        Files of ``--resume``.

    Raises
    ------
    OptionError
        If a path cannot be written, is an input, or is given twice.
    """
    records = {os.path.realpath(path) for path in kept}
    taken: dict[str, str] = {}
    for output in outputs:
        output.ready()
        if output.to_stdout:
            real = "-"
        else:
            real = os.path.realpath(output.path)
            _check_input(output, inputs)
            if real in records:
                raise OptionError(
                    f"{output.option} {output.path}: this is a file of --resume; choose another path"
                )
            check_writable(output.path)
        if real in taken and real != os.path.realpath(os.devnull):
            both = "standard output" if real == "-" else str(output.path)
            raise OptionError(f"{taken[real]} and {output.option}: both are {both}; choose two paths")
        taken[real] = output.option


def _check_input(output: Output, inputs: Mapping[str, Path]) -> None:
    for what, path in inputs.items():
        with contextlib.suppress(OSError):  # one of them is not there, or cannot be
            if output.path.samefile(path):
                raise OptionError(f"{output.option} {output.path}: this is {what}; choose another path")


def hand_out(found: Any, outputs: Sequence[Output], show: Callable[[Console], None] | None) -> None:
    """Print the text, then write every output where it is wanted, and say what is where.

    The text comes first and nothing that cannot be written keeps the rest back: a result of hours is not
    lost to a disk that has filled meanwhile.

    Parameters
    ----------
    found : object
        What the outputs are made from.
    outputs : sequence of Output
        At most one of them to standard output; the text then goes to standard error.
    show : callable or None
        Prints the text; None for no text.

    Raises
    ------
    EngineError
        Naming everything that could not be written; all else is.
    """
    piped = next((output for output in outputs if output.to_stdout), None)
    failed: list[Exception] = []
    if piped is not None:
        with _put_off(failed), printing():
            echo_json(str(piped.render(found)))
    with _put_off(failed), printing(stderr=piped is not None) as console:
        if show is not None:
            show(console)
    for output in outputs:
        if output is piped:
            continue
        with _put_off(failed):
            data = output.render(found)
            write_bytes_atomic(output.path, data if isinstance(data, bytes) else encoded(data + "\n"))
            with printing(stderr=piped is not None):
                say(f"{output.name}: {output.path}", err=piped is not None)
    _raise_all(failed)


@contextlib.contextmanager
def _put_off(failed: list[Exception]) -> Iterator[None]:
    """Remember what fails inside instead of ending the command."""
    try:
        yield
    except Exception as error:
        failed.append(error)


def _raise_all(failed: Sequence[Exception]) -> None:
    """Raise what was put off: what nobody foresaw before what could not be written."""
    for error in failed:
        if not isinstance(error, NvauditError):
            raise error
    if failed:
        raise EngineError("; ".join(dict.fromkeys(map(str, failed)))) from failed[0]

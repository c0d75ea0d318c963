"""What a command writes of its result besides the text: declared, checked and written in one place.

A form that a report can be written in is an entry of ``EXTRAS``: its option exists in every command that
hands out reports, is checked before the run, and the file is written whole, also where the gate fails.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from rich.console import Console

from nvaudit.cli.options import FilePath, RenamedOption, stack
from nvaudit.cli.say import echo_bytes, printing, say, tell
from nvaudit.errors import EngineError, NvauditError, OptionError
from nvaudit.files import check_input, check_writable, encoded, write_bytes_atomic
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import KINDS, NoPartError, csv_of, document_of, junit_of, picture_of, print_report
from nvaudit.report.plots import paper_drawer, plotly_graphs

if TYPE_CHECKING:
    from nvaudit.report.header import Header

Command = TypeVar("Command", bound=Callable[..., Any])
Render = Callable[[Any], str | bytes]


def _markdown(report: Header) -> str:
    from nvaudit.report.render.markdown import markdown_document

    return markdown_document(document_of(report))


def render_page(report: Header) -> str:
    """Make the page of a report of any kind; the templates take a moment, so they are imported only now."""
    from nvaudit.report.render.html import html_document

    return html_document(document_of(report))


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
    part : tuple of str
        What of the report is written, where that is one of several: the parameter that names it, and the
        keyword of ``render`` that takes the name.
    suffixes : tuple of str
        How its files are called.
    """

    name: str
    render: Render
    help: str
    ready: Callable[[], object] = _always
    part: tuple[str, str] = ("", "")
    suffixes: tuple[str, ...] = ()


EXTRAS: dict[str, Extra] = {
    "html": Extra("page", render_page, "Write the report as one page that opens offline.", plotly_graphs,
                  suffixes=(".html", ".htm")),
    "junit": Extra(
        "JUnit", junit_of, "Write the gates as JUnit XML, a test case for each; numbers without a gate pass.",
        suffixes=(".xml",),
    ),
    "markdown": Extra("Markdown", _markdown, "Write a summary in Markdown; an old file is replaced.",
                      suffixes=(".md", ".markdown")),
    "csv": Extra(
        "table", csv_of, "Write a table of the report as CSV: the main one, or --csv-table.",
        part=("csv_table", "table"), suffixes=(".csv",),
    ),
    **{
        form: Extra(
            "figure", functools.partial(picture_of, form=form),
            f"Draw a figure of the page for a paper as {form.upper()}: the first, or --figure.",
            functools.partial(paper_drawer, f"--{form}"), part=("figure", "figure"), suffixes=(f".{form}",),
        )
        for form in ("svg", "pdf")
    },
}  # fmt: skip
"""By the name of the option."""


@dataclass(frozen=True)
class CommandProduct:
    """What a command makes for the next tool besides its report: what its ``-o`` writes.

    Attributes
    ----------
    metavar : str
        Such as ``HARDENED.onnx``.
    help : str
        Of the option.
    was : tuple of str
        Its old long names.
    required : bool
        Whether the command must be given a place for it.
    """

    metavar: str
    help: str
    was: tuple[str, ...] = ()
    required: bool = False

    def check(self, out: Path, inputs: Mapping[str, Path]) -> None:
        """Refuse a place that is an input, or called as a file of another form.

        Raises
        ------
        OptionError
        """
        check_input(out, inputs, "-o")
        _check_suffix("-o", out, (Path(self.metavar).suffix,))


@dataclass(frozen=True)
class OldJson:
    """JSON that a command printed before it had a report: what it is in words, and how it is made of one."""

    what: str
    render: Render


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
    ready, suffixes
        As :class:`Extra`'s.
    """

    option: str
    name: str
    path: Path
    render: Render
    ready: Callable[[], object] = _always
    suffixes: tuple[str, ...] = (".json",)

    @property
    def to_stdout(self) -> bool:
        """Whether it goes to standard output."""
        return str(self.path) == "-"


OUTPUT_PARAMETERS = ("out", "report", "as_json", *EXTRAS, "csv_table", "figure")
"""Names of the parameters that :func:`output_options` declares: nothing of them changes what is found."""

_OTHER_SUFFIXES = (".png", ".jpg", ".jpeg", ".eps", ".xlsx", ".tsv", ".npz", ".onnx", ".toml")
"""Of files that no form of a report is."""

_STDOUT = "- writes it to standard output, and the text to standard error."


def product_option(product: CommandProduct) -> Callable[[Command], Command]:
    """Declare ``-o``/``--out`` of a command that makes something else than a report."""
    return click.option(
        "-o", "--out", type=FilePath(), metavar=product.metavar, required=product.required,
        help=product.help, cls=RenamedOption, was=product.was,
    )  # fmt: skip


def output_options(
    *kinds: str,
    product: CommandProduct | None = None,
    gate: bool = False,
    was: tuple[str, ...] = (),
    old_json: OldJson | None = None,
) -> Callable[[Command], Command]:
    """Give a command everything that its report can be written as.

    The command takes what was asked for as ``outputs``: tuple of :class:`Output`, the JSON first; with a
    product also ``out``: Path or None, which it writes itself.

    Parameters
    ----------
    *kinds : str
        Names of the kinds of report that it may write, for the names of their tables; none for any.
    product : CommandProduct, optional
        What ``-o`` writes; without one it writes the JSON report, as ``--report`` does everywhere.
    gate : bool
        Whether the report has verdicts, or numbers for a build server's list: then it has ``--junit``.
    was : tuple of str
        Old long names of ``-o`` for the report.
    old_json : OldJson, optional
        What ``--json`` prints for one more release instead of the report.
    """
    extras = tuple(name for name in EXTRAS if gate or name != "junit")
    json_help = f"Write the report as JSON; {_STDOUT}  [default: not]"
    first = product_option(product) if product is not None else click.option(
        "-o", "--out", type=FilePath(), metavar="FILE", help=json_help, cls=RenamedOption, was=was
    )  # fmt: skip
    same = "" if product is not None else "The same as -o: "
    declared = stack(
        first,
        click.option("--report", type=FilePath(), metavar="FILE", help=same + json_help),
        click.option("--json", "as_json", is_flag=True, help=(
            "The same as --report -." if old_json is None else
            f"Print {old_json.what} alone, as before; from the next release on the same as --report -."
        )),
        *(
            click.option(f"--{name}", type=FilePath(), metavar="FILE",
                         help=f"{EXTRAS[name].help} - writes it to standard output.  [default: not]")
            for name in extras
        ),
        _table_option(kinds),
        click.option("--figure", metavar="NAME", help=(
            "Which figure --svg and --pdf draw; a wrong name lists those of the report.  [default: the first]"
        )),
    )  # fmt: skip

    def apply(command: Command) -> Command:
        @functools.wraps(command)
        def take(*arguments: Any, **options: Any) -> Any:
            given = {name: options.pop(name) for name in OUTPUT_PARAMETERS if name in options}
            if product is not None:
                options["out"] = given.pop("out")
            return command(*arguments, outputs=_wanted(given, old_json, kinds), **options)

        return declared(cast(Command, take))

    return apply


def _table_option(kinds: tuple[str, ...]) -> Callable[[Command], Command]:
    """Declare the choice among the tables of some kinds of report."""
    names = dict.fromkeys(name for kind in KINDS if kind.name in kinds for name in kind.tables)
    text = f"Which table --csv writes: {', '.join(names) or 'one of those of the report'}."
    return click.option(
        "--csv-table", type=click.Choice(list(names)) if names else str, metavar="NAME",
        help=f"{text}  [default: {next(iter(names), 'the main one')}]",
    )  # fmt: skip


def _wanted(given: Mapping[str, Any], old_json: OldJson | None, kinds: tuple[str, ...]) -> tuple[Output, ...]:
    """What was asked for, the JSON first."""
    places = [("-o", given.get("out")), ("--report", given["report"])]
    wanted = [Output(option, "report", path, to_json) for option, path in places if path is not None]
    if given["as_json"] and old_json is not None:
        tell(
            f"nvaudit: --json prints {old_json.what} alone for one more release, then the report as -o - does"
        )
        wanted.append(Output("--json", "JSON", Path("-"), old_json.render))
    elif given["as_json"]:
        wanted.append(Output("--json", "report", Path("-"), to_json))
    for parameter in ("csv_table", "figure"):
        forms = [name for name, extra in EXTRAS.items() if extra.part[0] == parameter]
        if given[parameter] is not None and all(given[name] is None for name in forms):
            raise OptionError(
                f"--{parameter.replace('_', '-')}: for {' and '.join(f'--{name}' for name in forms)}; name a "
                "file with it"
            )
    for name, extra in EXTRAS.items():
        if (path := given.get(name)) is not None:
            parameter, keyword = extra.part
            if parameter == "figure" and kinds:
                _check_figure(f"--{name}", given["figure"], kinds)
            part = {keyword: given[parameter]} if given.get(parameter) else {}
            render = functools.partial(extra.render, **part)
            wanted.append(Output(f"--{name}", extra.name, path, render, extra.ready, extra.suffixes))
    return tuple(wanted)


def _check_figure(option: str, figure: str | None, kinds: tuple[str, ...]) -> None:
    """Refuse a figure that no report of a command has; which of the others there are, the run tells."""
    names = list(dict.fromkeys(name for kind in KINDS if kind.name in kinds for name in kind.figures))
    if not names:
        raise OptionError(f"{option}: this command has no figures; --html writes a page")
    if figure is not None and not any(fnmatch.fnmatchcase(figure, name) for name in names):
        raise OptionError(f"--figure: there is no {figure!r}; use one of {', '.join(names)}")


def form_output(name: str, path: Path) -> Output:
    """A form of ``EXTRAS`` that is to be written."""
    extra = EXTRAS[name]
    return Output(f"--{name}", extra.name, path, extra.render, extra.ready, extra.suffixes)


def check_outputs(
    outputs: Sequence[Output],
    inputs: Mapping[str, Path],
    kept: Iterable[Path] = (),
    product: Path | None = None,
) -> None:
    """Find out before the run that everything can be written, and that it destroys nothing.

    Parameters
    ----------
    inputs : mapping
        What is read, with its name in words.
    kept : iterable of Path
        Files of ``--resume``.
    product : Path, optional
        What ``-o`` writes where that is no report.

    Raises
    ------
    OptionError
        If a path cannot be written, is an input, or is given twice.
    """
    records = {os.path.realpath(path) for path in kept}
    taken: dict[str, str] = {} if product is None else {os.path.realpath(product): "-o"}
    for output in outputs:
        if output.to_stdout:
            real = "-"
        else:
            real = os.path.realpath(output.path)
            check_input(output.path, inputs, output.option)
            if real in records:
                raise OptionError(
                    f"{output.option} {output.path}: this is a file of --resume; choose another path"
                )
            check_writable(output.path)
        if real in taken and real != os.path.realpath(os.devnull):
            both = "standard output" if real == "-" else str(output.path)
            raise OptionError(f"{taken[real]} and {output.option}: both are {both}; choose two paths")
        taken[real] = output.option
        if not output.to_stdout:
            _check_suffix(output.option, output.path, output.suffixes)
    for output in outputs:
        output.ready()


def _check_suffix(option: str, path: Path, own: tuple[str, ...]) -> None:
    """Refuse a file that is called as one of another form: most likely another option was meant."""
    suffix = path.suffix.lower()
    forms = {suffix: f"--{name}" for name, extra in EXTRAS.items() for suffix in extra.suffixes}
    forms[".json"] = "--report"
    if suffix in own or suffix not in (*forms, *_OTHER_SUFFIXES):
        return
    meant = f", or use {forms[suffix]}" if suffix in forms and forms[suffix] != option else ""
    what = f"a {own[0]} file" if own[0] else "a folder"
    raise OptionError(f"{option} {path}: it writes {what}; name one{meant}")


def hand_out(
    report: Any, outputs: Sequence[Output], show: Callable[[Any, Console], None] | None = print_report
) -> None:
    """Print the text, then write every output where it is wanted, and say what is where.

    The text comes first and nothing that cannot be written keeps the rest back: a result of hours is not
    lost to a disk that has filled meanwhile.

    Parameters
    ----------
    report : object
        What the outputs are made from.
    outputs : sequence of Output
        At most one of them to standard output; the text then goes to standard error.
    show : callable or None
        Prints the text of the report; None for no text.

    Raises
    ------
    EngineError
        Naming everything that could not be written; all else is.
    OptionError
        If all that fails is a table or figure that this report does not have.
    """
    piped = next((output for output in outputs if output.to_stdout), None)
    failed: list[Exception] = []
    if piped is not None:
        with _put_off(failed), printing():
            echo_bytes(piped.render(report))
    with _put_off(failed), printing(stderr=piped is not None) as console:
        if show is not None:
            show(report, console)
    for output in outputs:
        if output is piped:
            continue
        with _put_off(failed):
            data = output.render(report)
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
    if failed and all(isinstance(error, NoPartError) for error in failed):
        raise failed[0]
    if failed:
        raise EngineError("; ".join(dict.fromkeys(map(str, failed)))) from failed[0]

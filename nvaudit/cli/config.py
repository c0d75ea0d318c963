"""`nvaudit config`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nvaudit._version import __version__
from nvaudit.cli.check import plan_of_file
from nvaudit.cli.config_file import ConfigFile
from nvaudit.cli.config_schema import file_schema_text
from nvaudit.cli.configured import (
    TABLE,
    VARIABLE,
    check_keys,
    chosen_file,
    configured_commands,
    defaults_of,
    options_by_key,
    table_at,
)
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FieldOption, FilePath
from nvaudit.cli.output import echo_bytes
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.errors import EXIT_OK, OptionError
from nvaudit.report.kinds import print_report

if TYPE_CHECKING:
    from nvaudit.report.config.result import OptionValue


@click.command("config", cls=OnceCommand)
@click.argument("command", nargs=-1)
@click.option("--config", type=FilePath(), envvar=VARIABLE, show_envvar=True, metavar="FILE",
              help="The file; off: none.  [default: as for other commands]")  # fmt: skip
@click.option("--schema", is_flag=True, help="Print the JSON schema of the file, for editors.")
@output_options("config")
def config_command(
    command: tuple[str, ...], config: Path | None, schema: bool, outputs: tuple[Output, ...]
) -> int:
    """Check the configuration file; list what COMMAND, or every one, takes from it."""
    from nvaudit.report.config.result import config_report

    if schema:
        echo_bytes(file_schema_text().rstrip("\n"))
        return EXIT_OK
    check_outputs(outputs, {})
    commands = dict(configured_commands())
    if command and command not in commands:
        known = ", ".join(" ".join(words) for words in commands)
        raise OptionError(
            f"{' '.join(command)}: no command that takes options from a file; use one of {known}"
        )
    file = chosen_file(config)
    if file is not None:
        check_keys(file)
    chosen = {command: commands[command]} if command else commands
    values = tuple(
        value for words in chosen for value in _values(words, chosen[words], file, every=bool(command))
    )
    audits = _audits(commands["check",], file) if file is not None and command in ((), ("check",)) else ()
    report = config_report(__version__, None if file is None else str(file.path), values, audits)
    hand_out(report, outputs, partial(print_report, report))
    return EXIT_OK


def _context(words: tuple[str, ...], command: click.Command) -> click.Context:
    return click.Context(
        command, info_name=" ".join(words), parent=click.Context(click.Group("nvaudit"), info_name="nvaudit")
    )


def _values(
    words: tuple[str, ...], command: click.Command, file: ConfigFile | None, every: bool
) -> Iterator[OptionValue]:
    """The options of a command; without ``every`` those that the file or the environment sets."""
    from nvaudit.report.config.result import OptionValue

    context = _context(words, command)
    given = {} if file is None else defaults_of(command, context, file)
    for key, option in options_by_key(command).items():
        name, variable = option.name or "", str(option.envvar or "")
        if variable and os.environ.get(variable):
            value, source = os.environ[variable], f"${variable}"
        elif name in given:
            value, source = _shown(given[name].value), given[name].where
        elif every:
            value, source = _default(option, context), "default"
        else:
            continue
        yield OptionValue(command=" ".join(words), option=key, value=value, source=source)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(_shown, value)) if isinstance(value, list | tuple) else str(value)


def _default(option: click.Option, context: click.Context) -> str:
    """What holds without the option, as the help says it."""
    if isinstance(option, FieldOption) and option.field.option.unset:
        return option.field.option.unset
    value = option.get_default(context)
    if option.is_flag:
        return str(bool(value)).lower()
    return "-" if value in (None, ()) or "UNSET" in str(value) else _shown(value)


def _audits(command: click.Command, file: ConfigFile) -> tuple[str, ...]:
    """Names of the audits; making them checks the matrix."""
    if not table_at(file, ("check",)):
        return ()
    context = _context(("check",), command)
    given = defaults_of(command, context, file)
    context.default_map = {name: item.value for name, item in given.items()}
    context.meta[TABLE] = (file, given)
    options = {
        option.name or "": option.consume_value(context, {})[0]
        for option in command.params
        if isinstance(option, FieldOption)
    }
    read = {
        option.name or "": option.process_value(context, options[option.name or ""])
        for option in command.params
        if isinstance(option, FieldOption)
    }
    return tuple(named.name.text for named in plan_of_file(context, {**read, "workers": 0}).audits)

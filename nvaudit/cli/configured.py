"""Options from the configuration file: what a command takes where nothing is typed.

A key is the option's long name without its dashes. Keys at the top are for every command that has the
option; those in a table named as a command, such as ``[compare]``, for that one alone, and before the others.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from nvaudit.cli.config_file import ConfigFile, find_config, read_config
from nvaudit.cli.options import FieldOption, FilePath, TypedOption
from nvaudit.cli.say import tell
from nvaudit.errors import OptionError
from nvaudit.option_texts import read_path

VARIABLE = "NVAUDIT_CONFIG"
OFF = "off"
TABLE = "nvaudit.configured"
"""Key of a context's ``meta``: the file, and its values for the command."""


@dataclass(frozen=True)
class Given:
    """A value of the file for one option.

    Attributes
    ----------
    value : object
        As click takes it for a default: texts, as they would be typed, or true or false.
    where : str
        The file with the line.
    """

    value: Any
    where: str


def check_named(path: str, where: str) -> None:
    """Refuse a file that the configuration names, with its line, and that is not there; - is standard input.

    Raises
    ------
    OptionError
    """
    if path != "-" and not os.path.exists(path):
        raise OptionError(f"{where}: {path}: no such file; correct the path, or take it out")


class ConfigOption(click.Option):
    """``--config``, which every command has that takes options from the file."""

    def __init__(self) -> None:
        super().__init__(
            ["--config"], type=FilePath(), envvar=VARIABLE, show_envvar=True, metavar="FILE",
            expose_value=False, help="File with defaults for options; off: none.  [default: nvaudit.toml, or "
            "pyproject.toml with [tool.nvaudit], here or above]",
        )  # fmt: skip


def has_options(command: click.Command) -> bool:
    """Whether a command takes options from the file: those of specifications, and with them all others."""
    return any(isinstance(option, FieldOption) for option in command.params)


def option_key(option: click.Option) -> str:
    """Name of an option in the file; one that only switches off is named by what it switches."""
    name = max(option.opts, key=len).removeprefix("--")
    return name.removeprefix("no-") if option.is_flag and option.flag_value is False else name


def options_by_key(command: click.Command) -> dict[str, click.Option]:
    """Options of a command that may stand in the file."""
    return {
        option_key(option): option
        for option in command.params
        if isinstance(option, click.Option)
        and not isinstance(option, ConfigOption | TypedOption)
        and not option.is_eager
    }


def chosen_file(given: Path | None) -> ConfigFile | None:
    """The file that holds: the one that is named, else the nearest."""
    name = given if given is not None else os.environ.get(VARIABLE) or None
    if name is not None and str(name) == OFF:
        return None
    path = find_config(Path()) if name is None else Path(name)
    return None if path is None else read_config(path)


def take_defaults(command: click.Command, ctx: click.Context, given: Path | None) -> None:
    """Let options that are not typed have the values of the file.

    Raises
    ------
    OptionError
        If a key or a value is wrong: with the file, the line, and what may be given.
    """
    file = chosen_file(given)
    if file is None:
        return
    check_keys(file)
    values = defaults_of(command, ctx, file)
    ctx.default_map = {name: item.value for name, item in values.items()}
    ctx.meta[TABLE] = (file, values)


def file_of(ctx: click.Context) -> ConfigFile | None:
    """The file that a command has taken defaults from."""
    table = ctx.meta.get(TABLE)
    return None if table is None else table[0]


def tell_used(command: click.Command, ctx: click.Context) -> None:
    """Say on standard error which options come from the file."""
    file = file_of(ctx)
    used = [
        key
        for key, option in options_by_key(command).items()
        if ctx.get_parameter_source(option.name or "") is ParameterSource.DEFAULT_MAP
    ]
    if file is not None and used:
        tell(f"nvaudit: from {file.path}: {', '.join(used)}")


def defaults_of(command: click.Command, ctx: click.Context, file: ConfigFile) -> dict[str, Given]:
    """Values of the file for a command, by the names of its parameters; its own table wins."""
    options = options_by_key(command)
    values: dict[str, Given] = {}
    for place in ((), tuple(ctx.command_path.split()[1:])):
        for key, value in table_at(file, place).items():
            option = options.get(plain_key(key))
            if option is not None and not (isinstance(value, dict) or key in structure_keys(place)):
                values[option.name or ""] = given(option, value, file, (*place, key), ctx)
    return values


def table_at(file: ConfigFile, place: tuple[str, ...]) -> Mapping[str, Any]:
    """A table of the file; empty where there is none."""
    table: Any = file.table
    for name in place:
        table = table.get(name) if isinstance(table, Mapping) else None
    return table if isinstance(table, Mapping) else {}


def plain_key(key: str) -> str:
    """A key as it is compared: underscores are as good as hyphens."""
    return key.replace("_", "-")


def structure_keys(place: tuple[str, ...]) -> tuple[str, ...]:
    """Keys of a command's table that are no options: what the matrix of a check is made of."""
    return ("models", "devices", "conditions", "exceptions") if place == ("check",) else ()


def given(
    option: click.Option, value: Any, file: ConfigFile, keys: tuple[str | int, ...], ctx: click.Context
) -> Given:
    """Check one value.

    Raises
    ------
    OptionError
        With the file and the line.
    """
    where, key = file.where(*keys), keys[-1]
    try:
        taken = _taken(option, value, file)
        _checked(option, taken, ctx)
    except (OptionError, click.BadParameter) as error:
        text = error.message if isinstance(error, click.BadParameter) else str(error)
        text = text.removeprefix(f"{max(option.opts, key=len)}: ")
        raise OptionError(f"{where}: {key}: {text}") from None
    return Given(taken, where)


def read_value(
    option: FieldOption, value: Any, file: ConfigFile, keys: tuple[str | int, ...], ctx: click.Context
) -> Any:
    """The value of a field for a specification, checked as :func:`given` does."""
    return option.process_value(ctx, given(option, value, file, keys, ctx).value)


def _taken(option: click.Option, value: Any, file: ConfigFile) -> Any:
    """A value as click takes it."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise OptionError(f"got {json.dumps(value, default=str)}; use true or false")
        return value
    many = value if isinstance(value, list) else [value]
    if isinstance(value, list) and not option.multiple:
        raise OptionError("got a list; give one value")
    texts = [_text(item) for item in many]
    field = option.field if isinstance(option, FieldOption) else None
    if isinstance(option.type, FilePath) or (field is not None and field.option.read is read_path):
        texts = [file.resolve(text) if text else text for text in texts]
    elif field is not None and field.name == "device":
        texts = [device_text(text, file) for text in texts]
    return texts if option.multiple else texts[0]


def device_text(text: str, file: ConfigFile) -> str:
    """A profile: the name of a bundled one, or a path relative to the file's folder."""
    path = file.resolve(text)
    return path if Path(path).is_file() or text.endswith(".json") else text


def _text(value: Any) -> str:
    """What would be typed for a value."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value).removesuffix(".0")
    raise OptionError(f"got {json.dumps(value, default=str)}; give text or a number")


def _checked(option: click.Option, value: Any, ctx: click.Context) -> None:
    """Read a value as if it were typed, and hold it against the limits of its field."""
    if isinstance(option, FieldOption):
        read = option.process_value(ctx, value)
        for one in read if option.swept else ((read,) if _one_of_list(option, read) else read,):
            option.part.validated({option.field.name: one})
    elif not option.is_flag:
        option.type_cast_value(ctx, value)


def _one_of_list(option: FieldOption, value: Any) -> bool:
    """Whether a command takes one value where the field is a list."""
    return option.field.is_list and not isinstance(value, tuple)


def check_keys(file: ConfigFile) -> None:
    """Refuse keys that mean nothing to any command.

    Raises
    ------
    OptionError
        Naming the first, with the file and the line, and what is near it.
    """
    commands = dict(configured_commands())
    every = {key for command in commands.values() for key in options_by_key(command)}
    _check_table(file, (), every, {path[0] for path in commands})
    for path, command in commands.items():
        if table_at(file, path[:1]) and len(path) > 1:
            _check_table(file, path[:1], set(), {other[1] for other in commands if other[:1] == path[:1]})
        _check_table(file, path, {*options_by_key(command), *structure_keys(path)}, set())


def _check_table(file: ConfigFile, place: tuple[str, ...], keys: set[str], tables: set[str]) -> None:
    for key, value in table_at(file, place).items():
        if plain_key(key) in keys and not isinstance(value, dict):
            continue
        if key in tables:
            if isinstance(value, dict):
                continue
            name = ".".join((*file.root, *place, key))
            raise OptionError(
                f"{file.where(*place, key)}: {key}: is the table of `nvaudit {key}`; write [{name}] with its "
                "options"
            )
        refuse_key(file, (*place, key), {*keys, *tables})


def refuse_key(file: ConfigFile, keys: tuple[str | int, ...], known: set[str]) -> None:
    """Say that a key means nothing, and what does."""
    near = difflib.get_close_matches(plain_key(str(keys[-1])), sorted(known), n=1)
    table = ".".join(map(str, (*file.root, *keys[:-1])))
    cure = f"did you mean {near[0]}?" if near else "`nvaudit config` lists what may stand there"
    raise OptionError(
        f"{file.where(*keys)}: {keys[-1]}: there is no such key{f' in [{table}]' if table else ''}; {cure}"
    )


def configured_commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that takes options from the file, by its words."""
    from nvaudit.cli.commands import cli

    yield from _below(cli, click.Context(cli), ())


def _below(
    group: click.Group, ctx: click.Context, above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from _below(command, ctx, (*above, name))
        elif command is not None and has_options(command):
            yield (*above, name), command

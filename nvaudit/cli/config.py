"""`nvaudit config`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nvaudit._version import __version__
from nvaudit.cli.check import plan_of_file
from nvaudit.cli.config_file import ConfigFile
from nvaudit.cli.configured import (
    TABLE,
    VARIABLE,
    Given,
    check_keys,
    check_named,
    chosen_file,
    configured_commands,
    defaults_of,
    options_by_key,
    structure_keys,
    table_at,
)
from nvaudit.cli.once import OnceCommand
from nvaudit.cli.options import FieldOption, FilePath
from nvaudit.cli.outputs import Output, check_outputs, hand_out, output_options
from nvaudit.cli.say import echo_bytes
from nvaudit.errors import EXIT_OK, NvauditError, OptionError
from nvaudit.spec import AXIS_KEYS, NAME_KEYS, CheckOptions

if TYPE_CHECKING:
    from nvaudit.jobs.checking import CheckPlan
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
    plan = _plan(commands["check",], file) if file is not None and command in ((), ("check",)) else None
    audits = () if plan is None else tuple(named.name.text for named in plan.audits)
    skipped = () if plan is None else plan.skipped
    report = config_report(__version__, None if file is None else str(file.path), values, audits, skipped)
    hand_out(report, outputs)
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
            _check_there(option, given[name])
            value, source = _shown(given[name].value), given[name].where
        elif every:
            value, source = _default(option, context), "default"
        else:
            continue
        yield OptionValue(command=" ".join(words), option=key, value=value, source=source)


def _check_there(option: click.Option, given: Given) -> None:
    """Refuse a file or a profile that is not there, with its line: a command would say so later."""
    from nvaudit.device import load_profile
    from nvaudit.session import FILE_FIELDS

    field = option.field.name if isinstance(option, FieldOption) else ""
    for text in given.value if isinstance(given.value, list) else [given.value]:
        if field == "device":
            try:
                load_profile(text)
            except NvauditError as error:
                raise type(error)(f"{given.where}: {error}") from None
        elif field in ("data", *FILE_FIELDS):
            check_named(text, given.where)


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


def _plan(command: click.Command, file: ConfigFile) -> CheckPlan | None:
    """The audits of the file; making them checks the matrix."""
    if not table_at(file, ("check",)):
        return None
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
    return plan_of_file(context, {**read, "workers": 0})


_HEAD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "nvaudit.toml, or [tool.nvaudit] in a pyproject.toml",
}


def file_schema_text() -> str:
    """Write the schema, made from the declarations of the options."""
    every: dict[str, Any] = {}
    top: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    for words, command in configured_commands():
        options = {
            key: _shared(every, key, _option_schema(option))
            for key, option in options_by_key(command).items()
        }
        for key, schema in options.items():
            top.setdefault(key, schema)
        if structure_keys(words):
            options |= _matrix_schema(command, options)
        place = tables
        for word in words[:-1]:
            place = place.setdefault(word, _table_schema({}))["properties"]
        place[words[-1]] = _table_schema(options)
    # A word may name an option and a group of commands, as technology does: the kind of value tells which.
    for word, table in tables.items():
        top[word] = {"anyOf": [top[word], table]} if word in top else table
    return json.dumps({**_HEAD, **_table_schema(top), "$defs": every}, indent=1, ensure_ascii=False) + "\n"


def _shared(every: dict[str, Any], key: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Refer to a schema that several commands have; one with other words stands where it is."""
    return {"$ref": f"#/$defs/{key}"} if every.setdefault(key, schema) == schema else schema


def _table_schema(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    more = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, **more, "additionalProperties": False}


def _matrix_schema(command: click.Command, schemas_of: Mapping[str, Any]) -> dict[str, Any]:
    """The axes: every entry may have options of an audit."""
    options = {
        key: schemas_of[key]
        for key, option in options_by_key(command).items()
        if isinstance(option, FieldOption) and option.field.name not in CheckOptions.model_fields
    }
    text, names = {"type": "string"}, {"type": ["string", "array"], "items": {"type": "string"}}
    schemas: dict[str, Any] = {}
    for axis, key in AXIS_KEYS.items():
        entry = _table_schema({key: text, "name": text, **options}, (key,))
        schemas[axis] = {
            "type": "array",
            "items": entry if axis == "conditions" else {"anyOf": [text, entry]},
        }
    exception = _table_schema({**dict.fromkeys(NAME_KEYS, names), "skip": {"type": "boolean"}, **options})
    return {**schemas, "exceptions": {"type": "array", "items": exception}}


def _option_schema(option: click.Option) -> dict[str, Any]:
    """The schema of the value of an option."""
    said = {"description": option.help} if option.help else {}
    if isinstance(option, FieldOption):
        return {**_field_schema(option), "description": option.field.option.help}
    if option.is_flag:
        return {"type": "boolean", **said}
    if isinstance(option.type, click.Choice):
        return {"enum": list(option.type.choices), **said}
    numeric = isinstance(option.type, click.types.FloatParamType | click.types.IntParamType)
    return {"type": "number" if numeric else "string", **said}


def _field_schema(option: FieldOption) -> dict[str, Any]:
    """The schema of a field, made by pydantic; what is read from a text may be one."""
    field = option.field
    if field.switch:
        return {"type": "boolean"}
    one = option.part.model_json_schema()["properties"][field.name]
    one = next((kind for kind in one.get("anyOf", []) if kind.get("type") != "null"), one)
    one = {key: value for key, value in one.items() if key not in ("default", "title")}
    if field.option.read is not None:
        one = {"type": ["string", "number"]}
    elif "items" in one:
        one = one["items"]
    return {"anyOf": [one, {"type": "array", "items": one}]} if option.multiple else one


if __name__ == "__main__":
    click.echo(file_schema_text(), nl=False)

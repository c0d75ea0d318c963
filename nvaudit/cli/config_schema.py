"""The JSON schema of the configuration file: ``python -m nvaudit.cli.config_schema``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from nvaudit.cli.configured import configured_commands, options_by_key, structure_keys
from nvaudit.cli.options import FieldOption
from nvaudit.spec import AXIS_KEYS, NAME_KEYS, CheckOptions

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
            key: _shared(every, key, _option(option)) for key, option in options_by_key(command).items()
        }
        for key, schema in options.items():
            top.setdefault(key, schema)
        if structure_keys(words):
            options |= _matrix(command, options)
        place = tables
        for word in words[:-1]:
            place = place.setdefault(word, _table({}))["properties"]
        place[words[-1]] = _table(options)
    # A word may name an option and a group of commands, as technology does: the kind of value tells which.
    for word, table in tables.items():
        top[word] = {"anyOf": [top[word], table]} if word in top else table
    return json.dumps({**_HEAD, **_table(top), "$defs": every}, indent=1, ensure_ascii=False) + "\n"


def _shared(every: dict[str, Any], key: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Refer to a schema that several commands have; one with other words stands where it is."""
    return {"$ref": f"#/$defs/{key}"} if every.setdefault(key, schema) == schema else schema


def _table(properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    more = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, **more, "additionalProperties": False}


def _matrix(command: click.Command, schemas_of: Mapping[str, Any]) -> dict[str, Any]:
    """The axes: every entry may have options of an audit."""
    options = {
        key: schemas_of[key]
        for key, option in options_by_key(command).items()
        if isinstance(option, FieldOption) and option.field.name not in CheckOptions.model_fields
    }
    text, names = {"type": "string"}, {"type": ["string", "array"], "items": {"type": "string"}}
    schemas: dict[str, Any] = {}
    for axis, key in AXIS_KEYS.items():
        entry = _table({key: text, "name": text, **options}, (key,))
        schemas[axis] = {
            "type": "array",
            "items": entry if axis == "conditions" else {"anyOf": [text, entry]},
        }
    exception = _table({**dict.fromkeys(NAME_KEYS, names), "skip": {"type": "boolean"}, **options})
    return {**schemas, "exceptions": {"type": "array", "items": exception}}


def _option(option: click.Option) -> dict[str, Any]:
    """The schema of the value of an option."""
    said = {"description": option.help} if option.help else {}
    if isinstance(option, FieldOption):
        return {**_field(option), "description": option.field.option.help}
    if option.is_flag:
        return {"type": "boolean", **said}
    if isinstance(option.type, click.Choice):
        return {"enum": list(option.type.choices), **said}
    numeric = isinstance(option.type, click.types.FloatParamType | click.types.IntParamType)
    return {"type": "number" if numeric else "string", **said}


def _field(option: FieldOption) -> dict[str, Any]:
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

"""Turning pydantic's findings into the messages of this project: what, where, got, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from nvaudit.device.law import LAW_KINDS, LAW_TYPES
from nvaudit.device.profile import DeviceProfile, SigmaKnob, Source, TimeKnob, Window
from nvaudit.device.terms import SLUG, TERM_KINDS, TERM_TYPES, OneOverF, TableLevel
from nvaudit.errors import SHOWN, ProfileError, short
from nvaudit.profile_file import MAX_BYTES, parse_json

MAX_REPORTED = 10
_MODELS: dict[str, type[BaseModel]] = {
    **dict(zip(TERM_KINDS, TERM_TYPES, strict=True)),
    **dict(zip(LAW_KINDS, LAW_TYPES, strict=True)),
    "source": Source,
    "window": Window,
    "sigma": SigmaKnob,
    "time": TimeKnob,
    "levels": TableLevel,
    "one_over_f": OneOverF,
}
_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def _step(key: int | str) -> str:
    """One step of a path, quoted where the file's key is not a plain word."""
    text = str(key)
    plain = text.replace("_", "a").replace("-", "a").isalnum() and len(text) <= SHOWN
    return text if plain else short(text)


def _walk(location: tuple[int | str, ...], data: object) -> tuple[list[int | str], list[object]]:
    """Follow a location without the tags that pydantic adds: its keys, and the values on the way."""
    path: list[int | str] = []
    values: list[object] = [data]
    for key in location:
        here = values[-1]
        if isinstance(here, Mapping) and key not in here and key == here.get("kind"):
            continue
        path.append(key)
        values.append(_child(here, key))
    return path, values


def _child(value: object, key: int | str) -> object:
    if isinstance(value, Mapping):
        return value.get(key)
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return value[key]
    return None


def _known_keys(parent: object, path: list[int | str]) -> list[str]:
    """List the keys that the object holding an unknown key may have."""
    kind = parent.get("kind") if isinstance(parent, Mapping) else None
    model: type[BaseModel] | None = DeviceProfile
    if isinstance(kind, str):
        model = _MODELS.get(kind)
    elif len(path) > 1:
        owner = next((key for key in reversed(path[:-1]) if isinstance(key, str)), "")
        model = _MODELS.get(owner)
    return list(model.model_fields) if model is not None else []


def _kinds(path: list[int | str]) -> tuple[str, tuple[str, ...]]:
    """What the object at a path is one of, in words, and the kinds that there are."""
    is_term = len(path) == 2 and path[0] == "noise"
    return ("noise term", TERM_KINDS) if is_term else ("law", LAW_KINDS)


@dataclass(frozen=True)
class FileWords:
    """What may stand in a file of some sort.

    Attributes
    ----------
    keys : callable
        From the object that holds an unknown key, and the path of that key, to the keys that there may be.
    kinds : callable
        From the path of an object with a ``kind`` to what it is one of, in words, and the kinds there are.
    """

    keys: Callable[[object, list[int | str]], list[str]]
    kinds: Callable[[list[int | str]], tuple[str, tuple[str, ...]]]


DEVICE_FILE = FileWords(_known_keys, _kinds)


def _bad_kind(noun: str, kinds: tuple[str, ...], given: str) -> str:
    if not given:
        return f"missing; use one of {', '.join(kinds)}"
    return f"{given} is not a {noun}; use one of {', '.join(kinds)}"


def _limit(kind: str, context: Mapping[str, Any], value: str) -> str | None:
    """Describe a bound that does not hold."""
    match kind:
        case "greater_than_equal":
            return f"{value} is too small; make it {context['ge']:g} or more"
        case "greater_than":
            return f"{value} is too small; make it more than {context['gt']:g}"
        case "less_than_equal":
            return f"{value} is too large; make it {context['le']:g} or less"
        case "too_short":
            return f"{context['actual_length']} entries; give at least {context['min_length']}"
        case "too_long":
            return f"more than {context['max_length']} entries; give fewer"
        case "string_too_short":
            return "is empty; write what it is"
        case "string_too_long":
            return f"is longer than {context['max_length']} characters; shorten it"
        case "finite_number":
            return f"{value} is not a finite number; correct it"
        case _:
            return None


def _pattern(path: list[int | str], context: Mapping[str, Any], value: str) -> str:
    if context["pattern"] == SLUG:
        return f"{value} is not a name; use 1 to 64 of a-z, 0-9, '-' and '_', a letter or digit first"
    if path and path[-1] == "doi":
        return f"{value} is not a DOI; write it as '10.1000/xyz'"
    return f"{value} holds a control character; write plain text on one line"


def _describe(error: ErrorDetails, data: object, words: FileWords) -> str:
    """Describe one finding as `path: got; do`."""
    kind, context = error["type"], error.get("ctx", {})
    path, values = _walk(error["loc"], data)
    value = short(error["input"])
    if kind == "profile_rule":
        return ".".join([*map(_step, path), f"{context['path']}: {context['problem']}"])
    if kind == "union_tag_invalid":
        text = _bad_kind(*words.kinds(path), short(context["tag"]))
        path = [*path, "kind"]
    elif kind in ("json_invalid", "string_unicode"):
        text = "not valid text, such as half of a surrogate pair; save it as UTF-8"
    elif kind == "union_tag_not_found":
        is_object = isinstance(error["input"], Mapping)
        text = (
            _bad_kind(*words.kinds(path), "") if is_object else f"got {value}; write an object with a 'kind'"
        )
        path = [*path, "kind"] if is_object else path
    elif kind == "missing":
        text = "missing; add it"
    elif kind == "extra_forbidden":
        known = words.keys(values[-2], path)
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
        text = f"unknown key; {hint}"
    elif kind == "literal_error":
        choices = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        text = f"got {value}; use {'one of ' if ',' in choices else ''}{choices}"
    elif kind == "string_pattern_mismatch":
        text = _pattern(path, context, value)
    elif kind in _EXPECTED:
        text = f"got {value}; write {_EXPECTED[kind]}"
    else:
        text = _limit(kind, context, value) or f"got {value}; {error['msg']}"
    return f"{'.'.join(map(_step, path)) or 'the file'}: {text}"


def describe(error: ValidationError, where: str, data: object, words: FileWords = DEVICE_FILE) -> str:
    """Describe why a profile is invalid, one line per finding.

    Parameters
    ----------
    error : pydantic.ValidationError
        What pydantic found.
    where : str
        The file, as the user named it.
    data : object
        The JSON value that was validated.
    words : FileWords
        What may stand in such a file.

    Returns
    -------
    str
        ``where: path: got; what to do``, at most `MAX_REPORTED` lines.
    """
    errors = error.errors(include_url=False)
    lines = [f"{where}: {_describe(one, data, words)}" for one in errors[:MAX_REPORTED]]
    if len(errors) > MAX_REPORTED:
        lines.append(f"{where}: and {len(errors) - MAX_REPORTED} more")
    return "\n".join(lines)


Profile = TypeVar("Profile", bound=BaseModel)


def checked_file(model: type[Profile], text: str, where: str, words: FileWords = DEVICE_FILE) -> Profile:
    """Parse and check the text of a profile file, of a device or of a technology.

    Raises
    ------
    ProfileError
        Naming the key, what was found, and what to do; one line per finding.
    """
    if len(text) > MAX_BYTES:
        raise ProfileError(f"{where}: larger than 1 MiB; a profile holds a table, not a data set")
    data = parse_json(text, where)
    try:
        # From JSON rather than from `data`: strict typing then still takes a list for a tuple.
        return model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ProfileError(describe(error, where, data, words)) from None
    except (UnicodeError, RecursionError) as error:
        raise ProfileError(f"{where}: not valid text: {error}; save it as UTF-8") from None

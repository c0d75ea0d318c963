"""An option is declared once: as a field with its type, its limits and an :class:`Option`.

From that declaration come the check of a value, the words for what may be given, the option of the command
line with its help, and the table of options in the documentation.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from nvaudit.errors import OptionError

_LONGEST_SHOWN = 60
"""Characters of a wrong value in a message."""


@dataclass(frozen=True)
class Option:
    """How a field is called, explained and read on the command line.

    Attributes
    ----------
    help : str
        What it does, in sentences.
    unset : str
        What holds where it is not given, where the default value of the field does not say it.
    name : str
        The flag, where it is not the name of the field; without dashes it is an argument.
    short : str
        A second flag, such as ``-k``.
    was : tuple of str
        Flags of one release ago, the oldest first: still taken, with a note.
    metavar : str
        What stands for the value in the help.
    wanted : str
        What may be given, where type and limits do not say it: ``Annotated[int, Field(ge=1)]`` does.
    read : callable or None
        From one text to the value, raising ValueError; None for numbers, words and lists of them.
    write : callable
        From the default value to the text that is typed for it.
    repeatable : bool or None
        Whether it may be given several times; None: if the field is a list without a reader.
    off_only : bool
        For a switch that is on: only ``--no-…`` is an option.
    sweep : callable or None
        From one text to several values, of an option that a sweep may have several of; it is then also
        repeatable where a sweep can be asked for.
    """

    help: str
    unset: str = ""
    name: str = ""
    short: str = ""
    was: tuple[str, ...] = ()
    metavar: str = ""
    wanted: str = ""
    read: Callable[[str], object] | None = None
    write: Callable[[Any], str] = str
    repeatable: bool | None = None
    off_only: bool = False
    sweep: Callable[[str], tuple[object, ...]] | None = None


def one_of_several(text: str) -> tuple[str]:
    """Read one value of an option that is given several times, since its text may hold commas."""
    return (text,)


class Options(BaseModel):
    """Some of the options of a command, or all of them; specifications are composed of such parts.

    In a class with several bases the last base comes first: in reports and in messages.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    title: ClassVar[str] = "Options"
    """Over the options of this part in the help and in the documentation."""

    @classmethod
    def option(cls, field: str, /, **changes: Any) -> Option:
        """Give the :class:`Option` of a field, with changes for another specification that has it too."""
        return replace(fields_of(cls)[field].option, **changes)

    @classmethod
    def called(cls, name: str) -> str:
        """Name of a field for a caller, and in reports."""
        return name

    @classmethod
    def flag(cls, name: str) -> str:
        """Name of a field on the command line."""
        return fields_of(cls)[name].flag

    @classmethod
    def validated(cls, options: Mapping[str, object]) -> Self:
        """Validate options at the edge.

        Raises
        ------
        OptionError
            Naming each option that is wrong, what was found, and what is allowed.
        """
        options = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
        try:
            return cls.model_validate(options)
        except ValidationError as error:
            raise OptionError("; ".join(_messages(cls, error.errors(include_url=False)))) from None

    @classmethod
    def record_key(cls, name: str) -> str:
        """Name of a field in what ``--resume`` keeps: the first flag it had, so that old folders go on."""
        field = fields_of(cls).get(name)
        return field.option.was[0] if field is not None and field.option.was else cls.flag(name)

    @classmethod
    def refusal(cls, name: str, value: object) -> str:
        """Say that a value of a field is none that may be given."""
        field = fields_of(cls)[name]
        return f"{field.flag}: got {_shown(value)}; use {field.wanted}"

    def given(self, names: Iterable[str]) -> dict[str, JsonValue]:
        """Give fields by their names on the command line, as JSON, without what is not given.

        An option that comes with a new version is then no part of what an older one has kept.
        """
        values = self.model_dump(mode="json", include=set(names))
        return {
            self.record_key(name): value
            for name, value in values.items()
            if value is not None and value is not False and value != []
        }


@dataclass(frozen=True)
class Field:
    """A field of a specification, as the command line and the documentation see it.

    Attributes
    ----------
    name : str
        In Python, and in the JSON of a report.
    flag : str
        The long name on the command line, e.g. ``--batch-size``.
    wanted : str
        What may be given, in words.
    limits : str
        Those of a number, for the help, such as ``1<=x<=14``; else empty.
    many : bool
        Whether its value is a list to which each use of the option adds.
    default : object
        PydanticUndefined where it must be given.
    """

    name: str
    option: Option
    flag: str
    annotation: Any
    wanted: str
    limits: str
    many: bool
    default: Any

    @property
    def kind(self) -> Any:
        """The type of the value, or of one item of a list, without limits."""
        kind = _bare(self.annotation)[0]
        return _bare(get_args(kind)[0])[0] if _is_list(kind) else kind

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that may be given, where these are all."""
        return _words(self.kind)

    @property
    def is_list(self) -> bool:
        """Whether its value is a list of any length."""
        return _is_list(_bare(self.annotation)[0])

    @property
    def switch(self) -> bool:
        """Whether it is on or off, without a value."""
        return self.kind is bool

    def swept(self) -> Field:
        """Give the field as one whose value is a list: what a sweep may have several of."""
        option = self.option
        assert option.sweep is not None
        more = ",…|A:B" if self.kind is int else ",…"
        repeated = option.sweep is one_of_several or not option.metavar
        metavar = option.metavar if repeated else f"{option.metavar}{more}"
        several = "several, such as 4,6,8 or 4:8" if self.kind is int else "several between commas"
        wanted = f"{self.wanted}, or {'several, the option again for each' if repeated else several}"
        option = replace(option, read=option.sweep, metavar=metavar)
        return replace(self, option=option, wanted=wanted, many=True)

    def worded(self, **changes: Any) -> Field:
        """Give the field with another Option or default, for one command."""
        default = changes.pop("default", self.default)
        return replace(self, option=replace(self.option, **changes), default=default)

    def parse(self, text: str) -> object:
        """Read what was typed; limits are checked by the specification.

        Raises
        ------
        OptionError
            If it cannot be read.
        """
        read: Callable[[str], object] = self.option.read or (self.kind if self.kind in (int, float) else str)
        try:
            value = read(text)
        except OptionError as error:  # says what was found, and perhaps where
            text = str(error)
            raise OptionError(text if text.startswith("--") else f"{self.flag}: {text}") from None
        except ValueError:
            value = None
        if value is None or (self.choices and self.option.read is None and value not in self.choices):
            raise OptionError(f"{self.flag}: got {_shown(text)}; use {self.wanted}")
        return value

    def words(self, value: JsonValue) -> list[str]:
        """Give what is typed for a value, as JSON has it; nothing for one that holds without a word."""
        if self.switch:
            off = [f"--no-{self.flag[2:]}"] if self.default is not False else []
            return [self.flag] if value and self.default is not True else [] if value else off
        if value is None or value == []:
            return []
        items = value if self.many and isinstance(value, list) else [value]
        texts = [self._text(item) for item in items]
        return [
            word
            for text in texts
            for word in ([f"{self.flag}={text}"] if text.startswith("-") else [self.flag, text])
        ]

    def _text(self, value: JsonValue) -> str:
        if isinstance(value, float) and self.option.write is str:
            return repr(value).removesuffix(".0")
        return self.option.write(value)


@cache
def fields_of(spec: type[Options]) -> Mapping[str, Field]:
    """Give the declared fields of a specification or a part of one, by name, in order."""
    return {name: _field(name, info) for name, info in spec.model_fields.items()}


def parts_of(spec: type[Options]) -> tuple[type[Options], ...]:
    """Give the parts that a specification is composed of, in the order of their fields; itself if of none."""
    parts = tuple(
        base for base in reversed(spec.__bases__) if issubclass(base, Options) and base is not Options
    )
    return tuple(dict.fromkeys(part for base in parts for part in parts_of(base))) or (spec,)


def _field(name: str, info: FieldInfo) -> Field:
    option = next((item for item in info.metadata if isinstance(item, Option)), None)
    if option is None:
        raise TypeError(f"{name}: a field of a specification needs an Option")
    kind, limits = _bare(info.annotation, info.metadata)
    repeatable = _is_list(kind) and option.read is None if option.repeatable is None else option.repeatable
    return Field(
        name=name,
        option=option,
        flag=option.name or f"--{name.replace('_', '-')}",
        annotation=info.annotation,
        wanted=option.wanted or _wanted(kind, limits),
        limits="" if option.read is not None else _limits_text(kind, limits),
        many=repeatable,
        default=info.default,
    )


def _bare(annotation: Any, metadata: Iterable[Any] = ()) -> tuple[Any, dict[str, Any]]:
    """Take ``Annotated`` and ``… | None`` off a type; give it with its limits: ge, gt, le, lt, lengths."""
    constraints = list(metadata)
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            constraints += [
                part for item in more for part in (item.metadata if isinstance(item, FieldInfo) else [item])
            ]
        elif origin in (Union, types.UnionType) and len(set(get_args(annotation)) - {types.NoneType}) == 1:
            (annotation,) = set(get_args(annotation)) - {types.NoneType}
        else:
            break
    names = ("ge", "gt", "le", "lt", "min_length", "max_length")
    limits = {name: getattr(item, name) for item in constraints for name in names if hasattr(item, name)}
    return annotation, limits


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis


def _words(kind: Any) -> tuple[str, ...]:
    """The words of a Literal, or of a union of such."""
    if get_origin(kind) in (Union, types.UnionType) and all(map(_words, get_args(kind))):
        return tuple(word for part in get_args(kind) for word in _words(part))
    return get_args(kind) if get_origin(kind) is Literal else ()


def _wanted(kind: Any, limits: Mapping[str, Any]) -> str:
    """Say what may be given.

    Examples
    --------
    >>> _wanted(int, {"ge": 1, "le": 14}), _wanted(float, {"gt": 0})
    ('a whole number from 1 to 14', 'a finite number above 0')
    """
    if kind is bool:
        return "true or false"
    if words := _words(kind):
        return f"one of {', '.join(words)}"
    if _is_list(kind):
        each = _wanted(*_bare(get_args(kind)[0])).removeprefix("a ").replace("number", "numbers", 1)
        least, most = limits.get("min_length"), limits.get("max_length")
        return f"{least} to {most} {each}" if least else f"at most {most} {each}"
    if kind is int:
        return _wanted_int(limits)
    if kind is float:
        return _wanted_float(limits)
    raise TypeError(f"an Option for {kind} needs words for what is wanted")


def _wanted_int(limits: Mapping[str, Any]) -> str:
    least = limits["gt"] + 1 if "gt" in limits else limits.get("ge")
    most = limits["lt"] - 1 if "lt" in limits else limits.get("le")
    if least is None:
        return "a whole number" + (f", at most {most}" if most is not None else "")
    return f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"


def _wanted_float(limits: Mapping[str, Any]) -> str:
    above, least, below, most = (limits.get(name) for name in ("gt", "ge", "lt", "le"))
    high = f" below {below:g}" if below is not None else ""
    if most is not None:
        high = f" at most {most:g}".replace("e+", "e")
    low = f" above {above:g}" if above is not None else ""
    if least is not None:
        if most is not None and most <= _ENDLESS:
            return f"a number from {least:g} to {most:g}"
        low = f", {least:g} or more"
    between = "" if not low or not high else " and" if above is not None and below is not None else ","
    top = below if most is None else most
    bounded = bool(low) and top is not None and top <= _ENDLESS
    return f"a {'' if bounded else 'finite '}number{low}{between}{high}"


_ENDLESS = 1e6
"""A larger limit is beyond what anyone gives, and not worth a place in the help."""


def _limits_text(kind: Any, limits: Mapping[str, Any]) -> str:
    """Show the limits of a number as in ``1<=x<=14``."""
    if kind not in (int, float):
        return ""
    low = f"{limits['ge']:g}<=" if "ge" in limits else f"{limits['gt']:g}<" if "gt" in limits else ""
    sign, most = ("<=", limits["le"]) if "le" in limits else ("<", limits.get("lt", math.inf))
    if most <= _ENDLESS:
        return f"{low}x{sign}{most:g}"
    return f"x>={limits['ge']:g}" if "ge" in limits else f"x>{limits['gt']:g}" if "gt" in limits else ""


def _messages(kind: type[Options], errors: list[ErrorDetails]) -> Iterable[str]:
    # A bad item also makes its list too short: only the item is worth a message.
    items = {error["loc"][0] for error in errors if len(error["loc"]) > 1}
    relevant = [error for error in errors if len(error["loc"]) > 1 or error["loc"][0] not in items]
    return dict.fromkeys(_message(kind, error) for error in relevant)


def _message(kind: type[Options], error: ErrorDetails) -> str:
    name, fields = str(error["loc"][0]), fields_of(kind)
    if name not in fields:
        return f"{name}: there is no such option; {_near(name, fields)}"
    field = fields[name]
    if error["type"] == "missing":
        return f"{field.flag}: missing; give {field.wanted}"
    # A validator of ours may say more than the type does.
    more = str(error["ctx"]["error"]) if error["type"] == "value_error" else ""
    return kind.refusal(name, error["input"]) + (f", {more}" if more else "")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


def _near(name: str, fields: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, fields, n=1)
    return f"did you mean {near[0]}?" if near else f"use one of {', '.join(fields)}"

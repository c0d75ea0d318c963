"""Options of the command line, made from the fields of specifications; and the few that are none."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.types import OptionHelpExtra
from pydantic_core import PydanticUndefined

from nvaudit.cli.say import tell
from nvaudit.declare import Field, Options, fields_of, parts_of
from nvaudit.errors import ModelError
from nvaudit.options import RunOptions
from nvaudit.perturb.watchdog import LOOP_SECONDS, VARIABLE


class RenamedOption(click.Option):
    """An option that is understood under old names too, which no help shows.

    Parameters
    ----------
    was : sequence of str
        The old names, e.g. ``--comparison``.
    """

    def __init__(self, *args: Any, was: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.was = tuple(was)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Have the parser take old names for this option."""
        super().add_to_parser(parser, ctx)
        if self.was:
            action = "append" if self.multiple else "store"
            parser.add_option(obj=self, opts=list(self.was), dest=self.name, action=action, nargs=self.nargs)

    def note(self, args: Sequence[str]) -> None:
        """Name the new spelling where an old one was typed."""
        new = max(self.opts, key=len)
        for old in self.was:
            if any(arg == old or arg.startswith(f"{old}=") for arg in args):
                tell(f"nvaudit: {old} is now {new}; the old spelling goes with the next release")


Command = TypeVar("Command", bound=Callable[..., Any])


class TypedOption(click.Option):
    """An option that says what a command is to do this time: it does not stand in the configuration file."""


class FilePath(click.ParamType[Path]):
    """A path; an empty one, as from an unset shell variable, is refused rather than read as ``.``."""

    name = "PATH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read a path."""
        if str(value) == "":
            self.fail("it is empty; name a file", param, ctx)
        return Path(value)


class ModelPath(FilePath):
    """The path of a model: a folder such as ``.`` is no file, and has no data beside it either."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Read a path that ends in a name."""
        path = super().convert(value, param, ctx)
        if not path.name:
            raise ModelError(f"{path}: is not a file; give an .onnx model")
        return path


class FieldType(click.ParamType[Any]):
    """What a field reads from one text; its error is that of the library."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self.name = "|".join(field.choices) or "TEXT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a text; a default value is none."""
        return self._field.parse(value) if isinstance(value, str) else value

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """Show the words that may be given."""
        return f"[{'|'.join(self._field.choices)}]" if self._field.choices else None


class SectionOption(RenamedOption):
    """An option that stands in a section of the help."""

    def __init__(self, *arguments: Any, section: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.section = section


class FieldOption(SectionOption):
    """The option of a field; ``part`` is the part of the specification that declares it.

    ``swept`` is whether it takes several values where the field is one.
    """

    def __init__(self, *arguments: Any, field: Field, part: type[Options], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.field = field
        self.part = part
        self.swept = field.many and not field.is_list

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        """Say what holds without the option, and between which limits its value lies."""
        extra = super().get_help_extra(ctx)
        if self.field.option.unset:
            extra["default"] = self.field.option.unset
        if self.field.limits:
            extra["range"] = self.field.limits
        return extra


ONE_SIGMA = {"sigmas": {"help": "Device variation in the profile's unit.", "metavar": "S"}}
"""Words for a command that takes one value where an audit takes several."""


MINUTES_OF_ALL = {
    "help": "Time of all audits together: each has its share of what is left, and then reports the chips "
    "that are done."
}
"""Words for --max-minutes of a command that makes several audits."""


def many_audits(what: str) -> dict[str, dict[str, str]]:
    """Words for a command that makes ``what`` of many audits, each with one sigma and one percentile."""
    return {
        **ONE_SIGMA,
        "data": {
            "help": "Evaluation data, as for `audit`.",
            "unset": f"MODEL.npz beside the model; without it the {what} is label-free",
        },
        "metric": {"help": "As for `audit`.", "unset": "by the labels and outputs"},
        "percentiles": {"help": "Percentile of the KPP."},
        "confidence": {"help": "Of every interval."},
    }


def spec_options(
    *specs: type[Options],
    without: Collection[str] = (),
    only: Collection[str] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    swept: bool = False,
) -> Callable[[Command], Command]:
    """Give a command the options of specifications, or of parts of them, in their order.

    Parameters
    ----------
    without, only : collection of str
        Fields that the command does not take, or those that it takes.
    own : mapping
        Of fields for which the command has other words: attributes of :class:`nvaudit.declare.Option`,
        and ``default``.
    swept : bool
        Whether options of a sweep may have several values; the command is given tuples of them.
    """
    chosen = []
    for spec in specs:
        for part in parts_of(spec):
            for name in part.model_fields:
                field = fields_of(spec)[name].worded(**(own or {}).get(name, {}))
                field = field.swept() if swept and field.option.sweep is not None else field
                if name not in without and (only is None or name in only) and field.flag.startswith("--"):
                    chosen.append(_click_option(field, part, spec.called(name)))
    return stack(*chosen)


def _click_option(field: Field, part: type[Options], called: str) -> Callable[[Command], Command]:
    """Make one option of a field; its value comes to the command under the name that a caller would use."""
    option, default = field.option, field.default
    flags = [field.flag, *([option.short] if option.short else [])]
    given: dict[str, Any] = {
        "cls": FieldOption,
        "field": field,
        "part": part,
        "section": part.title,
        "help": option.help,
        "was": option.was,
    }
    if field.switch:
        if option.off_only:
            return click.option(f"--no-{field.flag[2:]}", called, flag_value=False, default=None, **given)
        if default is not False:
            flags = [f"{field.flag}/--no-{field.flag[2:]}"]
        return click.option(*flags, called, is_flag=True, default=default, show_default=True, **given)
    given |= {"type": FieldType(field), "metavar": option.metavar or None}
    if field.many:
        spread = _spread if option.read is not None else None
        given |= {"multiple": True, "callback": spread}
    if option.unset or default is None or default is PydanticUndefined or default == ():
        default = None
    elif option.write is not str:
        default = option.write(default)
    if field.many and not field.is_list and default is not None:
        default = (default,)
    return click.option(*flags, called, default=default, show_default=True, **given)


def _spread(
    ctx: click.Context, param: click.Parameter, values: tuple[tuple[Any, ...], ...]
) -> tuple[Any, ...]:
    """Join the lists that each use of an option gives, each value once, in order."""
    return tuple(dict.fromkeys(value for group in values for value in group))


def stack(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Make one decorator of several; the first gives the first options."""

    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


def watchdog_option() -> Callable[[Command], Command]:
    """The limit on one pass of the model; it goes into the environment, which worker processes inherit."""

    def apply(ctx: click.Context, param: click.Parameter, value: float | None) -> None:
        if value is None:
            return
        if not math.isfinite(value):
            raise click.BadParameter(f"{value} is no number of seconds", ctx, param)
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = repr(value)
        ctx.call_on_close(lambda: _restore(before))

    return click.option(
        "--pass-timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", callback=apply,
        expose_value=False, cls=SectionOption, section=RunOptions.title,
        help="Stop a forward pass of the model that takes longer.  [default: "
        f"{LOOP_SECONDS:g} where the model has a Loop, which may never end; else no limit]",
    )  # fmt: skip


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = before

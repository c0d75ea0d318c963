"""Commands that take an option once: of two values click would keep the last one and say nothing."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from nvaudit.cli.configured import ConfigOption, has_options, take_defaults, tell_used
from nvaudit.cli.options import RenamedOption

_OTHERS = "Options"


class OnceCommand(click.Command):
    """A command that refuses an option with two values, unless it is declared to be repeatable.

    What is not typed has the values of the configuration file.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        if has_options(self):
            self.params.append(ConfigOption())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, after a look at what is given twice."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        self._refuse_repeats(ctx, args)
        for option in self.params:
            if isinstance(option, RenamedOption):
                option.note(args)
        if has_options(self) and not {"-h", "--help"} & set(args):
            take_defaults(self, ctx, self.make_parser(ctx).parse_args(args=list(args))[0].get("config"))
        rest = super().parse_args(ctx, args)
        tell_used(self, ctx)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in sections: those of each part of a specification, then the others."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(param, "section", _OTHERS), []).append(record)
        others = sections.pop(_OTHERS)
        for title, records in [*sections.items(), ("Output" if sections else _OTHERS, others)]:
            with formatter.section(title):
                formatter.write_dl(records)

    def _refuse_repeats(self, ctx: click.Context, args: Sequence[str]) -> None:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for option, times in Counter(order).items():
            if times > 1 and isinstance(option, click.Option) and not option.multiple and not option.count:
                values = self._values(ctx, args, option)
                if option.is_flag and len(set(values)) == 1:
                    continue  # a switch that is given twice says nothing else
                given = " and ".join(values)
                raise click.UsageError(
                    f"{max(option.opts, key=len)} is given {times} times: {given}; give it once", ctx
                )

    def _values(self, ctx: click.Context, args: Sequence[str], option: click.Option) -> list[str]:
        """Everything that was given for an option: it is parsed again as a repeatable one."""
        every = copy.copy(option)
        every.multiple = True
        params, self.params = self.params, [every if param is option else param for param in self.params]
        try:
            given = self.make_parser(ctx).parse_args(args=list(args))[0][option.name or ""]
        finally:
            self.params = params
        if option.is_flag and option.secondary_opts:
            return [option.opts[0] if value else option.secondary_opts[0] for value in given]
        return [option.opts[0] if option.is_flag else _shown(value, option) for value in given]


class OnceGroup(click.Group):
    """A group whose commands are such."""

    command_class = OnceCommand


def _shown(value: Any, option: click.Option) -> str:
    if isinstance(value, tuple | list):
        return repr(" ".join(map(str, value)))
    return repr(value) if isinstance(value, str) else option.opts[0]  # given without its optional value

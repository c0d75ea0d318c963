"""Options whose spelling has changed: the old one is taken for one release, with a note."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from nvaudit.cli.say import tell


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

"""Progress on standard error: a bar with an ETA on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from nvaudit.cli.say import PlainConsole, tell

Command = TypeVar("Command", bound=Callable[..., Any])

_LINE_EVERY_S = 15.0


def quiet_option() -> Callable[[Command], Command]:
    """The option of a command that shows its progress."""
    return click.option("--quiet", "-q", is_flag=True, help="No progress.")


class ProgressDisplay:
    """A context manager that is called with (what, done, total)."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = PlainConsole(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._began = self._last = time.monotonic()
        self._first = 0
        self._what = ""

    def __enter__(self) -> ProgressDisplay:
        # FORCE_COLOR, common in CI, makes rich take any stream for a terminal: ask the stream itself.
        if not self._quiet and self._console.is_interactive and sys.stderr.isatty():
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("starting", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show where the run is."""
        if self._bar is not None and self._task is not None:
            if what != self._what:
                self._bar.reset(self._task)
            self._what = what
            self._bar.update(self._task, description=what, completed=done, total=total if total > 1 else None)
        elif not self._quiet:
            self._line(what, done, total)

    def _line(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._began, self._last, self._first = what, now, now, done
            return
        if now - self._last < _LINE_EVERY_S or not self._first < done < total:
            return
        self._last = now
        left = (now - self._began) / (done - self._first) * (total - done)
        tell(f"nvaudit: {what} {done}/{total}, about {_duration(left)} left")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

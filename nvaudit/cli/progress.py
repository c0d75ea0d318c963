"""Progress on standard error: a bar with an ETA on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
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

_LONG_S = 60.0
"""Of work that takes longer it is said at its beginning about how long it takes."""

_TIMED_S, _TIMED_STEPS = 2.0, 3
"""After this time and so many steps their pace is known."""


def quiet_option() -> Callable[[Command], Command]:
    """The option of a command that shows its progress."""
    return click.option("--quiet", "-q", is_flag=True, help="No progress.")


class ProgressDisplay:
    """A context manager that is called with (what, done, total).

    Parameters
    ----------
    minutes : float, optional
        After which the run ends with what it has: no time that is shown is longer.
    """

    def __init__(self, quiet: bool = False, minutes: float | None = None) -> None:
        self._quiet = quiet
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._estimated: set[str] = set()
        self._console = PlainConsole(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._began = self._last = self._told = time.monotonic()
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
        if self._quiet:
            return
        now = time.monotonic()
        fresh = what != self._what
        if fresh:
            self._what, self._began, self._last, self._first = what, now, now, done
        early = self._tells_early(what, done, total, now)
        if self._bar is not None and self._task is not None:
            if fresh:
                self._bar.reset(self._task)
            self._bar.update(self._task, description=what, completed=done, total=total if total > 1 else None)
            if early:  # the bar's own estimate is gone with the bar
                self._console.print(self._line(done, total, now), markup=False, highlight=False)
        elif fresh and now - self._told >= _LINE_EVERY_S and done < total:
            # Many short pieces of work, none of which comes to a line of its own, are not silent either.
            self._told = now
            tell(f"nvaudit: {what}")
        elif early or (now - self._last >= _LINE_EVERY_S and self._first < done < total):
            self._last = self._told = now
            tell(self._line(done, total, now))

    def estimated(self, text: str) -> None:
        """Say how long a run of several parts will take."""
        if not self._quiet:
            tell(f"nvaudit: {text}")

    def _tells_early(self, what: str, done: int, total: int, now: float) -> bool:
        """Whether this is when to say, once, how long a long piece of work takes: its pace is just known."""
        steps, spent = done - self._first, now - self._began
        known = steps >= _TIMED_STEPS and spent >= _TIMED_S
        if not known or done >= total or what in self._estimated:
            return False
        self._estimated.add(what)
        return spent / steps * (total - self._first) > _LONG_S

    def _line(self, done: int, total: int, now: float) -> str:
        return f"nvaudit: {self._what} {done}/{total}, {self._left(done, total, now)}"

    def _left(self, done: int, total: int, now: float) -> str:
        """How long the rest takes at the pace so far; at most until the time is over."""
        left = (now - self._began) / (done - self._first) * (total - done)
        if left <= self._end - now:
            return f"about {_duration(left)} left"
        return f"at most {_duration(max(self._end - now, 0.0))} left (--max-minutes)"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

"""Ending a run early with what it has: at the user's wish, or because its time is over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_at_abort: list[Callable[[], None]] = []


class Stop:
    """What a run looks at between chips.

    A signal handler calls :meth:`interrupt`. While chips are run (:meth:`waited_for`), the run itself ends
    in good order; at any other time the handler must end it.
    """

    def __init__(self) -> None:
        self.interrupted = False
        """Whether the user wants the run to end."""
        self.time_over = False
        """Whether the run has ended because its time was over."""
        self._deadline: float | None = None
        self._waited_for = False

    def interrupt(self) -> bool:
        """Ask the run to end; whether it will do so by itself."""
        self.interrupted = True
        return self._waited_for

    def end_in(self, seconds: float | None) -> None:
        """Let the time be over in some seconds; None: never."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    @contextlib.contextmanager
    def ending_in(self, minutes: float | None) -> Iterator[None]:
        """Let the time be over inside the block only, in some minutes; None: never."""
        self.end_in(None if minutes is None else 60 * minutes)
        try:
            yield
        finally:
            self.end_in(None)

    def due(self) -> bool:
        """Whether there is a reason to end now."""
        return self.interrupted or (self._deadline is not None and time.monotonic() > self._deadline)

    @contextlib.contextmanager
    def waited_for(self) -> Iterator[None]:
        """Say that the run looks at this object while it is inside the block."""
        self._waited_for = True
        try:
            yield
        finally:
            self._waited_for = False


DEFAULT_S = 600.0
"""About what chips may take of which the user gave neither the number nor a time."""

_LEAST_MINUTES = 1e-6
"""What a part has whose time is over before it begins: it ends as soon as it has something to show."""


@dataclass(frozen=True)
class TimeLimit:
    """The time of a run of several parts, one after the other.

    Attributes
    ----------
    minutes : float or None
        None for no limit.
    begin : float
        When the time began, as ``time.perf_counter`` has it.
    """

    minutes: float | None
    begin: float = field(default_factory=time.perf_counter)

    def share(self, of_rest: float = 1.0) -> float | None:
        """Minutes of a part that may take a share of what is left; None for no limit."""
        if self.minutes is None:
            return None
        return max(of_rest * (self.minutes - self.spent), _LEAST_MINUTES)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.minutes is not None and self.spent >= self.minutes

    @property
    def spent(self) -> float:
        """Minutes since it began."""
        return (time.perf_counter() - self.begin) / 60


@contextlib.contextmanager
def at_abort(action: Callable[[], None]) -> Iterator[None]:
    """Have something done also where the process is ended at once: kill a worker, remove a folder."""
    _at_abort.append(action)
    try:
        yield
    finally:
        _at_abort.remove(action)


def abort() -> None:
    """Do what :func:`at_abort` was told, the newest first; the caller ends the process."""
    for action in reversed(list(_at_abort)):
        with contextlib.suppress(Exception):
            action()

"""Ending a run early with what it has: at the user's wish, or because its time is over."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
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

    def due(self, ahead_s: float = 0.0) -> bool:
        """Whether there is a reason to end now, or before what takes so many seconds would be done."""
        return self.interrupted or (
            self._deadline is not None and time.monotonic() + ahead_s > self._deadline
        )

    @property
    def left_s(self) -> float:
        """Seconds until the time is over; infinite where it never is."""
        return math.inf if self._deadline is None else self._deadline - time.monotonic()

    def drain_s(self) -> float:
        """Seconds that calls which are begun are waited for, once the run is to end."""
        if self.interrupted or self._deadline is None:
            return DRAIN_S
        return max(self.left_s, 0.0) + _LATE_S

    @contextlib.contextmanager
    def waited_for(self) -> Iterator[None]:
        """Say that the run looks at this object while it is inside the block."""
        self._waited_for = True
        try:
            yield
        finally:
            self._waited_for = False


DRAIN_S = 10.0
"""How long a run that is to end waits for the calls that are begun."""

_LATE_S = 2.0
"""By how much a call may be late that was to be done in time."""

DEFAULT_S = 600.0
"""About what chips may take of which the user gave neither the number nor a time."""

_LEAST_MINUTES = 1e-6
"""What a part has whose time is over before it begins: it ends as soon as it has something to show."""

_SHOWING_S = 1.0
"""What a command takes at its end to make its report and to show it."""

_command_began: ContextVar[float | None] = ContextVar("_command_began", default=None)


@contextlib.contextmanager
def command_began(at: float) -> Iterator[None]:
    """Let the time of the run inside begin with its command: ``at``, as ``time.perf_counter`` has it."""
    token = _command_began.set(at)
    try:
        yield
    finally:
        _command_began.reset(token)


@dataclass(frozen=True)
class TimeLimit:
    """The time of a run of several parts, one after the other.

    Attributes
    ----------
    minutes : float or None
        None for no limit.
    begin : float
        When the time began, as ``time.perf_counter`` has it.
    end_s : float
        Seconds at its end that no part may take.
    """

    minutes: float | None
    begin: float = field(default_factory=time.perf_counter)
    end_s: float = 0.0

    @classmethod
    def of_run(cls, minutes: float | None) -> TimeLimit:
        """The time of a run that begins; of the first one in a command it began with the command."""
        at = _command_began.get()
        if at is None:
            return cls(minutes)
        _command_began.set(None)  # runs inside this one begin when they begin
        return cls(minutes, at, _SHOWING_S)

    def share(self, of_rest: float = 1.0) -> float | None:
        """Minutes of a part that may take a share of what is left; None for no limit."""
        if self.minutes is None:
            return None
        return max(of_rest * (self.minutes - self.end_s / 60 - self.spent), _LEAST_MINUTES)

    @property
    def left_s(self) -> float:
        """Seconds that parts may still take; infinite for no limit."""
        return math.inf if self.minutes is None else 60 * (self.minutes - self.spent) - self.end_s

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

"""Ctrl-C and SIGTERM: the first ends a run in good order with what it has, the second one at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

from nvaudit.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from nvaudit.perturb.stop import Stop

_TWICE_S = 0.3
"""Signals within this time are one: a terminal, `timeout` and a service manager may each send it."""

_stops: list[Stop] = []
_first: float | None = None


def install() -> None:
    """Handle the signals; one that is ignored, as under nohup and in background jobs, stays so."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # not every system has all
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Give a run what it looks at between chips."""
    from nvaudit.perturb.stop import Stop

    stop = Stop()
    _stops.append(stop)
    try:
        yield stop
    finally:
        _stops.remove(stop)


def _handle(number: int, frame: FrameType | None) -> None:
    global _first
    now = time.monotonic()
    if _first is None:
        _first = now
        waited_for = [stop.interrupt() for stop in _stops]
        if any(waited_for):
            _write("nvaudit: interrupted; finishing the chips that are begun (once more to stop at once)")
            return
        raise KeyboardInterrupt
    if now - _first > _TWICE_S:
        _leave()


def _leave() -> None:
    """End the process now; workers and working files go with it."""
    if "nvaudit.perturb.stop" in sys.modules:
        sys.modules["nvaudit.perturb.stop"].abort()
    _write("nvaudit: interrupted twice; stopped at once")
    os._exit(EXIT_INTERRUPTED)


def _write(line: str) -> None:
    # Not through sys.stderr, which may be in the middle of a line of its own.
    with contextlib.suppress(OSError):
        cursor = "\r\x1b[K\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides it
        os.write(2, f"{cursor}{line}\n".encode())

"""Calls into ONNX Runtime that can be ended: by a limit on their time, by Ctrl-C, by the end of a run.

A model may hold a Loop whose condition never becomes false. ONNX Runtime looks at a flag before each node, so
a run is ended by setting that flag from another thread: from the watch below where it takes too long, from
:func:`end_calls` where the run is over, and from the waiting main thread where a signal arrives.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from nvaudit.errors import ModelError, OptionError
from nvaudit.perturb.memory import available_bytes, resident_bytes

Result = TypeVar("Result")

VARIABLE = "NVAUDIT_PASS_TIMEOUT"
"""Seconds in the environment, which worker processes inherit; ``--pass-timeout`` sets it."""

LOOP_SECONDS = 120.0
"""Limit for a model with a Loop where none is given. Without a Loop every pass comes to an end."""

GRACE_SECONDS = 30.0
"""How long an ended call may take to return: it finishes the node that it is in."""

_TICK = 0.2


@dataclass
class _Call:
    """One call that is running.

    Attributes
    ----------
    end : callable
        Asks ONNX Runtime to end it.
    loops : callable
        Names the Loop nodes of its model.
    begin : float
        When it began.
    limit : float or None
        As asked for; None where the default holds.
    message : str
        Why it was ended; empty while it was not.
    looked : bool
        Its model was read for Loop nodes.
    most : float
        Bytes of this process beyond which a call with a Loop is ended: what there were at its begin, and half
        of what was free.
    """

    end: Callable[[], None]
    loops: Callable[[], tuple[str, ...]]
    begin: float
    limit: float | None
    message: str = ""
    looked: bool = False
    most: float = math.inf


_calls: dict[int, _Call] = {}
_numbers = itertools.count()
_lock = threading.Lock()
_watch: threading.Thread | None = None


def pass_limit() -> float | None:
    """Seconds that one pass may take, as asked for; None where nothing was.

    Raises
    ------
    OptionError
        If the environment holds something else.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise OptionError(f"{VARIABLE}: got {text[:40]!r}; use a number of seconds above 0")
    return seconds


def guarded(
    call: Callable[[], Result], end: Callable[[], None], loops: Callable[[], tuple[str, ...]]
) -> Result:
    """Make a call into ONNX Runtime that can be ended.

    Parameters
    ----------
    call : callable
        It may raise what it likes.
    end : callable
        Makes it return or raise soon; called from another thread.
    loops : callable
        Names the Loop nodes of the model; called only where the call takes long.

    Returns
    -------
    object
        What the call returns.

    Raises
    ------
    ModelError
        If the call took longer than it may.
    """
    entry = _Call(end, loops, time.monotonic(), pass_limit())
    with _watched(entry):
        try:
            return _beside(call, entry) if _hears_signals() else call()
        except Exception as error:
            if entry.message:
                raise ModelError(entry.message) from error
            raise


def end_calls() -> None:
    """End every call that is running in this process."""
    for entry in list(_calls.values()):
        entry.end()


@contextlib.contextmanager
def ended_with() -> Iterator[None]:
    """End the running calls where this block fails: else leaving a pool of threads waits for them."""
    try:
        yield
    except BaseException:
        end_calls()
        raise


def _hears_signals() -> bool:
    """Whether signals have to reach this thread; in a worker process they have not."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return any(callable(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM))


def _beside(call: Callable[[], Result], entry: _Call) -> Result:
    """Make a call in a thread: while the main thread is in native code, no signal reaches Python."""
    results: list[Result] = []
    failed: list[BaseException] = []
    over = threading.Event()  # not join: interrupted, it takes a running thread for one that has ended

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            failed.append(error)
        finally:
            over.set()

    threading.Thread(target=work, name="nvaudit-pass", daemon=True).start()
    try:
        over.wait()
    except BaseException:
        entry.end()
        over.wait(GRACE_SECONDS)
        raise
    if failed:
        raise failed[0]
    return results[0]


@contextlib.contextmanager
def _watched(entry: _Call) -> Iterator[None]:
    global _watch
    number = next(_numbers)
    _calls[number] = entry
    if _watch is None or not _watch.is_alive():  # a thread does not survive a fork
        with _lock:
            if _watch is None or not _watch.is_alive():
                _watch = threading.Thread(target=_look, name="nvaudit-watch", daemon=True)
                _watch.start()
    try:
        yield
    finally:
        del _calls[number]


def _look() -> None:
    """End what takes too long."""
    while True:
        time.sleep(_TICK)
        now = time.monotonic()
        for entry in list(_calls.values()):
            if now - entry.begin > (LOOP_SECONDS if entry.limit is None else entry.limit):
                _judge(entry)
            elif not entry.message and now - entry.begin > _TICK:
                _weigh(entry)


def _weigh(entry: _Call) -> None:
    """End a call whose Loop makes its tensors larger and larger: no shape tells that beforehand."""
    held = resident_bytes()
    # The measure is taken at the first look, a tick after the call began: most calls are over before that,
    # and cost no reading of the memory.
    if math.isinf(entry.most):
        entry.most = held + available_bytes() / 2
    if held > entry.most and (names := entry.loops()):
        entry.message = (
            "a forward pass of the model has taken more than half of the memory that was free and was "
            f"stopped: {_holds(names)}, which may make larger and larger tensors; export it with a bound on "
            "its iterations, or use a smaller --batch-size"
        )
        entry.end()


def _judge(entry: _Call) -> None:
    """Decide about a call that is over its limit."""
    if entry.message:
        entry.end()
        return
    # Without a limit only a Loop can go on for ever; the model is read for one once, not at every tick.
    if entry.limit is None and entry.looked:
        return
    names = entry.loops()
    entry.looked = True
    if entry.limit is None and not names:
        return
    seconds = LOOP_SECONDS if entry.limit is None else entry.limit
    entry.message = f"a forward pass of the model has taken more than {seconds:g} s and was stopped"
    if names:
        entry.message += (
            f": {_holds(names)}, which may never end; export it with a bound on its iterations, or allow "
            "more with --pass-timeout SECONDS"
        )
    else:
        entry.message += "; allow more with --pass-timeout SECONDS, or use a smaller --batch-size"
    entry.end()


def _holds(names: tuple[str, ...]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:3]) + (", …" if len(names) > 3 else "")
    return f"it holds {'Loop nodes' if len(names) > 1 else 'the Loop node'} {shown}"

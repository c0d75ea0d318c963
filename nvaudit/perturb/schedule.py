"""Keeping a pool busy: the one loop through which chips, races, pilots and points of a landscape go."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import islice
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from nvaudit.perturb.stop import DRAIN_S
from nvaudit.perturb.workers import Pool

Call = TypeVar("Call")
Result = TypeVar("Result")

Progress: TypeAlias = Callable[[str, int, int], None]
"""Told what is being done, how many are done, and how many there are."""

_LOOK_S = 0.2
"""How often a run that waits for a call looks whether it is to end."""


def quiet(what: str, done: int, total: int) -> None:
    """Tell nobody of the progress."""


def labelled(progress: Progress, label: str) -> Progress:
    """Say with every step what it belongs to."""
    return lambda what, done, total: progress(f"{label}: {what}", done, total)


class Finished(NamedTuple, Generic[Call, Result]):
    """A call with its result; ``known`` where it was not run because its result was known already."""

    call: Call
    result: Result
    known: bool


@dataclass(frozen=True)
class Ending(Generic[Call]):
    """How a run may end before all its calls are made.

    Attributes
    ----------
    due : callable
        Whether it is to end now; asked between calls, with one that is running or comes next.
    rest : callable
        Given the calls that were not begun: those that are still to be made, in order.
    left : callable
        Told of each call that was running when the loop gave up.
    drain_s : callable
        Seconds that calls which are begun are waited for, once the run is to end.
    """

    due: Callable[[Call], bool]
    rest: Callable[[Iterable[Call]], Iterable[Call]] = lambda calls: ()
    left: Callable[[Call], None] = lambda call: None
    drain_s: Callable[[], float] = lambda: DRAIN_S


def completed(
    pool: Pool,
    todo: deque[Call],
    submit: Callable[[Call], Future[Result]],
    known: Callable[[Call], Result | None] = lambda call: None,
    ending: Ending[Call] | None = None,
) -> Iterator[Finished[Call, Result]]:
    """Run calls, never more at once than the pool has use for.

    Parameters
    ----------
    todo : deque
        Taken from its left end; whoever takes the results may add calls to it.
    submit : callable
        Hands one call to the pool.
    known : callable
        The result of a call that need not be made, else None.
    ending : Ending, optional
        None: the run goes on until all calls are made.

    Yields
    ------
    Finished
        In order of completion. A run that is to end brings the calls that are begun to their end, for some
        seconds: in a race chips take long because of what they are like, and without the slow ones the
        others would look better than they are.
    """
    running: dict[Future[Result], Call] = {}
    until = math.inf
    try:
        while (todo or running) and time.monotonic() < until:
            # Asked with a call at hand: whether a run may end can depend on the operating point it is at,
            # whose first chip has to be there.
            first = next(iter((*running.values(), *islice(todo, 1))))
            if until == math.inf and ending is not None and ending.due(first):
                until = time.monotonic() + ending.drain_s()
                # A call that can still be cancelled only waited in the pool: it counts as not begun.
                cancelled = [running.pop(future) for future in tuple(running) if future.cancel()]
                rest = tuple(ending.rest((*cancelled, *todo)))
                todo.clear()
                todo.extend(rest)
            # No more than the pool has use for: what lies in its queue cannot come after calls that an
            # outcome adds, and would have to be taken back when the run ends.
            while todo and len(running) < max(1, pool.depth):
                call = todo.popleft()
                result = known(call)
                if result is None:
                    running[submit(call)] = call
                else:
                    yield Finished(call, result, True)
            # Waits in short turns, so that an interrupt or a limit of time is seen while every chip is
            # slow.
            for future in wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED).done:
                yield Finished(running.pop(future), future.result(), False)
    finally:
        # Also where whoever takes the results stops in the middle: what only waits in the pool is taken
        # back, and of what runs at least its being begun is known.
        for future, call in running.items():
            if not future.cancel() and ending is not None:
                ending.left(call)


def in_order(
    pool: Pool,
    calls: Iterable[Call],
    submit: Callable[[Call], Future[Result]],
    due_to_end: Callable[[int], bool] = lambda number: False,
    drain_s: Callable[[], float] = lambda: DRAIN_S,
) -> Iterator[tuple[Call, Result]]:
    """Run calls and give their results in the order of the calls, whoever was fast.

    Parameters
    ----------
    due_to_end : callable
        Asked with the number of a call that is running or comes next: whether the run is to end, with the
        first results, up to one that is missing.
    drain_s : callable
        As of an :class:`Ending`.
    """
    numbered = deque(enumerate(calls))
    early: dict[int, tuple[Call, Result]] = {}
    due = 0
    ending: Ending[tuple[int, Call]] = Ending(lambda numbered: due_to_end(numbered[0]), drain_s=drain_s)
    for (number, call), result, _ in completed(
        pool, numbered, lambda numbered: submit(numbered[1]), ending=ending
    ):
        early[number] = (call, result)
        while due in early:
            yield early.pop(due)
            due += 1

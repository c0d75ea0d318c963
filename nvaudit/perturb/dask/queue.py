"""Calls that wait for a Dask worker, and how many of them travel together."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from nvaudit.perturb.dask.calls import RemoteCall
from nvaudit.perturb.workers import CALLS_AHEAD

GROUP_S = 0.5
"""Calls are grouped into tasks of at least this length …"""

GROUP_S_PER_THREAD = 0.005
"""… and of at least this for each thread of the cluster: 200 tasks a second are easy for a scheduler."""

LONG_S = 5.0
"""A task of this length need not wait on its Dask worker: beside it, fetching the next takes no time."""

_MOST_AHEAD = 2000
_NEW = 0.3
"""Weight of the newest call in the mean of the seconds that calls take."""


@dataclass(eq=False)
class QueuedCall:
    """A call and its future.

    Attributes
    ----------
    needs : frozenset of str
        SHA-256 of the files that its arguments name.
    deaths : int
        Dask workers that were lost while they may have run it.
    """

    remote: RemoteCall
    future: Future[Any]
    needs: frozenset[str]
    deaths: int = 0
    _begun: bool = False

    def begin(self) -> bool:
        """Whether it is still wanted; from now on it cannot be cancelled."""
        # A future can be set running once only; a call that is made again has been, and stays so.
        self._begun = self._begun or self.future.set_running_or_notify_cancel()
        return self._begun

    def fail(self, error: BaseException) -> None:
        """Give up."""
        if self.begin():
            self.future.set_exception(error)


class CallQueue:
    """Calls in order, and what is known of how long they take."""

    def __init__(self) -> None:
        self._calls: deque[QueuedCall] = deque()
        self._seconds: dict[str, float] = {}
        self._newest = 0.0

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: QueuedCall) -> None:
        """Queue a call."""
        self._calls.append(call)

    def put_back(self, calls: Iterable[QueuedCall]) -> None:
        """Queue calls again, before all others."""
        self._calls.extendleft(reversed(list(calls)))

    def drain(self) -> list[QueuedCall]:
        """Take every call."""
        calls = list(self._calls)
        self._calls.clear()
        return calls

    def note(self, method: str, seconds: float) -> None:
        """Enter how long a call took."""
        before = self._seconds.get(method, seconds)
        self._seconds[method] = self._newest = max(1e-6, before + _NEW * (seconds - before))

    def depth(self, width: int) -> int:
        """Calls worth having in hand for so many threads.

        For each thread a group under way, one that waits on the Dask worker, and one to come.
        """
        groups = math.ceil(3 * group_s(width) / self._newest) if self._newest else 0
        return width * min(_MOST_AHEAD, max(CALLS_AHEAD, groups))

    def is_short(self) -> bool:
        """Whether the next call is known to be so short that the one after it should be at hand."""
        return bool(self._calls) and self._seconds.get(self._calls[0].remote.method, LONG_S) < LONG_S

    def draw(self, has: set[str], width: int) -> list[QueuedCall]:
        """Take the calls of a task from the front.

        As many as fill the time of a task, but not more than the share of one thread: the last calls are
        spread over all threads. A call that may have ended a Dask worker travels alone, and so does one of
        a kind that was never timed.

        Parameters
        ----------
        has : set of str
            Contents that the Dask worker has; calls from the first that needs another one on must wait.
        width : int
            Threads of the cluster.
        """
        share = math.ceil(len(self._calls) / max(1, width))
        left = group_s(width)
        drawn: list[QueuedCall] = []
        while self._calls and len(drawn) < share and left > 1e-9:
            call = self._calls[0]
            if not call.needs <= has or (call.deaths and drawn):
                break
            self._calls.popleft()
            if call.begin():
                drawn.append(call)
                # A kind that was never timed takes all the time that is left, and so ends the group.
                left -= self._seconds.get(call.remote.method, left)
            if call.deaths:
                break
        return drawn


def group_s(width: int) -> float:
    """Seconds that a task should last at least in a cluster of so many threads."""
    return max(GROUP_S, GROUP_S_PER_THREAD * width)

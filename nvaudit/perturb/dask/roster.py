"""Which Dask workers a run has: who comes is checked and given its files, who goes is told of."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nvaudit.errors import EngineError
from nvaudit.perturb.dask.cluster import ANSWER_S, Cluster
from nvaudit.perturb.dask.files import FileRef
from nvaudit.perturb.dask.queue import QueuedCall
from nvaudit.perturb.dask.shipping import Shipper

GONE_S = 600.0
"""How long a run waits for a Dask worker when it has none left."""

LOOK_EVERY_S = 1.0

_KEPT = "with --resume, finished chips are kept"


@dataclass(eq=False)
class Group:
    """Calls that travel together, and Dask's future for them."""

    worker: str
    calls: list[QueuedCall]
    task: Any = None


@dataclass(eq=False)
class Seat:
    """A Dask worker that is ready.

    Attributes
    ----------
    has : set of str
        Contents beside those of the setup.
    groups : list of Group
        What it was given and has not answered, in order.
    supplied : bool
        No files are on their way to it.
    """

    address: str
    threads: int
    has: set[str]
    groups: list[Group] = field(default_factory=list)
    supplied: bool = True


class Roster:
    """The Dask workers of a run. Used by one thread; files are brought by another.

    Parameters
    ----------
    there : mapping of str to int
        Dask workers whose versions are known to be right, and their threads.
    on_event : callable
        Told in plain words of Dask workers that come, go or cannot be used.
    post : callable
        Has a function called later by the thread that uses the roster.

    Attributes
    ----------
    gone : list of Seat
        Dask workers that were lost; whoever reads it empties it.
    """

    def __init__(
        self,
        cluster: Cluster,
        shipper: Shipper,
        there: Mapping[str, int],
        on_event: Callable[[str], None],
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self._cluster, self._shipper, self._on_event, self._post = cluster, shipper, on_event, post
        self.seats: dict[str, Seat] = {}
        self.gone: list[Seat] = []
        self._threads = dict(there)
        self._coming: set[str] = set()
        self._refused: dict[str, str] = {}
        self._extras: dict[str, FileRef] = {}
        self._began = False
        self._lost = 0
        self._last_look = self._last_seen = time.monotonic()
        self._porter = ThreadPoolExecutor(1, thread_name_prefix="nvaudit-dask-files")
        self._welcome(list(there), checked=True)

    @property
    def width(self) -> int:
        """Threads of all Dask workers that are used; any thread may ask."""
        return max(1, sum(n for worker, n in self._threads.copy().items() if worker not in self._refused))

    def stop(self) -> list[str]:
        """Bring no more files; give the Dask workers that may know the run."""
        self._shipper.stopped = True
        self._porter.shutdown(wait=False, cancel_futures=True)
        return [worker for worker in self._threads if worker not in self._refused]

    def until_look(self) -> float:
        """Seconds until the next look is due."""
        return max(0.0, self._last_look + LOOK_EVERY_S - time.monotonic())

    def look(self) -> None:
        """See who has come and who has gone, if it is time.

        Raises
        ------
        EngineError
            If the scheduler is gone, or every Dask worker for long.
        """
        if self.until_look() > 0:
            return
        self._last_look = now = time.monotonic()
        try:
            there = self._cluster.threads()
        except Exception as error:
            if self._cluster.closed or now - self._last_seen > ANSWER_S:
                raise EngineError(
                    f"--dask {self._cluster.address}: the scheduler is gone ({type(error).__name__}); "
                    f"{_KEPT}: start a cluster and run the same command again"
                ) from error
            return
        for worker in self.seats.keys() - there.keys():
            self.lose(worker)
        self._refused = {worker: why for worker, why in self._refused.items() if worker in there}
        self._threads = there
        new = there.keys() - self.seats.keys() - self._coming - self._refused.keys()
        if new:
            self._welcome(sorted(new), checked=False)
        self._wait_for_somebody(now)

    def _wait_for_somebody(self, now: float) -> None:
        if self.seats or self._coming:
            self._last_seen = now
        elif now - self._last_seen > GONE_S:
            reasons = "; ".join(f"{worker}: {why}" for worker, why in self._refused.items())
            raise EngineError(
                f"--dask {self._cluster.address}: no Dask worker for {GONE_S:g} s"
                + (f" ({reasons})" if reasons else "")
                + f"; {_KEPT}: start Dask workers and run the same command again"
            )

    def lose(self, worker: str) -> None:
        """Give up a Dask worker."""
        seat = self.seats.pop(worker, None)
        if seat is None:
            return
        self._lost += 1
        self.gone.append(seat)
        calls = sum(len(group.calls) for group in seat.groups)
        redone = f"; {calls} of its calls are made again" if calls else ""
        self._on_event(f"the Dask worker {worker} was lost{redone}")

    def need(self, refs: Collection[FileRef]) -> None:
        """Have contents brought to every Dask worker, now and when one comes."""
        self._extras |= {ref.sha256: ref for ref in refs}

    def supply(self) -> None:
        """Bring what is needed and was not there when a Dask worker came."""
        seats = [s for s in self.seats.values() if s.supplied and not self._extras.keys() <= s.has]
        if not seats:
            return
        refs = tuple(self._extras.values())
        workers = [seat.address for seat in seats]
        for seat in seats:
            seat.supplied = False
        self._carry(
            workers,
            lambda: self._shipper.bring(workers, refs),
            lambda failed: self._supplied(seats, failed, {ref.sha256 for ref in refs}),
        )

    def _supplied(self, seats: Collection[Seat], failed: Mapping[str, str], has: set[str]) -> None:
        for seat in seats:
            seat.supplied = True
            # The Dask worker may have been lost while files were on their way, and another may have its
            # address by now.
            if self.seats.get(seat.address) is seat and seat.address in failed:
                self.lose(seat.address)
                self._refuse(seat.address, failed[seat.address])
            seat.has |= has

    def _welcome(self, workers: Collection[str], checked: bool) -> None:
        """Have Dask workers checked and prepared."""
        self._coming.update(workers)
        extras = tuple(self._extras.values())
        self._carry(
            workers,
            lambda: self._shipper.welcome(workers, extras, checked),
            lambda failed: self._welcomed(workers, failed, {ref.sha256 for ref in extras}),
        )

    def _welcomed(self, workers: Collection[str], failed: Mapping[str, str], has: set[str]) -> None:
        """Enter Dask workers that are ready, and those that cannot be used."""
        self._coming.difference_update(workers)
        for worker in workers:
            if worker in failed:
                self._refuse(worker, failed[worker])
            elif worker in self._threads:
                self._began = True
                self.seats[worker] = Seat(worker, self._threads[worker], set(has))
                if self._lost:
                    self._lost -= 1
                    self._on_event(f"the Dask worker {worker} takes the place of one that was lost")
        if failed and not self._began and not self._coming:
            worker, why = next(iter(failed.items()))
            raise EngineError(f"--dask {self._cluster.address}: the Dask worker {worker}: {why}")

    def _refuse(self, worker: str, why: str) -> None:
        self._refused[worker] = why
        if worker in self._threads:
            self._on_event(f"the Dask worker {worker} is not used: {why}")

    def _carry(
        self,
        workers: Collection[str],
        work: Callable[[], dict[str, str]],
        then: Callable[[dict[str, str]], None],
    ) -> None:
        """Have files brought in another thread; then hear which Dask workers cannot be used, and why."""

        def carry() -> None:
            try:
                failed = work()
            except Exception as error:
                failed = dict.fromkeys(workers, str(error) or type(error).__name__)
            self._post(partial(then, failed))

        self._porter.submit(carry)

"""The books of a run on a Dask cluster: calls that wait, and calls that are under way.

One thread keeps them; everything else hands it messages. A call goes to a Dask worker that has its files.
Short calls travel in groups, since a task costs the scheduler milliseconds. The calls of a Dask worker that
is lost go elsewhere, and those that may have ended it travel alone from then on, so that the guilty one is
found. Dask itself would start a lost task again anywhere; these are bound to their Dask worker, which has the
files.
"""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial

from nvaudit.errors import EngineError, NvauditError
from nvaudit.files import replacing
from nvaudit.perturb.dask.calls import Answer, Answers
from nvaudit.perturb.dask.cluster import ANSWER_S, Cluster
from nvaudit.perturb.dask.files import CHUNK, FileRef
from nvaudit.perturb.dask.queue import CallQueue, QueuedCall
from nvaudit.perturb.dask.roster import LOOK_EVERY_S, Group, Roster, Seat
from nvaudit.perturb.dask.shipping import Shipper
from nvaudit.perturb.dask.worker import fetch, run_calls
from nvaudit.perturb.workers import MAX_DEATHS

_STOP_S = 15.0


class Dispatcher:
    """Keeps the books of a run in a thread of its own.

    Parameters
    ----------
    run : str
        Name of the run on the Dask workers.
    there : mapping of str to int
        Dask workers whose versions are known to be right, and their threads.
    on_event : callable
        Told in plain words what happened on the way.
    """

    def __init__(
        self,
        cluster: Cluster,
        run: str,
        shipper: Shipper,
        there: Mapping[str, int],
        on_event: Callable[[str], None],
    ) -> None:
        self._cluster, self._run, self._on_event = cluster, run, on_event
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._queue = CallQueue()
        self._roster = Roster(cluster, shipper, there, on_event, self._inbox.put)
        self._done: list[Group] = []
        self._tasks = 0
        self._broken: EngineError | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, name="nvaudit-dask", daemon=True)
        self._thread.start()

    # What other threads may call.

    @property
    def width(self) -> int:
        """Threads of all Dask workers that are used."""
        return self._roster.width

    @property
    def depth(self) -> int:
        """Calls worth having in hand."""
        return self._queue.depth(self.width)

    def enter(self, call: QueuedCall) -> None:
        """Take a call."""
        self._inbox.put(partial(self._enter, call))

    def stop(self) -> list[str]:
        """Drop everything; give the Dask workers that know the run."""
        self._stopped = True
        workers = self._roster.stop()
        self._inbox.put(lambda: None)
        self._thread.join(_STOP_S)
        return workers

    # What runs in the thread of the books.

    def _serve(self) -> None:
        while not self._stopped:
            try:
                self._read()
                if self._broken is None:
                    self._roster.look()
                    self._collect()
                    self._take_back()
                    self._roster.supply()
                    self._dispatch()
            except EngineError as error:
                self._break(error)
            except Exception as error:  # Dask's own, when the cluster goes away under our hands
                self._break(EngineError(f"--dask {self._cluster.address}: {type(error).__name__}: {error}"))
        self._break(EngineError("the run was stopped"))

    def _read(self) -> None:
        """Handle messages, waiting for the first until the next look."""
        wait = self._roster.until_look() if self._broken is None else LOOK_EVERY_S
        try:
            self._inbox.get(timeout=wait)()
            while not self._stopped:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _break(self, error: EngineError) -> None:
        """Fail every call, now and from now on."""
        self._broken = self._broken or error
        seats = (*self._roster.seats.values(), *self._roster.gone)
        groups = [group for seat in seats for group in seat.groups]
        for seat in seats:
            seat.groups.clear()
        for call in (call for group in groups for call in group.calls):
            call.fail(self._broken)
        for call in self._queue.drain():
            if not (self._stopped and call.future.cancel()):
                call.fail(self._broken)
        try:
            self._cluster.cancel([group.task for group in groups])
        except Exception:  # the cluster is gone, and its tasks with it
            return

    def _enter(self, call: QueuedCall) -> None:
        if self._broken is not None:
            call.fail(self._broken)
            return
        self._roster.need(call.remote.files.values())
        self._queue.add(call)

    def _dispatch(self) -> None:
        """Give every thread work, and where it is short also the next."""
        # First one group for every thread of all, then the second: no thread hoards while another is idle.
        for ahead in (1, 2):
            for seat in self._roster.seats.values():
                while len(seat.groups) < ahead * seat.threads and (ahead == 1 or self._queue.is_short()):
                    calls = self._queue.draw(seat.has, self.width)
                    if not calls:
                        break
                    self._send(seat, calls)

    def _send(self, seat: Seat, calls: list[QueuedCall]) -> None:
        group = Group(seat.address, calls)
        seat.groups.append(group)
        self._tasks += 1
        payload = pickle.dumps(tuple(call.remote for call in calls), pickle.HIGHEST_PROTOCOL)
        key = f"nvaudit-{calls[0].remote.method}-{self._run}-{self._tasks}"
        group.task = self._cluster.start(seat.address, key, run_calls, self._run, payload)
        # Dask calls this in a thread of its own; only the thread of the books may change them.
        group.task.add_done_callback(lambda task: self._inbox.put(partial(self._is_done, group)))

    def _is_done(self, group: Group) -> None:
        # A bound `self._done.append` would not do: it holds the list of the moment when the task ended, which
        # `_collect` may have replaced before the message is read, and the answer would be lost.
        self._done.append(group)

    def _collect(self) -> None:
        """Read the answers of tasks that are done."""
        groups, self._done = [group for group in self._done if self._is_open(group)], []
        finished = [group for group in groups if group.task.status == "finished"]
        try:
            results = self._cluster.results([group.task for group in finished]) if finished else []
        except TimeoutError:  # lost with their Dask worker: the next look shows which
            self._done = groups
            return
        for group in groups:
            if group not in finished:
                self._failed(group)
        for group, result in zip(finished, results, strict=True):
            if result is None:
                self._roster.lose(group.worker)
            else:
                self._answered(group, pickle.loads(result))

    def _is_open(self, group: Group) -> bool:
        seat = self._roster.seats.get(group.worker)
        return seat is not None and group in seat.groups

    def _answered(self, group: Group, answers: Answers) -> None:
        if not self._is_open(group):  # its Dask worker was given up a moment ago
            return
        self._roster.seats[group.worker].groups.remove(group)
        for text in answers.events:
            self._on_event(f"on the Dask worker {group.worker}, {text}")
        for call, answer in zip(group.calls, answers.answers, strict=True):
            self._settle(call, answer, group.worker)

    def _settle(self, call: QueuedCall, answer: Answer, worker: str) -> None:
        self._queue.note(call.remote.method, answer.seconds)
        error: NvauditError | None = answer.error
        if error is None and answer.brought:
            try:
                self._fetch(worker, answer.brought)
            except OSError as failed:
                error = EngineError(f"{call.remote.what}: its file did not arrive: {failed}; run again")
        if error is not None:
            call.future.set_exception(error)
        else:
            call.future.set_result(answer.value)

    def _fetch(self, worker: str, brought: Mapping[str, FileRef]) -> None:
        """Write the files that a call has made where it was told to make them."""
        for path, ref in brought.items():
            with replacing(path, durable=False) as partial, partial.open("wb") as file:
                while file.tell() < ref.size:
                    data = self._cluster.ask([worker], fetch, ref.path, file.tell(), CHUNK)[worker]
                    if isinstance(data, Exception) or not data:
                        raise OSError(f"{worker}: {data or 'no data'}")
                    file.write(data)

    def _failed(self, group: Group) -> None:
        """Handle a task that has no result: Dask has lost or cancelled it, or it has raised."""
        error = group.task.exception(timeout=ANSWER_S) if group.task.status == "error" else None
        self._roster.seats[group.worker].groups.remove(group)
        if error is None or type(error).__name__ in ("KilledWorker", "FutureCancelledError"):
            self._return([group], group.worker)
            return
        for call in group.calls:
            what = f"{call.remote.what}: the Dask worker {group.worker} failed"
            call.future.set_exception(EngineError(f"{what}: {type(error).__name__}: {error}"))

    def _take_back(self) -> None:
        """Queue the calls of Dask workers that are gone: the first of each thread may have ended it."""
        for seat in self._roster.gone:
            # Only as many groups as threads can have been running; those behind them had not begun, and are
            # innocent.
            self._queue.put_back(call for group in seat.groups[seat.threads :] for call in group.calls)
            self._return(seat.groups[: seat.threads], seat.address)
        self._roster.gone.clear()

    def _return(self, groups: list[Group], worker: str) -> None:
        """Queue calls again that were under way on a Dask worker that is gone."""
        again = []
        for call in (call for group in groups for call in group.calls):
            call.deaths += 1
            if call.deaths < MAX_DEATHS:
                again.append(call)
                continue
            call.fail(
                EngineError(
                    f"{call.remote.what} ended {MAX_DEATHS} Dask workers in a row, the last {worker}. If "
                    "memory is short, start them with fewer threads, or use a smaller --batch-size"
                )
            )
        self._queue.put_back(again)

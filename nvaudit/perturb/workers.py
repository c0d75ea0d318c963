"""Worker processes behind one small interface: submit a call, get a future.

Each worker is a process of its own that a thread drives over a pipe. A worker that dies (killed, out of
memory, a crash in native code) is replaced and its call made again; a call that kills three workers ends
the run. With no workers, calls run in this process. :mod:`nvaudit.perturb.dask.pool` has the same interface
on many machines.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from nvaudit.errors import EngineError, NvauditError
from nvaudit.perturb.stop import at_abort
from nvaudit.perturb.watchdog import end_calls

MAX_DEATHS = 3
CALLS_AHEAD = 4
"""Calls for each worker that are worth having in hand, so that none waits for the next."""

_CURE = "If memory is short, use fewer --workers or a smaller --batch-size"
PRINTED = "printed"
"""Kind of a message before an answer: what a user's own metric printed."""

_HEADER = struct.Struct("<Q")


class Host(Protocol):
    """What a worker runs calls on: made once per worker from the setup."""

    def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """Run one call."""


def host_of(setup: Any) -> Host:
    """Make what serves the calls of a pool; ONNX Runtime is loaded only here, where chips run.

    Parameters
    ----------
    setup : Workload, Plane or object
        Data, which travels to workers. What is neither of the two makes its own host: ``setup.host()``.
    """
    from nvaudit.perturb.landscape.workload import Plane
    from nvaudit.perturb.workload import Workload

    if isinstance(setup, Workload):
        from nvaudit.perturb.engine import Engine

        return Engine(setup)
    if isinstance(setup, Plane):
        from nvaudit.perturb.landscape.engine import PlaneEngine

        return PlaneEngine(setup)
    host: Host = setup.host()
    return host


class Pool(Protocol):
    """Runs calls somewhere; where has no influence on their results."""

    @property
    def width(self) -> int:
        """How many calls can run at once, now."""

    @property
    def depth(self) -> int:
        """How many calls are worth having submitted and not finished, now."""

    def submit(self, what: str, method: str, *args: Any) -> Future[Any]:
        """Queue a call; ``what`` names it in events and errors, e.g. ``trial 17``."""

    def __enter__(self) -> Self:
        """Use it as a context manager."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; calls not yet begun are dropped."""


def send(pipe: IO[bytes], message: object) -> None:
    """Write one length-prefixed message."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    pipe.write(_HEADER.pack(len(body)) + body)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Read one message; EOFError at the end of the stream."""
    head = pipe.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise EOFError
    (size,) = _HEADER.unpack(head)
    body = pipe.read(size)
    if len(body) < size:
        raise EOFError
    return pickle.loads(body)


class _Died(Exception):
    """A worker process ended in the middle of a call."""


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, setup: object) -> None:
        # A file, not a pipe: nobody reads it while the worker runs, and a full pipe would make the worker
        # wait.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # One thread each: the processes share out the cores, and each would else start a thread for every
        # core.
        env = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
        package_parent = str(Path(__file__).resolve().parents[2])
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, env.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            # -P: a file of the user's in the current folder must not pass for a module of the same name.
            [sys.executable, "-P", "-c", "from nvaudit.perturb.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=env,
        )
        self._ready = False
        self._setup = setup

    def call(self, method: str, args: tuple[Any, ...]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            if not self._ready:
                send(self._process.stdin, self._setup)
                self._ready = True
            send(self._process.stdin, (method, args))
            while (answer := receive(self._process.stdout))[0] == PRINTED:
                sys.stderr.write(answer[1])
            status, value = answer
        except (EOFError, OSError) as error:
            raise _Died(self._obituary()) from error
        if status == "ok":
            return value
        if isinstance(value, NvauditError):
            raise value
        detail = ""
        if os.environ.get("NVAUDIT_DEBUG"):
            self._errors.seek(0)
            detail = "\n" + self._errors.read().decode(errors="replace")
        raise EngineError(f"a worker failed in {method}: {value}{detail}")

    def _obituary(self) -> str:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        self._errors.seek(0)
        tail = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        return how + (f" ({tail[-1]})" if tail else "")

    def kill(self) -> None:
        self._process.kill()

    def stop(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()


class WorkerPool:
    """A fixed number of worker processes, or this process when ``count`` is 0.

    Parameters
    ----------
    count : int
        Worker processes; 0 runs calls here, one after another.
    setup : object
        Sent to each worker once; picklable, with a method ``host() -> Host``.
    on_event : callable
        Told in plain words when a worker was replaced.
    cure : str
        What to try when a call has ended its workers.
    """

    def __init__(
        self,
        count: int,
        setup: Any,
        on_event: Callable[[str], None] = lambda text: None,
        cure: str = _CURE,
    ) -> None:
        self._width = max(1, count)
        self._cure = cure
        self._setup = setup
        self._on_event = on_event
        self._host: Host | None = host_of(setup) if count == 0 else None
        self._threads = ThreadPoolExecutor(self._width, thread_name_prefix="nvaudit-worker")
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._watch = contextlib.ExitStack()

    @property
    def width(self) -> int:
        """How many calls can run at once."""
        return self._width

    @property
    def depth(self) -> int:
        """How many calls are worth having submitted and not finished."""
        return CALLS_AHEAD * self._width

    def submit(self, what: str, method: str, *args: Any) -> Future[Any]:
        """Queue a call; ``what`` names it in events and errors, e.g. ``trial 17``."""
        return self._threads.submit(self._run, what, method, args)

    def _run(self, what: str, method: str, args: tuple[Any, ...]) -> Any:
        if self._host is not None:
            return self._host.call(method, args)
        causes: list[str] = []
        # A chip is the same on any worker and at any try, since its streams are addressed by its number:
        # making a call again cannot change a result.
        while len(causes) < MAX_DEATHS:
            worker = self._take()
            try:
                value = worker.call(method, args)
            except _Died as died:
                worker.stop()
                with self._lock:
                    self._all.discard(worker)
                if self._closed:
                    raise EngineError("the run was stopped") from died
                # Only here: a worker that the end of the run has killed says nothing about its call.
                causes.append(str(died))
                self._on_event(f"a worker died in {what}: {died}; replaced, {what} done again")
                continue
            except BaseException:
                self._idle.put(worker)
                raise
            self._idle.put(worker)
            return value
        raise EngineError(f"{what} ended {MAX_DEATHS} workers in a row: {causes[-1]}. {self._cure}")

    def _take(self) -> _Worker:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            with self._lock:
                if self._closed:
                    raise EngineError("the run was stopped") from None
                # Started under the lock: the end of the run either finds it in the set or has closed the
                # pool before.
                worker = _Worker(self._setup)
                self._all.add(worker)
                return worker

    def __enter__(self) -> WorkerPool:
        self._watch.enter_context(at_abort(self._kill))
        return self

    def _kill(self) -> None:
        for worker in tuple(self._all):
            worker.kill()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers; calls not yet begun are dropped."""
        with self._watch:
            self._stop(failed=error is not None)

    def _stop(self, failed: bool) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            workers = tuple(self._all)
        for worker in workers:
            worker.kill()  # closing a pipe would wait for the thread that reads it
        if self._host is not None and failed:
            end_calls()  # else the thread that runs it keeps the process alive until the pass is over
        self._threads.shutdown(wait=True)
        for worker in workers:
            worker.stop()

"""What runs inside a Dask worker: it keeps a run's files and hands calls to processes of its own.

Chips run in child processes, one for each thread of the Dask worker, exactly as in a run on one machine.
So a crash in native code ends a child and not the Dask worker, numerical libraries use one thread whatever
the Dask worker was started with, and threads do not wait for each other in Python.

Every function here is called from :mod:`nvaudit.perturb.dask.pool` on the other side; those that Dask runs
outside of its tasks are coroutines, so that the Dask worker answers meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvaudit.errors import EngineError, NvauditError
from nvaudit.perturb.dask.calls import Answer, Answers, CheckedSetup, RemoteCall, versions
from nvaudit.perturb.dask.files import Bundle, FileRef, FileStore, file_ref, is_inside, place, relocate
from nvaudit.perturb.workers import WorkerPool

IDLE_S = 600.0
"""After this time without a call the child processes end: whoever started them may be gone."""

_FOLDER = "nvaudit"
_CURE = "If memory is short, start the Dask workers with fewer threads, or use a smaller --batch-size"


@dataclass
class _Run:
    """A run as this Dask worker knows it; ``wanted`` contents are held, ``located`` ones are here."""

    store: FileStore
    local: Path
    wanted: set[str] = field(default_factory=set)
    located: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    table: dict[str, str] = field(default_factory=dict)
    setup: Any = None
    width: int = 1
    events: deque[str] = field(default_factory=deque)
    pool: WorkerPool | None = None
    active: int = 0
    rest: threading.Timer | None = None
    over: bool = False
    used: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, call: RemoteCall) -> Any:
        """Run a call in a child process."""

        def where(path: str) -> str:
            ref = call.files.get(path)
            if ref is not None:
                return self.located[ref.sha256]
            return self.table.get(path) or (str(self.made(path)) if is_inside(path, self.folder) else path)

        args = relocate(call.args, self.folder, where)
        for path in call.brings:
            self.made(path).parent.mkdir(parents=True, exist_ok=True)
        return self._children().submit(call.what, call.method, call.code, *args).result()

    def made(self, path: str) -> Path:
        """Say where a file of the run's folder lies that a call here has made."""
        return self.local / os.path.relpath(path, self.folder)

    def begin(self) -> None:
        """Count a task in, so that the child processes stay."""
        with self.lock:
            self.active += 1
            if self.rest is not None:
                self.rest.cancel()

    def end(self) -> None:
        """Count a task out."""
        with self.lock:
            self.active -= 1
            self.used = time.monotonic()
            if self.active == 0:
                self.rest = threading.Timer(IDLE_S, self.stop, [False])
                self.rest.daemon = True
                self.rest.start()

    def _children(self) -> WorkerPool:
        with self.lock:
            if self.over:
                raise EngineError("the run was stopped")
            if self.pool is None:
                self.pool = WorkerPool(self.width, CheckedSetup(self.setup), self.events.append, _CURE)
            return self.pool

    def stop(self, at_once: bool = True) -> None:
        """End the child processes, at once or only if they are idle; the next call starts them again."""
        with self.lock:
            if self.active and not at_once:
                return
            pool, self.pool = self.pool, None
            if self.rest is not None:
                self.rest.cancel()
        if pool is not None:
            pool.__exit__(None, None, None)


_RUNS: dict[str, _Run] = {}
"""Runs that this Dask worker takes part in."""


async def remote_versions() -> dict[str, str]:
    """Give them without holding up the Dask worker while ONNX Runtime is loaded."""
    return await asyncio.to_thread(versions)


async def reserve(
    run: str, refs: tuple[FileRef, ...], siblings: tuple[tuple[str, str], ...], dask_worker: Any
) -> tuple[str, str, tuple[str, ...]]:
    """Look for contents, and hold on to those that are here.

    Parameters
    ----------
    siblings : tuple of (str, str)
        Hosts and stores of Dask workers that may have them; those on this host are looked at.
    dask_worker : distributed.Worker
        Filled in by Dask.

    Returns
    -------
    tuple of (str, str, tuple of str)
        Host, store, and the SHA-256 of what is missing.
    """
    root, host = Path(dask_worker.local_directory) / _FOLDER, socket.gethostname()
    state = _RUNS.setdefault(run, _Run(FileStore(root / "files"), root / f"run-{run}"))
    stores = [store for there, store in siblings if there == host]
    state.wanted.update(ref.sha256 for ref in refs)

    def look() -> tuple[str, ...]:
        for ref in refs:
            if ref.sha256 not in state.located and (there := state.store.find(ref, stores)):
                state.located[ref.sha256] = there
        return tuple(ref.sha256 for ref in refs if ref.sha256 not in state.located)

    return host, str(state.store.root), await asyncio.to_thread(look)


async def keep(run: str, ref: FileRef, offset: int, data: bytes) -> None:
    """Receive a part of a content."""
    state = _RUNS[run]
    try:
        await asyncio.to_thread(state.store.write, ref, run, offset, data)
    except OSError as error:
        raise EngineError(
            f"{state.store.root} cannot take {ref.size} bytes of {ref.path}: {error.strerror}; free space, "
            "or start the Dask worker with another --local-directory"
        ) from error
    if offset + len(data) == ref.size:
        state.located[ref.sha256] = str(state.store.path(ref))


async def prepare(run: str, payload: bytes, dask_worker: Any) -> None:
    """Make a run ready to be called: every content is here."""
    state = _RUNS[run]

    def settle() -> None:
        _forget(run)
        files: Bundle
        setup, files = pickle.loads(payload)
        state.local.mkdir(parents=True, exist_ok=True)
        state.folder = files.folder
        state.table = {files.folder: str(state.local)} | place(files, state.located, state.local)
        state.setup = relocate(setup, state.folder, lambda path: state.table.get(path, path))
        state.width = dask_worker.state.nthreads

    await asyncio.to_thread(settle)


def _forget(run: str) -> None:
    """Drop runs that nobody has called for long, and contents that neither this run nor another needs."""
    # A run whose client was killed never calls end(): its children and files go when the next run comes.
    old = time.monotonic() - IDLE_S
    for name, state in list(_RUNS.items()):
        if name != run and not state.active and state.used < old:
            _end(name)
    wanted = {sha256 for state in _RUNS.values() for sha256 in state.wanted}
    _RUNS[run].store.prune(wanted)


def run_calls(run: str, payload: bytes) -> bytes | None:
    """Run some calls, one after another; the task that Dask schedules.

    Returns
    -------
    bytes or None
        Pickled :class:`Answers`; None if this Dask worker does not know the run: it was started again.
    """
    state = _RUNS.get(run)
    if state is None or state.setup is None:
        return None
    calls: tuple[RemoteCall, ...] = pickle.loads(payload)
    state.begin()
    try:
        answers = tuple(_answer(state, call) for call in calls)
    finally:
        state.end()
    events = [state.events.popleft() for _ in range(len(state.events))]
    return pickle.dumps(Answers(answers, tuple(events)), pickle.HIGHEST_PROTOCOL)


def _answer(state: _Run, call: RemoteCall) -> Answer:
    begin = time.perf_counter()
    try:
        value = state.call(call)
    except NvauditError as error:
        return Answer(None, error, time.perf_counter() - begin)
    brought = {}
    for path in call.brings:
        if state.made(path).is_file():
            brought[path] = file_ref(state.made(path))
    return Answer(value, None, time.perf_counter() - begin, brought)


async def fetch(path: str, offset: int, size: int) -> bytes:
    """Read a part of a file that a call has made."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


async def end(run: str) -> None:
    """End a run: its child processes and its folder go; contents stay for the next run."""
    await asyncio.to_thread(_end, run)


def _end(run: str) -> None:
    state = _RUNS.pop(run, None)
    if state is not None:
        state.over = True
        state.stop()
        shutil.rmtree(state.local, ignore_errors=True)

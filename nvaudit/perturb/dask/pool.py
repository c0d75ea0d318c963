"""The pool on a Dask cluster: the interface of :class:`nvaudit.perturb.workers.Pool`, on many machines."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

from nvaudit.errors import OptionError
from nvaudit.perturb.dask.calls import RemoteCall
from nvaudit.perturb.dask.cluster import Cluster, refusals
from nvaudit.perturb.dask.dispatch import Dispatcher
from nvaudit.perturb.dask.files import FileRef, FileStore, file_ref, paths_in
from nvaudit.perturb.dask.queue import QueuedCall
from nvaudit.perturb.dask.shipping import Shipper, refused
from nvaudit.perturb.dask.worker import end
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.own_metric import metric_digest

FIRST_WORKER_S = 60.0
"""How long a cluster may take to have its first Dask worker."""

_END_S = 5.0
_WRITES = frozenset({"nominal"})
"""Methods whose arguments name a file that they make."""


class DaskPool:
    """Runs calls on the Dask workers of a cluster.

    Parameters
    ----------
    address : str
        Of the scheduler: ``tcp://host:port``, or the path of a scheduler file.
    setup : object
        Sent to each Dask worker once; picklable, with a method ``host() -> Host``. Files that it names, or
        that arguments of calls name, travel with it.
    folder : str
        The run's folder: texts in setup and arguments that lie in it are paths.
    on_event : callable
        Told in plain words when a Dask worker or a process of it was lost, or cannot be used.

    Raises
    ------
    OptionError
        If no scheduler answers, no Dask worker comes, or one that is there has other versions.
    EngineError
        If Dask is not installed.
    """

    def __init__(
        self, address: str, setup: Any, folder: str, on_event: Callable[[str], None] = lambda text: None
    ) -> None:
        self._cluster = Cluster(address)
        try:
            there = _first_workers(self._cluster)
        except BaseException:
            self._cluster.close()
            raise
        self._folder = folder
        self._run = secrets.token_hex(8)
        self._known = frozenset(paths_in(setup, folder))
        self._store = FileStore(Path(folder) / f"shipped-{self._run}")
        self._refs: dict[tuple[str, int, int, int], FileRef] = {}
        self._code: dict[str, str] = {}
        self._shipper = Shipper(self._cluster, self._run, setup, folder)
        self._dispatcher = Dispatcher(self._cluster, self._run, self._shipper, there, on_event)

    @property
    def width(self) -> int:
        """How many calls can run at once, now: the threads of all Dask workers."""
        return self._dispatcher.width

    @property
    def depth(self) -> int:
        """How many calls are worth having submitted and not finished, now."""
        return self._dispatcher.depth

    @property
    def bytes_sent(self) -> int:
        """Bytes of files that were sent, all Dask workers together."""
        return self._shipper.sent

    def submit(self, what: str, method: str, *args: Any) -> Future[Any]:
        """Queue a call; ``what`` names it in events and errors, e.g. ``trial 17``."""
        paths = [path for arg in args for path in _paths(arg, self._folder) if path not in self._known]
        writes = method in _WRITES
        files = {} if writes else {path: self._ref(path) for path in paths if os.path.isfile(path)}
        remote = RemoteCall(
            what=what,
            method=method,
            args=args,
            code={a.name: self._code_of(a) for a in args if isinstance(a, Metric) and a.kind == "function"},
            files=files,
            brings=tuple(paths) if writes else (),
        )
        call = QueuedCall(remote, Future(), frozenset(ref.sha256 for ref in files.values()))
        self._dispatcher.enter(call)
        return call.future

    def _ref(self, path: str) -> FileRef:
        """Keep the content that a file has now: the same path may get another one."""
        # By inode, size and time: hashing the same file for thousands of calls would cost more than they
        # do.
        stat = os.stat(path)
        key = (path, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if key not in self._refs:
            ref = file_ref(path)
            self._store.adopt(path, ref)
            self._refs[key] = FileRef(str(self._store.path(ref)), ref.size, ref.sha256)
        return self._refs[key]

    def _code_of(self, metric: Metric) -> str:
        if metric.name not in self._code:
            self._code[metric.name] = metric_digest(metric.name)
        return self._code[metric.name]

    def __enter__(self) -> DaskPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the run's calls; the cluster stays as it is."""
        workers = self._dispatcher.stop()
        with contextlib.suppress(Exception):  # a Dask worker that is gone has ended the run already
            self._cluster.ask(workers, end, self._run, limit_s=_END_S)
        with contextlib.suppress(Exception):
            self._cluster.close()


def _paths(value: Any, folder: str) -> Sequence[str]:
    """Find the paths in an argument; the same metric or race comes with thousands of calls."""
    if value is None or isinstance(value, int | float):
        return ()
    try:
        return _known_paths(value, folder)
    except TypeError:  # not hashable
        return paths_in(value, folder)


@functools.lru_cache(maxsize=256)
def _known_paths(value: Any, folder: str) -> tuple[str, ...]:
    return tuple(paths_in(value, folder))


def _first_workers(cluster: Cluster) -> dict[str, int]:
    """Wait for Dask workers and check them; give their threads."""
    deadline = time.monotonic() + FIRST_WORKER_S
    there: dict[str, int] = {}
    while not there and time.monotonic() < deadline:
        there = cluster.threads()
        if not there:
            time.sleep(0.2)
    if not there:
        raise OptionError(
            f"--dask {cluster.address}: the cluster has no workers after {FIRST_WORKER_S:g} s; start some "
            f"with `dask worker {cluster.address}`"
        )
    reasons = refusals(cluster, there)
    if reasons:
        raise refused(reasons)
    return there

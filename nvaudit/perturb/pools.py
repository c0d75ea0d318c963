"""Chooses where calls run, and lends one pool to the chips of many workloads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nvaudit.perturb.engine import Engine
from nvaudit.perturb.workers import Pool, WorkerPool
from nvaudit.perturb.workload import Workload


def open_pool(
    workers: int,
    dask: str | None,
    setup: Any,
    folder: str,
    on_event: Callable[[str], None] = lambda text: None,
) -> Pool:
    """Open the pool of a run; where calls run has no influence on their results.

    Parameters
    ----------
    workers : int
        Worker processes on this machine; 0 runs calls in this process. Without meaning with ``dask``.
    dask : str or None
        Address of a Dask scheduler, or the path of its scheduler file.
    setup : object
        What workers are made from; picklable, with a method ``host() -> Host``.
    folder : str
        The folder of the run's files.
    on_event : callable
        Told in plain words of workers that were lost or replaced.

    Raises
    ------
    OptionError
        If there is no such cluster, or its workers have other versions.
    EngineError
        If Dask is not installed.
    """
    if dask is None:
        return WorkerPool(workers, setup, on_event)
    from nvaudit.perturb.dask.pool import DaskPool

    return DaskPool(dask, setup, folder, on_event)


def check_pool(dask: str | None) -> None:
    """Find out before a model and data are read whether there is a cluster.

    Parameters
    ----------
    dask : str or None
        As in :func:`open_pool`.

    Raises
    ------
    OptionError
        If no scheduler answers at the address.
    EngineError
        If Dask is not installed.
    """
    if dask is not None:
        from nvaudit.perturb.dask.cluster import Cluster

        Cluster(dask).close()


@dataclass(frozen=True)
class ManyWorkloads:
    """Setup of a pool whose calls bring their workload with them."""

    def host(self) -> WorkloadHost:
        """Make what a worker runs calls on."""
        return WorkloadHost()


class WorkloadHost:
    """Runs calls on an engine for their workload, and keeps the last one."""

    def __init__(self) -> None:
        self._folder = ""
        self._engine: Engine | None = None

    def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """Run a call; its first argument is the workload."""
        workload, *rest = args
        if self._engine is None or self._folder != workload.folder:
            # On another machine only the files of a workload have come, not its folder.
            Path(workload.folder).mkdir(parents=True, exist_ok=True)
            self._engine, self._folder = Engine(workload), workload.folder
        return self._engine.call(method, tuple(rest))


@dataclass(frozen=True)
class WorkloadPool:
    """A pool of :class:`ManyWorkloads` as one workload sees it; see :class:`nvaudit.perturb.workers.Pool`."""

    pool: Pool
    workload: Workload

    @property
    def width(self) -> int:
        """How many calls can run at once, now."""
        return self.pool.width

    @property
    def depth(self) -> int:
        """How many calls are worth having submitted and not finished, now."""
        return self.pool.depth

    def submit(self, what: str, method: str, *args: Any) -> Future[Any]:
        """Queue a call for the workload."""
        return self.pool.submit(what, method, self.workload, *args)

    def __enter__(self) -> Self:
        """Use it as a context manager; the pool behind it stays open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the pool behind it as it is."""

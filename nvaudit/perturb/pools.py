"""Chooses where calls run, and keeps them running."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from typing import Any, TypeVar

from nvaudit.perturb.workers import Pool, WorkerPool

Call = TypeVar("Call")
Result = TypeVar("Result")


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

    Returns
    -------
    Pool

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


def as_finished(
    pool: Pool, calls: Iterable[Call], submit: Callable[[Call], Future[Result]]
) -> Iterator[tuple[Call, Result]]:
    """Run calls, never more at once than the pool has use for.

    Parameters
    ----------
    pool : Pool
    calls : iterable
    submit : callable
        Hands one call to the pool.

    Yields
    ------
    (call, result)
        In order of completion.
    """
    left = iter(calls)
    running: dict[Future[Result], Call] = {}
    while True:
        room = max(1, pool.depth) - len(running)
        running.update((submit(call), call) for call in islice(left, max(0, room)))
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()

"""Chooses where calls run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nvaudit.perturb.workers import Pool, WorkerPool


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

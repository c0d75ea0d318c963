"""The one file that talks to Dask's client: connect or say what to do, ask workers, hand out tasks."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nvaudit.errors import EngineError, NvauditError, OptionError
from nvaudit.perturb.dask.calls import versions
from nvaudit.perturb.dask.worker import remote_versions

CONNECT_S = 10.0
"""A scheduler that does not answer within this time is not there."""

ANSWER_S = 30.0
"""A scheduler that was there and does not answer for so long is gone."""

_RESULT_S = 5.0
_START = "start one with `dask scheduler`, or give the address that it prints"


class Cluster:
    """A connection to a Dask scheduler.

    Parameters
    ----------
    address : str
        ``tcp://host:port``, or the path of a scheduler file.

    Raises
    ------
    OptionError
        If no scheduler answers there.
    EngineError
        If Dask is not installed.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = _connect(address)

    @property
    def closed(self) -> bool:
        """Whether the connection is lost for good."""
        return str(self._client.status) in ("closing", "closed")

    def threads(self) -> dict[str, int]:
        """Threads of every Dask worker in the cluster, by its address.

        Raises
        ------
        OSError
            If the scheduler does not answer.
        """
        return dict(self._client.nthreads(callback_timeout=ANSWER_S))

    def ask(
        self, workers: Iterable[str], function: Callable[..., Any], *args: Any, limit_s: float | None = None
    ) -> dict[str, Any]:
        """Call a coroutine function on some Dask workers, outside of their tasks.

        Returns
        -------
        dict
            What each gave, or the exception that it raised.
        """
        chosen = list(workers)
        if not chosen:
            return {}
        answers = self._client.run(
            function, *args, workers=chosen, on_error="return", callback_timeout=limit_s
        )
        return dict(answers)

    def start(self, worker: str, key: str, function: Callable[..., Any], *args: Any) -> Any:
        """Hand a task to one Dask worker; give Dask's future."""
        return self._client.submit(function, *args, workers=[worker], key=key, pure=False)

    def results(self, tasks: Sequence[Any]) -> list[bytes | None]:
        """Results of finished tasks; None where there is none.

        Raises
        ------
        TimeoutError
            If a result was lost with its Dask worker.
        """
        # Asynchronous, since gather takes no limit of its own and waits for a result that is lost.
        wanted = self._client.gather(dict(enumerate(tasks)), errors="skip", asynchronous=True)
        by_task: Mapping[int, bytes | None] = self._within(wanted, _RESULT_S)
        return [by_task.get(i) for i in range(len(tasks))]

    def _within(self, work: Any, seconds: float) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._client.loop.asyncio_loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise

    def cancel(self, tasks: Sequence[Any]) -> None:
        """Cancel tasks; those that run go on until their calls end."""
        if tasks:
            self._client.cancel(list(tasks))

    def close(self) -> None:
        """Leave the cluster as it is."""
        self._client.close(timeout=5)


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise EngineError("--dask needs Dask; run: pip install 'nvaudit[dask]'") from error
    make_client: Any = Client
    options: dict[str, Any] = {"address": address}
    if address.endswith(".json"):
        if not os.path.isfile(address):
            raise OptionError(
                f"--dask {address}: there is no such scheduler file; `dask scheduler --scheduler-file "
                f"{address}` writes it"
            )
        options = {"scheduler_file": address}
    result: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        try:
            result.put(make_client(timeout=CONNECT_S, set_as_default=False, name="nvaudit", **options))
        except BaseException as error:  # handed over to the thread that waits
            result.put(error)

    # Dask waits for ever where something other than a scheduler has taken the call.
    threading.Thread(target=connect, name="nvaudit-connect", daemon=True).start()
    try:
        client = result.get(timeout=1.5 * CONNECT_S)
    except queue.Empty:
        raise OptionError(f"--dask {address}: what listens there is no Dask scheduler; {_START}") from None
    if isinstance(client, BaseException):
        what = str(client) or type(client).__name__
        raise OptionError(f"--dask {address}: no Dask scheduler there: {what}; {_START}") from client
    return client


def refusals(cluster: Cluster, workers: Iterable[str]) -> dict[str, str]:
    """Check the versions of Dask workers.

    Equal versions are needed for equal bits: the same chips are drawn and evaluated on every machine.

    Returns
    -------
    dict of str to str
        Why a Dask worker cannot be used, by its address.
    """
    here = versions()
    refused = {}
    for worker, there in cluster.ask(workers, remote_versions).items():
        if isinstance(there, NvauditError):
            refused[worker] = str(there)
        elif isinstance(there, Exception):
            # Dask may hand on only the text of an error that unpickling has raised.
            what = f"{type(there).__name__} {there}".strip()
            missing = "ModuleNotFoundError" in what or "AttributeError" in what
            reason = f"nvaudit {here['nvaudit']} is not installed there"
            refused[worker] = f"{reason if missing else 'it cannot be asked for its versions'} ({what})"
        elif there != here:
            refused[worker] = ", ".join(
                f"{name} is {there.get(name)} there and {version} here"
                for name, version in here.items()
                if there.get(name) != version
            )
    return refused

"""Brings the files of a run to Dask workers: each content once to each machine that lacks it."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from nvaudit.errors import EngineError, OptionError
from nvaudit.perturb.dask.cluster import Cluster, refusals
from nvaudit.perturb.dask.files import CHUNK, Bundle, FileRef, bundle
from nvaudit.perturb.dask.worker import keep, prepare, reserve


class Shipper:
    """Prepares Dask workers for a run.

    Parameters
    ----------
    run : str
        Name of the run on the Dask workers.
    setup : object
        What hosts are made from; see :class:`nvaudit.perturb.workers.WorkerPool`.
    folder : str
        The run's folder.
    """

    def __init__(self, cluster: Cluster, run: str, setup: Any, folder: str) -> None:
        self._cluster = cluster
        self._run = run
        self._setup = setup
        self._folder = folder
        self._bundle: Bundle | None = None
        self._stores: dict[str, tuple[str, str]] = {}
        self.sent = 0
        self.stopped = False

    def welcome(self, workers: Collection[str], extras: Collection[FileRef], checked: bool) -> dict[str, str]:
        """Check Dask workers, bring the files and prepare the run.

        Parameters
        ----------
        extras : collection of FileRef
            Contents beside those of the setup.
        checked : bool
            The versions are known to be right.

        Returns
        -------
        dict of str to str
            Why a Dask worker cannot be used, by its address; the others are ready.
        """
        failed = {} if checked else refusals(self._cluster, workers)
        if self._bundle is None:
            self._bundle = bundle(self._setup, self._folder)
        good = [worker for worker in workers if worker not in failed]
        failed |= self.bring(good, (*self._bundle.refs(), *extras))
        good = [worker for worker in good if worker not in failed]
        payload = pickle.dumps((self._setup, self._bundle), pickle.HIGHEST_PROTOCOL)
        return failed | _told(self._cluster.ask(good, prepare, self._run, payload))

    def bring(self, workers: Collection[str], refs: Iterable[FileRef]) -> dict[str, str]:
        """Bring contents to Dask workers that lack them.

        One Dask worker on each host is sent them; the others on the host link its files.

        Returns
        -------
        dict of str to str
            What went wrong, by the address of the Dask worker.
        """
        contents = {ref.sha256: ref for ref in refs}
        failed: dict[str, str] = {}
        lacking = self._look(workers, contents, failed)
        first: dict[str, str] = {}
        for worker in lacking:
            first.setdefault(self._stores[worker][0], worker)
        self._send({worker: lacking[worker] for worker in first.values()}, contents, failed)
        rest = [worker for worker in lacking if worker not in first.values()]
        if rest:
            # Asked again: what the first on their host was sent, they have linked by now.
            self._send(self._look(rest, contents, failed), contents, failed)
        return failed

    def _look(
        self, workers: Collection[str], contents: Mapping[str, FileRef], failed: dict[str, str]
    ) -> dict[str, set[str]]:
        """Ask what is missing; empty for a Dask worker that has everything."""
        siblings = tuple(set(self._stores.values()))
        answers = self._cluster.ask(workers, reserve, self._run, tuple(contents.values()), siblings)
        failed |= _told(answers)
        lacking = {}
        for worker in answers.keys() - failed.keys():
            host, store, missing = answers[worker]
            self._stores[worker] = host, store
            if missing:
                lacking[worker] = set(missing)
        return lacking

    def _send(
        self, lacking: Mapping[str, set[str]], contents: Mapping[str, FileRef], failed: dict[str, str]
    ) -> None:
        for sha256, ref in contents.items():
            workers = [worker for worker, missing in lacking.items() if sha256 in missing]
            if not workers:
                continue
            with open(ref.path, "rb") as file:
                # An empty file takes one message too: the last part is what makes a content visible.
                for offset in range(0, max(1, ref.size), CHUNK):
                    if self.stopped:
                        raise EngineError("the run was stopped")
                    workers = [worker for worker in workers if worker not in failed]
                    data = file.read(CHUNK)
                    failed |= _told(self._cluster.ask(workers, keep, self._run, ref, offset, data))
                    self.sent += len(data) * len(workers)


def _told(answers: Mapping[str, Any]) -> dict[str, str]:
    """Put errors among answers in words."""
    return {
        worker: str(answer) or type(answer).__name__
        for worker, answer in answers.items()
        if isinstance(answer, Exception)
    }


def refused(reasons: Mapping[str, str]) -> OptionError:
    """Say why the Dask workers cannot be used."""
    worker, reason = next(iter(reasons.items()))
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return OptionError(
        f"--dask: the Dask worker {worker} cannot be used: {reason}{more}; install the same versions on "
        "every machine: chips are drawn and evaluated bit for bit alike only then"
    )

"""What travels to a Dask worker and back: calls, answers, and a check of the user's own metric."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nvaudit._version import __version__
from nvaudit.errors import NvauditError, OptionError
from nvaudit.model.runtime import runtime
from nvaudit.perturb.dask.files import FileRef
from nvaudit.perturb.own_metric import metric_digest
from nvaudit.perturb.workers import Host, host_of


@dataclass(frozen=True)
class RemoteCall:
    """A call on its way.

    Attributes
    ----------
    what, method, args
        As submitted to the pool.
    code : mapping of str to str
        SHA-256 of the modules of the user's own metrics, by the name of the metric.
    files : mapping of str to FileRef
        Contents of files that the arguments name and the setup does not.
    brings : tuple of str
        Files that the call makes.
    """

    what: str
    method: str
    args: tuple[Any, ...]
    code: Mapping[str, str]
    files: Mapping[str, FileRef]
    brings: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What became of a call: its value or its error, the seconds it took, and the files that it made."""

    value: Any
    error: NvauditError | None
    seconds: float
    brought: Mapping[str, FileRef] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """Of all calls of a task; ``events`` tells of child processes that were replaced."""

    answers: tuple[Answer, ...]
    events: tuple[str, ...]


@dataclass(frozen=True)
class CheckedSetup:
    """Sent to a child process of a Dask worker: the run's own setup, and a check in front of it."""

    setup: Any

    def host(self) -> Host:
        """Make what the child process runs calls on."""
        return _CheckedHost(host_of(self.setup))


class _CheckedHost:
    """Runs calls if a metric of the user's is the same file here as on the user's machine."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: set[str] = set()

    def call(self, method: str, args: tuple[Any, ...]) -> Any:
        """Run a call; the first argument is its ``code``."""
        code, *rest = args
        for name, wanted in code.items():
            if name not in self._known:
                _check(name, wanted)
                self._known.add(name)
        return self._host.call(method, tuple(rest))


def _check(name: str, wanted: str) -> None:
    here = f"the Dask worker on {socket.gethostname()}"
    try:
        version = metric_digest(name)
    except OptionError as error:
        raise OptionError(
            f"{error}; on {here} the module must be importable too: install it there, or start the Dask "
            "worker with its folder in PYTHONPATH"
        ) from error
    if version != wanted:
        raise OptionError(
            f"--metric {name}: {here} has another version of its module; put the same file there and start "
            "the Dask worker again"
        )


def versions() -> dict[str, str]:
    """Give the versions that the bits of a chip depend on."""
    return {"nvaudit": __version__, "numpy": np.__version__, "onnxruntime": runtime().__version__}

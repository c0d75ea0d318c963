"""One pool for the chips of many workloads: worker processes stay while points of a design space change."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nvaudit.perturb.engine import Engine
from nvaudit.perturb.workers import Pool
from nvaudit.perturb.workload import Workload


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

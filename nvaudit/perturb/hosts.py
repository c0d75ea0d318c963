"""From what is to be run to what runs it."""

from __future__ import annotations

from typing import Any, Protocol


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

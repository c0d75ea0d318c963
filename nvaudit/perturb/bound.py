"""A session that stays open from chip to chip, with its weights and samples on the device.

Where a session is dear to make and samples are dear to bring, as on a GPU, the weights of a chip are inputs
of the graph instead of its constants: they lie in memory of the device that is bound once, and the next chip
is written over the last one. On the processor constants are worth more than that: ONNX Runtime packs them,
and lays them out anew, which makes a batch of a ResNet-20 nearly twice as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.model.runtime import runtime
from nvaudit.model.template import Slot, open_inputs
from nvaudit.perturb.session import open_session, ort_value, sources
from nvaudit.perturb.workload import Workload

DEVICES = {"cuda": "cuda"}
"""Providers whose sessions stay open, and the device that ONNX Runtime knows their memory by."""

KEPT_BYTES = 2 << 30
"""Samples that stay on the device, at most."""

Feeds = Mapping[str, Any]


def bound_sessions(workload: Workload) -> BoundSessions | None:
    """What keeps the sessions of a workload open; None where each chip has a session of its own."""
    device = DEVICES.get(workload.provider)
    # The seeds of read noise are attributes of the graph, so every chip has a graph of its own; sequences and
    # dictionaries among the outputs cannot be bound.
    if device is None or workload.read_noise or workload.columns:
        return None
    return BoundSessions(workload, device)


class BoundSessions:
    """The open sessions of a workload: one for each graph."""

    def __init__(self, workload: Workload, device: str) -> None:
        self._w, self._device = workload, device
        self.open: dict[bytes, BoundSession] = {}

    def filled(
        self,
        proto: bytes,
        slots: Iterable[tuple[Slot, NDArray[Any]]],
        more: Mapping[str, NDArray[Any]],
    ) -> BoundSession:
        """The session of a graph, with the weights of a chip; ``more`` are other initializers left open."""
        session = self.open.get(proto)
        if session is None:
            names = {slot.name for slot in self._w.slots} | set(more)
            digital = {name: file.open() for name, file in self._w.template.digital.items()}
            session = BoundSession(proto, names, digital, self._w.provider, self._device)
            self.open[proto] = session
        session.fill(slots, more)
        return session


class BoundSession:
    """A session whose weights are inputs; :meth:`run` is that of an ordinary one, on the weights last given.

    Parameters
    ----------
    proto : bytes
        A template: initializers of the names below are declared in it, with their types and shapes.
    names : iterable of str
        What the chips differ in.
    digital : mapping of str to ndarray
        The other initializers that the message leaves open; constants.
    provider : str
        Execution provider.
    device : str
        Of the memory that weights and samples lie in.
    """

    def __init__(
        self,
        proto: bytes,
        names: Iterable[str],
        digital: Mapping[str, NDArray[Any]],
        provider: str,
        device: str,
    ) -> None:
        graph = open_inputs(proto, frozenset(names))
        self._session = open_session(graph, digital, provider)
        sources[self] = graph
        self._device = device
        self._weights: dict[str, Any] = {}
        self._kept: dict[Any, dict[str, Any]] = {}
        self._kept_bytes = 0

    def fill(self, slots: Iterable[tuple[Slot, NDArray[Any]]], more: Mapping[str, NDArray[Any]]) -> None:
        """Write a chip over the last one."""
        for slot, array in slots:
            self._write(slot.name, array)
        for name, array in more.items():
            self._write(name, array)

    def _write(self, name: str, array: NDArray[Any]) -> None:
        given = np.ascontiguousarray(array)
        held = self._weights.get(name)
        if held is None:
            self._weights[name] = ort_value(runtime(), given, self._device)
        else:
            held.update_inplace(given.view(np.uint16) if given.dtype.name == "bfloat16" else given)

    def kept(self, key: Any, make: Callable[[], Feeds]) -> Feeds:
        """Samples that every chip is run on: brought to the device once, as long as there is room."""
        if key in self._kept:
            return self._kept[key]
        feeds = make()
        size = sum(array.nbytes for array in feeds.values())
        if self._kept_bytes + size > KEPT_BYTES:
            return feeds
        self._kept_bytes += size
        self._kept[key] = {name: ort_value(runtime(), array, self._device) for name, array in feeds.items()}
        return self._kept[key]

    def run(self, outputs: list[str], feeds: Feeds, how: Any) -> list[NDArray[Any]]:
        """Run samples; arrays are brought to the device, what lies there already is bound as it is."""
        binding = self._session.io_binding()
        for name, value in (*self._weights.items(), *feeds.items()):
            given = ort_value(runtime(), value, self._device) if isinstance(value, np.ndarray) else value
            binding.bind_ortvalue_input(name, given)
        for name in outputs:
            binding.bind_output(name)  # in memory of the processor, where it is scored
        self._session.run_with_iobinding(binding, how)
        return list(binding.copy_outputs_to_cpu())

"""ONNX Runtime sessions whose weights are filled in per chip."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from nvaudit.errors import ModelError, NvauditError
from nvaudit.model.optimised import OptimisedTemplate, read_optimised, trial_fills
from nvaudit.model.runtime import runtime
from nvaudit.model.template import Slot
from nvaudit.perturb.memory import available_bytes
from nvaudit.perturb.providers import session_on
from nvaudit.perturb.watchdog import guarded

FILE_BYTES = 32 << 20
"""From this size on, weights go through a file that ONNX Runtime maps, not through its copies."""

OPTIMISED_AFTER = 8
"""Chips after which their template is optimised once for all: that takes as long as the sessions of some."""

sources: WeakKeyDictionary[Any, bytes | Path] = WeakKeyDictionary()
"""What each session was made from: read again only to say what keeps it running."""


def _options(ort: Any) -> Any:
    options = ort.SessionOptions()
    # One thread per session: results do not depend on how many cores there are; chips run side by side.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # A pattern of memory is laid out after the first batch, for sessions that live long; that of a raced
    # chip is over after a few batches, and asking for the pages a second time took as long as half of them.
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    return options


def _as_written(ort: Any) -> Any:
    """Options of a session that runs a graph as it is written."""
    options = _options(ort)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


@cache
def _has_shared_arena(ort: Any) -> bool:
    """Whether sessions of this process can take their memory from one place, which keeps it for the next."""
    try:
        cpu = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(cpu, None)
    except Exception:  # this process has one already, with settings of its own
        return False
    return True


def open_session(
    graph: bytes | Path,
    fills: Mapping[str, NDArray[Any]],
    provider: str = "cpu",
    *,
    optimised: bool = False,
    save_to: Path | None = None,
) -> Any:
    """Make a session.

    Parameters
    ----------
    graph : bytes or Path
        The model, or its file.
    fills : mapping of str to ndarray
        Arrays for initializers declared as external data; they become constants of the session, so that
        ONNX Runtime packs them as it does its own.
    provider : str
        Execution provider.
    optimised : bool
        The graph is one that ONNX Runtime has optimised for this machine, and runs as it is.
    save_to : Path, optional
        Where the graph is written as ONNX Runtime has optimised it, with its weights.

    Raises
    ------
    ModelError
        If ONNX Runtime refuses the model.
    OptionError
        If it would run on another provider.
    """
    ort = runtime()
    options = _as_written(ort) if optimised else _options(ort)
    if optimised and _has_shared_arena(ort):
        # Each session of a chip would else ask the system for fresh pages, for a few batches.
        options.add_session_config_entry("session.use_env_allocators", "1")
    if save_to is not None:
        options.optimized_model_filepath = os.fspath(save_to)
    if fills:
        # bfloat16 and the like have no numpy type of their own: ONNX Runtime is told the element type.
        options.add_external_initializers(list(fills), [ort_value(ort, a) for a in fills.values()])
    source = os.fspath(graph) if isinstance(graph, Path) else graph
    try:
        session = guarded(
            lambda: session_on(ort, source, options, provider),
            lambda: options.set_load_cancellation_flag(True),
            lambda: _loops(graph),
        )
    except NvauditError:
        raise
    except Exception as error:
        text = _brief(error)
        if "is not a registered function/op" in text or "Could not find an implementation" in text:
            text += "; export the model without this operator, or with another operator set"
        raise ModelError(f"ONNX Runtime cannot load the model: {text}") from error
    sources[session] = graph
    return session


def literal_session(data: bytes) -> Any:
    """Make a session that runs a model as it is written, without the rewrites that round elsewhere.

    Raises
    ------
    ModelError
        If ONNX Runtime refuses the model.
    """
    ort = runtime()
    options = _as_written(ort)
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load the model: {_brief(error)}") from error
    sources[session] = data
    return session


class TemplateSessions:
    """Sessions of one template for many chips; ONNX Runtime optimises it once for all of them if it can.

    Parameters
    ----------
    folder : Path
        For a file that is needed meanwhile.
    outputs : callable
        What a session gives on some samples, bit for bit.
    """

    def __init__(self, slots: Sequence[Slot], folder: Path, outputs: Callable[[Any], list[bytes]]) -> None:
        self._slots, self._folder, self._outputs = slots, folder, outputs
        self._chips = 0
        self.optimised: OptimisedTemplate | None = None
        """The template as it was optimised; None before, and where that is not possible."""

    def open(self, proto: bytes, fills: Mapping[str, NDArray[Any]]) -> Any:
        """Make the session of a chip.

        Parameters
        ----------
        proto : bytes
            The template.
        fills : mapping of str to ndarray
            Weights of the chip, by slot.
        """
        self._chips += 1
        if self.optimised is not None:
            return self._again(self.optimised, fills)
        session = open_session(proto, fills)
        if self._chips == OPTIMISED_AFTER:
            # What ONNX Runtime refuses of it, such as large numbers where weights are folded, is no fault of
            # the chip, whose own session is there.
            with suppress(ModelError):
                self.optimised = self._optimise(proto, fills, session)
        return session

    @staticmethod
    def _again(optimised: OptimisedTemplate, fills: Mapping[str, NDArray[Any]]) -> Any:
        return open_session(optimised.message, optimised.fills(fills), optimised=True)

    def _optimise(
        self, proto: bytes, fills: Mapping[str, NDArray[Any]], session: Any
    ) -> OptimisedTemplate | None:
        trials = trial_fills(self._slots)
        if trials is None:
            return None
        tried, file, written = (*trials, fills), self._folder / "optimised.onnx", []
        for values in tried:
            open_session(proto, values, save_to=file)
            written.append(file.read_bytes())
            file.unlink()
        found = read_optimised(self._slots, tried, written)
        # The same operators on the same numbers give the same bits; a graph that does not is not used.
        same = found is not None and self._outputs(self._again(found, fills)) == self._outputs(session)
        return found if same else None


def ort_value(ort: Any, array: NDArray[Any], device: str = "cpu") -> Any:
    """An array as ONNX Runtime holds it, in memory of a device; on the processor the array itself."""
    array = np.ascontiguousarray(array)
    if array.dtype.name == "bfloat16":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), 16)
    return ort.OrtValue.ortvalue_from_numpy(array, device, 0)


def run_session(session: Any, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a session.

    Raises
    ------
    ModelError
        If ONNX Runtime fails on this input, or takes longer than a pass may.
    """
    how = runtime().RunOptions()
    how.log_severity_level = 4

    def end() -> None:
        how.terminate = True

    source = sources.get(session, b"")
    try:
        return guarded(lambda: list(session.run(outputs, dict(feeds), how)), end, lambda: _loops(source))
    except NvauditError:
        raise
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot run the model on this data: {_brief(error)}") from error


def feed_samples(
    inputs: Mapping[str, NDArray[Any]],
    axes: Mapping[str, int | None],
    which: slice | NDArray[np.intp],
    size: int,
    fixed: int | None,
) -> dict[str, NDArray[Any]]:
    """Cut a batch out of all samples.

    Parameters
    ----------
    inputs : mapping of str to ndarray
        All samples of every input.
    axes : mapping of str to int or None
        The batch axis of each; None or missing: the same for every sample.
    which : slice or ndarray of int
        Samples of the batch, ``size`` of them.
    fixed : int or None
        The batch size of a model that has one: the last sample is repeated up to it.

    Raises
    ------
    ModelError
        If a fixed batch is beyond memory.
    """
    feeds: dict[str, NDArray[Any]] = {}
    for name, array in inputs.items():
        axis = axes.get(name)
        if axis is None:
            feeds[name] = np.asarray(array)
            continue
        part = array[(slice(None),) * axis + (which,)]
        if fixed and size < fixed:
            if part.nbytes // max(size, 1) * fixed > available_bytes():
                raise ModelError(
                    f"input {name!r} takes {fixed} samples at once, more than fit into memory; export "
                    "the model with a smaller batch"
                )
            pad = [(0, fixed - size) if i == axis else (0, 0) for i in range(part.ndim)]
            part = np.pad(part, pad, mode="edge")
        feeds[name] = np.ascontiguousarray(part)
    return feeds


def _loops(graph: bytes | Path) -> tuple[str, ...]:
    from nvaudit.model.message import loop_names  # most workers never need what reads a model

    return loop_names(graph)


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else text[:400] + " …"

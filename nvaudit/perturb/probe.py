"""Inner values of a model on samples, batch by batch: one way to look, whoever asks.

Of the model as it is, in floating point, on a data set::

    probe = probe_model(loaded, dataset, ["relu1_out", "fc_in"])
    for samples, values in probe.batches(np.arange(64)):
        x = values["fc_in"].reshape(-1, inputs).astype(np.float64)
        moment += x.T @ x  # E[x xᵀ] once it is divided by the number of rows

Of a chip, or of the quantised weights without noise, the workload must return the values::

    shown, outputs = exposing(workload, ["conv1_out"], folder, "means")
    probe = Engine(shown).inner(outputs, point=0, trial=3)

Only one batch is in memory at a time, so that callers add up what they need: sums, not values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.data import Dataset
from nvaudit.model import LoadedModel, Rebatch, analyse_batch, build_template
from nvaudit.model.probe import expose, inner_values
from nvaudit.perturb.prepare import original_batch
from nvaudit.perturb.session import feed_samples, open_session, run_session
from nvaudit.perturb.workload import Workload

VALUES_AT_ONCE = 1 << 24
"""Numbers that the inner values of one batch may hold together, where a caller names no batch size."""

MOST_AT_ONCE = 64

InnerValues = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class InnerProbe:
    """An open graph with inner values in sight.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
        Of a graph that has the values among its outputs (:func:`nvaudit.model.probe.expose`).
    outputs : mapping of str to str
        The output that gives each value; an input of the graph gives itself. A value that no output of the
        model depends on is not computed and not among them.
    inputs : mapping of str to ndarray
        All samples of every input.
    axes : mapping of str to int or None
        The batch axis of each input; None or missing: the same for all samples.
    fixed : int or None
        The batch size that the graph must be fed, None where any will do.
    """

    session: Any
    outputs: Mapping[str, str]
    inputs: Mapping[str, NDArray[Any]]
    axes: Mapping[str, int | None]
    fixed: int | None = None

    def run(self, samples: NDArray[np.intp], names: Collection[str] | None = None) -> InnerValues:
        """Inner values of one batch.

        Parameters
        ----------
        samples : ndarray of int
            Which samples, at most ``fixed``. A graph with a fixed batch size is fed the last one again
            until the batch is full, and its values hold these repetitions: where their batch axis lies,
            only the caller knows.
        names : collection of str, optional
            Of the exposed values; all by default.

        Returns
        -------
        dict of str to ndarray
            As the graph gives them (a sequence of tensors as a list).

        Raises
        ------
        ModelError
            If ONNX Runtime fails on these samples.
        """
        feeds = feed_samples(self.inputs, self.axes, samples, len(samples), self.fixed)
        given = {name: self.outputs[name] for name in (self.outputs if names is None else names)}
        asked = list(dict.fromkeys(output for output in given.values() if output not in feeds))
        made = dict(zip(asked, run_session(self.session, asked, feeds), strict=True)) if asked else {}
        return {name: feeds[output] if output in feeds else made[output] for name, output in given.items()}

    def batches(
        self, samples: NDArray[np.intp], names: Collection[str] | None = None, at_once: int | None = None
    ) -> Iterator[tuple[NDArray[np.intp], InnerValues]]:
        """Run samples in their order.

        Parameters
        ----------
        at_once : int, optional
            Samples of a batch, of a graph that may be fed any number; by default the first alone, then as
            many as ``VALUES_AT_ONCE`` and ``MOST_AT_ONCE`` allow.

        Yields
        ------
        tuple of ndarray of int and dict
            The samples of a batch, and :meth:`run` of these.
        """
        start, size = 0, self.fixed or at_once or 1
        while start < len(samples):
            part = samples[start : start + size]
            values = self.run(part, names)
            yield part, values
            start += len(part)
            if self.fixed is None and at_once is None:
                each = sum(np.size(array) for array in values.values()) // len(part)
                size = int(np.clip(VALUES_AT_ONCE // max(each, 1), 1, MOST_AT_ONCE))


def probe_model(
    loaded: LoadedModel,
    dataset: Dataset,
    names: Collection[str] | None = None,
    *,
    rebatch: Rebatch | None = None,
    provider: str = "cpu",
) -> InnerProbe:
    """Open a model as it is, with inner values in sight.

    Parameters
    ----------
    loaded : LoadedModel
        It is not changed; a fixed batch size is freed where that is provably the same model.
    names : collection of str, optional
        Of values at any depth (of a layer: names of inputs and outputs of ``WeightUse.node``); by default
        all of the main graph.
    rebatch : Rebatch, optional
        What :func:`nvaudit.model.analyse_batch` says of the model, where that is known.
    provider : str
        Execution provider.

    Raises
    ------
    ModelError
        If ONNX Runtime cannot return a value.
    """
    rebatch = rebatch or analyse_batch(loaded.model)
    free = rebatch.status == "rebatched"
    template = build_template(loaded, [], batch="free" if free else "keep")
    proto, outputs = expose(template.proto, inner_values(template.proto) if names is None else names)
    fixed = None if free else original_batch(loaded, rebatch)
    session = open_session(proto, template.digital, provider)
    return InnerProbe(session, outputs, dataset.inputs, dataset.batch_axes, fixed or dataset.together or None)


def exposing(
    workload: Workload, names: Collection[str], folder: Path, name: str
) -> tuple[Workload, dict[str, str]]:
    """Let the template of a workload return inner values, for :meth:`nvaudit.perturb.engine.Engine.inner`.

    Parameters
    ----------
    names : collection of str
        Of values at any depth.
    folder : Path
        Where the new graph is written, as ``<name>.onnx``.

    Returns
    -------
    Workload
        With another template, else the same.
    dict of str to str
        The output that gives each value.
    """
    proto, outputs = expose(Path(workload.template.path).read_bytes(), names)
    path = folder / f"{name}.onnx"
    path.write_bytes(proto)
    return replace(workload, template=replace(workload.template, path=str(path))), outputs

"""Measure candidates: a few simulated chips on a few images, the same for every candidate."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.data import Dataset
from nvaudit.device import OperatingPoint
from nvaudit.mapping.conductance import Encoding
from nvaudit.mapping.quantize import quantize
from nvaudit.mapping.select import select
from nvaudit.model import LoadedModel, Weight, analyse_batch, constants
from nvaudit.model.rewrite import editable_weights
from nvaudit.perturb.chip import Draw
from nvaudit.perturb.engine import QUANTISED, Engine, place
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.prepare import Placement, Request, build_workload
from nvaudit.perturb.workload import TensorFile, Workload, save_array
from nvaudit.rng import stream

WORST = 0.25
"""The share of the chips, counted from the worst, whose mean ranks candidates: a KPP of few chips is one
chip, and chance decides between close candidates."""


@dataclass(frozen=True)
class Trial:
    """What a candidate measures.

    Attributes
    ----------
    nominal : float
        Metric of the candidate without quantisation and noise.
    quantised : float
        Metric of its codes, without noise.
    chips : ndarray, float64, shape (chip,)
    higher_is_better : bool
    """

    nominal: float
    quantised: float
    chips: NDArray[np.float64]
    higher_is_better: bool

    @property
    def worst(self) -> float:
        """Mean of the worst quarter of the chips."""
        ordered = np.sort(self.chips if self.higher_is_better else -self.chips)
        mean = float(ordered[: max(1, int(np.ceil(WORST * len(ordered))))].mean())
        return mean if self.higher_is_better else -mean

    @property
    def mean(self) -> float:
        """Mean of all chips."""
        return float(self.chips.mean())

    def beats(self, other: Trial) -> bool:
        """Whether the worst chips are better; the mean decides between equals."""
        sign = 1 if self.higher_is_better else -1
        mine, its = (sign * self.worst, sign * self.mean), (sign * other.worst, sign * other.mean)
        return bool(np.isfinite(self.chips).all()) and mine > its


@dataclass(frozen=True)
class Conditions:
    """What all candidates are measured under.

    Attributes
    ----------
    point : OperatingPoint
    bits, cell_bits, encoding, per_channel
        How weights are mapped; see :class:`nvaudit.perturb.prepare.Placement`.
    layers, digital : tuple of str
        Which weights are.
    dataset : Dataset
        The calibration images.
    output : str
    metric : Metric
    keep : str or None
        The original model's outputs, where the metric compares with these.
    batch : int
    seed : int
    chips : int
    threads : int
    provider : str
    """

    point: OperatingPoint
    bits: int
    cell_bits: int | None
    encoding: Encoding | None
    per_channel: bool
    layers: tuple[str, ...]
    digital: tuple[str, ...]
    dataset: Dataset
    output: str
    metric: Metric
    keep: str | None
    batch: int
    seed: int
    chips: int
    threads: int
    provider: str


class Bench:
    """One structure of the model; its weights may still be replaced."""

    def __init__(self, loaded: LoadedModel, conditions: Conditions, folder: Path) -> None:
        folder.mkdir()
        self.loaded, self.conditions, self.folder = loaded, conditions, folder
        how = Placement(conditions.bits, conditions.cell_bits, conditions.encoding, conditions.per_channel)
        decisions = select(constants(loaded), conditions.layers, conditions.digital)
        request = Request(
            loaded=loaded,
            rebatch=analyse_batch(loaded.model),
            decisions=decisions,
            points=(conditions.point,),
            how=how,
            dataset=conditions.dataset,
            output=conditions.output,
            batch=conditions.batch,
            seed=conditions.seed,
            every_device=False,
            provider=conditions.provider,
        )
        self.workload: Workload = build_workload(request, folder)
        found = [d.constant.weight for d in decisions if d.mapped and d.constant.weight is not None]
        self.weights: dict[str, Weight] = {weight.key: weight for weight in found}
        self.values: dict[str, NDArray[Any]] = {}
        self.on_grid: set[str] = set()
        self.editable: dict[str, str | None] = editable_weights(loaded.model, list(self.weights))
        for key, weight in self.weights.items():
            read = weight.load()
            self.values[key] = read.values
            if read.grid is not None:
                self.on_grid.add(key)
        self._count = itertools.count()

    def measure(self, changed: Mapping[str, NDArray[Any]] | None = None) -> Trial:
        """Measure the model, with some weights replaced.

        Parameters
        ----------
        changed : mapping of str to ndarray, optional
            By key, in the primary layout.

        Returns
        -------
        Trial
        """
        changed = changed or {}
        workload = self._with(changed)
        metric, keep = self.conditions.metric, self.conditions.keep
        threads = max(1, min(self.conditions.threads, self.conditions.chips))
        engines = [Engine(workload) for _ in range(threads)]
        nominal = self._nominal(engines[0], workload, changed, keep)
        quantised = engines[0].chip(metric, keep, 0, QUANTISED).value

        def run(lane: int) -> list[float]:
            trials = range(lane, self.conditions.chips, threads)
            return [engines[lane].chip(metric, keep, 0, trial).value for trial in trials]

        chips = np.empty(self.conditions.chips)
        with ThreadPoolExecutor(threads) as pool:
            for lane, found in enumerate(pool.map(run, range(threads))):
                chips[lane::threads] = found
        return Trial(nominal, quantised, chips, metric.higher_is_better)

    def nominal(self, changed: Mapping[str, NDArray[Any]], samples: Workload, keep: str | None) -> float:
        """Score the model with some weights replaced, without quantisation and noise.

        Parameters
        ----------
        changed : mapping of str to ndarray
            As in :meth:`measure`.
        samples : Workload
            Gives inputs and labels.
        keep : str or None
            The original model's outputs on these samples, where the metric compares with them.

        Returns
        -------
        float
        """
        workload = replace(self.workload, inputs=samples.inputs, labels=samples.labels, count=samples.count)
        return self._nominal(Engine(workload), workload, changed, keep)

    def _nominal(
        self, engine: Engine, workload: Workload, changed: Mapping[str, NDArray[Any]], keep: str | None
    ) -> float:
        values = self.values | dict(changed)
        keys = [tensor.key for tensor in workload.tensors]
        slots = [(slot, place(Draw(values[keys[slot.tensor]], None), slot)) for slot in workload.slots]
        with np.errstate(all="ignore"):
            return engine.mean_score(self.conditions.metric, keep, slots)

    def _with(self, changed: Mapping[str, NDArray[Any]]) -> Workload:
        """The workload with other codes for the weights that changed."""
        tensors = tuple(
            self._mapped(tensor, changed[tensor.key]) if tensor.key in changed else tensor
            for tensor in self.workload.tensors
        )
        return replace(self.workload, tensors=tensors)

    def _mapped(self, tensor: TensorFile, values: NDArray[Any]) -> TensorFile:
        axes = self.weights[tensor.key].channel_axes if self.conditions.per_channel else ()
        codes = quantize(values, self.conditions.bits, axes)
        file = save_array(self.folder, f"changed-{next(self._count)}", codes.code)
        peak = int(np.abs(codes.code).max(initial=0))
        return replace(tensor, code=file, scale=codes.scale, peak_code=peak)


def subset(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Choose samples at random, in their own order.

    Parameters
    ----------
    dataset : Dataset
    count : int
        How many; all where there are no more.
    seed : int

    Returns
    -------
    Dataset
        With arrays of its own.
    """
    if dataset.count <= count:
        return dataset
    chosen = np.sort(stream(seed, "calibration").choice(dataset.count, count, replace=False))
    inputs = {
        name: np.ascontiguousarray(np.take(array, chosen, axis=dataset.batch_axes[name]))
        if name in dataset.batch_axes
        else array
        for name, array in dataset.inputs.items()
    }
    labels = None if dataset.labels is None else np.ascontiguousarray(dataset.labels[chosen])
    return replace(dataset, inputs=inputs, labels=labels, count=count)

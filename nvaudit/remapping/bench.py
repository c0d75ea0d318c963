"""Measure candidates: a few simulated chips on a few samples, the same for every candidate."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.data import Dataset
from nvaudit.device import OperatingPoint
from nvaudit.mapping.quantize import keeps_grid, quantize
from nvaudit.mapping.select import select
from nvaudit.model import LoadedModel, Weight, analyse_batch, constants
from nvaudit.model.decode import IntegerGrid
from nvaudit.model.regrid import code_ranges
from nvaudit.model.rewrite import editable_weights
from nvaudit.model.template import Slot
from nvaudit.options import Encoding
from nvaudit.perturb.boxes import BoxReader
from nvaudit.perturb.chip import DrawnWeights
from nvaudit.perturb.choose_codes import ChosenCodes
from nvaudit.perturb.crossbar import ConverterSpec, put_on_crossbars
from nvaudit.perturb.engine import Engine, place
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.open_chips import OpenChips
from nvaudit.perturb.prepare import Placement, Request, build_workload
from nvaudit.perturb.workload import TensorFile, Workload, save_array
from nvaudit.remapping.clip import Limit, clipped, regridded
from nvaudit.remapping.kept_scores import CandidateChips, KeptScores, task_of
from nvaudit.rng import stream

WORST_SHARE = 0.25
"""The share of the chips, counted from the worst, whose mean ranks candidates: a KPP of few chips is one
chip, and chance decides between close candidates."""

FIRST_CHIPS = 4
"""Chips after which a candidate that is behind by more than chance is given up."""


@dataclass(frozen=True)
class ChipScores:
    """What a candidate measures.

    Attributes
    ----------
    nominal : float
        Metric of the candidate without quantisation and noise.
    quantised : float
        Metric of its codes, without noise; NaN where no chip was run.
    chips : ndarray, float64, shape (chip,)
        Fewer than all where it was given up.
    """

    nominal: float
    quantised: float
    chips: NDArray[np.float64]
    higher_is_better: bool

    @property
    def sign(self) -> int:
        """Turns the metric into one of which more is better."""
        return 1 if self.higher_is_better else -1

    @property
    def worst(self) -> float:
        """Mean of the worst quarter of the chips; NaN of none."""
        if not len(self.chips):
            return float("nan")
        ordered = np.sort(self.sign * self.chips)
        return self.sign * float(ordered[: max(1, int(np.ceil(WORST_SHARE * len(ordered))))].mean())

    @property
    def mean(self) -> float:
        """Mean of all chips; NaN of none."""
        return float(self.chips.mean()) if len(self.chips) else float("nan")

    def beats(self, other: ChipScores) -> bool:
        """Whether the worst chips are better and the mean is not behind; it decides between equals."""
        sign, count = self.sign, len(other.chips)
        mine, its = (sign * self.worst, sign * self.mean), (sign * other.worst, sign * other.mean)
        return len(self.chips) == count > 0 and mine > its and not self.behind(other)

    def on(self, chips: int) -> ChipScores:
        """What the first chips say."""
        return replace(self, chips=self.chips[:chips])

    def behind(self, rival: ChipScores, errors: float = 1.0) -> bool:
        """Whether it is worse than a rival on the same chips, by more than so many standard errors.

        Examples
        --------
        >>> rival = ChipScores(1.0, 1.0, np.array([0.8, 0.7, 0.9, 0.8, 0.8]), True)
        >>> ChipScores(1.0, 1.0, np.array([0.7, 0.6, 0.8, 0.7]), True).behind(rival)
        True
        >>> ChipScores(1.0, 1.0, np.array([0.7, 0.8, 0.9, 0.8]), True).behind(rival)
        False
        """
        # Paired: on one chip number both have the same draws, and what these have in common cancels in the
        # difference. Behind: mean(gain) < −errors · s / √n. A NaN is behind.
        count = min(len(self.chips), len(rival.chips))
        if count < 2:
            return False
        gain = self.sign * (self.chips[:count] - rival.chips[:count])
        return not float(gain.mean()) >= -errors * float(gain.std(ddof=1)) / np.sqrt(count)


@dataclass(frozen=True)
class OnCode:
    """A weight's numbers, which are values of its code already: rounding them again would undo the choice."""

    numbers: NDArray[Any]


Numbers = NDArray[Any] | IntegerGrid | OnCode
"""A weight's numbers: floats, floats on its code, or codes on another integer grid."""

Changed = Mapping[str, Numbers]


@dataclass(frozen=True)
class BenchConditions:
    """What all candidates are measured under.

    Attributes
    ----------
    bits, cell_bits, encoding, per_channel
        How weights are mapped; see :class:`nvaudit.perturb.prepare.Placement`.
    layers, digital : tuple of str
        Which weights are.
    outliers : float or None
        Share of each tensor's weights, the largest, that no device holds.
    dataset : Dataset
        The calibration samples.
    keep : str or None
        The original model's outputs, where the metric compares with these.
    converters : ConverterSpec or None
        What column sums of the chips go through; None: ideal converters.
    boxes, beside
        As of a workload: how boxes are read.
    scores : KeptScores or None
        What an earlier run measured under these conditions; None: nothing is kept.
    """

    point: OperatingPoint
    bits: int
    cell_bits: int | None
    encoding: Encoding | None
    per_channel: bool
    layers: tuple[str, ...]
    digital: tuple[str, ...]
    outliers: float | None
    dataset: Dataset
    output: str
    metric: Metric
    keep: str | None
    batch: int
    seed: int
    chips: int
    threads: int
    provider: str
    converters: ConverterSpec | None = None
    boxes: BoxReader | None = None
    beside: tuple[str, ...] = ()
    scores: KeptScores | None = None


def floats(numbers: Numbers) -> NDArray[Any]:
    """What numbers stand for."""
    if isinstance(numbers, IntegerGrid):
        return np.asarray(numbers.codes.astype(np.float32) * numbers.scale, np.float32)
    return stored(numbers)


def stored(numbers: NDArray[Any] | OnCode) -> NDArray[Any]:
    """Floats as a model stores them."""
    return numbers.numbers if isinstance(numbers, OnCode) else numbers


class Bench:
    """One structure of the model; its weights may still be replaced.

    Attributes
    ----------
    weights : dict of str to Weight
        Those on the array, by key.
    values : dict of str to ndarray
        Their numbers, in the primary layout.
    outliers : dict of str to ndarray of int
        Places in the flattened weight of those that no device holds.
    held : dict of str to ndarray
        What devices hold of the numbers: 0 where a weight is digital.
    grids : dict of str to IntegerGrid
        The codes of those that are stored as integers.
    ranges : dict of str to (int, int)
        Least and largest code of those whose integer grid may be chosen anew.
    editable : dict of str to str or None
        Why the numbers of a weight cannot be changed.
    codes : ChosenCodes or None
        What weights are mapped by instead of slices.
    """

    def __init__(
        self, loaded: LoadedModel, conditions: BenchConditions, folder: Path, codes: ChosenCodes | None = None
    ) -> None:
        folder.mkdir()
        self.loaded, self.conditions, self.folder, self.codes = loaded, conditions, folder, codes
        how = Placement(
            conditions.bits, conditions.cell_bits, conditions.encoding, conditions.per_channel, codes=codes,
            outliers=conditions.outliers,
        )  # fmt: skip
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
            boxes=conditions.boxes,
            beside=conditions.beside,
        )
        self._request = request
        self.workload: Workload = build_workload(request, folder)
        mapped = [d.constant.weight for d in decisions if d.mapped and d.constant.weight is not None]
        self.weights: dict[str, Weight] = {weight.key: weight for weight in mapped}
        self.values: dict[str, NDArray[Any]] = {}
        self.held: dict[str, NDArray[Any]] = {}
        places = {
            tensor.key: tensor.outliers[0].open()
            for tensor in self.workload.tensors
            if tensor.outliers is not None
        }
        self.outliers: dict[str, NDArray[np.int64]] = {key: at for key, at in places.items() if at.size}
        self.grids: dict[str, IntegerGrid] = {}
        self.ranges: dict[str, tuple[int, int]] = {}
        self.editable: dict[str, str | None] = editable_weights(loaded.model, list(self.weights))
        for key, weight in self.weights.items():
            read = weight.load()
            self.values[key] = read.values
            self.held[key] = self.without_outliers(key, read.values)
            if read.grid is not None and keeps_grid(read.grid.storage_bits):
                self.grids[key] = read.grid
        # A stored grid may be chosen anew only where everything that multiplies by its scale can follow;
        # else the weight stays as it is, with the reason.
        for key, ends in code_ranges(loaded.model, list(self.grids)).items():
            self.editable[key] = ends if isinstance(ends, str) else None
            if not isinstance(ends, str) and self.digital(key):
                self.editable[key] = "is stored as integers, the largest of which are digital"
            elif not isinstance(ends, str):
                self.ranges[key] = ends
        self._count = itertools.count()

    def with_codes(self, codes: ChosenCodes) -> Bench:
        """The same structure with other codes stated: weights are not put on them, so no chip can be run."""
        other = copy.copy(self)
        other.codes = codes
        return other

    def digital(self, key: str) -> bool:
        """Whether some of a weight's numbers are held by no device."""
        return key in self.outliers

    def without_outliers(self, key: str, values: NDArray[Any]) -> NDArray[Any]:
        """What devices hold of numbers of a weight; a copy where some of them are digital."""
        if not self.digital(key):
            return values
        held = np.array(values)
        np.put(held, self.outliers[key], 0)
        return held

    def with_outliers(self, key: str, held: NDArray[Any]) -> NDArray[Any]:
        """Put the numbers that no device holds beside what devices hold, in place."""
        if self.digital(key):
            np.put(held, self.outliers[key], np.take(self.values[key], self.outliers[key]))
        return held

    def cut(self, limits: Mapping[str, Limit]) -> dict[str, Numbers]:
        """Weights cut off at limits, in their primary layout; those on a grid get a finer one."""
        return {
            key: regridded(self.grids[key], limit, *self.ranges[key])
            if key in self.ranges
            else self.with_outliers(key, np.array(clipped(self.values[key], limit)))
            for key, limit in limits.items()
        }

    def nominal(self, changed: Changed, samples: Workload | None = None, keep: str | None = None) -> float:
        """Score the model with some weights replaced, without quantisation and noise.

        Parameters
        ----------
        changed : mapping of str to ndarray or IntegerGrid
            By key, in the primary layout.
        samples : Workload, optional
            Gives other inputs and labels than the calibration samples.
        keep : str or None
            The original model's outputs on these samples, where the metric compares with them.
        """
        workload = self.workload
        if samples is None:
            keep = self.conditions.keep
        else:
            workload = replace(workload, inputs=samples.inputs, labels=samples.labels, count=samples.count)
        slots = self._exact(changed, workload)
        kept = self.conditions.scores if samples is None else None

        def score() -> float:
            with np.errstate(all="ignore"):
                return Engine(workload).mean_score(self.conditions.metric, keep, slots)

        if kept is None:
            return score()
        weights = [array for _, array in slots]
        return kept.score(
            task_of(replace(workload, tensors=()), self.conditions.dataset.count, weights), score
        )

    def chips(self, changed: Changed) -> CandidateChips:
        """The chips of the model with some weights replaced."""
        how, plain = self.conditions, self._with(changed)

        def opening() -> OpenChips:
            on_array = self._on_array(plain)
            return OpenChips(on_array, how.metric, how.keep, min(how.threads, how.chips))

        task = 0 if how.scores is None else task_of(plain, how.dataset.count, how.converters)
        return CandidateChips(opening, how.scores, task)

    def on_array(self, changed: Changed) -> Workload:
        """The workload that chips are run on: through converters whose ranges are set for these weights."""
        return self._on_array(self._with(changed))

    def _on_array(self, plain: Workload) -> Workload:
        how = self.conditions.converters
        if how is None:
            return plain
        folder = self.folder / f"crossbars-{next(self._count)}"
        folder.mkdir()
        return put_on_crossbars(self._request, plain, how, folder).workload

    def exact_slots(self, changed: Changed) -> dict[str, NDArray[Any]]:
        """What fills the template's places without quantisation and noise, by name."""
        return {slot.name: array for slot, array in self._exact(changed, self.workload)}

    def engine(self, changed: Changed) -> Engine:
        """Open the model with some weights replaced; converters are ideal."""
        return Engine(self._with(changed))

    def _exact(self, changed: Changed, workload: Workload) -> list[tuple[Slot, NDArray[Any]]]:
        values = self.values | {key: floats(array) for key, array in changed.items()}
        return [(slot, place(DrawnWeights(values[slot.weight_key], None), slot)) for slot in workload.slots]

    def _with(self, changed: Changed) -> Workload:
        """The workload with other codes for the weights that changed."""
        tensors = tuple(
            self._mapped(tensor, changed[tensor.key]) if tensor.key in changed else tensor
            for tensor in self.workload.tensors
        )
        return replace(self.workload, tensors=tensors)

    def _mapped(self, tensor: TensorFile, numbers: Numbers) -> TensorFile:
        weight = self.weights[tensor.key]
        if self.codes is not None and tensor.key in self.codes.of:
            code, scale = self.codes.values(
                weight,
                self.without_outliers(tensor.key, floats(numbers)),
                per_channel=self.conditions.per_channel,
                nearest=isinstance(numbers, OnCode),
            )
        elif isinstance(numbers, IntegerGrid):
            code, scale = numbers.codes.astype(np.int16), np.asarray(numbers.scale, np.float32)
        else:
            axes = weight.channel_axes if self.conditions.per_channel else ()
            held = self.without_outliers(tensor.key, stored(numbers))
            codes = quantize(held, self.conditions.bits, axes)
            code, scale = codes.code, codes.scale
        file = save_array(self.folder, f"changed-{next(self._count)}", code)
        return replace(tensor, code=file, scale=scale, peak_code=int(np.abs(code).max(initial=0)))


def subset(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Choose samples at random, in their own order.

    Parameters
    ----------
    count : int
        How many; all where there are no more, or where samples influence each other.

    Returns
    -------
    Dataset
        With arrays of its own.
    """
    if dataset.count <= count or dataset.together:
        return dataset
    chosen = np.sort(stream(seed, "calibration").choice(dataset.count, count, replace=False))
    labels = None if dataset.labels is None else np.ascontiguousarray(dataset.labels[chosen])
    places = None if dataset.places is None else dataset.places.take(chosen)
    return replace(dataset, inputs=dataset.take(chosen), labels=labels, places=places, count=count)

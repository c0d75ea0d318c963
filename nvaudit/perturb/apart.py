"""Whether the samples of a set influence each other, and how the set is run where they do.

The first axis of an input need not be a batch: it may be time, the tokens of one text, the rows of one image,
the nodes of one graph. Cut into batches, such a set gives other outputs, and samples drawn from it at random
give nonsense. What the rules of `nvaudit.model.batch` prove to keep samples apart may be cut and drawn from
as one likes; what they do not prove is tried on the data, and run whole where it does not hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from nvaudit.arrays import Array, Rows
from nvaudit.data import Dataset
from nvaudit.errors import DataError, ModelError
from nvaudit.model import LoadedModel, Rebatch, activation_bytes, constants
from nvaudit.perturb.memory import check_pass
from nvaudit.perturb.session import open_session, run_session
from nvaudit.rng import stream

BATCH = 64
"""Samples that run at a time where they do not influence each other and no number is given."""

TRIED = 32
TRIED_WHOLE_NUMBERS = 256
"""Samples that independence is tried on, at most; more where outputs are decisions, which seldom change."""

TOLERANCE = 1e-3
"""Largest difference by rounding, relative to the range of the outputs.

Kernels add up in another order for another number of rows: √n · 6e-8 of the sums in float32, 1e-5 after
a hundred layers. Attention, statistics or memory along the axis move outputs by per cents of their range.
"""

RANGE_TOLERANCE = 0.25
"""The same where tensors are quantised in a range of their own: one step is 1/255 of it, in every layer."""

HALF_TOLERANCE = 2e-2
"""The same with numbers of 16 bits: every operator rounds them to 2⁻¹¹ (float16) or 2⁻⁸ of their size."""

FEW = 1e-3
"""Share of the numbers that may move further: ties that rounding decides, in a map of many classes."""

WHOLE_BYTES = 4 << 30
"""Memory that the activations of a set may take that is run whole."""


@dataclass(frozen=True)
class Cut:
    """How a set is cut into runs.

    Attributes
    ----------
    rebatch : Rebatch
        With what was found: ``coupled`` is about the scored output on these data.
    dataset : Dataset
        With ``together`` set where samples influence each other.
    batch : int
        Samples that run at a time, at most.
    notes : tuple of str
        For the report.
    """

    rebatch: Rebatch
    dataset: Dataset
    batch: int
    notes: tuple[str, ...] = ()


def settle_cut(
    loaded: LoadedModel,
    rebatch: Rebatch,
    dataset: Dataset,
    output: str,
    batch_size: int | None,
    provider: str = "cpu",
) -> Cut:
    """Find out whether samples influence each other, and decide how many run at a time.

    Parameters
    ----------
    rebatch : Rebatch
        As analysed.
    output : str
        The scored output; what happens on the way to others does not matter.
    batch_size : int or None
        As asked for; None: 64, or the whole set where its samples influence each other.
    provider : str
        ONNX Runtime execution provider.

    Raises
    ------
    DataError
        If the set must be run whole and is too large, or cannot be cut as asked for.
    """
    influence = rebatch.influence_on(output)
    rebatch = replace(rebatch, coupled=bool(influence.mixed or influence.by_range))
    usual = min(BATCH if batch_size is None else batch_size, dataset.count)
    check_pass(loaded, rebatch, rebatch.fixed_batch or usual, chosen=batch_size is not None)
    if influence.proved_apart:
        return Cut(rebatch, dataset, usual)
    # Where the graph proves nothing a trial decides. It can refute independence and never prove it, so the
    # report says that samples count as independent because they gave the same outputs.
    trial = _Trial(loaded, rebatch, dataset, output, provider)
    difference = trial.moved(batch_size)
    if difference:
        return _together(
            loaded, replace(rebatch, coupled=True), dataset, batch_size, difference, influence.why
        )
    if rebatch.coupled:
        return Cut(rebatch, dataset, usual, (_depends(usual, influence.why),))
    if difference is not None:
        reason = f"{rebatch.reason.partition(';')[0]}; {trial.reason}"
        rebatch = replace(rebatch, reason=reason)
    return Cut(rebatch, dataset, usual)


def _together(
    loaded: LoadedModel, rebatch: Rebatch, dataset: Dataset, batch_size: int | None, difference: str, why: str
) -> Cut:
    """Keep a set together whose samples influence each other."""
    count, fixed = dataset.count, rebatch.fixed_batch
    because = f"{why}; {difference}" if why else difference
    size = fixed or min(batch_size or _whole(dataset, because), count)
    if fixed is None and batch_size is None:
        need = activation_bytes(loaded.model, rebatch, size)
        if need > WHOLE_BYTES:
            raise DataError(
                f"{dataset.source}: the samples influence each other in this model ({because}), so the set "
                f"would be run whole, and the activations of its {size} samples take {need / 2**30:.1f} "
                f"GiB, more than {WHOLE_BYTES >> 30} GiB; give --batch-size N to cut it into runs of N "
                "samples (results then hold for that size)"
            )
    notes = [_depends(size, because, together=True, fixed=fixed is not None, one_run=size == count)]
    if dataset.given > count:
        notes.append(
            f"--limit: the first {count} of {dataset.given} samples stand for a set of their own, and give "
            "other outputs than they do among all of them"
        )
    if fixed is not None and count % fixed:
        notes.append(
            f"the last run of {fixed} holds {count % fixed} samples and copies of the last one, which "
            "influence them"
        )
    reason = (
        f"{rebatch.reason.partition(';')[0]}; samples influence each other ({because}), {size} run together"
    )
    return Cut(replace(rebatch, reason=reason), replace(dataset, together=size), size, tuple(notes))


def _whole(dataset: Dataset, because: str) -> int:
    """Count the samples of one whole: the set, or each of several that were joined.

    Raises
    ------
    DataError
        If sets of different sizes were joined.
    """
    if not dataset.parts:
        return dataset.count
    if len(set(dataset.parts)) > 1:
        sizes = ", ".join(map(str, dataset.parts[:5])) + (", …" if len(dataset.parts) > 5 else "")
        raise DataError(
            f"{dataset.source}: the samples influence each other in this model ({because}), and the sets "
            f"have different numbers of them ({sizes}); audit one set at a time"
        )
    return dataset.parts[0]


def _depends(
    batch: int, why: str, *, together: bool = False, fixed: bool = False, one_run: bool = False
) -> str:
    """Say on what results depend."""
    held = f"runs of {batch} samples, as the model wants" if fixed else f"--batch-size {batch}"
    more = ", the whole set in one run" if one_run else ""
    more += "; no part of the set is drawn, for whatever purpose" if together else ""
    return f"samples of a batch influence each other in this model: results hold for {held}{more} ({why})"


class _Trial:
    """Runs some samples in their order, in another order, and cut into two parts."""

    def __init__(
        self, loaded: LoadedModel, rebatch: Rebatch, dataset: Dataset, output: str, provider: str
    ) -> None:
        self.loaded, self.rebatch, self.dataset = loaded, rebatch, dataset
        self.output, self.provider = output, provider
        self.axis = rebatch.output_axes.get(output) or 0
        self.reason = ""

    @cached_property
    def session(self) -> Any:
        """The model as it is."""
        return open_session(self.loaded.path, {}, self.provider)

    def run(self, rows: Rows) -> Array:
        """Give the output of some samples, batch first; those of a fixed batch are repeated to fill it."""
        size = self.rebatch.fixed_batch or len(rows)
        # Filled up with copies of the last sample, as the engine does: the company that a fixed batch gives
        # its samples is then the same as in the run.
        fed = np.concatenate([rows, np.repeat(rows[-1:], size - len(rows))]) if size > len(rows) else rows
        feeds = {}
        for name, array in self.dataset.inputs.items():
            axis = self.dataset.batch_axes.get(name)
            feeds[name] = np.ascontiguousarray(array if axis is None else np.take(array, fed, axis=axis))
        (out,) = run_session(self.session, [self.output], feeds)
        if not isinstance(out, np.ndarray) or out.ndim <= self.axis or out.shape[self.axis] != len(fed):
            raise _NoBatchError
        return np.moveaxis(out, self.axis, 0)[: len(rows)]

    def moved(self, batch_size: int | None) -> str | None:
        """Tell how the outputs of samples depend on others.

        Parameters
        ----------
        batch_size : int or None
            As asked for.

        Returns
        -------
        str or None
            Empty where they do not; None where that cannot be told.
        """
        if self.dataset.count < 2:
            return None
        try:
            return self._moved(batch_size)
        except _NoBatchError:  # the run itself says what is wrong with the output
            return None

    def _moved(self, batch_size: int | None) -> str | None:
        count, fixed = self.dataset.count, self.rebatch.fixed_batch
        # Spread over the set: neighbours may be alike, and then nothing is seen when they change places.
        rows = _spread(count, fixed or TRIED)
        try:
            base = self.run(rows)
        except ModelError:
            return None if fixed else self._whole_only(batch_size)
        if base.dtype.kind not in "fcV" and fixed is None:
            rows = _spread(count, TRIED_WHOLE_NUMBERS)
            base = self.run(rows)
        tolerance = self._tolerance()
        tries = _tries(len(rows), fixed is not None)
        for what, parts, compared in tries:
            try:
                outputs = np.concatenate([self.run(rows[part]) for part in parts])
            except ModelError:
                return f"{len(rows)} samples run, and not {what}"
            expected = base[np.concatenate(parts)]
            if _differ(expected[:compared], outputs[:compared], tolerance):
                # The same samples in the same order once more: a model that draws random numbers differs
                # from itself too, and then a difference says nothing about other samples.
                certain = self.rebatch.influence_on(self.output).mixed
                if not certain and _differ(base, self.run(rows), tolerance):
                    return None  # the model draws random numbers: nothing can be told this way
                return f"{len(rows)} samples give other outputs {what}"
        self.reason = (
            f"{len(rows)} samples gave the same outputs {' and '.join(one[0] for one in tries)}, so they "
            "count as independent"
        )
        return ""

    def _tolerance(self) -> float:
        """Largest difference that rounding makes in this model."""
        influence = self.rebatch.influence_on(self.output)
        # Where samples meet only in the range of a quantisation (DynamicQuantizeLinear), other company
        # moves the step of the grid, not the meaning of a sample.
        if influence.by_range and not influence.mixed:
            return RANGE_TOLERANCE
        half = ("float16", "bfloat16")
        stored = any(constant.dtype in half for constant in constants(self.loaded))
        fed = any(array.dtype.name in half for array in self.dataset.inputs.values())
        return HALF_TOLERANCE if stored or fed else TOLERANCE

    def _whole_only(self, batch_size: int | None) -> str | None:
        """Tell whether the set runs whole where a part of it does not.

        Raises
        ------
        DataError
            If it then cannot be cut as asked for, or only single samples run.
        """
        count = self.dataset.count
        fits = activation_bytes(self.loaded.model, self.rebatch, count) <= WHOLE_BYTES
        if fits and self._runs(np.arange(count)):
            if batch_size is not None and batch_size < count:
                raise DataError(
                    f"{self.dataset.source}: --batch-size {batch_size}: the model runs on all {count} "
                    f"samples together, and not on a part of them{self._shared()}; leave --batch-size out, "
                    f"or give --batch-size {count}"
                )
            return f"it runs on all {count} samples together, and not on a part of them{self._shared()}"
        if batch_size != 1 and self._runs(np.zeros(1, np.intp)):
            raise DataError(
                f"{self.dataset.source}: the model runs on one sample, and not on {min(count, TRIED)} "
                "together, though its input's first axis may have any size; give --batch-size 1"
            )
        if self.dataset.given > count:
            raise DataError(
                f"{self.dataset.source}: the model does not run on {count} of {self.dataset.given} samples"
                f"{self._shared()}; leave --limit out"
            )
        return None

    def _runs(self, rows: Rows) -> bool:
        try:
            self.run(rows)
        except ModelError:
            return False
        return True

    def _shared(self) -> str:
        """Name the inputs that have the axis of the samples twice, as an adjacency matrix does."""
        for spec in self.loaded.inputs:
            axis = self.rebatch.batch_axes.get(spec.name)
            name = None if axis is None or spec.shape is None else spec.shape[axis]
            if isinstance(name, str) and spec.shape is not None and spec.shape.count(name) > 1:
                return f" (input {spec.name!r} has the axis {name!r} twice)"
        return ""


class _NoBatchError(Exception):
    """The output does not have the samples on its batch axis."""


def _tries(count: int, fixed: bool) -> list[tuple[str, list[Rows], int]]:
    """Ways of running so many samples: in words, the places of each run, and how many outputs are compared.

    Two are needed: attention without positions takes any order, but neither a cut nor other company; a
    neighbour that weighs in only here and there may be missed there, but not in another order.
    """
    every = np.arange(count)
    order = stream(0, "samples-apart").permutation(count)
    mixed = [("in another order", [order], count)]
    if not fixed:
        return [*mixed, ("cut into parts", np.split(every, [max(1, count // 3)]), count)]
    # A fixed batch cannot be cut. The first half keeps its places and gets other company, copies of itself;
    # only its outputs have something to be compared with.
    half = max(1, count // 2)
    beside = np.concatenate([every[:half], np.resize(every[:half], count - half)])
    return [*mixed, ("beside others", [beside], half)]


def _spread(count: int, most: int) -> Rows:
    """Choose samples spread over a set, in order."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp))


def _differ(expected: Array, outputs: Array, tolerance: float) -> bool:
    """Whether outputs differ by more than rounding."""
    if expected.shape != outputs.shape:
        return True
    if expected.dtype.kind not in "fcV":
        # Whole numbers are decisions: what counts is how many flip, not by how much.
        return float(np.mean(expected != outputs)) > FEW
    a, b = (x.astype(np.complex128 if x.dtype.kind == "c" else np.float64) for x in (expected, outputs))
    finite = np.abs(a[np.isfinite(a)])
    if not finite.size:
        return not np.array_equal(a, b, equal_nan=True)
    # Of the differences between outputs, not of a constant that they share.
    values = a[np.isfinite(a)]
    scale = max(float(np.abs(values - values.mean()).max()), 1e-6 * float(finite.max()), 1e-30)
    with np.errstate(invalid="ignore"):
        # Equal infinities and two NaNs are the same, though their difference is NaN.
        same = (np.abs(a - b) <= tolerance * scale) | (a == b) | (np.isnan(a) & np.isnan(b))
    return float(np.mean(~same)) > FEW

"""What the rows of crossbars are driven with: moments and bit densities, from one calibration pass.

The energy of a crossbar is linear in one moment of each row's input times the sum of the row's conductances
(see :mod:`nvaudit.cost.crossbars`), so averages over the samples are exact and no trace is kept. Which moment
it is depends on how inputs drive rows::

    bit by bit      Σ_k p_k      p_k: how often bit k of the input's code is 1
    as a voltage    E[(x/x_max)²]
    as a pulse      E|x| / x_max
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.data import Dataset
from nvaudit.model import LoadedModel, Weight, constants
from nvaudit.model.layer_input import LayerInput, layer_inputs, with_named_states
from nvaudit.perturb.probe import InnerProbe, probe_model
from nvaudit.perturb.variant import spread_evenly
from nvaudit.technology import InputMode

ASSUMED_DENSITY = 0.25
ASSUMPTION = "half of the inputs are zero, the others uniform up to the converter's range"


@dataclass(frozen=True)
class InputStatistics:
    """Inputs of the matrices of one weight.

    Attributes
    ----------
    densities : mapping of int to ndarray, float64, shape (matrix, row, bit)
        By the bits of an input's code: how often each of its bits is 1, least significant first. Signed
        inputs are in two's complement. One matrix, or row, stands for all where they take the same.
    square, magnitude : ndarray, float64, shape (matrix, row)
        E[(x/x_max)²] and E|x|/x_max, with x_max the largest magnitude in the layer.
    reason : str
        Why they are assumed; ``""`` where they were measured.
    """

    densities: Mapping[int, Floats]
    square: Floats
    magnitude: Floats
    signed: bool = False
    reason: str = ""

    def drive(self, mode: InputMode, bits: int) -> Floats:
        """The moment that energy goes with, shape (matrix, row)."""
        if mode == "bit_serial":
            return np.asarray(self.densities[bits].sum(axis=2))
        return self.square if mode == "parallel" else self.magnitude


def assumed_inputs(bits: Sequence[int], reason: str) -> InputStatistics:
    """What is taken for inputs that nothing is known of.

    Examples
    --------
    >>> assumed_inputs([4], "no data").drive("bit_serial", 4)
    array([[1.]])
    """
    densities = {each: np.full((1, 1, each), ASSUMED_DENSITY) for each in bits}
    # Uniform on [0, 1] has E x = 1/2 and E x² = 1/3; half of the inputs are zero.
    return InputStatistics(densities, np.full((1, 1), 1 / 6), np.full((1, 1), 1 / 4), reason=reason)


@dataclass
class _Range:
    """The values of an activation."""

    low: float = 0.0
    high: float = 0.0

    def add(self, x: NDArray[np.floating]) -> None:
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))

    @property
    def peak(self) -> float:
        return max(self.high, -self.low)


@dataclass
class _Means:
    """Statistics of one weight's inputs while they are added up, stacked along the first axis."""

    sources: tuple[LayerInput, ...]
    total: Floats | None = None
    weight: float = 0.0
    peak: float = field(default=0.0)
    signed: bool = False


def measure_inputs(
    loaded: LoadedModel,
    weights: Sequence[Weight],
    dataset: Dataset,
    bits: Sequence[int],
    images: int,
    provider: str = "cpu",
) -> dict[str, InputStatistics]:
    """Measure what weights are multiplied by, on samples spread evenly over the data.

    Parameters
    ----------
    bits : sequence of int
        Resolutions of the inputs that bit densities are wanted for.
    images : int
        Samples, at most.

    Returns
    -------
    dict of str to InputStatistics
        By key, of every weight; assumed where its inputs cannot be watched.
    """
    loaded = with_named_states(loaded)
    again = {c.weight.key: c.weight for c in constants(loaded) if c.weight is not None}
    means: dict[str, _Means] = {}
    statistics: dict[str, InputStatistics] = {}
    for weight in weights:
        sources = layer_inputs(again[weight.key])
        if isinstance(sources, str):
            statistics[weight.key] = assumed_inputs(bits, sources)
        else:
            means[weight.key] = _Means(sources)
    if means:
        names = {source.value for one in means.values() for source in one.sources}
        probe = probe_model(loaded, dataset, names, provider=provider)
        samples = spread_evenly(dataset.count, min(images, dataset.count))
        _look(list(means.values()), probe, samples)
        for _, values in probe.batches(samples):
            known = dict(_numbers(values))
            taken = [(one, source) for one in means.values() for source in one.sources]
            for mean, source in taken:
                if source.value in known:
                    _add(mean, source, known[source.value], bits)
    return statistics | {key: _statistics(one, bits) for key, one in means.items()}


def _look(means: Sequence[_Means], probe: InnerProbe, samples: NDArray[np.intp]) -> None:
    """Find the range of every layer's inputs."""
    ranges = {name: _Range() for name in probe.outputs}
    for _, values in probe.batches(samples):
        for name, x in _numbers(values):
            ranges[name].add(x)
    for one in means:
        seen = [ranges[source.value] for source in one.sources if source.value in ranges]
        one.peak = max((each.peak for each in seen), default=0.0)
        one.signed = min((each.low for each in seen), default=0.0) < 0


def _numbers(values: Mapping[str, object]) -> Iterator[tuple[str, NDArray[np.floating]]]:
    for name, x in values.items():
        if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.size and np.isfinite(x).all():
            yield name, x


def _add(one: _Means, source: LayerInput, x: NDArray[np.floating], bits: Sequence[int]) -> None:
    if one.peak == 0:
        return
    maps = _maps(x, one.peak, one.signed, bits)
    weight = float(len(x)) if source.by_sample and x.ndim else 1.0
    if source.by_sample:
        # Unfolding only moves numbers and puts zeros beside them, and every statistic of zero is zero: so
        # the mean over the samples may be taken first, and one sample is unfolded instead of many.
        maps = [each.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32) for each in maps]
    rows = []
    for each in maps:
        total, parts = 0.0, 0
        for piece in source.unfold(each):
            total = total + piece.sum(axis=(1, 2), dtype=np.float64)
            parts += piece.shape[1] * piece.shape[2]
        rows.append(total / parts)
        positions = parts
    stacked = np.stack(rows)
    if not source.by_sample:
        weight = float(positions)
    one.total = stacked * weight if one.total is None else one.total + stacked * weight
    one.weight += weight


def _maps(
    x: NDArray[np.floating], peak: float, signed: bool, bits: Sequence[int]
) -> list[NDArray[np.float32]]:
    """Of every number: its square, its magnitude, and each bit of its codes."""
    scaled = x.astype(np.float32) / np.float32(peak)
    maps = [np.square(scaled), np.abs(scaled)]
    for each in bits:
        top = 2 ** (each - 1) - 1 if signed and each > 1 else 2**each - 1
        code = np.rint(scaled * np.float32(top)).astype(np.int32)
        maps += [((code >> k) & 1).astype(np.float32) for k in range(each)]
    return maps


def _statistics(one: _Means, bits: Sequence[int]) -> InputStatistics:
    if one.total is None:
        if one.peak == 0:  # all that came in was zero
            nothing = {each: np.zeros((1, 1, each)) for each in bits}
            return InputStatistics(nothing, np.zeros((1, 1)), np.zeros((1, 1)))
        return assumed_inputs(bits, "it took no numbers that can be watched")
    mean = one.total / one.weight
    densities, start = {}, 2
    for each in bits:
        densities[each] = np.moveaxis(mean[start : start + each], 0, -1)
        start += each
    return InputStatistics(densities, mean[0], mean[1], one.signed)

"""Rounding that counts noise, weight by weight: which codes a structure's weights get."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats, Ids
from nvaudit.mapping.codes import Code
from nvaudit.mapping.conductance import DeviceArray
from nvaudit.mapping.quantize import peak_of, quantize
from nvaudit.model import Weight
from nvaudit.model.decode import IntegerGrid
from nvaudit.model.layout import Layout, matrix_layout
from nvaudit.perturb.choose_codes import ChosenCodes, scale_axes
from nvaudit.perturb.moments import Moments, code_moments
from nvaudit.remapping.bench import Bench, Changed, Numbers, OnCode, floats, stored
from nvaudit.remapping.input_moments import InputMoments
from nvaudit.remapping.rounding import Levels, MatrixToRound, rounded

CAUTIONS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""How much more than noise an error of the codes counts: it is the same on every chip."""

LATE = "the time budget ran out"

_FLOPS = 1.5e10
"""Double-precision operations in a second, a careful guess for one core."""


@dataclass(frozen=True)
class RoundedWeights:
    """Other codes for weights.

    Attributes
    ----------
    numbers : mapping of str to ndarray or IntegerGrid
        By key, in the primary layout.
    noise : mapping of str to float
        Standard deviation of the noise of each weight's results, as a fraction of what it was.
    refused : mapping of str to str
        The other weights, each with the reason.
    diagonal : mapping of str to str
        Weights whose inputs are not known: each is rounded by itself. With the reason.
    caution : float
        See :data:`CAUTIONS`.
    """

    numbers: Mapping[str, Numbers]
    noise: Mapping[str, float]
    refused: Mapping[str, str]
    diagonal: Mapping[str, str]
    caution: float


@dataclass(frozen=True)
class _Tensor:
    """A weight in units of its scale.

    ``target`` is what the codes are to stand for: where weights are cut off, the weights before that, so that
    what is cut off goes to other inputs. ``codes`` are the nearest ones, after cutting off; ``before`` those
    that the mapping would take. ``on`` is the code that is not slices.
    """

    target: Floats
    codes: Ids
    scale: NDArray[np.float32]
    low: int
    high: int
    grid: IntegerGrid | None
    before: Ids
    on: Code | None = None

    def numbers(self, codes: Ids, dtype: np.dtype[np.generic]) -> Numbers:
        """What codes stand for, in the form in which the weight is stored."""
        if self.grid is None:
            numbers = np.asarray(codes * self.scale.astype(np.float64), dtype)
            return numbers if self.on is None else OnCode(numbers)
        return IntegerGrid(codes.astype(self.grid.codes.dtype), self.scale, self.grid.storage_bits)


def round_weights(
    bench: Bench,
    changed: Changed,
    moments: Mapping[str, InputMoments],
    unknown: Mapping[str, str],
    caution: float,
    deadline: float,
) -> RoundedWeights:
    """Choose codes for every weight that may have others.

    Parameters
    ----------
    bench : Bench
        The structure.
    changed : mapping of str to ndarray or IntegerGrid
        Its weights that are cut off.
    moments : mapping of str to InputMoments
        What weights are multiplied by.
    unknown : mapping of str to str
        Weights of which that is not known, each with the reason.
    caution : float
        See :data:`CAUTIONS`.
    deadline : float
        Moment of :func:`time.perf_counter` after which no further weight is begun.
    """
    arrays = {tensor.key: tensor.array for tensor in bench.workload.tensors}
    known: dict[DeviceArray, Moments] = {}
    tables: dict[tuple[DeviceArray, int, int], Levels] = {}
    numbers, noise, refused = dict[str, Numbers](), dict[str, float](), dict[str, str]()
    # Those that take little time first, so that where it runs out most are done.
    for key in sorted(bench.values, key=lambda key: rounding_seconds(bench.weights[key])):
        array, fixed = arrays[key], bench.editable[key]
        if array not in known:
            known[array] = code_moments(bench.conditions.point, array)
        law = known[array]
        fixed = fixed or _not_on_code(bench, key)
        if fixed is not None or not law.std.any() or not bench.values[key].any():
            refused[key] = fixed or "carries no noise"
        elif time.perf_counter() > deadline:
            refused[key] = LATE
        else:
            tensor = _tensor(bench, changed, key)
            at = (array, tensor.low, tensor.high)
            if at not in tables:
                tables[at] = _levels(tensor, law, caution)
            digital = bench.outliers.get(key)
            codes, noise[key] = _rounded(
                tensor, bench.weights[key], moments.get(key), law, tables[at], digital
            )
            numbers[key] = _with_outliers(bench, key, tensor.numbers(codes, bench.values[key].dtype))
    diagonal = {key: why for key, why in unknown.items() if key in numbers}
    return RoundedWeights(numbers, noise, refused, diagonal, caution)


def noise_power(bench: Bench, moments: Mapping[str, InputMoments]) -> dict[str, float]:
    """Relative noise power of a layer's results if all its weights err by their max|W|, independently.

    Of y = Wᵀ x it is max|W|² · columns · tr H over tr(Wᵀ H W), summed over the matrices of a weight.
    """
    powers = dict[str, float]()
    for key, known in moments.items():
        weight, values = bench.weights[key], bench.held[key]
        matrices = matrix_layout(values.shape, weight.channel_axes).apply(values)
        ends = (*known.starts[1:], weight.matrix.rows)
        noise = signal = 0.0
        for number, part in enumerate(_parts(matrices.shape, weight)):
            matrix = matrices[part].astype(np.float64)
            for block, start, end in zip(known.blocks, known.starts, ends, strict=True):
                power = block[number if len(block) > 1 else 0]
                rows = matrix[start:end]
                noise += float(np.trace(power)) * matrix.shape[1]
                signal += float(np.einsum("io,io->", rows, power @ rows))
        if signal > 0:
            axes = scale_axes(weight, bench.conditions.per_channel)
            powers[key] = float(np.mean(np.square(peak_of(values, axes)))) * noise / signal
    return powers


def rounding_seconds(weight: Weight) -> float:
    """What rounding a weight takes, about: a factorisation, and three passes over its matrices."""
    matrix = weight.matrix
    return matrix.groups * (matrix.rows**3 + 6 * matrix.rows**2 * matrix.cols) / _FLOPS


def _not_on_code(bench: Bench, key: str) -> str | None:
    """Why the numbers of a weight cannot be values of its code, or nothing."""
    if bench.codes is None or key not in bench.codes.of:
        return None
    if bench.weights[key].is_integer:
        return "is stored as integers, which are not values of its code"
    if not bench.codes.of[key].reachable[[0, -1]].all():  # then the scale would move
        return "its code lacks the largest value of one sign"
    return None


def _tensor(bench: Bench, changed: Changed, key: str) -> _Tensor:
    values, numbers = bench.held[key], changed.get(key)
    if numbers is not None and bench.digital(key):
        assert not isinstance(numbers, IntegerGrid)  # whose outliers cannot be kept: it is not edited
        numbers = bench.without_outliers(key, floats(numbers))
    if bench.codes is not None and key in bench.codes.of:
        return _coded(bench, bench.codes, key, values if numbers is None else floats(numbers))
    if key in bench.ranges:
        grid = numbers if isinstance(numbers, IntegerGrid) else bench.grids[key]
        scale = grid.scale.astype(np.float64)
        target = np.divide(values, scale, out=np.zeros(values.shape), where=scale != 0)
        codes = grid.codes.astype(np.int64)
        return _Tensor(target, codes, grid.scale, *bench.ranges[key], grid, codes)
    assert not isinstance(numbers, IntegerGrid)
    axes = bench.weights[key].channel_axes if bench.conditions.per_channel else ()
    quantized = quantize(values if numbers is None else stored(numbers), bench.conditions.bits, axes)
    scale = quantized.scale.astype(np.float64)
    target = np.divide(values.astype(np.float64), scale, out=np.zeros(values.shape), where=scale > 0)
    top, codes = 2**quantized.bits - 1, quantized.code.astype(np.int64)
    return _Tensor(target, codes, quantized.scale, -top, top, None, codes)


def _coded(bench: Bench, codes: ChosenCodes, key: str, numbers: NDArray[Any]) -> _Tensor:
    """A weight with a code: the largest weight has the largest value, which the nearest ones are sure of."""
    weight, per_channel, on = bench.weights[key], bench.conditions.per_channel, codes.of[key]
    nearest, scales = codes.values(weight, numbers, per_channel=per_channel, nearest=True)
    taken, _ = codes.values(weight, numbers, per_channel=per_channel)
    values, scale = bench.held[key].astype(np.float64), scales.astype(np.float64)
    target = np.divide(values, scale, out=np.zeros(values.shape), where=scale > 0)
    return _Tensor(
        target, nearest.astype(np.int64), scales, -on.top, on.top, None, taken.astype(np.int64), on
    )


def _with_outliers(bench: Bench, key: str, numbers: Numbers) -> Numbers:
    """Numbers of a weight with those that no device holds as they are."""
    if not bench.digital(key):
        return numbers
    assert not isinstance(numbers, IntegerGrid)
    whole = bench.with_outliers(key, np.array(stored(numbers)))
    return OnCode(whole) if isinstance(numbers, OnCode) else whole


def _levels(tensor: _Tensor, law: Moments, caution: float) -> Levels:
    inside = (law.code >= tensor.low) & (law.code <= tensor.high)
    if tensor.on is not None:  # values that the significances do not give are none
        inside &= tensor.on.reachable[law.code + tensor.on.top]
    # error + Var / caution has its minimum where caution · error + Var has it.
    return Levels.of(law.code[inside], (law.code + law.mean)[inside], law.std[inside] ** 2 / caution)


def _rounded(
    tensor: _Tensor,
    weight: Weight,
    moments: InputMoments | None,
    law: Moments,
    levels: Levels,
    digital: Ids | None = None,
) -> tuple[Ids, float]:
    """Codes of a weight, and the noise of its results relative to that of the nearest codes.

    Where a weight is digital its devices keep the value of a zero weight.
    """
    gain = _common_gain(tensor.codes, law)
    low = int(levels.code.min())
    place = np.full(int(levels.code.max()) - low + 1, -1, np.int64)
    place[levels.code - low] = np.arange(len(levels.code))
    layout = matrix_layout(tensor.codes.shape, weight.channel_axes)
    kept = _held(tensor, place, low)
    if digital is not None:
        np.put(kept, digital, place[-low])
    # Levels are what devices hold, a common drift included; so the target is shrunk by the same gain, g w.
    target, held, usual = (layout.apply(array) for array in (gain * tensor.target, kept, tensor.before))
    along = _scales_of_rows(tensor, layout)
    chosen = np.empty(target.shape, np.int64)
    before = after = 0.0
    for number, part in enumerate(_parts(target.shape, weight)):
        matrix = MatrixToRound(target[part].astype(np.float64), held[part].astype(np.int64))
        starts = (0,) if moments is None else moments.starts
        if moments is None:
            # H unknown, so taken as 1: without cross terms nothing is handed on, and each weight minimises
            # (q − w)² + Var(q) by itself.
            free = levels.choose(matrix.target, 1.0)
            chosen[part] = np.where(matrix.held >= 0, matrix.held, free)
            power = np.ones(len(matrix.target))
        else:
            blocks = moments.shrunk(number)
            if along is not None:  # H of inputs in units of their scales
                blocks = _scaled(blocks, starts, along[part[0]])
            chosen[part] = rounded(matrix, blocks, starts, levels)
            power = np.concatenate([np.diag(block) for block in blocks])
        at = place[usual[part].astype(np.int64) - low]
        # Var is divided by caution in both sums: it cancels in their ratio.
        before += float(power @ levels.variance[at].sum(axis=1))
        after += float(power @ levels.variance[chosen[part]].sum(axis=1))
    codes = np.asarray(layout.inverse(tensor.codes.shape).apply(levels.code[chosen]), np.int64)
    return codes, float(np.sqrt(after / before)) if before > 0 else 1.0


def _scales_of_rows(tensor: _Tensor, layout: Layout) -> Floats | None:
    """The scale of each input, where an integer grid has scales along inputs; None where all are alike."""
    if tensor.scale.size == 1:
        return None
    # A scale of an output multiplies the whole objective of its column by s_o² and moves no choice; only
    # scales along inputs weigh rows against each other. The first column's stand for all.
    scales = layout.apply(np.broadcast_to(tensor.scale.astype(np.float64), tensor.codes.shape))
    first = np.abs(scales[:, :1]).astype(np.float64)
    return None if bool((scales == scales[:1]).all()) else first[:, 0]


def _scaled(blocks: list[Floats], starts: tuple[int, ...], scale: Floats) -> list[Floats]:
    parts = np.split(scale, starts[1:])
    # A code's error δ_i is s_i δ_i in units of the weight: H_ij becomes s_i H_ij s_j.
    return [block * part[:, None] * part for block, part in zip(blocks, parts, strict=True)]


def _common_gain(codes: Ids, law: Moments) -> float:
    """By what factor devices shrink all weights: 1 where they keep their mean.

    What a drift takes off all weights alike is no error of single codes; making up for it would drive them to
    the end of their range.
    """
    if not law.mean.any():
        return 1.0
    counts = np.bincount(codes.reshape(-1) - int(law.code[0]), minlength=len(law.code))
    # Least squares over the tensor's own codes: g minimises Σ n_q (g q − (q + mean_q))².
    power = float((counts * law.code.astype(np.float64) ** 2).sum())
    return float((counts * law.code * (law.code + law.mean)).sum()) / power if power > 0 else 1.0


def _held(tensor: _Tensor, place: Ids, low: int) -> Ids:
    """The level that the largest weight of each scale keeps; −1 for the others."""
    held: Ids = np.full(tensor.codes.shape, -1, np.int64)
    scales = tensor.scale.shape or (1,) * held.ndim
    shared = tuple(axis for axis in range(held.ndim) if scales[axis] == 1)
    own = tuple(axis for axis in range(held.ndim) if axis not in shared)
    # One row for each scale.
    turned = np.arange(held.size).reshape(held.shape).transpose(*own, *shared)
    index = turned.reshape(int(np.prod([held.shape[axis] for axis in own])), -1)
    flat = tensor.codes.reshape(-1)
    largest = index[np.arange(len(index)), np.abs(flat[index]).argmax(axis=1)]
    held.reshape(-1)[largest] = place[flat[largest] - low]
    return held


def _parts(shape: tuple[int, ...], weight: Weight) -> Iterator[tuple[slice, slice]]:
    """Where each matrix of a weight lies: side by side, or (a transposed convolution) below each other."""
    groups, rows, cols = weight.matrix.groups, weight.matrix.rows, weight.matrix.cols
    for number in range(groups):
        if shape[1] == groups * cols:
            yield slice(0, rows), slice(number * cols, (number + 1) * cols)
        else:
            yield slice(number * rows, (number + 1) * rows), slice(0, cols)

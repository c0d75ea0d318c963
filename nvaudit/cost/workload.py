"""What a model asks of the hardware, whatever that is: found once, and then costed at many design points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.cost.inputs import InputStatistics, assumed_inputs, measure_inputs
from nvaudit.coverage import count_products
from nvaudit.data import Dataset
from nvaudit.device import DeviceProfile
from nvaudit.mapping.conductance import DeviceArray, code_layout, layout
from nvaudit.mapping.groups import groups_gone
from nvaudit.mapping.select import Decision
from nvaudit.mapping.tiling import Lines, weight_lines
from nvaudit.model import LoadedModel, Rebatch, Weight
from nvaudit.model.crossbar.plan import row_blocks
from nvaudit.model.layout import matrix_layout
from nvaudit.model.macs.find import ProductCount
from nvaudit.model.macs.steps import INPUT, Arithmetic, OperandSource, Step, Steps
from nvaudit.model.roles import CrossbarMatrix
from nvaudit.perturb.prepare import Placement, outliers_of, place_weight
from nvaudit.technology import InputMode

MOST_KEPT = 1 << 27
"""Codes that stay in memory between design points, of all weights together; larger models read them again."""


@dataclass(frozen=True)
class CostLayer:
    """One weight on the array, with what is multiplied by it.

    Attributes
    ----------
    key : str
        Of the weight.
    weight : Weight or ndarray, int16, shape (rows, columns)
        The weight; or its codes, where these were given.
    matrix : CrossbarMatrix
        The crossbar matrices that it makes.
    lines : Lines
        What a row and what a column of them is.
    vectors : float
        Inputs of each matrix in one inference.
    products : float
        Multiply-accumulates with it in one inference.
    """

    key: str
    op: str
    weight: Weight | NDArray[np.int16]
    matrix: CrossbarMatrix
    lines: Lines
    vectors: float
    products: float
    inputs: InputStatistics


@dataclass(frozen=True)
class ModelWorkload:
    """A model, ready to be costed.

    Attributes
    ----------
    layers : tuple of CostLayer
        In the order in which they run.
    arithmetic : mapping of int to Arithmetic
        What is worked out beside the array, in one inference, by the place where that is done.
    multiply_adds : mapping of int to float
        Products off the array, likewise.
    flows : tuple of Flow
        Between places, by the graph's own edges.
    operations : float
        2 × the multiply-accumulates of the model in one inference.
    largest : float
        Numbers of the largest activation.
    unknown : tuple of str
        Operators that nothing is known to count of.
    input_bits : tuple of int
        Resolutions of the inputs that bit densities are there for.
    images : int
        Samples that inputs were measured on; 0: assumed.
    """

    layers: tuple[CostLayer, ...]
    arithmetic: Mapping[int, Arithmetic]
    multiply_adds: Mapping[int, float]
    flows: tuple[Flow, ...]
    operations: float
    largest: float
    unknown: tuple[str, ...]
    input_bits: tuple[int, ...]
    images: int
    cache: dict[tuple[object, ...], QuantisedCodes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def assumed(self) -> dict[str, str]:
        """Layers whose inputs are assumed, each with the reason."""
        return {layer.key: layer.inputs.reason for layer in self.layers if layer.inputs.reason}


@dataclass
class QuantisedCodes:
    """The codes of one weight at one quantisation, and what was worked out from them.

    Attributes
    ----------
    bits : int or None
        Magnitude bits of slices; None where the weight has a code of its own.
    peak : int
        Largest magnitude of a code.
    digital : int
        Weights that no device holds, whose products are added up beside the array.
    """

    layer: CostLayer
    how: Placement
    bits: int | None
    peak: int
    code: NDArray[np.int16] | None
    digital: int = 0
    sums: dict[object, Floats] = field(default_factory=dict)
    occupied: dict[object, Occupancy] = field(default_factory=dict)

    def codes(self, profile: DeviceProfile) -> NDArray[np.int16]:
        """The codes; quantised again where they were not kept."""
        if self.code is not None:
            return self.code
        weight = self.layer.weight
        return place_weight(weight, profile, self.how)[0] if isinstance(weight, Weight) else weight

    def array(self, profile: DeviceProfile) -> DeviceArray:
        """How the codes lie in devices of a profile."""
        codes = self.how.codes
        if self.bits is None and codes is not None:
            return code_layout(profile, codes.of[self.layer.key])
        bits = self.how.bits if self.bits is None else self.bits
        return layout(profile, bits=bits, cell_bits=profile.cell_bits, encoding=profile.encoding)

    def driven(self, profile: DeviceProfile, mode: InputMode, bits: int) -> Floats:
        """Add up what rows are driven with, by the value that a weight on the row has.

        Returns
        -------
        ndarray, float64, shape (2 · peak + 1,)
            ``Σ_ij m_i [c_ij = v]`` for v from −peak: with the conductances G(v) of a weight's devices, of
            whatever bits and encoding, ``Σ_v G(v) · this`` is ``Σ_i m_i Σ_j G_ij``.
        """
        name = (mode, bits)
        if name not in self.sums:
            self.sums[name] = weighted_values(
                self.codes(profile), self.layer, self.layer.inputs.drive(mode, bits), self.peak
            )
        return self.sums[name]

    def driven_in_zero_groups(self, profile: DeviceProfile, mode: InputMode, bits: int, rows: int) -> float:
        """The part of :meth:`driven` that groups of zeros have: all of it is of value 0."""
        name = (mode, bits, rows)
        if name not in self.sums:
            gone = groups_gone(self.codes(profile), self.layer.lines, rows)
            drive = drive_of_rows(self.layer, self.layer.inputs.drive(mode, bits))
            starts = np.cumsum([0, *self.occupancy(profile, rows, zero_groups=False).rows])[:-1]
            blocks = np.add.reduceat(drive, starts, axis=0)  # (block, group)
            each = np.repeat(blocks, self.layer.matrix.cols, axis=1) if blocks.shape[1] > 1 else blocks
            self.sums[name] = np.array([float((gone * each).sum())])
        return float(self.sums[name][0])

    def occupancy(self, profile: DeviceProfile, rows: int, *, zero_groups: bool) -> Occupancy:
        """How the weight lies on crossbars of so many rows."""
        name = (rows, zero_groups)
        if name not in self.occupied:
            gone = None
            if zero_groups:
                gone = groups_gone(self.codes(profile), self.layer.lines, rows)
            self.occupied[name] = occupancy_of(self.layer, rows, gone)
        return self.occupied[name]


@dataclass(frozen=True)
class Occupancy:
    """Row blocks of a weight, and what is left of them without groups of zeros.

    Attributes
    ----------
    rows : ndarray of int, shape (block,)
        Rows in use, of the row blocks of all matrices that lie below each other.
    outputs : ndarray of int, shape (block, group)
        Weight columns of each block, of the matrices that lie beside each other.
    added : ndarray of int, shape (blocks of a matrix + 1,)
        How many outputs are the sum of so many blocks.
    """

    rows: NDArray[np.int64]
    outputs: NDArray[np.int64]
    added: NDArray[np.int64]


def occupancy_of(layer: CostLayer, rows: int, gone: NDArray[np.bool_] | None = None) -> Occupancy:
    """Cut a weight into row blocks.

    Parameters
    ----------
    gone : ndarray of bool, shape (block, column), optional
        Groups that have no devices.
    """
    matrix = layer.matrix
    below, beside = _arrangement(layer)
    used = [block.used for block in row_blocks(matrix.rows // matrix.kernel, matrix.kernel, rows)]
    left = np.ones((len(used) * below, matrix.cols * beside), bool) if gone is None else ~gone
    outputs = left.reshape(len(left), beside, matrix.cols).sum(axis=2)
    added = left.reshape(below, len(used), -1).sum(axis=1)
    counts = np.bincount(added.reshape(-1), minlength=len(used) + 1)
    return Occupancy(np.array(used * below, np.int64), outputs.astype(np.int64), counts)


def _arrangement(layer: CostLayer) -> tuple[int, int]:
    """How many matrices lie below, and how many beside each other in the codes."""
    full = layer.weight.shape
    below = max(1, matrix_layout(full, layer.lines.axes).shape(full)[0] // max(1, layer.matrix.rows))
    return below, max(1, layer.matrix.groups // below)


def drive_of_rows(layer: CostLayer, drive: Floats) -> Floats:
    """Lay the moments of a layer's inputs out as its codes lie: shape (row, 1 or group)."""
    below, _ = _arrangement(layer)
    full = np.broadcast_to(drive, (drive.shape[0], layer.matrix.rows))
    if below > 1:
        return np.broadcast_to(full, (below, layer.matrix.rows)).reshape(-1, 1)
    return np.ascontiguousarray(full.T)


def weighted_values(code: NDArray[np.int16], layer: CostLayer, drive: Floats, peak: int) -> Floats:
    """Histogram of codes in which each counts by the moment of its row's input."""
    matrix = matrix_layout(code.shape, layer.lines.axes).apply(code)
    of_row = drive_of_rows(layer, drive)
    if of_row.shape[1] > 1:
        of_row = np.repeat(of_row, layer.matrix.cols, axis=1)
    total = np.zeros(2 * peak + 1)
    step = max(1, (1 << 22) // max(1, matrix.shape[1]))
    for start in range(0, matrix.shape[0], step):
        part = matrix[start : start + step]
        weights = np.broadcast_to(of_row[start : start + step], part.shape)
        total += np.bincount(part.reshape(-1).astype(np.int64) + peak, weights.reshape(-1), len(total))
    return total


def quantised(
    workload: ModelWorkload, layer: CostLayer, profile: DeviceProfile, how: Placement
) -> QuantisedCodes:
    """The codes of a layer, quantised once for all points that quantise alike."""
    chosen = None if how.codes is None else how.codes.of.get(layer.key)
    by: tuple[object, ...] = ("bits", how.bits)
    if how.codes is not None and chosen is not None:
        by = ("code", chosen, how.codes.rounded_by.tobytes(), layer.key in how.codes.nearest)
    name = (layer.key, how.per_channel, how.outliers, *by)
    if name not in workload.cache:
        code, bits, digital = layer.weight, how.bits, 0
        if isinstance(code, Weight):
            if how.outliers is not None:
                digital = len(outliers_of(code, how.outliers, how.per_channel)[0])
            code, _, array = place_weight(code, profile, how)
            bits = array.bits
        kept = sum(one.code.size for one in workload.cache.values() if one.code is not None)
        workload.cache[name] = QuantisedCodes(
            layer,
            how,
            None if chosen is not None else bits,
            int(np.abs(code.astype(np.int32)).max(initial=0)),
            code if kept + code.size <= MOST_KEPT else None,
            digital,
        )
    return workload.cache[name]


def measure_workload(
    loaded: LoadedModel,
    rebatch: Rebatch,
    decisions: Sequence[Decision],
    dataset: Dataset | None,
    *,
    input_bits: Sequence[int] = (8,),
    images: int = 64,
    provider: str = "cpu",
) -> ModelWorkload:
    """Find everything about a model that does not depend on a design point.

    Parameters
    ----------
    dataset : Dataset or None
        Shows the inputs of each layer, and sizes that the model does not state. None, or synthetic samples:
        inputs are assumed (:data:`nvaudit.cost.inputs.ASSUMPTION`).
    input_bits : sequence of int
        Every resolution of the inputs that a design point will ask for.
    images : int
        Samples of the calibration pass, at most.
    """
    products, samples = count_products(loaded, rebatch, decisions, dataset, with_steps=True)
    steps = products.steps
    assert steps is not None
    vectors, off = _served(products.entries, decisions)
    weights = {
        i: decision.constant.weight
        for i, decision in enumerate(decisions)
        if decision.mapped and decision.constant.weight is not None
    }
    first = _first_steps(products.entries, steps, weights)
    order = sorted(weights, key=lambda i: first[i])
    real = dataset if dataset is not None and dataset.source != "synthetic" else None
    bits = tuple(sorted(set(input_bits)))
    if real is None:
        inputs = {weight.key: assumed_inputs(bits, "no data") for weight in weights.values()}
    else:
        inputs = measure_inputs(loaded, list(weights.values()), real, bits, images, provider)
    layers = tuple(_layer(weights[i], vectors.get(i), samples, inputs[weights[i].key]) for i in order)
    place = {i: number for number, i in enumerate(order)}
    placing = Placing(samples, place, products.entries, decisions)
    for step in steps.steps:
        placing.enter(step)
    placing.leave(steps.results)
    on = [one.products for one in layers]
    unknown = _unknown(steps, off, [weights[i].key for i in order if vectors.get(i) is None])
    return ModelWorkload(
        layers=layers,
        arithmetic=placing.arithmetic,
        multiply_adds=placing.multiply_adds,
        flows=placing.flows(),
        operations=2.0 * (sum(on) + off.count / samples),
        largest=max([step.elements or 0 for step in steps.steps], default=0) / samples,
        unknown=unknown,
        input_bits=bits,
        images=0 if real is None else min(images, real.count),
    )


def _unknown(steps: Steps, off: _Off, layers: Sequence[str]) -> tuple[str, ...]:
    """What cannot be counted: operators by their kind, and layers."""
    by_kind: dict[str, list[str]] = {}
    for step in steps.steps:
        if not step.moves and (step.arithmetic is None or step.runs is None):
            by_kind.setdefault(step.op, []).append(step.name)
    texts = [
        f"{op} {names[0]!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for op, names in by_kind.items()
    ]
    return (
        *texts,
        *(f"products of {op}" for op in off.unknown),
        *(f"products with {key!r}" for key in layers),
    )


@dataclass
class _Off:
    """Products off the array."""

    count: float = 0.0
    unknown: list[str] = field(default_factory=list)


def _served(
    entries: Sequence[ProductCount], decisions: Sequence[Decision]
) -> tuple[dict[int, float | None], _Off]:
    """Products with each weight on the array (None: not countable), and those off it."""
    on: dict[int, float | None] = {}
    off = _Off()
    for product in entries:
        served = next((i for i in product.on_array if decisions[i].mapped), None)
        if served is not None:
            before = on.get(served, 0.0)
            known = before is not None and product.products is not None
            on[served] = (before or 0.0) + (product.products or 0) if known else None
        elif product.products is None:
            off.unknown.append(f"{product.op} {product.name!r}")
        else:
            off.count += product.products
    return on, off


def _first_steps(
    entries: Sequence[ProductCount], steps: Steps, weights: Mapping[int, Weight]
) -> dict[int, int]:
    """The step that takes each weight first; weights of operators that nobody counts come last."""
    number = {step.name: i for i, step in enumerate(steps.steps)}
    first: dict[int, int] = {}
    for product in entries:
        for i in product.on_array:
            first[i] = min(first.get(i, len(number)), number.get(product.name, len(number)))
    return {i: first.get(i, len(number)) for i in weights}


def _layer(weight: Weight, products: float | None, samples: int, inputs: InputStatistics) -> CostLayer:
    numbers = math.prod(weight.shape)
    each = (products or 0.0) / samples
    return CostLayer(
        key=weight.key,
        op=weight.op,
        weight=weight,
        matrix=weight.matrix,
        lines=weight_lines(weight),
        vectors=each / numbers if numbers else 0.0,
        products=each,
        inputs=inputs,
    )


Arriving = list[tuple[int, float]]
"""Places, and how many numbers come from each; infinite where all that an operand holds does."""


@dataclass(frozen=True)
class Flow:
    """Numbers that go from one place to another in one inference.

    Places count the layers; ``INPUT`` is the port of the chip.
    """

    source: int
    target: int
    numbers: float


class Placing:
    """Where every operator runs, and what therefore travels, while steps are entered in their order.

    A layer runs on its crossbars; what is worked out digitally runs where the last of its operands is made.
    An operator that only hands numbers on has no place: what reads it reads where they come from. So a
    residual travels from where it was made to where it is added.
    """

    def __init__(
        self,
        samples: int,
        place: Mapping[int, int],
        entries: Sequence[ProductCount],
        decisions: Sequence[Decision],
    ) -> None:
        self.samples = samples
        self.arithmetic: dict[int, Arithmetic] = {}
        self.multiply_adds: dict[int, float] = {}
        self._layers: dict[str, list[int]] = {}
        self._off: dict[str, float] = {}
        for product in entries:
            served = next((i for i in product.on_array if decisions[i].mapped), None)
            if served is not None:
                self._layers.setdefault(product.name, []).append(place[served])
            else:
                self._off[product.name] = self._off.get(product.name, 0.0) + (product.products or 0)
        self._origin: list[Arriving] = []
        self._flows: dict[tuple[int, int], float] = {}

    def enter(self, step: Step) -> None:
        """Place the next step."""
        runs = (step.runs or 0) / self.samples
        arriving = [one for source in step.sources for one in self._resolved(source)]
        layers = self._layers.get(step.name, [])
        if step.moves and not layers:
            # What is handed on is at most what comes out.
            most = math.inf if step.elements is None else float(step.elements)
            self._origin.append([(source, min(count, most)) for source, count in arriving])
            return
        here = layers[0] if layers else max((place for place, _ in arriving), default=INPUT)
        self._origin.append([(here, math.inf)])
        for source, count in arriving:
            for target in layers or [here]:
                self._send(source, target, count * runs)
        if step.arithmetic is not None and step.arithmetic.total:
            before = self.arithmetic.get(here, Arithmetic())
            self.arithmetic[here] = before.plus(step.arithmetic.times(runs))
        if macs := self._off.get(step.name):
            self.multiply_adds[here] = self.multiply_adds.get(here, 0.0) + macs / self.samples

    def leave(self, results: Iterable[OperandSource]) -> None:
        """Send results to the port."""
        for result in results:
            for source, count in self._resolved(result):
                self._send(source, INPUT, count / self.samples)

    def flows(self) -> tuple[Flow, ...]:
        """Everything that travels."""
        return tuple(Flow(source, target, count) for (source, target), count in self._flows.items())

    def _send(self, source: int, target: int, numbers: float) -> None:
        if source != target and math.isfinite(numbers):
            self._flows[source, target] = self._flows.get((source, target), 0.0) + numbers

    def _resolved(self, operand: OperandSource) -> Arriving:
        """Where the numbers of an operand were made, and how many come from each place."""
        count = math.inf if operand.elements is None else operand.elements
        if operand.step == INPUT:
            return [(INPUT, count)]
        if operand.step >= len(self._origin):  # a state of a loop that a later step makes
            return []
        return [(place, min(most, count)) for place, most in self._origin[operand.step]]

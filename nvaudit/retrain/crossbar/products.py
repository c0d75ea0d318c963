"""The product of a layer as crossbars compute it, on tensors: column sums, converters, shift and add.

The same arithmetic as the graph of an audit (:mod:`nvaudit.model.crossbar.nodes`), without gradients; and
which operators of a network are taken apart so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nvaudit.errors import ModelError
from nvaudit.model import CrossbarSplit
from nvaudit.model.crossbar.kinds import ProductForm, Refused, kind_of
from nvaudit.model.crossbar.plan import Converter, Converters, row_blocks
from nvaudit.model.graph import Node
from nvaudit.model.layout import Layout
from nvaudit.model.operators import find_operator, is_gemm
from nvaudit.perturb.cells import device_factors, device_offset
from nvaudit.retrain.executor.module import Executor
from nvaudit.retrain.executor.ops.recurrent import GatePart, Recurrent
from nvaudit.retrain.executor.program import ProgramStep, arranged, run_steps
from nvaudit.retrain.quant import ArrayPlace

_ROUND = 11
"""The operator set that brought ``Round``."""


@dataclass(frozen=True)
class ProgrammedWeight:
    """One weight as it is programmed.

    Attributes
    ----------
    levels : Tensor, shape (device, *weight)
        Conductance above g_min in level spacings, signed where signs are kept digitally.
    scale : Tensor
        Weight units per code, broadcastable to the weight.
    """

    levels: Tensor
    scale: Tensor


@dataclass(frozen=True)
class BlockProduct:
    """One row block of a weight.

    Attributes
    ----------
    channels : tuple of int
        First input channel and the one after the last.
    steps : Layout
        From (device, *weight as its operator takes it) to the operand of this block's product.
    shape : tuple of int
        Of that operand.
    """

    channels: tuple[int, int]
    steps: Layout
    shape: tuple[int, ...]


@dataclass(frozen=True)
class CrossbarProduct:
    """One use of a weight.

    Attributes
    ----------
    kind : ProductForm
        How the operator takes it.
    positions : Tensor, int64
        In the shape that the operator takes: where each element lies in the trained layout, counted flat.
    factors : tuple of float
        What each device counts for, in code units.
    offset : int
        What is subtracted digitally, in code units.
    """

    key: str
    kind: ProductForm
    blocks: tuple[BlockProduct, ...]
    positions: Tensor
    factors: tuple[float, ...]
    offset: int
    function: Callable[..., Tensor]
    node: Node

    @property
    def half_up(self) -> bool:
        """Whether converters round half up, as the audit does where ONNX has no ``Round``."""
        return self.node.version < _ROUND

    def activation(self, inputs: Sequence[Any]) -> Tensor:
        """What enters the crossbars."""
        left = self.kind.form == "left"
        x: Tensor = inputs[1 if left else 0]
        turned = is_gemm(self.node.op_type) and self.node.attributes.get("transB" if left else "transA", 0)
        return x.t() if turned else x

    def bounded(self, inputs: Sequence[Any], dac: Converter | None) -> tuple[Any, ...]:
        """The same inputs; where a DAC clips, no gradient goes back."""
        if dac is None:
            return tuple(inputs)
        place = 1 if self.kind.form == "left" else 0
        x: Tensor = inputs[place]
        # A value within half a step beyond the last code is rounded to it, and only farther ones are clipped.
        low, high = (dac.low - 0.5) * dac.step, (dac.high + 0.5) * dac.step
        inside = torch.where((x >= low) & (x <= high), x, x.detach())
        return (*inputs[:place], inside, *inputs[place + 1 :])

    def sums(self, x: Tensor, levels: Tensor) -> Iterator[Tensor]:
        """Column sums of every row block.

        Parameters
        ----------
        x : Tensor
            As of ``activation``, or its codes.
        levels : Tensor, shape (device, *weight)
            In the trained layout.

        Yields
        ------
        Tensor
            In the unit of ``x`` times that of ``levels``; of a convolution (batch, output × device, …), of
            ``x @ W`` (device, row of x, output), of ``W @ x`` (…, output × device, column of x).
        """
        many, kind = len(self.blocks), self.kind
        there = self.positions.reshape(-1).to(levels.device)
        cells = levels.reshape(len(self.factors), -1)[:, there].reshape(-1, *kind.shape).to(x)
        x = x.reshape(-1, kind.channels) if kind.form == "right" else x
        for block in self.blocks:
            start, stop = block.channels
            operand = arranged(cells, block.steps).reshape(block.shape)
            if kind.form in ("conv", "deconv"):
                part = x.narrow(1, start, stop - start) if kind.narrows(many) else x
                yield self.function(part, operand)
            elif kind.form == "left":
                yield operand @ x.narrow(-2, start, stop - start)
            else:
                yield x.narrow(1, start, stop - start) @ operand

    def value(
        self, inputs: Sequence[Any], chip: ProgrammedWeight, converters: Converters
    ) -> tuple[Tensor, Tensor | None]:
        """What the operator gives when its weight is on crossbars.

        Returns
        -------
        value : Tensor
            ``s Δx (Δc Σ_d f_d Σ_r ADC(sums) - offset Σ x)``, and the operator's bias.
        within : Tensor or None
            Share of the column sums of each output that its ADCs did not clip, by significance; None where
            they clipped nothing.
        """
        x, input_step = self.activation(inputs), 1.0
        if converters.dac is not None:
            input_step = converters.dac.step
            x = codes(x * (1.0 / input_step), converters.dac, self.half_up)
        adc = converters.adc
        step = 1.0 if adc is None else adc.step
        # An ADC rounds sum / Δ. The step Δ goes into the levels instead of the sums: fewer numbers to divide,
        # and the same rounding as in the audit's graph, which does so too.
        levels = chip.levels * (1.0 / step)
        total: Tensor | None = None
        beyond: Tensor | None = None
        for sums in self.sums(x, levels):
            if adc is not None and _clips(sums, adc):
                clipped = (sums > adc.high + 0.5).logical_or_(sums < adc.low - 0.5)
                beyond = clipped.to(sums.dtype) if beyond is None else beyond.add_(clipped)
            converted = sums if adc is None else codes(sums, adc, self.half_up)
            total = converted if total is None else total.add_(converted)
        assert total is not None  # a matrix has rows
        product = self._combined(total, self.factors).mul_(step)
        if self.offset:
            product -= self.offset * self._reference(x)
        value = self._with_bias(product.mul_(self._by_output(chip).to(product) * input_step), inputs)
        if beyond is None:
            return value, None
        # One output has a sum for every device and row block. Each passes the gradient of the output on by
        # its significance |f_d| / Σ|f|, and none where its ADC clipped: what is left of 1.
        sizes = [abs(factor) for factor in self.factors]
        shares = [size / (sum(sizes) * len(self.blocks)) for size in sizes]
        return value, 1.0 - self._combined(beyond, shares)

    def _combined(self, total: Tensor, factors: Sequence[float]) -> Tensor:
        """Add what the devices of every output give, each times its factor."""
        if self.kind.form == "right":
            parts = list(total.unbind(0))
        else:
            axis = 1 if self.kind.form != "left" else total.dim() - 2
            shape = (*total.shape[:axis], self.kind.outputs, -1, *total.shape[axis + 1 :])
            parts = list(total.reshape(shape).unbind(axis + 1))
        made = parts[0] * factors[0]
        for part, factor in zip(parts[1:], factors[1:], strict=True):
            made.add_(part, alpha=factor)
        return made

    def _reference(self, x: Tensor) -> Tensor:
        """Sum of the inputs of every output: the column that the offset encoding subtracts."""
        kind = self.kind
        if kind.form == "right":
            return x.reshape(-1, kind.channels).sum(1, keepdim=True)
        if kind.form == "left":
            return x.sum(-2, keepdim=True)
        # A convolution with a kernel of ones, one output for each group: Σ x over the receptive field.
        # Padding needs no care: its zeros add nothing to Σ x, nor to the sums that it is subtracted from.
        first, second, *kernel = kind.shape
        lone = (kind.groups, second, *kernel) if kind.form == "conv" else (first, 1, *kernel)
        return self.function(x, x.new_ones(lone)).repeat_interleave(kind.outputs // kind.groups, 1)

    def _by_output(self, chip: ProgrammedWeight) -> Tensor:
        """Scale of every output, broadcastable to the product."""
        kind, scales = self.kind, chip.scale.broadcast_to(chip.levels.shape[1:]).reshape(-1)
        first = torch.from_numpy(kind.by_output(self.positions.numpy())[:, 0].copy())
        scale = scales[first.to(scales.device)]
        if kind.form == "right":
            return scale
        return scale[:, None] if kind.form == "left" else scale.reshape(-1, *[1] * len(kind.shape[2:]))

    def _with_bias(self, product: Tensor, inputs: Sequence[Any]) -> Tensor:
        bias = inputs[2] if len(inputs) > 2 else None
        if not is_gemm(self.node.op_type):
            return product if bias is None else product + bias.reshape(-1, *[1] * (product.dim() - 2))
        alpha, beta = (self.node.attributes.get(name, 1.0) for name in ("alpha", "beta"))
        product = product if alpha == 1 else product * alpha
        return product if bias is None else product + bias * beta


def _clips(values: Tensor, converter: Converter) -> bool:
    """Whether any value lies beyond the last code; sooner known than which."""
    low, high = torch.aminmax(values)
    return bool(low < converter.low - 0.5) or bool(high > converter.high + 0.5)


def codes(values: Tensor, converter: Converter, half_up: bool = False) -> Tensor:
    """Nearest codes of values in code units, in place: ``clip(round(v), low, high)``."""
    # Clamped first: the ends are whole numbers, which rounding leaves where they are, either way.
    values.clamp_(converter.low, converter.high)
    return values.add_(0.5).floor_() if half_up else values.round_()


def find_product(
    step: ProgramStep,
    network: Executor,
    splits: Mapping[str, CrossbarSplit],
    places: Mapping[str, ArrayPlace],
    rows: int,
) -> CrossbarProduct | None:
    """Find the product of an operator.

    Parameters
    ----------
    splits : mapping of str to CrossbarSplit
        The weights that the audit splits, by key.

    Returns
    -------
    CrossbarProduct or None
        None if it takes no such weight, or takes it in a way of its own.
    """
    function, inputs, _, _, node = step
    if node is None or find_operator(node.op_type, node.domain) is None:
        return None
    for index, slot in enumerate(inputs[:2]):
        keys = [key for key in _sources(network, slot) if key in splits]
        if len(keys) != 1:
            continue
        if why_not_split(splits[keys[0]]) is not None:
            return None
        positions = _positions(network, keys[0], slot)
        if positions is None:
            return None
        try:
            kind = kind_of(node.op_type, node.domain, node.attributes.get, index, tuple(positions.shape))
        except Refused:
            return None
        # An ADC rounds each block's sum, and Σ round(a_r) depends on where blocks end: other blocks than the
        # audit's would show training other errors.
        if row_blocks(kind.channels, kind.kernel, rows) != splits[keys[0]].blocks:
            return None
        return _product(places[keys[0]], splits[keys[0]], kind, positions, function, node)
    return None


def why_not_split(split: CrossbarSplit) -> str | None:
    """Say why a weight that the audit splits is trained with ideal converters; None if it is not."""
    if split.inside:
        return "its operator is in the body of another one, which is trained with ideal converters"
    if split.scaling != "output":
        return "its quantisation scale differs within an output: it is split in the audits only"
    return None


def find_recurrent(
    step: ProgramStep,
    network: Executor,
    splits: Mapping[str, CrossbarSplit],
    places: Mapping[str, ArrayPlace],
    rows: int,
) -> dict[GatePart, CrossbarProduct]:
    """Find the products of an LSTM, GRU or RNN; none if the audit does not split both of its matrices.

    Parameters are those of :func:`find_product`.
    """
    function, inputs, _, _, node = step
    if not isinstance(function, Recurrent) or node is None:
        return {}
    products: dict[GatePart, CrossbarProduct] = {}
    matrices = {}
    for operand in (1, 2):
        keys = [key for key in _sources(network, inputs[operand]) if key in splits]
        if len(keys) != 1 or why_not_split(splits[keys[0]]) is not None:
            return {}
        positions = _positions(network, keys[0], inputs[operand])
        if positions is None or row_blocks(positions.shape[-1], 1, rows) != splits[keys[0]].blocks:
            return {}
        matrices[operand] = keys[0], positions
    for part, (start, stop) in function.parts().items():
        operand, direction, _ = part
        key, positions = matrices[operand]
        own = positions[direction, start:stop]
        kind = ProductForm("right", tuple(own.shape), transposed=True)
        products[part] = _product(places[key], splits[key], kind, own, lambda x, matrix: x @ matrix.t(), node)
    return products


def _product(
    place: ArrayPlace,
    split: CrossbarSplit,
    kind: ProductForm,
    positions: Tensor,
    function: Callable[..., Tensor],
    node: Node,
) -> CrossbarProduct:
    factors = device_factors(place.array)
    blocks = []
    for block in split.blocks:
        steps, shape = kind.arrangement(block, len(factors), len(split.blocks))
        blocks.append(BlockProduct(block.channels, steps, shape))
    offset = device_offset(place.array)
    return CrossbarProduct(place.key, kind, tuple(blocks), positions, factors, offset, function, node)


def _sources(network: Executor, slot: int) -> frozenset[str]:
    """The parameters that a value is computed from, if from parameters alone."""
    refs = network._program.names.values()
    return next((ref.keys for ref in refs if ref.slot == slot and ref.kind == "weight"), frozenset())


def _positions(network: Executor, key: str, slot: int) -> Tensor | None:
    """Where an operator finds each element of a weight in the trained layout; None if it finds others.

    A weight of whole numbers is sent the way of the weight; what arrives are these numbers in another order.
    """
    with torch.no_grad():
        weight = network.clean([key])[key]
        # From 1, so that a zero that was padded on the way is no element; in double, which has every whole
        # number up to 2**53. That each arrives exactly once also rules out arithmetic on the way, such as a
        # change of sign.
        number = torch.arange(1, weight.numel() + 1, dtype=torch.float64, device=weight.device)
        given = {key: number.reshape(weight.shape)}
        network._begin(given)
        values = network._filled(given)
        try:
            run_steps(network._program.weight_steps, values)
        except (ModelError, RuntimeError):  # something that is computed from it wants another type
            return None
        arrived = torch.round(values[slot].double()).long().cpu()
    if not torch.equal(arrived.reshape(-1).sort().values, torch.arange(1, weight.numel() + 1)):
        return None
    return arrived - 1

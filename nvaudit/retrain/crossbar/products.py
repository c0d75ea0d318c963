"""The product of a layer as crossbars compute it, on tensors: column sums, converters, shift and add.

The same arithmetic as the graph of an audit (:mod:`nvaudit.model.crossbar.nodes`), without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nvaudit.model.crossbar.kinds import Kind
from nvaudit.model.crossbar.plan import Converter, Converters
from nvaudit.model.graph import Node
from nvaudit.model.layout import Layout
from nvaudit.retrain.crossbar.network import arranged

_ROUND = 11
"""The operator set that brought ``Round``."""


@dataclass(frozen=True)
class Chip:
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
class Tile:
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
class Product:
    """One use of a weight.

    Attributes
    ----------
    key : str
        The weight.
    kind : Kind
        How the operator takes it.
    tiles : tuple of Tile
    positions : Tensor, int64
        In the shape that the operator takes: where each element lies in the trained layout, counted flat.
    factors : tuple of float
        What each device counts for, in code units.
    offset : int
        What is subtracted digitally, in code units.
    function : callable
        The operator.
    node : Node
    """

    key: str
    kind: Kind
    tiles: tuple[Tile, ...]
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
        turned = self.node.op_type == "Gemm" and self.node.attributes.get("transB" if left else "transA", 0)
        return x.t() if turned else x

    def bounded(self, inputs: Sequence[Any], dac: Converter | None) -> tuple[Any, ...]:
        """The same inputs; where a DAC clips, no gradient goes back."""
        if dac is None:
            return tuple(inputs)
        place = 1 if self.kind.form == "left" else 0
        x: Tensor = inputs[place]
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
        many, kind = len(self.tiles), self.kind
        there = self.positions.reshape(-1).to(levels.device)
        cells = levels.reshape(len(self.factors), -1)[:, there].reshape(-1, *kind.shape).to(x)
        x = x.reshape(-1, kind.channels) if kind.form == "right" else x
        for tile in self.tiles:
            start, stop = tile.channels
            operand = arranged(cells, tile.steps).reshape(tile.shape)
            if kind.form in ("conv", "deconv"):
                part = x.narrow(1, start, stop - start) if kind.narrows(many) else x
                yield self.function(part, operand)
            elif kind.form == "left":
                yield operand @ x.narrow(-2, start, stop - start)
            else:
                yield x.narrow(1, start, stop - start) @ operand

    def value(
        self, inputs: Sequence[Any], chip: Chip, converters: Converters
    ) -> tuple[Tensor, Tensor | None]:
        """What the operator gives when its weight is on crossbars.

        Parameters
        ----------
        inputs : sequence
            Of the operator.
        chip : Chip
        converters : Converters

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
        # Steps go into the levels: sums then come out as codes, as they do in the audit.
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
        sizes = [abs(factor) for factor in self.factors]
        shares = [size / (sum(sizes) * len(self.tiles)) for size in sizes]
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
        first, second, *kernel = kind.shape
        lone = (kind.groups, second, *kernel) if kind.form == "conv" else (first, 1, *kernel)
        return self.function(x, x.new_ones(lone)).repeat_interleave(kind.outputs // kind.groups, 1)

    def _by_output(self, chip: Chip) -> Tensor:
        """Scale of every output, broadcastable to the product."""
        kind, whole = self.kind, chip.scale.broadcast_to(chip.levels.shape[1:]).reshape(-1)
        first = torch.from_numpy(kind.by_output(self.positions.numpy())[:, 0].copy())
        scale = whole[first.to(whole.device)]
        if kind.form == "right":
            return scale
        return scale[:, None] if kind.form == "left" else scale.reshape(-1, *[1] * len(kind.shape[2:]))

    def _with_bias(self, product: Tensor, inputs: Sequence[Any]) -> Tensor:
        bias = inputs[2] if len(inputs) > 2 else None
        if self.node.op_type != "Gemm":
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
    values.clamp_(converter.low, converter.high)
    return values.add_(0.5).floor_() if half_up else values.round_()

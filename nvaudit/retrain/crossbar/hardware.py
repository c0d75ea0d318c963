"""Hardware-aware training: the forward pass goes through the crossbars of the audit and their converters.

Every product of a mapped weight is computed as the audit computes it: one product per row block and device,
an ADC for every column sum, then shift and add. The gradient is straight-through: that of the plain product
at the programmed, noisy weight. So it needs no product per device, and devices cost in the forward pass
alone. Biases, normalisations and all that is digital stay those of the network, whose operators are wrapped
in place.

References
----------
S, section 5: hardware-aware training "involves breaking the convolution or FC layer into partial operations
based on the size of the crossbar and adding the ADC quantization for the column sum from each crossbar".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from nvaudit.errors import OptionError
from nvaudit.model import Converters, CrossbarSplit
from nvaudit.perturb.cells import device_factors, target_cells
from nvaudit.perturb.crossbar import MOST_SAMPLES, ConverterSpec, MagnitudeHistogram, settle_layer
from nvaudit.perturb.variant import spread_evenly
from nvaudit.retrain.crossbar.products import (
    CrossbarProduct,
    ProgrammedWeight,
    find_product,
    find_recurrent,
    why_not_split,
)
from nvaudit.retrain.device_noise import DeviceNoise, mapped_tensor
from nvaudit.retrain.executor.module import Executor
from nvaudit.retrain.executor.ops.recurrent import GatePart, Recurrent
from nvaudit.retrain.executor.program import ProgramStep
from nvaudit.retrain.feed import Feed
from nvaudit.retrain.noise import Noise, deviation_of, no_noise
from nvaudit.retrain.prune import with_devices
from nvaudit.retrain.quant import ArrayPlace, Quantised, quantise, straight_through


def program(
    place: ArrayPlace, weight: Quantised, noise: Noise, generator: torch.Generator
) -> tuple[ProgrammedWeight, Tensor]:
    """Program a weight on one chip.

    The noise of a device is drawn device by device from its own law. Noise that is stated for weights is
    spread over the devices of each weight by their significance, ``ΔL_d = f_d ΔW / (s Σ f²)``: the least that
    the devices can be off, together, to give that weight.

    Returns
    -------
    programmed : ProgrammedWeight
        The devices.
    values : Tensor
        The weight that they add up to.
    """
    targets = torch.from_numpy(target_cells(mapped_tensor(place, weight)).levels).to(weight.values.device)
    if noise is no_noise:
        return ProgrammedWeight(targets, weight.scale), weight.values
    factors = np.asarray(device_factors(place.array))
    column = torch.tensor(factors, dtype=targets.dtype, device=targets.device)
    column = column.reshape(-1, *[1] * weight.code.dim())
    if isinstance(noise, DeviceNoise):
        drawn = torch.from_numpy(noise.levels(place, weight, generator)).to(targets.device)
        exists = with_devices(place, weight)
        levels = drawn if exists is None else torch.where(exists > 0, drawn, targets)
        # Apart from its code, so that a weight without noise is its code and nothing of rounding.
        deviation = ((levels - targets) * column).sum(0) * weight.scale
        return ProgrammedWeight(levels, weight.scale), weight.values + deviation
    # Of all ΔL with s Σ f_d ΔL_d = ΔW the one of least norm is parallel to f.
    deviation = deviation_of(place, weight, noise, generator)
    safe = torch.where(weight.scale > 0, weight.scale, torch.ones_like(weight.scale))
    share = deviation / safe / float(np.square(factors).sum())
    return ProgrammedWeight(targets + column * share, weight.scale), weight.values + deviation


_NOT_TAKEN_APART = (
    "its operator is trained with ideal converters: only Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and "
    "RNN are taken apart"
)


class Crossbars:
    """The crossbars of a network in training; made by :func:`put_in_training`.

    Attributes
    ----------
    ideal : dict of str to str
        The weights that are trained with ideal converters, each with its reason.
    samples : int
        Of the calibration.
    converters : dict of str to Converters
        As calibrated last.
    """

    def __init__(
        self,
        network: Executor,
        where: Sequence[ArrayPlace],
        splits: Sequence[CrossbarSplit],
        how: ConverterSpec,
        feed: Feed,
        batch_size: int,
    ) -> None:
        self.network, self.where, self.how = network, tuple(where), how
        few = feed.count if feed.dataset.together else min(feed.count, MOST_SAMPLES)
        rows = feed.rows[spread_evenly(feed.count, few)]
        # A batch of one sample is left out where there are more: it has no batch statistics.
        self._feed, self._batch_size = replace(feed, rows=rows), max(2, batch_size)
        self._splits = {split.key: split for split in splits if split.reason is None}
        self.ideal = {split.key: split.reason for split in splits if split.reason is not None}
        self.samples = len(rows)
        self.converters: dict[str, Converters] = {}
        self._mode: Literal["off", "watch", "convert"] = "off"
        self._chips: dict[str, ProgrammedWeight] = {}
        self._spreads: dict[str, tuple[MagnitudeHistogram, MagnitudeHistogram]] = {}

    @contextlib.contextmanager
    def programmed(self, noise: Noise, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
        """Program one chip; inside, the network computes with it and through the converters.

        Yields
        ------
        dict of str to Tensor
            What every device of a weight adds up to, straight through to the clean weight: for the network.
        """
        if not self.converters:
            self.calibrate()
        with self._with_chips(noise, generator, "convert") as weights:
            yield weights

    @contextlib.contextmanager
    def _with_chips(
        self, noise: Noise, generator: torch.Generator, mode: Literal["watch", "convert"]
    ) -> Iterator[dict[str, Tensor]]:
        clean, weights = self.network.clean([place.key for place in self.where]), {}
        for place in self.where:
            weight = clean[place.key]
            grid = quantise(weight, place)
            if place.key in self._splits:
                self._chips[place.key], values = program(place, grid, noise, generator)
            else:
                values = grid.values + deviation_of(place, grid, noise, generator)
            weights[place.key] = straight_through(weight, values)
        self._mode = mode
        try:
            yield weights
        finally:
            self._mode = "off"
            self._chips.clear()

    def calibrate(self) -> None:
        """Set the ranges of the converters by the weights as they are, without noise, as the audit does.

        Statistics of batch normalisations are those that the network uses in its mode; they are not changed.
        """
        network = self.network
        # A network in training mode updates its running statistics in every pass; those of a calibration are
        # put back, so that it leaves no trace.
        kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
        self._spreads = {key: (MagnitudeHistogram(), MagnitudeHistogram()) for key in self._splits}
        generator = torch.Generator(self._feed.device)  # of no noise: nothing is drawn
        with torch.no_grad(), self._with_chips(no_noise, generator, "watch") as weights:
            for batch in self._feed.in_order(self._batch_size):
                if len(batch.rows) > 1 or self.samples == 1:
                    network(batch.inputs, weights)
            for name, buffer in network.named_buffers():
                buffer.copy_(kept[name])
        arrays = {place.key: place.array for place in self.where}
        self.converters = {
            key: settle_layer(split, arrays[key], self._spreads[key], self.how).converters
            for key, split in self._splits.items()
        }
        self._spreads = {}

    def facts(self) -> dict[str, Any]:
        """What a report says about it."""
        how = self.how
        return {
            "rows": how.rows, "cols": how.cols, "adc_bits": how.adc_bits, "dac_bits": how.dac_bits,
            "adc_range": how.method, "samples": self.samples, "layers": tuple(self._splits),
            "whole": dict(self.ideal),
        }  # fmt: skip

    def wrap(self, product: CrossbarProduct) -> Callable[..., Tensor]:
        """The operator of a product; inside ``programmed`` it gives what crossbars give."""

        def run(*inputs: Any) -> Tensor:
            if self._mode == "off":
                return product.function(*inputs)
            chip = self._chips[product.key]
            if self._mode == "watch":
                self._watch(product, inputs, chip)
                return product.function(*inputs)
            # Forward: what the converters give. Backward: the plain product at the programmed weight, which
            # needs no product per device, less the outputs whose sums were clipped.
            converters = self.converters[product.key]
            plain = product.function(*product.bounded(inputs, converters.dac))
            with torch.no_grad():
                value, within = product.value(inputs, chip, converters)
            return _through(plain, value.reshape(plain.shape).to(plain.dtype), within)

        return run

    def wrap_recurrent(
        self, function: Recurrent, products: Mapping[GatePart, CrossbarProduct]
    ) -> Callable[..., Any]:
        """The function of an LSTM, GRU or RNN; inside ``programmed`` its products go through crossbars."""
        wrapped = {part: self.wrap(product) for part, product in products.items()}

        def multiply(part: GatePart, values: Tensor, matrix: Tensor) -> Tensor:
            return wrapped[part](values, matrix)

        def run(*inputs: Any) -> Any:
            return function(*inputs) if self._mode == "off" else function.through(multiply, *inputs)

        return run

    def _watch(self, product: CrossbarProduct, inputs: Sequence[Any], chip: ProgrammedWeight) -> None:
        seen, summed = self._spreads[product.key]
        x = product.activation(inputs)
        seen.add(x.cpu().numpy())
        for sums in product.sums(x, chip.levels):
            summed.add(sums.cpu().numpy())

    def keep(self, trained: Collection[str]) -> None:
        """Keep the weights that can be trained through crossbars; the others get ideal converters.

        Raises
        ------
        OptionError
            If that is nothing.
        """
        for key in list(self._splits):
            if key not in trained:
                self.ideal[key] = why_not_split(self._splits.pop(key)) or _NOT_TAKEN_APART
        if not self._splits:
            key, reason = next(iter(self.ideal.items()))
            raise OptionError(
                f"--adc-bits: no weight on the array can be trained through crossbars, e.g. {key!r}: "
                f"{reason}; use --no-hardware-aware, which leaves the converters to the audits"
            )


def put_in_training(
    network: Executor,
    where: Sequence[ArrayPlace],
    splits: Sequence[CrossbarSplit],
    how: ConverterSpec,
    feed: Feed,
    batch_size: int,
) -> Crossbars:
    """Let a network compute through crossbars when it is told to.

    Parameters
    ----------
    network : Executor
        Its operators are wrapped in place; outside ``Crossbars.programmed`` it computes as before.
    where : sequence of ArrayPlace
        Weights on the array.
    splits : sequence of CrossbarSplit
        What the audit makes of each.
    feed : Feed
        Samples to train on; some of them calibrate.
    batch_size : int
        Samples in one pass of the calibration.

    Raises
    ------
    OptionError
        If nothing can be split over crossbars.
    """
    crossbars = Crossbars(network, where, splits, how, feed, batch_size)
    places = {place.key: place for place in where}
    split_of = {split.key: split for split in splits if split.reason is None}
    trained: set[str] = set()

    def through_crossbars(step: ProgramStep) -> Callable[..., Any]:
        function = step[0]
        product = find_product(step, network, split_of, places, how.rows)
        several = find_recurrent(step, network, split_of, places, how.rows)
        if product is not None:
            trained.add(product.key)
            return crossbars.wrap(product)
        if isinstance(function, Recurrent) and several:
            trained.update(one.key for one in several.values())
            return crossbars.wrap_recurrent(function, several)
        return function

    network.replace_functions(through_crossbars)
    crossbars.keep(trained)
    return crossbars


class _Through(torch.autograd.Function):
    """The second argument, with the gradient of the first; less of it where column sums were clipped.

    ``plain + (value - plain).detach()`` would round: the sum of two floats is not ``value`` bit for bit, and
    training would not see the codes that the audit sees.
    """

    @staticmethod
    def forward(ctx: Any, plain: Tensor, value: Tensor, within: Tensor | None) -> Tensor:
        ctx.within = within
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        if ctx.within is not None:
            gradient = gradient * ctx.within.reshape(gradient.shape)
        return gradient, None, None


def _through(plain: Tensor, value: Tensor, within: Tensor | None) -> Tensor:
    result: Tensor = _Through.apply(plain, value, within)  # type: ignore[no-untyped-call]
    return result

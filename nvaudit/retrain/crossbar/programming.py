"""Weights in training as the devices that they are programmed into."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nvaudit.perturb.cells import device_factors, target_cells
from nvaudit.retrain.crossbar.products import Chip
from nvaudit.retrain.device_noise import DeviceNoise, mapped_tensor
from nvaudit.retrain.noise import Noise, deviation_of, no_noise
from nvaudit.retrain.prune import with_devices
from nvaudit.retrain.quant import Place, Quantised


def program(place: Place, weight: Quantised, noise: Noise, generator: torch.Generator) -> tuple[Chip, Tensor]:
    """Program a weight on one chip.

    The noise of a device is drawn device by device from its own law. Noise that is stated for weights is
    spread over the devices of each weight by their significance, ``ΔL_d = f_d ΔW / (s Σ f²)``: the least that
    the devices can be off, together, to give that weight.

    Parameters
    ----------
    place : Place
    weight : Quantised
    noise : callable
    generator : torch.Generator

    Returns
    -------
    chip : Chip
        The devices.
    values : Tensor
        The weight that they add up to.
    """
    targets = torch.from_numpy(target_cells(mapped_tensor(place, weight)).levels).to(weight.values.device)
    if noise is no_noise:
        return Chip(targets, weight.scale), weight.values
    factors = np.asarray(device_factors(place.array))
    column = torch.tensor(factors, dtype=targets.dtype, device=targets.device)
    column = column.reshape(-1, *[1] * weight.code.dim())
    if isinstance(noise, DeviceNoise):
        drawn = torch.from_numpy(noise.levels(place, weight, generator)).to(targets.device)
        there = with_devices(place, weight.code)
        levels = drawn if there is None else torch.where(there > 0, drawn, targets)
        # Apart from its code, so that a weight without noise is its code and nothing of rounding.
        deviation = ((levels - targets) * column).sum(0) * weight.scale
        return Chip(levels, weight.scale), weight.values + deviation
    deviation = deviation_of(place, weight, noise, generator)
    safe = torch.where(weight.scale > 0, weight.scale, torch.ones_like(weight.scale))
    share = deviation / safe / float(np.square(factors).sum())
    return Chip(targets + column * share, weight.scale), weight.values + deviation

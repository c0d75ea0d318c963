"""Noise that is injected while training: what is added to a quantised weight at every step.

Gaussian noise and its four one-sided relatives (T-10) act in weight space with standard deviation σ·max|W|
of each tensor, as in the paper's experiments; log-normal noise multiplies; device noise is that of the
audited profile itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import ndtr

from nvaudit.retrain.protocol import Network
from nvaudit.retrain.prune import with_devices
from nvaudit.retrain.quant import Place, Quantised, quantise, straight_through
from nvaudit.rng import stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Shape = Literal["gaussian", "rc", "lc", "rt", "lt"]
"""Gaussian; right- and left-censored; right- and left-truncated."""

Noise = Callable[[Place, Quantised, "torch.Generator"], "Tensor"]
"""(where a weight lies, the weight on its grid, generator) → deviation ΔW of the same shape."""


def torch_generator(device: str, seed: int, purpose: str, *address: int | str) -> torch.Generator:
    """Make a torch generator whose seed comes from the project's own streams.

    Parameters
    ----------
    device : str
    seed : int
        The user's.
    purpose : str
    *address : int or str

    Returns
    -------
    torch.Generator
    """
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(int(stream(seed, purpose, *address).integers(2**63)))
    return generator


def standard(shape: Shape, like: Tensor, th: float, generator: torch.Generator) -> Tensor:
    """Draw noise of unit σ.

    Parameters
    ----------
    shape : {"gaussian", "rc", "lc", "rt", "lt"}
    like : Tensor
        Gives shape, type and device.
    th : float
        Threshold in units of σ: right-sided noise is nowhere above ``th``, left-sided noise nowhere below
        ``−th``. Unused by ``gaussian``.
    generator : torch.Generator

    Returns
    -------
    Tensor

    References
    ----------
    T-10. Censoring sets what lies beyond the threshold to it; truncating draws again.
    """
    import torch

    z = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    if shape == "gaussian":
        return z
    if shape in ("rc", "lc"):
        z.clamp_(max=th)
    else:
        flat = z.view(-1)
        beyond = (flat > th).nonzero().squeeze(1)
        while beyond.numel():
            flat[beyond] = torch.randn(
                beyond.shape, generator=generator, dtype=like.dtype, device=like.device
            )
            beyond = beyond[flat[beyond] > th]
    return -z if shape in ("lc", "lt") else z


def moments(shape: Shape, th: float) -> tuple[float, float]:
    """Mean and standard deviation of noise of unit σ, in closed form.

    Parameters
    ----------
    shape : {"gaussian", "rc", "lc", "rt", "lt"}
    th : float

    Returns
    -------
    tuple of float

    Examples
    --------
    >>> [round(value, 4) for value in moments("rc", 1.0)]
    [-0.0833, 0.8666]
    """
    if shape == "gaussian":
        return 0.0, 1.0
    below, density = float(ndtr(th)), math.exp(-th * th / 2) / math.sqrt(2 * math.pi)
    if shape in ("rc", "lc"):
        mean = th * (1 - below) - density
        square = below - th * density + th * th * (1 - below)
    else:
        mean = -density / below
        square = 1 - th * density / below
    sign = -1.0 if shape in ("lc", "lt") else 1.0
    return sign * mean, math.sqrt(square - mean * mean)


def shaped_noise(shape: Shape, sigma: float, th: float) -> Noise:
    """Noise in weight space: ``ΔW = max|W| · σ · z`` with ``z`` of :func:`standard`."""

    def draw(place: Place, weight: Quantised, generator: torch.Generator) -> Tensor:
        return standard(shape, weight.values, th, generator).mul_(weight.peak * sigma)

    return draw


def lognormal_noise(sigma: float) -> Noise:
    """Multiplicative noise: ``W → W · exp(θ)``, ``θ ~ N(0, σ²)`` (CorrectNet's model of the devices)."""

    def draw(place: Place, weight: Quantised, generator: torch.Generator) -> Tensor:
        z = standard("gaussian", weight.values, 0.0, generator)
        return weight.values * (z.mul_(sigma).exp_() - 1)

    return draw


def no_noise(place: Place, weight: Quantised, generator: torch.Generator) -> Tensor:
    """No noise: training is quantisation-aware only."""
    return weight.values.new_zeros(())


def noisy_weights(
    network: Network, where: Sequence[Place], noise: Noise, generator: torch.Generator
) -> dict[str, Tensor]:
    """One draw of every weight on the array: on its grid, plus noise, straight through to the clean weight.

    Parameters
    ----------
    network : Network
    where : sequence of Place
    noise : Noise
    generator : torch.Generator

    Returns
    -------
    dict of str to Tensor
    """
    drawn = {}
    clean = network.clean([place.key for place in where])
    for place in where:
        weight = clean[place.key]
        grid = quantise(weight, place)
        drawn[place.key] = straight_through(weight, grid.values + deviation_of(place, grid, noise, generator))
    return drawn


def deviation_of(place: Place, weight: Quantised, noise: Noise, generator: torch.Generator) -> Tensor:
    """One draw of the deviation of a weight; where it has no devices there is none."""
    deviation = noise(place, weight, generator)
    there = with_devices(place, weight.code)
    return deviation if there is None else deviation * there


def relative_spread(spreads: Sequence[tuple[float, int]]) -> float:
    """Root mean square over tensors of (spread, number of weights)."""
    total = sum(count for _, count in spreads)
    return float(np.sqrt(sum(spread**2 * count for spread, count in spreads) / total)) if total else 0.0

"""Noise that is injected while training: what is added to a quantised weight at every step.

Gaussian noise and its four one-sided relatives (T-10) act in weight space with standard deviation σ·max|W|
of each tensor, as in the paper's experiments; log-normal noise multiplies; device noise is that of the
audited profile itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from nvaudit.retrain.protocol import TrainableNetwork
from nvaudit.retrain.prune import with_devices
from nvaudit.retrain.quant import ArrayPlace, Quantised, quantise, straight_through
from nvaudit.rng import stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NoiseShape = Literal["gaussian", "rc", "lc", "rt", "lt"]
"""Gaussian; right- and left-censored; right- and left-truncated."""

Noise = Callable[[ArrayPlace, Quantised, "torch.Generator"], "Tensor"]
"""(where a weight lies, the weight on its grid, generator) → deviation ΔW of the same shape."""


def torch_generator(device: str, seed: int, purpose: str, *address: int | str) -> torch.Generator:
    """Make a torch generator whose seed comes from the project's own streams.

    Parameters
    ----------
    seed : int
        The user's.
    """
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(int(stream(seed, purpose, *address).integers(2**63)))
    return generator


def standard(shape: NoiseShape, like: Tensor, th: float, generator: torch.Generator) -> Tensor:
    """Draw noise of unit σ.

    Parameters
    ----------
    like : Tensor
        Gives shape, type and device.
    th : float
        Threshold in units of σ: right-sided noise is nowhere above ``th``, left-sided noise nowhere below
        ``−th``. Unused by ``gaussian``.

    References
    ----------
    T-10. Censoring sets what lies beyond the threshold to it; truncating draws again.
    """
    import torch

    # T-10. Right-censored: min(z, c), so that the share 1 − Φ(c) of the draws lies on c itself, and with
    # φ the normal density E = c (1 − Φ(c)) − φ(c), E[·²] = Φ(c) − c φ(c) + c² (1 − Φ(c)).
    # Right-truncated: z given z ≤ c, by drawing again, Φ(c)⁻¹ times on average: E = −φ(c) / Φ(c).
    # Left-sided noise is right-sided noise mirrored, as −z has the law of z.
    # Why right-censored (T, eq. 9): the mean gradient is f' + E[ΔW] f'' + ½ E[ΔW²] f''', and E < 0 lets
    # training settle where f' > 0 instead of at f' = 0. By eq. 6 the worst case gains from |f'|; noise of
    # mean 0 cannot give it.
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


def shaped_noise(shape: NoiseShape, sigma: float, th: float) -> Noise:
    """Noise in weight space: ``ΔW = max|W| · σ · z`` with ``z`` of :func:`standard`.

    max|W| is that of the weights at hand: as they shrink, so does their noise, as it does on the array.
    """

    def draw(place: ArrayPlace, weight: Quantised, generator: torch.Generator) -> Tensor:
        return standard(shape, weight.values, th, generator).mul_(weight.peak * sigma)

    return draw


def lognormal_noise(sigma: float) -> Noise:
    """Multiplicative noise: ``W → W · exp(θ)``, ``θ ~ N(0, σ²)`` (CorrectNet's model of the devices)."""

    def draw(place: ArrayPlace, weight: Quantised, generator: torch.Generator) -> Tensor:
        # Not of mean 0: E[exp θ] = exp(σ²/2) > 1, so weights grow on average. That is part of the model of
        # the devices.
        z = standard("gaussian", weight.values, 0.0, generator)
        return weight.values * (z.mul_(sigma).exp_() - 1)

    return draw


def no_noise(place: ArrayPlace, weight: Quantised, generator: torch.Generator) -> Tensor:
    """No noise: training is quantisation-aware only."""
    return weight.values.new_zeros(())


def noisy_weights(
    network: TrainableNetwork, where: Sequence[ArrayPlace], noise: Noise, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw every weight on the array once: on its grid, plus noise, straight through to the clean weight."""
    drawn = {}
    clean = network.clean([place.key for place in where])
    # One draw for the whole batch: a chip is programmed once and then meets all samples with the same error.
    for place in where:
        weight = clean[place.key]
        grid = quantise(weight, place)
        drawn[place.key] = straight_through(weight, grid.values + deviation_of(place, grid, noise, generator))
    return drawn


def deviation_of(place: ArrayPlace, weight: Quantised, noise: Noise, generator: torch.Generator) -> Tensor:
    """One draw of the deviation of a weight; where it has no devices there is none."""
    deviation = noise(place, weight, generator)
    there = with_devices(place, weight)
    return deviation if there is None else deviation * there


def relative_spread(spreads: Sequence[tuple[float, int]]) -> float:
    """Root mean square over tensors of (spread, number of weights)."""
    total = sum(count for _, count in spreads)
    return float(np.sqrt(sum(spread**2 * count for spread, count in spreads) / total)) if total else 0.0

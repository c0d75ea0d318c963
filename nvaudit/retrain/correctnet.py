"""CorrectNet's error suppression: a modified Lipschitz regularisation (the paper's baseline).

A layer whose matrix has spectral norm ‖W‖₂ ≤ 1 does not amplify the errors of its input. Under log-normal
variation w·exp(θ) the norm grows by at most the factor that almost every exp(θ) stays below, μ + 3 s with
the mean and the spread of exp(θ); so the nominal matrix is held to λ = k / (μ + 3 s), by the penalty

    β Σ_layers ‖Wᵀ W − λ² I‖²_F,    μ = exp(σ²/2),    s² = (exp(σ²) − 1) exp(σ²)

The smaller of Wᵀ W and W Wᵀ is taken, since a wide matrix cannot have orthonormal columns.

References
----------
A. Eldebiky et al., *CorrectNet: Robustness Enhancement of Analog In-Memory Computing for Neural Networks by
Error Suppression and Compensation*, DATE 2023. Its second part, error compensation by added layers, changes
the network and is left out, as in the comparison of the TRICE paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nvaudit.retrain.protocol import TrainableNetwork
from nvaudit.retrain.quant import ArrayPlace

if TYPE_CHECKING:
    from torch import Tensor


def bound(sigma: float, k: float = 1.0) -> float:
    """λ: what the singular values of a layer are held to.

    Parameters
    ----------
    sigma : float
        Of the log-normal variation.
    k : float
        Lipschitz constant that a layer may have under variation.

    Examples
    --------
    >>> bound(0.0)
    1.0
    """
    mean = math.exp(sigma**2 / 2)
    spread = math.sqrt((math.exp(sigma**2) - 1) * math.exp(sigma**2))
    return k / (mean + 3 * spread)


def matrix_of(weight: Tensor, place: ArrayPlace) -> Tensor:
    """A weight as a matrix, outputs × inputs."""
    if not place.channel_axes or weight.ndim < 2:
        return weight.reshape(1, -1)
    # A convolution as outputs × (inputs · kernel): this multiplies a patch, and its norm bounds the gain of
    # one patch; over an image patches overlap, and the gain can be up to √(kernel positions) times as large.
    axes = [axis % weight.ndim for axis in place.channel_axes]
    front = weight.movedim(axes, list(range(len(axes))))
    return front.reshape(math.prod(front.shape[: len(axes)]), -1)


def penalty(network: TrainableNetwork, where: Sequence[ArrayPlace], sigma: float, beta: float) -> Tensor:
    """The regularisation term.

    Parameters
    ----------
    where : sequence of ArrayPlace
        Weights on the array.
    sigma : float
        Of the variation that is expected.
    beta : float
        Its weight in the loss.

    Returns
    -------
    Tensor
        A single number.
    """
    import torch

    square = bound(sigma) ** 2
    total: Tensor = torch.zeros(())
    clean = network.clean([place.key for place in where])
    for place in where:
        matrix = matrix_of(clean[place.key], place)
        # W Wᵀ and Wᵀ W have the same eigenvalues but for zeros, and no multiple of the identity has these.
        small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        gram = small @ small.T
        identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        total = total.to(gram.device) + ((gram - square * identity) ** 2).sum()
    return beta * total

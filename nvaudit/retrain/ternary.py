"""Ternary weights: −a, 0 or a; threshold and a follow the weights at every step.

References
----------
Z. He, B. Gong, D. Fan, *Optimize Deep Convolutional Neural Network with Ternarized Weights and High
Accuracy*, WACV 2019, arXiv:1807.07948: the stability paper's reference for ternary weights (section 4.4.2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

THRESHOLD = 0.05
"""Of max|W|: weights up to it become 0. The reference's."""


def ternarise(weight: Tensor, axes: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Put weights on three values.

    Parameters
    ----------
    weight : Tensor
    axes : tuple of int
        Axes that have a threshold and an a of their own; ``()`` for one of each.

    Returns
    -------
    code : Tensor
        −1, 0 or 1, in the type and shape of ``weight``: 0 where ``|W| <= Δ``, ``Δ = 0.05 max|W|``.
    scale : Tensor
        a, the mean of |W| over ``|W| > Δ``, broadcastable; 0 where all weights are zero. The weight is
        ``scale · code``. A second time changes nothing.
    """
    import torch

    w = weight.detach()
    if w.numel() == 0:
        return w, w.new_zeros(())
    keep = {axis % w.ndim for axis in axes}
    other = tuple(axis for axis in range(w.ndim) if axis not in keep)
    size = w.abs().double()  # in double: the mean of equal numbers is then that number
    if not other:
        return w.sign(), w.abs()
    above = size > THRESHOLD * size.amax(dim=other, keepdim=bool(keep))
    total = torch.where(above, size, torch.zeros_like(size)).sum(dim=other, keepdim=bool(keep))
    scale = total / above.sum(dim=other, keepdim=bool(keep)).clamp(min=1)
    return torch.where(above, w.sign(), torch.zeros_like(w)), scale.to(w.dtype)

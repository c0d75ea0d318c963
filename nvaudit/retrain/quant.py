"""Weights and activations on their grids, with straight-through gradients.

The grid of a weight is the one that the audit maps it to: sign and magnitude, H bits,
``scale = max|W| / (2**H − 1)`` (T-11), or the grid of its own that a quantised model stores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import DeviceProfile
from nvaudit.mapping.conductance import Array, layout
from nvaudit.mapping.quantize import MAX_BITS
from nvaudit.model import Weight
from nvaudit.retrain.protocol import Network

if TYPE_CHECKING:
    from torch import Tensor


Steps = tuple[tuple[str, tuple[int, ...]], ...]
"""How a stored tensor is made from the primary layout: transposes and reshapes."""


@dataclass(frozen=True)
class Place:
    """How one weight lies on the array; axes are those of its stored layout.

    Attributes
    ----------
    key : str
        Of :class:`nvaudit.model.Weight`.
    array : Array
        How its codes are stored in devices.
    scale_axes : tuple of int
        Axes that have a scale of their own; ``()`` for one scale.
    channel_axes : tuple of int
        Output-channel axes.
    fan_in : int
        Inputs of one output.
    grid : ndarray or None, float32
        Scale of a grid of its own, broadcastable; it does not follow the weights.
    """

    key: str
    array: Array
    scale_axes: tuple[int, ...]
    channel_axes: tuple[int, ...]
    fan_in: int
    grid: NDArray[np.float32] | None

    @property
    def top(self) -> int:
        """Largest magnitude of a code."""
        return int(2**self.array.bits - 1)


def places(
    weights: Sequence[Weight], profile: DeviceProfile, layouts: Mapping[str, Steps], *, per_channel: bool
) -> tuple[Place, ...]:
    """Say how weights lie on the array, as the audit maps them.

    Parameters
    ----------
    weights : sequence of Weight
    profile : DeviceProfile
        Its ``weight_bits`` are H.
    layouts : mapping of str to Steps
        How each weight's stored layout is made from its primary one.
    per_channel : bool
        One scale per output channel instead of one per tensor.

    Returns
    -------
    tuple of Place
    """
    found = []
    for weight in weights:
        bits, grid, steps = profile.weight_bits, None, layouts.get(weight.key, ())
        if weight.is_integer:
            own = weight.load().grid
            if own is not None:
                peak = int(np.abs(own.codes).max(initial=0)).bit_length()
                bits, grid = min(MAX_BITS, max(own.storage_bits, peak)), np.asarray(own.scale, np.float32)
                if grid.size > 1:
                    grid = np.ascontiguousarray(rearranged(np.broadcast_to(grid, weight.shape), steps))
        axes = stored_axes(weight.shape, weight.channel_axes, steps)
        scale_axes = axes if per_channel and grid is None else ()
        array = layout(profile, bits=bits)
        found.append(Place(weight.key, array, scale_axes, axes, weight.matrix.rows, grid))
    return tuple(found)


def rearranged(array: NDArray[Any], steps: Steps) -> NDArray[Any]:
    """Bring an array from the primary layout to the stored one."""
    for step, argument in steps:
        array = array.transpose(argument) if step == "transpose" else array.reshape(argument)
    return array


def stored_axes(shape: Sequence[int], axes: Sequence[int], steps: Steps) -> tuple[int, ...]:
    """Find where axes of the primary layout are in the stored one.

    Parameters
    ----------
    shape : sequence of int
        Primary.
    axes : sequence of int
    steps : Steps

    Returns
    -------
    tuple of int
        ``()`` if a reshape has merged them with others.

    Examples
    --------
    >>> stored_axes((3, 5), (1,), (("transpose", (1, 0)),))
    (0,)
    """
    if not axes or 0 in shape:
        return ()
    keep = {axis % len(shape) for axis in axes}
    index = np.arange(math.prod(shape[a] for a in sorted(keep)))
    index = index.reshape([n if a in keep else 1 for a, n in enumerate(shape)])
    there = rearranged(np.broadcast_to(index, tuple(shape)), steps)
    moves = tuple(axis for axis in range(there.ndim) if not bool((there == there.take([0], axis=axis)).all()))
    count = math.prod(there.shape[axis] for axis in moves)
    return moves if count == index.size else ()


@dataclass(frozen=True)
class Quantised:
    """A weight on its grid; nothing here has a gradient.

    Attributes
    ----------
    values : Tensor
        ``scale · code``.
    code : Tensor
        Whole numbers, −top … top, in the type of the weight.
    scale : Tensor
        Weight units per code, broadcastable.
    peak : Tensor
        max|W|, broadcastable.
    """

    values: Tensor
    code: Tensor
    scale: Tensor
    peak: Tensor


def quantise(weight: Tensor, place: Place) -> Quantised:
    """Put a weight on its grid: the same codes as :func:`nvaudit.mapping.quantize.quantize`.

    Parameters
    ----------
    weight : Tensor
    place : Place

    Returns
    -------
    Quantised
    """
    import torch

    w = weight.detach()
    wide = w.double()  # as in the audit: in single precision W / scale can land on the wrong side of a half
    if place.grid is not None:
        scale = torch.as_tensor(place.grid, device=w.device).to(w.dtype)
    else:
        scale = (_peak(w, place.scale_axes).double() / place.top).to(w.dtype)
    safe = torch.where(scale > 0, scale, torch.ones_like(scale)).double()
    code = torch.round(wide / safe).clamp_(-place.top, place.top).to(w.dtype)
    peak = scale * place.top if place.grid is None else scale * code.abs().amax()
    return Quantised(code * scale, code, scale, peak)


def _peak(w: Tensor, axes: tuple[int, ...]) -> Tensor:
    if w.numel() == 0:
        return w.new_zeros(())
    if not axes:
        return w.abs().amax()
    keep = {axis % w.ndim for axis in axes}
    other = tuple(axis for axis in range(w.ndim) if axis not in keep)
    return w.abs().amax(dim=other, keepdim=True) if other else w.abs()


def straight_through(weight: Tensor, value: Tensor) -> Tensor:
    """Give ``value`` in the forward pass; in the backward pass its gradient goes to ``weight`` unchanged.

    So the gradient is taken at the noisy, quantised point and updates the clean weight (T, Algorithm 1, line
    6).
    """
    return weight + (value - weight).detach()


def quantise_all(network: Network, where: Sequence[Place]) -> dict[str, Quantised]:
    """Put every weight of the array on its grid."""
    clean = network.clean([place.key for place in where])
    return {place.key: quantise(clean[place.key], place) for place in where}


def quantise_activation(x: Tensor, bits: int) -> Tensor:
    """Round an activation to ``bits`` bits over its own range, with a straight-through gradient.

    Unsigned where the tensor has no negative value (after a ReLU): 0 … max in 2**bits − 1 steps; else
    symmetric, −max … max with the sign as one of the bits. The range is that of the tensor at hand.

    Parameters
    ----------
    x : Tensor
    bits : int
        2 … 16.

    Returns
    -------
    Tensor
    """
    import torch

    with torch.no_grad():
        peak = x.abs().amax()
        unsigned = (x >= 0).all()
        top = torch.where(unsigned, 2.0**bits - 1, 2.0 ** (bits - 1) - 1)
        step = torch.where(peak > 0, peak / top, torch.ones_like(peak))
        rounded = torch.round(x / step) * step
    return straight_through(x, rounded)

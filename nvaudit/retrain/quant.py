"""Weights and activations on their grids, with straight-through gradients.

The grid of a weight is the one that the audit maps it to: sign and magnitude, H bits,
``scale = max|W| / (2**H − 1)`` (T-11), or the grid of its own that a quantised model stores; or ternary,
where threshold and scale follow the weights; or the values of a code (:mod:`nvaudit.mapping.codes`). A
network may hold a weight in another layout than the primary one, which the audit speaks of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nvaudit.device import DeviceProfile
from nvaudit.mapping.codes import RoundingTable, rounding
from nvaudit.mapping.conductance import DeviceArray, code_layout, layout
from nvaudit.mapping.groups import group_numbers
from nvaudit.mapping.quantize import keeps_grid
from nvaudit.mapping.tiling import weight_lines
from nvaudit.model import Weight
from nvaudit.model.layout import UNMOVED, Layout
from nvaudit.perturb.choose_codes import ChosenCodes, scale_axes
from nvaudit.retrain.protocol import TrainableNetwork

if TYPE_CHECKING:
    from torch import Tensor


# Z. He, B. Gong, D. Fan, *Optimize Deep Convolutional Neural Network with Ternarized Weights and High
# Accuracy*, WACV 2019, arXiv:1807.07948: the stability paper's reference for ternary weights (section 4.4.2).
TERNARY_THRESHOLD = 0.05
"""Of max|W|: weights up to it become 0."""


def ternarise(weight: Tensor, axes: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Put weights on −a, 0 or a; threshold and a follow the weights at every step.

    Parameters
    ----------
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
    above = size > TERNARY_THRESHOLD * size.amax(dim=other, keepdim=bool(keep))
    total = torch.where(above, size, torch.zeros_like(size)).sum(dim=other, keepdim=bool(keep))
    scale = total / above.sum(dim=other, keepdim=bool(keep)).clamp(min=1)
    return torch.where(above, w.sign(), torch.zeros_like(w)), scale.to(w.dtype)


@dataclass(frozen=True)
class Groups:
    """Which group of a crossbar each weight belongs to; a group of zeros has no devices.

    Attributes
    ----------
    number : ndarray, int64
        From 0, in the stored layout.
    """

    number: NDArray[np.int64]
    count: int


@dataclass(frozen=True)
class ArrayPlace:
    """How one weight lies on the array; axes are those of its stored layout.

    Attributes
    ----------
    key : str
        Of :class:`nvaudit.model.Weight`.
    array : DeviceArray
        How its codes are stored in devices.
    scale_axes : tuple of int
        Axes that have a scale of their own; ``()`` for one scale.
    channel_axes : tuple of int
        Output-channel axes.
    fan_in : int
        Inputs of one output.
    grid : ndarray or None, float32
        Scale of a grid of its own, broadcastable; it does not follow the weights.
    grid_top : int or None
        Largest magnitude of a whole number on that grid, where the weight has a code. None: ``top``.
    ternary : bool
        Whether its values are −a, 0 and a; see :mod:`nvaudit.retrain.quant`.
    groups : Groups or None
        Groups that have no devices where they are zero; None: every weight has devices.
    rounding : RoundingTable or None
        Which value of its code a weight takes; a weight on a grid of its own is put on that first, as it is
        stored. None: the weight has slices.
    outliers : float or None
        Share of the weights, the largest, that no device holds.
    outlier_axes : tuple of int
        Axes that have such a share of their own.
    """

    key: str
    array: DeviceArray
    scale_axes: tuple[int, ...]
    channel_axes: tuple[int, ...]
    fan_in: int
    grid: NDArray[np.float32] | None
    ternary: bool = False
    groups: Groups | None = None
    grid_top: int | None = None
    rounding: RoundingTable | None = None
    outliers: float | None = None
    outlier_axes: tuple[int, ...] = ()

    @property
    def follows_weights(self) -> bool:
        """Whether the largest weight always takes the largest value."""
        return self.grid is None and self.rounding is None

    @property
    def top(self) -> int:
        """Largest magnitude of a code."""
        return self.array.top


def places(
    weights: Sequence[Weight],
    profile: DeviceProfile,
    layouts: Mapping[str, Layout],
    *,
    per_channel: bool,
    ternary: bool = False,
    group_rows: int | None = None,
    codes: ChosenCodes | None = None,
    outliers: float | None = None,
) -> tuple[ArrayPlace, ...]:
    """Say how weights lie on the array, as the audit maps them.

    Parameters
    ----------
    profile : DeviceProfile
        Its ``weight_bits`` are H.
    layouts : mapping of str to Layout
        How each weight's stored layout is made from its primary one.
    per_channel : bool
        One scale per output channel instead of one per tensor.
    ternary : bool
        Weights without a grid of their own have three values; the profile's ``weight_bits`` are 1.
    group_rows : int, optional
        Rows of the crossbars whose groups of zeros have no devices.
    codes : ChosenCodes, optional
        Weights that it names have its codes instead of slices.
    outliers : float, optional
        Share of the weights, the largest, that no device holds.
    """
    made = []
    for weight in weights:
        bits, grid, steps = profile.weight_bits, None, layouts.get(weight.key, UNMOVED)
        if weight.is_integer:
            own = weight.load().grid
            peak = 0 if own is None else int(np.abs(own.codes).max(initial=0)).bit_length()
            if own is not None and keeps_grid(max(own.storage_bits, peak)):
                bits, grid = max(own.storage_bits, peak), np.asarray(own.scale, np.float32)
                if grid.size > 1:
                    grid = np.array(steps.apply(np.broadcast_to(grid, weight.shape)), order="C")
        axes = stored_axes(weight.shape, weight.channel_axes, steps)
        array = layout(profile, bits=bits)
        place = ArrayPlace(
            weight.key, array, axes if per_channel and grid is None else (), axes, weight.matrix.rows, grid,
            ternary and grid is None, outliers=outliers,
            outlier_axes=axes if scale_axes(weight, per_channel) else (),
        )  # fmt: skip
        code = None if codes is None else codes.of.get(weight.key)
        if codes is not None and code is not None:
            own_axes = axes if scale_axes(weight, per_channel) else ()
            rounded_by = None if weight.key in codes.nearest else codes.rounded_by
            array, to_value = code_layout(profile, code), rounding(code, rounded_by)
            place = replace(place, array=array, scale_axes=own_axes, grid_top=place.top, rounding=to_value)
        if group_rows is not None:
            # Groups are counted in the primary layout, as the audit counts them, and moved to where the
            # network holds each weight.
            number = group_numbers(tuple(weight.shape), weight_lines(weight), group_rows)
            stored = np.array(steps.apply(number), order="C")
            place = replace(place, groups=Groups(stored, int(number.max(initial=-1)) + 1))
        made.append(place)
    return tuple(made)


def stored_axes(shape: Sequence[int], axes: Sequence[int], steps: Layout) -> tuple[int, ...]:
    """Find where axes of the primary layout are in the stored one.

    Parameters
    ----------
    shape : sequence of int
        Primary.

    Returns
    -------
    tuple of int
        ``()`` if a reshape has merged them with others.

    Examples
    --------
    >>> stored_axes((3, 5), (1,), Layout([("transpose", (1, 0))]))
    (0,)
    """
    # Number the positions along these axes, move the numbers as the tensor is moved, and see along which of
    # the new axes they change. If together these axes have as many positions they are the old ones.
    if not axes or 0 in shape:
        return ()
    keep = {axis % len(shape) for axis in axes}
    index = np.arange(math.prod(shape[a] for a in sorted(keep)))
    index = index.reshape([n if a in keep else 1 for a, n in enumerate(shape)])
    there = steps.apply(np.broadcast_to(index, tuple(shape)))
    moves = tuple(axis for axis in range(there.ndim) if not bool((there == there.take([0], axis=axis)).all()))
    count = math.prod(there.shape[axis] for axis in moves)
    return moves if count == index.size else ()


@dataclass(frozen=True)
class Quantised:
    """A weight on its grid; nothing here has a gradient.

    Attributes
    ----------
    values : Tensor
        ``scale · code``, or where the weight is digital the weight itself.
    code : Tensor
        Whole numbers, −top … top, in the type of the weight: the values of its code; 0 where it is digital.
    scale : Tensor
        Weight units per code, broadcastable.
    peak : Tensor
        max|W| on devices, broadcastable.
    digital : Tensor of bool, or None
        Weights that no device holds.
    """

    values: Tensor
    code: Tensor
    scale: Tensor
    peak: Tensor
    digital: Tensor | None = None


def quantise(weight: Tensor, place: ArrayPlace) -> Quantised:
    """Put a weight on its grid: the same values as :func:`nvaudit.perturb.prepare.map_tensor` gives."""
    import torch

    w = weight.detach()
    if place.ternary:
        code, scale = ternarise(w, place.scale_axes)
        return Quantised(code * scale, code, scale, scale)
    if place.grid is not None:
        scale = torch.as_tensor(place.grid, device=w.device).to(w.dtype)
        top = place.top if place.grid_top is None else place.grid_top
        code = _nearest(_in_units(w, scale), top).to(w.dtype)
        # This scale does not follow the weights: max|W| is the largest code in use, which may be less than
        # the top.
        w = code * scale
        if place.rounding is None:
            digital = find_digital(w, place)
            code = _without(code, digital)
            return Quantised(_with(code * scale, w, digital), code, scale, scale * code.abs().amax(), digital)
    digital = find_digital(w, place)
    held = _without(w, digital)
    scale = (_peak(held, place.scale_axes).double() / place.top).to(w.dtype)
    scaled = _in_units(held, scale)
    value = _nearest(scaled, place.top) if place.rounding is None else _on_code(scaled, place.rounding)
    code = _without(value.to(w.dtype), digital)
    return Quantised(_with(code * scale, w, digital), code, scale, scale * place.top, digital)


def find_digital(weight: Tensor, place: ArrayPlace) -> Tensor | None:
    """The largest weights, which no device holds: as :func:`nvaudit.mapping.outliers.find_outliers`.

    They are found anew at every step, as an audit of the trained weights will. Of equally large ones others
    may be taken, which have the same values.
    """
    import torch

    if place.outliers is None or not weight.numel():
        return None
    keep = sorted(axis % weight.ndim for axis in place.outlier_axes)
    size = math.prod(weight.shape[axis] for axis in keep)
    moved = weight.abs().movedim(keep, tuple(range(len(keep))))
    groups = moved.reshape(size, -1)
    count = int(place.outliers * groups.shape[1])
    if not count:
        return None
    there = torch.zeros(groups.shape, dtype=torch.bool, device=weight.device)
    there.scatter_(1, groups.topk(count, dim=1).indices, True)
    return there.reshape(moved.shape).movedim(tuple(range(len(keep))), keep)


def _without(numbers: Tensor, digital: Tensor | None) -> Tensor:
    return numbers if digital is None else numbers.masked_fill(digital, 0)


def _with(numbers: Tensor, weight: Tensor, digital: Tensor | None) -> Tensor:
    import torch

    return numbers if digital is None else torch.where(digital, weight, numbers)


def _in_units(w: Tensor, scale: Tensor) -> Tensor:
    """W / scale in double, as in the audit: in single precision it can land on the wrong side of a half."""
    import torch

    return w.double() / torch.where(scale > 0, scale, torch.ones_like(scale)).double()


def _nearest(scaled: Tensor, top: int) -> Tensor:
    # Halves go to the even code, as with numpy. The clamp is for grids of their own: training can push a
    # weight beyond the last code, whereas s = max|W| / top follows it.
    return scaled.round().clamp_(-top, top)


def _on_code(scaled: Tensor, to_value: RoundingTable) -> Tensor:
    """As :meth:`RoundingTable.__call__`."""
    import torch

    edges, values = (torch.from_numpy(one).to(scaled.device) for one in (to_value.edges, to_value.values))
    # The edges of unsigned values are of magnitudes: a negative weight takes the mirrored value.
    size = scaled if to_value.signed else scaled.abs()
    value = values[torch.searchsorted(edges, size.contiguous())]
    return value if to_value.signed else torch.where(scaled < 0, -value, value)


def _peak(w: Tensor, axes: tuple[int, ...]) -> Tensor:
    if w.numel() == 0:
        return w.new_zeros(())
    if not axes:
        return w.abs().amax()
    keep = {axis % w.ndim for axis in axes}
    other = tuple(axis for axis in range(w.ndim) if axis not in keep)
    return w.abs().amax(dim=other, keepdim=True) if other else w.abs()


def settle_ternary(network: TrainableNetwork, where: Sequence[ArrayPlace]) -> None:
    """Set ternary weights to their values, in place: what was trained is what is written."""
    import torch

    weights = network.weights
    with torch.no_grad():
        for place in where:
            if place.ternary and place.key in weights:
                weights[place.key].copy_(quantise(weights[place.key], place).values)


def straight_through(weight: Tensor, value: Tensor) -> Tensor:
    """Give ``value`` in the forward pass; in the backward pass its gradient goes to ``weight`` unchanged.

    So the gradient is taken at the noisy, quantised point and updates the clean weight (T, Algorithm 1, line
    6).
    """
    # Rounding has the derivative 0 almost everywhere, and a weight behind it would never move. With sg for
    # "stop the gradient", W + sg(V − W) is V, and its derivative by W is 1: an update goes on adding up in W
    # until the code that W rounds to changes.
    # In floats V comes back only to within a rounding; where every bit counts, crossbar/hardware.py has
    # _through.
    return weight + (value - weight).detach()


def quantise_all(network: TrainableNetwork, where: Sequence[ArrayPlace]) -> dict[str, Quantised]:
    """Put every weight of the array on its grid."""
    clean = network.clean([place.key for place in where])
    return {place.key: quantise(clean[place.key], place) for place in where}


def quantise_activation(x: Tensor, bits: int) -> Tensor:
    """Round an activation to ``bits`` bits over its own range, with a straight-through gradient.

    Unsigned where the tensor has no negative value (after a ReLU): 0 … max in 2**bits − 1 steps; else
    symmetric, −max … max with the sign as one of the bits. The range is that of the tensor at hand.

    Parameters
    ----------
    bits : int
        2 … 16.
    """
    import torch

    # The range is that of the values themselves, so none lies beyond it: nothing is clipped, and the gradient
    # can pass everywhere with factor 1.
    with torch.no_grad():
        peak = x.abs().amax()
        unsigned = (x >= 0).all()
        top = torch.where(unsigned, 2.0**bits - 1, 2.0 ** (bits - 1) - 1)
        step = torch.where(peak > 0, peak / top, torch.ones_like(peak))
        rounded = torch.round(x / step) * step
    return straight_through(x, rounded)

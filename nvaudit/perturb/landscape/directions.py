"""Random directions in weight space, filter by filter as long as the weights (filter normalisation).

References
----------
H. Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018, section 4; reference [21] of the
stability paper (G. Krishnan et al., IEEE TC 2022), section 2.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.model import Weight
from nvaudit.rng import stream

Axis = int
"""0 for x, 1 for y."""

_TINY = 1e-10
"""Added to the length of a direction, as in the reference: a filter of length 0 gives 0, not 0/0."""


@dataclass(frozen=True)
class Filters:
    """Which elements of a weight make one filter.

    Attributes
    ----------
    shape : tuple of int
        The weight's shape, or one in which the filters can be numbered.
    axes : tuple of int
        Axes of that shape that number the filters; the others lie within a filter.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]


def filters_of(weight: Weight) -> Filters:
    """Find the filters of a weight: all that leads to one output channel (one gate row of an LSTM)."""
    groups = weight.matrix.groups
    if weight.op == "ConvTranspose" and groups > 1:
        # Its first axis runs over the inputs of all groups; an output belongs to one group.
        first, *rest = weight.shape
        return Filters((groups, first // groups, *rest), (0, 2))
    return Filters(weight.shape, weight.channel_axes)


def normalise_filters(
    direction: NDArray[np.float32], weights: NDArray[Any], filters: Filters
) -> NDArray[np.float32]:
    """Scale each filter d_f of a direction to the length of the weights' filter w_f: d_f ‖w_f‖ / ‖d_f‖.

    Parameters
    ----------
    weights : ndarray, any float type
        Of the same shape.

    Returns
    -------
    ndarray, float32, shape of ``direction``
        0 wherever the weights' filter is 0.
    """
    within = tuple(axis for axis in range(len(filters.shape)) if axis not in filters.axes)
    of_weights, of_direction = (
        _lengths(array.reshape(filters.shape), within) for array in (weights, direction)
    )
    # Two networks that compute the same with a layer times k and the next divided by k have the same
    # landscape only if directions scale with the filters (Li et al., section 4).
    factor = (of_weights / (of_direction + _TINY)).astype(np.float32)
    return np.asarray((direction.reshape(filters.shape) * factor).reshape(direction.shape))


def _lengths(array: NDArray[Any], within: tuple[int, ...]) -> NDArray[np.float64]:
    # In float64: float32 loses digits in the sum over a long filter, and its squares overflow beyond 1e19.
    square = np.square(array, dtype=np.float64)
    return np.asarray(np.sqrt(square.sum(axis=within, keepdims=True)))


def draw_direction(
    weights: NDArray[Any], filters: Filters, seed: int, pair: int, axis: Axis, key: str
) -> NDArray[np.float32]:
    """Draw one tensor of a direction: independent normal numbers, then filter-normalised.

    Parameters
    ----------
    seed, pair, axis, key
        Address of the random numbers: the user's seed, the pair of directions, which of the two, the
        weight's name.

    Returns
    -------
    ndarray, float32, shape of ``weights``
    """
    # A stream of its own for each tensor: a direction does not depend on which other weights are moved, or
    # on the order in which workers come to them.
    normal = stream(seed, "landscape", pair, axis, key).standard_normal(weights.shape, dtype=np.float32)
    return normalise_filters(normal, weights, filters)


def is_moved(weight: Weight) -> bool:
    """Whether a weight is moved: those with two or more dimensions, as in the reference."""
    # Biases and the factors of normalisations are vectors; a direction of the reference is 0 there.
    return len(weight.shape) >= 2 and math.prod(weight.shape) > 0

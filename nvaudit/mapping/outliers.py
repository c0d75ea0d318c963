"""The largest weights of a tensor, kept digital beside the array."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outliers:
    """Weights of one tensor that no device holds.

    Attributes
    ----------
    place : ndarray, int64
        Where they are in the flattened primary layout, ascending.
    values : ndarray, float32
        What they are.
    """

    place: NDArray[np.int64]
    values: NDArray[np.float32]

    @property
    def digest(self) -> str:
        """SHA-256 over the bytes of places and values."""
        parts = (self.place.astype("<i8"), self.values.astype("<f4"))
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    def put_into(self, weights: NDArray[np.float32], values: NDArray[np.float32] | float) -> None:
        """Write values at their places, in place."""
        np.put(weights, self.place, values)  # also where they are not contiguous


def find_outliers(
    values: NDArray[np.floating], share: float, channel_axes: tuple[int, ...]
) -> NDArray[np.int64]:
    """Places of the largest share of the weights by magnitude, of each group with a scale of its own.

    Parameters
    ----------
    values : ndarray
        In the primary layout.
    share : float
        Of each group; as many whole weights as it has room for.
    channel_axes : tuple of int
        Axes that keep a scale of their own.

    Returns
    -------
    ndarray, int64
        In the flattened layout, ascending.

    Examples
    --------
    >>> find_outliers(np.array([[1.0, -9.0, 2.0, 3.0]]), 0.25, ())
    array([1])
    """
    keep = sorted(axis % values.ndim for axis in channel_axes) if values.ndim else []
    size = int(np.prod([values.shape[axis] for axis in keep], dtype=np.int64))
    places = np.arange(values.size).reshape(values.shape)
    groups = np.moveaxis(places, keep, range(len(keep))).reshape(size, -1)
    count = int(share * groups.shape[1])
    if not count:
        return np.empty(0, np.int64)
    magnitude = np.abs(values.reshape(-1).astype(np.float64))[groups]
    # Of equal magnitudes the first: which weights are digital does not depend on how they are sorted.
    order = np.argsort(-magnitude, axis=1, kind="stable")[:, :count]
    return np.sort(np.take_along_axis(groups, order, axis=1).reshape(-1))

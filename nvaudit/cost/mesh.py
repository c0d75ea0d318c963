"""The network between tiles: a mesh with X-Y routing, and what traffic makes of its links.

Tiles lie on a square in serpentine order, so that those of a layer, and those of the next one, are near each
other. Between two layers every tile of one sends alike to every tile of the other; what a link then carries
is a product of two counts, so that no pair of tiles is walked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nvaudit.arrays import Floats


@dataclass(frozen=True)
class MeshLoad:
    """What traffic makes of the links, in flits.

    Attributes
    ----------
    right, left : ndarray, shape (side, side − 1)
        Of the links along rows.
    down, up : ndarray, shape (side − 1, side)
        Of those along columns.
    flits : float
        All flits, each counted once.
    """

    right: Floats
    left: Floats
    down: Floats
    up: Floats
    flits: float

    @cached_property
    def hops(self) -> float:
        """Links that all flits go over together."""
        return float(sum(one.sum() for one in (self.right, self.left, self.down, self.up)))

    @cached_property
    def busiest(self) -> float:
        """Flits on the link with most."""
        return max(float(one.max(initial=0.0)) for one in (self.right, self.left, self.down, self.up))

    def plus(self, other: MeshLoad) -> MeshLoad:
        """Both together."""
        return MeshLoad(
            self.right + other.right,
            self.left + other.left,
            self.down + other.down,
            self.up + other.up,
            self.flits + other.flits,
        )


class TileMesh:
    """Tiles on a square, in serpentine order; the port of the chip is beside tile 0."""

    def __init__(self, tiles: int) -> None:
        self.side = max(1, math.ceil(math.sqrt(tiles)))

    def where(self, first: int, count: int) -> Floats:
        """Mark some tiles, shape (row, column): together 1."""
        number = np.arange(first, first + max(1, count))
        row, column = np.divmod(number, self.side)
        column = np.where(row % 2 == 1, self.side - 1 - column, column)
        grid = np.zeros((self.side, self.side))
        grid[row, column] = 1.0 / len(number)
        return grid

    def load(self, source: Floats, target: Floats, flits: float) -> MeshLoad:
        """What flits from some tiles to some others make of the links.

        X-Y routing: a flit goes along its row to the column of its target, then along that column. With
        shares s of the flits that start in, and t of those that end in a tile, the link from column x to
        x + 1 of row r carries ``Σ_{x' ≤ x} s(r, x') · Σ_{x' > x} t(·, x')``; a column likewise, once all
        flits have gone to it.
        """
        of_row, to_column = source.sum(axis=1, keepdims=True), target.sum(axis=0, keepdims=True)
        started = np.cumsum(source, axis=1)[:, :-1]
        ended = np.cumsum(to_column, axis=1)[:, :-1]
        right = flits * started * (1.0 - ended)
        left = flits * (of_row - started) * ended
        # In column c, from row y to y + 1: what started in rows ≤ y, whatever the column, and ends below.
        from_rows = np.cumsum(of_row, axis=0)[:-1]
        reached = np.cumsum(target, axis=0)[:-1]
        down = flits * from_rows * (to_column - reached)
        up = flits * (1.0 - from_rows) * reached
        return MeshLoad(right, left, down, up, flits)


def queueing(utilisation: float) -> float:
    """Waiting time of a flit in transfers of one, at a link in use for a share of the time (M/D/1).

    Examples
    --------
    >>> queueing(0.5)
    0.5
    """
    return utilisation / (2.0 * (1.0 - utilisation)) if utilisation < 1.0 else math.inf

"""What the devices of a chip have in common: correlated variation, and a factor that compensates drift."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Singles
from nvaudit.device.terms import Shared
from nvaudit.mapping.tiling import Lines, lines_of
from nvaudit.rng import ChipAddress, stream

BlockIndex = tuple[slice | EllipsisType, ...]


@dataclass(frozen=True)
class Tiles:
    """Which tile of its crossbars each device of a tensor lies in.

    Attributes
    ----------
    rows : ndarray of int
        Row of tiles of each weight; broadcasts to the weights.
    cols : ndarray of int
        First device column of each weight, within its matrix; broadcasts to the weights.
    before : ndarray of int
        Columns of tiles of the matrices before it; broadcasts to the weights.
    width : int
        Device columns of a tile.
    shape : tuple of int
        Rows and columns of tiles.
    """

    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    before: NDArray[np.intp]
    width: int
    shape: tuple[int, int]

    @classmethod
    def of(cls, shape: tuple[int, ...], lines: Lines, devices: int, tile: tuple[int, int]) -> Tiles:
        """Lay tiles over the matrices of a tensor.

        Parameters
        ----------
        shape : tuple of int
            Of the weights.
        lines : Lines
            What is a row and what a column.
        devices : int
            Device columns of a weight column.
        tile : tuple of int
            Rows and device columns of a tile.
        """
        row, col = lines_of(shape, lines)
        rows, cols = lines.rows or int(row.max(initial=0)) + 1, lines.cols or int(col.max(initial=0)) + 1
        # Every matrix begins new tiles, as it does new crossbars: counts are rounded up for each.
        high, wide = -(-rows // tile[0]), -(-cols * devices // tile[1])
        down = row // rows * high + row % rows // tile[0]
        across = col // cols * wide
        count = (int(down.max(initial=0)) + 1, int(across.max(initial=0)) + wide)
        return cls(down, col % cols * devices, across, tile[1], count)

    def of_device(self, device: int, block: BlockIndex) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Row and column of the tile of one device of each weight of a block."""
        across = self.before + (self.cols + device) // self.width
        return _part(self.rows, block), _part(across, block)


def _part(index: NDArray[np.intp], block: BlockIndex) -> NDArray[np.intp]:
    """A block along the first axis, of what may broadcast along it."""
    return index if index.ndim == 0 or index.shape[0] == 1 else np.asarray(index[block])


@dataclass(frozen=True)
class Component:
    """The common component of one term on one chip: one normal number for each tile, or one for all."""

    values: Singles
    tiles: Tiles | None

    def at(self, device: int, block: BlockIndex) -> Singles | np.float32:
        """The number of one device of each weight of a block."""
        if self.tiles is None:
            return np.float32(self.values)
        return np.asarray(self.values[self.tiles.of_device(device, block)])


def draw_component(term: Shared, tiles: Tiles | None, seed: int, trial: ChipAddress, key: str) -> Component:
    """Draw the common component of a term on chip ``trial``.

    Parameters
    ----------
    tiles : Tiles or None
        Of scope ``tile``.
    seed, trial : int
        The chip.
    key : str
        The tensor; scope ``chip`` does not depend on it.
    """
    # Without the key in its address every tensor of the chip opens the same stream: one number for all.
    address = () if term.scope == "chip" else (key,)
    gen = stream(seed, f"program:{term.name}", trial, *address)
    shape = () if tiles is None else tiles.shape
    return Component(np.asarray(gen.standard_normal(shape), np.float32), tiles)


@dataclass(frozen=True)
class Streams:
    """What one tensor on one chip is drawn from.

    Attributes
    ----------
    own : dict of str to Generator
        Of each term that acts on each device by itself.
    common : dict of str to Component
        Of each ``shared`` term.
    gain : float
        What its conductances are multiplied by as they are read, to compensate drift.
    """

    own: dict[str, np.random.Generator]
    common: dict[str, Component] = field(default_factory=dict)
    gain: float = 1.0

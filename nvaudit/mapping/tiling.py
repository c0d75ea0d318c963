"""How a weight lies on crossbars, and how many it fills: the only count.

Every matrix of a weight (a group of a convolution, a direction of an LSTM) lies on crossbars of its own. Its
rows, inputs × kernel, are cut as those of crossbars with converters are (:func:`row_blocks`): at whole input
channels where a kernel fits a crossbar. A weight column takes slices × polarities device columns, which are
cut wherever a crossbar ends::

    crossbars = matrices · row blocks · ⌈outputs · slices · polarities / columns of a crossbar⌉
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.mapping.conductance import DeviceArray
from nvaudit.model import CrossbarSplit, Weight
from nvaudit.model.crossbar.plan import row_blocks
from nvaudit.model.roles import CrossbarMatrix


@dataclass(frozen=True)
class Crossbar:
    """Size of one crossbar: ``rows`` word lines (inputs × kernel) by ``cols`` bit lines."""

    rows: int = 256
    cols: int = 256


@dataclass(frozen=True)
class Tiling:
    """One weight on crossbars.

    Attributes
    ----------
    rows : tuple of int
        Rows in use in each row block of a matrix.
    columns : int
        Device columns of a matrix.
    """

    size: Crossbar
    matrices: int
    rows: tuple[int, ...]
    columns: int

    @property
    def crossbars(self) -> int:
        """Crossbars that the weight fills."""
        return self.matrices * len(self.rows) * int(side_by_side(self.columns, self.size))

    @property
    def utilisation(self) -> float:
        """Share of the devices of these crossbars that are in use."""
        devices = self.matrices * sum(self.rows) * self.columns
        return devices / (self.crossbars * self.size.rows * self.size.cols)


def side_by_side(columns: int | NDArray[np.integer], size: Crossbar) -> int | NDArray[np.integer]:
    """Crossbars next to each other that hold so many device columns."""
    return -(-columns // size.cols)


def device_columns(array: DeviceArray) -> int:
    """Device columns of one weight column: as many as a weight has devices."""
    return array.slices * array.polarities


def tiling_of(matrix: CrossbarMatrix, array: DeviceArray, size: Crossbar) -> Tiling:
    """Lay the matrices of a weight on crossbars.

    Examples
    --------
    >>> from nvaudit.device import load_profile
    >>> from nvaudit.mapping.conductance import layout
    >>> two_bit = layout(load_profile("rram"), bits=8)
    >>> tiling_of(CrossbarMatrix(1, 784, 256), two_bit, Crossbar()).crossbars
    16
    >>> tiling_of(CrossbarMatrix(1, 256 * 9, 64, kernel=9), two_bit, Crossbar()).rows[0]
    252
    """
    # rows = input channels × kernel positions: cut at whole channels, where a kernel fits a crossbar.
    blocks = row_blocks(matrix.rows // matrix.kernel, matrix.kernel, size.rows)
    columns = matrix.cols * device_columns(array)
    return Tiling(size, matrix.groups, tuple(block.used for block in blocks), columns)


def tiling_of_split(split: CrossbarSplit, array: DeviceArray, size: Crossbar) -> Tiling:
    """The crossbars with converters of a weight that was split.

    Where its quantisation scale changes within an output, its rows are cut there too: each part has column
    sums, and so crossbars, of its own.
    """
    rows = tuple(block.used for block in split.blocks)
    return Tiling(size, split.groups, rows, split.columns * device_columns(array))


@dataclass(frozen=True)
class Lines:
    """What a row and what a column of a tensor's crossbars is.

    Attributes
    ----------
    axes : tuple of int
        Axes whose indices, in this order, count the columns (outputs); the other axes count the rows.
    rows, cols : int
        Rows and columns of one matrix, where a tensor is several (groups of a convolution, directions of an
        LSTM); 0 where it is one.
    kernel: int
        Rows that one input channel takes: positions of the kernel of a convolution, else 1.
    """

    axes: tuple[int, ...] = ()
    rows: int = 0
    cols: int = 0
    kernel: int = 1


ONE_COLUMN = Lines()


def weight_lines(weight: Weight) -> Lines:
    """Rows and columns of a weight's crossbars, in its primary layout."""
    matrix = weight.matrix
    return Lines(weight.channel_axes, matrix.rows, matrix.cols, matrix.kernel)


def lines_of(shape: tuple[int, ...], lines: Lines) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of each weight, all matrices counted through.

    Parameters
    ----------
    shape : tuple of int
        Of the weights, in the primary layout.

    Returns
    -------
    rows, columns : ndarray of int
        Of length 1 along the axes that they do not depend on.

    Examples
    --------
    >>> rows, columns = lines_of((2, 3), Lines(axes=(0,)))
    >>> rows, columns
    (array([[0, 1, 2]]), array([[0],
           [1]]))
    """
    axes = [axis % len(shape) for axis in lines.axes] if shape else []
    others = [axis for axis in range(len(shape)) if axis not in axes]
    return _count(shape, others), _count(shape, axes)


def _count(shape: tuple[int, ...], axes: list[int]) -> NDArray[np.intp]:
    """Number the positions along some axes, the last one fastest."""
    number = np.zeros((1,) * len(shape), np.intp)
    for axis in axes:
        sides = [-1 if other == axis else 1 for other in range(len(shape))]
        number = number * shape[axis] + np.arange(shape[axis], dtype=np.intp).reshape(sides)
    return number


def row_starts(count: int, lines: Lines, rows: int) -> list[int]:
    """First rows of the row blocks of a tensor, all its matrices counted through.

    Parameters
    ----------
    count : int
        Rows of the tensor, of all matrices together.

    Examples
    --------
    >>> row_starts(144, Lines(axes=(0,), rows=144, kernel=9), 72)
    [0, 72]
    """
    one = lines.rows or count
    starts = [block.rows[0] for block in row_blocks(one // lines.kernel, lines.kernel, rows)]
    # Every matrix begins crossbars of its own.
    return [first + start for first in range(0, count, max(one, 1)) for start in starts]

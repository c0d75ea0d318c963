"""How many crossbars a tensor fills. Counting only: the arithmetic of a crossbar is not simulated here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.mapping.conductance import Array


@dataclass(frozen=True)
class Crossbar:
    """Size of one crossbar: ``rows`` word lines (inputs × kernel) by ``cols`` bit lines."""

    rows: int = 256
    cols: int = 256


def crossbars(groups: int, rows: int, cols: int, array: Array, size: Crossbar) -> int:
    """Crossbars that a weight matrix fills.

    Parameters
    ----------
    groups : int
        Independent matrices (groups of a convolution, directions of an LSTM).
    rows, cols : int
        Inputs × kernel and outputs of one matrix.
    array : Array
        Gives slices and polarities: a weight column takes ``slices × polarities`` device columns.
    size : Crossbar
        Size of one crossbar.

    Returns
    -------
    int

    Examples
    --------
    >>> from nvaudit.mapping.conductance import Array
    >>> two_bit = Array("sign_magnitude", 8, 2, 8, 3, 0.0, 3.0)
    >>> crossbars(1, 784, 256, two_bit, Crossbar())
    16
    """
    device_cols = cols * array.slices * array.polarities
    return groups * -(-rows // size.rows) * -(-device_cols // size.cols)


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


def lines_of(shape: tuple[int, ...], lines: Lines) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of each weight, all matrices counted through.

    Parameters
    ----------
    shape : tuple of int
        Of the weights, in the primary layout.
    lines : Lines

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

"""Groups of weights that a crossbar saves when all of them are zero.

A group is what one crossbar holds of one output: a weight column cut at the rows where crossbars end. A
group of zeros need not be programmed: its columns of devices are left out, and the other columns move up.

Reference: the stability paper, sections 4.4.1 and 6.2.1 (Kx × Ky × Ng weights of one output).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.mapping.conductance import DeviceArray
from nvaudit.mapping.tiling import Crossbar, Lines, device_columns, row_starts, side_by_side
from nvaudit.model.layout import matrix_layout


def zero_groups(matrix: NDArray[np.generic], rows: Sequence[int], cols: Sequence[int]) -> NDArray[np.bool_]:
    """Mark the weights of a matrix that lie in a group of zeros.

    Parameters
    ----------
    matrix : ndarray, shape (inputs × kernel, outputs)
    rows, cols : sequence of int
        First row and first column of every group, ascending from 0.

    Returns
    -------
    ndarray, bool
        In the shape of ``matrix``.

    Examples
    --------
    >>> zero_groups(np.array([[0, 1], [0, 0], [0, 0]]), rows=[0, 2], cols=[0, 1])
    array([[ True, False],
           [ True, False],
           [ True,  True]])
    """
    if matrix.size == 0:
        return np.zeros(matrix.shape, np.bool_)
    # Non-zeros of every group: sums over runs of rows, then of columns, without a loop over groups.
    used = np.add.reduceat(np.add.reduceat(matrix != 0, rows, axis=0, dtype=np.int64), cols, axis=1)
    down = np.diff([*rows, matrix.shape[0]])
    across = np.diff([*cols, matrix.shape[1]])
    return np.repeat(np.repeat(used == 0, down, axis=0), across, axis=1)


def group_numbers(shape: tuple[int, ...], lines: Lines, rows: int) -> NDArray[np.int64]:
    """Say which group each weight belongs to.

    Parameters
    ----------
    shape : tuple of int
        Of the weights, in the primary layout.

    Returns
    -------
    ndarray, int64
        From 0, in that shape.
    """
    layout = matrix_layout(shape, lines.axes)
    down, across = layout.shape(shape)
    if down * across == 0:
        return np.zeros(shape, np.int64)
    starts = row_starts(down, lines, rows)
    block = np.repeat(np.arange(len(starts)), np.diff([*starts, down]))
    number = block[:, None] * across + np.arange(across)
    return np.asarray(layout.inverse(shape).apply(number), np.int64)


def unmapped(code: NDArray[np.integer], lines: Lines, rows: int) -> NDArray[np.bool_] | None:
    """Mark the weights that need no devices.

    Parameters
    ----------
    code : ndarray of int
        Codes in the primary layout.

    Returns
    -------
    ndarray of bool or None
        In the shape of ``code``; None where every group is needed.
    """
    layout = matrix_layout(code.shape, lines.axes)
    matrix = layout.apply(code)
    if matrix.size == 0:
        return None
    zero = zero_groups(matrix, row_starts(matrix.shape[0], lines, rows), range(matrix.shape[1]))
    return np.asarray(layout.inverse(code.shape).apply(zero), np.bool_) if zero.any() else None


def groups_gone(code: NDArray[np.integer], lines: Lines, rows: int) -> NDArray[np.bool_]:
    """Say which groups are zero.

    Parameters
    ----------
    code : ndarray of int
        Codes in the primary layout.

    Returns
    -------
    ndarray of bool, shape (row block, column)
        All matrices counted through.

    Examples
    --------
    >>> groups_gone(np.array([[0, 0, 3], [1, 0, 0]]), Lines(axes=(0,)), rows=2)
    array([[ True, False],
           [False,  True]])
    """
    matrix = matrix_layout(code.shape, lines.axes).apply(code)
    starts = row_starts(matrix.shape[0], lines, rows)
    # A group is zero as a whole or not at all, so its first row tells.
    return np.asarray(zero_groups(matrix, starts, range(matrix.shape[1]))[starts], np.bool_)


@dataclass(frozen=True)
class Saved:
    """What groups of zeros save of one tensor.

    Attributes
    ----------
    weights, zero_weights : int
        All, and those in groups of zeros.
    crossbars, kept : int
        Crossbars with every group, and without those of zeros.
    """

    groups: int
    zero_groups: int
    weights: int
    zero_weights: int
    crossbars: int
    kept: int


def saved(code: NDArray[np.integer], lines: Lines, array: DeviceArray, size: Crossbar) -> Saved:
    """Count what groups of zeros save of one tensor.

    Parameters
    ----------
    code : ndarray of int
        Codes in the primary layout.
    """
    matrix = matrix_layout(code.shape, lines.axes).apply(code)
    if matrix.size == 0:
        return Saved(0, 0, 0, 0, 0, 0)
    starts = row_starts(matrix.shape[0], lines, size.rows)
    zero = zero_groups(matrix, starts, range(matrix.shape[1]))
    # A group is zero as a whole or not at all, so its first row tells.
    gone = zero[starts]
    # Device columns of each row block of each matrix, with and without groups of zeros. What is left moves
    # up, within a matrix and a row block only: two crossbars that are each half empty remain two.
    first = range(0, matrix.shape[1], lines.cols or matrix.shape[1])
    left = np.add.reduceat(~gone, first, axis=1, dtype=np.int64) * device_columns(array)
    every = np.add.reduceat(np.ones_like(gone), first, axis=1, dtype=np.int64) * device_columns(array)
    return Saved(
        groups=gone.size,
        zero_groups=int(gone.sum()),
        weights=matrix.size,
        zero_weights=int(zero.sum()),
        crossbars=int(np.sum(side_by_side(every, size))),
        kept=int(np.sum(side_by_side(left, size))),
    )

"""Groups of weights that a crossbar saves when all of them are zero.

A group is what one crossbar holds of one output: a weight column cut at the rows where crossbars end. A
group of zeros need not be programmed: its columns of devices are left out, and the other columns move up.

Reference: the stability paper, sections 4.4.1 and 6.2.1 (Kx × Ky × Ng weights of one output).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.mapping.conductance import Array
from nvaudit.mapping.crossbar import Crossbar, Lines
from nvaudit.model import Weight
from nvaudit.model.crossbar.plan import row_blocks


def weight_lines(weight: Weight) -> Lines:
    """Rows and columns of a weight's crossbars."""
    kernel = math.prod(weight.shape[2:]) if "Conv" in weight.op else 1
    return Lines(weight.channel_axes, weight.matrix.rows, weight.matrix.cols, kernel)


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
    used = np.add.reduceat(np.add.reduceat(matrix != 0, rows, axis=0, dtype=np.int64), cols, axis=1)
    down = np.diff([*rows, matrix.shape[0]])
    across = np.diff([*cols, matrix.shape[1]])
    return np.repeat(np.repeat(used == 0, down, axis=0), across, axis=1)


def row_starts(count: int, lines: Lines, rows: int) -> list[int]:
    """First rows of the groups of a tensor, all its matrices counted through.

    Parameters
    ----------
    count : int
        Rows of the tensor, of all matrices together.
    lines : Lines
    rows : int
        Of a crossbar. Where kernels fit it, it holds whole channels, as crossbars with converters do.

    Examples
    --------
    >>> row_starts(144, Lines(axes=(0,), rows=144, kernel=9), 72)
    [0, 72]
    """
    one = lines.rows or count
    kernel = lines.kernel if one % lines.kernel == 0 else 1
    starts = [block.rows[0] for block in row_blocks(one // kernel, kernel, rows)]
    return [first + start for first in range(0, count, max(one, 1)) for start in starts]


def as_matrix(array: NDArray[np.generic], lines: Lines) -> NDArray[np.generic]:
    """Bring a tensor into the form (rows, columns), all its matrices counted through."""
    order, columns = _order(array.ndim, lines)
    turned = array.transpose(order)
    rows = int(np.prod(turned.shape[: array.ndim - columns], dtype=np.int64))
    cols = int(np.prod(turned.shape[array.ndim - columns :], dtype=np.int64))
    return turned.reshape(rows, cols)


def from_matrix(matrix: NDArray[np.generic], shape: tuple[int, ...], lines: Lines) -> NDArray[np.generic]:
    """Undo :func:`as_matrix`."""
    order, _ = _order(len(shape), lines)
    turned = matrix.reshape([shape[axis] for axis in order])
    return turned.transpose(np.argsort(order)) if order else turned


def _order(ndim: int, lines: Lines) -> tuple[list[int], int]:
    """Axes with those that count the columns last, and how many these are."""
    axes = [axis % ndim for axis in lines.axes] if ndim else []
    return [axis for axis in range(ndim) if axis not in axes] + axes, len(axes)


def group_numbers(shape: tuple[int, ...], lines: Lines, rows: int) -> NDArray[np.int64]:
    """Say which group each weight belongs to.

    Parameters
    ----------
    shape : tuple of int
        Of the weights, in the primary layout.
    lines : Lines
    rows : int
        Of a crossbar.

    Returns
    -------
    ndarray, int64
        From 0, in that shape.
    """
    down, across = as_matrix(np.empty(shape, np.bool_), lines).shape
    if down * across == 0:
        return np.zeros(shape, np.int64)
    starts = row_starts(down, lines, rows)
    block = np.repeat(np.arange(len(starts)), np.diff([*starts, down]))
    number = block[:, None] * across + np.arange(across)
    return np.asarray(from_matrix(number, shape, lines), np.int64)


def unmapped(code: NDArray[np.integer], lines: Lines, rows: int) -> NDArray[np.bool_] | None:
    """Mark the weights that need no devices.

    Parameters
    ----------
    code : ndarray of int
        Codes in the primary layout.
    lines : Lines
    rows : int
        Of a crossbar.

    Returns
    -------
    ndarray of bool or None
        In the shape of ``code``; None where every group is needed.
    """
    matrix = as_matrix(code, lines)
    if matrix.size == 0:
        return None
    found = zero_groups(matrix, row_starts(matrix.shape[0], lines, rows), range(matrix.shape[1]))
    return np.asarray(from_matrix(found, code.shape, lines), np.bool_) if found.any() else None


@dataclass(frozen=True)
class Saved:
    """What groups of zeros save of one tensor.

    Attributes
    ----------
    groups, zero_groups : int
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


def saved(code: NDArray[np.integer], lines: Lines, array: Array, size: Crossbar) -> Saved:
    """Count what groups of zeros save of one tensor.

    Parameters
    ----------
    code : ndarray of int
        Codes in the primary layout.
    lines : Lines
    array : Array
        A weight column takes ``slices × polarities`` device columns.
    size : Crossbar

    Returns
    -------
    Saved
        A crossbar holds rows of one block of one matrix; the columns that are left move up.
    """
    matrix = as_matrix(code, lines)
    if matrix.size == 0:
        return Saved(0, 0, 0, 0, 0, 0)
    starts = row_starts(matrix.shape[0], lines, size.rows)
    zero = zero_groups(matrix, starts, range(matrix.shape[1]))
    gone = zero[starts]
    wide = lines.cols or matrix.shape[1]
    each = array.slices * array.polarities
    first = range(0, matrix.shape[1], wide)
    left = np.add.reduceat(~gone, first, axis=1, dtype=np.int64)
    whole = np.add.reduceat(np.ones_like(gone), first, axis=1, dtype=np.int64)
    return Saved(
        groups=gone.size,
        zero_groups=int(gone.sum()),
        weights=matrix.size,
        zero_weights=int(zero.sum()),
        crossbars=int((-(-whole * each // size.cols)).sum()),
        kept=int((-(-left * each // size.cols)).sum()),
    )

"""Where each device of a weight lies: on which crossbar, in which row, in which column; and back.

A tensor is a matrix of rows (inputs × kernel) and outputs (:func:`nvaudit.model.layout.matrix_layout`), or
several of them. Rows are cut into blocks and device columns wherever a crossbar ends, as
:mod:`nvaudit.mapping.tiling` counts them; the devices of a weight lie side by side::

    column of a matrix = output · devices + device
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nvaudit.mapping.conductance import DeviceArray, held_levels, target_conductance
from nvaudit.mapping.tiling import Crossbar, Lines, device_columns, row_starts
from nvaudit.model.layout import Layout, matrix_layout


@dataclass(frozen=True)
class Geometry:
    """How the weights of one tensor lie on crossbars.

    Attributes
    ----------
    shape : tuple of int
        Of the weights, in the primary layout.
    devices : int
        Of a weight, of both polarities.
    starts : tuple of int
        First rows of the row blocks of one matrix.
    """

    shape: tuple[int, ...]
    lines: Lines
    devices: int
    size: Crossbar
    starts: tuple[int, ...]

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        lines: Lines,
        array: DeviceArray,
        size: Crossbar,
        starts: Sequence[int] | None = None,
    ) -> Geometry:
        """Lay a tensor out.

        Parameters
        ----------
        starts : sequence of int, optional
            First rows of the row blocks of one matrix, where converters cut them otherwise.
        """
        down, _ = matrix_layout(shape, lines.axes).shape(shape)
        if starts is None:
            rows = lines.rows or down
            starts = row_starts(rows, Lines(rows=rows, kernel=lines.kernel), size.rows)
        return cls(shape, lines, device_columns(array), size, tuple(starts))

    @property
    def to_matrix(self) -> Layout:
        """From the weights to a matrix: rows and outputs of all matrices counted through."""
        return matrix_layout(self.shape, self.lines.axes)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and outputs of all matrices."""
        down, across = self.to_matrix.shape(self.shape)
        return down, across

    @property
    def row_axes(self) -> tuple[int, ...]:
        """Axes of the weight that count rows, the last one fastest."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.column_axes)

    @property
    def column_axes(self) -> tuple[int, ...]:
        """Axes of the weight that count outputs, the last one fastest."""
        return tuple(axis % len(self.shape) for axis in self.lines.axes)

    def places(self, empty: NDArray[np.bool_] | None = None) -> Iterator[CrossbarPlace]:
        """Give every crossbar, in the order of matrices, row blocks and columns.

        Parameters
        ----------
        empty : ndarray of bool, optional
            Weights without devices, as a matrix. What one crossbar holds of an output is left out where all
            of it is empty, and the other columns move up.
        """
        down, across = self.matrix_shape
        if not down * across:
            return
        high, wide = self.lines.rows or down, self.lines.cols or across
        for top in range(0, down, high):
            for left in range(0, across, wide):
                for start, stop in pairwise((*self.starts, high)):
                    rows = (top + start, top + stop)
                    outputs = np.arange(left, left + wide)
                    if empty is not None:
                        outputs = outputs[~empty[rows[0] : rows[1], left : left + wide].all(axis=0)]
                    columns = len(outputs) * self.devices
                    for first in range(0, columns, self.size.cols):
                        column = np.arange(first, min(first + self.size.cols, columns))
                        yield CrossbarPlace(rows, outputs[column // self.devices], column % self.devices)


@dataclass(frozen=True)
class CrossbarPlace:
    """What lies on one crossbar.

    Attributes
    ----------
    rows : tuple of int
        Its first row and the one after the last, counted through all matrices of the tensor.
    outputs : ndarray of int
        Of each device column in use, counted through.
    devices : ndarray of int
        Which device of a weight each column holds.
    """

    rows: tuple[int, int]
    outputs: NDArray[np.intp]
    devices: NDArray[np.intp]

    @property
    def used(self) -> tuple[slice, slice]:
        """The rows and columns of the crossbar that are in use: it is filled from its first ones."""
        return slice(0, self.rows[1] - self.rows[0]), slice(0, len(self.outputs))

    @property
    def _index(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        rows = np.arange(*self.rows)
        return self.devices[None, :], rows[:, None], self.outputs[None, :]

    @property
    def starts(self) -> NDArray[np.intp]:
        """The first column of each output: several columns are devices of one."""
        return np.flatnonzero(np.r_[True, np.diff(self.outputs) > 0])

    def put(self, values: NDArray[np.generic], into: NDArray[np.generic]) -> None:
        """Write what this crossbar holds into an array of the tensor, shape (device, row, output)."""
        into[self._index] = values[self.used]

    def take(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Give what this crossbar holds of an array of the tensor, shape (device, row, output)."""
        return np.asarray(values[self._index])


@dataclass(frozen=True)
class TargetArrays:
    """What one crossbar is to hold; all of the crossbar's own size, zero where there is no device.

    Attributes
    ----------
    level : ndarray of unsigned int
    conductance : ndarray, float32
        In the profile's unit.
    sign : ndarray, int8
        The line that the device stands on: +1 adds its current to the column's sum, −1 subtracts it.
    used : ndarray of bool
    """

    level: NDArray[np.unsignedinteger]
    conductance: NDArray[np.float32]
    sign: NDArray[np.int8]
    used: NDArray[np.bool_]


def target_arrays(
    matrix: NDArray[np.int16],
    place: CrossbarPlace,
    array: DeviceArray,
    size: Crossbar,
    empty: NDArray[np.bool_] | None = None,
) -> TargetArrays:
    """Say what every device of one crossbar is to hold.

    Parameters
    ----------
    matrix : ndarray, int16, shape (row, output)
        Codes of the tensor.
    empty : ndarray of bool, optional
        Weights without devices, as a matrix.
    """
    # The columns of a crossbar are those of some outputs, but that the first and the last output may have
    # other devices on the crossbars beside it.
    outputs = place.outputs[place.starts]
    code = matrix[place.rows[0] : place.rows[1]][:, outputs]
    first, count = int(place.devices[0]), len(place.devices)

    def columns(parts: list[NDArray[np.generic]]) -> NDArray[np.generic]:
        side_by_side = np.stack(parts, axis=-1).reshape(code.shape[0], -1)
        return np.asarray(side_by_side[:, first : first + count])

    held = list(held_levels(code, array))
    kind = np.uint8 if array.top_level < 256 else np.uint16
    level, sign = np.zeros((size.rows, size.cols), kind), np.zeros((size.rows, size.cols), np.int8)
    used = np.zeros(level.shape, np.bool_)
    level[place.used] = columns([one.level for one in held])
    sign[place.used] = columns([np.broadcast_to(np.asarray(one.sign, np.int8), code.shape) for one in held])
    used[place.used] = True
    if empty is not None:
        used[place.used] = ~empty[place.rows[0] : place.rows[1]][:, place.outputs]
    conductance = np.where(used, target_conductance(level, array), 0.0).astype(np.float32)
    return TargetArrays(
        np.where(used, level, 0).astype(kind), conductance, np.where(used, sign, 0).astype(np.int8), used
    )


def arrays_digest(target: TargetArrays, verify: NDArray[np.bool_] | None = None) -> str:
    """SHA-256 over the bytes of level, conductance, sign, mask, ``verify``, little-endian, in this order."""
    digest = hashlib.sha256()
    for array in (*vars(target).values(), *(() if verify is None else (verify,))):
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()

"""Labels of different lengths, such as boxes of images: one array whose rows are filled up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nvaudit.arrays import Array
from nvaudit.data.spec import LabelPlaces
from nvaudit.errors import DataError

NOTHING = int(np.iinfo(np.int64).min)
"""Fills up rows of whole numbers; rows of others are filled up with NaN, which no label is."""

BOX_COLUMNS = ("x1", "y1", "x2", "y2", "class", "crowd")
"""Of a box as a label: corners in pixels, x to the right, y down; a crowd (1) is neither found nor missed."""


def pad_rows(rows: Sequence[Any], places: LabelPlaces, width: tuple[int, ...] = ()) -> Array:
    """Put rows of different lengths into one array.

    Parameters
    ----------
    rows : sequence of array_like
        Of each sample: numbers, shape (own length, *rest).
    width : tuple of int
        The rest where no row has any entry.

    Returns
    -------
    ndarray, int64 or float64, shape (sample, longest, *rest)
        Whole numbers where all are.

    Raises
    ------
    DataError
        If rows are no finite numbers, or have different rests.
    """
    arrays = [_row(row, f"{places}: {places.of(number)}") for number, row in enumerate(rows)]
    filled = [array for array in arrays if array.size]
    whole = all(array.dtype.kind in "iub" for array in filled)
    rest = filled[0].shape[1:] if filled else width
    for number, array in enumerate(arrays):
        if array.size and array.shape[1:] != rest:
            raise DataError(
                f"{places}: {places.of(number)}: its labels have shape {list(array.shape)}, others [any, "
                f"{', '.join(map(str, rest))}]; give all of them alike"
            )
    longest = max((len(array) for array in filled), default=0)
    out = np.full(
        (len(arrays), max(longest, 1), *rest),
        NOTHING if whole and filled else np.nan,
        np.int64 if whole and filled else np.float64,
    )
    for number, array in enumerate(arrays):
        if array.size:
            out[number, : len(array)] = array
    return out


def _row(row: Any, where: str) -> Array:
    try:
        array = np.asarray(row)
    except ValueError:
        array = np.asarray(None)
    if array.size and (array.dtype.kind not in "iufb" or array.ndim == 0):
        raise DataError(f"{where}: {str(row)[:80]!r} is no list of numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where}: holds NaN or infinite values; clean the data")
    return array


def cut_rows(values: Array, lengths: Array, where: str) -> Array:
    """Fill up rows of which the lengths are given, whatever lies beyond them.

    Raises
    ------
    DataError
        If the lengths are none of these rows.
    """
    if lengths.shape != values.shape[:1] or lengths.dtype.kind not in "iu" or values.ndim < 2:
        raise DataError(
            f"{where}: y_lengths {lengths.dtype} {list(lengths.shape)} does not give the length of each row "
            f"of y {list(values.shape)}; store one whole number for each sample"
        )
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= values.shape[1]:
        raise DataError(f"{where}: y_lengths: the rows of y have room for 0 to {values.shape[1]} entries")
    return pad_rows(
        [row[:length] for row, length in zip(values, lengths, strict=True)],
        LabelPlaces(where),
        values.shape[2:],
    )


def rows_of(labels: Array) -> list[Array]:
    """Give back the rows without what fills them up."""
    empty = np.isnan(labels) if labels.dtype.kind == "f" else labels == NOTHING
    counts = (~empty.reshape(*empty.shape[:2], -1).all(axis=2)).sum(axis=1)
    return [np.asarray(row[:count]) for row, count in zip(labels, counts, strict=True)]


def as_boxes(labels: Array, places: LabelPlaces) -> Array:
    """Check boxes, and add the column that tells crowds where it is not there.

    Parameters
    ----------
    labels : ndarray, shape (sample, box, 5 or 6)
        See :data:`BOX_COLUMNS`; filled up.

    Returns
    -------
    ndarray, float64, shape (sample, box, 6)

    Raises
    ------
    DataError
        Naming the first box that is none.
    """
    if labels.ndim != 3 or labels.shape[2] not in (5, 6):
        raise DataError(
            f"{places}: labels of shape {list(labels.shape)} are no boxes; a box is x1, y1, x2, y2, class, "
            "and 1 behind it where it is a crowd"
        )
    boxes = np.full((*labels.shape[:2], 6), np.nan)
    boxes[..., : labels.shape[2]] = np.where(labels == NOTHING, np.nan, labels)
    there = ~np.isnan(boxes[..., :5]).all(axis=2)
    if labels.shape[2] == 5:
        boxes[..., 5] = np.where(there, 0.0, np.nan)
    with np.errstate(invalid="ignore"):
        x1, y1, x2, y2, kind, crowd = np.moveaxis(boxes, 2, 0)
        wrong = (x2 <= x1) | (y2 <= y1) | (kind < 0) | (kind != np.rint(kind)) | ~np.isin(crowd, (0, 1))
    wrong |= np.isnan(boxes).any(axis=2)
    if (wrong & there).any():
        sample, box = (int(i) for i in np.argwhere(wrong & there)[0])
        raise DataError(
            f"{places}: {places.of(sample)}, box {box}: {boxes[sample, box, :5].tolist()} is no box; wanted "
            "x1 < x2, y1 < y2 in pixels and the number of its class, from 0"
        )
    return boxes

"""Checks of data against the model: element types, shapes, counts, finite values, labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nvaudit.arrays import Array
from nvaudit.data.spec import InputSpec, fixed, is_float, is_integer, shape_text
from nvaudit.data.store import row_slices
from nvaudit.errors import DataError

Shape = tuple[int, ...]


def sample_count(
    arrays: dict[str, Array],
    specs: Sequence[InputSpec],
    labels: Array | None,
    where: str,
    labels_from: str = "labels y",
) -> int:
    """Count the samples, on which all batched inputs and the labels must agree; 1 if no input is batched.

    Raises
    ------
    DataError
        If they disagree, there are none, or an array has no batch axis.
    """
    counts: dict[str, int] = {}
    for spec in specs:
        if spec.batch_axis is None:
            continue
        shape = arrays[spec.name].shape
        if len(shape) <= spec.batch_axis:
            raise DataError(_mismatch(shape, spec, where))
        counts[f"input {spec.name!r}"] = int(shape[spec.batch_axis])
    if labels is not None:
        if labels.ndim == 0:
            raise DataError(f"{where}: {labels_from}: a single value; give one label per sample")
        counts[labels_from] = int(labels.shape[0])
    if not counts:
        return 1
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{where}: the arrays disagree on the number of samples: {listed}")
    count = next(iter(counts.values()))
    if count == 0:
        raise DataError(f"{where}: no samples: {next(iter(counts))} is empty")
    return count


def fit_shape(shape: Shape, spec: InputSpec, where: str, *, flatten: bool = False) -> Shape:
    """Shape with which an array feeds an input.

    Dimensions of size 1 are added or removed as the model wants; anything else must fit as it is.

    Parameters
    ----------
    flatten : bool
        Also accept any shape with as many elements per sample (grey images for a dense layer).

    Returns
    -------
    tuple of int
        `shape`, or the shape to which the array is to be reshaped.

    Raises
    ------
    DataError
        If the shapes do not fit; the message names a transpose or reshape that would.
    """
    if spec.shape is None or _fits(shape, spec.shape, spec.batch_axis):
        return shape
    head, wanted = _split(shape, spec)
    if wanted is not None:
        padded = _with_ones(shape[len(head) :], wanted)
        if padded is not None:
            return (*head, *padded)
        if flatten and _same_size(shape[len(head) :], wanted):
            return (*head, *(int(size) for size in wanted if isinstance(size, int)))
    raise DataError(_mismatch(shape, spec, where))


def _split(shape: Shape, spec: InputSpec) -> tuple[Shape, tuple[int | str | None, ...] | None]:
    """Split off the batch size, and the wanted shape of a sample; None when the batch is elsewhere."""
    if spec.shape is None or spec.batch_axis not in (None, 0):
        return (), None
    return (shape[:1], spec.shape[1:]) if spec.batch_axis == 0 else ((), spec.shape)


def _fits(shape: Shape, wanted: Sequence[int | str | None], batch_axis: int | None) -> bool:
    return len(shape) == len(wanted) and all(
        axis == batch_axis or not fixed(want) or want == got
        for axis, (got, want) in enumerate(zip(shape, wanted, strict=True))
    )


def _with_ones(shape: Shape, wanted: Sequence[int | str | None]) -> Shape | None:
    """`shape` with dimensions of size 1 moved to where `wanted` has them, if that is all that differs."""
    # Sizes other than 1 keep their order, so no value moves: [28, 28] and [1, 28, 28] are the same numbers,
    # a transpose is not.
    rest = [size for size in shape if size != 1]
    if not _fits(tuple(rest), [size for size in wanted if size != 1], None):
        return None
    sizes = iter(rest)
    return tuple(1 if size == 1 else next(sizes) for size in wanted)


def _same_size(shape: Shape, wanted: Sequence[int | str | None]) -> bool:
    numbers = [size for size in wanted if isinstance(size, int) and fixed(size)]
    return len(numbers) == len(wanted) and math.prod(numbers) == math.prod(shape)


def _mismatch(shape: Shape, spec: InputSpec, where: str) -> str:
    text = (
        f"{where}: input {spec.name!r}: the data have shape {list(shape)} "
        f"and the model takes {shape_text(spec)}"
    )
    size = None if spec.shape is None or len(spec.shape) != 1 else spec.shape[0]
    if isinstance(size, int) and len(shape) > 1 and math.prod(shape[1:]) == size:
        return (
            f"{where}: input {spec.name!r}: the model takes one sample of shape [{size}], without a batch "
            f"axis, and the data have shape {list(shape)}; export it with one, [N, {size}] (for "
            "torch.onnx.export: a 2-D example input and its axis 0 dynamic)"
        )
    if spec.shape is None:
        return f"{text}; there is no batch axis {spec.batch_axis}"
    for perm, move in (((0, 3, 1, 2), "NHWC to NCHW"), ((0, 2, 3, 1), "NCHW to NHWC")):
        if len(shape) == 4 and _fits(tuple(shape[axis] for axis in perm), spec.shape, spec.batch_axis):
            return f"{text}; a transpose would fit: store x.transpose{perm} ({move})"
    head, wanted = _split(shape, spec)
    if head and wanted is not None and _same_size(shape[1:], wanted):
        sizes = ", ".join(map(str, wanted))
        return f"{text}; a sample has as many elements: store x.reshape(len(x), {sizes})"
    return text


def check_finite(array: Array, axis: int | None, name: str, where: str) -> None:
    """Refuse NaN and infinite values.

    Raises
    ------
    DataError
        With their number and the place of the first one.
    """
    if not is_float(array.dtype):
        return
    rows = np.moveaxis(array, axis or 0, 0) if array.ndim else array.reshape(1)
    bad, first = 0, None
    for part in row_slices(rows):
        wrong = ~np.isfinite(rows[part])
        wrong_here = int(np.count_nonzero(wrong))
        if wrong_here and first is None:
            place = [int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape)]
            place[0] += part.start
            place.insert(axis or 0, place.pop(0))
            first = place if array.ndim else []
        bad += wrong_here
    if bad:
        raise DataError(
            f"{where}: {name}: {bad} of {array.size} values are NaN or infinite as {array.dtype.name}, "
            f"the first at {first}; clean the data"
        )


def check_castable(array: Array, dtype: np.dtype[Any], spec: InputSpec, where: str) -> None:
    """Refuse a conversion that would change values: floats to integers, numbers out of range, text.

    Raises
    ------
    DataError
        If the stored type cannot feed the input.
    """
    source = array.dtype
    head = f"{where}: input {spec.name!r}"
    if source == dtype or is_float(dtype):
        return
    # A constant (a sampling rate, say) is often stored as a float that holds a whole number; samples are not.
    whole_constant = spec.batch_axis is None and bool(
        np.isfinite(array).all() and (array == np.rint(array)).all()
    )
    if is_float(source) and not whole_constant:
        raise DataError(f"{head} takes {dtype.name} and the data are {source.name}; store {dtype.name}")
    low, high = _range(dtype)
    for part in row_slices(array.reshape(-1) if array.ndim == 0 else array):
        block = array.reshape(-1)[part] if array.ndim == 0 else array[part]
        if block.size and (block.min() < low or block.max() > high):
            raise DataError(
                f"{head} takes {dtype.name} ({low} to {high}) and the data hold "
                f"{block.min()} to {block.max()}; store values in range"
            )


def _range(dtype: np.dtype[Any]) -> tuple[int, int]:
    if not is_integer(dtype):
        return 0, 1
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    # 4-bit integers and the like are not NumPy's own, and its `iinfo` does not know them: their bits stand
    # in the name.
    bits = int("".join(letter for letter in dtype.name if letter.isdigit()))
    return (0, 2**bits - 1) if dtype.name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

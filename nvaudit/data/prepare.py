"""From stored arrays to arrays that can be fed: layout, preprocessing, element type, in one streamed pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nvaudit.arrays import Array
from nvaudit.data.checks import check_castable, check_finite, fit_shape
from nvaudit.data.preprocess import (
    ImageLayout,
    Preprocess,
    find_preprocess,
    guess_layout,
    needed_message,
    normalise,
    read_preprocess,
)
from nvaudit.data.spec import InputSpec, Raw, fixed, is_float, is_integer, numpy_dtype
from nvaudit.data.store import ScratchStore, row_slices, sealed
from nvaudit.errors import DataError

_TO_NCHW = (0, 3, 1, 2)
_TO_NHWC = (0, 2, 3, 1)


@dataclass(frozen=True)
class _Conversion:
    """How a block of stored samples becomes a block of the input."""

    perm: tuple[int, ...] | None = None
    channel_axis: int | None = None
    flip: bool = False
    preprocess: Preprocess | None = None

    def apply(self, block: Array) -> Array:
        # In this order: mean and std are stated for the channels as the model takes them, so that channels
        # are where they belong, and turned round, before they are scaled.
        if self.perm is not None:
            block = block.transpose(self.perm)
        if self.flip and self.channel_axis is not None:
            block = np.flip(block, self.channel_axis)
        if self.preprocess is not None:
            block = normalise(block, self.preprocess, self.channel_axis)
        return block


def prepare_input(
    array: Array, spec: InputSpec, raw: Raw, store: ScratchStore
) -> tuple[Array, tuple[str, ...]]:
    """Make one stored array ready to be fed.

    An array that already has the right type, order and shape is returned as it is mapped; any other is
    converted block by block into the scratch folder.

    Parameters
    ----------
    array : ndarray
        Stored samples, already cut to the number wanted.
    raw : Raw
        Its source: path, and where the preprocessing is stated.

    Returns
    -------
    array : ndarray, read-only
        With the type and shape of the input.
    notes : tuple of str
        What was done to it.

    Raises
    ------
    DataError
        If the array does not fit the input.
    """
    dtype, where = numpy_dtype(spec), raw.source
    if array.size == 0 and not _may_be_empty(array, spec):
        raise DataError(f"{where}: input {spec.name!r}: shape {list(array.shape)} holds no values")
    conversion, preprocess = _Conversion(), raw.preprocess
    notes: list[str] = []
    # Integers for an input of floats may be 0 … 255 where the model wants 0 … 1, and nothing in them tells:
    # the preprocessing has to be stated, were it only a scale of 1.
    if spec.batch_axis is not None and is_float(dtype) and is_integer(array.dtype):
        preprocess = preprocess or _required(array, spec, raw)
    elif preprocess is None and is_float(dtype):
        notes += _not_applied(raw)
    if preprocess is not None:
        conversion = _conversion(array.shape, spec, preprocess, raw.stored, where)
        # An input of integers takes pixels as they are stored: moved to its layout, not scaled.
        if not is_float(dtype):
            conversion = replace(conversion, preprocess=None)
        notes += _describe(spec, conversion)
    check_castable(array, dtype, spec, where)
    moved = array.shape if conversion.perm is None else tuple(array.shape[axis] for axis in conversion.perm)
    # Grey pixels for a dense layer can be laid in a row in one way only; with colours it would be a guess
    # whether all of one channel come first.
    axis = conversion.channel_axis
    grey = preprocess is not None and (len(moved) == 3 if axis is None else moved[axis] == 1)
    shape = fit_shape(moved, spec, where, flatten=grey)
    if shape != moved:
        notes.append(f"input {spec.name!r}: shape {list(moved)} read as {list(shape)}")
    if array.dtype.name != dtype.name and conversion.preprocess is None:
        notes.append(f"input {spec.name!r}: {array.dtype.name} converted to {dtype.name}")
    if array.dtype == dtype and array.flags.c_contiguous and conversion == _Conversion():
        ready = array.reshape(shape)
    else:
        ready = _convert(array, spec, shape, conversion, store)
    check_finite(ready, spec.batch_axis, f"input {spec.name!r}", where)
    view = ready.view()
    view.flags.writeable = False
    return view, tuple(notes)


def _may_be_empty(array: Array, spec: InputSpec) -> bool:
    """Whether an array without values is what the model takes: a cache of length 0, say, before any token."""
    if spec.shape is None or len(spec.shape) != array.ndim:
        return spec.shape is None
    empty = [axis for axis, size in enumerate(array.shape) if size == 0]
    return all(axis != spec.batch_axis and not fixed(spec.shape[axis]) for axis in empty)


def _required(array: Array, spec: InputSpec, raw: Raw) -> Preprocess:
    preprocess = find_preprocess(raw.preprocess_paths)
    if preprocess is None:
        if not raw.preprocess_paths:
            raise DataError(
                f"{raw.source}: input {spec.name!r} takes {spec.dtype} and the data are {array.dtype.name}; "
                f"store {spec.dtype}"
            )
        path = raw.preprocess_paths[0]
        raise DataError(needed_message(raw.source, spec.name, array.dtype.name, spec.dtype, path))
    return preprocess


def _not_applied(raw: Raw) -> list[str]:
    """Note a preprocessing file that floating-point data do not need; any other JSON is none of ours."""
    for path in raw.preprocess_paths:
        try:
            if path.is_file() and read_preprocess(path):
                return [f"{path.name} is not applied: the data are not integers"]
        except DataError:
            continue
    return []


def _conversion(
    shape: tuple[int, ...], spec: InputSpec, preprocess: Preprocess, stored: ImageLayout | None, where: str
) -> _Conversion:
    numbers = max(len(preprocess.mean), len(preprocess.std))
    if len(shape) != 4:
        _check_channels(preprocess, 1, where)
        return _Conversion(preprocess=preprocess)
    # Each side tells the other where it does not tell itself: what is stored may have the shape that the
    # model wants, and a model of free sizes takes what is stored.
    stored = stored or guess_layout(shape)
    wanted = preprocess.layout or guess_layout(spec.shape or ()) or stored
    stored = stored or wanted
    if wanted is None:
        if numbers > 1 or preprocess.color == "BGR":
            raise DataError(
                f"{where}: input {spec.name!r}: shape {list(shape)} does not tell the channels; "
                'state "layout" in the preprocessing file'
            )
        return _Conversion(preprocess=preprocess)
    axis = 1 if stored == "NCHW" else 3
    if preprocess.size is not None and preprocess.size != tuple(
        s for i, s in enumerate(shape) if i not in (0, axis)
    ):
        raise DataError(
            f"{where}: input {spec.name!r}: size {list(preprocess.size)} is stated and the images are "
            f"{list(shape)}; arrays are not resized"
        )
    _check_channels(preprocess, shape[axis], where)
    perm = None
    if stored != wanted:
        perm = _TO_NCHW if wanted == "NCHW" else _TO_NHWC
    return _Conversion(perm, 1 if wanted == "NCHW" else 3, preprocess.color == "BGR", preprocess)


def _check_channels(preprocess: Preprocess, channels: int, where: str) -> None:
    for name, numbers in (("mean", preprocess.mean), ("std", preprocess.std)):
        if len(numbers) not in (1, channels):
            raise DataError(
                f"{where}: {name} has {len(numbers)} numbers and the images have {channels} channels; "
                f"state 1 or {channels}"
            )
    wanted = {"RGB": 3, "BGR": 3, "L": 1, None: channels}[preprocess.color]
    if channels != wanted:
        raise DataError(
            f"{where}: color {preprocess.color!r} is stated and the images have {channels} channels"
        )


def _describe(spec: InputSpec, conversion: _Conversion) -> list[str]:
    words = []
    if conversion.perm is not None:
        words.append("NHWC moved to NCHW" if conversion.perm == _TO_NCHW else "NCHW moved to NHWC")
    if conversion.flip:
        words.append("RGB turned to BGR")
    if conversion.preprocess is not None:
        p = conversion.preprocess
        words.append(f"(value / {p.scale:g} − {_numbers(p.mean)}) / {_numbers(p.std)}")
    return [f"input {spec.name!r}: {', '.join(words)}"] if words else []


def _numbers(values: tuple[float, ...]) -> str:
    listed = ", ".join(f"{value:g}" for value in values)
    return listed if len(values) == 1 else f"[{listed}]"


def _convert(
    array: Array, spec: InputSpec, shape: tuple[int, ...], conversion: _Conversion, store: ScratchStore
) -> Array:
    dtype = numpy_dtype(spec)
    if array.size == 0:
        return np.empty(shape, dtype)
    if spec.batch_axis is None:
        return np.ascontiguousarray(array).reshape(shape).astype(dtype)
    out = store.create(dtype, shape)
    source, target = np.moveaxis(array, spec.batch_axis, 0), np.moveaxis(out, spec.batch_axis, 0)
    # A number too large for float16 becomes infinite here; the check for finite values names it.
    with np.errstate(over="ignore", invalid="ignore"):
        for part in row_slices(source):
            block = conversion.apply(source[part])
            target[part] = block.reshape(target[part].shape).astype(dtype)
    return sealed(out)

"""Seeded synthetic inputs, for a label-free audit when there is no data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nvaudit.arrays import Array
from nvaudit.data.preprocess import guess_layout
from nvaudit.data.spec import InputSpec, fixed, is_float, numpy_dtype
from nvaudit.data.store import ScratchStore, row_slices, sealed
from nvaudit.errors import DataError
from nvaudit.rng import stream

SAMPLES = 256
DEFAULT_SIZE = 64
_RATE_NAMES = frozenset({"sr", "sampling_rate", "sample_rate"})
_RATE_HZ = 16000
# 36 ms at 16 kHz: long enough for speech models that look at one 32 ms frame with its context.
_AUDIO_FRAME = 576
_COLOURS = 3
_MOST_SAMPLE_BYTES = 1 << 30


def make_synthetic(
    specs: tuple[InputSpec, ...], count: int, seed: int, store: ScratchStore
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Draw inputs: standard normal for floats, 0 or 1 for integers and booleans.

    Parameters
    ----------
    seed : int
        The run's seed; the first n of more samples are the same.

    Returns
    -------
    inputs : dict of str to ndarray
        One array per input.
    notes : tuple of str
        Every value that had to be chosen.

    Raises
    ------
    DataError
        If an input has an unknown rank or holds text.
    """
    audio = any(_is_rate(spec) for spec in specs)
    notes: list[str] = [f"no data given: {count} seeded synthetic samples, no labels"]
    inputs: dict[str, Array] = {}
    chosen: dict[str, int] = {}
    for spec in specs:
        shape = _shape(spec, count, audio, chosen, notes)
        dtype = numpy_dtype(spec)
        _check_size(spec, shape, dtype)
        if spec.batch_axis is None:
            inputs[spec.name] = _constant(spec, shape, dtype, seed, notes)
        else:
            inputs[spec.name] = _samples(spec.name, spec.batch_axis, shape, dtype, seed, store)
    return inputs, tuple(dict.fromkeys(notes))


def _check_size(spec: InputSpec, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse to make up a sample that a forward pass could hardly hold."""
    one = [size for axis, size in enumerate(shape) if axis != spec.batch_axis]
    need = math.prod(one) * dtype.itemsize
    if need > _MOST_SAMPLE_BYTES:
        raise DataError(
            f"input {spec.name!r}: one sample of shape {str(one)[:60]} takes {need:.4g} bytes, and samples "
            f"of at most {_MOST_SAMPLE_BYTES >> 30} GiB are made up; give data (--data), or export the model "
            "with a smaller input"
        )


def _is_rate(spec: InputSpec) -> bool:
    return spec.batch_axis is None and spec.name.lower() in _RATE_NAMES


def _shape(
    spec: InputSpec, count: int, audio: bool, chosen: dict[str, int], notes: list[str]
) -> tuple[int, ...]:
    if spec.shape is None:
        raise DataError(
            f"input {spec.name!r}: the model does not state its shape, so no synthetic data can be made; "
            "give data (--data)"
        )
    sizes = []
    for axis, dimension in enumerate(spec.shape):
        if axis == spec.batch_axis:
            sizes.append(count)
        elif isinstance(dimension, int) and fixed(dimension):
            sizes.append(dimension)
        else:
            name = dimension if isinstance(dimension, str) else f"{spec.name}, axis {axis}"
            size = chosen.setdefault(name, _guess_size(spec.shape, axis, audio))
            notes.append(f"dimension {name!r} set to {size}")
            sizes.append(size)
    return tuple(sizes)


def _guess_size(shape: tuple[int | str | None, ...], axis: int, audio: bool) -> int:
    """Size for a dynamic dimension: by its name, else by its place in an image, else 64."""
    name = str(shape[axis]).lower()
    if "channel" in name or name == "c":
        return _COLOURS
    if audio and any(word in name for word in ("seq", "sample", "time", "length", "frame")):
        return _AUDIO_FRAME
    if len(shape) == 4 and axis == 1 and guess_layout(shape) != "NHWC":
        return _COLOURS
    return DEFAULT_SIZE


def _constant(
    spec: InputSpec, shape: tuple[int, ...], dtype: np.dtype[Any], seed: int, notes: list[str]
) -> Array:
    if _is_rate(spec):
        value: Array = np.full(shape, _RATE_HZ, dtype)
        notes.append(f"input {spec.name!r} set to {_RATE_HZ} (sampling rate in Hz)")
    elif is_float(dtype) and shape:
        value = stream(seed, "synthetic", spec.name).standard_normal(shape, np.float32).astype(dtype)
    else:
        value = np.full(shape, 1, dtype)
        notes.append(f"input {spec.name!r} set to 1")
    value.flags.writeable = False
    return value


def _samples(
    name: str, axis: int, shape: tuple[int, ...], dtype: np.dtype[Any], seed: int, store: ScratchStore
) -> Array:
    need, free = math.prod(shape) * dtype.itemsize, store.free_bytes()
    if need > free:
        raise DataError(
            f"input {name!r}: synthetic samples of shape {list(shape)} take {need} bytes and the scratch "
            f"disk has {free} free; give data (--data), fewer samples (--limit), or a smaller model input"
        )
    generator = stream(seed, "synthetic", name)
    out = store.create(dtype, shape)
    # Drawn sample by sample in order, so that a smaller set is the head of a larger one.
    rows = np.moveaxis(out, axis, 0)
    for part in row_slices(rows):
        size = rows[part].shape
        if is_float(dtype):
            rows[part] = generator.standard_normal(size, np.float32).astype(dtype)
        else:
            rows[part] = (generator.random(size, np.float32) < 0.5).astype(dtype)
    return sealed(out)

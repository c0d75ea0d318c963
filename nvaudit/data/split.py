"""Samples set aside, so that what is calibrated on them is scored on others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Array
from nvaudit.data.spec import Dataset
from nvaudit.errors import DataError
from nvaudit.files import writing
from nvaudit.rng import stream

_IN_MEMORY = 1 << 26
"""Bytes up to which what is left is kept in memory; beyond, it is written to disk, block by block."""

_BLOCK = 1 << 24


def set_aside(dataset: Dataset, count: int, seed: int, scratch: Path) -> tuple[Dataset, Dataset]:
    """Take samples out of a set at random.

    Parameters
    ----------
    count : int
        How many are set aside.
    scratch : Path
        For what is left of large arrays; it must outlive the dataset.

    Returns
    -------
    tuple of Dataset
        What is left, in its own order, and what was set aside, without labels. Both carry the digest of the
        whole: seed and count say which samples are whose.

    Raises
    ------
    DataError
        If nothing would be left.
    """
    if count >= dataset.count:
        raise DataError(
            f"{dataset.source}: has {dataset.count} samples, of which {count} are to calibrate chips and "
            "none is left to be scored; give fewer, or other samples with --calibrate-data"
        )
    # Sorted: what is drawn is the set; in order, a mapped file is read from front to back.
    chosen = np.sort(stream(seed, "calibration samples").choice(dataset.count, count, replace=False))
    left = np.setdiff1d(np.arange(dataset.count), chosen)
    labels = None if dataset.labels is None else np.ascontiguousarray(dataset.labels[left])
    rest = {name: _taken(dataset, name, left, scratch) for name in dataset.inputs}
    places = None if dataset.places is None else dataset.places.take(left)
    scored = replace(dataset, inputs=rest, labels=labels, places=places, count=len(left), parts=())
    return scored, first_of(dataset, chosen)


def unseen(dataset: Dataset, scored: Dataset) -> NDArray[np.intp]:
    """Places of the samples of a set that are not among those of another, whatever the files' names."""
    # By content, not by place or file name: a calibration file may hold the scored samples under another
    # name.
    there = set(_digests(scored))
    return np.flatnonzero([digest not in there for digest in _digests(dataset)])


def _digests(dataset: Dataset) -> Iterator[bytes]:
    """Of each sample, over all inputs that have an axis for samples."""
    arrays = [
        (array, axis)
        for name, array in sorted(dataset.inputs.items())
        if (axis := dataset.batch_axes.get(name)) is not None
    ]
    for i in range(dataset.count):
        digest = hashlib.sha256()
        for array, axis in arrays:
            digest.update(np.ascontiguousarray(np.take(array, i, axis=axis)).tobytes())
        yield digest.digest()


def first_of(dataset: Dataset, chosen: NDArray[np.intp]) -> Dataset:
    """Some samples of a set, in memory, without labels."""
    inputs = {
        name: np.ascontiguousarray(np.take(array, chosen, axis=dataset.batch_axes[name]))
        if name in dataset.batch_axes
        else array
        for name, array in dataset.inputs.items()
    }
    return replace(dataset, inputs=inputs, labels=None, label_kind="none", count=len(chosen), parts=())


def _taken(dataset: Dataset, name: str, left: NDArray[np.intp], scratch: Path) -> Array:
    array, axis = dataset.inputs[name], dataset.batch_axes.get(name)
    if axis is None:
        return array
    shape = (*array.shape[:axis], len(left), *array.shape[axis + 1 :])
    if array.nbytes <= _IN_MEMORY:
        return np.ascontiguousarray(np.take(array, left, axis=axis))
    path = scratch / f"scored-{list(dataset.inputs).index(name)}.npy"
    step = max(1, _BLOCK * len(left) // max(array.nbytes, 1))
    with writing(path):
        file = np.lib.format.open_memmap(path, mode="w+", dtype=array.dtype, shape=shape)
        for start in range(0, len(left), step):
            part = (slice(None),) * axis + (slice(start, start + step),)
            file[part] = np.take(array, left[start : start + step], axis=axis)
        file.flush()
    return np.asanyarray(np.load(path, mmap_mode="r"))

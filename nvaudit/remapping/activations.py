"""What activations are like on calibration images: sizes, and moments of every channel."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.data import Dataset
from nvaudit.errors import NvauditError
from nvaudit.model import LoadedModel, analyse_batch
from nvaudit.model.rescale.plan import Layer
from nvaudit.model.watch import watched
from nvaudit.perturb.prepare import original_batch
from nvaudit.perturb.session import open_session, run_session

Floats = NDArray[np.float64]
Sizes = tuple[int | None, ...]

_ELEMENTS = 1 << 24
"""Numbers that activations of one batch may hold together."""


@dataclass(frozen=True)
class Moments:
    """Of one channel axis of an activation, over samples and positions.

    Attributes
    ----------
    mean, square, variance : ndarray, float64, shape (channel,)
        E[x], E[x²] and E[x²] − E[x]².
    """

    mean: Floats
    square: Floats

    @property
    def variance(self) -> Floats:
        """Power that depends on the input."""
        return np.maximum(self.square - self.mean**2, 0)


class Watcher:
    """Runs a model and looks at what is between its operators."""

    def __init__(self, loaded: LoadedModel, dataset: Dataset, provider: str = "cpu") -> None:
        self.loaded, self.dataset, self.provider = loaded, dataset, provider
        self.rebatch = analyse_batch(loaded.model)
        self.free = self.rebatch.status == "rebatched"
        self.fixed = None if self.free else original_batch(loaded, self.rebatch)
        self.fixed = self.fixed or dataset.together or None
        self._open: tuple[tuple[str, ...] | None, Any, list[str]] | None = None

    def sizes(self) -> dict[str, Sizes]:
        """Sizes of every activation; None where they depend on the number of samples."""
        try:
            runs = [self._run(None, 0, count) for count in ((self.fixed,) if self.fixed else (2, 3))]
        except NvauditError:  # an activation that cannot be returned: sizes are a help only
            return {}
        first = {name: array.shape for name, array in runs[0].items()}
        if len(runs) == 1:
            return dict(first)
        second = {name: array.shape for name, array in runs[1].items()}
        return {
            name: tuple(a if a == b else None for a, b in zip(shape, second[name], strict=True))
            for name, shape in first.items()
            if len(shape) == len(second.get(name, ()))
        }

    def moments(self, axes: Collection[tuple[str, int]], images: int) -> dict[tuple[str, int], Moments]:
        """Moments of activations.

        Parameters
        ----------
        axes : collection of (str, int)
            Names, and channel axes counted from the end.
        images : int
            Samples that are looked at, at most.

        Returns
        -------
        dict of (str, int) to Moments
            Those that could be watched.
        """
        names = {name for name, _ in axes}
        sums: dict[tuple[str, int], list[Any]] = {}
        count = min(images, self.dataset.count) if names else 0
        start, size = 0, self.fixed or 1
        while start < count:
            found = self._run(names, start, min(start + size, count))
            for name, axis in axes:
                array = found.get(name)
                if array is not None and array.ndim >= -axis:
                    _collect(sums.setdefault((name, axis), [0.0, 0.0, 0]), array, axis)
            start += size
            if self.fixed is None:  # as many samples at a time as fit
                each = sum(array.size for array in found.values()) // size
                size = int(np.clip(_ELEMENTS // max(each, 1), 1, 64))
        return {
            key: Moments(total / number, square / number) for key, (total, square, number) in sums.items()
        }

    def _run(self, names: Collection[str] | None, start: int, stop: int) -> dict[str, NDArray[Any]]:
        session, found = self._session(names)
        feeds: dict[str, NDArray[Any]] = {}
        for name, array in self.dataset.inputs.items():
            axis = self.dataset.batch_axes.get(name)
            if axis is None:
                feeds[name] = np.asarray(array)
                continue
            chosen = np.arange(start, start + (self.fixed or stop - start)).clip(max=self.dataset.count - 1)
            feeds[name] = np.ascontiguousarray(np.take(array, chosen, axis=axis))
        fed = {name: feeds[name] for name in found if name in feeds}
        wanted = [name for name in found if name not in fed]
        outputs = dict(zip(wanted, run_session(session, wanted, feeds), strict=True)) | fed
        return {name: a for name, a in outputs.items() if isinstance(a, np.ndarray) and a.dtype.kind == "f"}

    def _session(self, names: Collection[str] | None) -> tuple[Any, list[str]]:
        key = None if names is None else tuple(sorted(names))
        if self._open is None or self._open[0] != key:
            template, found = watched(self.loaded, free=self.free, names=names)
            self._open = (key, open_session(template.proto, template.digital, self.provider), found)
        return self._open[1], self._open[2]


def _collect(sums: list[Any], array: NDArray[Any], axis: int) -> None:
    """Add up a batch: sum, sum of squares and number of each channel."""
    axis %= array.ndim
    before, after = math.prod(array.shape[:axis]), math.prod(array.shape[axis + 1 :])
    flat = array.reshape(before, array.shape[axis], after)
    # Short sums in single precision, the sums of these in double: several times as fast, and as exact.
    flat = flat.astype(np.float32, copy=False) if after > 1 else flat.astype(np.float64)
    sums[0] = sums[0] + flat.sum(axis=2).sum(axis=0, dtype=np.float64)
    sums[1] = sums[1] + np.einsum("acb,acb->ac", flat, flat).sum(axis=0, dtype=np.float64)
    sums[2] += before * after


def watched_axes(layers: Sequence[Layer]) -> set[tuple[str, int]]:
    """The channel axes that scales depend on."""
    sources = {(layer.source, layer.source_axis) for layer in layers}
    return sources | {(layer.result, layer.result_axis) for layer in layers}

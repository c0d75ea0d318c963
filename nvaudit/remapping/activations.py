"""What activations are like on calibration samples: sizes, and moments of every channel."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.data import Dataset
from nvaudit.errors import NvauditError
from nvaudit.model import LoadedModel, Rebatch
from nvaudit.model.rescale.plan import ScalableWeight
from nvaudit.perturb.probe import probe_model

SeenSizes = tuple[int | None, ...]


@dataclass(frozen=True)
class ChannelMoments:
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


def activation_sizes(
    loaded: LoadedModel, dataset: Dataset, rebatch: Rebatch, provider: str = "cpu"
) -> dict[str, SeenSizes]:
    """Sizes of every activation of the main graph; None where they depend on the number of samples.

    Empty where the model has an activation that cannot be returned: sizes only help to recognise layers.
    """
    try:
        probe = probe_model(loaded, dataset, rebatch=rebatch, provider=provider)
        # What differs between a batch of two and one of three is the batch axis, or a multiple of it.
        counts = (probe.fixed,) if probe.fixed else (2, 3)
        runs = (probe.run(np.arange(count).clip(max=dataset.count - 1)) for count in counts)
        first, *more = (
            {name: array.shape for name, array in values.items() if _is_float(array)} for values in runs
        )
    except NvauditError:
        return {}
    if not more:
        return dict(first)
    (second,) = more
    return {
        name: tuple(a if a == b else None for a, b in zip(shape, second[name], strict=True))
        for name, shape in first.items()
        if len(shape) == len(second.get(name, ()))
    }


def activation_moments(
    loaded: LoadedModel,
    dataset: Dataset,
    axes: Collection[tuple[str, int]],
    samples: int,
    rebatch: Rebatch,
    provider: str = "cpu",
) -> dict[tuple[str, int], ChannelMoments]:
    """Moments of channels of activations.

    Parameters
    ----------
    axes : collection of (str, int)
        Names, and channel axes counted from the end.
    samples : int
        Samples that are looked at: the first of the data, in whole batches where the batch size is fixed.

    Returns
    -------
    dict of (str, int) to ChannelMoments
        Without those whose activation is no float tensor with such an axis, or is not computed.
    """
    sums: dict[tuple[str, int], list[Any]] = {}
    names = {name for name, _ in axes}
    if not names:
        return {}
    probe = probe_model(loaded, dataset, names, rebatch=rebatch, provider=provider)
    step = probe.fixed or 1
    first = np.arange(-(-min(samples, dataset.count) // step) * step).clip(max=dataset.count - 1)
    for _, values in probe.batches(first):
        for name, axis in axes:
            array = values.get(name)
            if array is not None and _is_float(array) and array.ndim >= -axis:
                _collect(sums.setdefault((name, axis), [0.0, 0.0, 0]), array, axis)
    return {
        key: ChannelMoments(total / number, square / number) for key, (total, square, number) in sums.items()
    }


def _is_float(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind == "f"


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


def watched_axes(layers: Sequence[ScalableWeight]) -> set[tuple[str, int]]:
    """The channel axes that scales depend on."""
    sources = {(layer.source, layer.source_axis) for layer in layers}
    return sources | {(layer.result, layer.result_axis) for layer in layers}

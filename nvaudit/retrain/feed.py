"""Samples as batches of torch tensors: shuffled, augmented, from arrays that may be memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Rows
from nvaudit.data import Dataset
from nvaudit.errors import OptionError
from nvaudit.rng import stream

if TYPE_CHECKING:
    from torch import Tensor

Augment = Literal["none", "flip", "crop", "flip+crop"]

_CHANNELS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes
    ----------
    rows : ndarray of int
        Which samples of the data these are.
    places : ndarray of int or None
        Where they stand in the inputs, which hold others too where samples influence each other; None: the
        inputs hold them alone.
    """

    inputs: dict[str, Tensor]
    labels: Tensor | None
    rows: Rows
    places: Rows | None = None

    def own(self, output: Tensor) -> Tensor:
        """Pick, of an output with the batch first, what belongs to these samples."""
        return output if self.places is None else output[self.places]


@dataclass(frozen=True)
class Feed:
    """Part of a dataset, ready to be fed to a network.

    Attributes
    ----------
    rows : ndarray of int
        The samples that belong to it.
    """

    dataset: Dataset
    rows: Rows
    device: str = "cpu"

    @property
    def count(self) -> int:
        """Samples."""
        return len(self.rows)

    def take(self, rows: Rows) -> Batch:
        """Make one batch of samples of the dataset.

        Where samples influence each other, the batch holds the run of them that the first one belongs to, and
        those of the others that belong to it too.
        """
        import torch

        # Where samples influence each other (an axis that is no batch: frames of a film), the model is fed
        # the run that they belong to, and losses and scores are taken at the samples that were asked for.
        fed, places, together = rows, None, self.dataset.together
        if together:
            start = int(rows[0]) // together * together
            fed = np.arange(start, min(start + together, self.dataset.count))
            rows = rows[(rows >= start) & (rows < start + together)]
            places = rows - start
        inputs = {name: _input(array, self.device) for name, array in self.dataset.take(fed).items()}
        labels = None
        if self.dataset.labels is not None:
            labels = torch.from_numpy(np.array(self.dataset.labels[rows])).to(self.device)
        return Batch(inputs, labels, rows, places)

    def _runs(self) -> list[Rows]:
        """The samples by the run that they belong to, where they influence each other."""
        run = self.rows // self.dataset.together
        return [self.rows[run == number] for number in np.unique(run)]

    def in_order(self, size: int) -> Iterator[Batch]:
        """All samples, as they come; where they influence each other the size is that of their runs."""
        if self.dataset.together:
            yield from map(self.take, self._runs())
            return
        for start in range(0, self.count, size):
            yield self.take(self.rows[start : start + size])

    def shuffled(self, size: int, seed: int, epoch: int) -> Iterator[Batch]:
        """All samples in the order of an epoch; of larger batches a last one of one sample is left out."""
        if self.dataset.together:  # only whole runs may change places
            runs = self._runs()
            yield from (self.take(runs[i]) for i in stream(seed, "train-order", epoch).permutation(len(runs)))
            return
        rows = self.rows[stream(seed, "train-order", epoch).permutation(self.count)]
        for start in range(0, self.count, size):
            part = rows[start : start + size]
            # Batch statistics of one sample are no statistics; where there are no others, they are taken.
            if len(part) > 1 or size == 1 or self.count == 1:
                yield self.take(part)

    def steps(self, size: int) -> int:
        """Batches of one epoch."""
        if self.dataset.together:
            return len(self._runs())
        full, rest = divmod(self.count, size)
        return max(1, full + (rest > 1))


def _input(array: NDArray[Any], device: str) -> Any:
    """One input as a tensor; text, which only what stands before the weights can take, as it is."""
    import torch

    if array.dtype.kind not in "biufc" and array.dtype.name != "bfloat16":
        return array
    return torch.from_numpy(_native(array)).to(device)


def as_array(value: Any) -> NDArray[Any]:
    """The array of an input."""
    return value if isinstance(value, np.ndarray) else np.asarray(value.cpu().numpy())


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """A writable array of a type that torch knows."""
    if array.dtype.name in ("bfloat16",):
        return np.array(array, np.float32)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        return np.array(array, np.int64)
    return np.array(array, order="C")


def split_rows(count: int, share: float, seed: int) -> tuple[Rows, Rows]:
    """Split samples at random into those to train on and those to validate on.

    Parameters
    ----------
    share : float
        Of the samples that validate, above 0 and below 1.

    Returns
    -------
    tuple of ndarray
        Training and validation rows, each ascending.

    Raises
    ------
    OptionError
        If one of the parts would be empty.
    """
    held = round(count * share)
    if not 0 < held < count:
        raise OptionError(
            f"--val-split {share:g} of {count} samples leaves {held} to validate on and {count - held} to "
            "train on; give more data or another split"
        )
    order = stream(seed, "val-split").permutation(count).astype(np.intp)
    return np.sort(order[held:]), np.sort(order[:held])


def image_axes(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """Axes of channels, height and width of a batch of images, or None if the shape is no such batch.

    Examples
    --------
    >>> image_axes((8, 3, 32, 32)), image_axes((8, 28, 28, 1)), image_axes((8, 10))
    ((1, 2, 3), (3, 1, 2), None)
    """
    if len(shape) != 4:
        return None
    if shape[1] in _CHANNELS:
        return 1, 2, 3
    return (3, 1, 2) if shape[3] in _CHANNELS else None


def check_augment(augment: Augment, dataset: Dataset) -> None:
    """Refuse augmentation where no input is a batch of images.

    Raises
    ------
    OptionError
    """
    if augment != "none" and _image_input(dataset.inputs, dataset.batch_axes) is None:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in dataset.inputs.items())
        raise OptionError(f"--augment {augment}: no input is a batch of images: {shapes}; leave it out")


def _image_input(inputs: Mapping[str, Any], batch_axes: Mapping[str, int]) -> str | None:
    for name, array in inputs.items():
        if batch_axes.get(name) == 0 and image_axes(array.shape) is not None:
            return name
    return None


def augmented(batch: Batch, augment: Augment, dataset: Dataset, rng: np.random.Generator) -> Batch:
    """Flip images at random left to right, and shift them by up to an eighth of their size.

    Those that influence each other, such as the frames of a film, are flipped and shifted alike.
    """
    import torch

    name = None if augment == "none" else _image_input(batch.inputs, dataset.batch_axes)
    if name is None:
        return batch
    images = batch.inputs[name]
    axes = image_axes(images.shape)
    assert axes is not None
    channel, height, width = axes
    x = images.movedim((channel, height, width), (1, 2, 3))
    draws = len(x) if batch.places is None else 1
    if "flip" in augment:
        which = torch.from_numpy(rng.random(draws) < 0.5).to(x.device)
        x = torch.where(which[:, None, None, None], x.flip(3), x)
    if "crop" in augment:
        x = _shifted(x, rng, draws)
    x = x.movedim((1, 2, 3), (channel, height, width)).contiguous()
    return replace(batch, inputs={**batch.inputs, name: x})


def _shifted(x: Tensor, rng: np.random.Generator, draws: int) -> Tensor:
    """Shift each image by its own whole number of pixels, or all by one draw; the border is continued."""
    import torch

    count, _, rows, cols = x.shape
    down, right = max(1, rows // 8), max(1, cols // 8)
    row = np.arange(rows) + rng.integers(-down, down + 1, (draws, 1))
    col = np.arange(cols) + rng.integers(-right, right + 1, (draws, 1))
    i = torch.from_numpy(np.clip(row, 0, rows - 1)).to(x.device).expand(count, -1)
    j = torch.from_numpy(np.clip(col, 0, cols - 1)).to(x.device).expand(count, -1)
    sample = torch.arange(count, device=x.device)[:, None, None]
    return x[sample, :, i[:, :, None], j[:, None, :]].movedim(3, 1)

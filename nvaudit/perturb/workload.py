"""Everything that a worker needs for a run, as files in one folder and a small picklable description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import load_array
from nvaudit.device import OperatingPoint
from nvaudit.mapping.conductance import DeviceArray
from nvaudit.mapping.outliers import Outliers
from nvaudit.mapping.tiling import ONE_COLUMN, Lines
from nvaudit.model.template import Slot
from nvaudit.perturb.boxes import BoxReader
from nvaudit.perturb.chip import MappedTensor


@dataclass(frozen=True)
class ArrayFile:
    """An array in an .npy file, cut to ``count`` samples along its batch axis (None: the same for all)."""

    path: str
    axis: int | None = None
    count: int | None = None

    def open(self) -> NDArray[Any]:
        """Memory-map it (small arrays and 0-d ones are read)."""
        array = load_array(self.path, mmap_mode="r")
        array = array[()] if array.ndim == 0 else array
        if self.axis is None or self.count is None:
            return np.asarray(array)
        return np.asarray(array[(slice(None),) * self.axis + (slice(0, self.count),)])


def save_array(folder: Path, name: str, array: NDArray[Any], axis: int | None = None) -> ArrayFile:
    """Put an array where workers can map it; one that is already mapped from an .npy file is not copied."""
    count = None if axis is None else array.shape[axis]
    source = getattr(array, "filename", None)
    if isinstance(array, np.memmap) and source is not None and str(source).endswith(".npy"):
        return ArrayFile(str(source), axis, count)
    path = folder / f"{name}.npy"
    np.save(path, array, allow_pickle=False)
    return ArrayFile(str(path), axis, count)


@dataclass(frozen=True)
class TensorFile:
    """A mapped tensor whose codes lie in a file."""

    key: str
    code: ArrayFile
    scale: NDArray[np.float32]
    array: DeviceArray
    peak_code: int
    freeze_read: bool
    lines: Lines = ONE_COLUMN
    skip_rows: int | None = None
    outliers: tuple[ArrayFile, ...] | None = None  # their places, and what they are

    def open(self) -> MappedTensor:
        """Map the codes."""
        digital = None if self.outliers is None else Outliers(*(file.open() for file in self.outliers))
        return MappedTensor(
            self.key, self.code.open(), self.scale, self.array, self.peak_code, self.lines, self.skip_rows,
            digital,
        )  # fmt: skip


@dataclass(frozen=True)
class ReadBack:
    """The devices of one tensor of a chip that is given, not drawn.

    Attributes
    ----------
    conductance : ArrayFile
        Shape (device, *weight), in the window's unit, float32 or float64; what was not measured is at its
        target.
    variance : ArrayFile or None
        Of one read of each device, in that unit squared; None: as the profile says.
    """

    conductance: ArrayFile
    variance: ArrayFile | None = None


@dataclass(frozen=True)
class GraphFile:
    """A graph that ONNX Runtime runs: its file, and initializers to inject from files.

    ``batch`` is the batch size that must be fed, or None when any will do.
    """

    path: str
    digital: Mapping[str, ArrayFile]
    batch: int | None


@dataclass(frozen=True)
class CorrectionGraph:
    """How each chip is corrected before it is scored, by what it makes of calibration samples.

    Attributes
    ----------
    finder : str
        File of a graph with the template's slots, which gives ``places`` on all calibration samples at once.
    places : tuple of str
        Initializers of the template that take them.
    inputs : mapping of str to ArrayFile
        The calibration samples.
    """

    finder: str
    places: tuple[str, ...]
    inputs: Mapping[str, ArrayFile]


@dataclass(frozen=True)
class Workload:
    """A run.

    Attributes
    ----------
    folder : str
        Scratch folder of the run.
    original : GraphFile
        The user's model as it is.
    ideal : GraphFile
        The same function at any batch size where that is provable, else ``original``.
    template : GraphFile
        The model with mapped weights left open.
    points : tuple of OperatingPoint
        The sweep.
    count : int
        Samples.
    batch : int
        Samples per inference.
    output_axis : int or None
        Batch axis of the output; None if it has none.
    every_device : bool
        Draw device by device even where the collapse is exact.
    read_noise : bool
        The template draws read noise per inference.
    provider : str
        ONNX Runtime execution provider.
    together : int
        As of the dataset: 0 where any samples may be run, else how many are run at a time, in order.
    alternatives : tuple of str
        Outputs that could be scored instead.
    columns : tuple of int or str
        Of an output that is a dictionary for each sample: its keys, in the order of the classes.
    correction : CorrectionGraph or None
        None: chips are scored as they are.
    boxes : BoxReader or None
        Reads a detector's outputs, which are boxes then, shape (sample, 100, 6).
    beside : tuple of str
        Further outputs that it reads.
    chips : tuple of tuple of ReadBack
        Chips that are given, tensor by tensor: trial k is the k-th of them. Empty: chips are drawn.
    """

    folder: str
    original: GraphFile
    ideal: GraphFile
    template: GraphFile
    slots: tuple[Slot, ...]
    tensors: tuple[TensorFile, ...]
    points: tuple[OperatingPoint, ...]
    inputs: Mapping[str, ArrayFile]
    labels: ArrayFile | None
    count: int
    batch: int
    output: str
    output_axis: int | None
    seed: int
    every_device: bool
    read_noise: bool
    provider: str
    together: int = 0
    alternatives: tuple[str, ...] = ()
    columns: tuple[int | str, ...] = ()
    correction: CorrectionGraph | None = None
    boxes: BoxReader | None = None
    beside: tuple[str, ...] = ()
    chips: tuple[tuple[ReadBack, ...], ...] = ()

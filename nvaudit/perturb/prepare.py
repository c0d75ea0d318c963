"""From a loaded model, decisions, devices and data to a workload that workers can run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit.data import Dataset
from nvaudit.device import DeviceProfile, OperatingPoint
from nvaudit.errors import EngineError
from nvaudit.mapping.conductance import DeviceArray, code_layout, layout
from nvaudit.mapping.outliers import find_outliers
from nvaudit.mapping.quantize import keeps_grid, quantize
from nvaudit.mapping.select import Decision
from nvaudit.mapping.tiling import weight_lines
from nvaudit.model import (
    LoadedModel,
    Rebatch,
    Template,
    Weight,
    build_template,
    scoreable_outputs,
    zipped_classes,
)
from nvaudit.options import Encoding
from nvaudit.perturb.boxes import BoxReader
from nvaudit.perturb.choose_codes import ChosenCodes, scale_axes
from nvaudit.perturb.terms import Setting, read_terms
from nvaudit.perturb.workload import ArrayFile, GraphFile, TensorFile, Workload, save_array


@dataclass(frozen=True)
class Placement:
    """How weights are put on the array: bits, bits per cell, encoding, one scale per tensor or channel.

    With ``skip_rows``, groups of zeros of crossbars of so many rows have no devices. Weights with a code in
    ``codes`` have that code instead of slices. ``outliers`` is the share of the weights that no device holds.
    """

    bits: int
    cell_bits: int | None
    encoding: Encoding | None
    per_channel: bool
    skip_rows: int | None = None
    codes: ChosenCodes | None = None
    outliers: float | None = None


def map_tensor(
    weight: Weight, profile: DeviceProfile, how: Placement, folder: Path, index: int
) -> TensorFile:
    """Quantise one weight and put its codes into a file."""
    code, scale, array = place_weight(weight, profile, how)
    file = _tensor_file(weight, code, scale, array, how, folder, index)
    if how.outliers is None:
        return file
    place, values = outliers_of(weight, how.outliers, how.per_channel)
    digital = tuple(save_array(folder, f"outlier-{what}-{index}", one)
                    for what, one in (("places", place), ("values", values)))  # fmt: skip
    return replace(file, outliers=digital)


def outliers_of(
    weight: Weight, share: float, per_channel: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places and values of the weights that are digital; the values as the model has them."""
    values = np.asarray(weight.load().values)
    place = find_outliers(values, share, scale_axes(weight, per_channel))
    return place, values.reshape(-1)[place].astype(np.float32)


def _without(values: NDArray[np.floating], weight: Weight, how: Placement) -> NDArray[np.floating]:
    """Weights as the array holds them: zero where they are digital."""
    if how.outliers is None:
        return values
    held = np.array(values)
    np.put(held, find_outliers(values, how.outliers, scale_axes(weight, how.per_channel)), 0)
    return held


def place_weight(
    weight: Weight, profile: DeviceProfile, how: Placement
) -> tuple[NDArray[np.int16], NDArray[np.float32], DeviceArray]:
    """Quantise one weight, and say how its codes lie in devices.

    A weight that the model stores as integers keeps its own grid: the codes are the stored integers, unless
    these are wider than codes can be, or the weight has a code of its own.

    Returns
    -------
    code : ndarray, int16
        In the primary layout.
    scale : ndarray, float32
        Weight units per code, broadcastable to ``code``.
    array : Array
    """
    chosen = None if how.codes is None else how.codes.of.get(weight.key)
    loaded = weight.load()
    if how.codes is not None and chosen is not None:
        values = _without(np.asarray(loaded.values), weight, how)
        code, scale = how.codes.values(weight, values, per_channel=how.per_channel)
        return code, scale, code_layout(profile, chosen)
    grid = loaded.grid
    # A stored grid may reach beyond its nominal bits once a zero point is taken off: int8 −128 with zero
    # point 127 is −255. The bits are those that the codes need.
    bits = 0 if grid is None else max(grid.storage_bits, int(np.abs(grid.codes).max(initial=0)).bit_length())
    if grid is not None and keeps_grid(bits):
        # The grid that the model was trained on: rounding it anew to max|W| / (2^H − 1) would move every
        # weight.
        code = np.asarray(_without(grid.codes, weight, how), np.int16)
        scale = np.asarray(grid.scale, np.float32)
    else:
        bits = how.bits
        axes = weight.channel_axes if how.per_channel else ()
        codes = quantize(_without(loaded.values, weight, how), bits, axes)
        code, scale = codes.code, codes.scale
    return code, scale, layout(profile, bits=bits, cell_bits=how.cell_bits, encoding=how.encoding)


def _tensor_file(
    weight: Weight,
    code: NDArray[np.int16],
    scale: NDArray[np.float32],
    array: DeviceArray,
    how: Placement,
    folder: Path,
    index: int,
) -> TensorFile:
    peak = int(np.abs(code).max(initial=0))
    return TensorFile(
        weight.key, save_array(folder, f"code-{index}", code), scale, array, peak, False,
        weight_lines(weight), how.skip_rows,
    )  # fmt: skip


def graph_file(template: Template, folder: Path, name: str, batch: int | None) -> GraphFile:
    """Write a template where workers find it."""
    path = folder / f"{name}.onnx"
    path.write_bytes(template.proto)
    digital = {
        key: save_array(folder, f"{name}-digital-{i}", np.asarray(array))
        for i, (key, array) in enumerate(template.digital.items())
    }
    return GraphFile(str(path), digital, batch)


@dataclass(frozen=True)
class Request:
    """What a workload is made from."""

    loaded: LoadedModel
    rebatch: Rebatch
    decisions: Sequence[Decision]
    points: tuple[OperatingPoint, ...]
    how: Placement
    dataset: Dataset
    output: str
    batch: int
    seed: int
    every_device: bool
    provider: str
    all_read: bool = False
    boxes: BoxReader | None = None
    beside: tuple[str, ...] = ()

    def noisy_reads(self, tensors: Sequence[TensorFile]) -> set[str]:
        """Keys of the tensors that are read with noise, by the profile or, all of them, as measured."""
        if self.all_read:
            return {tensor.key for tensor in tensors}
        return noisy_in_reading(tensors, self.points)


def build_workload(request: Request, folder: Path) -> Workload:
    """Write everything that workers need into ``folder``.

    Raises
    ------
    ModelError, OptionError
        If a weight cannot be read or mapped.
    EngineError
        If the folder cannot hold it (a full disk).
    """
    with working_files(folder):
        return _build(request, folder)


@contextmanager
def working_files(folder: Path) -> Iterator[None]:
    """Say of a folder that cannot be written to, for instance on a full disk, what to do."""
    try:
        yield
    except OSError as error:
        raise EngineError(
            f"cannot write the run's working files to {folder}: {error.strerror}; free space or set TMPDIR"
        ) from error


def _build(request: Request, folder: Path) -> Workload:
    weights = [d.constant.weight for d in request.decisions if d.mapped and d.constant.weight is not None]
    profile = request.points[0].profile
    tensors = [map_tensor(w, profile, request.how, folder, i) for i, w in enumerate(weights)]
    noisy_reads = request.noisy_reads(tensors)
    keys = [weight.key for weight in weights]
    batch: Literal["free", "keep"] = "free" if request.rebatch.status == "rebatched" else "keep"
    template = build_template(request.loaded, keys, batch=batch, read_noise=noisy_reads)
    with_variance = {slot.weight_key for slot in template.slots if slot.variance}
    original = original_graph(request.loaded, request.rebatch, folder)
    ideal = original
    if batch == "free":
        ideal = graph_file(build_template(request.loaded, [], batch="free"), folder, "ideal", None)
    dataset = request.dataset
    return Workload(
        folder=str(folder),
        original=original,
        ideal=ideal,
        template=graph_file(template, folder, "template", ideal.batch),
        slots=template.slots,
        tensors=tuple(replace(t, freeze_read=t.key not in with_variance) for t in tensors),
        points=request.points,
        inputs=_save_inputs(dataset, folder),
        labels=None if dataset.labels is None else save_array(folder, "labels", dataset.labels, 0),
        count=dataset.count,
        batch=request.batch,
        output=request.output,
        output_axis=request.rebatch.output_axes.get(request.output, 0),
        seed=request.seed,
        every_device=request.every_device,
        read_noise=bool(with_variance),
        provider=request.provider,
        together=dataset.together,
        alternatives=scoreable_outputs(request.loaded),
        columns=zipped_classes(request.loaded, request.output),
        boxes=request.boxes,
        beside=request.beside,
    )


def original_graph(loaded: LoadedModel, rebatch: Rebatch, folder: Path) -> GraphFile:
    """The file as it came, or, where the graph that is audited computes something else, that graph."""
    size = original_batch(loaded, rebatch)
    if loaded.as_filed:
        return GraphFile(str(loaded.path), {}, size)
    return graph_file(build_template(loaded, []), folder, "original", size)


def noisy_in_reading(tensors: Sequence[TensorFile], points: Sequence[OperatingPoint]) -> set[str]:
    """Keys of the tensors that are read with noise at any operating point."""
    return {
        tensor.key
        for tensor in tensors
        if any(read_terms(point, Setting.of(point, tensor.array)) for point in points)
    }


def original_batch(loaded: LoadedModel, rebatch: Rebatch) -> int | None:
    """Batch size that the file as it is must be fed, or None when any will do."""
    if rebatch.status == "fixed":
        return rebatch.fixed_batch
    for spec in loaded.inputs:
        axis = rebatch.batch_axes.get(spec.name)
        if axis is not None and spec.shape is not None and isinstance(spec.shape[axis], int):
            return int(spec.shape[axis] or 1)
    return None


def _save_inputs(dataset: Dataset, folder: Path) -> dict[str, ArrayFile]:
    return {
        name: save_array(folder, f"input-{i}", array, dataset.batch_axes.get(name))
        for i, (name, array) in enumerate(dataset.inputs.items())
    }

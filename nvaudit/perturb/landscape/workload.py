"""What the workers of a landscape need: the model with open places, its weights, and a few samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from nvaudit.data import Dataset
from nvaudit.errors import ModelError, OptionError
from nvaudit.model import (
    Constant,
    LoadedModel,
    Rebatch,
    Template,
    Weight,
    build_template,
    constants,
    recalibrate_batch_norm,
    scoreable_outputs,
    zipped_classes,
)
from nvaudit.perturb.landscape.directions import Filters, filters_of, is_moved
from nvaudit.perturb.landscape.spec import BatchNorm
from nvaudit.perturb.prepare import graph_file, original_graph, working_files
from nvaudit.perturb.workload import ArrayFile, Workload, save_array
from nvaudit.rng import stream


@dataclass(frozen=True)
class MovedWeight:
    """A weight that is moved.

    Attributes
    ----------
    key : str
        Its name: the address of its random numbers.
    values : ArrayFile
        As stored in the model (an integer weight: scale × code), float32 or wider, in the primary layout.
    """

    key: str
    values: ArrayFile
    filters: Filters


@dataclass(frozen=True)
class Plane:
    """A landscape that is to be computed.

    Attributes
    ----------
    base : Workload
        The model with open places for the moved weights, and the samples; no device.
    weights : tuple of MovedWeight
        In the order of the workload's tensor numbers.
    """

    base: Workload
    weights: tuple[MovedWeight, ...]


@dataclass(frozen=True)
class PlaneRequest:
    """What a landscape is made from.

    Attributes
    ----------
    images : int
        Samples of it that are used, drawn at random; all if there are fewer.
    output : str
        Which output the loss reads.
    batch : int
        Samples per inference; all at once with recalibrated batch norm.
    batch_norm : {"stored", "recalibrated"}
        Whether batch normalisations use the statistics stored in the model, or at every point those of the
        samples.
    provider : str
        ONNX Runtime execution provider.
    """

    loaded: LoadedModel
    rebatch: Rebatch
    dataset: Dataset
    images: int
    output: str
    batch: int
    batch_norm: BatchNorm
    seed: int
    provider: str


def build_plane(request: PlaneRequest, folder: Path) -> Plane:
    """Write everything that workers need into ``folder``.

    Parameters
    ----------
    folder : Path
        An existing folder for this landscape alone.

    Raises
    ------
    ModelError
        If no weight can be moved, or one cannot be read.
    OptionError
        If batch norm cannot be recalibrated.
    EngineError
        If the folder cannot hold it (a full disk).
    """
    with working_files(folder):
        return _build(request, folder)


def _build(request: PlaneRequest, folder: Path) -> Plane:
    loaded, rebatch = request.loaded, request.rebatch
    weights = moved_weights(constants(loaded))
    if not weights:
        raise ModelError(
            f"{loaded.path}: no weight with two or more dimensions, so there is no landscape; "
            "`nvaudit inspect` lists every tensor with its reason"
        )
    batch: Literal["free", "keep"] = "free" if rebatch.status == "rebatched" else "keep"
    template = build_template(loaded, [weight.key for weight in weights], batch=batch)
    original = original_graph(loaded, rebatch, folder)
    ideal = original
    if batch == "free":
        ideal = graph_file(build_template(loaded, [], batch="free"), folder, "ideal", None)
    if request.batch_norm == "recalibrated":
        template = _recalibrated(template, loaded, ideal.batch)
    dataset = some_samples(request.dataset, request.images, request.seed)
    # Recalibrated statistics are those of what runs together: all samples have to be one batch.
    at_once = dataset.count if request.batch_norm == "recalibrated" else request.batch
    base = Workload(
        folder=str(folder),
        original=original,
        ideal=ideal,
        template=graph_file(template, folder, "template", ideal.batch),
        slots=template.slots,
        tensors=(),
        points=(),
        inputs={
            name: save_array(folder, f"input-{i}", array, dataset.batch_axes.get(name))
            for i, (name, array) in enumerate(dataset.inputs.items())
        },
        labels=None if dataset.labels is None else save_array(folder, "labels", dataset.labels, 0),
        count=dataset.count,
        batch=min(at_once, dataset.count),
        output=request.output,
        output_axis=rebatch.output_axes.get(request.output, 0),
        seed=request.seed,
        every_device=False,
        read_noise=False,
        provider=request.provider,
        together=dataset.together,
        alternatives=scoreable_outputs(loaded),
        columns=zipped_classes(loaded, request.output),
    )
    return Plane(base, tuple(_moved(weight, folder, i) for i, weight in enumerate(weights)))


def _recalibrated(template: Template, loaded: LoadedModel, fixed: int | None) -> Template:
    """Let batch normalisations use the statistics of the samples."""
    if fixed is not None:
        raise OptionError(
            f"--batch-norm recalibrated: {loaded.path} takes {fixed} at a time, and the statistics are "
            "those of all images together; use --batch-norm stored"
        )
    proto, changed = recalibrate_batch_norm(template.proto)
    if not changed:
        raise OptionError(
            f"--batch-norm recalibrated: {loaded.path} has no BatchNormalization node (it never had, or it "
            "is folded into the weights); use --batch-norm stored"
        )
    return replace(template, proto=proto)


def _moved(weight: Weight, folder: Path, index: int) -> MovedWeight:
    values = weight.load().values
    if values.dtype.itemsize < 4:
        values = values.astype(np.float32)
    return MovedWeight(weight.key, save_array(folder, f"weight-{index}", values), filters_of(weight))


def moved_weights(listed: list[Constant]) -> list[Weight]:
    """Choose the weights that are moved.

    Parameters
    ----------
    listed : list of Constant
        Every constant of a model.

    Returns
    -------
    list of Weight
        What operators multiply by and has two or more dimensions.
    """
    return [c.weight for c in listed if c.weight is not None and is_moved(c.weight)]


def fixed_tensors(listed: list[Constant]) -> dict[str, str]:
    """List what has two or more dimensions, could have been trained, and is not moved.

    Parameters
    ----------
    listed : list of Constant
        Every constant of a model.

    Returns
    -------
    dict of str to str
        Names and reasons; without what is a vector in disguise, such as a bias of shape (8, 1, 1).
    """
    return {
        c.name: c.reason
        for c in listed
        if c.weight is None
        and c.dtype in ("float16", "bfloat16", "float32", "float64")
        and math.prod(c.shape) > max(c.shape, default=1)
    }


def some_samples(dataset: Dataset, count: int, seed: int) -> Dataset:
    """Choose samples at random, without repetition, in their old order.

    Returns
    -------
    Dataset
        The same one if it has no more than ``count`` samples, or they influence each other.
    """
    if dataset.count <= count or dataset.together:
        return dataset
    # The head of one permutation: with the same seed, fewer samples are a part of more.
    chosen = np.sort(stream(seed, "landscape-samples").permutation(dataset.count)[:count])
    return replace(
        dataset,
        inputs={
            name: array if axis is None else np.asarray(np.take(array, chosen, axis=axis))
            for name, array in dataset.inputs.items()
            for axis in [dataset.batch_axes.get(name)]
        },
        labels=None if dataset.labels is None else np.asarray(dataset.labels[chosen]),
        count=count,
    )

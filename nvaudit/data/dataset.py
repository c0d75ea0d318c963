"""Loading evaluation data: the one entry point for every source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from nvaudit.arrays import Array
from nvaudit.data.checks import sample_count
from nvaudit.data.folder import class_folders, holds_images, read_folder
from nvaudit.data.label_file import read_label_file
from nvaudit.data.labels import LabelRules, take_labels
from nvaudit.data.npy import read_npy_file, read_npy_folder, read_npz
from nvaudit.data.prepare import prepare_input
from nvaudit.data.spec import Dataset, InputSpec, LabelKind, LabelPlaces, Raw
from nvaudit.data.store import ScratchStore, digest
from nvaudit.data.synthetic import SAMPLES, make_synthetic
from nvaudit.data.testset import read_test_sets, set_folders
from nvaudit.errors import DataError, OptionError

_SOURCES = (
    "an .npz, a .npy with y.npy beside it, a folder of .npy files, a folder of images with a subfolder "
    "per class or with --labels, or a folder of test_data_set_* folders"
)


def load_dataset(
    path: Path | None,
    inputs: Sequence[InputSpec],
    *,
    model_path: Path,
    limit: int | None = None,
    seed: int = 0,
    scratch: Path,
    rules: LabelRules | None = None,
) -> Dataset:
    """Load evaluation data for a model.

    Parameters
    ----------
    path : Path or None
        An ``.npz`` with arrays named as the graph inputs (or ``x``) and optional labels ``y``; a ``.npy``
        with ``y.npy`` beside it, or a folder of these; a folder of images with a subfolder per class and
        ``nvaudit.json``; a folder of ``test_data_set_*`` folders. None: ``MODEL.npz`` beside the model,
        or else seeded synthetic inputs without labels.
    inputs : sequence of InputSpec
        Graph inputs in graph order.
    limit : int or None
        Use the first `limit` samples.
    seed : int
        Seed of synthetic inputs.
    scratch : Path
        Folder for converted arrays; it must outlive the dataset.
    rules : LabelRules, optional
        How labels are to be taken; None: by what they look like.

    Returns
    -------
    Dataset
        Arrays that can be fed as they are.

    Raises
    ------
    DataError
        If the data cannot be read or do not fit the model.
    OptionError
        If `limit` is below 1.
    EngineError
        If the scratch disk is full.
    """
    if limit is not None and limit < 1:
        raise OptionError(f"limit: must be 1 or more, got {limit}")
    specs = tuple(inputs)
    if not specs:
        raise DataError(f"{model_path}: the model takes no inputs, so there is nothing to feed")
    store = ScratchStore(scratch)
    notes: tuple[str, ...] = ()
    if path is None:
        path = model_path.with_suffix(".npz")
        if not path.is_file():
            return _synthetic(specs, limit, seed, store)
        notes = (f"data found beside the model: {path.name}",)
    return _finish(_read(path, specs, limit, store, rules), specs, limit, notes, store, rules)


def _read(
    path: Path,
    specs: tuple[InputSpec, ...],
    limit: int | None,
    store: ScratchStore,
    rules: LabelRules | None,
) -> Raw:
    rules = rules or LabelRules()
    table = None if rules.file is None else read_label_file(Path(rules.file), rules)
    if _images_in(path):
        with _readable(path):
            return read_folder(path, specs, limit, store, table, rules)
    raw = _arrays(path, specs, store)
    if table is None:
        return raw
    # Numbers of labels are counted against those of samples where both are known.
    note = (
        (f"the labels y of the data are not used: --labels {table.path}",) if raw.labels is not None else ()
    )
    in_order = (f"{table.path}: its files are not looked at: labels are in the order of the samples",)
    return replace(
        raw, labels=table.labels, label_kind=table.kind, places=table.places, names=(), reference=False,
        notes=(*raw.notes, *note, *table.notes, *(in_order if table.files else ())),
    )  # fmt: skip


def _images_in(path: Path) -> bool:
    """Whether this is a folder of images."""
    with _readable(path):
        if not path.is_dir() or set_folders(path):
            return False
        arrays = {child.name for child in path.iterdir() if child.suffix == ".npy"}
        images = bool(class_folders(path)) or holds_images(path)
        return images and not arrays - {"y.npy"}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _arrays(path: Path, specs: tuple[InputSpec, ...], store: ScratchStore) -> Raw:
    with _readable(path):
        if path.is_dir():
            return _read_dir(path, specs, store)
        if not path.is_file():
            problem = "not a regular file" if path.exists() else "no such file or folder"
            raise DataError(f"{path}: {problem}; the data may be {_SOURCES}")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return read_npz(path, specs, store)
    if suffix == ".npy":
        return read_npy_file(path, specs, store)
    raise DataError(
        f"{path}: {suffix or 'a file without a suffix'} is not a known kind; the data may be {_SOURCES}"
    )


def _read_dir(path: Path, specs: tuple[InputSpec, ...], store: ScratchStore) -> Raw:
    if set_folders(path):
        return read_test_sets(path, specs, store)
    if any(child.suffix == ".npy" for child in path.iterdir()):
        return read_npy_folder(path, specs, store)
    raise DataError(f"{path}: the folder holds no data; the data may be {_SOURCES}")


def _finish(
    raw: Raw,
    specs: tuple[InputSpec, ...],
    limit: int | None,
    notes: tuple[str, ...],
    store: ScratchStore,
    rules: LabelRules | None,
) -> Dataset:
    places = raw.places or LabelPlaces(raw.source)
    called = "labels y" if raw.places is None else f"labels of {places.file}"
    given = sample_count(dict(raw.inputs), specs, raw.labels, raw.source, called)
    count = given if limit is None else min(limit, given)
    arrays: dict[str, Array] = {}
    notes = (*notes, *raw.notes)
    for spec in specs:
        array = raw.inputs[spec.name]
        if spec.batch_axis is not None:
            array = _cut(array, spec.batch_axis, 0, count)
        arrays[spec.name], more = prepare_input(array, spec, raw, store)
        notes += more
    labels, text = raw.labels, raw.labels is not None and raw.labels.dtype.kind in "US"
    # Numbers are cut before anything looks at them, so that a limit costs no pass over all.
    if labels is not None and not text:  # names are numbered by all of them
        labels = labels[:count]
    read = take_labels(labels, reference=raw.reference, places=places, store=store, rules=rules,
                       names=raw.names, kind=raw.label_kind)  # fmt: skip
    if text and read.values is not None:
        read = read._replace(values=read.values[:count])
    dataset = _dataset(
        specs, arrays, read.values, read.kind, count, raw.source, notes + read.notes, raw.skipped,
        read.ignored, read.sorted_names,
    )  # fmt: skip
    known = None if read.values is None else places.take(range(count))
    return replace(dataset, given=given, parts=raw.parts, places=known)


def _synthetic(specs: tuple[InputSpec, ...], limit: int | None, seed: int, store: ScratchStore) -> Dataset:
    count = limit or SAMPLES
    arrays, notes = make_synthetic(specs, count, seed, store)
    if all(spec.batch_axis is None for spec in specs):
        count = 1
    return _dataset(specs, arrays, None, "none", count, "synthetic", notes, ())


def _dataset(
    specs: tuple[InputSpec, ...],
    arrays: dict[str, Array],
    labels: Array | None,
    kind: LabelKind,
    count: int,
    source: str,
    notes: tuple[str, ...],
    skipped: tuple[tuple[str, str], ...],
    ignored: tuple[int, ...] = (),
    sorted_names: int | None = None,
) -> Dataset:
    axes = {spec.name: spec.batch_axis for spec in specs if spec.batch_axis is not None}
    return Dataset(
        inputs=arrays,
        batched=frozenset(axes),
        batch_axes=axes,
        labels=labels,
        label_kind=kind,
        count=count,
        source=source,
        digest=digest(arrays, labels),
        notes=tuple(dict.fromkeys(notes)),
        skipped=skipped,
        ignored=ignored,
        sorted_names=sorted_names,
    )


def _cut(array: Array, axis: int, start: int, stop: int) -> Array:
    return array[(slice(None),) * axis + (slice(start, stop),)]


def batch(dataset: Dataset, start: int, stop: int) -> dict[str, Array]:
    """Cut out the feeds for the samples ``start`` to ``stop − 1``.

    Parameters
    ----------
    start, stop : int
        Range of samples, 0 ≤ start < stop; what lies beyond the last sample is cut off.

    Returns
    -------
    dict of str to ndarray
        Each batched input cut along its batch axis, contiguous; constant inputs whole.

    Raises
    ------
    ValueError
        If the range is empty or negative.
    """
    if not 0 <= start < min(stop, dataset.count):
        raise ValueError(f"samples {start} to {stop} are not within 0 to {dataset.count}")
    feeds: dict[str, Array] = {}
    for name, array in dataset.inputs.items():
        axis = dataset.batch_axes.get(name)
        feeds[name] = np.asarray(array if axis is None else _cut(array, axis, start, stop), order="C")
    return feeds

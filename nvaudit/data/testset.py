"""Source: ONNX ``test_data_set_*`` folders, with ``input_0.pb`` … and ``output_0.pb`` …."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from nvaudit.arrays import Array
from nvaudit.data.spec import InputSpec, Raw
from nvaudit.data.store import ScratchStore, sealed
from nvaudit.errors import DataError
from nvaudit.model.tensors import read_tensor_pb

REFERENCE_NOTE = "labels are reference outputs, not class labels (output_0.pb)"


def set_folders(path: Path) -> list[Path]:
    """Folders with ``input_<i>.pb`` files: `path` itself, or its ``test_data_set_*`` in numeric order."""
    if _count(path, "input") > 0:
        return [path]
    named = [folder for folder in path.iterdir() if folder.name.startswith("test_data_set_")]

    def order(folder: Path) -> tuple[int, str]:
        digits = re.search(r"(\d+)$", folder.name)
        return (int(digits[1]) if digits else 0, folder.name)

    return sorted((folder for folder in named if folder.is_dir()), key=order)


def _count(folder: Path, kind: str) -> int:
    return len(list(folder.glob(f"{kind}_*.pb")))


def read_test_sets(path: Path, specs: tuple[InputSpec, ...], store: ScratchStore) -> Raw:
    """Concatenate the tensors of all sets along the batch axis, one file in memory at a time.

    Raises
    ------
    DataError
        If a file is missing or broken, or the sets do not fit together.
    """
    folders = set_folders(path)
    for folder in folders:
        _check_files(folder, specs)
    inputs = {spec.name: _joined(folders, index, spec, store) for index, spec in enumerate(specs)}
    labels, notes = _reference(folders, specs, store)
    extra = _count(folders[0], "input") - len(specs)
    if extra > 0:
        notes = (*notes, f"{folders[0].name}: {extra} input files beyond the {len(specs)} inputs not used")
    return Raw(
        inputs=inputs,
        labels=labels,
        source=str(path),
        reference=True,
        notes=notes,
        parts=_sizes(folders, specs) if len(folders) > 1 else (),
    )


def _sizes(folders: list[Path], specs: tuple[InputSpec, ...]) -> tuple[int, ...]:
    """Count the samples of each set, by the first input that has a batch axis."""
    for index, spec in enumerate(specs):
        if spec.batch_axis is not None:
            shapes = [read_tensor_pb(folder / f"input_{index}.pb").shape for folder in folders]
            return tuple(shape[spec.batch_axis] for shape in shapes if len(shape) > spec.batch_axis)
    return ()


def _check_files(folder: Path, specs: tuple[InputSpec, ...]) -> None:
    for index, spec in enumerate(specs):
        if not (folder / f"input_{index}.pb").is_file():
            raise DataError(
                f"{folder}: input_{index}.pb is missing: it must hold input {spec.name!r}; "
                f"the model takes {len(specs)} inputs: {', '.join(repr(s.name) for s in specs)}"
            )


def _joined(folders: list[Path], index: int, spec: InputSpec, store: ScratchStore) -> Array:
    files = [folder / f"input_{index}.pb" for folder in folders]
    first = read_tensor_pb(files[0])
    if spec.batch_axis is None:
        for file in files[1:]:
            other = read_tensor_pb(file)
            if other.shape != first.shape or other.tobytes() != first.tobytes():
                raise DataError(
                    f"{file}: input {spec.name!r} has no batch dimension and differs between the sets; "
                    "audit one set at a time"
                )
        return first
    if first.ndim <= spec.batch_axis:
        return first
    return _concatenate(files, spec.batch_axis, store)


def _concatenate(
    files: list[Path], axis: int, store: ScratchStore, read: Callable[[Path], Array] = read_tensor_pb
) -> Array:
    # Read twice rather than kept: the first pass only adds up the lengths.
    first = read(files[0])
    total = 0
    for file in files:
        part = read(file)
        rest = part.shape[:axis] + part.shape[axis + 1 :]
        if part.dtype != first.dtype or rest != first.shape[:axis] + first.shape[axis + 1 :]:
            raise DataError(
                f"{file}: {part.dtype} {list(part.shape)} does not continue "
                f"{first.dtype} {list(first.shape)} of {files[0]}; audit one set at a time"
            )
        total += part.shape[axis]
    if total == 0 or first.nbytes == 0:
        return first
    out = store.create(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))
    start = 0
    for file in files:
        part = read(file)
        stop = start + part.shape[axis]
        out[(slice(None),) * axis + (slice(start, stop),)] = part
        start = stop
    return sealed(out)


def _reference(
    folders: list[Path], specs: tuple[InputSpec, ...], store: ScratchStore
) -> tuple[Array | None, tuple[str, ...]]:
    """First outputs of all sets, when each has one with a row per sample."""
    files = [folder / "output_0.pb" for folder in folders]
    if not all(file.is_file() for file in files):
        return None, ("no reference outputs: output_0.pb is not in every set",)
    batched = [(index, spec.batch_axis) for index, spec in enumerate(specs) if spec.batch_axis is not None]
    for folder, file in zip(folders, files, strict=True):
        output = read_tensor_pb(file)
        rows = output.shape[0] if output.ndim else 0
        # Outputs without a row for each sample (a loss, a summary) are no reference that samples can be
        # scored by.
        for index, axis in batched[:1]:
            shape = read_tensor_pb(folder / f"input_{index}.pb").shape
            if len(shape) <= axis or shape[axis] != rows:
                return None, (f"no reference outputs: output_0.pb of {folder.name} has no row per sample",)
    return _concatenate(files, 0, store), (REFERENCE_NOTE,)

"""The arrays of one crossbar in a file: ``.npz``, ``.csv``, and with their libraries HDF5 and zarr.

All forms hold the same arrays by the same names. In CSV a line is a device; devices that are not in use have
none, and a device that was read several times has several lines.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import load_arrays
from nvaudit.errors import DataError, OptionError
from nvaudit.mapping.spec import ArrayFormat

Arrays = dict[str, NDArray[Any]]
Item = TypeVar("Item")
Result = TypeVar("Result")

SUFFIXES: dict[ArrayFormat, str] = {"npz": ".npz", "csv": ".csv", "hdf5": ".h5", "zarr": ".zarr"}
CONDUCTANCE = "conductance"
_PLACES = ("row", "column")
_FASTEST = 1
"""Level of compression: higher ones take several times as long for a tenth of the size."""


def check_format(form: ArrayFormat) -> None:
    """Refuse a format whose library is not installed.

    Raises
    ------
    OptionError
        Naming it, and how it is had.
    """
    if form in ("hdf5", "zarr"):
        _library(form)


def _library(form: str) -> ModuleType:
    name = {"hdf5": "h5py", "zarr": "zarr"}[form]
    try:
        return __import__(name)
    except ImportError as error:
        raise OptionError(
            f"--format {form} needs {name}; run: pip install 'nvaudit[{form}]', or use --format npz"
        ) from error


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Give the results of work on crossbars in their order; compression and hashes use several cores.

    Of results that are not yet taken there are few at a time, whatever the number of items.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def write_arrays(stem: Path, arrays: Mapping[str, NDArray[Any]], form: ArrayFormat) -> Path:
    """Write the arrays of one crossbar.

    Parameters
    ----------
    stem : Path
        Without the suffix that says the format.
    arrays : mapping of str to ndarray
        Of the size of the crossbar; CSV needs ``used`` among them.

    Raises
    ------
    OSError
        As the system says it.
    """
    path = stem.with_name(stem.name + SUFFIXES[form])
    if form == "npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_FASTEST) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    elif form == "csv":
        path.write_text(_csv_text(arrays), encoding="utf-8")
    elif form == "hdf5":
        with _library(form).File(path, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array, compression="gzip", compression_opts=_FASTEST)
    else:
        group = _library(form).open_group(str(path), mode="w")
        for name, array in arrays.items():
            group.create_array(name, data=np.ascontiguousarray(array))
    return path


def _csv_text(arrays: Mapping[str, NDArray[Any]]) -> str:
    rows, columns = np.nonzero(arrays["used"])
    values = {name: array for name, array in arrays.items() if name != "used"}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_PLACES, *values])
    reads = next((array.shape[0] for array in values.values() if array.ndim == 3), 1)
    for read in range(reads):
        taken = [(array[read] if array.ndim == 3 else array)[rows, columns] for array in values.values()]
        # repr gives the shortest digits that read back as the same number of that precision.
        texts = [[str(int(one) if part.dtype == bool else one) for one in part] for part in taken]
        writer.writerows(zip(rows.tolist(), columns.tolist(), *texts, strict=True))
    return out.getvalue()


def find_arrays(stem: Path) -> Path | None:
    """Give the file of one crossbar in whatever format it is there; None where it is not."""
    files = [path for suffix in SUFFIXES.values() if (path := stem.with_name(stem.name + suffix)).exists()]
    if len(files) > 1:
        raise DataError(f"{stem}: there are {' and '.join(path.name for path in files)}; keep one of them")
    return files[0] if files else None


def read_arrays(path: Path, shape: tuple[int, int]) -> Arrays:
    """Read the arrays of one crossbar.

    Parameters
    ----------
    path : Path
        Its suffix says the format.
    shape : tuple of int
        Rows and columns of the crossbar, for CSV.

    Raises
    ------
    DataError
        If it cannot be read.
    OptionError
        If its library is not installed.
    """
    form = next((name for name, suffix in SUFFIXES.items() if path.suffix.lower() == suffix), None)
    if form is None:
        raise DataError(f"{path}: not a file of arrays; give one of {', '.join(SUFFIXES.values())}")
    try:
        if form == "csv":
            return _read_csv(path, shape)
        if form == "npz":
            if path.is_file() and not zipfile.is_zipfile(path):  # numpy would advise to load it unsafely
                raise ValueError("it is no .npz")
            return load_arrays(path)
        if form == "hdf5":
            with _library(form).File(path, "r") as file:
                return {name: np.asarray(file[name]) for name in file}
        group = _library(form).open_group(str(path), mode="r")
        return {name: np.asarray(group[name]) for name in group.array_keys()}
    except OptionError:
        raise
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}; write it again") from None


def _read_csv(path: Path, shape: tuple[int, int]) -> Arrays:
    """Read a table of devices; several lines of one device are several reads."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    names = [cell.strip().lower() for cell in lines[0]] if lines else []
    names = [CONDUCTANCE if name.split("_")[0] in ("conductance", "g") else name for name in names]
    if names[:2] != list(_PLACES) or CONDUCTANCE not in names:
        raise DataError(f"{path}: header: got {','.join(names)[:60]!r}; use row,column,conductance")
    table = np.full((len(lines) - 1, len(names)), np.nan)
    for number, line in enumerate(lines[1:]):
        if len(line) != len(names):
            raise DataError(f"{path}: line {number + 2}: {len(line)} cells; give {len(names)}")
        try:
            table[number] = [float(cell) if cell.strip() else np.nan for cell in line]
        except ValueError:
            raise DataError(f"{path}: line {number + 2}: {','.join(line)[:60]!r} has no number") from None
    place = table[:, :2]
    bad = (place != np.floor(place)).any(1) | (place < 0).any(1) | (place >= shape).any(1)
    if bad.any():
        first = int(np.argmax(bad))
        raise DataError(
            f"{path}: line {first + 2}: row {place[first, 0]:g}, column {place[first, 1]:g}; the crossbar "
            f"has rows 0 … {shape[0] - 1} and columns 0 … {shape[1] - 1}"
        )
    flat = (place[:, 0] * shape[1] + place[:, 1]).astype(np.int64)
    # Which read of its device a line is: how many of the same device stand before it.
    order = np.argsort(flat, kind="stable")
    read = np.empty(len(flat), np.int64)
    read[order] = np.arange(len(flat)) - np.searchsorted(flat[order], flat[order])
    made: Arrays = {}
    for column, name in enumerate(names[2:], 2):
        values = np.full((int(read.max(initial=0)) + 1, shape[0] * shape[1]), np.nan)
        values[read, flat] = table[:, column]
        reads = values.reshape(-1, *shape)
        made[name] = reads if name == CONDUCTANCE and len(reads) > 1 else reads[0]
    return made

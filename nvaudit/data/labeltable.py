"""Labels of a folder of images from a table beside them: ``labels.csv`` with a row for each image."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nvaudit.errors import DataError

TABLE_NAME = "labels.csv"
MAX_BYTES = 64 << 20
"""A table of a million images has less."""

_FILE = ("file", "filename", "file_name", "image", "image_id", "img", "name", "path", "id")
_LABEL = ("label", "labels", "class", "class_id", "category", "target", "y")
_LIKE = re.compile(r"(?i)(labels?|targets?|annotations?|classes|ground_?truth|gt|y)([_-].*)?")
_FORMS = frozenset({".csv", ".tsv", ".txt", ".json", ".npy", ".xml", ".mat"})
_CURE = f"write {TABLE_NAME} with the columns file and label, a row for each image"


@dataclass(frozen=True)
class LabelTable:
    """Files in the order of the rows, as the table names them, and their labels: numbers, or names."""

    path: Path
    files: tuple[str, ...]
    labels: npt.NDArray[Any]


def read_table(path: Path) -> LabelTable:
    """Read a table of labels.

    Parameters
    ----------
    path : Path
        UTF-8; columns between commas, semicolons or tabs; with a head line that names the columns, or with
        two columns: file and label.

    Returns
    -------
    LabelTable

    Raises
    ------
    DataError
        If it cannot be read, its columns are not told, or a row is not complete.
    """
    rows = _rows(path)
    head = [cell.strip().lower() for cell in rows[0]]
    if any(cell in _FILE for cell in head) or any(cell in _LABEL for cell in head):
        columns = (_column(path, head, _FILE, "file"), _column(path, head, _LABEL, "label"))
        rows, first = rows[1:], 2
    else:
        columns, first = (0, 1), 1
        if len(head) != 2:
            raise DataError(
                f"{path}: {len(head)} columns and no head line that names them; the first line must have "
                "file and label"
            )
    files, cells = [], []
    for number, row in enumerate(rows, first):
        if len(row) != len(head) or not row[columns[0]].strip() or not row[columns[1]].strip():
            raise DataError(
                f"{path}: row {number}: {len(row)} columns, or an empty file or label: {row!r:.120}"
            )
        files.append(row[columns[0]].strip())
        cells.append(row[columns[1]].strip())
    if not files:
        raise DataError(f"{path}: has no rows; {_CURE}")
    return LabelTable(path, tuple(files), _labels(cells))


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text; {_CURE}") from error
    if len(raw) > MAX_BYTES:
        raise DataError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so it is no table of labels")
    line = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=line.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)]
    except csv.Error as error:
        raise DataError(f"{path}: not a table: {error}; {_CURE}") from error
    if not rows:
        raise DataError(f"{path}: is empty; {_CURE}")
    return rows


def _column(path: Path, head: list[str], names: tuple[str, ...], what: str) -> int:
    found = [index for index, cell in enumerate(head) if cell in names]
    if len(found) > 1:  # "id" beside "file", say
        found = [head.index(next(name for name in names if name in head))]
    if not found:
        raise DataError(f"{path}: no column {what!r}; the head line has {', '.join(map(repr, head))[:200]}")
    return found[0]


def _labels(cells: list[str]) -> npt.NDArray[Any]:
    """Whole numbers, other numbers, or names."""
    for kind in (np.int64, np.float64):
        try:
            return np.asarray([kind(cell) for cell in cells])
        except (ValueError, OverflowError):
            continue
    return np.asarray(cells)


def match_images(table: LabelTable, folder: Path, images: list[Path]) -> list[Path]:
    """Find the image of each row: by its path below the folder, else by its name, with or without suffix.

    Raises
    ------
    DataError
        If a row has no image, two rows have the same one, or an image has no row.
    """
    known: dict[str, Path] = {}
    for key in (_stem, _name, lambda image: image.relative_to(folder).as_posix()):
        counts = Counter(key(image) for image in images)
        known.update({key(image): image for image in images if counts[key(image)] == 1})
    found: dict[Path, str] = {}
    for row, name in enumerate(table.files, 1):
        image = known.get(name.replace("\\", "/").removeprefix("./"))
        if image is None:
            raise DataError(
                f"{table.path}: {name!r:.120} (label {row}) is no image of {folder}, or the name of several"
            )
        if image in found:
            raise DataError(f"{table.path}: {name!r:.120} (label {row}) has a label already")
        found[image] = name
    without = [image for image in images if image not in found]
    if without:
        raise DataError(
            f"{table.path}: {len(without)} of {len(images)} images have no label, the first: "
            f"{without[0].relative_to(folder)}; add a row for each, or move them away"
        )
    return list(found)


def _name(image: Path) -> str:
    return image.name


def _stem(image: Path) -> str:
    return image.stem


def label_like(folder: Path) -> list[str]:
    """Files of a folder that by their names hold labels."""
    return sorted(
        child.name
        for child in folder.iterdir()
        if child.suffix.lower() in _FORMS and _LIKE.fullmatch(child.stem) and child.is_file()
    )

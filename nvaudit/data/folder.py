"""Source: a folder of images, one subfolder per class, or with a table of their labels."""

from __future__ import annotations

import csv
import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nvaudit.arrays import Array
from nvaudit.data.labels import LabelRules
from nvaudit.data.preprocess import FILE_NAME, Preprocess, find_preprocess, guess_layout, needed_message
from nvaudit.data.spec import InputSpec, LabelPlaces, Raw, fixed, is_float, numpy_dtype, shape_text
from nvaudit.data.store import ScratchStore, sealed
from nvaudit.errors import DataError

TABLE_NAME = "labels.csv"
MAX_BYTES = 64 << 20
"""A table of a million images has less."""

FILE_HEADS = (
    "file", "filename", "file_name", "image", "image_file", "image_name", "image_path", "image_id", "img",
    "name", "path", "file_path", "filepath", "id",
)  # fmt: skip
"""What the column of the files is called, the most telling first."""
LABEL_HEADS = ("label", "labels", "class", "class_id", "category", "target", "y", "text", "transcription")
"""What the column of the labels is called, the most telling first."""
_LIKE = re.compile(r"(?i)(labels?|targets?|annotations?|classes|ground_?truth|gt|y)([_-].*)?")
_FORMS = frozenset({".csv", ".tsv", ".txt", ".json", ".npy", ".xml", ".mat"})
_CURE = f"write {TABLE_NAME} with the columns file and label, a row for each image"


@dataclass(frozen=True)
class LabelTable:
    """Files in the order of the rows, as the table names them, and their labels: numbers, or names.

    ``kind`` tells labels that numbers alone do not: ``boxes``, or ``ragged`` rows; ``places`` where each of
    them stands; ``notes`` what was assumed.
    """

    path: Path
    files: tuple[str, ...]
    labels: npt.NDArray[Any]
    places: LabelPlaces
    kind: Literal["boxes", "ragged"] | None = None
    notes: tuple[str, ...] = ()


def read_table(
    path: Path, column: str | None = None, *, text: bool = False, files: bool = True
) -> LabelTable:
    """Read a table of labels.

    Parameters
    ----------
    path : Path
        UTF-8; columns between commas, semicolons or tabs; with a head line that names the columns, or with
        two columns: file and label.
    column : str or None
        The column of the labels, as the head line names it; None: the one that is called so.
    text : bool
        Labels are texts, also where they look like numbers.
    files : bool
        A column of files is needed; else rows may be in the order of the samples.

    Raises
    ------
    DataError
        If it cannot be read, its columns are not told, or a row is not complete.
    """
    numbered = _rows(path)
    written = [cell.strip() for cell in numbered[0][1]]
    head, body, names = [cell.lower() for cell in written], numbered[1:], -1
    if column is not None:
        wanted = column.strip().lower()
        if wanted not in head:
            listed = ", ".join(map(repr, written))[:200]
            raise DataError(f"{path}: no column {column!r} (--label-column); the head line has {listed}")
        label = head.index(wanted)
        if files or any(cell in FILE_HEADS for cell in head if cell != wanted):
            others = ["" if cell.lower() == wanted else cell for cell in written]
            names = _column(path, others, FILE_HEADS, "file")
    elif any(cell in FILE_HEADS for cell in head) or any(cell in LABEL_HEADS for cell in head):
        label = _column(path, written, LABEL_HEADS, "label")
        if files or any(cell in FILE_HEADS for cell in head):
            names = _column(path, written, FILE_HEADS, "file")
    else:
        names, label, body = 0, 1, numbered
        written = ["column 1", "column 2"]
        if len(head) != 2:
            raise DataError(
                f"{path}: {len(head)} columns and no head line that names them; the first line must have "
                "file and label"
            )
    for number, row in body:
        _check_row(path, number, row, written, (label,) if names < 0 else (names, label), text)
    if not body:
        raise DataError(f"{path}: has no rows; {_CURE}")
    cells = [row[label].strip() for _, row in body]
    found = () if names < 0 else tuple(row[names].strip() for _, row in body)
    called = written[label] if body is numbered else f"column {written[label]!r}"
    places = LabelPlaces(str(path), called, "row", tuple(number for number, _ in body))
    return LabelTable(path, found, np.asarray(cells) if text else _labels(cells), places)


def _check_row(
    path: Path, number: int, row: list[str], heads: list[str], columns: tuple[int, ...], text: bool
) -> None:
    """Refuse a row with too few or too many cells, or without its file or label."""
    if len(row) != len(heads):
        raise DataError(
            f"{path}: row {number}: {len(row)} columns, and the first row has {len(heads)}: {row!r:.120}; "
            "put quotes round what holds a separator"
        )
    empty = next((column for column in columns if not row[column].strip()), None)
    if empty is not None:
        cure = "; a text that is empty is written in JSON lines" if text else ""
        raise DataError(f"{path}: row {number}: {heads[empty]!r} is empty: {row!r:.120}{cure}")


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows that hold anything, each with its number as a spreadsheet counts."""
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
        read = enumerate(csv.reader(io.StringIO(text), delimiter=delimiter), 1)
        rows = [(number, row) for number, row in read if any(row)]
    except csv.Error as error:
        raise DataError(f"{path}: not a table: {error}; {_CURE}") from error
    if not rows:
        raise DataError(f"{path}: is empty; {_CURE}")
    return rows


def _column(path: Path, written: list[str], names: tuple[str, ...], what: str) -> int:
    head = [cell.lower() for cell in written]
    columns = [index for index, cell in enumerate(head) if cell in names]
    if len(columns) > 1:  # "id" beside "file", say
        # By the order of `names`, the most telling first.
        columns = [head.index(next(name for name in names if name in head))]
    if not columns:
        listed = ", ".join(repr(cell) for cell in written if cell)[:200]
        known = f"call it {names[0]} (or {', '.join(names[1:6])}, …)"
        known += ", or name it with --label-column" if what == "label" else ""
        raise DataError(f"{path}: no column {what!r}; the head line has {listed}; {known}")
    return columns[0]


def _labels(cells: list[str]) -> npt.NDArray[Any]:
    """Whole numbers, other numbers, or names."""
    for kind in (np.int64, np.float64):
        try:
            return np.asarray([kind(cell) for cell in cells])
        except (ValueError, OverflowError):
            continue
    return np.asarray(cells)


def match_images(table: LabelTable, folder: Path, images: list[Path]) -> list[Path]:
    """Find the image of each row: by its path, else by its name, with or without suffix.

    A path may begin anywhere above the folder: ``c/a.png`` and ``b/c/a.png`` are ``a.png`` in ``b/c``.

    Raises
    ------
    DataError
        If a row has no image, two rows have the same one, or an image has no row.
    """
    known: dict[str, Path] = {}
    # What names an image most precisely comes last, so that it wins; each counts only where it names one
    # image.
    keys: tuple[Callable[[Path], str], ...] = (
        lambda image: image.stem,
        lambda image: image.name,
        lambda image: image.relative_to(folder).as_posix(),
    )
    for key in keys:
        counts = Counter(key(image) for image in images)
        known.update({key(image): image for image in images if counts[key(image)] == 1})
    image_rows: dict[Path, str] = {}
    for row, name in enumerate(table.files):
        image = known.get(_below_folder(name, folder, known))
        if image is None:
            raise DataError(
                f"{table.path}: {table.places.of(row)}: {name!r:.120} is no image of {folder}, or the name "
                "of several"
            )
        if image in image_rows:
            raise DataError(f"{table.path}: {table.places.of(row)}: {name!r:.120} has a label already")
        image_rows[image] = name
    without = [image for image in images if image not in image_rows]
    if without:
        raise DataError(
            f"{table.path}: {len(without)} of {len(images)} images have no label, the first: "
            f"{without[0].relative_to(folder)}; add a row for each, or move them away"
        )
    return list(image_rows)


def _below_folder(name: str, folder: Path, known: Mapping[str, Path]) -> str:
    """The name of an image without the folders that lead to it, as far as they are those of the data."""
    name = name.replace("\\", "/").removeprefix("./")
    parts, above = PurePosixPath(name).parts, folder.absolute().parts
    cuts = (cut for cut in range(1, len(parts)) if parts[:cut] == above[-cut:])
    rest = ("/".join(parts[cut:]) for cut in cuts)
    return name if name in known else next((one for one in rest if one in known), name)


def label_like(folder: Path) -> list[str]:
    """Files of a folder that by their names hold labels."""
    return sorted(
        child.name
        for child in folder.iterdir()
        if child.suffix.lower() in _FORMS and _LIKE.fullmatch(child.stem) and child.is_file()
    )


SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
_EIGHT_BIT = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"})
Skipped = list[tuple[str, str]]


_NO_CLASS = frozenset(
    ("images", "image", "imgs", "img", "data", "pictures", "photos", "samples", "test", "train",
     "val", "valid")
)  # fmt: skip
"""Names of a subfolder that, alone, says that it holds images, not what is on them."""


def class_folders(path: Path) -> list[Path]:
    """Subfolders of `path`, hidden ones left out, sorted by name."""
    return sorted(child for child in path.iterdir() if not child.name.startswith(".") and child.is_dir())


def holds_images(path: Path) -> bool:
    """Whether a folder has images itself, not in subfolders."""
    return any(child.suffix.lower() in SUFFIXES for child in path.iterdir())


def read_folder(
    path: Path,
    specs: tuple[InputSpec, ...],
    limit: int | None,
    store: ScratchStore,
    given: LabelTable | None = None,
    rules: LabelRules | None = None,
) -> Raw:
    """Decode the images of a folder into one uint8 array [N, H, W, C] in the scratch folder.

    Labels are those that are ``given``, else those of ``labels.csv`` in the folder, or beside a folder that
    holds nothing but images; without it they are the subfolders: the samples take one image of each class in
    turn, so that the first `limit` of them are balanced. Images without either have no labels.

    Raises
    ------
    DataError
        If the model takes more than one input, the preprocessing is not stated, Pillow is missing, an
        image has another size than the model takes and no ``size`` is stated, no image is readable, or
        it is not told which label an image has.
    """
    spec = _only_input(path, specs)
    preprocess = find_preprocess(
        (path / FILE_NAME, *([path.parent / FILE_NAME] if holds_images(path) else []))
    )
    if preprocess is None:
        if is_float(numpy_dtype(spec)):
            raise DataError(
                needed_message(str(path), spec.name, "uint8 images", spec.dtype, path / FILE_NAME)
            )
        preprocess = Preprocess()
    pillow = _pillow(path)
    skipped: Skipped = []
    table = given or _table_of(path, rules or LabelRules())
    files, labels, names, notes = _labelled_files(path, table, preprocess, skipped)
    target = _Target(path, spec, preprocess, pillow)
    images, kept, factors = _decode(path, files, limit, target, store, skipped)
    if labels is not None:
        labels = labels[kept]
        if table is not None and table.kind == "boxes":  # they are of the stored images
            labels = labels.copy()
            labels[..., :4] *= np.tile(factors, 2)[:, None]
    return Raw(
        inputs={spec.name: images},
        labels=labels,
        label_kind=None if table is None else table.kind,
        places=None if table is None else table.places.take(kept),
        source=str(path),
        preprocess_paths=(path / FILE_NAME,),
        preprocess=preprocess,
        stored="NHWC",
        notes=notes,
        skipped=tuple(skipped),
        # A table's texts need be no names of classes: a metric of the user's own is given what is there.
        names=() if table is not None and rules is not None and rules.given else names,
    )


def _table_of(path: Path, rules: LabelRules) -> LabelTable | None:
    """The table of labels in a folder, or beside one that holds images itself."""
    for table in (path / TABLE_NAME, *([path.parent / TABLE_NAME] if holds_images(path) else [])):
        if table.is_file():
            return read_table(table, rules.column, text=rules.kind == "text")
    return None


def _labelled_files(
    path: Path, table: LabelTable | None, preprocess: Preprocess, skipped: Skipped
) -> tuple[list[Path], Array | None, tuple[str, ...], tuple[str, ...]]:
    """Images, the label of each, the names of all classes where labels are names, and what was assumed."""
    flat = holds_images(path)
    if table is not None:
        images, labels, notes = _by_table(path, table, preprocess, skipped)
        known = np.unique(labels).tolist() if labels.dtype.kind == "U" else ()
        return images, labels, tuple(known), notes
    like, folders = label_like(path), class_folders(path)
    cure = f"write {TABLE_NAME} with the columns file and label, a row for each image"
    if like and (flat or len(folders) < 2):
        raise DataError(f"{path / like[0]}: labels of images are not read from it; {cure}, or move it away")
    if flat:
        if folders:
            raise DataError(f"{path}: holds images and subfolders, so it is not told what their classes are")
        images = _below(path, path, skipped)
        return images, None, (), ("images without class subfolders: no labels",)
    if preprocess.classes is None and len(folders) == 1 and folders[0].name.lower() in _NO_CLASS:
        raise DataError(
            f"{path}: its only subfolder is {folders[0].name!r}, which names no class, so every image would "
            f"be of class 0; {cure}, or give {folders[0]} as the data for an audit without labels"
        )
    names, notes = _class_names(path, preprocess)
    turns = list(_in_turn([_images(path, name, skipped) for name in names]))
    notes += tuple(f"{name} is not read: the labels are the subfolders" for name in like)
    files, places = [file for file, _ in turns], np.asarray([place for _, place in turns], np.int64)
    if preprocess.classes is not None:
        return files, places, (), notes
    numbers, more = _numbers(names)
    if numbers is None:  # which class a name is, the model's own list or the number of its classes tells
        return files, np.asarray(names)[places], names, notes + more
    return files, np.asarray(numbers, np.int64)[places], (), notes + more


def _by_table(
    path: Path, table: LabelTable, preprocess: Preprocess, skipped: Skipped
) -> tuple[list[Path], Array, tuple[str, ...]]:
    if not table.files:
        raise DataError(
            f"{table.path}: names no files, so it is not told which image a label is of; add a column file"
        )
    images = match_images(table, path, _below(path, path, skipped))
    labels, notes = table.labels, (f"labels from {table.path.name}, in the order of its rows", *table.notes)
    if labels.dtype.kind == "U" and preprocess.classes is not None:
        strange = sorted(set(labels.tolist()) - set(preprocess.classes))
        if strange:
            row = table.places.of(labels.tolist().index(strange[0]))
            raise DataError(
                f"{table.places}: {row}: label {strange[0]!r:.80} is not among the {len(preprocess.classes)} "
                f"classes of {FILE_NAME}"
            )
        labels = np.asarray([preprocess.classes.index(name) for name in labels.tolist()], np.int64)
    return images, labels, notes


def _only_input(path: Path, specs: tuple[InputSpec, ...]) -> InputSpec:
    if len(specs) != 1 or specs[0].batch_axis != 0:
        listed = ", ".join(f"{spec.name!r} {shape_text(spec)}" for spec in specs)
        raise DataError(
            f"{path}: a folder of images feeds one input with the batch first, and the model takes {listed}; "
            "store the inputs in an .npz"
        )
    return specs[0]


def _pillow(path: Path) -> ModuleType:
    try:
        import PIL.Image
    except ImportError as error:
        raise DataError(f"{path}: reading images needs Pillow; run: pip install 'nvaudit[images]'") from error
    module: ModuleType = PIL.Image
    return module


def _class_names(path: Path, preprocess: Preprocess) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Subfolders in the order of their labels as far as the folder tells, and what was assumed."""
    names = tuple(folder.name for folder in class_folders(path))
    if preprocess.classes is None:
        return names, ()
    stray = [name for name in names if name not in preprocess.classes]
    if stray:
        raise DataError(
            f"{path / FILE_NAME}: classes: subfolder {stray[0]!r} is not among "
            f"the {len(preprocess.classes)} classes; add it, or move it away"
        )
    absent = [name for name in preprocess.classes if name not in names]
    return preprocess.classes, ((f"classes without a subfolder: {', '.join(absent)}",) if absent else ())


def _numbers(names: tuple[str, ...]) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Class numbers that names of subfolders are, if they are; and what was assumed.

    Names 1 to n may count from 1, and training tools that sort names as text have "10" before "2": both are
    told by the number of classes alone, as words are.
    """
    if not all(name.isdecimal() for name in names):
        return None, ()
    values = tuple(map(int, names))
    count, ordered = len(values), sorted(values)
    if ordered == list(range(count)) and list(values) == ordered:
        return values, ()
    if ordered in (list(range(count)), list(range(1, count + 1))):
        if list(values) == ordered:
            return None, ()
        return None, (
            f"classes are numbered in text order ({', '.join(names[:4])}, …), not by value; "
            f"state classes in {FILE_NAME} for another order",
        )
    return values, ("the subfolders are numbers, and not of all classes: taken as the classes' own numbers",)


def _images(path: Path, name: str, skipped: Skipped) -> list[Path]:
    top = path / name
    if not top.is_dir():
        return []
    # os.walk follows no links below the top, but the top itself may be one: it would give every image once
    # more.
    if path.resolve().is_relative_to(top.resolve()):
        skipped.append((name, "a link to a folder that holds this one"))
        return []
    return _below(path, top, skipped)


def _below(path: Path, top: Path, skipped: Skipped) -> list[Path]:
    """Images of a folder and its subfolders, links to folders left out."""
    files: list[Path] = []
    for folder, children, leaves in os.walk(top, followlinks=False):
        children.sort()
        for leaf in sorted(leaves):
            file = Path(folder) / leaf
            if leaf.startswith(".") or (file.parent == path and leaf in (FILE_NAME, TABLE_NAME)):
                continue
            if file.suffix.lower() not in SUFFIXES:
                skipped.append((str(file.relative_to(path)), "not an image by its name"))
            else:
                files.append(file)
    return files


def _in_turn(classes: list[list[Path]]) -> Iterator[tuple[Path, int]]:
    for row in zip_longest(*classes):
        for label, file in enumerate(row):
            if file is not None:
                yield file, label


class _Target:
    """How images of this folder are decoded: colour mode, and the size that they must have."""

    def __init__(self, path: Path, spec: InputSpec, preprocess: Preprocess, pillow: ModuleType) -> None:
        self.pillow = pillow
        self.resize = preprocess.size
        self.pad = preprocess.pad if preprocess.fit == "pad" else None
        self.factors = (1.0, 1.0)
        shape = spec.shape or (None,) * 4
        layout = preprocess.layout or guess_layout(shape)
        if len(shape) == 4 and layout is None:
            raise DataError(
                f"{path / FILE_NAME}: layout: input {spec.name!r} is {shape_text(spec)}, which does not tell "
                'the channels; state "layout": "NCHW" or "NHWC"'
            )
        height, width, channels = _dimensions(shape, layout)
        self.size = (height, width)
        grey = preprocess.color == "L" or (preprocess.color is None and channels == 1)
        self.mode = "L" if grey else "RGB"

    def read(self, file: Path) -> npt.NDArray[np.uint8]:
        """Decode one image to uint8 [H, W, C].

        Raises
        ------
        OSError, ValueError
            If the image cannot be used.
        DataError
            If its size is not the one that the model takes.
        """
        if not file.is_file():
            raise OSError("not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A file of a few bytes may claim gigapixels: refused before it is decoded.
            warnings.simplefilter("error", self.pillow.DecompressionBombWarning)
            with self.pillow.open(file) as image:
                if image.mode not in _EIGHT_BIT:
                    raise ValueError(f"{image.mode} images have more than 8 bits a channel")
                self._check_size(file, image.height, image.width)
                pixels = image.convert(self.mode)
        self.factors = (1.0, 1.0)
        if self.resize is not None and (pixels.height, pixels.width) != self.resize:
            pixels = self._resized(pixels, *self.resize)
        array: npt.NDArray[np.uint8] = np.asarray(pixels, np.uint8)
        return array.reshape(*array.shape[:2], -1)

    def _resized(self, pixels: Any, height: int, width: int) -> Any:
        """Resize an image, keeping its aspect where it is to be padded; remember by how much, x and y."""
        size = (width, height)
        if self.pad is not None:
            ratio = min(width / pixels.width, height / pixels.height)
            size = (max(1, round(pixels.width * ratio)), max(1, round(pixels.height * ratio)))
        self.factors = (size[0] / pixels.width, size[1] / pixels.height)
        small = pixels.resize(size, self.pillow.Resampling.BILINEAR)
        if self.pad is None:
            return small
        grounds = {"L": self.pad, "RGB": (self.pad,) * 3}
        whole = self.pillow.new(self.mode, (width, height), grounds[self.mode])
        whole.paste(small, (0, 0))
        return whole

    def _check_size(self, file: Path, height: int, width: int) -> None:
        if self.resize is not None:
            return
        size = (height, width)
        if any(want is not None and want != got for want, got in zip(self.size, size, strict=True)):
            wanted = " x ".join("any" if want is None else str(want) for want in self.size)
            raise DataError(
                f"{file}: the image is {height} x {width} (height x width) and {wanted} is wanted; "
                f'state "size": [height, width] in {FILE_NAME} to resize'
            )
        # What the model leaves open, the first image settles: all samples lie in one array.
        self.size = size


def _dimensions(
    shape: tuple[int | str | None, ...], layout: str | None
) -> tuple[int | None, int | None, int | None]:
    """Height, width and channels that an input fixes; None for each that it leaves open."""
    numbers = [size if isinstance(size, int) and fixed(size) else None for size in shape]
    if len(shape) == 4:
        return (
            (numbers[2], numbers[3], numbers[1]) if layout == "NCHW" else (numbers[1], numbers[2], numbers[3])
        )
    if len(shape) == 3 and numbers[1] != 1 and numbers[2] != 1:
        return numbers[1], numbers[2], 1
    return None, None, 1


def _decode(
    path: Path,
    files: list[Path],
    limit: int | None,
    target: _Target,
    store: ScratchStore,
    skipped: Skipped,
) -> tuple[Array, npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Decode images; which of the files they are, and by what each was resized, x and y."""
    room = len(files) if limit is None else min(limit, len(files))
    out: Array | None = None
    kept: list[int] = []
    factors: list[tuple[float, float]] = []
    for index, file in enumerate(files):
        if len(kept) == room:
            break
        try:
            pixels = target.read(file)
        except DataError:
            raise
        # Pillow raises nearly anything on a damaged file: one bad image must not end the audit.
        except Exception as error:
            skipped.append((str(file.relative_to(path)), str(error)[:200] or type(error).__name__))
            continue
        if out is None:
            out = store.create(np.dtype(np.uint8), (room, *pixels.shape))
        out[len(kept)] = pixels
        kept.append(index)
        factors.append(target.factors)
    if out is None:
        reason = f"; the first of {len(skipped)} skipped: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"{path}: no readable image in its subfolders{reason}")
    return sealed(out[: len(kept)]), np.asarray(kept, np.intp), np.asarray(factors, np.float64)

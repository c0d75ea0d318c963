"""Labels in a file of their own: a table, JSON lines, or annotations as COCO has them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nvaudit.data.folder import FILE_HEADS, LABEL_HEADS, MAX_BYTES, LabelTable, read_table
from nvaudit.data.labels import LabelRules
from nvaudit.data.ragged import as_boxes, pad_rows
from nvaudit.data.spec import LabelPlaces
from nvaudit.errors import DataError
from nvaudit.files import parse_json_once

_TABLES = frozenset({".csv", ".tsv", ".txt"})
_LINES = frozenset({".jsonl", ".ndjson"})
_FORMS = (
    "a table (.csv, .tsv) with the columns file and label, JSON lines (.jsonl) such as "
    '{"file": "a.png", "label": "text"} or {"file": "a.png", "boxes": [[x1, y1, x2, y2, class]]}, or COCO '
    "annotations (.json)"
)


def read_label_file(path: Path, rules: LabelRules) -> LabelTable:
    """Read labels.

    Parameters
    ----------
    path : Path
        By its suffix: a table, JSON lines, or COCO annotations.
    rules : LabelRules
        Which column or key holds the labels, and what they are.

    Returns
    -------
    LabelTable
        In the order of the file; without names of files where it has none.

    Raises
    ------
    DataError
        If it cannot be read, or holds no such labels.
    """
    try:
        if not path.is_file():
            problem = "not a regular file" if path.exists() else "no such file"
            raise DataError(f"--labels {path}: {problem}; labels are {_FORMS}")
    except OSError as error:  # such as a name that is too long, a folder that may not be entered
        raise DataError(f"--labels {path}: cannot be read: {error.strerror or error}") from error
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        return read_table(path, rules.column, text=rules.kind == "text", files=False)
    if suffix in _LINES:
        return _from_entries(path, rules, _lines(path))
    if suffix == ".json":
        content = _parsed(path, _text(path), "")
        if isinstance(content, list):
            return _from_entries(path, rules, enumerate(content, 1), "entry")
        return _coco(path, content)
    raise DataError(f"--labels {path}: {suffix or 'no suffix'} is not a known kind; labels are {_FORMS}")


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(16 * MAX_BYTES + 1)
        if len(raw) > 16 * MAX_BYTES:
            raise DataError(f"{path}: larger than {16 * MAX_BYTES >> 20} MiB, so it holds no labels")
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text") from error


def _parsed(path: Path, text: str, place: str) -> Any:
    try:
        return parse_json_once(text)
    except ValueError as error:
        raise DataError(f"{path}: {place}{error}") from error


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            yield number, _parsed(path, line, f"line {number}: ")


def _from_entries(
    path: Path, rules: LabelRules, entries: Iterable[tuple[int, Any]], unit: str = "line"
) -> LabelTable:
    """Labels from objects, one for each sample."""
    files: list[str] = []
    values: list[Any] = []
    rows: list[int] = []
    first: str | None = None
    for number, entry in entries:
        where = f"{path}: {unit} {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{where}: {str(entry)[:60]!r} is no object; labels are {_FORMS}")
        key = _key(where, entry, rules)
        if first not in (None, key):
            raise DataError(f"{where}: has {key!r}, and those before it {first!r}")
        first = key
        name = next((entry[one] for one in FILE_HEADS if one in entry and one != key), None)
        if name is not None:
            files.append(str(name))
        if bool(files) != (name is not None):
            raise DataError(f"{where}: names no file, and others do; give each its file")
        value = _boxes(where, entry) if key == "boxes" else entry[key]
        if value is None:
            raise DataError(f"{where}: {key!r} is empty")
        values.append(value)
        rows.append(number)
    if not values:
        raise DataError(f"{path}: has no entries; labels are {_FORMS}")
    places = LabelPlaces(str(path), f"key {first!r}", unit, tuple(rows))
    if first == "boxes" or rules.kind == "boxes":
        labels = as_boxes(pad_rows(values, places, (5,)), places)
        return LabelTable(path, tuple(files), labels, places, "boxes")
    return _packed(path, tuple(files), values, rules, places)


def _key(where: str, entry: Mapping[str, Any], rules: LabelRules) -> str:
    """Which key holds the label."""
    if rules.column is not None:
        if rules.column not in entry:
            known = ", ".join(map(repr, entry))[:200]
            raise DataError(f"{where}: no key {rules.column!r} (--label-column); it has {known}")
        return rules.column
    for name in (("boxes",) if rules.kind in (None, "boxes") else ()) + LABEL_HEADS:
        if name in entry:
            return name
    listed = ", ".join(map(repr, entry))[:200]
    raise DataError(f"{where}: no label among its keys {listed}; --label-column says which is it")


def _boxes(where: str, entry: Mapping[str, Any]) -> Any:
    """Boxes with their classes, which may stand beside them as ``labels``."""
    boxes = entry["boxes"]
    kinds = next((entry[name] for name in ("labels", "classes", "category_ids") if name in entry), None)
    if not isinstance(boxes, list):
        raise DataError(f"{where}: 'boxes' is no list of [x1, y1, x2, y2, class]")
    if kinds is None:
        return boxes
    if not isinstance(kinds, list) or len(kinds) != len(boxes):
        raise DataError(f"{where}: there must be one class for each of the {len(boxes)} boxes")
    return [
        [*box[:4], kind] if isinstance(box, list) else box for box, kind in zip(boxes, kinds, strict=True)
    ]


def _packed(
    path: Path, files: tuple[str, ...], values: list[Any], rules: LabelRules, places: LabelPlaces
) -> LabelTable:
    """Texts, numbers, or lists of numbers."""
    if all(isinstance(value, str) for value in values):
        if rules.kind != "text" and "" in values:
            raise DataError(
                f"{places}: {places.of(values.index(''))}: is empty; a text may be: --label-kind text"
            )
        return LabelTable(path, files, np.asarray(values), places)
    if rules.kind == "text":
        row, wrong = next((row, one) for row, one in enumerate(values) if not isinstance(one, str))
        raise DataError(
            f'{places}: {places.of(row)}: {str(wrong)[:60]!r} is no text; put texts in quotes: "{wrong}"'
        )
    if all(map(_is_number, values)):
        return LabelTable(path, files, np.asarray(values), places)
    if all(isinstance(value, list) for value in values):
        rows = pad_rows(values, places)
        lengths = {len(value) for value in values}
        return LabelTable(path, files, rows, places, "ragged" if len(lengths) > 1 or 0 in lengths else None)
    kinds = [str if isinstance(one, str) else list if isinstance(one, list) else
             float if _is_number(one) else type(one) for one in values]  # fmt: skip
    other = next((row for row, kind in enumerate(kinds) if kind is not kinds[0]), 0)
    raise DataError(
        f"{places}: {places.of(other)}: {json.dumps(values[other])[:60]} is of another kind than "
        f"{json.dumps(values[0])[:60]} of {places.of(0)}; give all labels as text, numbers or lists"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _coco(path: Path, content: Any) -> LabelTable:
    """Annotations of objects; classes are numbered in the order of their ids, as detectors count them."""
    held = content if isinstance(content, dict) else {}
    images, annotations = held.get("images"), held.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise DataError(f"{path}: no COCO annotations: it has no 'images' and 'annotations'; {_FORMS}")
    where = f"{path}: COCO annotations"
    try:
        categories = [one["id"] for one in held.get("categories", [])]
        known = sorted(set(categories or [one["category_id"] for one in annotations]))
        names = {one["id"]: str(one["file_name"]) for one in images}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where} without {error}: {_FORMS}") from error
    order: dict[Any, int] = {one: place for place, one in enumerate(known)}
    rows: dict[Any, list[list[float]]] = {one: [] for one in names}
    empty = 0
    for number, one in enumerate(annotations):
        image, box = _annotation(f"{path}: annotations[{number}]", one, order, rows.keys())
        rows[image] += [box] if box else []
        empty += not box
    places = LabelPlaces(str(path), "annotations", "image", tuple(rows))
    labels = as_boxes(pad_rows(list(rows.values()), places, (6,)), places)
    notes = (f"{path.name}: {empty} of {len(annotations)} annotations have no area and are left out",)
    return LabelTable(path, tuple(names.values()), labels, places, "boxes", notes if empty else ())


def _annotation(
    where: str, one: Any, order: Mapping[Any, int], images: Collection[Any]
) -> tuple[Any, list[float]]:
    """Image and box of an annotation; an empty one of no area."""
    try:
        image, kind, (x, y, width, height) = one["image_id"], one["category_id"], one["bbox"]
        crowd = int(one.get("iscrowd", 0))
        numbers = all(map(_is_number, (x, y, width, height)))
        known_image, known_kind = image in images, kind in order
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        wanted = "image_id, category_id and bbox [x, y, width, height]"
        raise DataError(f"{where}: {str(one)[:80]} is no annotation; wanted {wanted}") from error
    for found, name, there in ((known_image, "image_id", image), (known_kind, "category_id", kind)):
        if not found:
            listed = "images" if name == "image_id" else "categories"
            raise DataError(f"{where}: {name} {there!r:.40} is not among the {listed} of the file")
    if not numbers or width < 0 or height < 0:
        raise DataError(f"{where}: bbox {one['bbox']!r:.80} is no [x, y, width, height] in pixels")
    box = [x, y, x + width, y + height, order[kind], crowd]
    return image, box if width > 0 and height > 0 else []

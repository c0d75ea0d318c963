"""Objects that a detector finds: from its outputs to boxes, and their mean average precision."""

from __future__ import annotations

import contextlib
import io
import threading
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Array
from nvaudit.data.ragged import rows_of
from nvaudit.errors import ModelError, OptionError

BoxLayout = Literal["xyxy", "tf", "yolox", "yolov5", "yolov8"]

MOST_BOXES = 100
"""Boxes of an image that count, the surest first, as for the COCO benchmark."""

_QUIET = threading.Lock()
_STRIDES = (8, 16, 32)
_CANDIDATES = 1000
"""Boxes among which duplicates are looked for, the surest first."""


@dataclass(frozen=True)
class BoxReader:
    """How a detector's outputs are read.

    Attributes
    ----------
    layout : str
        ``xyxy``: rows x1, y1, x2, y2, score, class, or outputs boxes, scores, classes. ``tf``: the latter
        with y1, x1, y2, x2 as shares of the image. ``yolov5``: rows centre x, y, width, height, object score
        and a score for each class. ``yolox``: the same before its grid is added. ``yolov8``: centre, size and
        a score for each class, down the columns.
    size : tuple of int
        Height and width of the input.
    least : float
        Least score of a box.
    overlap : float
        Of two boxes of a class that overlap by more (intersection over union), the less sure one is dropped,
        where the model does not do that itself.
    """

    layout: BoxLayout
    size: tuple[int, int]
    least: float = 0.001
    overlap: float = 0.65

    def read(self, outputs: list[Array], where: str) -> NDArray[np.float32]:
        """Give the boxes of a batch.

        Parameters
        ----------
        outputs : list of ndarray, batch first
            One, or boxes, scores and classes.

        Returns
        -------
        ndarray, float32, shape (sample, 100, 6)
            x1, y1, x2, y2 in pixels of the input, score, class; the surest first; filled up with NaN.

        Raises
        ------
        ModelError
            If the outputs do not have this layout.
        """
        count = len(outputs[0])
        found = np.full((count, MOST_BOXES, 6), np.nan, np.float32)
        for sample in range(count):
            boxes, scores, kinds = self._of_sample([np.asarray(one[sample]) for one in outputs], where)
            # A score that is no number is no find.
            keep = np.flatnonzero((scores >= self.least) & np.isfinite(boxes).all(axis=1))
            keep = keep[np.argsort(-scores[keep], kind="stable")]
            if self.layout.startswith("yolo"):
                keep = _apart(boxes, kinds, keep[:_CANDIDATES], self.overlap)
            keep = keep[:MOST_BOXES]
            found[sample, : len(keep), :4] = boxes[keep]
            found[sample, : len(keep), 4], found[sample, : len(keep), 5] = scores[keep], kinds[keep]
        return found

    def _of_sample(self, parts: list[Array], where: str) -> tuple[Array, Array, Array]:
        """Corners, scores and classes of one sample."""
        if len(parts) == 3:
            return self._of_three(parts, where)
        rows = parts[0].astype(np.float64)
        rows = rows.reshape(-1, rows.shape[-1]) if rows.ndim > 1 else rows[None]
        if self.layout == "yolov8":
            rows = parts[0].astype(np.float64)
            rows = rows.reshape(rows.shape[-2:]).T
            return _corners(rows[:, :4]), rows[:, 4:].max(axis=1), rows[:, 4:].argmax(axis=1)
        if self.layout in ("yolov5", "yolox"):
            if rows.shape[1] < 6:
                raise ModelError(f"{where}: rows of {rows.shape[1]} numbers are no --boxes {self.layout}")
            boxes = self._on_grid(rows[:, :4], where) if self.layout == "yolox" else rows[:, :4]
            each = rows[:, 4:5] * rows[:, 5:]
            return _corners(boxes), each.max(axis=1), each.argmax(axis=1)
        if rows.shape[1] != 6 or self.layout == "tf":
            raise ModelError(
                f"{where} has {rows.shape[1]} numbers for each box; --boxes {self.layout} reads "
                + ("boxes, scores and classes: name three outputs" if self.layout == "tf" else
                   "x1, y1, x2, y2, score, class, or three outputs with commas between them")
                + "; other layouts are yolox, yolov5, yolov8"
            )  # fmt: skip
        return rows[:, :4], rows[:, 4], rows[:, 5]

    def _of_three(self, parts: list[Array], where: str) -> tuple[Array, Array, Array]:
        boxes = parts[0].astype(np.float64).reshape(-1, 4)
        scores, kinds = (part.astype(np.float64).reshape(-1) for part in parts[1:])
        if not len(boxes) == len(scores) == len(kinds):
            raise ModelError(
                f"{where}: {len(boxes)} boxes, {len(scores)} scores and {len(kinds)} classes do not belong "
                "together; name them in this order"
            )
        if self.layout == "tf":
            height, width = self.size
            boxes = boxes[:, [1, 0, 3, 2]] * np.array([width, height, width, height])
        return boxes, scores, kinds

    def _on_grid(self, raw: Array, where: str) -> Array:
        """Add cells of the grid to centres, and bring sizes from logarithms (Z. Ge et al., YOLOX, 2021)."""
        cells = []
        for stride in _STRIDES:
            rows, columns = np.mgrid[: self.size[0] // stride, : self.size[1] // stride]
            cells.append(np.stack([columns.ravel(), rows.ravel(), np.full(rows.size, stride)], axis=1))
        grid = np.concatenate(cells)
        if len(grid) != len(raw):
            raise ModelError(
                f"{where}: {len(raw)} boxes, and an image of {self.size[0]} × {self.size[1]} has "
                f"{len(grid)} cells at strides 8, 16 and 32; choose other --boxes"
            )
        with np.errstate(over="ignore"):
            return np.concatenate(
                [(raw[:, :2] + grid[:, :2]) * grid[:, 2:], np.exp(raw[:, 2:4]) * grid[:, 2:]], axis=1
            )


def _corners(boxes: Array) -> Array:
    """From centre and size."""
    half = boxes[:, 2:4] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _apart(boxes: Array, kinds: Array, order: NDArray[np.intp], overlap: float) -> NDArray[np.intp]:
    """Non-maximum suppression, class by class: what a surer box of its class covers is dropped."""
    kept: list[int] = []
    x1, y1, x2, y2 = boxes.T
    areas = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
    while len(order) and len(kept) < MOST_BOXES:
        first, rest = order[0], order[1:]
        kept.append(int(first))
        wide = np.minimum(x2[first], x2[rest]) - np.maximum(x1[first], x1[rest])
        high = np.minimum(y2[first], y2[rest]) - np.maximum(y1[first], y1[rest])
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        union = np.maximum(areas[first] + areas[rest] - shared, 1e-12)
        order = rest[(shared / union <= overlap) | (kinds[rest] != kinds[first])]
    return np.asarray(kept, np.intp)


class MeanAveragePrecision:
    """Average precision over recall, as the COCO benchmark takes it (T.-Y. Lin et al., ECCV 2014).

    ``map`` is the mean over classes and over the least overlaps 0.5, 0.55 … 0.95; ``map50`` that at 0.5.
    Computed by pycocotools, the benchmark's own code.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.found: list[Array] = []
        self.meant: list[Array] = []

    def update(self, outputs: Array, labels: Array) -> None:
        """Take the boxes that were found, shape (sample, box, 6), and the labels."""
        self.found += rows_of(np.asarray(outputs, np.float64))
        self.meant += rows_of(np.asarray(labels))

    def compute(self) -> float:
        """Give the value over all images.

        Raises
        ------
        OptionError
            If pycocotools is not there.
        """
        try:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
        except ImportError as error:
            raise OptionError(
                f"--metric {self.name} needs pycocotools; run: pip install 'nvaudit[detection]'"
            ) from error
        if not any(len(rows) for rows in self.found):
            return 0.0
        # It says on standard output what it does; which is one for all threads.
        with _QUIET, contextlib.redirect_stdout(io.StringIO()):
            meant, found = COCO(), COCO()
            meant.dataset, found.dataset = self._as_coco(self.meant, None), self._as_coco(self.found, 4)
            meant.createIndex()
            found.createIndex()
            run = COCOeval(meant, found, "bbox")
            run.params.maxDets = [1, 10, MOST_BOXES]
            run.params.areaRng, run.params.areaRngLbl = [[0.0, 1e10]], ["all"]
            if self.name == "map50":
                run.params.iouThrs = np.array([0.5])
            run.evaluate()
            run.accumulate()
        # Precision by overlap, recall, class, area, most boxes; −1 where a class has no labels.
        precision = run.eval["precision"][:, :, :, 0, -1]
        return float(precision[precision > -1].mean())

    def _as_coco(self, images: list[Array], scores: int | None) -> dict[str, Any]:
        kinds = sorted({int(row[4]) for rows in self.meant for row in rows})
        annotations: list[dict[str, Any]] = []
        for image, rows in enumerate(images, 1):
            for row in rows.tolist():
                x1, y1, x2, y2 = row[:4]
                wide, high = max(x2 - x1, 0.0), max(y2 - y1, 0.0)
                entry = {
                    "id": len(annotations) + 1, "image_id": image, "bbox": [x1, y1, wide, high],
                    "area": wide * high, "iscrowd": 0,
                }  # fmt: skip
                if scores is None:
                    entry |= {"category_id": int(row[4]), "iscrowd": int(row[5])}
                else:
                    entry |= {"category_id": int(row[5]), "score": row[scores]}
                annotations.append(entry)
        return {
            "images": [{"id": image} for image in range(1, len(images) + 1)],
            "annotations": annotations,
            "categories": [{"id": kind} for kind in kinds],
        }

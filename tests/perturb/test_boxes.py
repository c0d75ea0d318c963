"""Boxes: layouts of detectors, suppression, and mean average precision against values worked out by hand."""

import numpy as np
import pytest

from nvaudit.data.ragged import as_boxes, pad_rows, rows_of
from nvaudit.data.spec import LabelPlaces
from nvaudit.errors import DataError, ModelError, OptionError
from nvaudit.perturb.boxes import BoxReader, MeanAveragePrecision
from nvaudit.perturb.metrics import Reading, resolve_metric

MADE_UP = LabelPlaces("made up")


def labels_of(*images):
    """Boxes of images as labels."""
    return as_boxes(pad_rows(list(images), MADE_UP, (5,)), MADE_UP)


def found_of(*images):
    """What a detector found, as the reader gives it."""
    out = np.full((len(images), 100, 6), np.nan, np.float32)
    for image, rows in enumerate(images):
        out[image, : len(rows)] = np.reshape(rows, (-1, 6))
    return out


def precision(found, meant, name="map"):
    """Mean average precision."""
    pytest.importorskip("pycocotools", reason="needs pycocotools (pip install 'nvaudit[detection]')")
    gathered = MeanAveragePrecision(name)
    gathered.update(found, meant)
    return gathered.compute()


ONE = [[10, 10, 50, 50, 0]]


def test_a_perfect_detector_has_1_and_a_blind_one_0():
    """All found at the exact place, and nothing found."""
    meant = labels_of(ONE, [[0, 0, 20, 30, 1]])
    assert precision(found_of([[10, 10, 50, 50, 0.9, 0]], [[0, 0, 20, 30, 0.8, 1]]), meant) == pytest.approx(
        1.0
    )
    assert precision(found_of([], []), meant) == 0.0


def test_overlaps_count_at_their_thresholds():
    """A box that overlaps by 0.8 is found at 0.5, 0.55 … 0.8, 7 of the 10 thresholds, and always at 0.5."""
    meant, found = labels_of(ONE), found_of([[10, 10, 50, 42, 0.9, 0]])  # 40 × 32 of 40 × 40
    assert precision(found, meant) == pytest.approx(0.7)
    assert precision(found, meant, "map50") == pytest.approx(1.0)


def test_a_false_box_above_the_true_one_halves_the_precision():
    """The surest box is wrong: precision is 1/2 wherever there is recall."""
    found = found_of([[200, 200, 240, 240, 0.95, 0], [10, 10, 50, 50, 0.9, 0]])
    assert precision(found, labels_of(ONE), "map50") == pytest.approx(0.5)


def test_a_class_counts_as_much_as_another():
    """A mean over classes that have labels; a crowd is neither found nor missed."""
    meant = labels_of([*ONE, [60, 60, 90, 90, 1]])
    assert precision(found_of([[10, 10, 50, 50, 0.9, 0]]), meant) == pytest.approx(0.5)
    crowd = labels_of([[10, 10, 50, 50, 0, 0], [60, 60, 90, 90, 0, 1]])
    assert precision(found_of([[10, 10, 50, 50, 0.9, 0]]), crowd) == pytest.approx(1.0)


def test_corners_and_three_outputs_are_the_same_boxes():
    """Rows x1, y1, x2, y2, score, class, or outputs with each; tf has y first, as shares."""
    reader = BoxReader("xyxy", (100, 200))
    rows = np.array([[[20, 10, 60, 50, 0.9, 2], [0, 0, 1, 1, 0.0, 0]]], np.float32)
    read = reader.read([rows], "out")
    assert read.shape == (1, 100, 6)
    assert read[0, 0] == pytest.approx([20, 10, 60, 50, 0.9, 2])
    assert np.isnan(read[0, 1:]).all(), "below the least score"
    three = [rows[..., :4], rows[..., 4], rows[..., 5]]
    assert np.array_equal(reader.read(three, "out"), read, equal_nan=True)
    shares = rows[..., [1, 0, 3, 2]] / np.array([100, 200, 100, 200], np.float32)
    tf = BoxReader("tf", (100, 200)).read([shares, rows[..., 4], rows[..., 5]], "out")
    assert tf[0, 0] == pytest.approx(read[0, 0])


def test_yolo_rows_are_centres_and_duplicates_are_dropped():
    """The surer of two boxes of a class stays; one of another class, or apart, stays too."""
    #        cx  cy  w   h  object  classes
    rows = [[50, 50, 20, 20, 0.9, 0.9, 0.1], [51, 50, 20, 20, 0.8, 0.9, 0.1], [50, 50, 20, 20, 0.7, 0.1, 0.9]]
    read = BoxReader("yolov5", (100, 100)).read([np.array([rows], np.float32)], "out")[0]
    kept = read[~np.isnan(read[:, 0])]
    assert kept[:, :4] == pytest.approx(np.array([[40, 40, 60, 60]] * 2))
    assert kept[:, 4:] == pytest.approx(np.array([[0.81, 0], [0.63, 1]]))
    columns = np.array([[[*row[:4], row[4] * row[5], row[4] * row[6]] for row in rows]], np.float32)
    eight = BoxReader("yolov8", (100, 100)).read([columns.transpose(0, 2, 1)], "out")[0]
    assert np.allclose(eight, read, equal_nan=True, atol=1e-5)


def test_yolox_adds_its_grid():
    """Centres are cells off the grid times the stride, sizes exponentials of it: cell (2, 1) at stride 8."""
    rows = np.zeros((1, 64 + 16 + 4, 6), np.float32)
    rows[0, 1 * 8 + 2] = [0.5, 0.25, np.log(2), np.log(3), 0.9, 1]
    read = BoxReader("yolox", (64, 64), least=0.5).read([rows], "out")[0]
    assert read[0] == pytest.approx([20 - 8, 10 - 12, 20 + 8, 10 + 12, 0.9, 0])
    with pytest.raises(ModelError, match="84 boxes, and an image of 32 × 64 has 42 cells"):
        BoxReader("yolox", (32, 64)).read([rows], "out")


def test_outputs_of_another_layout_are_refused_with_the_layouts():
    """The message says what was found and which layouts there are."""
    with pytest.raises(ModelError, match="has 84 numbers for each box; --boxes xyxy reads"):
        BoxReader("xyxy", (64, 64)).read([np.zeros((1, 10, 84))], "output 'out'")
    with pytest.raises(ModelError, match="1 boxes, 2 scores and 1 classes do not belong together"):
        BoxReader("xyxy", (64, 64)).read([np.zeros((1, 1, 4)), np.zeros((1, 2)), np.zeros((1, 1))], "out")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([50, 10, 10, 50, 0], "box 0: .* is no box; wanted x1 < x2"),
        ([10, 10, 50, 50, 0.5], "is no box"),
        ([10, 10, 50, 50], "are no boxes; a box is x1, y1, x2, y2, class"),
        ([10, 10, 50, float("nan"), 1], "holds NaN"),
    ],
)
def test_labels_that_are_no_boxes_are_refused(row, message):
    """By sample and box."""
    with pytest.raises(DataError, match=message):
        labels_of([row])


def test_rows_of_different_lengths_come_back():
    """Filling up and taking off again is the identity, for whole numbers, others, and empty rows."""
    for rows in ([[1, 2], [], [3]], [[0.5], [1.5, 2.5]], [[[1, 2]], []]):
        back = rows_of(pad_rows(rows, MADE_UP))
        assert [one.tolist() for one in back] == rows


def test_map_needs_boxes_on_both_sides():
    """Of labels and of outputs; an image set without any box has nothing to find."""
    output = found_of([])
    with pytest.raises(OptionError, match="--metric map needs boxes as outputs"):
        resolve_metric("map", output, labels_of(ONE), "boxes", reading=Reading("out"))
    with pytest.raises(DataError, match="none of the 1 images has a box"):
        resolve_metric("map", output, labels_of([]), "boxes", reading=Reading("out", boxes=True))
    metric = resolve_metric("map", output, labels_of(ONE), "boxes", reading=Reading("out", boxes=True))
    assert metric.corpus
    assert metric.higher_is_better

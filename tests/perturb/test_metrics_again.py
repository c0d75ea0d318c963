"""Metrics of tasks against a second computation of each: other code, written from the definition."""

import numpy as np
import pytest

from nvaudit.data.ragged import as_boxes, pad_rows
from nvaudit.data.spec import LabelPlaces
from nvaudit.perturb.boxes import MeanAveragePrecision
from nvaudit.perturb.corpus import accumulator
from nvaudit.perturb.metrics import Reading, resolve_metric, score
from nvaudit.rng import stream

HERE = LabelPlaces("made up")


def edits(read, meant):
    """The table of Wagner and Fischer (1974): the least edits between all beginnings of both."""
    row = list(range(len(meant) + 1))
    for i, one in enumerate(read, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(meant, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != other))
    return row[-1]


@pytest.mark.parametrize("seed", range(3))
def test_error_rates(seed):
    """Of random texts, read with random mistakes; jiwer, where it is installed, says the same."""
    pytest.importorskip("rapidfuzz", reason="needs rapidfuzz (pip install 'nvaudit[text]')")
    rng, letters = stream(seed, "test"), list("ab c")
    meant = ["".join(rng.choice(letters, rng.integers(3, 15))).strip() or "a" for _ in range(20)]
    # CTC reads a text of one step for each letter if blanks (class 0) lie between them.
    steps = np.zeros((20, 30), int)
    for row, text in zip(steps, meant, strict=True):
        said = [int(rng.integers(1, 5)) if rng.random() < 0.3 else letters.index(one) + 1 for one in text]
        row[1 : 2 * len(said) : 2] = said
    output = np.eye(5)[steps]
    read = ["".join(letters[step - 1] for step in row if step) for row in steps]
    reading = Reading("out", alphabet=tuple(letters), alphabet_of="here")
    for name, cut in (("cer", list), ("wer", str.split)):
        metric = resolve_metric(name, output, np.asarray(meant), "text", reading=reading)
        found = score(metric, output, np.asarray(meant)).mean()
        wanted = sum(edits(cut(a), cut(b)) for a, b in zip(read, meant, strict=True))
        assert found == pytest.approx(wanted / sum(len(cut(text)) for text in meant))
    jiwer = pytest.importorskip("jiwer", reason="compares with jiwer where it is installed")
    assert found == pytest.approx(jiwer.wer(meant, read))


def overlap(one, other):
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (area - shared)


def average_precision(found, meant, least):
    """Of one class: hits in the order of scores, precision at 101 recalls, the best at as much or more."""
    hits, taken = [], set()
    for _, image, box in sorted(found, key=lambda one: -one[0]):
        rivals = [
            (overlap(box, other), place)
            for place, (where, other) in enumerate(meant)
            if where == image and place not in taken
        ]
        best, place = max(rivals, default=(0.0, None))
        hits.append(best >= least)
        taken |= {place} if best >= least else set()
    right = np.cumsum(hits)
    precision, recall = right / np.arange(1, len(hits) + 1), right / len(meant)
    return np.mean([precision[recall >= one].max(initial=0) for one in np.linspace(0, 1, 101)])


@pytest.mark.parametrize("seed", range(3))
def test_mean_average_precision(seed):
    """Of random boxes of three classes, some found off their place, some doubled, some invented."""
    pytest.importorskip("pycocotools", reason="needs pycocotools (pip install 'nvaudit[detection]')")
    rng = stream(seed, "test")
    meant, found = [], []
    for _ in range(8):
        corners = rng.uniform(0, 80, (4, 2))
        boxes = np.c_[corners, corners + rng.uniform(8, 30, (4, 2)), rng.integers(0, 3, 4)]
        moved = boxes[rng.integers(0, 4, 6)]
        moved[:, :4] += rng.normal(0, 2, (6, 4))
        moved[:, 4] = np.where(rng.random(6) < 0.2, rng.integers(0, 3, 6), moved[:, 4])
        meant.append(boxes)
        found.append(np.c_[moved[:, :4], rng.random(6), moved[:, 4]])
    values = []
    for least in np.arange(50, 100, 5) / 100:
        for kind in range(3):
            each = [
                (row[4], image, row[:4]) for image, rows in enumerate(found) for row in rows if row[5] == kind
            ]
            own = [(image, row[:4]) for image, rows in enumerate(meant) for row in rows if row[4] == kind]
            values.append(average_precision(each, own, least))
    for name, wanted in (("map", np.mean(values)), ("map50", np.mean(values[:3]))):
        metric = MeanAveragePrecision(name)
        metric.update(np.asarray(found), as_boxes(pad_rows(meant, HERE), HERE))
        assert 0.05 < wanted < 0.95
        assert metric.compute() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_f1_and_intersection_over_union(seed):
    """From sets of positions, class by class; scikit-learn, where it is installed, says the same."""
    rng = stream(seed, "test")
    meant = rng.integers(0, 4, 60)
    decided = np.where(rng.random(60) < 0.6, meant, rng.integers(0, 5, 60))
    output = np.eye(5)[decided]
    found = {}
    for name in ("f1", "f1_micro", "miou"):
        gathered = accumulator(resolve_metric(name, output, meant, "class"))
        gathered.update(output, meant)
        found[name] = gathered.compute()
    sets = [(set(np.flatnonzero(meant == c)), set(np.flatnonzero(decided == c))) for c in range(4)]
    assert found["miou"] == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in sets]))
    assert found["f1"] == pytest.approx(np.mean([2 * len(a & b) / (len(a) + len(b)) for a, b in sets]))
    assert found["f1_micro"] == pytest.approx(np.mean(meant == decided))  # with one class a sample
    metrics = pytest.importorskip(
        "sklearn.metrics", reason="compares with scikit-learn where it is installed"
    )
    classes = {"labels": range(4), "average": "macro"}
    assert found["f1"] == pytest.approx(metrics.f1_score(meant, decided, **classes))
    assert found["miou"] == pytest.approx(metrics.jaccard_score(meant, decided, **classes))


def test_perplexity():
    """As torch has it: exp of its cross-entropy, which leaves out the same positions."""
    torch = pytest.importorskip("torch", reason="compares with torch where it is installed")
    rng = stream(0, "test")
    output, labels = rng.normal(size=(6, 5, 9)), rng.integers(0, 9, (6, 5))
    labels[rng.random((6, 5)) < 0.3] = -100
    reading = Reading("out", class_axis=2, scores=True, ignore=(-100,))
    gathered = accumulator(resolve_metric("perplexity", output, labels, "class", reading=reading))
    for part in (slice(0, 2), slice(2, 6)):
        gathered.update(output[part], labels[part])
    flat = torch.tensor(output).reshape(-1, 9), torch.tensor(labels).reshape(-1)
    assert gathered.compute() == pytest.approx(float(torch.nn.functional.cross_entropy(*flat).exp()))

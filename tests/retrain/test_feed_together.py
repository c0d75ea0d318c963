"""Batches of samples that influence each other: whole runs, of which the chosen samples count."""

from dataclasses import replace

import numpy as np
import pytest

from nvaudit.data import Dataset

pytest.importorskip("torch")

from nvaudit.retrain.feed import Feed, augmented
from nvaudit.rng import stream

COUNT, RUN = 20, 8


def feed(rows, together=RUN):
    x = stream(0, "test-feed").standard_normal((COUNT, 3, 8, 8)).astype(np.float32)
    labels = np.arange(COUNT)
    axes = {"x": 0}
    data = Dataset({"x": x}, frozenset(axes), axes, labels, "class", COUNT, "x", "0" * 64)
    return Feed(replace(data, together=together), np.array(rows))


def test_a_batch_holds_a_run_and_picks_its_samples():
    """Inputs are the whole run in order, labels and outputs those of the chosen rows; the last is short."""
    batches = list(feed([1, 6, 9, 17, 19]).in_order(3))
    assert [batch.inputs["x"].shape[0] for batch in batches] == [8, 8, 4]
    assert [batch.rows.tolist() for batch in batches] == [[1, 6], [9], [17, 19]]
    for batch, start in zip(batches, (0, 8, 16), strict=True):
        assert batch.labels.tolist() == batch.rows.tolist()
        assert batch.own(batch.inputs["x"]).equal(batch.inputs["x"][batch.rows - start])


def test_an_epoch_shuffles_runs_not_samples():
    """Each run once, in its own order; in one run there is one step."""
    some = feed(range(COUNT))
    orders = [[batch.rows[0] for batch in some.shuffled(64, 0, epoch)] for epoch in range(8)]
    assert all(sorted(order) == [0, 8, 16] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert (some.steps(1), feed(range(COUNT), COUNT).steps(1)) == (3, 1)
    assert all((np.diff(batch.rows) == 1).all() for batch in some.shuffled(64, 0, 0))


def test_images_of_a_run_are_augmented_alike():
    """A film is flipped and shifted as a whole, and its samples are still picked from it."""
    some = feed(range(0, COUNT, 2))
    batch = next(some.in_order(1))
    rng = stream(1, "test-feed")
    for _ in range(8):
        moved = augmented(batch, "flip+crop", some.dataset, rng)
        assert moved.places is not None
        shifts = {
            (flip, down, right)
            for flip in (False, True)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if all(
                _same(found, image, flip, down, right)
                for found, image in zip(moved.inputs["x"], batch.inputs["x"], strict=True)
            )
        }
        assert len(shifts) == 1


def _same(found, image, flip, down, right):
    """Whether an image is another one, flipped and shifted, away from the border."""
    image = image.flip(2) if flip else image
    inner = found[:, 1:-1, 1:-1]
    return inner.equal(image[:, 1 + down : 7 + down, 1 + right : 7 + right])

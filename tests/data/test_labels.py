"""Which labels are class indices, which are reference targets, and which are refused."""

import numpy as np
import pytest

from nvaudit.data.labels import take_labels
from nvaudit.data.spec import LabelPlaces
from nvaudit.data.store import ScratchStore
from nvaudit.errors import DataError

D, D_NPZ = LabelPlaces("d"), LabelPlaces("d.npz")


@pytest.fixture
def store(tmp_path):
    return ScratchStore(tmp_path)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 3, 1], np.uint8),
        np.array([0, 3, 1], np.int64),
        np.array([[0], [3], [1]], np.int32),
        np.array([0.0, 3.0, 1.0], np.float32),
    ],
    ids=["uint8", "int64", "column", "whole floats"],
)
def test_whole_non_negative_numbers_are_classes(store, labels):
    """Integers, a column of them, and whole floats are class indices in int64."""
    got, kind, _, *_ = take_labels(labels, reference=False, places=D, store=store)
    assert kind == "class"
    assert got.dtype == np.int64
    assert got.tolist() == [0, 3, 1]


def test_booleans_are_classes(store):
    """False and True are the classes 0 and 1."""
    got, kind, _, *_ = take_labels(np.array([True, False]), reference=False, places=D, store=store)
    assert (got.tolist(), kind) == ([1, 0], "class")


def test_segmentation_maps_keep_their_shape(store):
    """Integer labels [N, H, W] are one class per position."""
    maps = np.arange(24).reshape(2, 3, 4)
    got, kind, _, *_ = take_labels(maps, reference=False, places=D, store=store)
    assert kind == "class"
    np.testing.assert_array_equal(got, maps)


@pytest.mark.parametrize("labels", [np.array([0.5, 1.0]), np.array([-1.0, 1.0]), np.full((2, 3), 0.2)])
def test_other_floats_are_targets(store, labels):
    """Floating-point values that cannot be classes are reference targets, unchanged."""
    got, kind, notes, *_ = take_labels(labels, reference=False, places=D, store=store)
    assert got is labels
    assert (kind, notes) == ("reference", ("labels y are floating-point targets, not class indices",))


@pytest.mark.parametrize("dtype", [np.int64, np.float32, bool])
def test_one_hot_labels_are_refused_with_the_cure(store, dtype):
    """One-hot rows of any type are refused; the message says argmax."""
    with pytest.raises(DataError) as caught:
        take_labels(np.eye(4)[[1, 2, 0]].astype(dtype), reference=False, places=D_NPZ, store=store)
    assert str(caught.value) == (
        "d.npz: labels y: shape [3, 4] is one-hot; store class indices: y.argmax(axis=1)"
    )


@pytest.mark.parametrize("block_bytes", [16 << 20, 1])
def test_negative_classes_are_refused_with_their_place(store, monkeypatch, block_bytes):
    """The first negative label is named, whatever the block size."""
    monkeypatch.setattr("nvaudit.data.store.BLOCK_BYTES", block_bytes)
    with pytest.raises(DataError) as caught:
        take_labels(np.array([[0, 1], [2, -5]]), reference=False, places=D_NPZ, store=store)
    assert str(caught.value).startswith(
        "d.npz: labels y: -5 at [1, 1] is negative; class indices start at 0; "
    )
    assert "--ignore-label -5" in str(caught.value)


def test_labels_that_are_not_numbers_are_refused(store):
    """NaN among the labels is named with its place."""
    with pytest.raises(
        DataError, match=r"labels y: 1 of 2 values are NaN or infinite as float64, the first at \[1\]"
    ):
        take_labels(np.array([0.0, np.nan]), reference=False, places=D, store=store)


def test_absurd_class_numbers_are_refused(store):
    """A value beyond int64 does not wrap around."""
    with pytest.raises(DataError, match="d: labels y: sample 0: 18446744073709551615 is not a class index"):
        take_labels(np.array([2**64 - 1], np.uint64), reference=False, places=D, store=store)


def test_no_labels(store):
    """Without labels the kind says so."""
    assert take_labels(None, reference=False, places=D, store=store)[:3] == (None, "none", ())

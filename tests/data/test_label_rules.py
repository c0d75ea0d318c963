"""Labels that are left out, several a sample, numbers, names; and labels that must not be overlooked."""

import numpy as np
import pytest

from nvaudit.data import InputSpec, load_dataset
from nvaudit.data.labels import label_rules, take_labels
from nvaudit.data.spec import LabelPlaces
from nvaudit.data.store import ScratchStore
from nvaudit.errors import DataError

X, D = InputSpec("a", "float32", ("N", 3), 0), LabelPlaces("d")


@pytest.fixture
def take(tmp_path):
    """take_labels with rules made from a metric and the values to ignore."""

    def call(labels, metric=None, *ignore, **model):
        rules = label_rules(metric, ignore, **model)
        return take_labels(labels, reference=False, places=D, store=ScratchStore(tmp_path), rules=rules)

    return call


@pytest.mark.parametrize("void", [-1, -100])
def test_negative_voids_are_recognised(take, void):
    """They are not scored, which is said with their number."""
    read = take(np.array([[0, 1], [void, 2]]))
    assert (read.kind, read.ignored) == ("class", (void,))
    assert f"{void} stands for no label: 1 of 4 positions are not scored" in read.notes[0]


def test_other_voids_are_given(take):
    """With --ignore-label any number is left out, also where labels are whole floats."""
    assert take(np.array([0, 255, 1]), None, 255).ignored == (255,)
    assert take(np.array([0.0, -7.0, 1.0]), None, -7).kind == "class"
    assert take(np.array([0, 1]), None, 255).notes == ("--ignore-label 255: no label is 255",)


def test_minus_one_and_one_are_not_taken_for_voids(take):
    """Two classes may be meant: refused, unless it is said, or the model decides so itself."""
    labels = np.array([-1, 1, 1])
    with pytest.raises(DataError, match="two classes, or one class and samples without a label"):
        take(labels)
    assert take(labels, None, -1).ignored == (-1,)
    assert take(labels, None, decided=True).ignored == ()
    assert take(labels, None, numbers=(-1, 1)).values.tolist() == [0, 1, 1]


def test_numbers_are_targets_where_mse_is_asked_for(take):
    """Whole, negative and one-hot numbers alike; they are handed over as they are."""
    for labels in (np.array([18, 77]), np.array([-3, 4]), np.eye(3), np.array([20.0, 30.0])):
        read = take(labels, "mse")
        assert (read.kind, read.values is labels) == ("reference", True)
    assert "taken as targets" in take(np.array([18, 77]), "mse").notes[0]


def test_a_metric_of_ones_own_sees_labels_as_they_are(take):
    """Voids of any kind, one-hot rows, and numbers that are no classes."""
    assert take(np.array([[0, -100]]), "mine:f").values.tolist() == [[0, -100]]
    assert take(np.eye(3), "mine:f").values.tolist() == np.eye(3).tolist()
    assert take(np.array([-7, -8, 2]), "mine:f").values.tolist() == [-7, -8, 2]
    assert "as they are" in take(np.array([[0, -100]]), "mine:f").notes[0]


def test_several_labels_a_sample(take):
    """0 or 1 for each output, also where each row has one 1, and with a column of size 1."""
    assert take(np.eye(3), "multilabel").kind == "multilabel"
    assert take(np.ones((3, 1)), "multilabel").values.shape == (3, 1)


def test_names_are_numbered_by_the_models_list_or_sorted(take):
    """The order is said; sorted names hold only if these are all; a strange name is refused."""
    labels = np.array(["dog", "cat", "dog"])
    own = take(labels, None, names=("dog", "cat", "owl"))
    assert (own.values.tolist(), own.sorted_names) == ([0, 1, 0], None)
    assert "the model's own list" in own.notes[0]
    free = take(labels)
    assert (free.values.tolist(), free.sorted_names) == ([1, 0, 1], 2)
    with pytest.raises(DataError, match="'cat' is not among the model's classes 'dog', 'owl'"):
        take(labels, None, names=("dog", "owl"))


def test_the_models_own_numbers_become_places_among_its_scores(take):
    """Classes 3, 7 and 9 are the scores 0, 1 and 2; labels that are places already stay."""
    assert take(np.array([7, 9, 3]), None, numbers=(3, 7, 9)).values.tolist() == [1, 2, 0]
    assert take(np.array([0, 1, 2]), None, numbers=(3, 7, 9)).values.tolist() == [0, 1, 2]


# ---- files


@pytest.mark.parametrize("name", ["labels", "target", "Y", "y_test"])
def test_labels_under_another_name_are_not_overlooked(load, tmp_path, name):
    """In an archive and beside an x.npy: the name and the cure."""
    x, y = np.zeros((4, 3), np.float32), np.arange(4)
    np.savez(tmp_path / "d.npz", x=x, **{name: y})
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / f"{name}.npy", y)
    for path in (tmp_path / "d.npz", tmp_path / "x.npy"):
        with pytest.raises(DataError, match=f"'{name}' looks like the labels, which must be called 'y'"):
            load(path, X)


def test_names_in_files(tmp_path):
    """Text labels are read from an archive without pickle, and cut like the samples, after numbering."""
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 3), np.float32), y=np.array(["b", "c", "a"]))
    data = load_dataset(
        tmp_path / "d.npz", [X], model_path=tmp_path / "m.onnx", limit=2, scratch=tmp_path / "s"
    )
    assert data.labels.tolist() == [1, 2]
    assert (data.sorted_names, data.label_kind) == (3, "class")


def test_an_empty_cache_is_fed(load, tmp_path):
    """A dimension that the model leaves open may be 0; one that it fixes, or the samples, may not."""
    np.savez(tmp_path / "d.npz", a=np.zeros((4, 3), np.float32), past=np.zeros((4, 0, 2), np.float32))
    past = InputSpec("past", "float32", ("N", "P", 2), 0)
    assert load(tmp_path / "d.npz", X, past).inputs["past"].shape == (4, 0, 2)
    with pytest.raises(DataError, match=r"shape \[4, 0, 2\] holds no values"):
        load(tmp_path / "d.npz", X, InputSpec("past", "float32", ("N", 5, 2), 0))


def test_a_model_without_a_batch_axis_is_told(load, tmp_path):
    """The message says so, and how to export one."""
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 3), np.float32))
    with pytest.raises(DataError, match=r"one sample of shape \[3\], without a batch axis.*\[N, 3\]"):
        load(tmp_path / "d.npz", InputSpec("a", "float32", (3,), 0))


def test_synthetic_inputs_beyond_all_bounds_are_refused_with_the_shape(load, monkeypatch):
    """Before anything is written: one sample of more than a GiB, and all of them together beyond the disk."""
    with pytest.raises(DataError, match=r"input 'a': one sample of shape \[1, 8589934592\] takes 3.436e\+10"):
        load(None, InputSpec("a", "float32", ("N", 1, 2**33), 0))
    monkeypatch.setattr(ScratchStore, "free_bytes", lambda self: 10**6)
    with pytest.raises(DataError, match=r"input 'a': synthetic samples of shape \[256, 1, 65536\]"):
        load(None, InputSpec("a", "float32", ("N", 1, 2**16), 0))


@pytest.mark.parametrize("text", ['{"std": [1e-320]}', '{"scale": 1e-40}', '{"mean": 1e300}'])
def test_preprocessing_beyond_single_precision_is_refused(load, tmp_path, text):
    """No division by zero, no overflow: the key is named."""
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 3), np.uint8))
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(DataError, match=r"(std|scale|mean): .*between 1e-30 and 1e30"):
        load(tmp_path / "d.npz", X)


def test_headers_that_end_numpy_are_refused(load, tmp_path):
    """A negative size with elements of no bytes makes NumPy divide by zero in C."""
    for descr, shape in (("|V0", "(-1,)"), ("<f4", "(-4, 3)"), ("|V0", "(4,)")):
        header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        path = tmp_path / "x.npy"
        path.write_bytes(
            b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)
        )
        with pytest.raises(DataError, match=r"x\.npy: not a complete \.npy array: its header declares"):
            load(path, X)

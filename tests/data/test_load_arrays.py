"""Arrays from .npz and .npy: names, types, shapes, batches, limits, digests."""

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from nvaudit.data import InputSpec, batch, store
from nvaudit.errors import DataError, OptionError
from nvaudit.rng import stream

X = InputSpec("image", "float32", ("N", 1, 4, 4), 0)


def draw(*shape: int) -> np.ndarray:
    return stream(0, "test", "arrays").standard_normal(shape).astype(np.float32)


def test_an_npz_is_read_by_input_name_with_class_labels(tmp_path, load):
    """Arrays named as the inputs and integer labels y come back unchanged, labels as int64."""
    x, y = draw(6, 1, 4, 4), np.arange(6, dtype=np.uint8)
    np.savez_compressed(tmp_path / "d.npz", image=x, y=y)
    data = load(tmp_path / "d.npz", X)
    np.testing.assert_array_equal(data.inputs["image"], x)
    np.testing.assert_array_equal(data.labels, y)
    assert data.labels.dtype == np.int64
    assert (data.count, data.label_kind, data.source) == (6, "class", str(tmp_path / "d.npz"))
    assert (data.batched, data.batch_axes, data.notes, data.skipped) == ({"image"}, {"image": 0}, (), ())


def test_x_stands_for_the_only_batched_input(tmp_path, load):
    """x is taken when the model has one batched input; a constant input still needs its own name."""
    rate = InputSpec("sr", "int64", (), None)
    np.savez(tmp_path / "d.npz", x=draw(3, 1, 4, 4), sr=np.int64(8000))
    data = load(tmp_path / "d.npz", X, rate)
    assert data.inputs["image"].shape == (3, 1, 4, 4)
    assert data.inputs["sr"].shape == ()
    assert data.inputs["sr"] == 8000
    assert data.batched == {"image"}


def test_a_missing_input_is_refused_with_what_was_found_and_wanted(tmp_path, load):
    """The message lists the names in the file and the names that the model wants."""
    np.savez(tmp_path / "d.npz", pixels=draw(3, 1, 4, 4), y=np.zeros(3, int))
    with pytest.raises(DataError) as caught:
        load(tmp_path / "d.npz", X)
    assert str(caught.value) == (
        f"{tmp_path / 'd.npz'}: no array for input 'image': found 'pixels', 'y'; "
        "name the arrays 'image' ('x' may stand for 'image'), and the labels 'y'"
    )


def test_unknown_arrays_are_noted(tmp_path, load):
    """An extra array is no error, but the dataset says that it was not used."""
    np.savez(tmp_path / "d.npz", x=draw(3, 1, 4, 4), mean=np.zeros(1), a=np.zeros(1))
    assert load(tmp_path / "d.npz", X).notes == ("arrays not used: 'a', 'mean'",)


def test_an_input_called_y_is_an_input(tmp_path, load):
    """When the graph itself has an input y, the array y feeds it and there are no labels."""
    np.savez(tmp_path / "d.npz", y=draw(3, 2))
    data = load(tmp_path / "d.npz", InputSpec("y", "float32", ("N", 2), 0))
    assert (data.labels, data.label_kind) == (None, "none")


def test_a_recurrent_state_is_cut_along_its_own_batch_axis(tmp_path, load):
    """A state [2, N, 3] is limited and batched along axis 1, contiguously; a constant comes whole."""
    state = InputSpec("state", "float32", (2, "N", 3), 1)
    rate = InputSpec("sr", "int64", (), None)
    x, h = draw(5, 1, 4, 4), draw(2, 5, 3)
    np.savez(tmp_path / "d.npz", image=x, state=h, sr=np.array([16000]))
    data = load(tmp_path / "d.npz", X, state, rate, limit=4)
    feeds = batch(data, 1, 9)
    assert data.batch_axes == {"image": 0, "state": 1}
    np.testing.assert_array_equal(feeds["state"], h[:, 1:4])
    np.testing.assert_array_equal(feeds["image"], x[1:4])
    assert feeds["sr"].shape == ()
    assert all(feed.flags.c_contiguous for feed in feeds.values())


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (3, 4)])
def test_an_empty_batch_is_refused(tmp_path, load, start, stop):
    """A range without samples is a programming error, not an empty feed."""
    np.savez(tmp_path / "d.npz", x=draw(3, 1, 4, 4))
    data = load(tmp_path / "d.npz", X)
    with pytest.raises(ValueError, match=f"samples {start} to {stop} are not within 0 to 3"):
        batch(data, start, stop)


def test_samples_are_taken_by_number(tmp_path, load):
    """In the order asked for, along each input's own batch axis; constant inputs stay; nothing is shared."""
    x, state, rate = draw(5, 1, 4, 4), draw(2, 5, 3), np.float32(16000)
    np.savez(tmp_path / "d.npz", image=x, state=state, rate=rate)
    specs = (X, InputSpec("state", "float32", (2, "N", 3), 1), InputSpec("rate", "float32", (), None))
    taken = load(tmp_path / "d.npz", *specs).take(np.array([3, 0, 3]))
    np.testing.assert_array_equal(taken["image"], x[[3, 0, 3]])
    np.testing.assert_array_equal(taken["state"], state[:, [3, 0, 3]])
    assert taken["rate"] == rate
    assert taken["image"].flags.writeable


def test_counts_that_disagree_are_refused_with_the_counts(tmp_path, load):
    """Inputs and labels of different lengths are named with their lengths."""
    np.savez(tmp_path / "d.npz", x=draw(3, 1, 4, 4), y=np.zeros(4, int))
    with pytest.raises(DataError, match=r"disagree on the number of samples: input 'image' 3, labels y 4$"):
        load(tmp_path / "d.npz", X)


@pytest.mark.parametrize("layout", ["folder", "file", "named"])
def test_a_pair_of_npy_is_mapped_without_a_copy(tmp_path, load, layout):
    """x.npy (or <input>.npy) with y.npy is memory-mapped in place: the scratch folder stays empty."""
    name = "image" if layout == "named" else "x"
    np.save(tmp_path / f"{name}.npy", draw(6, 1, 4, 4))
    np.save(tmp_path / "y.npy", np.arange(6))
    data = load(tmp_path / "x.npy" if layout == "file" else tmp_path, X)
    assert isinstance(data.inputs["image"], np.memmap)
    assert not data.inputs["image"].flags.writeable
    assert data.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert not list((tmp_path / "scratch").rglob("*.npy"))


def test_the_limit_takes_the_first_samples(tmp_path, load):
    """A limit cuts inputs and labels; one above the count takes all; one below 1 is refused."""
    x = draw(6, 1, 4, 4)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(6))
    data = load(tmp_path / "d.npz", X, limit=2)
    np.testing.assert_array_equal(data.inputs["image"], x[:2])
    assert data.labels.tolist() == [0, 1]
    assert load(tmp_path / "d.npz", X, limit=9).count == 6
    with pytest.raises(OptionError, match=r"^limit: must be 1 or more, got 0$"):
        load(tmp_path / "d.npz", X, limit=0)


@pytest.mark.parametrize(
    ("wanted", "stored"), [("float32", np.float64), ("float16", np.float32), ("bfloat16", np.float32)]
)
def test_another_float_type_is_converted_with_a_note(tmp_path, load, wanted, stored):
    """float64 and other float types are rounded to what the model takes."""
    x = draw(4, 3).astype(stored)
    np.savez(tmp_path / "d.npz", x=x)
    data = load(tmp_path / "d.npz", InputSpec("a", wanted, ("N", 3), 0))
    dtype = getattr(ml_dtypes, wanted, wanted)
    assert data.inputs["a"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(data.inputs["a"], x.astype(dtype))
    assert data.notes == (f"input 'a': {x.dtype} converted to {wanted}",)


@pytest.mark.parametrize("stored", [">f4", "fortran"])
def test_foreign_byte_order_and_fortran_order_are_brought_to_ours(tmp_path, load, stored):
    """The values are the same and the array is contiguous and native."""
    x = draw(4, 3)
    np.save(tmp_path / "x.npy", x.astype(">f4") if stored == ">f4" else np.asfortranarray(x))
    array = load(tmp_path / "x.npy", InputSpec("a", "float32", ("N", 3), 0)).inputs["a"]
    np.testing.assert_array_equal(array, x)
    assert array.dtype == np.float32
    assert array.dtype.isnative
    assert array.flags.c_contiguous


def test_integers_are_converted_when_every_value_fits(tmp_path, load):
    """Token ids widen or narrow without a change of value; one out of range is named."""
    spec = InputSpec("ids", "int32", ("N", "L"), 0)
    np.savez(tmp_path / "d.npz", ids=np.array([[1, 2], [3, 4]]))
    assert load(tmp_path / "d.npz", spec).inputs["ids"].dtype == np.int32
    np.savez(tmp_path / "d.npz", ids=np.array([[1, 2], [3, 2**40]]))
    with pytest.raises(DataError, match=r"takes int32 \(-2147483648 to 2147483647\).* 1 to 1099511627776"):
        load(tmp_path / "d.npz", spec)


def test_booleans_take_zero_and_one_only(tmp_path, load):
    """A mask stored as integers is accepted if it is a mask."""
    spec = InputSpec("mask", "bool", ("N", 2), 0)
    np.savez(tmp_path / "d.npz", mask=np.array([[0, 1], [1, 1]]))
    assert load(tmp_path / "d.npz", spec).inputs["mask"].tolist() == [[False, True], [True, True]]
    np.savez(tmp_path / "d.npz", mask=np.array([[0, 1], [1, 2]]))
    with pytest.raises(DataError, match=r"takes bool \(0 to 1\) and the data hold 0 to 2"):
        load(tmp_path / "d.npz", spec)


def test_floats_do_not_feed_an_integer_input(tmp_path, load):
    """Rounding would be a guess, so it is refused."""
    np.savez(tmp_path / "d.npz", ids=draw(2, 2))
    with pytest.raises(DataError, match=r"input 'ids' takes int64 and the data are float32; store int64$"):
        load(tmp_path / "d.npz", InputSpec("ids", "int64", ("N", 2), 0))


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ((5, 4, 4), ("N", 1, 4, 4)),
        ((5, 4, 4, 1), ("N", 1, 4, 4)),
        ((5, 16), (1, 16, 1)),
        ((5, 4, 1), ("N", "L")),
    ],
)
def test_dimensions_of_size_one_are_added_and_removed_with_a_note(tmp_path, load, stored, wanted):
    """The elements and their order stay the same; only size-1 dimensions differ."""
    x = draw(*stored)
    np.savez(tmp_path / "d.npz", x=x)
    data = load(tmp_path / "d.npz", InputSpec("a", "float32", wanted, 0))
    array = data.inputs["a"]
    assert array.ndim == len(wanted)
    np.testing.assert_array_equal(array.ravel(), x.ravel())
    assert data.notes == (f"input 'a': shape {list(stored)} read as {list(array.shape)}",)


@pytest.mark.parametrize(
    ("stored", "wanted", "hint"),
    [
        (
            (5, 8, 8, 3),
            ("N", 3, 8, 8),
            "; a transpose would fit: store x.transpose(0, 3, 1, 2) (NHWC to NCHW)",
        ),
        (
            (5, 3, 8, 8),
            ("N", 8, 8, 3),
            "; a transpose would fit: store x.transpose(0, 2, 3, 1) (NCHW to NHWC)",
        ),
        ((5, 4, 4), ("N", 16), "; a sample has as many elements: store x.reshape(len(x), 16)"),
        ((5, 3, 9, 9), ("N", 3, 8, 8), ""),
        ((5, 3), (None, 3, 8, -1), ""),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_with_a_hint(tmp_path, load, stored, wanted, hint):
    """The message gives both shapes, and the transpose or reshape that would fit."""
    np.savez(tmp_path / "d.npz", x=draw(*stored))
    shown = "[" + ", ".join("N" if i == 0 else "?" if w == -1 else str(w) for i, w in enumerate(wanted)) + "]"
    with pytest.raises(DataError) as caught:
        load(tmp_path / "d.npz", InputSpec("a", "float32", wanted, 0))
    shapes = f"the data have shape {list(stored)} and the model takes {shown}"
    assert str(caught.value) == f"{tmp_path / 'd.npz'}: input 'a': {shapes}{hint}"


def test_an_input_of_unknown_rank_takes_any_shape(tmp_path, load):
    """A model that does not state a shape is fed as the data are."""
    np.savez(tmp_path / "d.npz", x=draw(5, 2, 7))
    assert load(tmp_path / "d.npz", InputSpec("a", "float32", None, 0)).inputs["a"].shape == (5, 2, 7)


def test_text_inputs_are_refused(tmp_path, load):
    """A string input cannot be fed."""
    np.savez(tmp_path / "d.npz", x=draw(5, 2))
    with pytest.raises(DataError, match=r"^input 'a': element type 'object' cannot be fed"):
        load(tmp_path / "d.npz", InputSpec("a", "object", ("N", 2), 0))


def test_the_digest_tells_data_apart(tmp_path, load):
    """Equal data have equal digests, however stored; a value, a label, a name or a cut changes it."""
    x, y = draw(6, 3), np.arange(6)
    spec = InputSpec("a", "float32", ("N", 3), 0)

    def digest(spec: InputSpec = spec, limit: int | None = None, **arrays: np.ndarray) -> str:
        np.savez(tmp_path / "d.npz", **arrays)
        return load(tmp_path / "d.npz", spec, limit=limit).digest

    same = digest(x=x, y=y)
    assert re.fullmatch("[0-9a-f]{64}", same)
    assert digest(a=np.asfortranarray(x), y=y.astype(np.int8)) == same
    changed = x.copy()
    changed[5, 2] += 1
    others = [
        digest(x=changed, y=y),
        digest(x=x, y=y[::-1]),
        digest(x=x),
        digest(x=x, y=y, limit=5),
        digest(InputSpec("b", "float32", ("N", 3), 0), x=x, y=y),
    ]
    assert len({same, *others}) == 6


def test_conversion_block_by_block_equals_conversion_at_once(tmp_path, load, monkeypatch):
    """The size of the blocks changes neither the values nor the digest."""
    x = draw(50, 7).astype(np.float64)
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(50, dtype=np.int16))
    spec = InputSpec("a", "float32", ("N", 7), 0)
    whole = load(tmp_path / "d.npz", spec)
    monkeypatch.setattr(store, "BLOCK_BYTES", 20)
    pieces = load(tmp_path / "d.npz", spec)
    np.testing.assert_array_equal(pieces.inputs["a"], x.astype(np.float32))
    assert pieces.digest == whole.digest


def test_nothing_of_the_source_is_changed(tmp_path, load):
    """Loading leaves the files as they were, and the arrays cannot be written through."""
    path = tmp_path / "x.npy"
    np.save(path, draw(4, 3))
    before = path.read_bytes()
    array = load(path, InputSpec("a", "float32", ("N", 3), 0)).inputs["a"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0
    assert path.read_bytes() == before


def test_the_same_scratch_folder_serves_twice(tmp_path, load):
    """A second load does not overwrite the arrays of the first."""
    spec = InputSpec("a", "float32", ("N", 3), 0)
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 3), np.float32))
    first = load(tmp_path / "d.npz", spec)
    np.savez(tmp_path / "d.npz", x=np.ones((4, 3), np.float32))
    load(tmp_path / "d.npz", spec)
    assert not first.inputs["a"].any()


@pytest.mark.reference
@pytest.mark.parametrize("name", ["mnist_fc_256x2", "mnist_lstm_keras", "mnist_cnn_pt_opset14"])
def test_real_digits_are_preprocessed_as_the_model_was_trained(tmp_path, load, shared_data: Path, name):
    """uint8 digits with their preprocessing beside them become the same floats as computed at once."""
    row = next(m for m in json.loads((shared_data / "models.json").read_text()) if m["name"] == name)
    with np.load(shared_data / "mnist.npz") as file:
        x, y = file["x_test"][:300], file["y_test"][:300]
    np.savez(tmp_path / "raw.npz", x=x, y=y)
    (tmp_path / "raw.json").write_text(json.dumps(row["preprocess"]))
    (input_name, _, shape), p = row["inputs"][0], row["preprocess"]
    expected = (x.astype(np.float32) / p["scale"] - np.float32(p["mean"])) / np.float32(p["std"])
    data = load(tmp_path / "raw.npz", InputSpec(input_name, "float32", tuple(shape), 0))
    np.testing.assert_array_equal(data.inputs[input_name], expected.reshape(-1, *shape[1:]))
    np.testing.assert_array_equal(data.labels, y)

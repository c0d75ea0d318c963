"""Synthetic inputs when there is no data, and data found beside the model."""

import numpy as np
import pytest
from scipy import stats

from nvaudit.data import InputSpec
from nvaudit.errors import DataError

A = InputSpec("a", "float32", ("N", 3, 8, 8), 0)


def test_synthetic_inputs_are_standard_normal_and_seeded(load):
    """256 samples; the same seed gives the same digest; the law is N(0, 1).

    A KS test at a fixed seed; the false-alarm rate of the threshold is 0.1 %.
    """
    data = load(None, A)
    assert (data.count, data.source, data.labels, data.label_kind) == (256, "synthetic", None, "none")
    assert data.notes == ("no data given: 256 seeded synthetic samples, no labels",)
    assert stats.kstest(np.ravel(data.inputs["a"]), "norm").pvalue > 0.001
    assert load(None, A).digest == data.digest
    assert load(None, A, seed=1).digest != data.digest


def test_a_smaller_set_is_the_head_of_a_larger_one(load):
    """The limit changes how many samples there are, not which; also on batch axis 1."""
    state = InputSpec("h", "float32", (2, "N", 4), 1)
    small, large = load(None, A, state, limit=5), load(None, A, state, limit=9)
    assert small.count == 5
    np.testing.assert_array_equal(small.inputs["a"], large.inputs["a"][:5])
    np.testing.assert_array_equal(small.inputs["h"], large.inputs["h"][:, :5])


def test_integers_and_booleans_are_zero_or_one(load):
    """Both values occur, and nothing else."""
    data = load(None, InputSpec("i", "int64", ("N", 5), 0), InputSpec("b", "bool", ("N", 5), 0))
    assert set(np.unique(data.inputs["i"])) == {0, 1}
    assert data.inputs["b"].dtype == bool
    assert 0 < data.inputs["b"].mean() < 1


def test_a_sampling_rate_and_its_frame_are_chosen_and_noted(load):
    """A 0-d sampling rate is 16000; a sequence beside it is an audio frame; both are noted."""
    data = load(
        None, InputSpec("input", "float32", ("batch", "sequence"), 0), InputSpec("sr", "int64", (), None)
    )
    assert data.inputs["sr"] == 16000
    assert data.inputs["sr"].shape == ()
    assert data.inputs["input"].shape == (256, 576)
    assert data.notes[1:] == (
        "dimension 'sequence' set to 576",
        "input 'sr' set to 16000 (sampling rate in Hz)",
    )


@pytest.mark.parametrize(
    ("shape", "expected", "notes"),
    [
        (("N", "sequence"), (256, 64), ("dimension 'sequence' set to 64",)),
        (("N", "t", "t"), (256, 64, 64), ("dimension 't' set to 64",)),
        (
            ("N", None, 5, -1),
            (256, 3, 5, 64),
            ("dimension 'a, axis 1' set to 3", "dimension 'a, axis 3' set to 64"),
        ),
        (("N", "height", 5, 3), (256, 64, 5, 3), ("dimension 'height' set to 64",)),
        (("N", "channels"), (256, 3), ("dimension 'channels' set to 3",)),
    ],
)
def test_dynamic_dimensions_are_chosen_and_noted(load, shape, expected, notes):
    """By name, else by place in an image, else 64; one name has one size."""
    data = load(None, InputSpec("a", "float32", shape, 0))
    assert data.inputs["a"].shape == expected
    assert data.notes[1:] == notes


def test_other_constants_are_one(load):
    """A constant that is no sampling rate is set to 1 and noted."""
    data = load(None, A, InputSpec("k", "int64", (), None), InputSpec("c", "float32", (2, 3), None))
    assert data.inputs["k"] == 1
    assert data.inputs["c"].shape == (2, 3)
    assert "input 'k' set to 1" in data.notes


def test_without_any_batched_input_there_is_one_sample(load):
    """Constants alone are one sample."""
    assert load(None, InputSpec("c", "float32", (2, 3), None)).count == 1


def test_an_input_without_a_shape_needs_data(load):
    """Nothing can be made for an unknown rank."""
    with pytest.raises(
        DataError, match=r"^input 'a': the model does not state its shape.* give data \(--data\)"
    ):
        load(None, InputSpec("a", "float32", None, 0))


@pytest.mark.parametrize("axis", [0, None])
def test_a_sample_of_gigabytes_is_not_made_up(load, axis):
    """Whether it is one of a batch or the same for all; a file of a few bytes can declare any size."""
    wanted = r"^input .a.: one sample of shape \[.*8589934592\] takes 3.436e\+10 bytes, .* of at most 1 GiB"
    with pytest.raises(DataError, match=wanted):
        load(None, InputSpec("b", "float32", ("N", 2), 0), InputSpec("a", "float32", (1, 2**33), axis))


def test_data_beside_the_model_are_found(tmp_path, load):
    """MODEL.npz is used when no data are named, and the dataset says so."""
    np.savez(tmp_path / "model.npz", a=np.zeros((2, 3, 8, 8), np.float32), y=np.array([0, 1]))
    data = load(None, A)
    assert (data.count, data.source) == (2, str(tmp_path / "model.npz"))
    assert data.notes == ("data found beside the model: model.npz",)


def test_a_model_without_inputs_is_refused(tmp_path, load):
    """There is nothing to feed."""
    with pytest.raises(DataError, match="the model takes no inputs, so there is nothing to feed"):
        load(None)

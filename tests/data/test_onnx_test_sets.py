"""ONNX test_data_set_* folders."""

import numpy as np
import pytest
from onnx import numpy_helper

from nvaudit.data import InputSpec
from nvaudit.errors import DataError
from nvaudit.rng import stream

A = InputSpec("a", "float32", ("N", 3), 0)
STATE = InputSpec("state", "float32", (2, "N", 4), 1)
RATE = InputSpec("sr", "int64", (), None)


def draw(tag: int, *shape: int) -> np.ndarray:
    return stream(0, "test", "sets", tag).standard_normal(shape, np.float32)


def write(folder, inputs, outputs=()):
    folder.mkdir()
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for index, array in enumerate(arrays):
            tensor = numpy_helper.from_array(np.asarray(array))
            (folder / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())


@pytest.fixture
def sets(tmp_path):
    """Eleven sets of two samples, so that text order and numeric order differ."""
    for i in range(11):
        write(
            tmp_path / f"test_data_set_{i}",
            [draw(i, 2, 3), draw(100 + i, 2, 2, 4), np.int64(16000)],
            [draw(200 + i, 2, 7)],
        )
    return tmp_path


def test_sets_are_joined_along_the_batch_axis_in_numeric_order(sets, load):
    """Inputs follow graph order; outputs are references, not class labels."""
    data = load(sets, A, STATE, RATE)
    assert data.count == 22
    np.testing.assert_array_equal(data.inputs["a"], np.concatenate([draw(i, 2, 3) for i in range(11)]))
    np.testing.assert_array_equal(
        data.inputs["state"], np.concatenate([draw(100 + i, 2, 2, 4) for i in range(11)], axis=1)
    )
    assert data.inputs["sr"] == 16000
    np.testing.assert_array_equal(data.labels, np.concatenate([draw(200 + i, 2, 7) for i in range(11)]))
    assert data.label_kind == "reference"
    assert data.notes == ("labels are reference outputs, not class labels (output_0.pb)",)


def test_one_set_can_be_named_itself(sets, load):
    """The folder of one set, and a limit within it."""
    data = load(sets / "test_data_set_3", A, STATE, RATE, limit=1)
    np.testing.assert_array_equal(data.inputs["a"], draw(3, 2, 3)[:1])
    assert data.labels.shape == (1, 7)


def test_integer_outputs_are_references_too(tmp_path, load):
    """An output of class numbers is what the model said, not the truth."""
    write(tmp_path / "test_data_set_0", [draw(0, 2, 3)], [np.array([1, 2])])
    assert load(tmp_path, A).label_kind == "reference"


def test_a_missing_input_file_is_named(sets, load):
    """The message names the file and the input that it must hold."""
    (sets / "test_data_set_7" / "input_1.pb").unlink()
    with pytest.raises(DataError) as caught:
        load(sets, A, STATE, RATE)
    assert str(caught.value) == (
        f"{sets / 'test_data_set_7'}: input_1.pb is missing: it must hold input 'state'; "
        "the model takes 3 inputs: 'a', 'state', 'sr'"
    )


def test_constants_that_differ_between_sets_are_refused(tmp_path, load):
    """A sampling rate cannot be two values at once."""
    write(tmp_path / "test_data_set_0", [draw(0, 2, 3), np.int64(8000)])
    write(tmp_path / "test_data_set_1", [draw(1, 2, 3), np.int64(16000)])
    with pytest.raises(DataError, match=r"input_1\.pb: input 'sr' has no batch dimension and differs"):
        load(tmp_path, A, RATE)


def test_sets_of_different_shapes_are_refused(tmp_path, load):
    """Only the batch axis may differ."""
    write(tmp_path / "test_data_set_0", [draw(0, 2, 3)])
    write(tmp_path / "test_data_set_1", [draw(1, 2, 4)])
    with pytest.raises(DataError, match=r"input_0\.pb: float32 \[2, 4\] does not continue float32 \[2, 3\]"):
        load(tmp_path, A)


@pytest.mark.parametrize("outputs", [[], [np.float32(1)], [np.zeros((5, 2), np.float32)]])
def test_outputs_without_a_row_per_sample_are_left_out_with_a_note(tmp_path, load, outputs):
    """Absent, scalar or otherwise shaped outputs give a dataset without labels."""
    write(tmp_path / "test_data_set_0", [draw(0, 2, 3)], outputs)
    data = load(tmp_path, A)
    assert (data.labels, data.label_kind) == (None, "none")
    assert data.notes[0].startswith("no reference outputs: output_0.pb")


def test_integers_for_a_float_input_say_what_to_store(tmp_path, load):
    """There is no preprocessing file for test sets."""
    write(tmp_path / "test_data_set_0", [np.zeros((2, 3), np.int32)])
    with pytest.raises(DataError, match=r"takes float32 and the data are int32; store float32$"):
        load(tmp_path, A)


def test_surplus_inputs_are_noted(tmp_path, load):
    """Old exporters also write initializers as inputs."""
    write(tmp_path / "test_data_set_0", [draw(0, 2, 3), draw(1, 3, 3)])
    assert "test_data_set_0: 1 input files beyond the 1 inputs not used" in load(tmp_path, A).notes


def test_a_broken_tensor_is_named(tmp_path, load):
    """The file stands in the message."""
    write(tmp_path / "test_data_set_0", [draw(0, 2, 3)])
    path = tmp_path / "test_data_set_0" / "input_0.pb"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError) as caught:
        load(tmp_path, A)
    assert str(caught.value).startswith(f"{path}: not a serialised ONNX tensor: ")

"""Integer images for a floating-point model: the stated preprocessing, the layout, and what is refused."""

import json

import numpy as np
import pytest

from nvaudit.data import InputSpec
from nvaudit.data.preprocess import guess_layout, read_preprocess
from nvaudit.errors import DataError
from nvaudit.rng import stream

NCHW = InputSpec("a", "float32", ("N", 3, 5, 6), 0)
NHWC = InputSpec("a", "float32", ("N", 5, 6, 3), 0)


def pixels(*shape: int) -> np.ndarray:
    return stream(0, "test", "pixels").integers(0, 256, shape, dtype=np.uint8)


def test_integers_for_a_float_input_need_their_preprocessing(tmp_path, load):
    """Nothing is guessed: the message says which file to write, and how."""
    np.savez(tmp_path / "d.npz", x=pixels(4, 5, 6, 3))
    with pytest.raises(DataError) as caught:
        load(tmp_path / "d.npz", NCHW)
    assert str(caught.value) == (
        f"{tmp_path / 'd.npz'}: input 'a' takes float32 and the data are uint8: no preprocessing is stated; "
        f'write {tmp_path / "d.json"}, for example {{"scale": 255, "mean": [0.0], "std": [1.0]}} '
        "(value / scale, minus mean, divided by std)"
    )


@pytest.mark.parametrize("place", ["d.json", "nvaudit.json"])
@pytest.mark.parametrize("spec", [NCHW, NHWC], ids=["NCHW", "NHWC"])
def test_pixels_are_scaled_shifted_and_moved_to_the_layout_of_the_model(tmp_path, load, place, spec):
    """(x / scale − mean) / std per channel in float32, channels where the model has them."""
    x, mean, std = pixels(4, 5, 6, 3), [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    np.savez(tmp_path / "d.npz", x=x)
    (tmp_path / place).write_text(json.dumps({"scale": 255, "mean": mean, "std": std}))
    expected = (x.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
    data = load(tmp_path / "d.npz", spec)
    if spec is NCHW:
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(data.inputs["a"], expected)
    assert data.inputs["a"].dtype == np.float32
    moved = "NHWC moved to NCHW, " if spec is NCHW else ""
    assert data.notes == (f"input 'a': {moved}(value / 255 − [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.3]",)


def test_bgr_turns_the_channels_and_the_mean_is_in_the_order_of_the_model(tmp_path, load):
    """Stored images are RGB; a BGR model gets them turned, with its own order of mean."""
    x = pixels(2, 5, 6, 3)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "x.json").write_text('{"scale": 1, "mean": [1, 2, 3], "color": "BGR"}')
    got = load(tmp_path / "x.npy", NCHW).inputs["a"]
    np.testing.assert_array_equal(got[:, 0], x[..., 2].astype(np.float32) - 1)
    np.testing.assert_array_equal(got[:, 2], x[..., 0].astype(np.float32) - 3)


def test_a_layout_that_the_model_leaves_open_is_stated(tmp_path, load):
    """With dynamic dimensions the key layout says what the model takes."""
    spec = InputSpec("a", "float32", ("N", "C", "H", "W"), 0)
    np.save(tmp_path / "x.npy", pixels(2, 5, 6, 3))
    (tmp_path / "x.json").write_text('{"layout": "NCHW"}')
    assert load(tmp_path / "x.npy", spec).inputs["a"].shape == (2, 3, 5, 6)


def test_grey_images_feed_a_dense_layer(tmp_path, load):
    """One channel has one order of elements, so [N, H, W] is flattened for a model that takes [N, H·W]."""
    x = pixels(2, 4, 4)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "x.json").write_text("{}")
    data = load(tmp_path / "x.npy", InputSpec("a", "float32", (1, 16, 1), 0))
    np.testing.assert_array_equal(data.inputs["a"], (x.astype(np.float32) / 255).reshape(2, 16, 1))
    assert "input 'a': shape [2, 4, 4] read as [2, 16, 1]" in data.notes


def test_an_integer_model_takes_integers_as_they_are(tmp_path, load):
    """A uint8 input needs no preprocessing."""
    x = pixels(2, 5, 6, 3)
    np.save(tmp_path / "x.npy", x)
    np.testing.assert_array_equal(
        load(tmp_path / "x.npy", InputSpec("a", "uint8", ("N", 5, 6, 3), 0)).inputs["a"], x
    )


def test_floats_are_not_preprocessed_again(tmp_path, load):
    """A preprocessing file beside floats is noted; a foreign JSON of that name does not matter."""
    x = stream(0, "test", "floats").standard_normal((2, 3, 5, 6), np.float32)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "x.json").write_text('{"mean": 3}')
    data = load(tmp_path / "x.npy", NCHW)
    np.testing.assert_array_equal(data.inputs["a"], x)
    assert data.notes == ("x.json is not applied: the data are not integers",)
    (tmp_path / "x.json").write_text('{"verdict": "pass"}')
    assert load(tmp_path / "x.npy", NCHW).notes == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"means": [0.5]}',
            "means: unknown key; did you mean mean? "
            "the keys are layout, size, fit, pad, scale, mean, std, color, classes",
        ),
        ('{"colour": "RGB", "scale": 0}', "scale: got 0: it should be greater than 0"),
        ('{"std": [1, 0]}', "std.1: got 0: it should be greater than 0"),
        ('{"mean": []}', "mean: got []: must not be empty"),
        ('{"mean": [NaN]}', "mean.0: got NaN: it should be a finite number"),
        ('{"layout": "CHW"}', "layout: got 'CHW': it should be 'NCHW' or 'NHWC'"),
        ('{"classes": ["a", "a"]}', 'classes: got ["a", "a"]: names a class twice'),
        (
            "[1]",
            "expected a JSON object with keys layout, size, fit, pad, scale, mean, std, color, classes, got "
            "list",
        ),
        ("{", "not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[" * 100_000, "not valid JSON: maximum recursion depth exceeded"),
        (" " * (1 << 20) + "{}", "larger than 1 MiB, so it is not a preprocessing file"),
    ],
)
def test_a_bad_preprocessing_file_is_refused_by_file_and_key(tmp_path, text, message):
    """The file, the key, the value and the cure stand in one line."""
    path = tmp_path / "nvaudit.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_preprocess(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": [1, 2]}, "mean has 2 numbers and the images have 3 channels; state 1 or 3"),
        ({"std": [1, 2, 3, 4]}, "std has 4 numbers and the images have 3 channels; state 1 or 3"),
        ({"color": "L"}, "color 'L' is stated and the images have 3 channels"),
        ({"size": 8}, "size [8, 8] is stated and the images are [2, 5, 6, 3]; arrays are not resized"),
    ],
)
def test_a_preprocessing_that_does_not_fit_the_images_is_refused(tmp_path, load, settings, message):
    """Numbers per channel, colour and size must agree with the stored images."""
    np.save(tmp_path / "x.npy", pixels(2, 5, 6, 3))
    (tmp_path / "x.json").write_text(json.dumps(settings))
    with pytest.raises(DataError) as caught:
        load(tmp_path / "x.npy", NCHW)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        (("N", 3, 32, 32), "NCHW"),
        (("N", 32, 32, 3), "NHWC"),
        ((1, 1, 28, 28), "NCHW"),
        (("N", 3, 3, 3), None),
        (("N", "C", "H", "W"), None),
        (("N", 3, 32), None),
    ],
)
def test_the_layout_is_told_by_the_channels(shape, layout):
    """Only a shape with exactly one candidate for the channel axis tells its layout."""
    assert guess_layout(shape) == layout


def test_a_key_twice(tmp_path):
    """Which of two values would hold is left open by JSON, so it is refused."""
    path = tmp_path / "nvaudit.json"
    path.write_text('{"scale": 1, "scale": 255}', encoding="utf-8")
    with pytest.raises(DataError, match=r"nvaudit\.json: scale is given twice; keep one"):
        read_preprocess(path)

"""Images in class subfolders."""

import sys

import numpy as np
import pytest

from nvaudit.data import InputSpec
from nvaudit.data.labels import LabelRules
from nvaudit.errors import DataError
from nvaudit.rng import stream

RGB = InputSpec("a", "float32", ("N", 3, 6, 5), 0)
GREY = InputSpec("a", "float32", ("N", 6, 5, 1), 0)


def picture(tag: int, *shape: int) -> np.ndarray:
    return stream(0, "test", "picture", tag).integers(0, 256, shape, dtype=np.uint8)


def test_images_are_decoded_class_by_class_in_turn(load, image_folder):
    """Pixels are exact, labels follow the sorted subfolders, and the classes take turns."""
    cats, dogs = [picture(i, 6, 5, 3) for i in range(3)], [picture(9, 6, 5, 3)]
    data = load(image_folder({"dog": dogs, "cat": cats}, {"mean": 0.5}), RGB)
    assert data.labels.tolist() == [0, 1, 0, 0]
    assert data.label_kind == "class"
    stored = np.stack([cats[0], dogs[0], cats[1], cats[2]])
    expected = (stored.astype(np.float32) / 255 - np.float32(0.5)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(data.inputs["a"], expected)


def test_the_limit_is_balanced_over_the_classes(load, image_folder):
    """The first n samples are not all of the first class."""
    folder = image_folder({c: [picture(i, 6, 5, 3) for i in range(4)] for c in "abc"}, {})
    assert load(folder, RGB, limit=6).labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_grey_and_colour_follow_the_channels_of_the_model(load, image_folder):
    """Colour images become grey for a model with one channel."""
    data = load(image_folder({"a": [picture(0, 6, 5, 3)]}, {}), GREY)
    assert data.inputs["a"].shape == (1, 6, 5, 1)


def test_images_are_resized_when_a_size_is_stated(load, image_folder):
    """Height and width come from the key size."""
    folder = image_folder({"a": [picture(0, 12, 10, 3), picture(1, 6, 5, 3)]}, {"size": [6, 5]})
    assert load(folder, RGB).inputs["a"].shape == (2, 3, 6, 5)


def test_another_size_without_a_stated_one_is_refused(load, image_folder):
    """The image, its size and the wanted size are named."""
    folder = image_folder({"a": [picture(0, 7, 5, 3)]}, {})
    with pytest.raises(DataError) as caught:
        load(folder, RGB)
    assert str(caught.value) == (
        f"{folder / 'a' / '0.png'}: the image is 7 x 5 (height x width) and 6 x 5 is wanted; "
        'state "size": [height, width] in nvaudit.json to resize'
    )


def test_images_of_two_sizes_for_a_dynamic_model_are_refused(load, image_folder):
    """Without a fixed size the first image sets it."""
    folder = image_folder({"a": [picture(0, 6, 5, 3), picture(1, 8, 5, 3)]}, {})
    with pytest.raises(DataError, match=r"1\.png: the image is 8 x 5 \(height x width\) and 6 x 5 is wanted"):
        load(folder, InputSpec("a", "float32", ("N", 3, "H", "W"), 0))


def test_a_layout_that_cannot_be_told_must_be_stated(load, image_folder):
    """A model with all dimensions dynamic needs the key layout."""
    folder = image_folder({"a": [picture(0, 6, 5, 3)]}, {})
    with pytest.raises(DataError, match='which does not tell the channels; state "layout": "NCHW" or "NHWC"'):
        load(folder, InputSpec("a", "float32", ("N", "C", "H", "W"), 0))


def test_the_preprocessing_of_a_folder_must_be_stated(load, image_folder):
    """Without nvaudit.json a float model is refused; a uint8 model takes the pixels as they are."""
    image = picture(0, 6, 5, 3)
    folder = image_folder({"a": [image]}, None)
    with pytest.raises(
        DataError, match=r"data are uint8 images: no preprocessing is stated; write .*nvaudit\.json"
    ):
        load(folder, RGB)
    raw = load(folder, InputSpec("a", "uint8", ("N", 3, 6, 5), 0))
    np.testing.assert_array_equal(raw.inputs["a"][0], image.transpose(2, 0, 1))


def test_stated_classes_give_the_label_order(load, image_folder):
    """Labels follow the key classes; one without a subfolder is noted, an unknown subfolder refused."""
    folder = image_folder(
        {"cat": [picture(0, 6, 5, 3)], "dog": [picture(1, 6, 5, 3)]}, {"classes": ["dog", "owl", "cat"]}
    )
    data = load(folder, RGB)
    assert data.labels.tolist() == [0, 2]
    assert "classes without a subfolder: owl" in data.notes
    (folder / "fox").mkdir()
    with pytest.raises(DataError, match=r"classes: subfolder 'fox' is not among the 3 classes"):
        load(folder, RGB)


def test_numbered_classes_in_text_order_are_noted(load, image_folder):
    """ "10" sorts before "2": the dataset says so."""
    data = load(image_folder({str(n): [picture(0, 6, 5, 3)] for n in range(11)}, {}), RGB)
    assert data.notes[0] == (
        "classes are numbered in text order (0, 1, 10, 2, …), not by value; "
        "state classes in nvaudit.json for another order"
    )
    assert data.labels.tolist() == list(range(11))
    assert data.sorted_names == 11


@pytest.mark.parametrize(
    ("names", "labels", "counted"),
    [
        (("cat", "dog"), [0, 1], 2),
        (("0", "1", "2"), [0, 1, 2], None),
        (("00", "01", "02"), [0, 1, 2], None),
        (("3", "7"), [3, 7], None),
        (("1", "2", "3"), [0, 1, 2], 3),
        (("7", "10"), [10, 7], None),
    ],
)
def test_what_the_names_of_subfolders_tell(load, image_folder, names, labels, counted):
    """Numbers are class numbers; words, and numbers that may count from 1, hold for all classes only."""
    data = load(image_folder({name: [picture(0, 6, 5, 3)] for name in names}, {}), RGB)
    assert data.labels.tolist() == labels
    assert data.sorted_names == counted


def test_subfolders_follow_the_models_own_list(load, image_folder):
    """A few of the classes are enough where the model names them; one that it does not know is refused."""
    folder = image_folder({name: [picture(0, 6, 5, 3)] for name in ("owl", "cat")}, {})
    rules = LabelRules(names=("cat", "dog", "owl"))
    data = load(folder, RGB, rules=rules)
    assert data.labels.tolist() == [0, 2]
    assert data.sorted_names is None
    with pytest.raises(DataError, match=r"'owl' is not among the model's classes 'cat', 'dog'"):
        load(folder, RGB, rules=LabelRules(names=("cat", "dog")))


@pytest.mark.parametrize("words", [("audit",), ("landscape",), ("harden", "--epochs", 1)])
def test_a_few_of_the_classes_by_name_are_refused(command, example, image_folder, tmp_path, words):
    """The example has ten classes without names: three subfolders with words do not tell which."""
    tiles = {name: [picture(i, 8, 8) for i in range(2)] for name in ("eight", "seven", "three")}
    out = ("-o", tmp_path / "h.onnx") if words[0] == "harden" else ()
    ran = command(words[0], example, "--data", image_folder(tiles, {}), *words[1:], *out, "-q")
    assert ran.code == 2
    assert "labels are 3 class names and the model has 10 classes" in ran.err
    assert "classes in nvaudit.json" in ran.err
    assert not out or not out[1].exists()


def test_an_empty_class_and_a_limit_move_no_label(load, image_folder):
    """Names are numbered by all subfolders, whichever images are read."""
    shown = {name: [picture(i, 6, 5, 3) for i in range(2)] for name in ("ant", "cow", "dog")}
    folder = image_folder(shown, {})
    (folder / "bee").mkdir()
    assert load(folder, RGB).labels.tolist() == [0, 2, 3, 0, 2, 3]
    data = load(folder, RGB, limit=2)
    assert data.labels.tolist() == [0, 2]
    assert data.sorted_names == 4


def test_unreadable_images_are_skipped_and_listed(load, image_folder):
    """A damaged image, a text file and a broken link are skipped with their reasons; the rest is used."""
    folder = image_folder({"a": [picture(0, 6, 5, 3), picture(1, 6, 5, 3)]}, {})
    damaged = folder / "a" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    (folder / "a" / "notes.txt").write_text("hello")
    (folder / "a" / "gone.png").symlink_to(folder / "nowhere.png")
    data = load(folder, RGB)
    assert data.count == 1
    reasons = dict(data.skipped)
    assert set(reasons) == {"a/1.png", "a/notes.txt", "a/gone.png"}
    assert reasons["a/notes.txt"] == "not an image by its name"
    assert reasons["a/gone.png"] == "not a regular file"
    assert reasons["a/1.png"]


def test_a_folder_without_a_readable_image_is_refused(load, image_folder):
    """The first reason stands in the message."""
    folder = image_folder({"a": []}, {})
    (folder / "a" / "x.png").write_bytes(b"nothing")
    with pytest.raises(DataError) as caught:
        load(folder, RGB)
    assert f"{folder}: no readable image in its subfolders; the first of 1 skipped: a/x.png: " in str(
        caught.value
    )


def test_images_with_more_than_eight_bits_are_skipped(load, image_folder):
    """A 16-bit image would be clipped silently, so it is not used."""
    folder = image_folder({"a": [picture(0, 6, 5), np.full((6, 5), 60000, np.uint16)]}, {})
    data = load(folder, GREY)
    assert data.count == 1
    assert data.skipped[0][0] == "a/1.png"
    assert "have more than 8 bits a channel" in data.skipped[0][1]


def test_link_loops_end(load, image_folder):
    """A subfolder that links back to the folder is skipped; a link to itself is no folder."""
    folder = image_folder({"a": [picture(0, 6, 5, 3)]}, {})
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self").symlink_to(folder / "self")
    (folder / "a" / "up").symlink_to(folder, target_is_directory=True)
    data = load(folder, RGB)
    assert data.count == 1
    assert ("loop", "a link to a folder that holds this one") in data.skipped


def test_a_folder_of_images_feeds_one_input(load, image_folder):
    """A model with a second input needs another kind of data."""
    folder = image_folder({"a": [picture(0, 6, 5, 3)]}, {})
    with pytest.raises(
        DataError, match=r"the model takes 'a' \[N, 3, 6, 5\], 'sr' \[\]; store the inputs in an \.npz"
    ):
        load(folder, RGB, InputSpec("sr", "int64", (), None))


def test_without_pillow_the_message_says_what_to_install(load, image_folder, monkeypatch):
    """Pillow is needed only here, and its absence gives one line."""
    folder = image_folder({"a": [picture(0, 6, 5, 3)]}, {})
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(
        DataError, match=r"reading images needs Pillow; run: pip install 'nvaudit\[images\]'$"
    ):
        load(folder, RGB)

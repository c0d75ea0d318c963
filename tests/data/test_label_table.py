"""Folders of images whose labels stand in a table, or that have none."""

from pathlib import Path

import numpy as np
import pytest

from nvaudit.data import InputSpec
from nvaudit.data.folder import FILE_HEADS, LABEL_HEADS
from nvaudit.errors import DataError
from nvaudit.rng import stream

RGB = InputSpec("a", "uint8", ("N", 5, 5, 3), 0)
NAMES = ("b.png", "a.png", "c.png")


@pytest.fixture
def folder(tmp_path):
    """A folder D with D/images of three images, each of one colour: 1, 0, 2."""
    pil = pytest.importorskip("PIL.Image", reason="needs Pillow (pip install 'nvaudit[images]')")
    images = tmp_path / "D" / "images"
    images.mkdir(parents=True)
    for name, tone in zip(NAMES, (1, 0, 2), strict=True):
        pil.fromarray(np.full((5, 5, 3), tone, np.uint8)).save(images / name)
    return tmp_path / "D"


def tones(data):
    return data.inputs["a"][:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    "text",
    [
        "file,label\nb.png,1\na.png,0\nc.png,2\n",
        "b.png,1\na.png,0\nc.png,2\n",
        "label;id;split\n1;b;x\n0;a;x\n2;c;y\n",
        "\ufefffilename\tclass\nimages/b.png\t1\n./images/a.png\t0\nc\t2\n",
    ],
    ids=["head", "no head", "by head", "paths, tabs"],
)
def test_a_table_gives_each_image_its_label(load, folder, text):
    """In the order of its rows, with or without a head line, by path, name or stem."""
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    data = load(folder, RGB)
    assert tones(data) == data.labels.tolist() == [1, 0, 2]
    assert "labels from labels.csv" in " ".join(data.notes)


def test_a_table_beside_the_folder_that_is_given(load, folder):
    """D/images as the data finds D/labels.csv."""
    (folder / "labels.csv").write_text("file,label\nb.png,1\na.png,0\nc.png,2\n")
    assert load(folder / "images", RGB).labels.tolist() == [1, 0, 2]


def test_names_in_a_table(load, folder):
    """Numbered by the classes stated in nvaudit.json, else in sorted order."""
    (folder / "labels.csv").write_text("file,label\nb.png,cat\na.png,ant\nc.png,dog\n")
    assert load(folder, RGB).labels.tolist() == [1, 0, 2]
    (folder / "nvaudit.json").write_text('{"classes": ["dog", "cat", "ant"]}')
    assert load(folder, RGB).labels.tolist() == [1, 2, 0]
    (folder / "nvaudit.json").write_text('{"classes": ["dog", "cat"]}')
    with pytest.raises(DataError, match="label 'ant' is not among the 2 classes"):
        load(folder, RGB)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nb.png,1\na.png,0\n", "1 of 3 images have no label, the first: images/c.png"),
        ("b.png,1\na.png,0\nc.png,2\nd.png,0\n", "row 4: 'd.png' is no image"),
        ("b.png,1\na.png,0\nc.png,2\nc.png,0\n", "row 4: 'c.png' has a label already"),
        ("b.png,1\na.png\n", r"row 2: 1 columns, and the first row has 2: \['a.png'\]; put quotes"),
        ("file,tag\nb.png,1\n", "no column 'label'; the head line has 'file', 'tag'; call it label"),
        ("b.png,1,x\n", "3 columns and no head line"),
        ("", "is empty"),
        ("file,label\n", "has no rows"),
        ("file,label\na.png,\n", "row 2: 'label' is empty"),
        ("file,label\n\n,1\n", "row 3: 'file' is empty"),
        ("picture,label\na.png,1\n", "no column 'file'; the head line has .*; call it file \\(or filename"),
        (
            "b.png,nan\na.png,0\nc.png,1\n",
            "labels.csv: column 2: 1 of 3 values are NaN or infinite as float64, the first in row 1",
        ),
        (
            "file,class\nb.png,1\n\na.png,-7\nc.png,1\n",
            r"labels.csv: column 'class': -7 in row 4 is negative",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(load, folder, text, message):
    """The table, the row, what was found."""
    (folder / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load(folder, RGB)


@pytest.mark.parametrize("name", ["labels.txt", "targets.json", "y.npy", "annotations.csv"])
def test_other_files_of_labels_are_not_overlooked(load, folder, name):
    """They are not read, and images are not scored against class 0 in their place."""
    np.save(folder / "y", np.arange(3))
    (folder / "y.npy").rename(folder / name)
    with pytest.raises(DataError, match=rf"{name}: labels of images are not read from it; write labels.csv"):
        load(folder, RGB)


def test_images_without_labels(load, folder):
    """A folder of images alone is label-free and says so; a subfolder called images is no class."""
    data = load(folder / "images", RGB)
    assert (data.label_kind, tones(data)) == ("none", [0, 1, 2])
    assert "images without class subfolders: no labels" in data.notes
    with pytest.raises(DataError, match="only subfolder is 'images', which names no class"):
        load(folder, RGB)


def test_damaged_images_take_their_labels_with_them(load, folder):
    """What cannot be read is listed, and the labels of the others stay with them."""
    (folder / "labels.csv").write_text("b.png,1\na.png,0\nc.png,2\n")
    (folder / "images" / "a.png").write_bytes(stream(0, "test").bytes(20))
    data = load(folder, RGB)
    assert tones(data) == data.labels.tolist() == [1, 2]
    assert [name for name, _ in data.skipped] == ["images/a.png"]


def test_the_page_names_every_head_of_a_column():
    """What the columns of files and labels may be called stands in docs/tasks.md, in their order."""
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    for heads in (FILE_HEADS, LABEL_HEADS):
        places = [page.index(f"`{head}`") for head in heads[1:]]
        assert places == sorted(places)

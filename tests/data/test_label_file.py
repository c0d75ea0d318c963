"""Labels in a file of their own: tables, JSON lines, COCO annotations, and what is wrong with them."""

import json

import numpy as np
import pytest

from nvaudit.data import InputSpec
from nvaudit.data.labels import LabelRules, label_rules
from nvaudit.data.ragged import rows_of
from nvaudit.errors import DataError, OptionError

SPEC = InputSpec("x", "float32", ("N", 2), 0)
IMAGE = InputSpec("x", "float32", ("N", 3, 8, 16), 0)
GOOD = {"image_id": 1, "category_id": 5, "bbox": [1, 1, 2, 2]}


@pytest.fixture
def three(tmp_path):
    """An .npz with three samples and no labels."""
    np.savez(tmp_path / "three.npz", x=np.zeros((3, 2), np.float32))
    return tmp_path / "three.npz"


def rules_of(path, content, column=None, kind=None, metric=None):
    """Write a file of labels and give the rules that name it."""
    path.write_text(content, encoding="utf-8")
    return label_rules(metric, file=str(path), column=column, kind=kind)


@pytest.mark.parametrize("name", ["labels.csv", "labels.tsv"])
def test_texts_of_a_table_are_in_the_order_of_the_samples(load, three, tmp_path, name):
    """The column is named; numbers in it are texts too."""
    cut = "," if name.endswith("csv") else "\t"
    content = "\n".join(cut.join(row) for row in (("id", "said"), ("1", "a b"), ("2", "007"), ("3", "ü")))
    data = load(three, SPEC, rules=rules_of(tmp_path / name, content, "said", "text"))
    assert (data.labels.tolist(), data.label_kind) == (["a b", "007", "ü"], "text")
    assert any("labels are in the order of the samples" in note for note in data.notes)


def test_cer_takes_labels_as_texts(load, three, tmp_path):
    """The metric says what they are, and the column may be called text."""
    data = load(three, SPEC, rules=rules_of(tmp_path / "l.csv", "text\n1\n2\n3\n", metric="cer"), limit=2)
    assert (data.labels.tolist(), data.label_kind) == (["1", "2"], "text")


def test_json_lines_hold_texts_numbers_and_lists(load, three, tmp_path):
    """By what stands under label; lists of different lengths stay so."""
    lines = [{"label": one} for one in ("", "a", "b")]
    texts = "\n".join(map(json.dumps, lines))
    data = load(three, SPEC, rules=rules_of(tmp_path / "a.jsonl", texts, kind="text"))
    assert data.labels.tolist() == ["", "a", "b"]
    assert "labels y: 1 of 3 texts are empty" in data.notes
    data = load(three, SPEC, rules=rules_of(tmp_path / "b.jsonl", '{"label": 2}\n{"label": 0}\n{"label": 1}'))
    assert (data.labels.tolist(), data.label_kind) == ([2, 0, 1], "class")
    lists = '{"label": [1, 2]}\n{"label": []}\n{"label": [3]}'
    data = load(three, SPEC, rules=rules_of(tmp_path / "c.jsonl", lists))
    assert data.label_kind == "ragged"
    assert [row.tolist() for row in rows_of(data.labels)] == [[1, 2], [], [3]]


def test_an_npz_holds_lists_with_their_lengths(load, tmp_path):
    """`y_lengths` beside `y` says how many entries of each row count; they must fit."""
    path = tmp_path / "d.npz"
    np.savez(path, x=np.zeros((2, 2), np.float32), y=np.arange(6).reshape(2, 3), y_lengths=[1, 3])
    data = load(path, SPEC)
    assert [row.tolist() for row in rows_of(data.labels)] == [[0], [3, 4, 5]]
    np.savez(path, x=np.zeros((2, 2), np.float32), y=np.arange(6).reshape(2, 3), y_lengths=[1, 4])
    with pytest.raises(DataError, match="the rows of y have room for 0 to 3 entries"):
        load(path, SPEC)


def test_boxes_are_of_the_images_as_they_are_stored(load, image_folder, tmp_path):
    """COCO boxes x, y, width, height become corners, resized with their image; classes are numbered by id."""
    folder = image_folder({"": [np.zeros((16, 16, 3), np.uint8)] * 2}, {"size": [8, 16], "fit": "pad"})
    coco = {
        "images": [{"id": 7, "file_name": "1.png"}, {"id": 3, "file_name": "0.png"}],
        "categories": [{"id": 5, "name": "b"}, {"id": 2, "name": "a"}],
        "annotations": [
            {"image_id": 7, "category_id": 5, "bbox": [2, 4, 6, 8]},
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, 2, 2], "iscrowd": 1},
        ],
    }
    rules = rules_of(tmp_path / "coco.json", json.dumps(coco), metric="map")
    data = load(folder, IMAGE, rules=rules)
    assert data.label_kind == "boxes"
    # 16 × 16 images as large as fit into 8 × 16: halved, at the upper left.
    assert [row.tolist() for row in rows_of(data.labels)] == [[[1, 2, 4, 6, 1, 0], [0, 0, 1, 1, 0, 1]], []]


def test_boxes_as_json_lines_may_have_their_classes_beside_them(load, image_folder, tmp_path):
    """The same boxes in both forms."""
    folder = image_folder({"": [np.zeros((8, 16, 3), np.uint8)]}, {})
    one = rules_of(tmp_path / "a.jsonl", '{"file": "0.png", "boxes": [[1, 2, 3, 4, 5]]}', metric="map")
    two = rules_of(tmp_path / "b.jsonl", '{"file": "0.png", "boxes": [[1, 2, 3, 4]], "labels": [5]}')
    assert np.array_equal(load(folder, IMAGE, rules=one).labels, load(folder, IMAGE, rules=two).labels)


def test_files_may_be_named_from_above_the_folder(load, image_folder, tmp_path):
    """As annotations often do: D/0.png for 0.png in D, or the whole path; of another folder it is none."""
    folder = image_folder({"": [np.zeros((8, 16, 3), np.uint8)] * 2}, {})
    lines = "\n".join(
        json.dumps({"file": name, "label": number})
        for number, name in enumerate((f"{folder.name}/1.png", str(folder / "0.png")))
    )
    data = load(folder, IMAGE, rules=rules_of(tmp_path / "a.jsonl", lines))
    assert data.labels.tolist() == [0, 1]
    lines = lines.replace(f'"{folder.name}/1.png"', '"elsewhere/1.png"')
    with pytest.raises(DataError, match=r"line 1: 'elsewhere/1.png' is no image of"):
        load(folder, IMAGE, rules=rules_of(tmp_path / "a.jsonl", lines))


def test_annotations_of_no_area_are_left_out_with_a_note(load, image_folder, tmp_path):
    """COCO itself has some; how many there were is said."""
    folder = image_folder({"": [np.zeros((8, 16, 3), np.uint8)]}, {})
    coco = {
        "images": [{"id": 1, "file_name": "0.png"}],
        "annotations": [GOOD, {**GOOD, "bbox": [1, 1, 0, 4]}],
    }
    data = load(folder, IMAGE, rules=rules_of(tmp_path / "c.json", json.dumps(coco), metric="map"))
    assert [len(row) for row in rows_of(data.labels)] == [1]
    assert "c.json: 1 of 2 annotations have no area and are left out" in data.notes


def test_padded_images_keep_their_aspect(load, image_folder):
    """The image is at the upper left, the rest is the stated value."""
    folder = image_folder(
        {"": [np.full((4, 4, 3), 255, np.uint8)]}, {"size": [8, 16], "fit": "pad", "pad": 51, "scale": 255}
    )
    pixels = load(folder, IMAGE).inputs["x"][0]
    assert np.allclose(pixels[:, :, :8], 1)
    assert np.allclose(pixels[:, :, 8:], 0.2)


@pytest.mark.parametrize(
    ("name", "content", "more", "message"),
    [
        ("l.csv", "file,label\na,1\n", {"column": "txet"}, "no column 'txet'.*has 'file', 'label'"),
        ("l.csv", "file,text\na,\nb,x\nc,y\n", {"kind": "text"}, "row 2: .*empty.* JSON lines"),
        ("l.csv", "label\n1\n2\n", {}, "number of samples: input 'x' 3, labels of .*l.csv 2"),
        ("l.jsonl", '{"label": 1}\n{"label"', {}, "line 2: not valid JSON"),
        ("l.jsonl", '{"label": 1}\n[1]', {}, "line 2: .* is no object"),
        ("l.jsonl", '{"tag": 1}', {}, "no label among its keys 'tag'; --label-column says which"),
        ("l.jsonl", '{"label": 1}\n{"class": 1}', {}, "line 2: has 'class', and those before it 'label'"),
        ("l.jsonl", '{"label": ""}', {}, "key 'label': line 1: is empty; a text may be"),
        ("l.jsonl", '{"label": 1}\n{"label": "a"}', {}, 'line 2: "a" is of another kind than 1 of line 1'),
        ("l.jsonl", '{"label": 1}', {"kind": "text"}, "line 1: '1' is no text; put texts in quotes: \"1\""),
        ("l.jsonl", '{"boxes": [[1, 2]]}', {}, "are no boxes"),
        (
            "l.jsonl",
            '{"boxes": []}\n\n{"boxes": [[1, 2, 1, 3, 0]]}',
            {},
            "key 'boxes': line 3, box 0: .* is no box",
        ),
        ("l.jsonl", '{"label": [1]}\n{"label": [[2]]}', {}, "line 2: its labels have shape"),
        ("l.csv", "label\n1\nnan\n2\n", {}, "column 'label': 1 of 3 .* the first in row 3"),
        ("l.csv", "label\n1\n-9\n2\n", {}, "l.csv: column 'label': -9 in row 3 is negative"),
        ("l.jsonl", "", {}, "has no entries"),
        ("l.json", '{"images": []}', {}, "no COCO annotations"),
        *(
            (
                "l.json",
                json.dumps(
                    {
                        "images": [{"id": 1, "file_name": "a"}],
                        "categories": [{"id": 5}],
                        "annotations": [GOOD, {**GOOD, **change}],
                    }
                ),
                {},
                rf"l.json: annotations\[1\]: {message}",
            )
            for change, message in (
                ({"image_id": 9}, "image_id 9 is not among the images of the file"),
                ({"category_id": "x"}, "category_id 'x' is not among the categories"),
                ({"bbox": [1, 1, -2, 1]}, r"bbox \[1, 1, -2, 1\] is no \[x, y, width, height\]"),
                ({"bbox": [1, 1, 2, "1"]}, "bbox .* is no"),
                ({"bbox": [1, 1, 2]}, ".* is no annotation; wanted image_id, category_id and bbox"),
                ({"image_id": []}, ".* is no annotation"),
            )
        ),
        ("l.json", '{"images": [{"id": 1}], "annotations": []}', {}, "COCO annotations without 'file_name'"),
        ("l.xml", "<a/>", {}, ".xml is not a known kind; labels are a table"),
    ],
)
def test_wrong_files_are_refused_with_place_and_cure(load, three, tmp_path, name, content, more, message):
    """The file, the line or row, what was found and what is wanted."""
    with pytest.raises(DataError, match=message) as caught:
        load(three, SPEC, rules=rules_of(tmp_path / name, content, **more))
    assert str(tmp_path) in str(caught.value)


def test_a_file_of_labels_that_cannot_be_looked_at_is_refused(load, three, tmp_path):
    """Nothing there, a folder, a name that is too long for the system."""
    for name, problem in {
        "none.csv": "no such file; ",
        ".": "not a regular file; ",
        "x" * 300: "cannot be read: File name too long",
    }.items():
        path = tmp_path / name
        with pytest.raises(DataError) as caught:
            load(three, SPEC, rules=LabelRules(file=str(path)))
        assert str(caught.value).startswith(f"--labels {path}: {problem}")


def test_labels_of_images_need_the_names_of_files(load, image_folder, tmp_path):
    """The order of images in a folder is nobody's; rows that name one image twice are refused."""
    folder = image_folder({"": [np.zeros((8, 16, 3), np.uint8)] * 2}, {})
    with pytest.raises(DataError, match="names no files"):
        load(folder, IMAGE, rules=rules_of(tmp_path / "l.csv", "label\n1\n2\n"))
    with pytest.raises(DataError, match="has a label already"):
        load(folder, IMAGE, rules=rules_of(tmp_path / "l.csv", "file,label\n0.png,1\n0.png,2\n"))
    with pytest.raises(DataError, match="1 of 2 images have no label"):
        load(folder, IMAGE, rules=rules_of(tmp_path / "l.csv", "file,label\n0.png,1\n"))


def test_a_missing_file_and_a_wrong_kind(load, three, tmp_path):
    """No such file; a metric of texts against boxes."""
    with pytest.raises(DataError, match=r"--labels .*none\.csv: no such file; labels are a table"):
        load(three, SPEC, rules=LabelRules(file=str(tmp_path / "none.csv")))
    with pytest.raises(OptionError, match="--metric cer needs text as labels, and --label-kind says class"):
        label_rules("cer", kind="class")


def test_texts_reach_a_metric_of_ones_own_as_they_are(load, three, tmp_path):
    """Unless they are names of the model's classes, or are said to be classes."""
    given = rules_of(tmp_path / "l.csv", "label\nb\na\nb\n", metric="my:metric")
    assert load(three, SPEC, rules=given).labels.tolist() == ["b", "a", "b"]
    named = rules_of(tmp_path / "l.csv", "label\nb\na\nb\n", metric="my:metric", kind="class")
    assert load(three, SPEC, rules=named).labels.tolist() == [1, 0, 1]

"""`nvaudit audit` on texts, boxes and metrics of one's own, as a user types it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FEW = ("--device", "rram", "-n", 8, "-j", 0, "--no-roughness")


def write_model(path, nodes, weights, shape_in, shape_out):
    """A model from x to out."""
    graph = helper.make_graph(
        nodes, "task", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape_in)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape_out)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"character": "a\nb\nc"})
    onnx.save(model, path)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A model that reads texts of a, b and c from one-hot steps, and 40 of them."""
    pytest.importorskip("rapidfuzz", reason="needs rapidfuzz (pip install 'nvaudit[text]')")
    monkeypatch.chdir(tmp_path)
    weight = (0.9 * np.random.default_rng(0).random((4, 4))).astype(np.float32)
    np.fill_diagonal(weight, 1)
    write_model("reader.onnx", [helper.make_node("MatMul", ["x", "w"], ["out"])], {"w": weight},
                ["N", 6, 4], ["N", 6, 4])  # fmt: skip
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice(list("abc"), 3)) for _ in range(40)]
    rows = [[step for letter in text for step in (0, "abc".index(letter) + 1)] for text in texts]
    np.savez("texts.npz", x=np.eye(4, dtype=np.float32)[rows])
    (tmp_path / "labels.tsv").write_text("file\ttext\n" + "".join(f"{i}\t{t}\n" for i, t in enumerate(texts)))
    return "audit", "reader.onnx", "--data", "texts.npz", "--labels", "labels.tsv", *FEW


def test_an_error_rate_is_worst_where_it_is_high(command, reader):
    """The KPP of a CER is the high percentile; the report says how texts were read and that none races."""
    ran = command(*reader, "--metric", "cer", "--sigma", 0.4, "-o", "r.json")
    assert ran.code == 0, ran.err
    report = json.loads(Path("r.json").read_text())
    values = report["trials"]["values"]
    assert report["nominal"] == 0
    assert max(values) > 0
    assert report["kpp"][0]["value"] == max(values)
    assert report["metric_info"]["higher_is_better"] is False
    assert "text labels" in ran.out
    assert "samples count by the length of their texts" in " ".join(ran.out.split())
    assert "texts by greedy CTC decoding of output 'out'" in " ".join(ran.out.split())
    assert "standard error" not in ran.out


def test_a_gate_on_an_error_rate_is_a_ceiling(command, reader):
    """--min-kpp holds chips to at most so much where less is better."""
    holds = command(*reader, "--metric", "cer", "--sigma", 0.02, "--min-kpp", 0.2, "--max-trials", 400)
    assert holds.code == 0, holds.err + holds.out
    fails = command(*reader, "--metric", "cer", "--sigma", 0.4, "--min-kpp", 0.001, "--max-trials", 400)
    assert fails.code == 1
    assert "at most 1 % of chips may be above" in " ".join(fails.out.split())


def test_a_metric_of_ones_own_is_given_texts(command, reader, tmp_path):
    """With an alphabet its outputs are texts, and labels are texts as they are in the table."""
    (tmp_path / "mine.py").write_text(
        "def exact(outputs, labels):\n"
        "    assert all(isinstance(one, str) for one in (*outputs, *labels)), (outputs, labels)\n"
        "    return [float(a == b) for a, b in zip(outputs, labels)]\n"
    )
    (tmp_path / "abc.txt").write_text("a\nb\nc\n")
    ran = command(*reader, "--metric", "mine.py:exact", "--alphabet", "abc.txt", "-o", "r.json")
    assert ran.code == 0, ran.err
    assert json.loads(Path("r.json").read_text())["nominal"] == 1


def test_an_accumulator_is_a_metric(command, reader, tmp_path):
    """update and compute: the value over the set of each chip; the report says what then holds."""
    (tmp_path / "mine.py").write_text(
        "class Read:\n"
        "    def __init__(self): self.right = self.all = 0\n"
        "    def update(self, outputs, labels):\n"
        "        self.right += sum(a == b for a, b in zip(outputs, labels)); self.all += len(labels)\n"
        "    def compute(self): return self.right / self.all\n"
    )
    (tmp_path / "abc.txt").write_text("a\nb\nc\n")
    ran = command(*reader, "--metric", "mine.py:Read", "--alphabet", "abc.txt", "-o", "r.json")
    assert ran.code == 0, ran.err
    assert json.loads(Path("r.json").read_text())["nominal"] == 1
    assert "one value for the whole set" in " ".join(ran.out.split())


def test_workers_and_resume_give_the_same(command, reader):
    """Chips of a CER in other processes, and kept chips, are the same chips."""
    here = command(*reader, "--metric", "cer", "--sigma", 0.3, "-o", "a.json", "--resume", "kept")
    there = command(*reader, "--metric", "cer", "--sigma", 0.3, "-j", 2, "-o", "b.json")
    again = command(*reader, "--metric", "cer", "--sigma", 0.3, "-o", "c.json", "--resume", "kept")
    assert here.code == there.code == again.code == 0
    values = [
        json.loads(Path(name).read_text())["trials"]["values"] for name in ("a.json", "b.json", "c.json")
    ]
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--metric", "top1", "--alphabet", "x.txt"),
            "--alphabet is for --metric cer, wer or one of your own",
        ),
        (("--metric", "top1", "--boxes", "xyxy"), "--boxes is for --metric map, map50 or one of your own"),
        (("--metric", "map"), "labels.tsv: column 'text': these are texts, and boxes is wanted"),
        (("--metric", "top1", "--label-kind", "text"), "--metric top1 takes no labels of kind text"),
        (("--label-kind", "text"), "labels are of kind text, and no --metric says what is measured"),
        ((), "texts that the model reads are scored by --metric cer or wer"),
        (("--metric", "cer", "--label-column", "txt"), "labels.tsv: no column 'txt'"),
        (("--metric", "cer", "--alphabet", "gone.txt"), "--alphabet gone.txt: cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused(command, reader, options, message):
    """Exit code 2, with the option or the file, and what would fit."""
    ran = command(*reader, *options)
    assert ran.code == 2, ran.out
    assert message in ran.err


@pytest.fixture
def detector(tmp_path, monkeypatch):
    """A model that copies a box out of its image, and 30 images with theirs as JSON lines."""
    pytest.importorskip("pycocotools", reason="needs pycocotools (pip install 'nvaudit[detection]')")
    monkeypatch.chdir(tmp_path)
    weight = np.zeros((3 * 4 * 4, 6), np.float32)
    weight[:6] = np.eye(6)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["row"]),
        helper.make_node("Unsqueeze", ["row", "one"], ["out"]),
    ]
    write_model("detector.onnx", nodes, {"w": weight, "one": np.array([1])}, ["N", 3, 4, 4], ["N", 1, 6])
    rng, x, lines = np.random.default_rng(0), np.zeros((30, 48), np.float32), []
    for sample in x:
        corner = rng.random(2) * 2
        box = [*corner, *(corner + 1 + rng.random(2))]
        sample[:6] = [*box, 0.9, 0]
        lines.append(json.dumps({"boxes": [[float(np.float32(one)) for one in box] + [0]]}))
    np.savez("images.npz", x=x.reshape(30, 3, 4, 4))
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines))
    return "audit", "detector.onnx", "--data", "images.npz", "--labels", "boxes.jsonl", *FEW


def test_a_detector_is_measured_by_its_mean_average_precision(command, detector):
    """Over the whole set, chip by chip; noise costs some of it."""
    ran = command(*detector, "--metric", "map", "--sigma", 0.4, "-o", "r.json")
    assert ran.code == 0, ran.err
    report = json.loads(Path("r.json").read_text())
    assert report["nominal"] == pytest.approx(1)
    assert report["kpp"][0]["value"] == min(report["trials"]["values"]) < 1
    words = " ".join(ran.out.split())
    assert "map has one value for all samples together" in words
    assert "overlaps 0.5, 0.55 … 0.95" in words
    assert "standard error" not in ran.out


def test_outputs_of_another_layout_are_refused(command, detector):
    """yolov8 wants columns; the message names the layouts."""
    ran = command(*detector, "--metric", "map50", "--boxes", "tf")
    assert ran.code == 2
    assert "--boxes tf reads boxes, scores and classes: name three outputs" in ran.err
    ran = command(*detector, "--metric", "map50", "--output-name", "a,b,c")
    assert "'a' is not an output; boxes are read from one output, or from boxes, scores" in ran.err


@pytest.mark.parametrize("task", ["reader", "detector"])
def test_remap_hardens_by_the_metric_of_the_task(command, request, task):
    """Candidates are chosen, and chips before and after compared, by CER or mAP; less CER is better."""
    _, *words = request.getfixturevalue(task)
    metric = {"reader": "cer", "detector": "map"}[task]
    ran = command(
        "harden", *words[:5], "--method", "remap", "--metric", metric, "--sigma", 0.3, "--device", "rram",
        "-n", 8, "-j", 0, "-o", "hard.onnx", "--report", "r.json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    report = json.loads(Path("r.json").read_text())
    before, after = (report[side]["kpp"] for side in ("before", "after"))
    assert (after <= before) if metric == "cer" else (after >= before)


def test_training_refuses_texts(command, reader):
    """There is nothing to learn from; the message names the method that trains nothing."""
    _, *words = reader
    ran = command(
        "harden", *words[:5], "--method", "gaussian", "--metric", "cer", "--device", "rram", "-o", "h.onnx"
    )
    assert ran.code == 2
    assert "labels are of kind text" in ran.err
    assert "--method remap" in ran.err


def test_an_interrupted_remap_goes_on(command, detector, monkeypatch):
    """The model that was found and finished chips are kept: the report is that of a run without a break."""
    _, *words = detector
    words = ["harden", *words[:5], "--method", "remap", "--metric", "map", "--sigma", 0.3, "--device", "rram",
             "-n", 8, "-j", 0]  # fmt: skip
    whole = command(*words, "-o", "a.onnx", "--report", "a.json")
    assert whole.code == 0, whole.err
    from nvaudit.jobs import remapping
    from nvaudit.jobs.auditing import run_audit

    def cut(spec, progress, folder):
        if spec.model != "detector.onnx":
            raise KeyboardInterrupt
        return run_audit(spec, progress, folder)

    with monkeypatch.context() as patch:
        patch.setattr(remapping, "run_audit", cut)
        ended = command(*words, "-o", "b.onnx", "--report", "b.json", "--resume", "kept")
    assert ended.code == 130
    assert "b.onnx is written, and not audited" in ended.err
    assert not Path("b.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(remapping, "prepared", None)  # nothing is looked for again
        again = command(*words, "-o", "b.onnx", "--report", "b.json", "--resume", "kept")
    assert again.code == 0, again.err
    one, other = (json.loads(Path(name).read_text()) for name in ("a.json", "b.json"))
    same = ("headline", "before", "after", "difference")
    assert [one[key] for key in same] == [other[key] for key in same]
    refused = command(*words, "--seed", 5, "-o", "b.onnx", "--resume", "kept")
    assert refused.code == 2
    assert "keeps a remapping of another model, with other options" in refused.err

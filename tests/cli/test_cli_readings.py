"""What commands make of outputs that are no class scores, and of labels that are no classes: end to end."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.model.onnx_cases import make_model, numbers, save, value

node = helper.make_node
W1, W2, X = numbers(12, 16), numbers(16, 5, seed=1), numbers(40, 12, seed=2)
SCORES = np.maximum(X @ W1, 0) @ W2
MLP = [node("MatMul", ["x", "W1"], ["h"]), node("Relu", ["h"], ["r"]), node("MatMul", ["r", "W2"], ["s"])]
STORED = {"W1": W1, "W2": W2}
FEW = ("-n", 4, "-j", 0, "-q", "--sigma", 0.3)


def mlp(tmp_path, name, more, outputs, labels=None, stored=None, x=X, shape=("N", 12)):
    """A model NAME.onnx of the network and what follows it, with NAME.npz beside it."""
    model = make_model([*MLP, *more], [value("x", list(shape))], outputs, {**STORED, **(stored or {})})
    for opset in model.opset_import:
        opset.version = 3 if opset.domain else opset.version
    np.savez(tmp_path / f"{name}.npz", x=x, **({} if labels is None else {"y": labels}))
    return save(tmp_path, model, f"{name}.onnx")


def report(command, tmp_path, *arguments):
    """Audit, and read the report."""
    ran = command("audit", *arguments, *FEW, "-o", tmp_path / "r.json")
    assert ran.code == 0, ran.err
    return json.loads((tmp_path / "r.json").read_text())


SCORED = [value("s", ["N", 5])]
ARGMAX = node("ArgMax", ["s"], ["a"], axis=1, keepdims=0)


@pytest.mark.parametrize("labels", [None, SCORES.argmax(1)], ids=["agreement", "top1"])
@pytest.mark.parametrize("to", [TensorProto.INT64, TensorProto.UINT8, TensorProto.FLOAT])
def test_decisions_score_as_the_scores_before_them(command, tmp_path, labels, to):
    """The same chips, the same values, with labels and without; the headline says what was read."""
    scores = mlp(tmp_path, "scores", [], SCORED, labels)
    decided = mlp(
        tmp_path, "decided", [ARGMAX, node("Cast", ["a"], ["o"], to=to)], [value("o", ["N"], to)], labels
    )
    one, other = report(command, tmp_path, scores), report(command, tmp_path, decided)
    assert other["metric"] == one["metric"] == ("agreement" if labels is None else "top1")
    assert other["trials"]["values"] == one["trials"]["values"]
    assert "'o' holds decisions" in other["headline"]
    assert other["metric_info"]["caution"]
    assert "decisions" not in one["headline"]


def test_an_axis_that_is_not_proved_is_said_in_the_headline(command, tmp_path):
    """Boxes beside scores [N, 3 + 2, 8]: no agreement over an axis that may hold anything."""
    nodes = [
        node("MatMul", ["x", "W1"], ["h"]),
        node("Reshape", ["h", "t"], ["b"]),
        node("Slice", ["b", "o", "e", "x2"], ["c"]),
        node("Concat", ["b", "c"], ["y"], axis=1),
    ]
    stored = {
        "W1": W1,
        "t": np.array([-1, 2, 8]),
        "o": np.array([0]),
        "e": np.array([1]),
        "x2": np.array([1]),
    }
    path = save(tmp_path, make_model(nodes, [value("x", ["N", 12])], [value("y", ["N", 3, 8])], stored))
    found = report(command, tmp_path, path)
    assert found["metric"] == "mse"
    assert "nothing proves which axis of output 'y' [N, 3, 8]" in found["headline"]
    asked = command("audit", path, *FEW, "--metric", "agreement")
    assert (asked.code, "set --class-axis" in asked.err) == (2, True)
    assert report(command, tmp_path, path, "--class-axis", 1)["metric"] == "agreement"


def sequence(tmp_path):
    more = [node("SequenceConstruct", ["s", "h"], ["q"])]
    first = helper.make_tensor_sequence_value_info("q", TensorProto.FLOAT, None)
    return mlp(tmp_path, "sequence", more, [first, *SCORED], SCORES.argmax(1))


def boxes(tmp_path):
    """As many rows as boxes are kept, for one sample at a time."""
    nodes = [
        node("MatMul", ["x", "W1"], ["h"]),
        node("Reshape", ["h", "b"], ["box"]),
        node("Sigmoid", ["h"], ["g"]),
        node("Slice", ["g", "o", "e", "ax"], ["g4"]),
        node("Reshape", ["g4", "p"], ["prob"]),
        node("NonMaxSuppression", ["box", "prob", "most", "iou", "least"], ["sel"]),
    ]
    stored = {
        "W1": W1, "b": np.array([1, 4, 4]), "p": np.array([1, 1, 4]), "o": np.array([0]), "e": np.array([4]),
        "ax": np.array([1]), "most": np.array([4]), "iou": np.float32([0.9]), "least": np.float32([0.5]),
    }  # fmt: skip
    outputs = [value("sel", ["K", 3], TensorProto.INT64), value("g", [1, 16])]
    np.savez(tmp_path / "boxes.npz", x=X)
    return save(tmp_path, make_model(nodes, [value("x", [1, 12])], outputs, stored), "boxes.onnx")


@pytest.mark.parametrize(("make", "wanted"), [(sequence, "s"), (boxes, "g")])
@pytest.mark.parametrize("words", [("audit",), ("audit", "--adc-bits", 6), ("verify-plan",), ("landscape",)])
def test_outputs_that_no_metric_reads_are_refused_with_those_that_can(command, tmp_path, make, wanted, words):
    """Exit 2 and a name that works with --output-name, in every command that scores."""
    path = make(tmp_path)
    few = ("-j", 0, "-q") if words[0] == "landscape" else FEW[:5]
    ran = command(words[0], path, *words[1:], *few)
    assert ran.code == 2
    assert f"with --output-name: {wanted}" in ran.err
    if words == ("audit",):
        assert report(command, tmp_path, path, "--output-name", wanted)["trials"]["count"] == 4


def test_an_output_of_another_length_for_each_sample_is_refused_when_it_is_chosen(command, tmp_path):
    """The lengths that were met, and what to choose."""
    ran = command("audit", boxes(tmp_path), *FEW, "--output-name", "sel")
    assert ran.code == 2
    assert "output 'sel' has another shape for each sample" in ran.err
    assert "with --output-name: g" in ran.err


def test_a_classifier_with_a_label_in_text_is_scored_by_its_scores(command, tmp_path):
    """skl2onnx's form: the scores are chosen, and labels in text are numbered by the model's own list."""
    names = np.array(["e", "d", "c", "b", "a"])
    table = {"keys_int64s": [0, 1, 2, 3, 4], "values_strings": names.tolist()}
    encode = node("LabelEncoder", ["a"], ["n"], domain="ai.onnx.ml", **table)  # fmt: skip
    outputs = [value("n", ["N"], TensorProto.STRING), *SCORED]
    path = mlp(tmp_path, "names", [ARGMAX, encode], outputs, names[SCORES.argmax(1)])
    found = report(command, tmp_path, path)
    assert (found["metric"], found["nominal"]) == ("top1", 1.0)
    assert any("scored: 's' (the class scores beside the label 'n'" in note for note in found["notes"])
    ran = command("audit", path, *FEW, "--output-name", "n")
    assert (ran.code, "output 'n' is text and cannot be scored" in ran.err) == (2, True)


@pytest.mark.parametrize("output", [(), ("--output-name", "p")])
def test_dictionaries_of_scores_are_scored(command, tmp_path, output):
    """ZipMap with the model's own numbers of classes: as the scores that it was made from."""
    numbered = np.array([3, 5, 7, 8, 9])
    maps = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )
    zipped = node("ZipMap", ["s"], ["p"], domain="ai.onnx.ml", classlabels_int64s=numbered.tolist())
    outputs = [value("a", ["N"], TensorProto.INT64), helper.make_value_info("p", maps)]
    path = mlp(tmp_path, "zip", [ARGMAX, zipped], outputs, numbered[SCORES.argmax(1)])
    plain = report(command, tmp_path, mlp(tmp_path, "plain", [], SCORED, SCORES.argmax(1)))
    found = report(command, tmp_path, path, *output)
    assert found["trials"]["values"] == plain["trials"]["values"]


# ---- labels


def regressor(tmp_path):
    more = [node("MatMul", ["s", "w"], ["y"])]
    labels = np.random.default_rng(0).integers(18, 80, 40)
    return mlp(tmp_path, "age", more, [value("y", ["N", 1])], labels, {"w": numbers(5, 1)}), labels


def test_whole_targets_are_numbers_with_mse(command, tmp_path):
    """The error names the cure; with it the values are those of plain arithmetic, the roughness too."""
    path, labels = regressor(tmp_path)
    ran = command("audit", path, *FEW)
    assert (ran.code, "--metric mse" in ran.err) == (2, True)
    found = report(command, tmp_path, path, "--metric", "mse", "--roughness")
    error = (SCORES @ numbers(5, 1))[:, 0] - labels
    assert found["nominal"] == pytest.approx(np.square(error).mean(), rel=1e-5)
    assert found["roughness"]["loss"] == "mse"
    surface = command("landscape", path, "--loss", "mse", "--pairs", 1, "--grid", 3, "-j", 0, "-q", "--json")
    assert json.loads(surface.out)["loss"]["nominal"] == pytest.approx(found["nominal"], rel=1e-5)


@pytest.mark.parametrize(("void", "options"), [(-100, ()), (255, ("--ignore-label", 255))])
def test_voids_are_left_out_everywhere(command, tmp_path, void, options):
    """Ideal is 100 % of what is labelled; quantised, chips, classes and roughness leave the same out."""
    labels = SCORES.argmax(1)
    labels[::3] = void
    path = mlp(tmp_path, "void", [], SCORED, labels)
    found = report(command, tmp_path, path, *options, "--roughness", "--attribute", "classes")
    assert (found["nominal"], found["roughness"]["loss"]) == (1.0, "cross_entropy")
    rows = found["attribution_detail"]["classes"]["classes"]
    assert void not in [row["label"] for row in rows]
    assert all(row["nominal"] == pytest.approx(1) for row in rows)
    plain = mlp(tmp_path, "plain", [], SCORED, labels[labels != void], x=X[labels != void])
    same = report(command, tmp_path, plain)
    assert found["trials"]["values"] == pytest.approx(same["trials"]["values"], abs=1e-12)
    if options:
        ran = command("audit", path, *FEW)
        assert (ran.code, "--ignore-label 255" in ran.err) == (2, True)


def test_several_labels_a_sample_have_a_metric(command, tmp_path):
    """The error names it; the value is the share of labels that are right."""
    labels = (SCORES > 0).astype(np.float32)
    labels[:10, 0] = 1 - labels[:10, 0]
    path = mlp(tmp_path, "multi", [], SCORED, labels)
    ran = command("audit", path, *FEW)
    assert (ran.code, "--metric multilabel" in ran.err) == (2, True)
    found = report(command, tmp_path, path, "--metric", "multilabel", "--roughness")
    assert found["nominal"] == pytest.approx(1 - 10 / 200)
    assert (found["data"]["label_kind"], found["roughness"]["loss"]) == ("multilabel", "cross_entropy")


def test_positions_joined_with_the_samples_belong_to_them_in_order(command, tmp_path):
    """[N·T, C] against labels [N, T]: proved by running samples in another order, and said."""
    x = X.reshape(10, 4, 12)
    flat = [node("Reshape", ["x3", "to"], ["x"]), *MLP]
    stored = {**STORED, "to": np.array([-1, 12])}
    path = save(tmp_path, make_model(flat, [value("x3", ["N", 4, 12])], [value("s", ["M", 5])], stored))
    np.savez(tmp_path / "model.npz", x=x, y=SCORES.argmax(1).reshape(10, 4))
    found = report(command, tmp_path, path)
    assert (found["nominal"], found["data"]["count"]) == (1.0, 10)
    assert any("4 rows for each sample" in note for note in found["notes"])


def test_outputs_that_are_no_numbers_are_counted(command, tmp_path):
    """Of the ideal model and of the chips, beside the accuracy that counts them as wrong."""
    path = mlp(tmp_path, "nan", [node("Sqrt", ["s"], ["y"])], [value("y", ["N", 5])], SCORES.argmax(1))
    broken = int((SCORES < 0).any(axis=1).sum())
    notes = " ".join(report(command, tmp_path, path)["notes"])
    assert f"not numbers (NaN) for {broken} of 40 samples" in notes
    assert "on 4 of 4 chips" in notes


@pytest.mark.parametrize(
    ("body", "message"),
    [("1j * np.ones(len(o))", "returned complex numbers"), ("np.full(len(o), 1e308)", "is inf on some chip")],
)
def test_a_metric_that_gives_no_real_numbers_is_refused(command, tmp_path, monkeypatch, body, message):
    """Complex scores are not cut; a sum beyond floating point is no value, and no warning."""
    name = f"metric_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"import numpy as np\n\ndef f(o, y):\n    return {body}\n")
    monkeypatch.syspath_prepend(tmp_path)
    ran = command("audit", mlp(tmp_path, "own", [], SCORED, SCORES.argmax(1)), *FEW, "--metric", f"{name}:f")
    assert (ran.code, message in ran.err) == (2, True)


@pytest.mark.parametrize("case", ["age", "void", "multi", "flat"])
def test_training_takes_labels_as_the_audit_does(command, tmp_path, case):
    """One epoch on whole targets, voids, several labels a sample, joined positions."""
    pytest.importorskip("torch", reason="needs torch (pip install 'nvaudit[harden]')")
    options = {"age": ("--metric", "mse"), "multi": ("--metric", "multilabel")}.get(case, ())
    if case == "age":
        path, _ = regressor(tmp_path)
    elif case == "flat":
        stored = {**STORED, "to": np.array([-1, 12])}
        nodes = [node("Reshape", ["x3", "to"], ["x"]), *MLP]
        path = save(tmp_path, make_model(nodes, [value("x3", ["N", 4, 12])], [value("s", ["M", 5])], stored))
        np.savez(tmp_path / "model.npz", x=X.reshape(10, 4, 12), y=SCORES.argmax(1).reshape(10, 4))
    else:
        labels = SCORES.argmax(1) if case == "void" else (SCORES > 0).astype(np.int64)
        labels = np.where(np.arange(40) % 3 == 0, -1, labels) if case == "void" else labels
        path = mlp(tmp_path, case, [], SCORED, labels)
    ran = command(
        "harden", path, *options, "--epochs", 1, "--trials", 3, "--train-trials", 2, "--no-roughness",
        "-j", 0, "-q", "-m", "gaussian", "-o", tmp_path / "h.onnx", "--report", tmp_path / "h.json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "h.json").read_text())
    assert found["metric"] == {"age": "mse", "multi": "multilabel"}.get(case, "top1")
    if case != "age":
        assert found["before"]["nominal"] == 1.0


def test_training_decisions_is_refused(command, tmp_path):
    """No gradient passes a decision; the scores are named by --output-name."""
    pytest.importorskip("torch", reason="needs torch (pip install 'nvaudit[harden]')")
    path = mlp(tmp_path, "decided", [ARGMAX], [value("a", ["N"], TensorProto.INT64)], SCORES.argmax(1))
    ran = command("harden", path, "--epochs", 1, "-j", 0, "-q", "-m", "gaussian", "-o", tmp_path / "h.onnx")
    assert (ran.code, "--output-name" in ran.err) == (2, True)


@pytest.mark.parametrize("case", ["decisions", "voids", "multilabel"])
def test_races_of_these_readings_are_exact(command, tmp_path, case):
    """1,200 samples and 150 chips: the KPP of a race is that of every chip on every sample."""
    x = numbers(1200, 12, seed=3)
    scores = np.maximum(x @ W1, 0) @ W2
    joined = [node("Reshape", ["x3", "to"], ["x"]), *MLP, node("Reshape", ["s", "back"], ["y"])]
    stored = {**STORED, "to": np.array([-1, 12]), "back": np.array([-1, 2, 5])}
    options = ()
    if case == "decisions":
        path = mlp(tmp_path, case, [ARGMAX], [value("a", ["N"], TensorProto.INT64)], scores.argmax(1), x=x)
    elif case == "multilabel":
        path, options = mlp(tmp_path, case, [], SCORED, scores > 0, x=x), ("--metric", "multilabel")
    else:  # one of two positions of each sample has no label
        long = numbers(2400, 12, seed=4)
        labels = (np.maximum(long @ W1, 0) @ W2).argmax(1).reshape(1200, 2)
        labels[:, 1] = -1
        model = make_model(joined, [value("x3", ["N", 2, 12])], [value("y", ["N", 2, 5])], stored)
        path = save(tmp_path, model, "voids.onnx")
        np.savez(tmp_path / "voids.npz", x=long.reshape(1200, 2, 12), y=labels)
    same = ("-n", 150, "-j", 0, "-q", "--sigma", 0.3, *options)
    found = []
    for more in ((), ("--exhaustive",)):
        ran = command("audit", path, *same, *more, "-o", tmp_path / "r.json")
        assert ran.code == 0, ran.err
        found.append(json.loads((tmp_path / "r.json").read_text()))
    raced, whole = found
    assert raced["trials"]["race"] is not None
    assert abs(raced["kpp"][0]["value"] - whole["kpp"][0]["value"]) <= raced["kpp"][0]["width"] + 1e-12
    assert raced["nominal"] == whole["nominal"] == 1.0

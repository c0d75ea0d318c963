"""Metrics: what is read into the shapes, and the scores, against references worked out separately."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from nvaudit.errors import DataError, OptionError
from nvaudit.perturb.metrics import Metric, reference_of, resolve_metric, score
from nvaudit.perturb.own_metric import load_metric

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((6, 5)).astype(np.float32)
LABELS = np.array([0, 4, 2, 2, 1, 3])


def run(name, output, labels, kind="class", class_axis=None):
    """Resolve a metric on a batch and score the batch."""
    metric = resolve_metric(name, output, labels, kind, class_axis)
    return metric, score(metric, output, labels)


def nll(logits, labels):
    """Cross-entropy through scipy, classes on the last axis."""
    picked = np.take_along_axis(log_softmax(logits.astype(float), axis=-1), labels[..., None], -1)
    return -picked[..., 0]


# ---- names


@pytest.mark.parametrize(
    ("output", "kind", "wanted", "against"),
    [
        (LOGITS, "class", "top1", "labels"),
        (LOGITS, "reference", "mse", "labels"),
        (LOGITS, "none", "agreement", "nominal"),
        (np.full((6, 1), 0.3, np.float32), "none", "agreement", "nominal"),
        (np.full((6, 1), 30.0, np.float32), "none", "mse", "nominal"),
        (np.full(6, 30.0, np.float32), "none", "mse", "nominal"),
        (RNG.random((6, 3, 8, 8)), "none", "mse", "nominal"),
        (RNG.random((2, 40, 3000)), "none", "mse", "nominal"),
    ],
)
def test_the_default_follows_from_labels_and_outputs(output, kind, wanted, against):
    """top1 with classes; mse with targets; without labels agreement of scores, else mse to the nominal."""
    labels = {"class": LABELS, "reference": np.zeros_like(output), "none": None}[kind]
    metric = resolve_metric(None, output, labels, kind)
    assert (metric.name, metric.against) == (wanted, against)


@pytest.mark.parametrize(
    ("name", "kind", "higher", "unit"),
    [
        ("top1", "top_k", True, "fraction"),
        ("top3", "top_k", True, "fraction"),
        ("cross_entropy", "cross_entropy", False, "nats"),
        ("loss", "cross_entropy", False, "nats"),
        ("agreement", "agreement", True, "fraction"),
    ],
)
def test_names(name, kind, higher, unit):
    """Each name has its rule, its direction and its unit."""
    metric = resolve_metric(name, LOGITS, LABELS, "class")
    assert (metric.kind, metric.higher_is_better, metric.unit) == (kind, higher, unit)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("accuracy", "--metric 'accuracy' is unknown; use top1, topK"),
        ("top0", "--metric top0: k must be at least 1"),
        ("top5", "--metric top5: the output has only 5 classes on axis 1"),
        ("top-1", "--metric 'top-1' is unknown"),
    ],
)
def test_wrong_names(name, message):
    """An unknown name lists the known ones; a k that no output could miss is refused."""
    with pytest.raises(OptionError) as caught:
        resolve_metric(name, LOGITS, LABELS, "class")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", ["top1", "cross_entropy"])
def test_metrics_that_need_labels(name):
    """Without labels they are refused, with what would work."""
    with pytest.raises(OptionError, match=f"--metric {name} needs labels; without them use agreement or mse"):
        resolve_metric(name, LOGITS, None, "none")


def test_labels_between_classes_are_refused():
    """A label that is no whole number is named, with its sample; whole ones in floating point are classes."""
    output, labels = np.eye(4, dtype=np.float32), np.array([0.0, 1.5, 2.0, 3.0])
    for name in ("top1", "f1", "miou", "cross_entropy"):
        for kind in ("class", "reference"):
            with pytest.raises(DataError, match="1 of 4 are no class numbers, the first is sample 1"):
                resolve_metric(name, output, labels, kind)
    assert resolve_metric("top1", output, np.arange(4.0), "class").name == "top1"


def test_a_scalar_output_is_refused():
    """One number for a whole batch has no score per sample."""
    with pytest.raises(OptionError, match="choose another with --output-name"):
        resolve_metric(None, np.float32(3.0), LABELS, "class")


# ---- top k


def test_top1():
    """A sample counts where the largest score is the label's."""
    metric, values = run("top1", LOGITS, LABELS)
    assert values.tolist() == [float(row.argmax() == y) for row, y in zip(LOGITS, LABELS, strict=True)]
    assert values.dtype == np.float64
    assert metric.assumed == ("class scores on axis 1 (5 classes)",)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_topk_against_a_full_sort(k):
    """A sample counts where the label is among the k largest."""
    _, values = run(f"top{k}", LOGITS, LABELS)
    best = np.argsort(-LOGITS, axis=1, kind="stable")[:, :k]
    assert values.tolist() == [float(y in row) for row, y in zip(best, LABELS, strict=True)]


def test_ties_go_to_the_lower_class():
    """Equal scores rank by class number, for top-1 and top-k alike."""
    output = np.array([[1, 1, 1, 0]] * 4, np.float32)
    labels = np.arange(4)
    assert run("top1", output, labels)[1].tolist() == [1, 0, 0, 0]
    assert run("top2", output, labels)[1].tolist() == [1, 1, 0, 0]
    assert run("top3", output, labels)[1].tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("name", ["top1", "top2"])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_a_row_with_nan_is_wrong(name, label):
    """Whatever the label, a sample whose scores are not all numbers is wrong, also at the NaN's own class."""
    output = np.array([[3.0, np.nan, 1.0], [3.0, 2.0, 1.0]], np.float32)
    metric = resolve_metric(name, LOGITS, LABELS, "class")
    values = score(metric, output, np.array([label, 0]))
    assert values.tolist() == [0.0, 1.0]


def test_infinite_scores_still_rank():
    """An overflow to +inf is the largest score."""
    output = np.array([[np.inf, 0.0, 1.0], [-np.inf, 0.0, 1.0]], np.float32)
    metric = resolve_metric("top1", LOGITS, LABELS, "class")
    assert score(metric, output, np.array([0, 2])).tolist() == [1.0, 1.0]


# ---- shapes


def test_images_with_a_label_per_pixel():
    """[N, C, H, W] with [N, H, W]: classes on axis 1, the score is the mean over pixels."""
    output = RNG.standard_normal((3, 4, 5, 6)).astype(np.float32)
    labels = RNG.integers(0, 4, (3, 5, 6))
    metric, values = run("top1", output, labels)
    assert metric.class_axis == 1
    assert metric.assumed == ("class scores on axis 1 (4 classes), averaged over positions",)
    assert values == pytest.approx((output.argmax(axis=1) == labels).mean(axis=(1, 2)))
    _, loss = run("cross_entropy", output, labels)
    assert loss == pytest.approx(nll(np.moveaxis(output, 1, -1), labels).mean(axis=(1, 2)))


@pytest.mark.parametrize("name", ["top1", "top2", "cross_entropy"])
def test_sequences(name):
    """[N, T, C] with [N, T]: classes on the last axis; the same after moving them to axis 1."""
    output = RNG.standard_normal((3, 7, 4)).astype(np.float32)
    labels = RNG.integers(0, 4, (3, 7))
    metric, values = run(name, output, labels)
    assert metric.class_axis == 2
    moved, same = run(name, np.moveaxis(output, 2, 1), labels)
    assert moved.class_axis == 1
    assert same == pytest.approx(values)


def test_singleton_axes_do_not_matter():
    """[N, C, 1, 1] fits [N] labels, and [N, C] fits [N, 1]."""
    plain = run("top1", LOGITS, LABELS)[1]
    assert (run("top1", LOGITS[:, :, None, None], LABELS)[1] == plain).all()
    assert (run("top1", LOGITS, LABELS[:, None])[1] == plain).all()


def test_labels_that_fit_no_axis():
    """The message has both shapes."""
    with pytest.raises(DataError) as caught:
        resolve_metric("top1", np.zeros((6, 4, 5, 6), np.float32), LABELS, "class")
    assert "labels y: shape [6], and the output has [6, 4, 5, 6]: no axis of class scores" in str(
        caught.value
    )


def test_class_axis_overrides_the_shape():
    """Given, it is taken as it is, also counted from the end."""
    output = RNG.standard_normal((3, 4, 4)).astype(np.float32)
    labels = RNG.integers(0, 4, (3, 4))
    assert resolve_metric("top1", output, labels, "class").class_axis == 1
    for axis in (2, -1):
        metric, values = run("top1", output, labels, class_axis=axis)
        assert metric.class_axis == 2
        assert values == pytest.approx((output.argmax(axis=2) == labels).mean(axis=1))


@pytest.mark.parametrize("axis", [0, -2, 2, -3, 7])
def test_class_axis_out_of_range(axis):
    """The batch axis, and axes that are not there, are refused with the shape."""
    with pytest.raises(OptionError) as caught:
        resolve_metric("top1", LOGITS, LABELS, "class", axis)
    assert str(caught.value) == f"--class-axis {axis}: the output has shape [6, 5] (axis 0 is the batch)"


@pytest.mark.parametrize("label", [5, 9])
def test_labels_out_of_range(label):
    """The message has the label, the classes, and the first sample with such a label."""
    labels = np.array([0, 4, 2, 5, label, 3])
    with pytest.raises(DataError) as caught:
        resolve_metric("top1", LOGITS, labels, "class")
    assert (
        str(caught.value)
        == f"labels y: label {label} is out of range: the model has 5 classes (0 … 4); first seen at sample 3"
    )


# ---- one score column


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize(
    ("values", "scale", "right"),
    [([0.2, 0.5, 0.51, 1.0], "probability", [1, 1, 1, 0]), ([-3.0, 0.0, 0.1, 9.0], "logit", [1, 1, 1, 0])],
)
def test_a_single_column(values, scale, right, shape):
    """All nominal outputs in 0 … 1 make it a probability, cut at 0.5, else a logit, cut at 0."""
    output = np.array(values, np.float32).reshape(shape)
    metric, found = run("top1", output, np.array([0, 0, 1, 0]))
    assert (metric.scale, metric.class_axis) == (scale, None)
    assert metric.assumed == (f"the single score column is a {scale} of the positive class",)
    assert found.tolist() == right


def test_a_single_column_with_nan_is_wrong():
    """NaN is no decision: wrong for both labels."""
    metric = resolve_metric("top1", np.array([[0.3]], np.float32), np.array([0]), "class")
    assert score(metric, np.full((2, 1), np.nan), np.array([0, 1])).tolist() == [0.0, 0.0]


def test_a_single_column_has_two_classes():
    """Label 2 is out of range, and top-2 would always be right."""
    column = np.full((6, 1), 0.3, np.float32)
    with pytest.raises(DataError, match="label 4 is out of range: the model has 2 classes"):
        resolve_metric("top1", column, LABELS, "class")
    with pytest.raises(OptionError, match="--metric top2: the output has a single score column"):
        resolve_metric("top2", column, np.zeros(6, int), "class")


def test_cross_entropy_of_a_single_column():
    """Binary cross-entropy, from probabilities or logits; the two agree."""
    logit = np.array([-2.0, 0.5, 3.0, -40.0], np.float32)
    labels = np.array([0, 1, 0, 0])
    probability = 1 / (1 + np.exp(-logit.astype(float)))
    wanted = -np.where(labels == 1, np.log(probability), np.log1p(-probability))
    from_logits, from_probabilities = (
        run("cross_entropy", column, labels) for column in (logit, probability.astype(np.float32))
    )
    assert (from_logits[0].scale, from_probabilities[0].scale) == ("logit", "probability")
    assert from_logits[1] == pytest.approx(wanted, rel=1e-6)
    assert from_probabilities[1] == pytest.approx(wanted, rel=1e-5)


# ---- cross-entropy


def test_cross_entropy_of_logits():
    """Against scipy's log_softmax, also where exp would overflow."""
    for factor in (1.0, 500.0):
        metric, values = run("cross_entropy", LOGITS * np.float32(factor), LABELS)
        assert metric.scale == "logit"
        assert values == pytest.approx(nll(LOGITS * np.float32(factor), LABELS), rel=1e-10)


def test_cross_entropy_of_probabilities():
    """Rows that sum to 1 are not put through softmax again; a probability of 0 is floored, not infinite."""
    probability = softmax(LOGITS.astype(float), axis=1).astype(np.float32)
    metric, values = run("cross_entropy", probability, LABELS)
    assert metric.scale == "probability"
    assert "the scores are probabilities (they sum to 1)" in metric.assumed[1]
    assert values == pytest.approx(nll(LOGITS, LABELS), rel=1e-5)
    certain = score(metric, np.eye(5, dtype=np.float32)[:1], np.array([3]))
    assert certain == pytest.approx(-np.log(np.finfo(np.float32).tiny))


def test_non_negative_logits_are_not_probabilities():
    """Scores that are all positive but do not sum to 1 stay logits (a ReLU before the output)."""
    metric, values = run("cross_entropy", np.abs(LOGITS), LABELS)
    assert metric.scale == "logit"
    assert values == pytest.approx(nll(np.abs(LOGITS), LABELS))


# ---- agreement and squared error


@pytest.mark.parametrize("shape", [(6, 5), (6, 4, 3), (6, 4, 3, 2)])
def test_agreement_with_the_nominal_outputs(shape):
    """Nominal outputs agree with themselves; a chip agrees where its decision is the same."""
    nominal = RNG.standard_normal(shape).astype(np.float32)
    metric = resolve_metric("agreement", nominal, None, "none")
    assert metric.against == "nominal"
    kept = reference_of(metric, nominal)
    assert kept.dtype.kind == "i"
    assert (score(metric, nominal, kept) == 1).all()
    noisy = nominal + RNG.standard_normal(shape).astype(np.float32)
    axis = 2 if len(shape) == 3 else 1
    same = noisy.argmax(axis=axis) == nominal.argmax(axis=axis)
    assert score(metric, noisy, kept) == pytest.approx(same.reshape(6, -1).mean(axis=1))


def test_agreement_ignores_labels():
    """With labels present agreement still compares with the unmodified model."""
    metric = resolve_metric("agreement", LOGITS, LABELS, "class")
    assert metric.against == "nominal"
    assert (score(metric, LOGITS, reference_of(metric, LOGITS)) == 1).all()


def test_agreement_with_reference_outputs():
    """With stored reference outputs it compares decisions with those."""
    metric = resolve_metric("agreement", LOGITS, LOGITS[::-1].copy(), "reference")
    assert metric.against == "labels"
    same = LOGITS.argmax(axis=1) == LOGITS[::-1].argmax(axis=1)
    assert score(metric, LOGITS, LOGITS[::-1]).tolist() == same.astype(float).tolist()


def test_agreement_of_a_single_column():
    """Decisions on either side of the threshold agree."""
    nominal = np.array([[-1.0], [2.0], [3.0]], np.float32)
    metric = resolve_metric("agreement", nominal, None, "none")
    kept = reference_of(metric, nominal)
    assert score(metric, np.array([[-5.0], [-0.1], [0.1]]), kept).tolist() == [1, 0, 1]


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3), (6, 2, 4)])
def test_mse(shape):
    """Mean over a sample's elements, against targets that may have singleton axes more or less."""
    output = RNG.standard_normal(shape).astype(np.float32)
    target = RNG.standard_normal(shape)
    metric, values = run("mse", output, target.reshape(6, -1), "reference")
    assert (metric.higher_is_better, metric.against) == (False, "labels")
    assert values == pytest.approx(((output - target) ** 2).reshape(6, -1).mean(axis=1))


def test_mse_against_the_nominal_outputs():
    """Without labels the reference is the unmodified model's output itself."""
    metric = resolve_metric("mse", LOGITS, None, "none")
    assert metric.against == "nominal"
    assert reference_of(metric, LOGITS) is LOGITS
    assert (score(metric, LOGITS, LOGITS) == 0).all()


def test_mse_with_targets_of_another_size():
    """The message has both shapes."""
    with pytest.raises(DataError) as caught:
        resolve_metric("mse", LOGITS, np.zeros((6, 4)), "reference")
    assert "targets have shape [4] per sample, the output [5]" in str(caught.value)


# ---- a function of the user


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of metrics in the working folder."""
    (tmp_path / "my_metrics.py").write_text(
        "import numpy as np\n"
        "def margin(outputs, labels):\n"
        "    return outputs[np.arange(len(outputs)), labels]\n"
        "def error(outputs, labels):\n"
        "    return np.zeros(len(outputs), dtype=int)\n"
        "error.higher_is_better = False\n"
        "def mean(outputs, labels):\n"
        "    return outputs.mean()\n"
    )
    (tmp_path / "broken_metrics.py").write_text("import not_a_module_at_all\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    yield
    for name in ("my_metrics", "broken_metrics"):
        __import__("sys").modules.pop(name, None)


@pytest.mark.usefixtures("module")
def test_a_function_scores_samples():
    """module:function gets outputs and labels of a batch and returns a score per sample."""
    metric, values = run("my_metrics:margin", LOGITS, LABELS)
    assert (metric.kind, metric.unit, metric.higher_is_better) == ("function", "score", True)
    assert values == pytest.approx(LOGITS[np.arange(6), LABELS])


@pytest.mark.usefixtures("module")
def test_a_function_may_say_that_less_is_better():
    """Its attribute ``higher_is_better`` decides the direction; integers become floats."""
    metric, values = run("my_metrics:error", LOGITS, LABELS)
    assert not metric.higher_is_better
    assert values.dtype == np.float64


@pytest.mark.usefixtures("module")
def test_a_function_that_returns_one_number_is_of_all_samples():
    """It is then called once, with everything; what it gives for a batch is no score of a sample."""
    metric = resolve_metric("my_metrics:mean", LOGITS, LABELS, "class")
    assert metric.corpus
    with pytest.raises(OptionError, match="returned one number for 6 samples, and one for each before"):
        score(metric, LOGITS, LABELS)


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nowhere_to_be_found:f", "No module named 'nowhere_to_be_found'"),
        ("my_metrics:nothing", "there is no 'nothing' in it"),
        ("broken_metrics:f", "No module named 'not_a_module_at_all'"),
        (":f", "Empty module name"),
    ],
)
def test_a_function_that_cannot_be_imported(name, why):
    """The message has the name and Python's reason."""
    with pytest.raises(OptionError) as caught:
        load_metric(name)
    assert str(caught.value).startswith(f"--metric {name}: ")
    assert why in str(caught.value)


def test_arrays_are_never_touched():
    """Read-only outputs and labels are scored and keep their values."""
    output, labels = LOGITS.copy(), LABELS.copy()
    output.flags.writeable = labels.flags.writeable = False
    for name in ("top1", "top3", "cross_entropy"):
        run(name, output, labels)
    metric = Metric("mse", "mse")
    score(metric, output, output)
    assert (output == LOGITS).all()

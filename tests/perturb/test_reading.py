"""Metrics whose reading the graph settles: decisions, axes that must be proved, positions without a label."""

import numpy as np
import pytest

from nvaudit.errors import DataError, ModelError, OptionError
from nvaudit.perturb.difficulty import nominal_margin
from nvaudit.perturb.landscape.loss import settle_loss
from nvaudit.perturb.metrics import (
    Reading,
    check_row,
    not_numbers,
    over_set,
    reference_of,
    resolve_metric,
    score,
)

RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((6, 4, 5)).astype(np.float32)


def test_decisions_are_compared_as_labels():
    """Agreement and top1 of class numbers equal those of the scores that they come from."""
    decided, noisy = SCORES.argmax(1), (SCORES + RNG.standard_normal(SCORES.shape)).argmax(1)
    metric = resolve_metric(None, decided, None, "none", None, Reading("y", decisions=True))
    assert (metric.name, metric.decided) == ("agreement", True)
    assert "'y' holds decisions" in metric.caution
    found = score(metric, noisy.astype(np.uint8), reference_of(metric, decided.astype(np.uint8)))
    assert found == pytest.approx((noisy == decided).mean(axis=1))
    top1 = resolve_metric(None, decided.astype(np.float32), decided, "class", None, Reading(decisions=True))
    assert score(top1, noisy.astype(np.float32), decided) == pytest.approx((noisy == decided).mean(axis=1))
    assert (nominal_margin(top1, noisy.astype(np.float32), decided) <= 1).all()


@pytest.mark.parametrize("name", ["cross_entropy", "top2"])
def test_what_needs_scores_is_refused_for_decisions(name):
    """The output is named, and what to choose."""
    with pytest.raises(OptionError, match=r"'y' holds decisions .* choose the scores with --output-name"):
        resolve_metric(name, SCORES.argmax(1), SCORES.argmax(1), "class", None, Reading("y", decisions=True))


def test_decisions_of_another_shape_than_the_labels_are_refused():
    """Both shapes stand in the message."""
    with pytest.raises(DataError, match=r"labels y: shape \[6\], and output 'y' \[6, 5\]"):
        resolve_metric(
            "top1", SCORES.argmax(1), np.zeros(6, int), "class", None, Reading("y", decisions=True)
        )


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_one_hot_decisions_score_as_the_scores_before_them(dtype):
    """Each decision counts once, not once for every class; what needs scores is refused."""
    noisy = SCORES + RNG.standard_normal(SCORES.shape).astype(np.float32)
    decided, other = (np.moveaxis(np.eye(4, dtype=dtype)[s.argmax(1)], -1, 1) for s in (SCORES, noisy))
    reading = Reading("y", decisions=True, one_hot_axis=1)
    metric = resolve_metric(None, decided, None, "none", None, reading)
    wanted = (noisy.argmax(1) == SCORES.argmax(1)).mean(axis=1)
    assert metric.name == "agreement"
    assert score(metric, other, reference_of(metric, decided)) == pytest.approx(wanted)
    top1 = resolve_metric(None, decided, SCORES.argmax(1), "class", None, reading)
    assert score(top1, other, SCORES.argmax(1)) == pytest.approx(wanted)
    assert "one-hot on axis 1" in top1.caution
    with pytest.raises(OptionError, match="choose the scores"):
        resolve_metric("cross_entropy", decided, SCORES.argmax(1), "class", None, reading)
    with pytest.raises(DataError, match="label 7 is out of range: the model has 4 classes"):
        resolve_metric("top1", decided, SCORES.argmax(1) + 4, "class", None, reading)


def test_labels_for_every_rank_are_told_what_is_wanted():
    """Labels of the same shape as ranked decisions: the axis that they must not have is named."""
    reading = Reading("i", decisions=True, ranked_axis=1)
    with pytest.raises(DataError, match=r"one label for each sample and position, without axis 1"):
        resolve_metric("top1", np.zeros((6, 3), int), np.zeros((6, 3), int), "class", None, reading)


def test_channels_that_are_taken_as_classes_because_it_was_asked_for_are_said():
    """Agreement over the channels of a convolution: in the headline, unless the axis was given."""
    reading = Reading("y", class_axis=1)
    metric = resolve_metric("agreement", SCORES, None, "none", None, reading)
    assert metric.class_axis == 1
    assert "channels of output 'y' [N, 4, 5] are taken as classes, which nothing proves" in metric.caution
    assert resolve_metric("agreement", SCORES, None, "none", 1, reading).caution == ""
    proved = Reading("y", class_axis=1, scores=True)
    assert resolve_metric("agreement", SCORES, None, "none", None, proved).caution == ""


def test_ranked_decisions_score_top_k():
    """Indices of TopK: top1 looks at the first, top2 at the first two, as the scores would."""
    flat = SCORES[:, :, 0]
    ranked, labels = np.argsort(-flat, axis=1)[:, :3], np.array([0, 1, 2, 3, 0, 1])
    reading = Reading("i", decisions=True, ranked_axis=1)
    for name in ("top1", "top2"):
        wanted = score(resolve_metric(name, flat, labels, "class"), flat, labels)
        metric = resolve_metric(name, ranked, labels, "class", None, reading)
        assert score(metric, ranked, labels).tolist() == wanted.tolist()


def test_scores_in_order_cannot_be_read_as_classes():
    """Values of TopK: mse by default, with the reason in the headline; top1 is refused."""
    reading = Reading("v", ranked=True)
    metric = resolve_metric(None, SCORES[:, :, 0], None, "none", None, reading)
    assert (metric.name, "not whose they are" in metric.caution) == ("mse", True)
    with pytest.raises(OptionError, match="largest scores in order"):
        resolve_metric("top1", SCORES[:, :, 0], np.zeros(6, int), "class", None, reading)


def test_an_axis_that_nothing_proves_is_not_guessed():
    """Without labels the default needs no reading and says so; agreement asks for --class-axis."""
    metric = resolve_metric(None, SCORES, None, "none", None, Reading("y"))
    assert metric.name == "mse"
    assert "nothing proves which axis of output 'y' [N, 4, 5]" in metric.caution
    with pytest.raises(OptionError, match=r"axis 1 \(4\) or axis 2 \(5\); set --class-axis, or use"):
        resolve_metric("agreement", SCORES, None, "none", None, Reading("y"))
    assert resolve_metric("agreement", SCORES, None, "none", 1, Reading("y")).class_axis == 1


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_a_proved_axis_is_taken(axis):
    """By softmax or a dense layer: agreement by default; by convolution only when asked for."""
    metric = resolve_metric(None, SCORES, None, "none", None, Reading("y", class_axis=axis, scores=True))
    assert (metric.name, metric.class_axis) == ("agreement", axis % 3)
    channels = Reading("y", class_axis=axis)
    assert resolve_metric(None, SCORES, None, "none", None, channels).name == "mse"
    assert resolve_metric("agreement", SCORES, None, "none", None, channels).class_axis == axis % 3


def test_labels_prove_the_axis_by_shape_then_by_range_or_the_graph_decides():
    """Any axis may be it, not only axis 1 and the last; of two that fit, the proved one or none."""
    long = RNG.standard_normal((2, 3, 7, 1)).astype(np.float32)
    metric = resolve_metric("top1", long, np.zeros((2, 3), int), "class", None, Reading())
    assert metric.class_axis == 2
    square = RNG.standard_normal((2, 5, 5)).astype(np.float32)
    labels = np.zeros((2, 5), int)
    with pytest.raises(OptionError, match="nothing proves which axis holds the classes"):
        resolve_metric("top1", square, labels, "class", None, Reading("y"))
    assert resolve_metric("top1", square, labels, "class", None, Reading(class_axis=2)).class_axis == 2


def test_images_are_numbers_without_a_word():
    """Of outputs like images nobody expects classes: mse, and nothing in the headline."""
    metric = resolve_metric(None, RNG.random((2, 3, 8, 8)), None, "none", None, Reading("y"))
    assert (metric.name, metric.caution) == ("mse", "")
    long = RNG.random((2, 7, 1, 50))  # [N, T, 1, C], say
    assert "nothing proves" in resolve_metric(None, long, None, "none", None, Reading()).caution


# ---- positions without a label


@pytest.mark.parametrize("void", [-100, -1, 255])
def test_positions_without_a_label_are_left_out(void):
    """The mean over the set is the mean over all labelled positions, for accuracy and cross-entropy."""
    labels = RNG.integers(0, 4, (6, 5))
    hidden = RNG.random((6, 5)) < 0.4
    labels[0, :], labels[hidden] = void, void
    kept = labels != void
    metric = resolve_metric("top1", SCORES, labels, "class", None, Reading(ignore=(void,)))
    assert metric.uneven
    right = SCORES.argmax(1) == labels
    assert score(metric, SCORES, labels).mean() == pytest.approx(right[kept].mean())
    loss = resolve_metric("cross_entropy", SCORES, labels, "class", None, Reading(ignore=(void,)))
    logs = SCORES - np.log(np.exp(SCORES).sum(axis=1, keepdims=True))
    own = -np.take_along_axis(logs, np.where(kept, labels, 0)[:, None], 1)[:, 0]
    assert score(loss, SCORES, labels).mean() == pytest.approx(own[kept].mean(), rel=1e-6)


def test_even_samples_can_be_raced():
    """As many labelled positions in each sample: scores stay within 0 and 1, margins look at those only."""
    labels = SCORES.argmax(1)
    labels[:, 0] = -1
    metric = resolve_metric("top1", SCORES, labels, "class", None, Reading(ignore=(-1,)))
    assert not metric.uneven
    assert score(metric, SCORES, labels).tolist() == [1.0] * 6
    worst = SCORES.copy()
    worst[:, :, 0] = 0
    margins = nominal_margin(metric, worst, labels)
    assert (margins > 0).all()
    assert np.isfinite(margins).all()


def test_a_part_of_a_set_is_scaled_by_its_own_labels():
    """What is measured on some samples is the mean over their labelled positions."""
    labels = SCORES.argmax(1)
    labels[0, :4] = -1
    metric = resolve_metric("top1", SCORES, labels, "class", None, Reading(ignore=(-1,)))
    part = over_set(metric, labels[:2])
    assert score(part, SCORES[:2], labels[:2]).mean() == pytest.approx(1)
    with pytest.raises(DataError, match="all of the 2 samples used are labelled -1"):
        over_set(metric, np.full((2, 5), -1))


# ---- several labels a sample


def test_several_labels_per_sample():
    """The share of labels that are right, of logits and of probabilities; the landscape's loss is binary."""
    logits = RNG.standard_normal((6, 5)).astype(np.float32)
    labels = RNG.integers(0, 2, (6, 5))
    for output, edge in ((logits, 0), (1 / (1 + np.exp(-logits)), 0.5)):
        metric = resolve_metric("multilabel", output, labels, "multilabel", None, Reading("y"))
        assert score(metric, output, labels) == pytest.approx(((output > edge) == labels).mean(axis=1))
        loss = settle_loss(None, output, labels, "multilabel", None, Reading("y"))
        p = 1 / (1 + np.exp(-logits.astype(float)))
        wanted = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean(axis=1)
        assert score(loss.metric, output, labels) == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(DataError, match="labels are 0 or 1 for each output, found 3"):
        resolve_metric("multilabel", logits, labels * 3, "multilabel", None, Reading("y"))


def test_labels_for_each_output_say_what_scores_them():
    """Read as classes they fit no axis; the message names the metric for several labels."""
    with pytest.raises(DataError, match="scored by --metric multilabel or by one of your own"):
        resolve_metric(None, SCORES[:, :, 0], np.ones((6, 4), int), "class", None, Reading("y"))


# ---- what cannot be compared


def test_outputs_of_another_shape_and_no_numbers():
    """Another shape than the first samples' is refused; NaN are counted by sample."""
    metric = resolve_metric("mse", SCORES, None, "none", None, Reading("y"))
    with pytest.raises(ModelError, match=r"shape \[4, 4\] for some samples or chips and \[4, 5\]"):
        check_row(metric, SCORES[:, :, :4])
    broken = SCORES.copy()
    broken[1, 0, 0] = broken[4] = np.nan
    assert (not_numbers(broken), not_numbers(SCORES), not_numbers(SCORES.argmax(1))) == (2, 0, 0)

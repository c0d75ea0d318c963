"""The loss of a landscape is settled from outputs and labels, and says what it assumed."""

import numpy as np
import pytest

from nvaudit.errors import DataError, OptionError
from nvaudit.perturb.landscape.loss import settle_loss
from nvaudit.perturb.metrics import reference_of, score

LABELS = np.array([2, 0, 1, 1])


def scores(seed=0, shape=(4, 3)):
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)


def softmax(z):
    e = np.exp(z)
    return e / e.sum(axis=1, keepdims=True)


def test_cross_entropy_from_logits_and_from_probabilities():
    """With class labels it is cross-entropy; logits and probabilities are told apart and give the same."""
    logits = scores()
    expected = -np.log(softmax(logits)[np.arange(4), LABELS])
    for output, said in ((logits, "logits"), (softmax(logits), "probabilities")):
        loss = settle_loss(None, output, LABELS, "class")
        assert (loss.name, loss.keep, loss.metric.against) == ("cross_entropy", None, "labels")
        assert said in " ".join(loss.assumed)
        assert score(loss.metric, output, LABELS) == pytest.approx(expected, rel=1e-9)


def test_reference_outputs_give_mse():
    """With reference outputs it is the squared error against them."""
    output, target = scores(), scores(1)
    loss = settle_loss(None, output, target, "reference")
    assert (loss.name, loss.keep) == ("mse", None)
    assert score(loss.metric, output, target) == pytest.approx(np.square(output - target).mean(axis=1))


def test_without_labels_the_decisions_of_the_unmodified_model_stand_for_them():
    """Class scores without labels: cross-entropy with what the unmodified model decides."""
    output = scores()
    loss = settle_loss(None, output, None, "none")
    assert loss.name == "cross_entropy"
    assert "own decisions" in loss.assumed[-1]
    kept = reference_of(loss.keep, output)
    assert kept.tolist() == output.argmax(axis=1).tolist()
    expected = -np.log(softmax(output).max(axis=1))
    assert score(loss.metric, output, kept) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3, 5), (4, 7, 6)])
def test_other_shapes_without_labels(shape):
    """A single score, positions with classes on axis 1 or last: all can be scored against themselves."""
    output = scores(shape=shape)
    output = 1 / (1 + np.exp(-output)) if len(shape) < 3 else output  # a single score is a probability
    loss = settle_loss(None, output, None, "none")
    assert loss.name == "cross_entropy"
    values = score(loss.metric, output, reference_of(loss.keep, output))
    assert values.shape == (4,)
    assert (values > 0).all()


def test_mse_against_the_unmodified_outputs():
    """No class scores, or --loss mse with class labels: the unmodified outputs are the target."""
    for output, labels, kind, name in (
        (scores(shape=(2, 3, 8, 8)), None, "none", None),
        (scores(), LABELS, "class", "mse"),
        (scores(), None, "none", "mse"),
    ):
        loss = settle_loss(name, output, labels, kind)
        assert loss.name == "mse"
        assert "the unmodified model's outputs" in loss.assumed[0]
        assert not score(loss.metric, output, reference_of(loss.keep, output)).any()


def test_what_does_not_fit_is_refused():
    """Cross-entropy without classes, labels that are too large, targets of another size, a wrong axis."""
    with pytest.raises(OptionError, match="needs class labels; the data has reference outputs: use mse"):
        settle_loss("cross_entropy", scores(), scores(1), "reference")
    with pytest.raises(DataError, match="label 3 is out of range: the model has 3 classes"):
        settle_loss(None, scores(), LABELS + 1, "class")
    with pytest.raises(DataError, match="must have the same number of elements"):
        settle_loss(None, scores(), scores(shape=(4, 2)), "reference")
    with pytest.raises(OptionError, match="--class-axis 5"):
        settle_loss(None, scores(), LABELS, "class", 5)

"""Metrics over a whole set: against values worked out by hand, in one batch or in several."""

import numpy as np
import pytest
from scipy.special import log_softmax

from nvaudit.errors import OptionError
from nvaudit.perturb.corpus import accumulator
from nvaudit.perturb.metrics import Reading, resolve_metric

RNG = np.random.default_rng(3)


def value(name, output, labels, kind="class", cut=None, **more):
    """A metric over a set, taken in one batch or cut in two."""
    gathered = accumulator(resolve_metric(name, output, labels, kind, **more))
    for part in (slice(None, cut), slice(cut, None)) if cut else (slice(None),):
        gathered.update(output[part], labels[part])
    return gathered.compute()


def scores_for(decisions, classes):
    """Scores whose largest is at the decisions."""
    return np.eye(classes, dtype=np.float32)[np.asarray(decisions)]


# The example of scikit-learn's f1_score: F1 of the classes is 0.8, 0 and 0.
MEANT, DECIDED = np.array([0, 1, 2, 0, 1, 2]), [0, 2, 1, 0, 0, 1]


@pytest.mark.parametrize("cut", [None, 2])
@pytest.mark.parametrize(("name", "wanted"), [("f1", 0.8 / 3), ("f1_macro", 0.8 / 3), ("f1_micro", 1 / 3)])
def test_f1_is_that_of_the_published_example(name, wanted, cut):
    """The documented values of scikit-learn, whatever the batches."""
    assert value(name, scores_for(DECIDED, 3), MEANT, cut=cut) == pytest.approx(wanted)


def test_mean_iou_is_over_the_classes_that_are_labelled():
    """Class 0: 2 of 3 pixels, class 1: 1 of 3; class 2 is decided for and never meant; −1 is left out."""
    meant = np.array([[[0, 0], [1, 1]], [[-1, 0], [1, -1]]])
    decided = [[[0, 0], [0, 1]], [[2, 2], [0, 0]]]
    output = np.moveaxis(scores_for(decided, 3), -1, 1)
    # 0: both 2, meant 3, decided 4, so 2 / 5; 1: both 1, meant 3, decided 1, so 1 / 3
    reading = Reading("out", class_axis=1, ignore=(-1,))
    assert value("miou", output, meant, reading=reading) == pytest.approx((2 / 5 + 1 / 3) / 2)


def test_f1_of_several_labels_a_sample():
    """Each output is a class; yes is above 0 of a logit: F1 2/3 and 1."""
    output, meant = np.array([[1.0, 2.0], [1.0, -1.0]]), np.array([[1, 1], [0, 0]])
    assert value("f1", output, meant, "multilabel") == pytest.approx((2 / 3 + 1) / 2)
    assert value("f1_micro", output, meant, "multilabel") == pytest.approx(4 / 5)


@pytest.mark.parametrize("cut", [None, 3])
def test_perplexity_is_the_exponential_of_the_mean_over_all_positions(cut):
    """Also where sequences have different numbers of scored positions."""
    output, labels = RNG.standard_normal((5, 4, 7)), RNG.integers(0, 7, (5, 4))
    labels[0, 1:] = labels[3, 0] = -100
    costs = -np.take_along_axis(log_softmax(output, -1), np.maximum(labels, 0)[..., None], -1)[..., 0]
    reading = Reading("out", class_axis=2, scores=True, ignore=(-100,))
    wanted = np.exp(costs[labels >= 0].mean())
    assert value("perplexity", output, labels, cut=cut, reading=reading) == pytest.approx(wanted)


@pytest.fixture
def own(tmp_path):
    """A file with metrics of one's own."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import numpy as np\n"
        "class Peak:\n"
        "    higher_is_better = False\n"
        "    def __init__(self): self.seen = []\n"
        "    def update(self, outputs, labels): self.seen.append(float(np.max(outputs)))\n"
        "    def compute(self): return max(self.seen)\n"
        "peak = Peak()\n"
        "def spread(outputs, labels): return np.std(outputs)\n"
        "def each(outputs, labels): return outputs.max(axis=1)\n"
        "def lengths(outputs, labels): return [len(one) for one in labels]\n"
        "class Bad:\n"
        "    def update(self, outputs, labels): pass\n"
        "    def compute(self): return [1, 2]\n"
        "text = 'none'\n"
    )
    return path


@pytest.mark.parametrize("cut", [None, 4])
@pytest.mark.parametrize("name", ["Peak", "peak"])
def test_a_class_or_an_object_gathers_batches(own, name, cut):
    """A new one for each chip: what one has gathered does not reach the next."""
    output = RNG.standard_normal((6, 3))
    metric = resolve_metric(f"{own}:{name}", output, None, "none")
    assert metric.corpus
    assert not metric.higher_is_better
    for shown in (output, output - 5):
        gathered = accumulator(metric)
        for part in (slice(0, cut), slice(cut, None)) if cut else (slice(None),):
            gathered.update(shown[part], None)
        assert gathered.compute() == pytest.approx(shown.max())


def test_a_function_with_one_number_gets_all_samples_at_once(own):
    """The spread of all outputs is no mean of those of batches."""
    output = RNG.standard_normal((8, 3))
    assert value(f"{own}:spread", output, np.zeros(8, int), cut=3) == pytest.approx(output.std())


def test_a_function_with_one_score_each_stays_one_by_sample(own):
    """Its metric is a mean over samples."""
    assert not resolve_metric(f"{own}:each", RNG.standard_normal((8, 3)), None, "none").corpus


def test_labels_of_different_lengths_are_handed_over_as_lists(own):
    """A text, or the rows of each sample, without what fills them up."""
    from nvaudit.data.ragged import pad_rows
    from nvaudit.data.spec import LabelPlaces
    from nvaudit.perturb.metrics import score

    output = RNG.standard_normal((2, 3))
    for labels, kind, wanted in (
        (pad_rows([[4, 5, 6], []], LabelPlaces("made up")), "ragged", [3, 0]),
        (np.array(["ab", "abcd"]), "text", [2, 4]),
    ):
        metric = resolve_metric(f"{own}:lengths", output, labels, kind)
        assert score(metric, output, labels).tolist() == wanted


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text", "it is of type str and has no update and no compute"),
        ("missing", "there is no 'missing' in it; it has Peak, spread"),
    ],
)
def test_what_is_no_metric_is_refused(own, name, message):
    """With its type, or Python's reason."""
    with pytest.raises(OptionError, match=message):
        resolve_metric(f"{own}:{name}", np.zeros((2, 2)), None, "none")


def test_a_gathered_value_must_be_a_number(own):
    """Anything else is refused with what it was."""
    gathered = accumulator(resolve_metric(f"{own}:Bad", np.zeros((2, 2)), None, "none"))
    gathered.update(np.zeros((2, 2)), None)
    with pytest.raises(OptionError, match=r"gave '\[1, 2\]' for all samples; it must be one number"):
        gathered.compute()


def test_a_file_that_is_not_there():
    """The message names it."""
    with pytest.raises(OptionError, match=r"nowhere.py:f: cannot import it: .*nowhere.py"):
        resolve_metric("nowhere.py:f", np.zeros((2, 2)), None, "none")

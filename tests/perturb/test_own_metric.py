"""A user's own metric: what it may give, what is refused, and where it prints."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from nvaudit.errors import OptionError
from nvaudit.perturb.corpus import accumulator
from nvaudit.perturb.metrics import resolve_metric
from nvaudit.perturb.own_metric import as_scores, as_value, prints_aside

OUTPUT = np.arange(12.0).reshape(6, 2)


@pytest.fixture
def settle(tmp_path):
    """Settle a metric from the text of its file."""

    def settle(text, name="m"):
        path = tmp_path / "own.py"
        path.write_text("import numpy as np\n" + text)
        return resolve_metric(f"{path}:{name}", OUTPUT, np.zeros(6, int), "class")

    return settle


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["0.5"] * 6, r"returned texts: \['0.5'"),
        ("0.5", "returned texts: '0.5'"),
        ([b"1"] * 6, "returned texts"),
        ([None] * 6, r"returned objects: \[None"),
        (None, "returned objects: None"),
        ([1j] * 6, "returned complex numbers"),
        (True, "returned a truth value: True; it must return one score per sample"),
        ([np.datetime64("2026-01-01")] * 6, "returned times"),
        ([1.0] * 5, r"returned shape \[5\] for 6 samples"),
        ([[1.0]] * 6, r"returned shape \[6, 1\] for 6 samples"),
        ([[1.0], [1.0, 2.0]], "returned no numbers: ValueError"),
        ((one for one in OUTPUT), "returned objects: <generator"),
    ],
)
def test_what_is_no_score_is_refused_with_what_was_found(given, found):
    """Texts are not read as numbers, and nothing is cut off or stretched."""
    with pytest.raises(OptionError, match=found):
        as_scores("own.py:m", given, 6)


@pytest.mark.parametrize("given", [[True, False] * 3, [1] * 6, np.ones(6, np.float16), 3, np.float32(0.5)])
def test_numbers_of_any_kind_are_scores(given):
    """Also a True or False for each sample, which counts 1 or 0."""
    assert np.array_equal(as_scores("own.py:m", given, 6), np.asarray(given, float))


@pytest.mark.parametrize("given", ["0.5", True, None, 1j, [1, 2], [], {"value": 1}])
def test_a_value_over_the_set_is_one_number(given):
    """Not a text, a truth value, several numbers or none."""
    with pytest.raises(OptionError, match=r"own.py:M (gave|returned) .*it must be one number"):
        as_value("own.py:M", given)
    assert as_value("own.py:M", np.array([0.25], np.float32)) == 0.25


@pytest.mark.parametrize("said", ["'no'", "0", "None", "[]"])
@pytest.mark.parametrize("where", ["class", "instance", "function"])
def test_a_direction_that_is_no_truth_value_is_refused(settle, where, said):
    """'no' is true to Python; it would turn the KPP round."""
    text = {
        "class": f"class m:\n    higher_is_better = {said}\n",
        "instance": f"class m:\n    def __init__(self): self.higher_is_better = {said}\n",
        "function": f"def m(o, l): return o[:, 0]\nm.higher_is_better = {said}\n",
    }[where]
    if where != "function":
        text += "    def update(self, o, l): pass\n    def compute(self): return 1.0\n"
    with pytest.raises(OptionError, match=r"own.py:m: higher_is_better is .*; set it to True or False"):
        settle(text)


def test_a_direction_may_be_set_when_an_instance_is_made(settle):
    """As torchmetrics does; the class itself knows nothing of it."""
    metric = settle(
        "class m:\n    def __init__(self): self.higher_is_better = False\n"
        "    def update(self, o, l): pass\n    def compute(self): return 1.0\n"
    )
    assert not metric.higher_is_better


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class m:\n    def update(self, o, l): pass\n", "it is a class, has update and has no compute"),
        ("class m:\n    def compute(self): return 1\n", "it is a class, has compute and has no update"),
        ("class m:\n    def measure(self): return 1\n", "it is a class and has no update and no compute"),
        ("class K:\n    def update(self, o, l): pass\nm = K()\n", "it is of type K, has update and has no"),
        ("m = 3\n", "it is of type int and has no update and no compute"),
        ("class m:\n    def __init__(self, size): pass\n    def update(self, o, l): pass\n"
         "    def compute(self): return 1\n", "failed when it was made: TypeError"),
    ],
)  # fmt: skip
def test_what_lacks_a_part_is_refused_with_the_part(settle, text, message):
    """And how a metric may look."""
    with pytest.raises(OptionError, match=f"own.py:m:? .*{message}|own.py:m: {message}"):
        settle(text)


def test_scores_that_are_no_numbers_on_the_unmodified_model_are_refused(settle):
    """How many, before any chip is run."""
    with pytest.raises(OptionError, match="gave NaN for 1 of the first 6 samples of the unmodified model"):
        settle("def m(o, l): return np.where(o[:, 0] == 2, np.nan, 1)\n")


def test_what_an_accumulator_gives_is_checked(settle):
    """A text is refused at the end of a chip, too."""
    gathered = accumulator(
        settle("class m:\n    def update(self, o, l): pass\n    def compute(self): return '0.5'\n")
    )
    gathered.update(OUTPUT, np.zeros(6, int))
    with pytest.raises(OptionError, match=r"own.py:m returned texts: '0.5'; it must be one number"):
        gathered.compute()


def test_threads_that_overlap_leave_standard_output_as_it_was(capsys):
    """The first in saves it, the last out restores it; what was printed is on standard error."""
    before, inside, go = sys.stdout, threading.Barrier(2), threading.Event()

    def second():
        with prints_aside():
            inside.wait()
            go.wait()
            sys.stdout.write("late\n")

    thread = threading.Thread(target=second)
    with prints_aside():
        thread.start()
        inside.wait()
        sys.stdout.write("early\n")
    assert sys.stdout is not before  # the other is still inside
    go.set()
    thread.join()
    assert sys.stdout is before
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "early\nlate\n"


PRINTS = """
import os, sys
import numpy as np

print("imported")


def noisy(outputs, labels):
    print("a word", flush=True)
    os.system("echo from a program")
    return (outputs.argmax(axis=1) == labels).astype(float)


class Noisy:
    def __init__(self):
        print("made")
        self.right = self.all = 0

    def update(self, outputs, labels):
        print("updated")
        self.right += int((outputs.argmax(axis=1) == labels).sum())
        self.all += len(labels)

    def compute(self):
        print("computed")
        return self.right / self.all
"""


@pytest.mark.parametrize(("name", "workers"), [("noisy", 0), ("Noisy", 1)])
def test_what_a_metric_prints_does_not_get_into_results(tmp_path, name, workers):
    """Standard output holds the report alone, whoever runs the chips; the words are on standard error."""
    example = Path(__file__).parents[2] / "examples" / "digits_cnn.onnx"
    (tmp_path / "prints.py").write_text(PRINTS)
    ran = subprocess.run(
        [sys.executable, "-m", "nvaudit", "audit", str(example), "--device", "rram", "--metric",
         f"prints.py:{name}", "-n", "3", "--limit", "50", "--no-roughness", "-j", str(workers), "-o", "-"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)["trials"]["values"]) == 3
    assert "imported" in ran.stderr
    for word in ("a word",) if name == "noisy" else ("made", "updated", "computed"):
        assert word in ran.stderr, ran.stderr
    if workers == 0:
        assert "from a program" in ran.stderr

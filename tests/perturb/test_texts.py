"""Texts: CTC decoding, alphabets, and error rates against distances worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from nvaudit.errors import DataError, OptionError
from nvaudit.perturb.metrics import Reading, over_set, resolve_metric, score
from nvaudit.perturb.text import distances, fit_alphabet, greedy_ctc, read_alphabet

pytest.importorskip("rapidfuzz", reason="needs rapidfuzz (pip install 'nvaudit[text]')")


def steps(*texts, alphabet="abc ", blank_between=True):
    """Scores [N, T, C] whose greedy decoding is these texts."""
    rows = []
    for text in texts:
        row = []
        for letter in text:
            row += [0, alphabet.index(letter) + 1] if blank_between else [alphabet.index(letter) + 1]
        rows.append(row)
    longest = max(len(row) for row in rows)
    return np.stack([np.eye(len(alphabet) + 1)[row + [0] * (longest - len(row))] for row in rows])


READS = Reading("out", alphabet=("a", "b", "c", " "), alphabet_of="letters.txt")


def rate(name, read, meant):
    """A rate over a set of texts."""
    output, labels = steps(*read), np.array(meant)
    metric = resolve_metric(name, output, labels, "text", reading=READS)
    return metric, score(metric, output, labels).mean()


@pytest.mark.parametrize(
    ("row", "text"),
    [([1, 1, 0, 1, 2, 2], "aab"), ([0, 0, 0], ""), ([2, 0, 2, 2, 1], "bba"), ([9, 1], "a")],
)
def test_greedy_decoding_counts_repeats_once_and_blanks_not_at_all(row, text):
    """A class between two steps of itself and a blank is read again; one without a character is not read."""
    assert greedy_ctc(np.array([row]), ["", "a", "b"]) == [text]


@pytest.mark.parametrize(
    ("read", "meant", "characters", "words"),
    [
        ("kitten", "sitting", 3, 1),
        ("", "abc", 3, 1),
        ("abc", "", 3, 1),
        ("a b c", "a c", 2, 1),
        ("", "", 0, 0),
    ],
)
def test_distances_are_those_of_levenshtein(read, meant, characters, words):
    """Insertions, deletions and substitutions, of characters or of words."""
    assert distances([read], np.array([meant]), words=False) == [characters]
    assert distances([read], np.array([meant]), words=True) == [words]


def test_a_rate_is_that_of_the_whole_set():
    """Distances add up over lengths that add up: 1 + 0 of 2 + 8 characters, not the mean of two rates."""
    metric, value = rate("cer", ["ac", "abcabcab"], ["ab", "abcabcab"])
    assert value == pytest.approx(1 / 10)
    assert (metric.higher_is_better, metric.corpus, metric.uneven, metric.unit) == (
        False,
        False,
        True,
        "fraction",
    )
    assert rate("wer", ["a b", "c a b"], ["a c", "c a b"])[1] == pytest.approx(1 / 5)


def test_a_rate_of_a_part_is_by_the_lengths_of_that_part():
    """What a part is scaled by is its own number of characters."""
    output, labels = steps("a", "cc"), np.array(["ab", "cc"])
    metric = resolve_metric("cer", output, labels, "text", reading=READS)
    part = over_set(metric, labels[:1])
    assert score(part, output[:1], labels[:1]).mean() == pytest.approx(1 / 2)


def test_outputs_that_are_decisions_are_read_as_they_are():
    """A graph that ends in ArgMax gives classes of steps."""
    reading = replace(READS, decisions=True)
    output, labels = np.array([[1, 0, 2], [3, 3, 0]]), np.array(["ab", "c"])
    metric = resolve_metric("cer", output, labels, "text", reading=reading)
    assert score(metric, output, labels) == pytest.approx([0, 0])


def test_an_alphabet_may_lack_blank_and_space():
    """A list as models carry it, without the blank and the space, is completed; another one is refused."""
    assert fit_alphabet(["a", "b"], 4, "x") == ("", "a", "b", " ")
    assert fit_alphabet(["blank", "a"], 2, "x") == ("", "a")
    with pytest.raises(DataError, match=r"letters\.txt: 2 entries, and the output has 7 classes"):
        fit_alphabet(["a", "b"], 7, "letters.txt")


def test_an_alphabet_is_lines_or_a_list(tmp_path):
    """A line may be a space; JSON holds what lines cannot."""
    lines, listed = tmp_path / "a.txt", tmp_path / "a.json"
    lines.write_text("a\n \nü\n", encoding="utf-8")
    listed.write_text('["a", "\\n"]')
    assert read_alphabet(lines) == ("a", " ", "ü")
    assert read_alphabet(listed) == ("a", "\n")
    listed.write_text('{"a": 1}')
    with pytest.raises(DataError, match="no JSON list of texts"):
        read_alphabet(listed)


@pytest.mark.parametrize(
    ("labels", "kind", "reading", "message"),
    [
        (
            np.array(["ab"]),
            "text",
            Reading("out"),
            "it is not known what the classes of the output stand for",
        ),
        (np.array([0]), "class", READS, "needs text as labels, and they are of kind class"),
        (None, "none", READS, "needs text as labels, and there are none"),
    ],
)
def test_what_an_error_rate_needs(labels, kind, reading, message):
    """Texts as labels, and an alphabet."""
    with pytest.raises(OptionError, match=message):
        resolve_metric("cer", steps("ab"), labels, kind, reading=reading)


def test_empty_texts_alone_are_nothing_to_read():
    """There is no rate of no characters."""
    with pytest.raises(DataError, match="all of the 1 texts are empty"):
        resolve_metric("cer", steps("a"), np.array([""]), "text", reading=READS)

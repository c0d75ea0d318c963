"""The gate: verdict, error rates, and what it says."""

import re

import numpy as np
import pytest
from scipy import stats

from nvaudit.errors import DataError, OptionError
from nvaudit.report.gates import decide
from nvaudit.rng import stream
from nvaudit.stats.gate import overall_verdict, verdict_of

REPEATS = 1000


def chips(failures: int, trials: int) -> list[float]:
    return [0.5] * failures + [0.95] * (trials - failures)


@pytest.mark.parametrize(
    ("failures", "trials", "verdict"),
    [
        (0, 299, "pass"), (0, 298, "undecided"), (1, 473, "pass"), (1, 472, "undecided"),
        (0, 1, "undecided"), (1, 1, "fail"), (2, 10, "fail"), (1, 5, "fail"), (1, 6, "undecided"),
        (27, 1000, "fail"), (10, 1000, "undecided"), (3, 1000, "pass"),
    ],
)  # fmt: skip
def test_verdict(failures, trials, verdict):
    """299 chips without a failure pass at 1 % and 95 %; few failures among few chips fail."""
    result = decide(chips(failures, trials), 0.9, 1, 0.95, True)
    assert result.verdict == verdict == verdict_of(failures, trials, 1, 0.95)
    assert (result.failures, result.trials) == (failures, trials)
    assert (result.needed is None) == (verdict != "undecided")


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("percentile", [0.5, 1, 5, 50])
def test_verdict_is_the_one_of_the_bounds(percentile, confidence):
    """Pass means upper bound ≤ k %, fail means lower bound > k %."""
    for trials in (1, 20, 300):
        for failures in range(trials + 1):
            error, prob = 1 - confidence, percentile / 100
            high = stats.beta.ppf(confidence, failures + 1, trials - failures) if failures < trials else 1
            low = stats.beta.ppf(error, failures, trials - failures + 1) if failures else 0
            if min(abs(high - prob), abs(low - prob)) < 1e-9:
                continue
            expected = "pass" if high <= prob else "fail" if low > prob else "undecided"
            assert verdict_of(failures, trials, percentile, confidence) == expected


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize(("percentile", "trials"), [(1, 400), (1, 1000), (5, 100)])
def test_error_rates_at_the_boundary(percentile, trials, higher):
    """Where exactly k % of the chips miss the threshold, pass and fail each occur in at most 5 %."""
    values = stream(5, "gate", percentile, trials).random((REPEATS, trials))
    threshold = percentile / 100
    if not higher:
        values, threshold = -values, -threshold
    verdicts = [decide(row, threshold, percentile, 0.95, higher).verdict for row in values]
    allowed = 0.05 + 3.5 * (0.05 * 0.95 / REPEATS) ** 0.5
    for verdict in ("pass", "fail"):
        assert verdicts.count(verdict) / REPEATS <= allowed
    # It is not always undecided: the test would notice a gate that never decides.
    assert len(set(verdicts)) > 1


def test_a_chip_on_the_threshold_does_not_miss_it():
    """A value equal to the threshold counts as reached, for accuracies and losses."""
    for higher in (True, False):
        assert decide([0.9] * 300, 0.9, 1, 0.95, higher).failures == 0


def test_loss_fails_above():
    """For a loss, chips above the threshold miss it, and the reason says above."""
    result = decide([0.1] * 290 + [2.0] * 10, 1.0, 1, 0.95, False)
    assert (result.failures, result.verdict) == (10, "fail")
    assert result.reason.startswith("10 of 300 chips are above 1; with 95 % confidence at least ")


@pytest.mark.parametrize(
    ("failures", "trials", "reason"),
    [
        (3, 1000, "3 of 1,000 chips are below 0.9; with 95 % confidence at most 0.774 % of all chips are, "
                  "and 1 % may be"),
        (27, 1000, "27 of 1,000 chips are below 0.9; with 95 % confidence at least 1.91 % of all chips are, "
                   "and only 1 % may be"),
        (8, 1000, "8 of 1,000 chips are below 0.9; with 95 % confidence between 0.399 % and 1.44 % of all "
                  "chips are, and 1 % may be"),
        (0, 1, "0 of 1 chip is below 0.9; with 95 % confidence between 0 % and 95 % of all chips are, "
               "and 1 % may be"),
    ],
)  # fmt: skip
def test_reason_is_plain_words_with_numbers(failures, trials, reason):
    """The reason gives counts, bound and what is allowed."""
    assert decide(chips(failures, trials), 0.9, 1, 0.95, True).reason == reason


def test_needed_is_true():
    """The trials it asks for do decide it, and one fewer does not."""
    for failures, trials in ((0, 1), (0, 298), (1, 300), (8, 1000)):
        needed = decide(chips(failures, trials), 0.9, 1, 0.95, True).needed
        total = int(re.search(r"\(([\d,]+) in all\)", needed)[1].replace(",", ""))
        assert verdict_of(failures, total, 1, 0.95) == "pass"
        assert verdict_of(failures, total - 1, 1, 0.95) == "undecided"


@pytest.mark.parametrize(("failures", "outcome"), [(8, "pass"), (12, "fail")])
def test_needed_at_the_same_share(failures, outcome):
    """With the share of failures seen so far, about the trials it asks for decide it that way."""
    needed = decide(chips(failures, 1000), 0.9, 1, 0.95, True).needed
    found = re.match(rf"about ([\d,]+) more trials at this failure share would {outcome}", needed)
    total = 1000 + int(found[1].replace(",", ""))
    for factor, verdicts in ((0.8, {"undecided"}), (1.2, {outcome})):
        trials = round(factor * total)
        assert verdict_of(round(failures * trials / 1000), trials, 1, 0.95) in verdicts


def test_needed_says_when_more_trials_will_not_settle():
    """A share of failures that equals the allowed one is never settled."""
    assert "too close to 1 %" in decide(chips(10, 1000), 0.9, 1, 0.95, True).needed


def test_overall_verdict_is_the_worst():
    """One failing gate fails; an undecided one comes before a passing one; no gate, no verdict."""
    passing, failing, open_ = (decide(chips(f, n), 0.9, 1, 0.95, True) for f, n in ((0, 400), (9, 9), (0, 5)))
    assert overall_verdict([]) is None
    assert overall_verdict([passing]) == "pass"
    assert overall_verdict([passing, open_]) == "undecided"
    assert overall_verdict([open_, failing, passing]) == "fail"


@pytest.mark.parametrize(
    ("values", "threshold", "percentile", "confidence", "error"),
    [
        ([], 0.9, 1, 0.95, DataError), ([np.nan], 0.9, 1, 0.95, DataError),
        ([1.0], np.inf, 1, 0.95, OptionError), ([1.0], 0.9, 0, 0.95, OptionError),
        ([1.0], 0.9, 1, 1.0, OptionError),
    ],
)  # fmt: skip
def test_nonsense_is_refused(values, threshold, percentile, confidence, error):
    """Bad values, threshold, percentile or confidence raise an error of ours."""
    with pytest.raises(error):
        decide(values, threshold, percentile, confidence, True)

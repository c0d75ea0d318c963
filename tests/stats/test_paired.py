"""Differences of paired audits: their intervals cover what they state, and say where there is none."""

import math

import numpy as np
import pytest
from scipy import stats

from nvaudit.errors import DataError, OptionError
from nvaudit.report.paired import paired_difference
from nvaudit.rng import stream
from nvaudit.stats.binomial import interval_ranks
from nvaudit.stats.kpp import kpp
from nvaudit.stats.paired import (
    NoInterval,
    chips_for_kpp_difference,
    kpp_difference,
    mean_difference,
)

CONFIDENCE = 0.95


def grid(values):
    """Accuracies on 1,000 images."""
    return np.rint(values * 1000) / 1000


def close(rng, n):
    z = rng.standard_normal((2, n))
    return grid(0.95 + 0.01 * z[0]), grid(0.955 + 0.01 * (0.9 * z[0] + math.sqrt(0.19) * z[1]))


def against(rng, n):
    z = rng.standard_normal((2, n))
    return grid(0.95 + 0.01 * z[0]), grid(0.95 + 0.01 * (-0.8 * z[0] + 0.6 * z[1]))


def skewed(rng, n):
    tail, own = rng.gamma(0.5, 1, (2, n))
    return grid(0.97 - 0.03 * tail), grid(0.97 - 0.015 * tail - 0.005 * own)


def collapse(rng, n):
    fate, z = rng.random(n), rng.standard_normal((2, n))
    common = 0.95 + 0.005 * z[0]
    return grid(common - 0.3 * (fate < 0.02)), grid(common + 0.001 * z[1] - 0.3 * (fate < 0.005))


def nearly_equal(rng, n):
    before = grid(0.95 + 0.01 * rng.standard_normal(n))
    return before, grid(before + (rng.random(n) < 0.05) * 0.01 * rng.standard_normal(n))


def coarse(rng, n):
    prob = np.clip(0.9 + 0.03 * rng.standard_normal((2, n)), 0, 1)
    return rng.binomial(20, prob[0]) / 20, rng.binomial(20, prob[1]) / 20


def ordinary(rng, n):
    return np.zeros(n), rng.standard_normal(n)


def one_sided(rng, n):
    return np.zeros(n), rng.exponential(1, n)


def long_tail(rng, n):
    return np.zeros(n), np.exp(rng.standard_normal(n))


def truth_of(make, statistic):
    before, after = make(stream(0, "truth", make.__name__), 2_000_000)
    return statistic(before, after)


def kpp_change(percentile):
    return lambda before, after: (
        kpp(after, percentile, CONFIDENCE, True).value - kpp(before, percentile, CONFIDENCE, True).value
    )


def coverage_of_kpp(make, n, percentile, repeats):
    truth = truth_of(make, kpp_change(percentile))
    rng = stream(1, "coverage", make.__name__, n)
    hits = 0
    for _ in range(repeats):
        found = kpp_difference(*make(rng, n), percentile, CONFIDENCE, higher_is_better=True)
        hits += found.low - 1e-9 <= truth <= found.high + 1e-9
    return hits / repeats


def coverage_of_mean(make, n, repeats):
    truth = truth_of(make, lambda before, after: float(np.mean(after - before)))
    rng = stream(2, "coverage", make.__name__, n)
    hits = 0
    for _ in range(repeats):
        found = mean_difference(*make(rng, n), CONFIDENCE)
        hits += found.low <= truth <= found.high
    return hits / repeats


@pytest.mark.parametrize("make", [close, collapse, nearly_equal, coarse])
def test_interval_of_the_kpp_difference_covers(make):
    """At least the stated share of 300 repeats, at the smallest tail that 500 chips say anything of."""
    assert coverage_of_kpp(make, 500, 1, 300) >= CONFIDENCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "percentile"), [(437, 1), (1000, 1), (3000, 1), (200, 5), (100, 10), (200, 50)]
)
@pytest.mark.parametrize("make", [close, against, skewed, collapse, nearly_equal, coarse])
def test_interval_of_the_kpp_difference_covers_everywhere(make, n, percentile):
    """At least the stated share of 1,500 repeats, whatever the pairing, the tail and the ties."""
    assert coverage_of_kpp(make, n, percentile, 1500) >= CONFIDENCE


@pytest.mark.parametrize("make", [ordinary, one_sided, close])
def test_interval_of_the_mean_difference_covers(make):
    """Within the error of 1,000 repeats of the stated share (3 standard errors: 2.1 %)."""
    assert coverage_of_mean(make, 100, 1000) >= CONFIDENCE - 0.021


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 100, 300, 1000])
@pytest.mark.parametrize("make", [ordinary, one_sided, long_tail, close, skewed])
def test_interval_of_the_mean_difference_covers_everywhere(make, n):
    """From 50 chips on at most a point short of the stated share, in 6,000 repeats, skewed or not."""
    assert coverage_of_mean(make, n, 6000) >= CONFIDENCE - 0.01 - 0.0085


def test_student_alone_would_not_do():
    """The reason for the union: Student's t misses the mean of a long tail much more often."""
    rng, truth, hits = stream(2, "coverage", "long_tail", 100), math.exp(0.5), 0
    for _ in range(1000):
        values = long_tail(rng, 100)[1]
        low, high = stats.t.interval(CONFIDENCE, 99, values.mean(), stats.sem(values))
        hits += low <= truth <= high
    assert hits / 1000 < 0.92
    assert coverage_of_mean(long_tail, 100, 1000) >= CONFIDENCE - 0.021


def naive_bound(before, after, percentile, error):
    """The same test inversion, written down pair by pair."""
    n, prob = before.size, percentile / 100
    a, b = np.sort(before), np.sort(after)
    first = max(r for r in range(1, n + 1) if stats.binom.cdf(r - 1, n, prob) <= error * 0.5)
    last = min(s for s in range(1, n + 1) if stats.binom.sf(s - 1, n, prob) <= error * 0.1)
    shifts = []
    for q in a[first - 1 :]:
        for s in b[:last]:
            rise, fall = np.sum((after < s) & (before > q)), np.sum((before <= q) & (after >= s))
            tail = stats.binomtest(int(rise), int(rise + fall), alternative="greater").pvalue if rise else 1
            if tail > error * 0.4:
                shifts.append(s - q)
    return max(shifts)


@pytest.mark.parametrize("make", [close, skewed, coarse])
@pytest.mark.parametrize(("n", "percentile"), [(60, 20), (80, 50)])
def test_interval_is_the_inversion_of_the_three_tests(make, n, percentile):
    """The fast search finds what the definition says."""
    before, after = make(stream(3, "naive", make.__name__, n), n)
    found = kpp_difference(before, after, percentile, CONFIDENCE, higher_is_better=True)
    assert found.high == naive_bound(before, after, percentile, 0.025)
    assert found.low == -naive_bound(after, before, percentile, 0.025)


@pytest.mark.parametrize("make", [close, skewed, nearly_equal])
def test_pairing_narrows_the_interval(make):
    """On chips that go together it is much narrower than the two KPP intervals put together."""
    before, after = make(stream(4, "width", make.__name__), 1000)
    found = kpp_difference(before, after, 5, CONFIDENCE, higher_is_better=True)
    first, last = interval_ranks(5, 1000, (1 + CONFIDENCE) / 2)
    a, b = np.sort(before), np.sort(after)
    combined = (b[last - 1] - a[first - 1]) - (b[first - 1] - a[last - 1])
    assert found.high - found.low < 0.8 * combined


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("percentile", [1, 10, 50])
def test_value_is_the_difference_of_the_kpps_and_inside(higher, percentile):
    """For an accuracy and for a loss."""
    before, after = skewed(stream(5, "value"), 1000)
    found = paired_difference(before, after, percentile, CONFIDENCE, higher)
    values = [kpp(x, percentile, CONFIDENCE, higher).value for x in (before, after)]
    assert found.kpp.value == pytest.approx(values[1] - values[0], abs=1e-12)
    assert found.kpp.low <= found.kpp.value <= found.kpp.high
    assert found.mean.value == pytest.approx(np.mean(after - before))
    assert found.mean.low < found.mean.value < found.mean.high


def test_a_loss_is_an_accuracy_turned_round():
    """Negated values, with the other side as the worst, give the negated difference and interval."""
    before, after = skewed(stream(6, "loss"), 1000)
    up = paired_difference(before, after, 1, CONFIDENCE, higher_is_better=True)
    down = paired_difference(-before, -after, 1, CONFIDENCE, higher_is_better=False)
    assert (down.kpp.low, down.kpp.high) == (-up.kpp.high, -up.kpp.low)
    assert down.mean.low == pytest.approx(-up.mean.high, rel=1e-12)


def test_few_chips_say_how_many_are_needed():
    """One chip less than needed gives no interval of the KPP difference, and the number."""
    needed = chips_for_kpp_difference(1, CONFIDENCE)
    assert needed == 437
    before, after = close(stream(7, "few"), needed)
    assert kpp_difference(before, after, 1, CONFIDENCE, True).low is not None
    few = kpp_difference(before[1:], after[1:], 1, CONFIDENCE, True)
    assert (few.low, few.high, few.missing) == (None, None, NoInterval("few_chips", 437))


def test_one_chip():
    """A single chip has differences, and no intervals."""
    found = paired_difference([0.9], [0.8], 1, CONFIDENCE, True)
    assert found.mean.value == found.kpp.value == pytest.approx(-0.1)
    assert found.mean.missing == "needs 20 chips"
    assert found.kpp.low is None


def test_chips_that_do_not_change():
    """No change at all gives no interval: chips that would change were not seen."""
    values = close(stream(8, "same"), 500)[0]
    found = paired_difference(values, values, 1, CONFIDENCE, True)
    assert found.differing == 0
    assert (found.mean.value, found.kpp.value) == (0, 0)
    assert found.mean.missing == "all chips have the same difference"


def test_rounding_is_no_difference():
    """Differences that are equal but for rounding count as the same."""
    before = np.array([0.1, 0.2] * 30)
    after = np.array([0.2, 0.3] * 30)
    assert len(set(after - before)) == 2
    found = paired_difference(before, after, 10, CONFIDENCE, True)
    assert found.mean.missing == "all chips have the same difference"


def test_a_few_chips_that_change_are_too_few():
    """Three changed chips among a hundred give no interval of the mean, four do."""
    before, after = np.zeros(100), np.zeros(100)
    after[:3] = 0.1
    assert paired_difference(before, after, 10, CONFIDENCE, True).mean.missing == (
        "only 3 of 100 chips depart from the common difference"
    )
    after[3] = 0.1
    assert paired_difference(before, after, 10, CONFIDENCE, True).mean.low is not None


def test_callers_arrays_stay_as_they_are():
    """Read-only arrays will do."""
    before, after = close(stream(9, "read only"), 500)
    before.setflags(write=False)
    after.setflags(write=False)
    paired_difference(before, after, 1, CONFIDENCE, False)


@pytest.mark.parametrize(
    ("before", "after", "percentile", "error", "message"),
    [
        ([0.9, 0.8], [0.9], 1, DataError, "2 chips before and 1 after"),
        ([0.9, None], [0.9, 0.8], 1, DataError, "trial 1 is not known exactly"),
        ([0.9, math.nan], [0.9, 0.8], 1, DataError, "trial 1 is nan"),
        ([], [], 1, DataError, "one number for each trial"),
        ([0.9], [0.9], 0, OptionError, "percentile"),
    ],
)
def test_what_cannot_be_paired_is_refused(before, after, percentile, error, message):
    """Different numbers of chips, chips stopped early, and values that are no numbers."""
    with pytest.raises(error, match=message):
        paired_difference(before, after, percentile, CONFIDENCE, True)

"""Differences of KPPs: their intervals cover where chips are shared, independent, or stopped early."""

import numpy as np
import pytest

from nvaudit.report.comparison.difference import (
    ChipSample,
    bounded_difference,
    difference_of_kpp,
    difference_of_mean,
    independent_difference,
)
from nvaudit.report.paired import difference
from nvaudit.rng import stream
from nvaudit.stats.binomial import interval_ranks
from nvaudit.stats.kpp import kpp
from nvaudit.stats.paired import kpp_difference

CONFIDENCE = 0.95
REPEATS = 300


def grid(values):
    """Accuracies on 1,000 images."""
    return np.rint(values * 1000) / 1000


def normal(rng, n):
    return grid(0.95 + 0.01 * rng.standard_normal(n)), grid(0.955 + 0.02 * rng.standard_normal(n))


def skewed(rng, n):
    return grid(0.97 - 0.03 * rng.gamma(0.5, 1, n)), grid(0.96 - 0.01 * rng.exponential(1, n))


def collapse(rng, n):
    fate = rng.random((2, n))
    common = 0.95 + 0.005 * rng.standard_normal((2, n))
    return grid(common[0] - 0.3 * (fate[0] < 0.03)), grid(common[1] - 0.2 * (fate[1] < 0.004))


def shared(rng, n):
    z = rng.standard_normal((2, n))
    return grid(0.95 + 0.01 * z[0]), grid(0.955 + 0.01 * (0.8 * z[0] + 0.6 * z[1]))


def opposed(rng, n):
    z = rng.standard_normal((2, n))
    return grid(0.95 + 0.01 * z[0]), grid(0.95 + 0.01 * (-0.95 * z[0] + 0.31 * z[1]))


def truth_of(make, percentile):
    before, after = make(stream(0, "truth", make.__name__), 1_000_000)
    return kpp(after, percentile, CONFIDENCE, True).value - kpp(before, percentile, CONFIDENCE, True).value


def sample(values, percentile, higher=True):
    return ChipSample(values, kpp(values, percentile, CONFIDENCE, higher), values.size, 0)


def stopped(values, percentile):
    """What races leave: the worst chips up to the end of the KPP's interval, and a few pilots."""
    last = interval_ranks(percentile, values.size, CONFIDENCE)[1]
    known = np.where(values <= np.sort(values)[last - 1], values, np.nan)
    known[:20] = values[:20]
    return ChipSample(known, kpp(values, percentile, CONFIDENCE, True), last, 1)


def coverage(make, n, percentile, difference):
    truth, rng, hits = truth_of(make, percentile), stream(1, "coverage", make.__name__, n), 0
    for _ in range(REPEATS):
        found = difference(*make(rng, n))
        hits += found.low - 1e-9 <= truth <= found.high + 1e-9
    return hits / REPEATS


@pytest.mark.parametrize("make", [normal, skewed, collapse])
@pytest.mark.parametrize(("n", "percentile"), [(500, 1), (200, 5)])
def test_interval_of_independent_chips_covers(make, n, percentile):
    """At least the stated share of 300 repeats, from nothing but the two intervals."""

    def difference(before, after):
        return independent_difference(sample(before, percentile).result, sample(after, percentile).result)

    assert coverage(make, n, percentile, difference) >= CONFIDENCE


@pytest.mark.parametrize("make", [normal, skewed, shared, opposed])
def test_interval_of_stopped_chips_covers(make):
    """At least the stated share of 300 repeats, for shared, opposed and independent chips."""

    def difference(before, after):
        pair = stopped(before, 1), stopped(after, 1)
        assert not pair[0].complete
        return bounded_difference(*pair, CONFIDENCE, higher_is_better=True)

    assert coverage(make, 1000, 1, difference) >= CONFIDENCE


def test_independence_narrows_the_interval():
    """Independent intervals put together are narrower than the bounds that hold for every dependence."""
    before, after = (sample(values, 5) for values in normal(stream(2, "width"), 1000))
    narrow = independent_difference(before.result, after.result)
    wide = bounded_difference(before, after, CONFIDENCE, True)
    assert narrow.high - narrow.low < 0.8 * (wide.high - wide.low)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_stopped_chips_change_nothing_but_the_width():
    """The bounds of raced chips contain those of the same chips all known."""
    before, after = shared(stream(3, "stopped"), 1000)
    full = bounded_difference(sample(before, 1), sample(after, 1), CONFIDENCE, True)
    raced = bounded_difference(stopped(before, 1), stopped(after, 1), CONFIDENCE, True)
    assert raced.value == full.value
    assert raced.low <= full.low
    assert raced.high >= full.value
    assert raced.high - raced.low < 2 * (full.high - full.low)


def test_known_chips_are_compared_one_by_one():
    """Where every chip of both is known the interval is the paired one, shared chips or not."""
    before, after = shared(stream(4, "known"), 1000)
    for relation in ("same", "partly_shared", "independent"):
        found, method = difference_of_kpp(sample(before, 1), sample(after, 1), relation, CONFIDENCE, True)
        assert method == "chips"
        assert found == difference(kpp_difference(before, after, 1, CONFIDENCE, True), 1000)


@pytest.mark.parametrize(
    ("relation", "method"), [("same", "bounds"), ("partly_shared", "bounds"), ("independent", "intervals")]
)
def test_stopped_chips_are_compared_by_their_kpps(relation, method):
    """Which interval it is follows from what the chips share."""
    before, after = shared(stream(5, "raced"), 1000)
    found, used = difference_of_kpp(stopped(before, 1), sample(after, 1), relation, CONFIDENCE, True)
    assert used == method
    assert found.low < found.value < found.high


def test_other_numbers_of_chips():
    """Audits with different numbers of chips have an interval too, but none of the mean."""
    before, after = normal(stream(6, "numbers"), 1000)
    pair = sample(before[:600], 1), sample(after, 1)
    assert difference_of_kpp(*pair, "independent", CONFIDENCE, True)[1] == "intervals"
    assert difference_of_kpp(*pair, "same", CONFIDENCE, True)[0].low is not None
    mean = difference_of_mean(*pair, CONFIDENCE, 0.5)
    assert (mean.value, mean.low, mean.missing) == (0.5, None, "not the same number of chips")


@pytest.mark.parametrize("relation", ["same", "independent"])
@pytest.mark.parametrize("known", [True, False])
def test_few_chips_say_how_many_are_needed(relation, known):
    """Too few chips for a bound of a KPP give no interval, and the number."""
    before, after = normal(stream(7, "few"), 300)
    kind = sample if known else stopped
    found, _ = difference_of_kpp(kind(before, 1), kind(after, 1), relation, CONFIDENCE, True)
    assert (found.low, found.high) == (None, None)
    assert found.missing in ("needs 437 chips", "needs 368 chips")


def test_independent_chips_need_fewer():
    """400 chips: too few for a comparison one by one, enough for two intervals."""
    before, after = normal(stream(8, "fewer"), 400)
    pair = sample(before, 1), sample(after, 1)
    assert difference_of_kpp(*pair, "same", CONFIDENCE, True)[0].missing == "needs 437 chips"
    found, method = difference_of_kpp(*pair, "independent", CONFIDENCE, True)
    assert method == "intervals"
    assert found.low < found.high


def test_nothing_is_said_of_ranks_that_are_not_known():
    """Where chips were stopped on both sides of the KPP there is no bound for shared chips."""
    before, after = shared(stream(9, "middle"), 1000)
    open_ended = ChipSample(np.where(before > 0.95, np.nan, before), sample(before, 50).result, 0, 0)
    found = bounded_difference(open_ended, sample(after, 50), CONFIDENCE, True)
    assert found.low is None
    assert "--exhaustive" in found.missing
    assert "--exhaustive" in difference_of_mean(open_ended, sample(after, 50), CONFIDENCE, 0.0).missing


def test_a_loss_is_an_accuracy_turned_round():
    """Negated values, with the other side as the worst, give the negated difference and interval."""
    before, after = normal(stream(10, "loss"), 1000)
    for compare in (
        lambda a, b, higher: bounded_difference(a, b, CONFIDENCE, higher),
        lambda a, b, higher: independent_difference(a.result, b.result),
    ):
        up = compare(sample(before, 1), sample(after, 1), True)
        down = compare(sample(-before, 1, False), sample(-after, 1, False), False)
        assert (down.low, down.high) == pytest.approx((-up.high, -up.low), abs=1e-12)
        assert down.value == pytest.approx(-up.value, abs=1e-12)

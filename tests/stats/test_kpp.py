"""K-th percentile performance, its interval, and the yield."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nvaudit.errors import DataError, OptionError
from nvaudit.rng import stream
from nvaudit.stats.binomial import clopper_pearson, interval_ranks, trials_for_bound
from nvaudit.stats.kpp import kpp, kpp_index, yield_at

REPEATS = 2000


def slack(confidence: float) -> float:
    """How far an observed coverage may fall below the true one: 3.5 standard deviations."""
    return 3.5 * (confidence * (1 - confidence) / REPEATS) ** 0.5


@pytest.mark.parametrize(
    ("percentile", "trials", "index"),
    [
        (1, 1000, 10), (1, 100, 1), (1, 99, 0), (1, 1, 0), (50, 3, 1), (0.1, 1000, 1), (0.01, 10000, 1),
        (29, 100, 29), (57, 100, 57), (58, 100, 58), (1.1, 1000, 11), (14.5, 200, 29), (33.3, 1000, 333),
        (0, 7, 0), (100, 7, 6), (99.99, 10, 9),
    ],
)  # fmt: skip
def test_index_is_exact(percentile, trials, index):
    """The index is int(k/100·N) of the decimal k, where floats would fall one short, and inside the array."""
    assert kpp_index(percentile, trials) == index
    assert kpp_index(np.float64(percentile), trials) == index


def test_floats_would_fall_short():
    """The trap exists: 0.29·100 is below 29 in binary."""
    assert int(29 / 100 * 100) == 28


@given(st.integers(0, 10_000), st.integers(1, 100_000))
def test_index_agrees_with_integer_arithmetic(hundredths, trials):
    """For percentiles with two decimals the index is an integer division."""
    assert kpp_index(hundredths / 100, trials) == min(hundredths * trials // 10_000, trials - 1)


@pytest.mark.parametrize(("percentile", "trials"), [(-1, 10), (100.5, 10), (float("nan"), 10), (1, 0)])
def test_index_refuses_nonsense(percentile, trials):
    """A percentile outside 0-100 or no trial at all is refused."""
    with pytest.raises(OptionError):
        kpp_index(percentile, trials)


def test_kpp_is_algorithm_2():
    """The value is the paper's: the int(k/100·N)-th of the ascending values, whatever their order."""
    values = stream(0, "test kpp").permutation(1000) / 1000
    result = kpp(values, 1, 0.95, higher_is_better=True)
    assert result.value == np.sort(values)[10]
    assert result.rank == 11
    assert "0-based, ascending" in result.definition
    assert "TRICE" in result.definition


@pytest.mark.parametrize(
    ("trials", "ranks"),
    [
        (1000, (4, 18)),
        (2000, (12, 30)),
        (5000, (37, 65)),
        (10000, (81, 121)),
        (300, (None, 8)),
        (368, (1, 9)),
    ],
)  # fmt: skip
def test_ranks_of_the_first_percentile(trials, ranks):
    """Known ranks of the exact two-sided 95 % interval of the 1st percentile."""
    assert interval_ranks(1, trials, 0.95) == ranks
    result = kpp(np.arange(trials), 1, 0.95, higher_is_better=True)
    assert (result.low_rank, result.high_rank) == ranks
    assert result.low == (None if ranks[0] is None else ranks[0] - 1)
    assert result.high == ranks[1] - 1


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99, 0.9999])
@pytest.mark.parametrize("percentile", [0.1, 1, 5, 29, 50, 95])
def test_ranks_are_the_tightest_that_cover(percentile, confidence):
    """Each side's error is at most half of the allowed one, and one rank further in it is not."""
    error, prob = (1 - confidence) / 2, percentile / 100
    for trials in (1, 2, 7, 50, 299, 1000, 3001):
        first, last = interval_ranks(percentile, trials, confidence)
        law = stats.binom(trials, prob)
        assert first is None or law.cdf(first - 1) <= error * (1 + 1e-9)
        assert law.cdf(first or 0) > error * (1 - 1e-9)
        assert last is None or law.sf(last - 1) <= error * (1 + 1e-9)
        assert law.sf((last or trials + 1) - 2) > error * (1 - 1e-9)


def distributions():
    """Name, how to draw, and the lowest and highest p-quantile."""

    def discrete(rng, shape):
        return rng.binomial(20, 0.9, shape).astype(float)

    def quantiles(prob):
        law = stats.binom(20, 0.9)
        low = law.ppf(prob)
        return low, low + (law.cdf(low) == prob)

    def constant_or_fail(rng, shape):
        return (rng.random(shape) >= 0.02).astype(float)

    return {
        "normal": (lambda rng, shape: rng.normal(size=shape), lambda p: (stats.norm.ppf(p),) * 2),
        "cauchy": (lambda rng, shape: rng.standard_cauchy(shape), lambda p: (stats.cauchy.ppf(p),) * 2),
        "ties": (discrete, quantiles),
        "two values": (constant_or_fail, lambda p: (float(p > 0.02),) * 2),
    }


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize(("percentile", "trials"), [(1, 100), (1, 400), (1, 1000), (5, 150), (50, 31)])
@pytest.mark.parametrize("name", list(distributions()))
def test_interval_covers(name, percentile, trials, higher):
    """The interval contains the true percentile at least as often as stated, for every distribution."""
    draw, quantiles = distributions()[name]
    values = draw(stream(3, "coverage", name, percentile, trials), (REPEATS, trials))
    if not higher:
        values = -values
    sample = kpp(values[0], percentile, 0.95, higher)
    worst_first = np.sort(values if higher else -values, axis=1)
    worst, best = (sample.low_rank, sample.high_rank) if higher else (sample.high_rank, sample.low_rank)
    low, high = quantiles(percentile / 100)
    covered = worst_first[:, best - 1] >= low
    if worst is not None:
        covered &= worst_first[:, worst - 1] <= high
    assert covered.mean() >= 0.95 - slack(0.95)
    # The vectorised intervals are the ones that kpp gives.
    sign = 1 if higher else -1
    assert sample.high_rank is None or sample.high == sign * worst_first[0, sample.high_rank - 1]
    assert sample.low_rank is None or sample.low == sign * worst_first[0, sample.low_rank - 1]


def test_coverage_test_can_fail():
    """An interval that is one rank too narrow on the worst side is below its level."""
    first, last = interval_ranks(1, 1000, 0.95)
    law = stats.binom(1000, 0.01)
    assert law.cdf(last - 1) - law.cdf(first - 1) >= 0.95
    assert law.cdf(last - 3) - law.cdf(first + 1) < 0.95 - slack(0.95)


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=200),
    st.floats(0.01, 99.9),
    st.floats(0.5, 0.999),
    st.booleans(),
)
def test_interval_contains_the_value(values, percentile, confidence, higher):
    """Low ≤ value ≤ high in numbers, for accuracies and losses, with ties."""
    result = kpp(values, percentile, confidence, higher)
    assert result.low is None or result.low <= result.value
    assert result.high is None or result.value <= result.high
    assert result.worst_bound_missing == ((result.low if higher else result.high) is None)
    assert result.worst_bound_missing == (len(values) < result.trials_for_worst_bound)


def test_loss_is_counted_from_the_other_end():
    """For a loss the KPP is the percentile of the largest values; the bound above it goes missing first."""
    values = np.arange(300.0)
    loss, mirror = kpp(values, 1, 0.95, False), kpp(-values, 1, 0.95, True)
    assert (loss.value, loss.low, loss.high) == (-mirror.value, -mirror.high, None)
    assert loss.value == 296
    assert loss.worst_bound_missing
    assert mirror.low is None
    assert loss.low_rank > loss.rank
    assert "descending" in loss.definition


def test_trials_for_a_bound():
    """The known numbers for the 1st percentile, and the ranks agree with them."""
    assert trials_for_bound(1, 0.95) == 299
    assert trials_for_bound(1, 0.95, sided=2) == 368
    assert trials_for_bound(1, 0.99) == 459
    assert trials_for_bound(50, 0.5) == 1
    for percentile in (0.1, 1, 2.5, 10, 50):
        for confidence in (0.8, 0.95, 0.999):
            needed = trials_for_bound(percentile, confidence, sided=2)
            assert interval_ranks(percentile, needed, confidence)[0] is not None
            assert needed == 1 or interval_ranks(percentile, needed - 1, confidence)[0] is None


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [1.0, float("nan")], [float("inf")]])
def test_values_must_be_finite_and_one_per_trial(values):
    """No values, several axes, NaN and infinity are refused."""
    with pytest.raises(DataError):
        kpp(values, 1, 0.95, True)


def test_message_names_the_trial():
    """The message names the first trial that is not finite."""
    with pytest.raises(DataError, match="trial 2 is nan"):
        kpp([1.0, 2.0, float("nan")], 1, 0.95, True)


@pytest.mark.parametrize(
    ("percentile", "confidence"), [(0, 0.95), (100, 0.95), (-1, 0.95), (1, 0.3), (1, 1.0), (1, 95)]
)
def test_nonsense_options_are_refused(percentile, confidence):
    """A percentile outside (0, 100) or a confidence outside [0.5, 1) is refused."""
    with pytest.raises(OptionError):
        kpp([1.0], percentile, confidence, True)


def test_values_are_not_changed():
    """A read-only array is read."""
    values = np.array([3.0, 1.0, 2.0])
    values.flags.writeable = False
    assert kpp(values, 1, 0.95, True).value == 1.0
    assert values.tolist() == [3.0, 1.0, 2.0]


@pytest.mark.parametrize(("count", "trials"), [(0, 10), (10, 10), (3, 10), (990, 1000)])
def test_clopper_pearson_inverts_the_binomial_test(count, trials):
    """At each bound the tail that rejects it has exactly half of the error."""
    low, high = clopper_pearson(count, trials, 0.95)
    assert low == 0 if count == 0 else stats.binom.sf(count - 1, trials, low) == pytest.approx(0.025)
    assert high == 1 if count == trials else stats.binom.cdf(count, trials, high) == pytest.approx(0.025)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.995])
def test_yield_covers(share):
    """The yield's interval contains the true yield at least as often as stated."""
    repeats, trials = 600, 120
    values = stream(4, "yield coverage").random((repeats, trials))
    results = [yield_at(row, 1 - share, 0.9, True) for row in values]
    covered = np.mean([result.low <= share <= result.high for result in results])
    assert covered >= 0.9 - 3.5 * (0.09 / repeats) ** 0.5


def test_yield_counts_chips_on_the_threshold():
    """A chip exactly on the threshold reaches it; for a loss the other side counts."""
    values = [0.8, 0.9, 0.9, 1.0]
    above, below = yield_at(values, 0.9, 0.95, True), yield_at(values, 0.9, 0.95, False)
    assert (above.share, above.passing, above.direction) == (0.75, 3, "at_least")
    assert (below.share, below.passing, below.direction) == (0.75, 3, "at_most")
    with pytest.raises(OptionError, match="finite"):
        yield_at(values, float("nan"), 0.95, True)

"""Races of whole operating points on synthetic chips: the ranks are those of every chip on every sample."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from nvaudit.perturb.difficulty import estimate_difficulty, load_difficulty
from nvaudit.perturb.outcome import Outcome
from nvaudit.perturb.race import Race, SampleOrder
from nvaudit.perturb.racing import RaceQuestion, Scouting, first_chips, pilot_count, run_races
from nvaudit.report.chips import Chips, weighted_std
from nvaudit.rng import stream
from nvaudit.stats.binomial import interval_ranks
from nvaudit.stats.kpp import kpp, kpp_index
from nvaudit.stats.ranks import allowed_error, blocks, rank_ranges

SAMPLES = 1200
TRIALS = 300
BATCH = 60


def chips(seed: int, trials: int = TRIALS, steep: float = 0.25) -> np.ndarray:
    """Errors of chips, shape (trial, sample): each chip and each sample has a badness of its own."""
    rng = stream(seed, "synthetic chips")
    hard = np.sort(rng.normal(-4.5, 2.0, SAMPLES))
    bad = rng.normal(0, steep, (trials, 1)) + rng.exponential(0.5 * steep, (trials, 1))
    return rng.random((trials, SAMPLES)) < 1 / (1 + np.exp(-hard - 4 * bad))


@dataclass
class Bench:
    """Runs chips of a table instead of a model."""

    errors: np.ndarray
    seed: int
    images: int = 0
    full_: set[int] = field(default_factory=set)

    def value(self, trial: int) -> float:
        """Metric over all samples."""
        return float((SAMPLES - self.errors[trial].sum()) / SAMPLES)

    def full(self, point, trials):
        """As `ChipRunner.full`."""
        self.images += SAMPLES * len(set(trials) - self.full_)
        self.full_.update(trials)
        return {trial: self.value(trial) for trial in trials}

    def races(self, point, trials, task):
        """As `ChipRunner.races`."""
        difficulty, found = load_difficulty(Path(task.difficulty)), {}
        for trial in trials:
            order = SampleOrder(difficulty, task.most, self.seed, task.kind, point, trial)[:]
            race, gap, seen = Race(difficulty, order, task.bands), None, 0
            while gap is None and seen < len(order) and not race.hopeless(len(order)):
                chosen = order[seen : seen + BATCH]
                gap, seen = race.see(self.errors[trial, chosen].astype(float)), seen + len(chosen)
            self.images += seen
            if gap is None and trial not in self.full_:
                self.full_.add(trial)
                self.images += SAMPLES
            value = self.value(trial) if gap is None else None
            found[trial] = (Outcome(race.estimate, seen, 0.0, gap), value)
        return found


def race(folder: Path, seed: int, percentiles=(1.0,), thresholds=(), trials=TRIALS, share=0.1, steep=0.25):
    """Race synthetic chips; give the table, the state, the ranges and the share of samples looked at."""
    errors = chips(seed, trials, steep)
    bench = Bench(errors, seed)
    pilots = pilot_count(trials)
    difficulty = estimate_difficulty(errors[:pilots].astype(float), np.arange(SAMPLES, 0.0, -1))
    difficulty.save(folder / "difficulty")
    bench.full_.update(range(pilots))
    values = np.array([bench.value(trial) for trial in range(pilots)])
    scouting = Scouting(values, SAMPLES, str(folder / "difficulty"), difficulty.digest)
    ranges = rank_ranges(percentiles, trials, 0.95, share)
    state = run_races(bench, 0, trials, RaceQuestion(ranges, thresholds), scouting)
    part = (bench.images + pilots * SAMPLES) / errors.size
    return np.array([bench.value(trial) for trial in range(trials)]), state, ranges, part


def check(seed: int, folder: Path, **options) -> float:
    """Compare with every chip on every sample; give the share of samples looked at."""
    truth, state, ranges, part = race(folder, seed, **options)
    exact = state.low == state.high
    assert np.array_equal(state.low[exact], truth[exact])
    assert (state.low <= truth).all()
    assert (state.high >= truth).all()
    found, wanted = np.sort(state.low), np.sort(truth)
    for item in ranges:
        assert wanted[max(0, item.index - item.shift)] <= found[item.index]
        assert found[item.index] <= wanted[min(len(truth) - 1, item.index + item.shift)]
    return part


def test_races_give_the_exhaustive_ranks_for_a_part_of_the_work(tmp_path):
    """Ten populations: every stopped chip lies where it is said to, and less than half is looked at."""
    assert np.mean([check(seed, tmp_path) for seed in range(10)]) < 0.5


@pytest.mark.parametrize("percentiles", [(5.0,), (1.0, 10.0), (50.0,), (1.0, 50.0, 99.0), (10.0, 11.0)])
def test_any_percentiles(percentiles, tmp_path):
    """Several ranges at once, in the middle and at either end; some that meet."""
    check(20, tmp_path, percentiles=percentiles)


def test_thresholds_are_decided_for_every_chip(tmp_path):
    """Of each chip it is known on which side of a threshold it lies, so the yield is exact."""
    truth, *_ = race(tmp_path, 30)
    threshold = float(np.quantile(truth, 0.3))
    truth, state, _, _ = race(tmp_path, 30, thresholds=(threshold,))
    passes = np.where(state.low == state.high, state.low >= threshold, state.low >= threshold)
    assert (passes | (state.high <= threshold) | (state.low == state.high)).all()
    assert passes.sum() == (truth >= threshold).sum()


@pytest.mark.parametrize("steep", [0.0, 0.01, 1.0])
def test_chips_that_hardly_differ_or_differ_wildly(steep, tmp_path):
    """Nothing can be stopped where all chips are alike: the answer is right, and little is wasted."""
    assert check(40, tmp_path, steep=steep) < 1.2


def test_races_do_not_depend_on_what_is_asked_about_speed(tmp_path):
    """The same chips, seed and question give the same state, bit by bit."""
    one, two = (race(tmp_path, 50)[1] for _ in range(2))
    assert one.low.tobytes() == two.low.tobytes()
    assert one.estimate.tobytes() == two.estimate.tobytes()


def coverage(repeats: int, folder: Path) -> tuple[float, float, float]:
    """Shares of repeats whose interval has the true percentile and whose KPP is exact, and the cost."""
    large = np.concatenate([np.mean(~chips(10_000 + i, 2000), axis=1) for i in range(5)])
    inside = equal = cost = 0.0
    for repeat in range(repeats):
        truth, state, ranges, part = race(folder, 1000 + repeat, percentiles=(5.0,))
        low, high = interval_ranks(5.0, TRIALS, 0.95)
        found = np.sort(state.low)
        shift = ranges[0].shift
        quantile = np.quantile(large, 0.05)
        inside += found[max(0, low - 1 - shift)] <= quantile + 1e-9 and quantile <= found[high - 1] + 1e-9
        equal += found[kpp_index(5.0, TRIALS)] == kpp(truth, 5.0, 0.95, True).value
        cost += part
    return inside / repeats, equal / repeats, cost / repeats


@pytest.mark.slow
def test_the_interval_covers_with_races(tmp_path):
    """300 populations: the interval has the true percentile at least as often as it says."""
    inside, equal, _ = coverage(300, tmp_path)
    assert inside >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 300)
    assert equal >= 0.98


def test_weighted_chips_are_distributed_as_all_are(tmp_path):
    """Weights sum to the number of chips; mean, spread and quantiles come out as from every chip."""
    means, spreads = [], []
    for seed in range(70, 80):
        truth, state, ranges, _ = race(tmp_path, seed)
        found = Chips(state.low, state.high, 0, state.estimate, state.pilots, ranges)
        weights = found.weights()
        assert weights.sum() == pytest.approx(TRIALS)
        assert (weights[~found.exact] == 0).all()
        assert (weights >= 0).all()
        means.append(found.mean - truth.mean())
        exact = found.exact
        spreads.append(weighted_std(found.low[exact], weights[exact]) / truth.std(ddof=1))
        tail = np.sort(truth)[5]
        assert weights[exact & (found.low <= tail)].sum() == pytest.approx((truth <= tail).sum())
    assert abs(np.mean(means)) < 3e-3
    assert 0.8 < np.mean(spreads) < 1.25


def test_chips_known_exactly_need_no_weights():
    """Every chip stands for itself."""
    found = Chips.known(np.array([0.5, 0.7]), 10)
    assert found.weights() is None
    assert found.mean == 0.6


def above_error(state):
    """What a race was told that a wrong stop above the first band may come to."""
    return next(edge.error for edge in state.bands[0].above if edge.decisive)


@pytest.mark.parametrize("count", [25, 60, 99, 150, 400])
def test_first_chips_say_how_often_a_stop_may_be_wrong(count, tmp_path):
    """Wrong stops above the band, which alone can falsify the KPP, exceed the shift as often as stated."""
    from scipy.stats import binom

    _, state, ranges, _ = race(tmp_path, 60, trials=1000)
    assert ranges[0].worst_too
    found = first_chips(state, RaceQuestion(ranges), count, 0.95)
    index = kpp_index(1.0, count)
    assert found.ranges[0].index == index
    assert binom.sf(found.ranges[0].shift, index + 1, above_error(state)) <= found.error * (1 + 1e-9)
    assert found.error < 0.011  # a first chip alone, at the most: allowed_error(11, 1, 0.005)


def test_first_chips_at_a_high_percentile_keep_a_narrow_shift(tmp_path):
    """Only the few chips above the rank can be let go below it: the shift counts these, not all chips."""
    _, state, ranges, _ = race(tmp_path, 61, percentiles=(50.0, 99.0), trials=1000)
    found = first_chips(state, RaceQuestion(ranges), 500, 0.95)
    assert found.ranges[1].shift <= ranges[1].shift + 1
    assert found.error == 0.005


@pytest.mark.parametrize(("chips_", "shift"), [(10, 0), (100, 3), (1000, 12)])
def test_the_error_of_a_stop_keeps_the_total(chips_, shift):
    """More wrong stops than the shift come at most with the stated chance, and no less would do."""
    from scipy.stats import binom

    error = allowed_error(chips_, shift, 0.01)
    assert binom.sf(shift, chips_, error) == pytest.approx(0.01)


def test_ranges_and_blocks_cover_everything():
    """Blocks have every trial once; a range holds the KPP and its interval, and keeps a lower end."""
    for trials in (1, 5, 299, 368, 1000, 12345):
        listed = [trial for block in blocks(pilot_count(trials), trials) for trial in block]
        assert listed == list(range(trials))
        for item in rank_ranges((0.5, 1.0, 50.0, 99.0), trials, 0.95):
            assert 0 <= item.first <= item.decisive[0] <= item.index <= item.decisive[1] <= item.last < trials

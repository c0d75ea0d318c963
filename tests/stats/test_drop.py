"""The gate on a drop: its verdicts are right, hold at any stopping time, and take pairing into account."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nvaudit.report.drops import drop_result
from nvaudit.stats.binomial import interval_ranks
from nvaudit.stats.drop import FormerChips, decide_drop, drop_verdict, ranks_for_drop

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from drop_errors import DROPS, raced, rates


def chips(count: int, seed: int = 0) -> np.ndarray:
    """Accuracies with a long lower tail; the generator is the test's own."""
    return np.round(0.95 - 0.008 * np.expm1(0.5 * np.random.default_rng(seed).standard_normal(count)), 4)


@pytest.mark.parametrize(("drop", "verdict"), [(0.0, "pass"), (0.01, "undecided"), (0.02, "fail")])
def test_verdicts(drop, verdict):
    """No drop passes, one of what is allowed stays open, and twice as much fails."""
    before = chips(1000)
    assert drop_verdict(FormerChips.exact(before), before - drop, 0.01, 1, 0.95) == verdict


def test_a_gain_passes():
    """A model that became better passes, also where nothing may be lost."""
    before = chips(1000)
    assert drop_verdict(FormerChips.exact(before), before + 0.01, 0.0, 1, 0.95) == "pass"


def test_equal_chips_where_nothing_may_be_lost():
    """Equal chips never fail; a drop of nothing is at most nothing."""
    before = chips(500)
    assert drop_verdict(FormerChips.exact(before), before, 0.0, 1, 0.95) != "fail"


def test_losses():
    """Of a loss more is worse: a rise is a drop of quality."""
    before = 1 - chips(1000)
    found = decide_drop(FormerChips.exact(before), before + 0.02, 0.01, 1, 0.95, higher_is_better=False)
    assert found.verdict == "fail"
    assert found.drop == pytest.approx(0.02)
    assert found.after == pytest.approx(found.before + 0.02)


def test_bounds_agree_with_the_verdict():
    """What is allowed above the upper bound passes, below the lower one fails, in between stays open."""
    before = chips(1500)
    after = before - 0.01
    found = decide_drop(FormerChips.exact(before), after, 0.01, 1, 0.95, higher_is_better=True)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.01 < found.high
    for most, verdict in (
        (found.high + 1e-4, "pass"), (found.high - 1e-4, "undecided"),
        (max(found.low, 0) + 1e-4, "undecided"), (found.low - 1e-4, "fail"),
    ):  # fmt: skip
        assert drop_verdict(FormerChips.exact(before), after, most, 1, 0.95) == verdict


def test_what_would_decide_it():
    """So many chips like these decide it, and fewer than a block less do not."""
    before = chips(200)
    found = decide_drop(FormerChips.exact(before), before, 0.01, 1, 0.95, higher_is_better=True)
    assert found.verdict == "undecided"
    assert found.needed is not None
    times = found.needed // 200
    assert (
        drop_verdict(FormerChips.exact(np.tile(before, times)), np.tile(before, times), 0.01, 1, 0.95)
        == "pass"
    )
    less = np.tile(before, times - 1)
    assert drop_verdict(FormerChips.exact(less), less, 0.01, 1, 0.95) == "undecided"


def test_rounding_is_no_drop():
    """0.95 − 0.01 is not 0.94 in binary floating point; such a drop is exactly what is allowed."""
    before = np.full(2000, 0.95)
    assert drop_verdict(FormerChips.exact(before), np.full(2000, 0.94), 0.01, 1, 0.95) != "fail"


def test_pairing_helps():
    """The closer the pairs, the fewer chips it takes."""
    common, noise = chips(1000), chips(1000, 1)
    needed = [
        decide_drop(FormerChips.exact(common[:150]), after[:150], 0.01, 1, 0.95, higher_is_better=True).needed
        for after in (common, noise)
    ]
    assert needed[0] is not None
    assert needed[1] is None or needed[0] <= needed[1]


@pytest.mark.parametrize(("drop", "verdict"), [(0.0, "pass"), (0.01, "undecided"), (0.02, "fail")])
def test_chips_that_a_race_stopped(drop, verdict):
    """Of a baseline that was raced the worst chips are enough for every verdict."""
    before = chips(2000)
    found = drop_verdict(raced(before), before - drop, 0.011, 1, 0.95)
    assert found == verdict


def test_less_known_never_decides_what_more_known_does_not():
    """A verdict from limits stands with the values themselves, whatever they are between these."""
    for seed in range(40):
        before, after = chips(1000, seed), chips(1000, seed + 100) - (seed % 3) * 0.006
        for most in (0.002, 0.008):
            limited = drop_verdict(raced(before), after, most, 1, 0.95)
            assert limited in ("undecided", drop_verdict(FormerChips.exact(before), after, most, 1, 0.95))


def test_wrong_limits_are_made_room_for():
    """With limits that may be wrong, chips that lie below theirs change no verdict into a false one."""
    before = chips(1500)
    limited = replace(raced(before), wrong_low=2)
    stopped = np.flatnonzero(limited.low < limited.high)[:2]
    truth = before.copy()
    truth[stopped] = 0.0
    for drop in (0.0, 0.012, 0.016, 0.03):
        found = drop_verdict(limited, before - drop, 0.01, 1, 0.95)
        assert found in ("undecided", drop_verdict(FormerChips.exact(truth), before - drop, 0.01, 1, 0.95))


def test_limits_of_losses_turn_round():
    """Of a loss the limits change places, and give the verdict of the same chips as an accuracy."""
    before = chips(2000)
    limited = raced(before)
    turned = FormerChips(1 - limited.high, 1 - limited.low, wrong_high=1, error=0.005)
    for drop in (0.0, 0.02):
        good = decide_drop(limited, before - drop, 0.01, 1, 0.95, higher_is_better=True)
        bad = decide_drop(turned, 1 - before + drop, 0.01, 1, 0.95, higher_is_better=False)
        assert bad.verdict == good.verdict
        assert bad.before == pytest.approx(1 - good.before)


@pytest.mark.parametrize(("percentile", "trials"), [(1, 1000), (5, 300), (10, 2000), (1, 40)])
def test_ranks_that_a_drop_needs(percentile, trials):
    """They lie outside those of the interval; of too few chips none are enough."""
    few, many = ranks_for_drop(percentile, trials, 0.955)
    low, high = interval_ranks(percentile, trials, 0.95)
    if trials == 40:
        assert few == trials
        return
    assert many > high
    assert low is None or few < low or few == trials


@pytest.mark.slow
@pytest.mark.parametrize("known", [FormerChips.exact, raced], ids=["exhaustive", "raced"])
def test_error_rates(known):
    """Over 500 pairs of reports errs less than 5 %, at every drop, and decides what is far from the limit."""
    found = {drop: rates(2000, drop, 0.004, 0.95, 500, known)[0] for drop in DROPS}
    assert found[0.02]["pass"] == 0
    assert found[0.0]["fail"] + found[0.005]["fail"] == 0
    assert max(found[0.01]["pass"], found[0.01]["fail"]) <= 25
    assert found[0.0]["pass"] >= 475
    assert found[0.02]["fail"] >= 475


@pytest.mark.parametrize("known", [FormerChips.exact, raced], ids=["exhaustive", "raced"])
def test_error_rates_at_the_limit(known):
    """A drop of exactly what is allowed is seldom decided, of 60 runs, though each block is looked at."""
    words, _ = rates(300, 0.01, 0.004, 0.95, 60, known)
    assert words["pass"] + words["fail"] <= 3


def test_too_few_chips_do_not_make_a_drop_close():
    """Where chips bound no drop more of them would; a drop near the limit is said to be near."""
    few = np.concatenate([[0.1, 0.12], np.linspace(0.18, 0.9, 148)])
    found = drop_result(FormerChips.exact(few), few, 0.01, 1, 0.95, "fraction", higher_is_better=True)
    assert found.verdict == "undecided"
    assert found.needed == "more chips, in the baseline too; these are too few to say how many"
    many = chips(4000)
    near = drop_result(FormerChips.exact(many), many - 0.01, 0.01, 1, 0.95, "fraction", higher_is_better=True)
    assert near.needed == "the drop is too close to what is allowed for more chips to settle"

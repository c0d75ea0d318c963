"""The gate while chips are drawn: wrong verdicts are rare enough whenever one stops."""

import numpy as np
import pytest

from nvaudit.perturb.gating import GateQuestion, draw_until_decided, gate_task
from nvaudit.report.gates import gate_result
from nvaudit.rng import stream
from nvaudit.stats.anytime import (
    PASS_LEAK,
    fail_leak,
    failure_bounds,
    sequential_gate,
    sequential_verdict,
)

REPEATS = 600
CONFIDENCE = 0.95


def run(share: float, most: int, repeats: int = REPEATS, percentile: float = 1.0, leak: bool = False):
    """Verdicts and chips drawn of many gates on chips that fail with a probability."""
    found = []
    question = GateQuestion(0.9, (percentile,), CONFIDENCE, most, None)
    for repeat in range(repeats):
        rng = stream(11, "gates", repeat, round(share * 1e6))
        truth = rng.random(most) < share
        if leak:  # the worst that judging from a part of the samples may do
            wrong = np.where(truth, rng.random(most) < PASS_LEAK, rng.random(most) < fail_leak(percentile))
            truth = truth ^ wrong
        count = draw_until_decided(question, lambda trials, t=truth: t[trials.start : trials.stop].tolist())
        found.append((sequential_verdict(count.failures, count.trials, percentile, CONFIDENCE), count.trials))
    return found


@pytest.mark.parametrize("leak", [False, True])
@pytest.mark.parametrize("share", [0.0101, 0.012, 0.02])
def test_a_model_that_fails_passes_rarely(share, leak):
    """Type I: with too many failing chips, 'pass' comes at most at the stated rate, also just above k."""
    wrong = np.mean([verdict == "pass" for verdict, _ in run(share, 1600, leak=leak)])
    assert wrong <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / REPEATS)


@pytest.mark.parametrize("leak", [False, True])
@pytest.mark.parametrize("share", [0.0099, 0.008, 0.005])
def test_a_model_that_holds_fails_rarely(share, leak):
    """The same for 'fail' where at most k % of the chips miss the threshold."""
    wrong = np.mean([verdict == "fail" for verdict, _ in run(share, 1600, leak=leak)])
    assert wrong <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / REPEATS)


def test_clear_cases_are_decided_soon():
    """No failures: about 299 chips and what looking after every block costs; many failures: a handful."""
    assert run(0.0, 2000, 1) == [("pass", 320)]
    failing = run(0.3, 2000, 100)
    assert {verdict for verdict, _ in failing} == {"fail"}
    assert np.mean([trials for _, trials in failing]) < 24


def test_power_grows_with_the_distance():
    """Type II: half and a fifth of the allowed failures pass, the farther the sooner."""
    near, far = run(0.005, 10000, 60), run(0.001, 10000, 60)
    assert np.mean([verdict == "pass" for verdict, _ in near]) > 0.85
    assert np.mean([verdict == "pass" for verdict, _ in far]) > 0.95
    assert np.mean([trials for _, trials in far]) < np.mean([trials for _, trials in near])


def test_the_bounds_hold_at_the_stopping_time():
    """The share of failing chips lies above the lower and below the upper bound as often as stated."""
    for share in (0.004, 0.02, 0.3):
        outside = np.zeros(2)
        for repeat in range(200):
            truth = stream(12, "bounds", repeat, round(1e6 * share)).random(1500) < share
            stop = next((n for n in range(20, 1500, 20) if truth[:n].sum() >= 3), 1500)
            low, high = failure_bounds(int(truth[:stop].sum()), stop, 1.0, CONFIDENCE)
            assert 0 <= low < high <= 1
            outside += (low > share, high < share)
        assert (outside / 200 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)).all()


def test_an_undecided_gate_says_what_would_decide_it():
    """The number of further chips is the one that passes."""
    gate = sequential_gate(1, 100, 0.9, 1.0, CONFIDENCE)
    assert gate.verdict == "undecided"
    assert gate.sequential
    enough = gate.needed.clean
    assert sequential_verdict(1, enough, 1.0, CONFIDENCE) == "pass"
    assert sequential_verdict(1, enough - 1, 1.0, CONFIDENCE) == "undecided"
    assert gate_result(gate, True, "100 chips were drawn").needed == (
        f"100 chips were drawn; {enough - 100:,} more chips without a further failure would pass "
        "(--max-trials)"
    )


def test_time_is_a_limit():
    """When the minutes are over no further block is drawn."""
    question = GateQuestion(0.9, (1.0,), CONFIDENCE, 10**6, 1e-9)
    count = draw_until_decided(question, lambda trials: [False] * len(trials))
    assert count.trials == 16
    assert "minutes are over" in count.stopped


def test_the_race_of_a_gate_leaks_as_little_as_the_verdict_allows():
    """Judging a chip uses the very errors by which the verdict's threshold is moved."""
    task = gate_task("file", 1, 1000, GateQuestion(0.9, (5.0, 1.0), CONFIDENCE, 10, None))
    (band,) = task.bands
    assert band.above[0].error == PASS_LEAK
    assert band.below[0].error == fail_leak(1.0)

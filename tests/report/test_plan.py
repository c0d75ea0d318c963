"""What a plan says: the statistics to the last number, the prices, and the words."""

import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binom

from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import print_report
from nvaudit.report.plan.result import (
    MOST_TRIALS,
    AuditPlan,
    Costs,
    PlannedAudit,
    gate_limits,
    make_plan,
    trials_to_pass,
)
from nvaudit.report.wording import duration_estimate
from nvaudit.stats.gate import verdict_of

COSTS = Costs(images=500, points=1, workers=2, timed=64, chip_s=0.01, start_s=1.0)
HEADER = {"nvaudit_version": "1", "device": {"name": "rram"}}
SUBJECT = PlannedAudit(metric="top1", unit="fraction", nominal=0.9, label_free=False, header=HEADER)


def plan(trials=1000, percentiles=(1.0,), confidence=0.95, costs=COSTS, subject=SUBJECT) -> AuditPlan:
    return make_plan(subject, costs, trials=trials, percentiles=percentiles, confidence=confidence)


def text(made: AuditPlan, width=100) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_report(made, console)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("percentile", "confidence", "needed"),
    [
        (1, 0.95, (299, 473, 628, 1049)),
        (5, 0.95, (59, 93, 124, 208)),
        (1, 0.99, (459, 662, 838, 1307)),
        (10, 0.9, (22, 38, 52, 91)),
    ],
)
def test_trials_that_let_a_gate_pass(percentile, confidence, needed):
    """With 0, 1, 2 and 5 failing chips; one trial less does not do."""
    assert tuple(trials_to_pass(f, percentile, confidence) for f in (0, 1, 2, 5)) == needed
    for failures, n in zip((0, 1, 2, 5), needed, strict=True):
        assert binom.cdf(failures, n, percentile / 100) <= 1 - confidence
        assert binom.cdf(failures, n - 1, percentile / 100) > 1 - confidence


def test_trials_beyond_a_run():
    """What no run can do has no number."""
    assert trials_to_pass(0, 1e-7, 0.95) is None
    assert trials_to_pass(0, 3e-6, 0.95) == 99_857_741


@given(st.integers(1, 3000), st.sampled_from([0.1, 1, 5, 50, 99]), st.sampled_from([0.6, 0.9, 0.95, 0.999]))
def test_gate_limits_are_where_the_verdict_turns(trials, percentile, confidence):
    """The two limits are the gate's own verdicts, at the limit and beside it."""
    most, fewest = gate_limits(trials, percentile, confidence)
    verdicts = {f: verdict_of(f, trials, percentile, confidence) for f in range(trials + 1)}
    assert [f for f, v in verdicts.items() if v == "pass"] == list(range(0 if most is None else most + 1))
    assert [f for f, v in verdicts.items() if v == "fail"] == (
        [] if fewest is None else list(range(fewest, trials + 1))
    )


@pytest.mark.parametrize(
    ("trials", "rank", "worst", "best", "passes", "fails"),
    [
        (1000, 11, 4, 18, 4, 16),
        (368, 4, 1, 9, 0, 8),
        (367, 4, None, 9, 0, 8),
        (299, 3, None, 8, 0, 7),
        (298, 3, None, 8, None, 7),
        (1, 1, None, 1, None, 1),
    ],
)
def test_what_the_trials_say(trials, rank, worst, best, passes, fails):
    """Ranks of the KPP and its interval, and the failures that decide the gate, at k = 1 and 95 %."""
    (item,) = plan(trials).percentiles
    assert (item.rank, item.worst_rank, item.best_rank) == (rank, worst, best)
    assert (item.gate_passes_up_to, item.gate_fails_from) == (passes, fails)


def test_what_it_takes():
    """368 trials for a two-sided interval, 299 for the gate at k = 1 and 95 %, whatever was given."""
    for trials in (10, 1000):
        (item,) = plan(trials).percentiles
        assert item.interval.trials == 368
        assert [(g.failures, g.need.trials) for g in item.gates] == [(0, 299), (1, 473), (2, 628), (5, 1049)]
    assert [item.interval.trials for item in plan(percentiles=(0.1, 5, 10)).percentiles] == [3688, 72, 36]


def test_prices():
    """Images are trials × images × points; seconds are those of the chips and those before them."""
    made = plan(costs=Costs(images=500, points=3, workers=2, timed=64, chip_s=0.01, start_s=1.0))
    assert made.given.images == 1000 * 500 * 3
    assert made.given.seconds == pytest.approx(1 + 3000 * 0.01)
    interval = made.percentiles[0].interval
    assert (interval.images, interval.seconds) == (368 * 1500, pytest.approx(1 + 3 * 3.68))
    assert COSTS.of(MOST_TRIALS).trials == MOST_TRIALS
    for none in (MOST_TRIALS + 1, 10**300, None):
        assert COSTS.of(none).model_dump() == {"trials": None, "images": None, "seconds": None}


@pytest.mark.parametrize(
    ("metric", "unit", "wanted"),
    [
        ("top1", "fraction", math.sqrt(0.9 * 0.1 / 500)),
        ("agreement", "fraction", None),
        ("mse", "squared error", None),
    ],
)
def test_the_finite_set(metric, unit, wanted):
    """An accuracy has a binomial standard error; nothing else has."""
    subject = PlannedAudit(metric=metric, unit=unit, nominal=0.9, label_free=False, header=HEADER)
    assert plan(subject=subject).standard_error == (None if wanted is None else pytest.approx(wanted))


def test_json_comes_back():
    """The JSON holds the whole plan, every number exact."""
    made = plan(percentiles=(1.0, 1e-7))
    assert AuditPlan.model_validate_json(to_json(made)) == made
    assert json.loads(to_json(made))["percentiles"][1]["interval"]["trials"] is None


def test_words():
    """The text says everything in one screen."""
    assert text(plan()) == (
        "PLAN (nothing was audited): top1 on rram, 1,000 chips, 500 images\n"
        "\n"
        "  chips     1,000  as given\n"
        "  images  500,000  inferences, every chip on every image\n"
        "  time       11 s  10 ms a chip\n"
        "\n"
        "KPP 1 %, 95 % confidence\n"
        "  1,000 chips: the KPP is the 11th worst chip, its interval is [4th worst, 18th worst].\n"
        "  1,000 chips: a gate passes with at most 4 failing chips, fails with 16 or more, and is undecided\n"
        "    otherwise.\n"
        "  What each answer takes.\n"
        "  for                                         chips   images  time\n"
        "  ────────────────────────────────────────────────────────────────\n"
        "  this run                                    1,000  500,000  11 s\n"
        "  an interval with a bound on the worst side    368  184,000   5 s\n"
        "  a gate that passes with 0 failing chips       299  149,500   4 s\n"
        "  a gate that passes with 1 failing chip        473  236,500   6 s\n"
        "  a gate that passes with 2 failing chips       628  314,000   8 s\n"
        "  a gate that passes with 5 failing chips     1,049  524,500  12 s\n"
        "\n"
        "How to read it\n"
        "  Times are estimated from 64 chips run with 2 workers: 10 ms a chip, and 1 s before the first.\n"
        "  Images and times are those of every chip on every image (--exhaustive). With many images chips\n"
        "    stop as soon as they surely do not matter, which mostly leaves a tenth to a quarter of both.\n"
        "  The figures of a gate are for a fixed number of chips (--all-trials). By default it draws chips\n"
        "    until it is decided: 307 if none fails, fewer if many do.\n"
        "  The evaluation set is finite too: the standard error of the ideal top1, 90.00 %, on 500 images "
        "is\n    1.34 %; more chips do not make it smaller.\n"
    )


def test_words_where_there_is_nothing():
    """Missing bounds, verdicts and numbers are said, not left out."""
    subject = PlannedAudit(metric="agreement", unit="fraction", nominal=1.0, label_free=True, header=HEADER)
    costs = Costs(images=500, points=2, workers=0, timed=1, chip_s=1.0, start_s=1.0)
    shown = text(plan(1, (1e-7, 60.0, 99.0), subject=subject, costs=costs), width=200)
    assert shown.startswith(
        "LABEL-FREE PLAN (nothing was audited): agreement on rram, 1 chip at each of 2 sigmas"
    )
    assert (
        "1 chip: the KPP is the worst chip, its interval is [no bound on the worst side, no bound on" in shown
    )
    assert "1 chip: a gate is always undecided." in shown
    assert "1 s a chip" in shown
    assert "1 chip: a gate cannot pass, fails with 1, and is undecided otherwise." in shown
    assert (
        "1 chip: a gate passes with at most 0 failing chips, cannot fail, and is undecided otherwise."
        in shown
    )
    assert "  an interval with a bound on the worst side  more than 100,000,000" in shown
    assert "Images and times are those of all 2 sigmas together." in shown
    assert "run with this process" in shown
    assert "standard error" not in shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 s"), (0.2, "1 s"), (59.5, "1 min"), (60.0, "1 min"), (75.0, "1 min 15 s"), (3599.5, "1 h"),
        (3601.0, "1 h 1 min"), (86_399.0, "1 d"), (200_000.0, "2 d 8 h"), (1e9, "11574 d 2 h"),
    ],
)  # fmt: skip
def test_times(seconds, shown):
    """A time is rounded up, and never to 60 of anything."""
    assert duration_estimate(seconds) == shown

"""A run that is ended early reports the chips that are done, honestly, whatever they were like."""

import itertools

import numpy as np
import pytest

from nvaudit.jobs.auditing import run_audit
from nvaudit.perturb.stop import Stop
from nvaudit.report.chips import Chips, kpp_of_chips
from nvaudit.report.jsontext import to_json
from nvaudit.report.result import from_json
from nvaudit.spec import make_spec
from nvaudit.stats.kpp import kpp
from nvaudit.stats.ranks import partial_range, rank_ranges


def ended(example, after, data=None, **options):
    """An audit that is interrupted once some chips are settled, as a signal handler would do it."""
    stop = Stop()

    def progress(what, done, total):
        if what == "chips" and done >= after:
            stop.interrupt()

    settings = {"model": example, "device": "rram", "trials": 5000, "limit": 64, "roughness": False} | options
    if data is not None:
        settings = {**settings, "data": data, "limit": None}
    return run_audit(make_spec(**settings), progress, stop=stop)


@pytest.fixture(scope="module")
def many(example, tmp_path_factory):
    """More samples than a race needs: the example's images in three shades."""
    data = np.load(example.with_suffix(".npz"))
    path = tmp_path_factory.mktemp("data") / "many.npz"
    shades = [data["image"] * np.float32(shade) for shade in (1, 1.1, 0.9)]
    np.savez(path, image=np.concatenate(shades), y=np.tile(data["y"], 3))
    return path


@pytest.mark.parametrize("workers", [0, 2])
def test_the_report_is_that_of_the_first_chips(example, workers):
    """Values, KPP and interval are those of a run that asked for so many chips from the start."""
    found = ended(example, 40, workers=workers)
    count = found.trials.count
    assert 40 <= count < 100
    whole = run_audit(
        make_spec(model=example, device="rram", trials=count, limit=64, roughness=False, workers=0)
    )
    assert found.trials.values == whole.trials.values
    assert found.kpp == whole.kpp
    assert found.interrupted.done == count
    assert found.interrupted.wanted == 5000
    assert found.verdict is None
    assert found.headline.startswith("INTERRUPTED: KPP 1 %")
    assert f"{count} of 5,000 chips" in found.headline
    assert from_json(to_json(found), "report.json") == found


@pytest.mark.parametrize("options", [{}, {"exhaustive": True}, {"all_trials": True}])
def test_a_gate_says_what_the_chips_say_so_far(example, options):
    """The gate's own result stands in the report; the run has no verdict."""
    found = ended(example, 40, min_kpp=0.5, **options)
    assert found.verdict is None
    assert found.gate[0].trials == found.trials.count == found.interrupted.done
    assert found.gate[0].failures == 0


def test_before_the_first_chip_there_is_nothing_to_report(example):
    """Interrupted at once: as an interrupt of any program."""
    stop = Stop()
    stop.interrupt()
    spec = make_spec(model=example, device="rram", trials=50, limit=8, roughness=False)
    with pytest.raises(KeyboardInterrupt):
        run_audit(spec, stop=stop)


def test_points_of_a_sweep_that_were_not_come_to_are_named(example):
    """The report has the points that were begun, the note the others."""
    found = ended(example, 60, trials=50, sigmas=(0.1, 0.2, 0.3, 0.4))
    assert [point.sigma for point in found.sweep] == [0.1, 0.2]
    assert found.sweep[0].trials.count == 50
    assert found.operating_point.sigma == 0.2
    assert "not begun when the run was interrupted: sigma 0.3, 0.4" in found.notes
    assert found.interrupted.done == 50 + found.sweep[1].trials.count


def test_what_comes_after_the_chips_is_left_out(example):
    """Attribution and roughness are not made, and the notes say so."""
    found = ended(example, 30, trials=3000, roughness=True, attribute=("tensors",))
    assert found.roughness is None
    assert found.attribution is None
    assert "the roughness was not measured: the run was interrupted" in found.notes
    assert "the attribution was not made: the run was interrupted" in found.notes


@pytest.fixture(scope="module")
def truth(example, many):
    """The metric of every chip, each on every sample."""
    spec = make_spec(
        model=example, device="rram", data=many, trials=150, sigmas=(0.3,), exhaustive=True, roughness=False,
        workers=2,
    )  # fmt: skip
    return run_audit(spec).trials.values


@pytest.mark.parametrize(("after", "gate"), [(5, None), (60, None), (100, None), (40, 0.8)])
def test_races_that_are_cut_off(example, many, truth, after, gate):
    """What is known of stopped chips is used, and no bound is tighter than the one of every chip."""
    options = {"sigmas": (0.3,), "percentiles": (5.0,), "min_kpp": gate, "max_trials": 150 if gate else None}
    found = ended(example, after, many, trials=150, workers=2, **options)
    for mine, theirs in zip(found.trials.values, truth, strict=False):
        assert mine in (None, theirs)
    result = found.kpp[0]
    exact = kpp(truth[: result.trials], 5.0, 0.95, True)
    assert result.value <= exact.value <= result.value + result.width
    assert result.low is None or result.low <= exact.low
    assert result.high is None or result.high >= exact.high
    assert found.interrupted.done >= min(after, 16)


def test_intervals_of_races_that_were_cut_off_cover():
    """Of 95 % intervals at most 5 % miss, though which chips are known depends on what they are like."""
    rng = np.random.default_rng(5)
    percentile, total, begun, pilots = 1.0, 20_000, 3000, 100
    quantile = 0.01  # of values that are uniform from 0 to 1
    misses = exact = 0
    rounds = 400
    (wanted,) = rank_ranges([percentile], total, 0.95)
    for _ in range(rounds):
        values = rng.random(begun)
        edge = np.sort(rng.random(2000))[int(2000 * wanted.last / total)]  # as a preview guesses it
        unraced = np.arange(begun) < pilots
        stopped = (values > edge) & ~unraced
        low, high = np.where(stopped, edge, values), np.where(stopped, np.inf, values)
        unfinished = rng.choice(np.arange(pilots, begun), 2)
        low[unfinished], high[unfinished] = -np.inf, np.inf
        rank = partial_range(percentile, begun, 0.95, 1, worst_too=True)
        chips = Chips(low, high, 0, values, pilots, (rank,), 0.005, unraced=unraced, decisive=(low, high))
        found = kpp_of_chips(chips, percentile, 0.95, higher_is_better=True)
        exact += found.trials == begun
        misses += not (-np.inf if found.low is None else found.low) <= quantile <= (found.high or np.inf)
    assert misses <= 0.05 * rounds
    assert exact > 0  # the chips beyond the pilots are used


def test_time_without_a_gate_is_that_of_the_run(example):
    """--max-minutes: the chips that are done in that time, marked, with no verdict to miss."""
    spec = make_spec(model=example, device="rram", trials=1_000_000, limit=64, max_minutes=0.05, workers=0)
    found = run_audit(spec)
    assert found.interrupted is None
    assert found.time_boxed.minutes == 0.05
    assert 1 <= found.time_boxed.done == found.trials.count < 1_000_000
    assert found.time_boxed.wanted == 1_000_000
    assert "within 0.05 min" in found.headline
    assert "the roughness was not measured: the time was over (--max-minutes)" in found.notes
    assert found.timing["total"] < 30


def test_a_sweep_shares_its_time(example):
    """No point of a sweep is left without chips."""
    spec = make_spec(
        model=example, device="rram", trials=100_000, limit=64, max_minutes=0.05, sigmas=(0.1, 0.2, 0.3),
        roughness=False,
    )  # fmt: skip
    found = run_audit(spec)
    assert [point.sigma for point in found.sweep] == [0.1, 0.2, 0.3]
    assert all(point.trials.count >= 1 for point in found.sweep)


def test_a_run_within_its_time_is_an_ordinary_one(example):
    """Nothing is marked where the time was enough, and the numbers are the same."""
    common = {"model": example, "device": "rram", "trials": 5, "limit": 8, "roughness": False}
    timed, plain = run_audit(make_spec(**common, max_minutes=10)), run_audit(make_spec(**common))
    assert timed.time_boxed is None
    assert timed.trials.values == plain.trials.values
    assert timed.headline == plain.headline


def test_stop_is_asked_for_once_per_kind():
    """Time and wish are told apart."""
    stop = Stop()
    assert not stop.due()
    stop.end_in(-1)
    assert stop.due()
    assert not stop.interrupted
    stop.end_in(None)
    assert not stop.due()
    assert not stop.interrupt()  # nobody looks at it now
    with stop.waited_for():
        assert stop.interrupt()
    assert list(itertools.islice((stop.due() for _ in range(2)), 2)) == [True, True]

"""Races and gates through the public functions, on the example network with more images."""

import json

import numpy as np
import pytest
from quick import audit

from nvaudit.files import write_text_atomic
from nvaudit.perturb.record import RECORD_FILE
from nvaudit.report.jsontext import to_json

SIGMA = (0.3,)
TRIALS = 150


@pytest.fixture(scope="module")
def many(example, tmp_path_factory):
    """The example's images, and each of them again, slightly brighter: more than a race needs."""
    data = np.load(example.with_suffix(".npz"))
    (name,) = [key for key in data.files if key != "y"]
    path = tmp_path_factory.mktemp("data") / "many.npz"
    copies = [data[name], data[name] * np.float32(1.1), data[name] * np.float32(0.9)]
    np.savez(path, **{name: np.concatenate(copies), "y": np.tile(data["y"], 3)})
    return path


def run(example, many, **options):
    """A raced audit."""
    settings = {"device": "rram", "sigmas": SIGMA, "trials": TRIALS, "percentiles": (5.0,)} | options
    return audit(example, data=many, **settings)


@pytest.fixture(scope="module")
def raced(example, many):
    """With races, in this process."""
    return run(example, many)


@pytest.fixture(scope="module")
def whole(example, many):
    """Every chip on every image."""
    return run(example, many, exhaustive=True)


def same(report) -> dict:
    """What must not depend on how a run went."""
    found = json.loads(to_json(report))
    for key in ("timing", "events", "run"):
        del found[key]
    return found


def test_races_give_the_same_answer_for_fewer_images(raced, whole):
    """KPP and known chips are those of the exhaustive run, bit for bit; the report says what was saved."""
    assert raced.kpp[0].value == whole.kpp[0].value
    assert raced.kpp[0].low <= whole.kpp[0].low
    assert raced.kpp[0].high >= whole.kpp[0].high
    for found, truth in zip(raced.trials.values, whole.trials.values, strict=True):
        assert found in (None, truth)
    assert raced.trials.images_evaluated < 0.8 * raced.trials.images_exhaustive
    assert raced.trials.images_exhaustive == whole.trials.images_evaluated
    assert whole.trials.race is None
    assert whole.trials.exact
    assert raced.trials.race.stopped == raced.trials.values.count(None) > TRIALS / 4
    assert sum(raced.trials.weights) == pytest.approx(TRIALS)
    assert raced.trials.mean == pytest.approx(whole.trials.mean, abs=0.02)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_matter(example, many, raced, workers):
    """Which chips race against what does not depend on who finishes first."""
    assert same(run(example, many, workers=workers)) == same(raced)


@pytest.mark.parametrize("kept", [0, 1, 20, 60, 130])
def test_a_cut_off_run_goes_on_bit_for_bit(example, many, raced, tmp_path, kept):
    """After any number of finished calls, with and without the pilots' scores, the report is the same."""
    folder = tmp_path / "kept"
    assert same(run(example, many, resume=folder)) == same(raced)
    record = folder / RECORD_FILE
    data = record.read_bytes()
    start = data.index(b"\n", data.index(b"\n") + 1) + 1
    record.write_bytes(data[: start + kept * 52 + 17])
    if kept % 20:
        for path in folder.glob("pilot-*"):
            path.write_bytes(path.read_bytes()[:-1])
    again = run(example, many, resume=folder)
    assert same(again) == same(raced)
    assert record.stat().st_size == len(data)


def test_no_tolerance_is_exact(example, many, whole):
    """With 0 no rank is left open; with a tiny one the races are made again if need be."""
    for tolerance in (0.0, 1e-9):
        found = run(example, many, tolerance=tolerance)
        assert found.kpp[0].width <= tolerance
        assert found.kpp[0].value == whole.kpp[0].value


def test_yields_are_exact(example, many, whole):
    """A threshold that is asked for is decided for every chip."""
    threshold = float(np.quantile(whole.trials.values, 0.2))
    (found,) = run(example, many, yield_at=(threshold,)).yields
    assert found.passing == sum(value >= threshold for value in whole.trials.values)
    assert found.trials == TRIALS


def test_a_gate_draws_until_it_is_decided(example, many, whole):
    """Far below the KPP it passes, above it fails at once; chips above the number needed are not drawn."""
    passing = run(example, many, min_kpp=min(whole.trials.values) - 0.1)
    assert passing.verdict == "pass"
    assert passing.gate[0].sequential
    assert passing.gate[0].trials == passing.trials.count < TRIALS
    failing = run(example, many, min_kpp=max(whole.trials.values))
    assert failing.verdict == "fail"
    assert failing.trials.count == 16
    few = run(example, many, min_kpp=min(whole.trials.values) - 0.1, max_trials=20)
    assert few.verdict == "undecided"
    assert few.gate[0].needed.startswith("20 chips were drawn, as many as were allowed; ")


def test_a_gate_may_draw_all_trials(example, many, whole):
    """Then races decide for every chip, and the verdict is that of the number fixed beforehand."""
    threshold = float(np.quantile(whole.trials.values, 0.02))
    found = run(example, many, min_kpp=threshold, all_trials=True)
    assert found.gate[0].failures == sum(value < threshold for value in whole.trials.values)
    assert found.gate[0].trials == TRIALS
    assert not found.gate[0].sequential


def test_what_cannot_race_says_so(example, many):
    """A loss has no bounds; its chips see every image, and the gate still stops early."""
    found = run(example, many, metric="cross_entropy", min_kpp=50.0)
    assert found.trials.race is None
    assert found.verdict == "pass"
    assert found.trials.count < TRIALS
    assert "every chip was run on every sample: cross_entropy has no bounds, which races need" in found.notes
    assert run(example, many, metric="cross_entropy", exhaustive=True, trials=2).notes == ()


def test_points_of_a_sweep_race_where_it_pays(example, many):
    """Each point has races of its own, and its own count of images; where chips hardly differ none pay."""
    found = run(example, many, sigmas=(0.2, 0.4), percentiles=(5.0, 20.0))
    close, apart = (point.trials for point in found.sweep)
    assert close.race is None
    assert close.images_evaluated == close.images_exhaustive
    assert apart.race.stopped > 0
    assert apart.images_evaluated < apart.images_exhaustive


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-trials", 5), "--max-trials is for a gate; give one with --min-kpp"),
        (("--min-kpp", 0.5, "--exhaustive", "--max-trials", 5), "--max-trials and --exhaustive: choose one"),
        (("--min-kpp", 0.5, "--all-trials", "--max-trials", 5), "--all-trials and --max-trials: choose one"),
        (("--exhaustive", "--tolerance", 0.1), "--tolerance and --exhaustive: choose one"),
    ],
)
def test_options_that_make_no_sense_together(command, example, options, message):
    """Exit 2, and what to do."""
    ran = command("audit", example, *options)
    assert ran.code == 2
    assert message in ran.err


def test_a_raced_chip_can_be_replayed(command, example, raced, many, tmp_path):
    """The worst chip measures what the report has; a chip that was stopped is measured now."""
    path = tmp_path / "report.json"
    write_text_atomic(path, to_json(raced))
    ran = command("replay", path, "-o", tmp_path / "worst.onnx")
    assert ran.code == 0
    assert f"reported {min(v for v in raced.trials.values if v is not None)!r}" in ran.out
    stopped = raced.trials.values.index(None)
    ran = command("replay", path, "--trial", stopped, "-o", tmp_path / "stopped.onnx")
    assert ran.code == 0
    assert "stopped early in the report; the file measures 0." in ran.out

"""What is measured of a candidate, and what fits into the time of a calibration."""

import math
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from nvaudit.data import Dataset
from nvaudit.errors import OptionError
from nvaudit.jobs.remapping import remap
from nvaudit.remapping.bench import BenchConditions, ChipScores
from nvaudit.remapping.spec import make_remap_spec
from nvaudit.remapping.time_budget import Clock, Cost, checked_samples, fitted


def trial(*chips, higher=True):
    return ChipScores(0.9, 0.9, np.array(chips), higher)


@pytest.mark.parametrize("higher", [True, False])
def test_worst_quarter_ranks_and_the_mean_has_a_veto(higher):
    """Better worst chips win, unless the mean is behind on the same chips by more than chance."""
    sign = 1 if higher else -1
    old = trial(*(sign * np.array([0.5, 0.8, 0.8, 0.8])), higher=higher)
    better = trial(*(sign * np.array([0.6, 0.8, 0.8, 0.8])), higher=higher)
    lucky = trial(*(sign * np.array([0.51, 0.6, 0.7, 0.6])), higher=higher)
    assert better.beats(old)
    assert not old.beats(better)
    assert not lucky.beats(old)
    assert lucky.worst == pytest.approx(sign * 0.51)


def test_few_chips_never_beat_many():
    """A candidate that was given up has fewer chips and cannot win by luck; one of no chips has no mean."""
    assert not trial(0.99, 0.99).beats(trial(0.1, 0.2, 0.3, 0.4))
    assert np.isnan(trial().mean)
    assert np.isnan(trial().worst)
    assert not trial().beats(trial())


def test_first_chips_stand_for_themselves():
    """A trial cut to its first chips ranks as these."""
    whole = trial(0.9, 0.5, 0.1, 0.2)
    assert whole.on(2).worst == 0.5
    assert len(whole.on(3).chips) == 3


def test_infinite_chips_are_behind():
    """Outputs that overflow lose."""
    assert trial(np.nan, 0.9).behind(trial(0.1, 0.1))


def conditions(images, chips, threads=1):
    x = np.arange(images, dtype=np.float32)[:, None]
    data = Dataset(
        inputs={"x": x}, batched=frozenset({"x"}), batch_axes={"x": 0}, labels=np.arange(images),
        label_kind="class", count=images, source="s", digest="d", notes=(), skipped=(),
    )  # fmt: skip
    rest = dict.fromkeys(field.name for field in fields(BenchConditions))
    return BenchConditions(**{**rest, "dataset": data, "chips": chips, "threads": threads})


def test_what_fits_stays_as_it_is():
    """Images go first, down to 96, then chips, down to 8, then both to 64 and 4; more cores, more fits."""
    wanted = conditions(256, 16)
    assert fitted(wanted, Cost(0.01, 0.0001), 60, 0) is wanted
    fewer = fitted(wanted, Cost(0.0, 0.003), 60, 0)
    assert (96 <= fewer.dataset.count < 256, fewer.chips) == (True, 16)
    assert (fewer.dataset.labels == fewer.dataset.inputs["x"][:, 0]).all()
    few = fitted(wanted, Cost(0.0, 0.0068), 60, 0)
    assert (few.dataset.count, few.chips) == (96, 8)
    least = fitted(wanted, Cost(0.0, 0.1), 60, 0)
    assert (least.dataset.count, least.chips) == (64, 4)
    many = fitted(conditions(256, 16, threads=8), Cost(0.0, 0.003), 60, 0)
    assert many.dataset.count == 256


def test_clock_without_a_limit_never_runs_out():
    """A budget of 0 is none; otherwise what is left goes down to 0."""
    assert Clock(0.0).left_s == np.inf
    assert 0 < Clock(60.0).left_s <= 60
    assert replace(Clock(60.0), begin=-1e9).left_s == 0
    assert checked_samples(Cost(0, 0.01), 5000, np.inf) == 5000
    assert checked_samples(Cost(0, 0.01), 5000, 30.0) == 1000
    assert checked_samples(Cost(0, 0.01), 5000, 0.0) == 128
    assert checked_samples(Cost(0, 0.01), 100, 0.0) == 100


@pytest.fixture
def digits(tmp_path):
    folder = Path(__file__).parents[2] / "examples"
    for name in ("digits_cnn.onnx", "digits_cnn.npz"):
        shutil.copy(folder / name, tmp_path / name)
    return tmp_path / "digits_cnn.onnx"


def test_what_there_was_no_time_for_is_reported(digits, tmp_path):
    """With next to no time the original is measured and written; every other step says it was not tried."""
    report = remap(
        digits, "rram", out=tmp_path / "o.onnx", sigma=0.4, trials=0, time_budget=0.001,
        calibration_chips=2, calibration_images=16,
    )  # fmt: skip
    assert [step.name for step in report.steps] == ["original"]
    assert any(text == "equalised: the time budget ran out" for text in report.not_tried)
    assert any("steps were not tried, as the 1 s for calibration were over" in note for note in report.notes)
    assert report.exact
    assert (tmp_path / "o.onnx").is_file()


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 60),
        ({"time_budget": 0}, math.inf),
        ({"time_budget": 200}, 200),
        ({"max_minutes": 5}, 120),
        ({"max_minutes": 5, "trials": 0}, 270),
        ({"max_minutes": 5, "time_budget": 50}, 50),
        ({"max_minutes": 5, "time_budget": 0}, 120),
        ({"max_minutes": 1}, 24),
    ],
)
def test_calibration_takes_its_share_of_the_time(options, seconds):
    """Of --max-minutes, where the user has not given it less; a minute where nothing is said."""
    assert make_remap_spec(model="m", **options).calibration_s == pytest.approx(seconds)


def test_given_up_steps_say_on_how_many_chips(digits, tmp_path):
    """Every step gives its chips; only complete ones are kept, and without a limit time is no reason.

    The best are told apart on three times the chips, round by round; the kept model was in all rounds.
    """
    report = remap(
        digits, "rram", out=tmp_path / "o.onnx", sigma=0.4, trials=0, time_budget=0, calibration_chips=8,
        calibration_images=32,
    )  # fmt: skip
    assert {step.chips for step in report.steps} <= {0, 4, 8, 24, 72}
    assert all(step.chips >= 8 for step in report.steps if step.kept or not step.reason)
    most = max(step.chips for step in report.steps)
    assert {step.chips for step in report.steps if step.kept} == {most}
    assert most > 8
    assert all("given up" not in text and "time" not in text for text in report.not_tried)
    for step in report.steps:
        assert (step.mean is None) == (step.chips == 0)
        assert (step.quantised is None) == (step.chips < 8)


def test_a_negative_budget_is_refused():
    """The message says what may be given."""
    with pytest.raises(OptionError, match="--time-budget: got -1; use a finite number of seconds, 0"):
        make_remap_spec(model="m", time_budget=-1)
    with pytest.raises(OptionError, match=r"--time-budget: got 1e\+308; .* \(no limit\) to 1e9"):
        make_remap_spec(model="m", time_budget=1e308)

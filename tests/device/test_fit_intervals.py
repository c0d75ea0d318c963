"""Intervals of a fit of arrays: how often they hold what devices were drawn with."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nvaudit.device.fit_arrays import fit_arrays
from nvaudit.device.fit_samples import CrossbarSample

SIDE = 24
COMMON = {"chip": 0.2, "crossbar": 0.3, "row": 0.2, "column": 0.2}


def crossbars(generator, chips, each, common):
    """Crossbars of devices of four levels that have something in common, in level spacings."""
    row, column = (index.ravel() for index in np.indices((SIDE, SIDE)))
    made = []
    for chip in range(chips):
        of_chip = common.get("chip", 0) * generator.standard_normal()
        for number in range(each):
            level = generator.integers(0, 4, SIDE * SIDE)
            g = level + generator.standard_normal(SIDE * SIDE) + of_chip
            g += common.get("crossbar", 0) * generator.standard_normal()
            g += (common.get("row", 0) * generator.standard_normal(SIDE))[row]
            g += (common.get("column", 0) * generator.standard_normal(SIDE))[column]
            made.append(CrossbarSample(f"{chip}", None, level, g, row, column, None, f"{chip}/{number}"))
    return made


def held(chips, each, common, repeats):
    """Shares of repeats whose intervals hold the truth, of each component."""
    generator = np.random.default_rng(chips * 100 + each)
    shares = {}
    for _ in range(repeats):
        fit = fit_arrays(crossbars(generator, chips, each, common), 3, (0.0, 3.0), 4)
        for part, one in fit.components.items():
            shares.setdefault(part, []).append(one.low <= common.get(part, 0) <= one.high)
    return {part: np.mean(share) for part, share in shares.items()}


@pytest.mark.parametrize(("chips", "each"), [(1, 4), (4, 4)])
def test_intervals_of_few_crossbars_and_chips_hold(chips, each):
    """Nominal 95 %; of 60 repeats fewer than 51 (85 %) would come by chance once in 2,000 times."""
    shares = held(chips, each, COMMON, 60)
    assert set(shares) == set(COMMON) - ({"chip"} if chips == 1 else set())
    assert min(shares.values()) >= 51 / 60


def test_what_devices_do_not_have_in_common_is_hardly_ever_found():
    """Without common terms intervals reach 0."""
    assert min(held(4, 4, {}, 40).values()) >= 34 / 40


def over_time(generator, times, t0, noise):
    """One crossbar at several times: every device with an exponent of its own, read with noise."""
    level = generator.integers(1, 4, SIDE * SIDE)
    nu = 0.05 + 0.01 * generator.standard_normal(SIDE * SIDE)
    row, column = (index.ravel() for index in np.indices((SIDE, SIDE)))
    return [
        CrossbarSample("chip", time_s, level, level * ((time_s + t0) / t0) ** -nu
                       * np.exp(noise * generator.standard_normal(level.size)), row, column, None, "0")
        for time_s in times
    ]  # fmt: skip


def test_the_time_that_drift_is_counted_from_is_fitted():
    """Times before and after t0 tell it, and its interval holds it; two times, or late ones, do not."""
    generator, inside = np.random.default_rng(5), 0
    for _ in range(60):
        samples = over_time(generator, (0.0, 10.0, 60.0, 3600.0, 86400.0), 20.0, 0.01)
        drift = fit_arrays(samples, 3, (0.0, 3.0), None, t0_s=1.0).drift
        assert 10 < drift.t0_s == drift.t0.value < 40
        inside += drift.t0.low < 20 < drift.t0.high
    assert inside >= 51
    for times in ((0.0, 3600.0), (3600.0, 36000.0, 360000.0)):
        drift = fit_arrays(over_time(generator, times, 20.0, 0.01), 3, (0.0, 3.0), None, t0_s=20.0).drift
        assert (drift.t0, drift.t0_s) == (None, 20.0)
        assert drift.mean.value == pytest.approx(0.05, abs=0.002)


def _benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "fit_arrays.py"
    spec = importlib.util.spec_from_file_location("benchmark_fit_arrays", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["rram", "fefet1", "pcm", "rram_65nm", "sonos_day1", "cmo_hfox"])
def test_intervals_of_bundled_profiles_hold(profile):
    """As benchmarks/fit_arrays.py, 40 repeats at 16 crossbars: levels, components and stuck devices."""
    benchmark = _benchmark()
    found = benchmark.run(benchmark.Trial(profile, 16, 32, 16), 40)
    for what, (inside, count) in found["held"].items():
        share = inside / count
        # Levels are many and nearly independent; of others one in twenty of 40 may fail, and rarely six.
        assert share >= (0.92 if count > 400 else 34 / 40), what
        assert count < 400 or share <= 0.98, what
    assert found["off"] < 0.05


def test_a_level_that_a_clip_holds_at_one_value():
    """Its devices have no spread, which is a fact and no division by it."""
    generator = np.random.default_rng(5)
    samples = [replace(one, g=np.where(one.level == 0, 0.0, one.g)) for one in crossbars(generator, 1, 4, {})]
    fit = fit_arrays(samples, 3, (0.0, 3.0), 4)
    lowest, *others = fit.levels
    assert (lowest.level, lowest.spread.value, lowest.spread.low, lowest.spread.high) == (0, 0, 0, 0)
    assert all(one.spread.value == pytest.approx(1, abs=0.1) for one in others)

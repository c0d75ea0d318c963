"""Small devices and arrays for the tests of noise, and what the statistical tests share."""

from dataclasses import replace

import numpy as np
from scipy import stats

from nvaudit.device import DeviceProfile, operating_point
from nvaudit.mapping.conductance import layout
from nvaudit.perturb.chip import MappedTensor, TensorLaw

FALSE_ALARM = 1e-6
"""Each statistical comparison rejects a correct law with this probability (over seeds; seeds are fixed)."""

WINDOW = {"unit": "us", "min": 10.0, "max": 100.0}
STEP = 90.0 / 15


def constant(value):
    return {"kind": "constant", "value": value}


def make_profile(*noise, window=WINDOW, cell_bits=4, sigma=None, timed=True, encoding="sign_magnitude"):
    """A device of 16 levels over 10 … 100 µS with the given noise terms."""
    return DeviceProfile.model_validate(
        {
            "schema_version": 1,
            "name": "test",
            "technology": "none",
            "description": "A device for tests.",
            "source": {"citation": "none", "where": "nowhere", "fit": "none"},
            "cell_bits": cell_bits,
            "weight_bits": 8,
            "encoding": encoding,
            "window": window,
            "sigma": sigma,
            "time": {"default_s": 0.0, "min_s": 0.0, "max_s": 1e9} if timed else None,
            "valid_range": "anywhere",
            "noise": noise,
        }
    )


def make_law(point, code, *, bits=4, cell_bits=None, encoding=None, scale=1.0, key="w", **options):
    """A tensor of given codes at an operating point."""
    array = layout(point.profile, bits=bits, cell_bits=cell_bits, encoding=encoding)
    tensor = MappedTensor(key, np.asarray(code, np.int16), np.asarray(scale, np.float32), array, 2**bits - 1)
    return TensorLaw(tensor, point, **options)


def devices(profile, level, count=40_000, *, time_s=0.0, sigma=None, trial=0, **options):
    """Conductances of ``count`` devices programmed to one level, drawn one by one, in the window's unit."""
    point = operating_point(profile, sigma, time_s=time_s)
    law = make_law(point, np.full(count, level), every_device=True, **options)
    array = law.tensor.array
    return array.g_min + law.draw(0, trial).weights.astype(np.float64) * array.step


def target(level):
    """Conductance of a level in the test window, worked out by hand."""
    return 10.0 + level * STEP


def with_sigma(point, sigma):
    """The point at a sigma outside the profile's range."""
    return replace(point, sigma=sigma)


def assert_law(sample, law):
    """A Kolmogorov-Smirnov test against a scipy distribution; false alarm 1e-6."""
    p = stats.kstest(sample, law.cdf).pvalue
    assert p > FALSE_ALARM, f"p = {p:.2g}: mean {sample.mean():.5g}, std {sample.std():.5g}"


def assert_normal(sample, mean, std):
    """KS against N(mean, std²), and mean and std within 5 standard errors (false alarm 6e-7 each)."""
    n = len(sample)
    assert abs(sample.mean() - mean) < 5 * std / np.sqrt(n)
    assert abs(sample.std() / std - 1) < 5 / np.sqrt(2 * n)
    assert_law(sample, stats.norm(mean, std))


def assert_count(count, n, probability):
    """An exact two-sided binomial test; false alarm 1e-6."""
    p = stats.binomtest(int(count), n, probability).pvalue
    assert p > FALSE_ALARM, f"{count} of {n} at probability {probability:g}: p = {p:.2g}"


def assert_same_law(one, other):
    """Two-sample KS, and equal means and spreads within 5 standard errors; false alarm 1e-6 each."""
    n = min(len(one), len(other))
    std = max(one.std(), other.std())
    assert abs(one.mean() - other.mean()) < 5 * std * np.sqrt(2 / n)
    assert abs(one.std() - other.std()) < 5 * std / np.sqrt(n)
    assert stats.ks_2samp(one, other, method="asymp").pvalue > FALSE_ALARM


def assert_uncorrelated(one, other):
    """|correlation| < 5 / sqrt(n); false alarm 6e-7."""
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(one.size)

"""The law of every noise term, device by device, on an array of one slice.

Devices have 16 levels over 10 … 100 µS; 40 000 are drawn per case. Every comparison has a false-alarm rate
of about 1e-6 (see noise_cases); seeds are fixed.
"""

import numpy as np
import pytest
from noise_cases import (
    STEP,
    assert_count,
    assert_law,
    assert_normal,
    assert_uncorrelated,
    constant,
    devices,
    make_law,
    make_profile,
    target,
)
from scipy import stats

from nvaudit.device import load_profile, operating_point, profile_digest

N = 40_000
LEVEL_KNOB = {"default": 0.2, "unit": "level", "min": 0.0, "max": 1.0}
MULTIPLIER = {"default": 1.0, "unit": "multiplier", "min": 0.0, "max": 4.0}
RAMP = {"kind": "polynomial", "coefficients": [0.1, 0.4], "of": "rel"}
PER_LEVEL = {"kind": "levels", "values": [0.05 * (i + 1) for i in range(16)]}


def normal(unit, sigma, **more):
    return {"kind": "normal", "unit": unit, "sigma": sigma, **more}


# ---- normal


@pytest.mark.parametrize("level", [0, 6, 15])
@pytest.mark.parametrize(
    ("unit", "sigma", "one"),
    [
        ("level", 0.3, lambda g: STEP),
        ("full_scale", 0.02, lambda g: 90.0),
        ("relative", 0.1, lambda g: g),
        ("us", 1.5, lambda g: 1.0),
    ],
)
def test_normal_in_every_unit(unit, sigma, one, level):
    """g ~ N(target, (σ · unit)²): level spacings, fractions of the window, of the target, or µS."""
    g = target(level)
    assert_normal(devices(make_profile(normal(unit, constant(sigma))), level), g, sigma * one(g))


@pytest.mark.parametrize("level", [0, 9])
@pytest.mark.parametrize(("knob", "one"), [("level", STEP), ("full_scale", 90.0)])
def test_normal_in_the_unit_of_the_knob(knob, one, level):
    """With unit ``sigma`` the law is multiplied by the knob, in the knob's unit."""
    profile = make_profile(normal("sigma", constant(2.0)), sigma={**LEVEL_KNOB, "unit": knob})
    assert_normal(devices(profile, level, sigma=0.05), target(level), 2.0 * 0.05 * one)


def test_normal_shifts_by_its_mean():
    """The mean is in the unit of the term, and follows its own law."""
    profile = make_profile(normal("level", constant(0.3), mean=RAMP))
    for level in (0, 15):
        shift = (0.1 + 0.4 * target(level) / 100.0) * STEP
        assert_normal(devices(profile, level), target(level) + shift, 0.3 * STEP)


def test_a_multiplier_scales_sigma_and_mean():
    """A ``multiplier`` knob acts on a law in a unit of its own: spread and mean alike."""
    profile = make_profile(normal("us", constant(1.5), mean=constant(-2.0)), sigma=MULTIPLIER)
    assert_normal(devices(profile, 7, sigma=3.0), target(7) - 6.0, 4.5)


@pytest.mark.parametrize("level", [0, 4, 15])
def test_normal_with_a_sigma_per_level(level):
    """Each level has the spread of its own entry (T-15)."""
    profile = make_profile(normal("level", PER_LEVEL))
    assert_normal(devices(profile, level), target(level), 0.05 * (level + 1) * STEP)


@pytest.mark.parametrize("level", [0, 15])
def test_normal_with_sigma_of_the_conductance(level):
    """A polynomial of ``rel`` is evaluated at g / g_max of the target."""
    sigma = 0.1 + 0.4 * target(level) / 100.0
    assert_normal(devices(make_profile(normal("us", RAMP)), level), target(level), sigma)


@pytest.mark.parametrize("every_device", [False, True])
@pytest.mark.parametrize("code", [-200, 0, 31])
def test_normal_in_weight_space(code, every_device):
    """Unit ``weight_max``: W ~ N(W_des, (σ · max|W|)²), with no slicing, on both ways of drawing."""
    point = operating_point(make_profile(normal("weight_max", constant(0.02))))
    law = make_law(point, np.full(N, code), bits=8, scale=0.5, every_device=every_device)
    assert_normal(law.draw(0, 0).weights.astype(float), code * 0.5, 0.02 * 255 * 0.5)


@pytest.mark.parametrize("every_device", [False, True])
def test_a_mean_in_weight_space_follows_the_sign(every_device):
    """A positive shift makes the magnitude larger: negative weights move down, zero counts as positive."""
    point = operating_point(make_profile(normal("weight_max", constant(0.0), mean=constant(0.1))))
    law = make_law(point, [-100, 0, 100], bits=8, every_device=every_device)
    assert law.draw(0, 0).weights == pytest.approx([-125.5, 25.5, 125.5], rel=1e-6)


@pytest.mark.parametrize("every_device", [False, True])
def test_weight_space_levels_are_equal_parts_of_the_magnitude(every_device):
    """A spread per level sees |W|/max|W| cut into as many equal parts as there are levels."""
    term = normal("weight_max", {"kind": "levels", "values": [0.01, 0.04, 0.03, 0.02]})
    point = operating_point(make_profile(term, cell_bits=2))
    for code, sigma in ((60, 0.01), (64, 0.04), (-130, 0.03), (255, 0.02)):
        law = make_law(point, np.full(N, code), bits=8, every_device=every_device)
        assert_normal(law.draw(0, 0).weights.astype(float), code, sigma * 255)


def test_terms_add_up_independently():
    """Two normal terms have streams of their own: their variances add."""
    terms = [normal("us", constant(1.5), name="one"), normal("us", constant(2.0), name="two")]
    assert_normal(devices(make_profile(*terms), 8), target(8), 2.5)


# ---- lognormal


@pytest.mark.parametrize("level", [0, 15])
@pytest.mark.parametrize(
    ("on", "preserve", "centre"),
    [
        ("resistance", "median", 0.0),
        ("conductance", "median", 0.0),
        ("resistance", "mean", +0.5 * 0.3**2),
        ("conductance", "mean", -0.5 * 0.3**2),
    ],
)
def test_lognormal(on, preserve, centre, level):
    """ln(g/target) ~ N(centre, σ²); the statistic to preserve, of r or g, stays at its target."""
    term = {"kind": "lognormal", "sigma": constant(0.3), "unit": "log", "on": on, "preserve": preserve}
    g = devices(make_profile(term), level)
    assert_normal(np.log(g / target(level)), centre, 0.3)
    value, wanted = (g, target(level)) if on == "conductance" else (1 / g, 1 / target(level))
    if preserve == "mean":
        spread = wanted * np.sqrt(np.expm1(0.3**2))
        assert abs(value.mean() - wanted) < 5 * spread / np.sqrt(N)
    else:
        assert_count((value < wanted).sum(), N, 0.5)


def test_lognormal_on_resistance_and_conductance_are_mirror_images():
    """r·e^θ is g·e^−θ: with the same draws the two deviate in opposite directions."""
    terms = [
        {"kind": "lognormal", "sigma": constant(0.3), "unit": "log", "on": on, "preserve": "median"}
        for on in ("resistance", "conductance")
    ]
    low, high = (np.log(devices(make_profile(term), 15) / target(15)) for term in terms)
    assert low == pytest.approx(-high, abs=1e-5)


def test_lognormal_follows_the_knob():
    """With unit ``sigma`` and a ``log`` knob the exponent's spread is law × knob."""
    term = {
        "kind": "lognormal",
        "sigma": constant(2.0),
        "unit": "sigma",
        "on": "resistance",
        "preserve": "median",
    }
    knob = {"default": 0.3, "unit": "log", "min": 0.0, "max": 0.5}
    g = devices(make_profile(term, sigma=knob), 10, sigma=0.15)
    assert_normal(np.log(g / target(10)), 0.0, 0.3)


# ---- stuck_at


@pytest.mark.parametrize(("low", "high"), [(0.03, 0.01), (1e-3, 0.0), (0.0, 2e-4), (0.6, 0.4)])
def test_stuck_devices_are_bernoulli(low, high):
    """The number stuck at each end passes an exact binomial test: no rounding to a fixed count."""
    profile = make_profile({"kind": "stuck_at", "p_low": low, "p_high": high})
    n = 400_000
    level = np.rint((devices(profile, 6, n) - 10.0) / STEP)
    assert set(np.unique(level)) <= {0.0, 6.0, 15.0}
    assert_count((level == 0).sum(), n, low)
    assert_count((level == 15).sum(), n, high)


def test_the_number_of_stuck_devices_varies_from_chip_to_chip():
    """Over 400 chips the count has the variance of a binomial; chi-square test, false alarm 1e-6."""
    profile = make_profile({"kind": "stuck_at", "p_low": 0.05, "p_high": 0.0})
    counts = np.array([(devices(profile, 6, 1000, trial=t) < 11).sum() for t in range(400)])
    statistic = ((counts - 50.0) ** 2).sum() / (1000 * 0.05 * 0.95)
    low, high = stats.chi2(400).ppf([5e-7, 1 - 5e-7])
    assert low < statistic < high


def test_devices_are_stuck_independently():
    """Neighbouring devices, and the two slices of one weight, are stuck independently of each other."""
    profile = make_profile({"kind": "stuck_at", "p_low": 0.0, "p_high": 0.2})
    n = 200_000
    stuck = (devices(profile, 6, n) > 99).astype(float)
    assert_uncorrelated(stuck[:-1], stuck[1:])
    law = make_law(operating_point(profile), np.full((400, 500), 0x66), bits=8)
    rows = law.draw(0, 0).weights
    assert_uncorrelated(rows[:-1].astype(float), rows[1:].astype(float))
    digit = np.rint(law.draw(0, 0).weights).astype(int)
    assert set(np.unique(digit)) == {0x66, 0x6F, 0xF6, 0xFF}
    assert_count((digit == 0xFF).sum(), n, 0.04)
    assert_count((digit == 0xF6).sum(), n, 0.16)


def test_stuck_with_certainty():
    """p = 1 sticks every device exactly; p = 0 leaves every device exactly."""
    at_low = make_profile({"kind": "stuck_at", "p_low": 1.0, "p_high": 0.0})
    assert (devices(at_low, 9, 1000) == 10.0).all()
    at_high = make_profile({"kind": "stuck_at", "p_low": 0.0, "p_high": 1.0})
    assert devices(at_high, 9, 1000) == pytest.approx(100.0, abs=1e-4)
    nowhere = make_profile({"kind": "stuck_at", "p_low": 0.0, "p_high": 0.0})
    assert devices(nowhere, 9, 1000) == pytest.approx(target(9), abs=1e-12)


def test_stuck_devices_lose_their_programming_noise():
    """A stuck device sits exactly at the end of the window; the others keep their noise."""
    stuck_at = {"kind": "stuck_at", "p_low": 0.3, "p_high": 0.0}
    g = devices(make_profile(normal("us", constant(1.5)), stuck_at), 8)
    assert_count((g == 10.0).sum(), N, 0.3)
    assert_normal(g[g != 10.0], target(8), 1.5)


# ---- drift and decay


def drift(nu_law="normal", mean=0.05, std=0.02, t0=20.0):
    return {
        "kind": "drift",
        "nu_mean": constant(mean),
        "nu_std": constant(std),
        "t0_s": t0,
        "nu_law": nu_law,
    }


def test_drift_follows_its_power_law():
    """ln(g/target) / −ln((t + t0)/t0) is the exponent: N(mean, std²), one per device."""
    g = devices(make_profile(drift()), 15, time_s=1e4)
    assert_normal(np.log(g / target(15)) / -np.log((1e4 + 20) / 20), 0.05, 0.02)


def test_drift_with_a_folded_exponent():
    """``folded_normal`` takes |ν|: no device drifts upwards; KS against scipy's foldnorm."""
    g = devices(make_profile(drift("folded_normal", 0.02, 0.03)), 15, time_s=1e5)
    nu = np.log(g / target(15)) / -np.log((1e5 + 20) / 20)
    assert nu.min() > -1e-6
    assert_law(nu, stats.foldnorm(0.02 / 0.03, scale=0.03))


def test_a_multiplier_scales_the_spread_of_the_exponent_only():
    """ν's spread is a variation and scales; its mean is the device's drift and does not."""
    g = devices(make_profile(drift(), sigma=MULTIPLIER), 15, time_s=1e4, sigma=2.0)
    assert_normal(np.log(g / target(15)) / -np.log((1e4 + 20) / 20), 0.05, 0.04)
    g = devices(make_profile(drift(), sigma=MULTIPLIER), 15, time_s=1e4, sigma=0.0)
    assert g == pytest.approx(target(15) * ((1e4 + 20) / 20) ** -0.05, rel=1e-5)


LOG_DECAY = {
    "kind": "log_decay",
    "mean_per_ln_s": -0.5,
    "std_const": 0.8,
    "std_per_ln_s": 0.1,
    "unit": "us",
}


@pytest.mark.parametrize("late", [drift(), LOG_DECAY], ids=["drift", "log_decay"])
def test_at_time_zero_nothing_drifts_and_programming_noise_stays(late):
    """t = 0 is the chip as programmed: bit for bit what it is without the term, not a noiseless one."""
    program = normal("us", constant(1.5))
    g = devices(make_profile(program, late), 8, time_s=0.0)
    assert (g == devices(make_profile(program), 8)).all()
    assert_normal(g, target(8), 1.5)


@pytest.mark.parametrize("time_s", [0.5, 1.0, 3600.0])
def test_log_decay(time_s):
    """g ~ N(target + mean·ln t, (std_const + std_per_ln·ln t)²) for t > 0, also below a second."""
    log_t = np.log(time_s)
    g = devices(make_profile(LOG_DECAY), 8, time_s=time_s)
    assert_normal(g, target(8) - 0.5 * log_t, 0.8 + 0.1 * log_t)


def test_log_decay_never_has_a_negative_spread():
    """Where std_const + std_per_ln·ln t falls below zero the spread is 0, not its absolute value."""
    g = devices(make_profile({**LOG_DECAY, "std_per_ln_s": 1.0}), 8, 1000, time_s=0.01)
    assert g == pytest.approx(target(8) - 0.5 * np.log(0.01), abs=1e-4)


def test_a_multiplier_scales_log_decay():
    """Shift and spread of a decay are multiplied."""
    g = devices(make_profile(LOG_DECAY, sigma=MULTIPLIER), 8, time_s=100.0, sigma=2.0)
    log_t = np.log(100.0)
    assert_normal(g, target(8) - 1.0 * log_t, 2 * (0.8 + 0.1 * log_t))


# ---- table


def table_levels(unit, of_level):
    rows = [{"level": i, "mean": of_level(i), "std": 0.01 * of_level(15)} for i in range(16)]
    return {"kind": "table", "unit": unit, "levels": rows}


@pytest.mark.parametrize("level", [0, 7, 15])
@pytest.mark.parametrize(
    ("unit", "low", "one"), [("us", 0.0, 1.0), ("level", 10.0, STEP), ("full_scale", 10.0, 90.0)]
)
def test_table_of_means_and_spreads(unit, low, one, level):
    """g ~ N(mean, std²) of its level; µS are absolute, level and full-scale units count from g_min."""
    g = devices(make_profile(table_levels(unit, lambda i: 0.2 + i)), level)
    assert_normal(g, low + (0.2 + level) * one, 0.152 * one)


def samples_of(level):
    """Four raw values of a level; the second occurs twice."""
    g = 10.0 + 6.0 * level
    return [g - 1.0, g + 0.5, g + 0.5, g + 2.0]


def test_table_of_raw_samples():
    """Only measured values occur, each as often as it was measured; chi-square test, false alarm 1e-6."""
    term = {"kind": "table", "unit": "us", "samples": [samples_of(i) for i in range(16)]}
    g = devices(make_profile(term), 5)
    wanted = np.array([39.0, 40.5, 42.0])
    nearest = np.abs(g[:, None] - wanted).argmin(axis=1)
    assert np.abs(g - wanted[nearest]).max() < 1e-4
    counts = np.bincount(nearest, minlength=3)
    assert stats.chisquare(counts, N * np.array([0.25, 0.5, 0.25])).pvalue > 1e-6
    assert_uncorrelated(g[:-1], g[1:])


def test_table_with_different_numbers_of_samples():
    """A level with one sample is exact, whatever the others have."""
    term = {"kind": "table", "unit": "us", "samples": [samples_of(i)[: 1 + i % 4] for i in range(16)]}
    profile = make_profile(term)
    assert devices(profile, 4, 100) == pytest.approx(33.0, abs=1e-4)
    assert set(np.round(devices(profile, 15, 1000), 3)) == {99.0, 100.5, 102.0}


def test_a_multiplier_scales_the_deviation_from_the_target():
    """With a table, what is multiplied is the measured value's distance from the target."""
    profile = make_profile(table_levels("us", lambda i: 12.0 + 6 * i), sigma=MULTIPLIER)
    assert_normal(devices(profile, 5, sigma=0.5), 40.0 + 0.5 * 2.0, 0.5 * 0.01 * 102)
    raw = {"kind": "table", "unit": "us", "samples": [samples_of(i) for i in range(16)]}
    g = devices(make_profile(raw, sigma=MULTIPLIER), 5, 1000, sigma=2.0)
    assert set(np.round(g, 3)) == {38.0, 41.0, 44.0}


# ---- clip


def test_clip_limits_and_leaves_the_inside_alone():
    """Mass beyond a bound gathers on it (binomial test); inside, the devices are bit for bit the same."""
    program = normal("us", constant(5.0))
    free = devices(make_profile(program), 8)
    g = devices(make_profile(program, {"kind": "clip", "min": 55.0, "max": 64.0}), 8)
    assert (g == np.clip(free, 55.0, 64.0)).mean() > 0.99999
    assert g == pytest.approx(np.clip(free, 55.0, 64.0), abs=1e-5)
    assert_count((g < 55.0001).sum(), N, stats.norm(58, 5).cdf(55))
    assert_count((g > 63.9999).sum(), N, stats.norm(58, 5).sf(64))


def test_clip_on_one_side():
    """A missing bound does not limit."""
    g = devices(make_profile(normal("us", constant(5.0)), {"kind": "clip", "min": 58.0}), 8)
    assert g.min() == pytest.approx(58.0, abs=1e-5)
    assert g.max() > 70


def test_order_of_terms_matters():
    """Terms act in the order listed: noise after a clip may leave the limits again."""
    program, clip = normal("us", constant(5.0)), {"kind": "clip", "min": 55.0}
    again = normal("us", constant(5.0), name="again")
    assert devices(make_profile(program, again, clip), 8).min() > 54.999
    assert devices(make_profile(program, clip, again), 8).min() < 50


# ---- read


def read(unit="us", sigma=1.5, **more):
    return {"kind": "read", "unit": unit, "sigma": constant(sigma), **more}


def variance_of(profile, code, *, time_s=0.0, bits=4, sigma=None, **options):
    point = operating_point(profile, sigma, time_s=time_s)
    return make_law(point, code, bits=bits, **options).draw(0, 0)


@pytest.mark.parametrize(
    ("unit", "sigma", "std"),
    [("us", 1.5, 1.5), ("level", 0.1, 0.1 * STEP), ("full_scale", 0.01, 0.9), ("relative", 0.05, 2.0)],
)
def test_read_noise_is_a_variance_per_weight(unit, sigma, std):
    """The weights stay as programmed; the variance of a read is (σ · unit · s / step)²."""
    draw = variance_of(make_profile(read(unit, sigma)), np.full(8, 5), scale=0.5)
    assert (draw.weights == 2.5).all()
    assert draw.read_variance == pytest.approx((std / STEP * 0.5) ** 2, rel=1e-5)


def test_relative_read_noise_sees_the_present_conductance():
    """``relative`` is of the conductance that the device has now, not of its target."""
    profile = make_profile(normal("us", constant(3.0)), read("relative", 0.05))
    draw = variance_of(profile, np.full(1000, 5))
    g = 10.0 + draw.weights.astype(float) * STEP
    assert g.std() > 2
    assert draw.read_variance == pytest.approx((0.05 * g / STEP) ** 2, rel=1e-4)


@pytest.mark.parametrize("time_s", [0.0, 1.0, 3600.0])
def test_read_noise_grows_with_one_over_f(time_s):
    """The spread is multiplied by sqrt(ln((t + t0 + t_read) / (2 t_read)))."""
    t0, t_read = 20.0, 250e-9
    profile = make_profile(read(one_over_f={"t0_s": t0, "t_read_s": t_read}))
    draw = variance_of(profile, np.full(8, 5), time_s=time_s)
    factor = np.log((time_s + t0 + t_read) / (2 * t_read))
    assert draw.read_variance == pytest.approx((1.5 / STEP) ** 2 * factor, rel=1e-5)


def test_read_variances_add_over_slices_and_polarities():
    """Σ 4^(iB) σ²(g_i), over both devices of a differential pair; two read terms add."""
    terms = [read("relative", 0.05), {**read("us", 0.3), "name": "floor"}]
    code = np.array([0x00, 0x5A, -0xF3])
    draw = variance_of(make_profile(*terms), code, bits=8, encoding="differential")

    def one(level):
        return ((0.05 * target(level)) ** 2 + 0.3**2) / STEP**2

    wanted = [
        sum(16.0 ** (2 * i) * (one(d) + one(0)) for i, d in enumerate(ds))
        for ds in ((0, 0), (10, 5), (3, 15))
    ]
    assert draw.read_variance == pytest.approx(wanted, rel=1e-5)


def test_a_multiplier_scales_read_noise():
    """Spreads of read noise, also ``relative`` ones, are multiplied."""
    for unit, std in (("us", 3.0), ("relative", 2 * 1.5 * 40.0)):
        draw = variance_of(make_profile(read(unit), sigma=MULTIPLIER), np.full(4, 5), sigma=2.0)
        assert draw.read_variance == pytest.approx((std / STEP) ** 2, rel=1e-5)


def test_read_noise_in_the_unit_of_the_knob():
    """With unit ``sigma`` it is law × knob, in the knob's unit."""
    draw = variance_of(make_profile(read("sigma", 2.0), sigma=LEVEL_KNOB), np.full(4, 5), sigma=0.3)
    assert draw.read_variance == pytest.approx(0.6**2, rel=1e-5)


def test_frozen_read_noise_is_drawn_with_the_chip():
    """Where no output term can carry it, one read is drawn per chip with the same spread."""
    profile = make_profile(read("us", 1.5))
    draw = variance_of(profile, np.full(N, 5), freeze_read=True)
    assert draw.read_variance is None
    assert_normal(draw.weights.astype(float), 5.0, 1.5 / STEP)


def test_read_noise_does_not_touch_programming():
    """With and without read noise, the programmed weights are the same bits."""
    program = normal("us", constant(1.5))
    with_read = variance_of(make_profile(program, read()), np.full(1000, 5))
    without = variance_of(make_profile(program), np.full(1000, 5), every_device=True)
    assert (with_read.weights == without.weights).all()


def test_laws_see_the_target_whatever_came_before():
    """The second term's spread is that of the target level, also after the first moved the device far."""
    away = normal("us", constant(0.0), mean=constant(40.0), name="away")
    assert_normal(devices(make_profile(away, normal("level", PER_LEVEL)), 2), target(2) + 40.0, 0.15 * STEP)


# -- the bundled profile of a device that is verified within a symmetric band -------------------------------


@pytest.mark.parametrize("level", [0, 255, 510])
@pytest.mark.parametrize("every_device", [False, True])
def test_cmo_hfox_is_symmetric_right_after_programming(level, every_device):
    """The 2 % band reaches over both ends of the window: N(G, (0.0112 + 0.0113 G)²), as in the source."""
    profile = load_profile("cmo_hfox")
    point = operating_point(profile)
    law = make_law(point, np.full(40_000, level - 255), bits=8, every_device=every_device)
    array = law.tensor.array
    found = 9.0 + (law.draw(0, 1).weights.astype(np.float64) + 255) * array.step
    wanted = 9.0 + level * (88.2 - 9.0) / 510
    assert_normal(found, wanted, 0.0112185391 + 0.01129027418 * wanted)


@pytest.mark.parametrize(("level", "low", "high"), [(0, True, False), (510, False, True)])
def test_cmo_hfox_is_clipped_at_the_ends_of_the_window_once_it_has_relaxed(level, low, high):
    """From 1 s on: a normal, what is beyond the window at its end; the noise of reads is on top."""
    law = make_law(
        operating_point(load_profile("cmo_hfox"), time_s=1.0), np.full(40_000, level - 255), bits=8
    )
    drawn = law.draw(0, 1)
    found = 9.0 + (drawn.weights.astype(np.float64) + 255) * law.tensor.array.step
    wanted = 88.2 if high else 9.0
    std = np.hypot(0.0112185391 + 0.01129027418 * wanted, 0.41183342)  # ln 1 = 0
    at_end = np.isclose(found, wanted, rtol=0, atol=1e-4)
    inside = found[~at_end]
    assert (inside > wanted).all() if low else (inside < wanted).all()
    assert abs(at_end.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(found))
    assert_law(np.abs(inside - wanted), stats.halfnorm(scale=std))
    read = 0.0277316483 * np.log10(wanted) * np.sqrt(np.log((1 + 1e-6) / 2e-6))
    step = law.tensor.array.step
    assert np.allclose(np.sqrt(drawn.read_variance) * step, read, rtol=1e-4)


def test_a_timed_clip_counts_as_what_time_does():
    """At time 0 it is not there, later it limits; drift compensation compares with what was before it."""
    noise = {"kind": "normal", "name": "n", "sigma": constant(5.0), "unit": "us"}
    clip = {"kind": "clip", "min": 10.0, "timed": True}
    profile = make_profile(noise, clip)
    assert (devices(profile, 0) < 10.0).mean() > 0.45
    assert devices(profile, 0, time_s=1.0).min() >= 10.0 - 1e-4
    plain = make_profile(noise, clip | {"timed": False})
    assert devices(plain, 0).min() >= 10.0 - 1e-4
    assert profile_digest(plain) == profile_digest(make_profile(noise, {"kind": "clip", "min": 10.0}))

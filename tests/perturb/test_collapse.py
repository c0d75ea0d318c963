"""The Gaussian collapse: one draw per weight has the law of one draw per device (TRICE paper, Eq. 14)."""

import numpy as np
import pytest
from noise_cases import assert_same_law, constant, make_law, make_profile, with_sigma
from scipy import stats

from nvaudit.device import load_profile, operating_point, override_profile
from nvaudit.mapping.conductance import layout
from nvaudit.perturb.collapse import collapse
from nvaudit.perturb.moments import code_moments

ENCODINGS = ("sign_magnitude", "differential", "offset")
FEFET1 = {0: 1.0, 1: 4.0, 2: 4.0, 3: 1.0}
FEFET2 = {0: 1.0, 1: 2.0, 2: 2.0, 3: 1.0}
RRAM = {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}


def base4(number, count):
    """Digits of a number to base 4, least significant first, worked out by division."""
    digit = []
    for _ in range(count):
        digit.append(number % 4)
        number //= 4
    return digit


def held(code, bits, encoding):
    """The levels of all devices of a weight, as (significance, level) pairs; a bit alone is level 0 or 3."""
    stored = {
        "sign_magnitude": [abs(code)],
        "differential": [max(code, 0), max(-code, 0)],
        "offset": [code + 2**bits - 1],
    }[encoding]
    width = bits + (encoding == "offset")
    found = []
    for one in stored:
        pairs = [(4**i, level) for i, level in enumerate(base4(one, -(-width // 2)))]
        if width % 2:
            pairs[-1] = (pairs[-1][0] / 3, pairs[-1][1] * 3)
        found += pairs
    return found


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("bits", [4, 7, 8])
@pytest.mark.parametrize(("name", "factor"), [("rram", RRAM), ("fefet1", FEFET1), ("fefet2", FEFET2)])
def test_spread_of_every_code(name, factor, bits, encoding):
    """std = σ_d · sqrt(Σ_i 4^(iB) f(g_i)²) for each code, from Eq. 13 to 17, idle devices included."""
    point = operating_point(load_profile(name), 0.3)
    law = collapse(point, layout(point.profile, bits=bits, encoding=encoding), 2**bits - 1)
    top = 2**bits - 1
    wanted = [
        0.3 * sum((weight * factor[level]) ** 2 for weight, level in held(code, bits, encoding)) ** 0.5
        for code in range(-top, top + 1)
    ]
    assert law.std == pytest.approx(wanted, rel=1e-12)
    assert (law.mean == 0).all()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("bits", [8, 7])
@pytest.mark.parametrize("name", ["rram", "fefet1", "fefet2", "rram_milo2021"])
def test_both_ways_of_drawing_have_one_law(name, bits, encoding):
    """Mean, spread and distribution agree, code by code, with B not dividing H too; false alarm 1e-6 each."""
    point = operating_point(load_profile(name))
    top = 2**bits - 1
    codes = np.array([-top, -37, 0, 1, 90])
    code = np.repeat(codes[:, None], 20_000, axis=1)
    fast, slow = (
        make_law(point, code, bits=bits, encoding=encoding, every_device=every_device)
        for every_device in (False, True)
    )
    assert fast.collapsed is not None
    assert slow.collapsed is None
    for one, other in zip(fast.draw(0, 0).weights, slow.draw(0, 0).weights, strict=True):
        assert_same_law(one.astype(float), other.astype(float))


def test_one_law_with_shift_and_decay():
    """Means enter with the sign of the polarity: a shift of every device moves a pair by the difference."""
    noise = (
        {"kind": "normal", "unit": "us", "sigma": constant(1.0), "mean": {**RAMP}},
        {"kind": "log_decay", "unit": "us", "mean_per_ln_s": -0.2, "std_const": 0.5, "std_per_ln_s": 0.1},
    )
    point = operating_point(make_profile(*noise), time_s=3600.0)
    codes = np.array([-255, -37, 0, 90])
    code = np.repeat(codes[:, None], 20_000, axis=1)
    for encoding in ENCODINGS:
        one, other = (
            make_law(point, code, bits=8, encoding=encoding, every_device=every).draw(0, 0).weights
            for every in (False, True)
        )
        for fast, slow in zip(one, other, strict=True):
            assert_same_law(fast.astype(float), slow.astype(float))


RAMP = {"kind": "polynomial", "coefficients": [0.5, 3.0], "of": "rel"}


def test_a_mean_shift_follows_the_sign_of_the_weight():
    """With the sign kept digitally a positive shift of a device makes a negative weight more negative."""
    noise = {"kind": "normal", "unit": "level", "sigma": constant(0.0), "mean": constant(0.25)}
    point = operating_point(make_profile(noise, cell_bits=2))
    code = np.array([-200, 0, 200])
    wanted = 0.25 * (1 + 4 + 16 + 64)
    for every_device in (False, True):

        def shift(encoding, every_device=every_device):
            law = make_law(point, code, bits=8, encoding=encoding, every_device=every_device)
            return law.draw(0, 0).weights - code

        assert shift("sign_magnitude") == pytest.approx([-wanted, wanted, wanted], rel=1e-5)
        assert shift("differential") == pytest.approx([0, 0, 0], abs=1e-4)
        assert shift("offset") == pytest.approx([wanted + 64 / 3] * 3, rel=1e-5)


TABLE = [  # peers.md §7: weight bits, device bits, columns A and B
    (4, 1, 0.615, 0.576),
    (4, 2, 0.825, 0.258),
    (6, 2, 0.787, 0.258),
    (8, 1, 0.580, 0.577),
    (8, 2, 0.778, 0.258),
    (8, 4, 0.943, 0.063),
]


def weight_sigma(bits, cell_bits, unit):
    profile = override_profile(load_profile("rram"), cell_bits=cell_bits)
    point = with_sigma(operating_point(profile, 0.0, unit), 1.0)
    moments = code_moments(point, layout(profile, bits=bits))
    assert moments.how == "exact"
    assert np.ptp(moments.std) < 1e-12 * moments.std[0]
    return moments.std[0] / (2**bits - 1)


@pytest.mark.parametrize(("bits", "cell_bits", "column_a", "column_b"), TABLE)
def test_weight_sigma_of_the_published_conventions(bits, cell_bits, column_a, column_b):
    """σ = 1 as a fraction of max|W|, in level units and in full scale, for six (H, B).

    T-14 read literally: sqrt(Σ 4^(iB)) / (2^H − 1) in level units. Column B divides by 2^H instead. In full
    scale one is 2^B − 1 levels, which gives column A where B divides H.
    """
    significance = sum(4 ** (i * cell_bits) for i in range(bits // cell_bits)) ** 0.5
    level = weight_sigma(bits, cell_bits, "level")
    assert level == pytest.approx(significance / (2**bits - 1), rel=1e-12)
    assert level * (2**bits - 1) / 2**bits == pytest.approx(column_b, abs=6e-4)
    assert weight_sigma(bits, cell_bits, "full_scale") == pytest.approx(column_a, abs=6e-4)


@pytest.mark.parametrize("cell_bits", [1, 2, 4])
def test_weight_max_does_not_depend_on_slicing(cell_bits):
    """σ in units of max|W| is the weight's σ, whatever the cells."""
    assert weight_sigma(8, cell_bits, "weight_max") == pytest.approx(1.0, rel=1e-12)


NORMAL = {"kind": "normal", "unit": "us", "sigma": constant(1.0)}
NOT_NORMAL = {
    "lognormal": {
        "kind": "lognormal",
        "unit": "log",
        "sigma": constant(0.1),
        "on": "resistance",
        "preserve": "median",
    },
    "stuck_at": {"kind": "stuck_at", "p_low": 0.01, "p_high": 0.0},
    "drift": {
        "kind": "drift",
        "nu_mean": constant(0.05),
        "nu_std": constant(0.0),
        "t0_s": 20.0,
        "nu_law": "normal",
    },
    "clip": {"kind": "clip", "min": 10.0},
}


@pytest.mark.parametrize("kind", NOT_NORMAL)
def test_no_collapse_where_it_would_not_be_exact(kind):
    """Log-normal, stuck-at, drift and a clip after noise need the devices: no law per code is given."""
    point = operating_point(make_profile(NORMAL, NOT_NORMAL[kind]), time_s=100.0)
    assert collapse(point, layout(point.profile, bits=8), 255) is None
    assert make_law(point, [1], bits=8).collapsed is None


def test_a_table_of_levels_collapses_and_one_of_samples_does_not():
    """Mean and spread per level are a normal term; raw samples and read noise need the devices."""
    rows = [{"level": i, "mean": 10.3 + 6 * i, "std": 0.5 + i / 10} for i in range(16)]
    table = operating_point(make_profile({"kind": "table", "unit": "us", "levels": rows}))
    array = layout(table.profile, bits=8)
    law = collapse(table, array, 255)
    assert law is not None
    low, high = 0x37 & 15, 0x37 >> 4
    assert law.mean[255 + 0x37] == pytest.approx(17 * 0.3 / array.step)
    assert law.mean[255 - 0x37] == pytest.approx(-17 * 0.3 / array.step)
    spread = np.hypot(0.5 + low / 10, 16 * (0.5 + high / 10)) / array.step
    assert law.std[255 + 0x37] == pytest.approx(spread)
    samples = [[10.0 + 6 * i, 11.0 + 6 * i] for i in range(16)]
    raw = operating_point(make_profile({"kind": "table", "unit": "us", "samples": samples}))
    assert collapse(raw, layout(raw.profile, bits=8), 255) is None
    read = operating_point(make_profile(NORMAL, {"kind": "read", "unit": "us", "sigma": constant(1.0)}))
    assert make_law(read, [1], bits=8).collapsed is None


def test_a_silent_term_does_not_prevent_the_collapse():
    """Drift at t = 0, p = 0, σ = 0, and a clip that no noise precedes change nothing and cost nothing."""
    noise = (
        NOT_NORMAL["clip"],
        {**NOT_NORMAL["stuck_at"], "p_low": 0.0},
        {**NOT_NORMAL["lognormal"], "sigma": constant(0.0)},
        NORMAL,
        NOT_NORMAL["drift"],
    )
    point = operating_point(make_profile(*noise), time_s=0.0)
    law = make_law(point, np.full(20_000, 17), bits=8)
    assert law.collapsed is not None
    weights = law.draw(0, 0).weights.astype(float)
    spread = np.sqrt(1 + 16.0**2) / 6.0
    assert stats.kstest(weights, stats.norm(17, spread).cdf).pvalue > 1e-6

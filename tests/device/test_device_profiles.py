"""The bundled profiles say what their sources say."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nvaudit.device import (
    DeviceProfile,
    Drift,
    LogDecay,
    Lognormal,
    Normal,
    Read,
    dump_profile,
    evaluate,
    load_profile,
    log_decay_at,
    one_over_f_factor,
    parse_profile,
    profile_digest,
    profile_names,
    profile_schema,
)
from nvaudit.device.law import Law
from nvaudit.device.load import schema_text
from nvaudit.device.terms import Clip
from nvaudit.errors import ProfileError

DEVICES = Path(__file__).parents[2] / "devices"
REL = np.array([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])
NAMES = [
    *("cmo_hfox", "fefet1", "fefet2", "hermes_1device", "hermes_2device", "pcm", "rram", "rram_65nm"),
    *("rram_milo2021", "rram_wan2022_1d", "rram_wan2022_1s", "rram_wan2022_2d"),
    *("sonos_day0", "sonos_day1", "sonos_day2", "sonos_day3", "sonos_day4", "sonos_day5"),
]


def law_on(profile: DeviceProfile, law: Law, rel: np.ndarray = REL) -> np.ndarray:
    """Values of a law at conductances given as fractions of g_max."""
    return evaluate(
        law, level=np.zeros(rel.shape, dtype=int), g=rel * profile.scale.g_max, g_max=profile.scale.g_max
    )


def sigma_of_g_max(name: str, rel: np.ndarray = REL) -> np.ndarray:
    """Programming spread in per cent of g_max."""
    profile = load_profile(name)
    term = next(term for term in profile.noise if isinstance(term, Normal))
    scale = profile.scale
    return 100 * law_on(profile, term.sigma, rel) * scale.factor(term.unit) / scale.g_max


def term_of(name: str, kind: type) -> object:
    return next(term for term in load_profile(name).noise if isinstance(term, kind))


def test_the_bundled_names_are_these() -> None:
    """Each bundled profile is listed, and nothing else."""
    assert list(profile_names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_profile_loads_under_its_own_name(name: str) -> None:
    """The name in the file is the name of the file; the source and the range are stated."""
    profile = load_profile(name)
    assert profile.name == name
    assert all((profile.source.citation, profile.source.where, profile.source.fit, profile.valid_range))


@pytest.mark.parametrize("name", NAMES)
def test_each_profile_survives_a_round_trip(name: str) -> None:
    """Writing and reading a profile gives an equal profile with the same digest."""
    profile = load_profile(name)
    again = parse_profile(dump_profile(profile), "again.json")
    assert again == profile
    assert profile_digest(again) == profile_digest(profile)


def test_the_committed_schema_is_current() -> None:
    """`devices/schema.json` is what `python -m nvaudit.device` writes today."""
    assert (DEVICES / "schema.json").read_text(encoding="utf-8") == schema_text()


def test_the_schema_closes_every_object() -> None:
    """No object of the schema lets an unknown key pass."""
    schema = profile_schema()
    assert all(part["additionalProperties"] is False for part in [schema, *schema["$defs"].values()])


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_names_each_profile(name: str) -> None:
    """The README says how the numbers of each profile were obtained."""
    text = (DEVICES / "README.md").read_text(encoding="utf-8")
    assert f"`{name}`" in text


@pytest.mark.parametrize(
    ("name", "values"), [("rram", [1, 1, 1, 1]), ("fefet1", [1, 4, 4, 1]), ("fefet2", [1, 2, 2, 1])]
)
def test_the_level_devices_of_the_trice_paper(name: str, values: list[float]) -> None:
    """T-13, T-16, T-17: the spread of each level in units of sigma_d, up to 0.4 level spacings."""
    profile = load_profile(name)
    (term,) = profile.noise
    assert isinstance(term, Normal)
    assert (profile.cell_bits, profile.encoding, profile.scale.unit) == (2, "sign_magnitude", "level")
    assert profile.sigma is not None
    assert (profile.sigma.unit, profile.sigma.min, profile.sigma.max, term.unit) == (
        "level",
        0.0,
        0.4,
        "sigma",
    )
    levels = np.arange(4)
    found = evaluate(term.sigma, level=levels, g=profile.scale.conductance(levels), g_max=3.0)
    np.testing.assert_array_equal(found, values)


def test_rram_65nm_has_the_printed_ends_and_mean() -> None:
    """S Table 2: 0.6 in the HRS, 0.1 in the LRS, 0.3 on average, log-normal on the resistance."""
    profile = load_profile("rram_65nm")
    term = profile.noise[0]
    assert isinstance(term, Lognormal)
    assert (term.on, term.preserve, term.unit) == ("resistance", "median", "sigma")
    levels = np.arange(16)
    multiplier = evaluate(
        term.sigma, level=levels, g=profile.scale.conductance(levels), g_max=profile.scale.g_max
    )
    assert multiplier.mean() == pytest.approx(1.0, abs=1e-15)
    assert 0.3 * multiplier[0] == pytest.approx(0.6, rel=1e-15)
    assert 0.3 * multiplier[15] == pytest.approx(0.1, rel=1e-15)
    assert (np.diff(multiplier) < 0).all()
    formula = 1 / 3 + 5 / 3 * (1 - levels / 15) ** 1.5459340106132395
    np.testing.assert_allclose(multiplier, formula, rtol=1e-13)


def test_rram_65nm_window_and_aging() -> None:
    """S Table 1: 5.7 kΩ and 109 kΩ; ageing 0.1 (HRS) to 0.02 (LRS), off unless asked for."""
    profile = load_profile("rram_65nm")
    assert 1e3 / profile.scale.g_max == pytest.approx(5.7, rel=1e-15)
    assert 1e3 / profile.scale.g_min == pytest.approx(109, rel=1e-15)
    aging = profile.noise[1]
    assert isinstance(aging, Lognormal)
    assert (aging.name, aging.enabled, aging.unit) == ("aging", False, "log")
    values = evaluate(aging.sigma, level=np.array([0, 15]), g=np.zeros(2), g_max=1.0)
    np.testing.assert_array_equal(values, [0.1, 0.02])


@pytest.mark.parametrize(
    ("name", "percent"),
    [
        ("pcm", [1.05, 1.79, 2.73, 3.81, 4.31, 4.22]),
        ("hermes_2device", [0.80, 2.69, 4.29, 4.79, 4.41, 5.28]),
        ("hermes_1device", [1.52, 3.57, 5.94, 8.36, 9.42, 9.73]),
    ],
)
def test_the_programming_spread_of_phase_change_memory(name: str, percent: list[float]) -> None:
    """Sigma/g_max at g = 0, .1, .25, .5, .75, 1 as printed with the published fits, to the last digit."""
    np.testing.assert_allclose(sigma_of_g_max(name), percent, atol=0.0051)


@pytest.mark.parametrize(("day", "peak"), [("1s", 5.7), ("1d", 9.8), ("2d", 9.8)])
def test_the_peak_spread_of_wan_2022(day: str, peak: float) -> None:
    """Of g = 0, .1, .25, .5, .75, 1 the largest sigma/g_max is 5.7, 9.8 and 9.8 % after 1 s, 1 and 2 days."""
    assert sigma_of_g_max(f"rram_wan2022_{day}").max() == pytest.approx(peak, abs=0.06)


def test_wan_2022_coefficients_are_the_published_ones() -> None:
    """At 40 µS the polynomial is the published one in µS."""
    g = np.linspace(0, 1, 7)
    published = np.polynomial.polynomial.polyval(g, [0.701, 22.086, -50.773, 47.095, -16.458])
    np.testing.assert_allclose(sigma_of_g_max("rram_wan2022_1d", g) * 0.4, published, rtol=1e-12)


@pytest.mark.parametrize("g_max", [10.0, 25.0, 40.0, 80.0])
def test_wan_2022_rescales_with_its_window(g_max: float) -> None:
    """Sigma/g_max is the same whatever window the profile is given."""
    data = json.loads(dump_profile(load_profile("rram_wan2022_1s")))
    data["window"]["max"] = g_max
    profile = parse_profile(json.dumps(data), "rescaled.json")
    term = profile.noise[0]
    assert isinstance(term, Normal)
    found = 100 * law_on(profile, term.sigma) * profile.scale.factor(term.unit) / profile.scale.g_max
    np.testing.assert_allclose(found, sigma_of_g_max("rram_wan2022_1s"), rtol=1e-13)


def test_pcm_drift_follows_the_published_fit() -> None:
    """Nandakumar 2019: nu mean and spread, clipped, with g floored at 1e-7; the mean factors at nu = 0.05."""
    profile = load_profile("pcm")
    drift = term_of("pcm", Drift)
    assert isinstance(drift, Drift)
    assert (drift.t0_s, drift.nu_law) == (20.0, "folded_normal")
    log_g = np.log(np.maximum(REL, 1e-7))
    np.testing.assert_allclose(law_on(profile, drift.nu_mean), np.clip(-0.0155 * log_g + 0.0244, 0.049, 0.1))
    np.testing.assert_allclose(law_on(profile, drift.nu_std), np.clip(-0.0125 * log_g - 0.0059, 0.008, 0.045))
    times = np.array([3600.0, 86400.0, 30 * 86400.0, 365 * 86400.0])
    np.testing.assert_allclose(((times + 20) / 20) ** -0.05, [0.77, 0.66, 0.56, 0.49], atol=0.0051)


def test_pcm_read_noise_follows_the_published_fit() -> None:
    """Q = min(0.0088 / max(g^0.65, 1e-3), 0.2), of the current conductance, growing from t0 = 20 s."""
    profile, read = load_profile("pcm"), term_of("pcm", Read)
    assert isinstance(read, Read)
    rel = np.array([0.0, 1e-4, 0.01, 0.5, 1.0])
    published = np.minimum(0.0088 / np.maximum(rel**0.65, 1e-3), 0.2)
    np.testing.assert_allclose(law_on(profile, read.sigma, rel), published, rtol=1e-12)
    assert read.unit == "relative"
    assert read.one_over_f is not None
    assert (read.one_over_f.t0_s, read.one_over_f.t_read_s) == (20.0, 250e-9)


def branch(
    split: float, low: tuple[float, float, float, float], high: list[float], g: np.ndarray
) -> np.ndarray:
    """The published form of the HERMES fits: clip(a ln g + b, lo, hi) below the split, else a polynomial."""
    slope, intercept, least, most = low
    below = np.clip(slope * np.log(np.maximum(g, 1e-7)) + intercept, least, most)
    return np.where(g < split, below, np.polyval(high, g))


@pytest.mark.parametrize(
    ("name", "t0", "std", "q"),
    [
        (
            "hermes_1device",
            200.0,
            (0.3039, (-0.0120, -0.0023, 0.0124, 0.04), [-0.0165, 0.0116, 0.0104]),
            (0.1591, (-0.0078, 0.0038, 0.0179, 0.04), [0.0664, -0.1352, 0.0768, 0.0088]),
        ),
        (
            "hermes_2device",
            300.0,
            (0.3055, (-0.0117, -0.0057, 0.0091, 0.04), [-0.0118, 0.0093, 0.0073]),
            (0.16, (-0.0117, -0.0069, 0.015, 0.04), [0.0069, -0.0280, 0.0211, 0.0123]),
        ),
    ],
)
def test_hermes_drift_and_read_follow_the_published_fit(name: str, t0: float, std: tuple, q: tuple) -> None:
    """Both branches of nu mean, nu spread and read noise, on a grid that straddles each split."""
    profile, drift, read = load_profile(name), term_of(name, Drift), term_of(name, Read)
    assert isinstance(drift, Drift)
    assert isinstance(read, Read)
    g = np.array([0.0, 1e-3, 0.05, 0.0944, 0.0946, 0.15, 0.17, 0.3, 0.31, 0.7, 1.0])
    mean = (0.0945, (-0.0387, -0.0182, 0.072, 0.13), [-0.0436, -0.0126, 0.0736])
    np.testing.assert_allclose(law_on(profile, drift.nu_mean, g), branch(*mean, g), rtol=1e-12)
    np.testing.assert_allclose(law_on(profile, drift.nu_std, g), branch(*std, g), rtol=1e-12)
    np.testing.assert_allclose(law_on(profile, read.sigma, g), branch(*q, g), rtol=1e-12)
    assert read.one_over_f is not None
    assert (drift.t0_s, read.one_over_f.t0_s, read.one_over_f.t_read_s) == (t0, t0, 512e-9)


def test_milo_2021_is_a_falling_line() -> None:
    """Sigma = max(-0.009107 G + 4.782321, 0) between 50 and 225 µS."""
    profile, term = load_profile("rram_milo2021"), term_of("rram_milo2021", Normal)
    assert isinstance(term, Normal)
    assert (profile.scale.g_min, profile.scale.g_max) == (50.0, 225.0)
    found = law_on(profile, term.sigma, np.array([50, 225, 1000]) / 225)
    np.testing.assert_allclose(found, [4.326971, 2.733246, 0.0], rtol=1e-12)


def test_cmo_hfox_uses_the_two_per_cent_acceptance() -> None:
    """Programming .0112185391 + .01129027418 G, not the narrower 0.2 % range; offset, 9 to 88.2 µS."""
    profile, term = load_profile("cmo_hfox"), term_of("cmo_hfox", Normal)
    assert isinstance(term, Normal)
    assert (profile.encoding, profile.scale.g_min, profile.scale.g_max) == ("offset", 9.0, 88.2)
    found = law_on(profile, term.sigma, np.array([9.0, 88.2]) / 88.2)
    np.testing.assert_allclose(found, 0.0112185391 + 0.01129027418 * np.array([9.0, 88.2]), rtol=1e-12)


def test_cmo_hfox_decay_and_read() -> None:
    """Mean -0.089 ln t, spread .04201137 ln t + .41183342; read .0277316483 log10(G) with 1/f growth."""
    profile, decay, read = load_profile("cmo_hfox"), term_of("cmo_hfox", LogDecay), term_of("cmo_hfox", Read)
    assert isinstance(decay, LogDecay)
    assert isinstance(read, Read)
    mean, std = log_decay_at(decay, 86400.0)
    assert mean == pytest.approx(-0.089 * math.log(86400), rel=1e-4)
    assert std == pytest.approx(0.04201137 * math.log(86400) + 0.41183342, rel=1e-12)
    found = law_on(profile, read.sigma, np.array([10.0, 88.2]) / 88.2)
    np.testing.assert_allclose(found, 0.0277316483 * np.log10([10.0, 88.2]), rtol=1e-12)
    assert one_over_f_factor(read.one_over_f, 1.0) == pytest.approx(math.sqrt(math.log((1 + 1e-6) / 2e-6)))
    assert one_over_f_factor(read.one_over_f, 0.0) == 0.0


def test_cmo_hfox_clips_before_it_reads_and_only_what_time_did() -> None:
    """The terms act in this order; the clip is to the window, as in the source not at time 0."""
    assert [term.kind for term in load_profile("cmo_hfox").noise] == ["normal", "log_decay", "clip", "read"]
    clip = term_of("cmo_hfox", Clip)
    assert isinstance(clip, Clip)
    assert (clip.min, clip.max, clip.timed) == (9.0, 88.2, True)


def test_a_timed_clip_needs_the_time_key() -> None:
    """Else it could never act."""
    data = load_profile("rram").model_dump(mode="json")
    data["noise"] = [*data["noise"], {"kind": "clip", "min": 0.0, "timed": True}]
    with pytest.raises(ProfileError, match=r"noise\.1\.timed: 'clip' needs the key 'time' in the profile"):
        parse_profile(json.dumps(data), "p.json")


@pytest.mark.parametrize(
    ("day", "a", "b"),
    [
        (0, 19.88665, 176.3115),
        (1, 25.59102, 186.85544),
        (2, 28.72753, 193.56834),
        (3, 31.04318, 198.90332),
        (4, 33.76214, 204.77023),
        (5, 34.57909, 207.34309),
    ],
)
def test_sonos_spread_saturates(day: int, a: float, b: float) -> None:
    """Sigma = A (1 - exp(-I/B)) in nA for each day, no spread at no current."""
    profile, term = load_profile(f"sonos_day{day}"), term_of(f"sonos_day{day}", Normal)
    assert isinstance(term, Normal)
    assert (term.unit, profile.scale.g_max) == ("na", 1600.0)
    np.testing.assert_allclose(
        law_on(profile, term.sigma), a * (1 - np.exp(-1600 * REL / b)), rtol=1e-12, atol=1e-12
    )


def test_sonos_spread_at_full_current() -> None:
    """1.24 % of the largest current on day 0, 2.16 % on day 5."""
    assert sigma_of_g_max("sonos_day0")[-1] == pytest.approx(1.24, abs=0.0051)
    assert sigma_of_g_max("sonos_day5")[-1] == pytest.approx(2.16, abs=0.0051)


def test_sonos_mean_shift_of_each_day() -> None:
    """No shift on day 0; the polynomials of days 1 to 5 at chosen currents, by sums of powers."""
    day0 = term_of("sonos_day0", Normal)
    assert isinstance(day0, Normal)
    assert day0.mean is None
    first = (1.72684e-01, 5.72552e-02, -6.85715e-04, 3.50271e-06, -9.37682e-09, 1.40575e-11, -1.19803e-14)
    first += (5.41293e-18, -8.85448e-22, -1.66869e-25, 5.95180e-29)
    for day, p0, p10 in [
        (1, first[0], first[10]),
        (2, 2.50712e-01, 1.85329e-28),
        (3, -1.753e-02, -3.3041e-29),
        (4, 4.03338e-02, 1.18747e-29),
        (5, 3.19927e-01, 7.14608e-29),
    ]:
        profile, term = load_profile(f"sonos_day{day}"), term_of(f"sonos_day{day}", Normal)
        assert isinstance(term, Normal)
        assert term.mean is not None
        assert term.mean.kind == "polynomial"
        assert (len(term.mean.coefficients), term.mean.coefficients[0], term.mean.coefficients[10]) == (
            11,
            p0,
            p10,
        )
        # A shift of more than a twentieth of full scale would betray a slip in a coefficient.
        assert np.abs(law_on(profile, term.mean, np.linspace(0, 1, 101))).max() < 80.0
        if day == 1:
            current = np.array([0.0, 400.0, 1600.0])
            expected = [sum(c * i**k for k, c in enumerate(first)) for i in current]
            np.testing.assert_allclose(law_on(profile, term.mean, current / 1600), expected, rtol=1e-9)


def test_sonos_read_noise() -> None:
    """12.58037 (1 - exp(-I/215.36557)) nA at each read, the same on all days."""
    for day in range(6):
        profile, read = load_profile(f"sonos_day{day}"), term_of(f"sonos_day{day}", Read)
        assert isinstance(read, Read)
        assert read.enabled
        assert law_on(profile, read.sigma)[-1] == pytest.approx(12.58037 * (1 - math.exp(-1600 / 215.36557)))


@pytest.mark.parametrize("name", NAMES)
def test_every_published_fit_has_a_multiplier_that_starts_at_one(name: str) -> None:
    """Profiles without a sigma of their own have a multiplier, 1 by default, 0 to 4."""
    knob = load_profile(name).sigma
    assert knob is not None
    if knob.unit == "multiplier":
        assert (knob.default, knob.min, knob.max) == (1.0, 0.0, 4.0)
    else:
        assert name in ("rram", "fefet1", "fefet2", "rram_65nm")


def test_the_scale_of_a_window() -> None:
    """One level is (max - min)/(2^B - 1); in level units it is 1; an analog cell holds the code."""
    window = load_profile("rram_65nm").scale
    assert window.step == pytest.approx((1e3 / 5.7 - 1e3 / 109) / 15, rel=1e-14)
    assert window.conductance(np.array([15]))[0] == pytest.approx(window.g_max, rel=1e-15)
    assert (window.factor("us"), window.factor("full_scale")) == (1.0, window.full_scale)
    levels = load_profile("rram").scale
    assert (levels.step, levels.full_scale, levels.levels) == (1.0, 3.0, 4)
    assert load_profile("pcm").scale.levels == 256
    with pytest.raises(ValueError, match="'na' is not a conductance in a window in 'us'"):
        window.factor("na")

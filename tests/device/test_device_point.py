"""The operating point: sigma, time and terms, refused outside the range where the profile holds."""

import math
import re

import pytest

from nvaudit.device import load_profile, operating_point, override_profile
from nvaudit.device.profile import DeviceProfile
from nvaudit.errors import ProfileError

RRAM = load_profile("rram")
RANGE = "sigma_d from 0 to 0.4 level spacings, what write-verify achieves, section IV-A of the paper"


def refused(message: str, *args: object, **options: object) -> None:
    with pytest.raises(ProfileError, match=f"^{re.escape(message)}$"):
        operating_point(*args, **options)  # type: ignore[arg-type]


def test_the_defaults_of_the_profile() -> None:
    """Without options the point is the profile's own: its sigma, its unit, time 0, its terms."""
    point = operating_point(RRAM)
    assert (point.sigma, point.sigma_unit, point.time_s) == (0.1, "level", 0.0)
    assert point.terms == RRAM.noise


@pytest.mark.parametrize("sigma", [0.0, 1e-9, 0.1, 0.4])
def test_sigma_inside_its_range(sigma: float) -> None:
    """The ends of the range, and 0, are inside."""
    assert operating_point(RRAM, sigma).sigma == sigma


@pytest.mark.parametrize(
    ("sigma", "shown"), [(0.9, "0.9"), (0.401, "0.401"), (-0.1, "-0.1"), (math.inf, "inf")]
)
def test_sigma_outside_its_range_is_refused(sigma: float, shown: str) -> None:
    """The message has the value, the range, the profile, and the reason of the range."""
    refused(
        f"sigma: {shown} is outside the valid range 0 … 0.4 of profile 'rram' ({RANGE}); "
        "choose one inside it, in unit 'level'",
        RRAM,
        sigma,
    )


def test_sigma_nan_is_refused() -> None:
    """NaN is not inside any range."""
    with pytest.raises(ProfileError, match="sigma: nan is outside"):
        operating_point(RRAM, math.nan)


@pytest.mark.parametrize("kind", ["shared", "read"])
def test_weight_max_is_refused_where_another_term_takes_sigma(kind: str) -> None:
    """A term that acts on devices cannot be as large as a fraction of the weights."""
    data = RRAM.model_dump()
    term = {"kind": kind, "sigma": {"kind": "constant", "value": 1.0}, "unit": "sigma"}
    data["noise"] = [*data["noise"], term | ({"scope": "chip"} if kind == "shared" else {})]
    refused(
        f"sigma-unit: 'weight_max' does not fit the {kind!r} term {kind!r} of profile 'rram'; "
        "use one of level, full_scale",
        DeviceProfile(**data),
        0.1,
        "weight_max",
    )


def test_zero_sigma_is_allowed_where_the_range_starts_above_it() -> None:
    """No noise is always a valid question."""
    data = RRAM.model_dump()
    data["sigma"] = {"default": 0.1, "unit": "level", "min": 0.05, "max": 0.4}
    profile = DeviceProfile(**data)
    assert operating_point(profile, 0.0).sigma == 0.0
    with pytest.raises(ProfileError, match=r"sigma: 0\.01 is outside the valid range 0\.05 … 0\.4"):
        operating_point(profile, 0.01)


def test_full_scale_is_checked_after_conversion() -> None:
    """0.4 levels of a four-level cell are 0.4/3 of full scale: the end is inside, a little more is not."""
    assert operating_point(RRAM, 0.4 / 3, "full_scale").sigma_unit == "full_scale"
    with pytest.raises(
        ProfileError, match=r"0\.2 is outside the valid range 0 … 0\.133333 .* in unit 'full_scale'"
    ):
        operating_point(RRAM, 0.2, "full_scale")


def test_weight_space_sigma_is_not_a_device_range() -> None:
    """A sigma of the largest weight is accepted up to 1."""
    assert operating_point(RRAM, 0.9, "weight_max").sigma == 0.9
    with pytest.raises(ProfileError, match=r"sigma: 1\.5 is outside the valid range 0 … 1 "):
        operating_point(RRAM, 1.5, "weight_max")


def test_units_that_do_not_fit_are_refused() -> None:
    """A log sigma makes no sense for an additive device, nor level for a multiplier."""
    refused(
        "sigma-unit: 'log' does not fit profile 'rram'; use one of level, full_scale, weight_max",
        RRAM,
        0.1,
        "log",
    )
    refused(
        "sigma-unit: 'level' does not fit profile 'pcm'; use one of multiplier, by which the deviations that "
        "the profile holds are multiplied (1: as they are); for a published sigma use a profile of one "
        "spread: "
        "--device rram --sigma S --sigma-unit level",
        load_profile("pcm"),
        0.1,
        "level",
    )
    refused(
        "sigma-unit: 'full_scale' without a sigma: the default of profile 'rram' is in 'level'; "
        "give the sigma too",
        RRAM,
        None,
        "full_scale",
    )


def test_a_profile_without_a_knob() -> None:
    """Its sigma is 1 (a multiplier that does nothing); setting it is refused."""
    data = load_profile("pcm").model_dump()
    data["sigma"] = None
    profile = DeviceProfile(**data)
    point = operating_point(profile)
    assert (point.sigma, point.sigma_unit) == (1.0, "multiplier")
    refused("sigma: 2: profile 'pcm' has no sigma; leave it out", profile, 2.0)


def test_time_inside_and_outside_its_range() -> None:
    """Time 0 is right after programming and always allowed; else the range of the profile holds."""
    cmo = load_profile("cmo_hfox")
    assert operating_point(cmo).time_s == 0.0
    assert operating_point(cmo, time_s=1.0).time_s == 1.0
    with pytest.raises(
        ProfileError, match=r"time: 0\.5 s is outside the valid range 1 … 3\.15576e\+08 s of profile"
    ):
        operating_point(cmo, time_s=0.5)
    with pytest.raises(ProfileError, match="time: nan s is outside"):
        operating_point(cmo, time_s=math.nan)
    assert operating_point(RRAM, time_s=0.0).time_s == 0.0
    refused("time: 5 s: profile 'rram' does not change with time; leave it out", RRAM, time_s=5.0)


def test_programming_noise_is_there_at_time_zero() -> None:
    """Time 0 keeps every term: the programming error must not vanish with the drift."""
    assert [term.kind for term in operating_point(load_profile("pcm"), time_s=0.0).terms] == [
        "normal",
        "clip",
        "drift",
        "read",
    ]


def test_terms_are_switched_by_name() -> None:
    """An optional term joins in its place; a term may be left out."""
    profile = load_profile("rram_65nm")
    assert [term.name for term in operating_point(profile).terms] == ["write"]
    assert [term.name for term in operating_point(profile, enable=["aging"]).terms] == ["write", "aging"]
    assert [term.name for term in operating_point(profile, enable=["aging"], disable=["write"]).terms] == [
        "aging"
    ]


def test_unknown_and_contradictory_terms_are_refused() -> None:
    """The message lists the names that exist."""
    profile = load_profile("rram_65nm")
    refused(
        "noise term: 'ageing' is not in profile 'rram_65nm'; its terms are write, aging",
        profile,
        enable=["ageing"],
    )
    refused(
        "noise term: 'aging' is both enabled and disabled; choose one",
        profile,
        enable=["aging"],
        disable=["aging"],
    )


def test_overriding_bits_checks_the_tables() -> None:
    """Other bits are accepted where the laws allow it, and refused where a level would have no value."""
    assert override_profile(RRAM, cell_bits=4, weight_bits=4).scale.levels == 16
    assert override_profile(RRAM, encoding="differential").encoding == "differential"
    assert override_profile(RRAM) == RRAM
    with pytest.raises(ProfileError) as error:
        override_profile(load_profile("fefet1"), cell_bits=3)
    assert str(error.value) == (
        "profile 'fefet1' with the options given: noise.0.sigma.values: "
        "4 entries for 8 levels (3 bits); give one each"
    )

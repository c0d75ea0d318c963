"""Sigma in level spacings, with cells of other numbers of bits: the device stays the same."""

import json

import numpy as np
import pytest

from nvaudit import audit, roofline
from nvaudit.device import load_profile, operating_point, override_profile, parse_profile
from nvaudit.errors import ProfileError
from nvaudit.mapping.conductance import layout
from nvaudit.perturb.moments import level_moments
from nvaudit.session import settle_device
from nvaudit.spec import make_spec


def _share(profile, *sigma, bits=8, **how):
    """Spread of a device, at every level, over the full scale."""
    point = operating_point(profile, *sigma, **how)
    array = layout(profile, bits=bits)
    return level_moments(point, array).std / array.top_level


@pytest.mark.parametrize("cell_bits", [1, 2, 3, 4])
def test_the_spread_of_the_conductance_does_not_depend_on_the_bits_per_cell(cell_bits):
    """0.1 spacings of 4 levels are 1/30 of the window, however many levels are cut into it."""
    profile = override_profile(load_profile("rram"), cell_bits=cell_bits)
    assert _share(profile) == pytest.approx(0.1 / 3, rel=1e-12)
    assert _share(profile, 0.4) == pytest.approx(0.4 / 3, rel=1e-12)
    assert _share(profile, 0.1, "full_scale") == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize("cell_bits", [1, 2, 3])
def test_the_unit_level_by_name_is_that_of_the_cells_in_use(cell_bits):
    """What a paper of such cells says can be read literally."""
    profile = override_profile(load_profile("rram"), cell_bits=cell_bits)
    assert _share(profile, 0.1, "level") == pytest.approx(0.1 / (2**cell_bits - 1), rel=1e-12)


def test_the_profiles_own_cells_need_no_convention():
    """Both readings are the same there, and no report says anything."""
    profile = load_profile("rram")
    assert np.array_equal(_share(profile), _share(profile, 0.1, "level"))
    assert override_profile(profile, cell_bits=2) == profile
    assert operating_point(profile).level_of is operating_point(profile, 0.1, "level").level_of is None


def _with(*noise, window=None, cell_bits=2):
    data = load_profile("rram").model_dump(mode="json")
    sigma = {"kind": "constant", "value": 0.1}
    terms = [{"sigma": sigma, **term} if term["kind"] in ("normal", "read") else term for term in noise]
    data |= {"noise": terms, "sigma": None, "window": window, "cell_bits": cell_bits}
    return parse_profile(json.dumps(data), "p.json")


@pytest.mark.parametrize("window", [None, {"unit": "us", "min": 5.0, "max": 35.0}])
def test_terms_in_level_spacings_stay_those_of_the_profile_too(window):
    """A spread, and a table of measurements, without any knob."""
    table = {
        "kind": "table", "unit": "level",
        "levels": [{"level": i, "mean": i + 0.1 * i, "std": 0.1 + 0.1 * i} for i in range(4)],
    }  # fmt: skip
    for term, wanted in (({"kind": "normal", "unit": "level"}, [0.1, 0.1]), (table, [0.1, 0.4])):
        profile = override_profile(_with(term, window=window), cell_bits=1)
        assert _share(profile) == pytest.approx(np.array(wanted) / 3, rel=1e-6)


def test_limits_of_a_device_without_a_window_stay_at_the_same_levels():
    """A clip to 0 … 3 spacings of four levels is the window of two levels as well."""
    profile = override_profile(_with({"kind": "clip", "min": 0.0, "max": 3.0}), cell_bits=1)
    assert (profile.noise[0].min, profile.noise[0].max) == (0.0, 1.0)


def test_an_analog_profile_has_no_level_spacings_of_its_own():
    """There is nothing that the key could count."""
    data = load_profile("pcm").model_dump(mode="json") | {"level_bits": 2}
    with pytest.raises(ProfileError, match=r"p\.json: level_bits: an analog cell .* has no levels"):
        parse_profile(json.dumps(data), "p.json")


def test_the_range_of_sigma_is_that_of_the_profile():
    """0.4 is within it for any number of levels; as a share of the window it is a third of that."""
    profile = override_profile(load_profile("rram"), cell_bits=4)
    assert operating_point(profile, 0.4).sigma == 0.4
    assert operating_point(profile, 0.4 / 3, "full_scale").sigma == pytest.approx(0.4 / 3)
    with pytest.raises(ProfileError, match="outside the valid range"):
        operating_point(profile, 0.2, "full_scale")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "sigma 0.1 level spacings, "),
        ({"cell_bits": 1}, "sigma 0.1 level spacings of 2-bit cells, "),
        (
            {"cell_bits": 1, "sigmas": (0.1,), "sigma_unit": "level"},
            "sigma 0.1 level spacings of the 1-bit cells in use",
        ),
        ({"cell_bits": 1, "sigmas": (0.03,), "sigma_unit": "full_scale"}, "sigma 0.03 of the window, "),
    ],
)
def test_the_headline_names_whose_spacings_they_are(example, options, words):
    """Where cells hold another number of bits than the profile's own."""
    report = audit(example, "rram", trials=2, limit=20, workers=0, roughness=False, **options)
    assert words in report.headline
    assert report.operating_point.level_of == (words.partition("spacings ")[2].rstrip(", ") or None)


def test_an_audit_and_a_roofline_speak_of_the_same_device(example):
    """The same bits per cell: the same chips, the same values, the same sigma."""
    levels = roofline(example, "rram", cell_bits=(1,), trials=4, limit=60, workers=0).levels
    report = audit(example, "rram", cell_bits=1, trials=4, limit=60, workers=0, roughness=False)
    assert levels[0].device.mean == report.trials.mean
    assert levels[0].device.kpp == report.kpp[0]
    assert levels[0].operating_point == report.operating_point


def test_a_narrow_top_slice_is_an_option_of_the_audit(example):
    """It reaches the profile, and the note says what it does."""
    spec = make_spec(model=example, device="rram", bits=7, top_slice="lowest")
    assert settle_device(spec)[0].top_slice == "lowest"
    how = {"bits": 7, "trials": 2, "limit": 20, "workers": 0, "roughness": False}
    notes = {
        name: [note for note in audit(example, "rram", top_slice=name, **how).notes if "top slice" in note]
        for name in ("window", "lowest")
    }
    assert notes["window"][0].endswith("holds 1 bit, its levels spread over the window")
    assert notes["lowest"][0].endswith("holds 1 bit, and uses only the lowest levels of its cells")

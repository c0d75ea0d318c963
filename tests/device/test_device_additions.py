"""Noise added to a profile from the command line: which terms, where, and what is refused."""

import pytest

from nvaudit.device import add_terms, load_profile, operating_point, override_profile
from nvaudit.device.law import ConstantLaw
from nvaudit.errors import OptionError, ProfileError

RRAM = load_profile("rram")
PCM = load_profile("pcm")


def test_nothing_added_is_the_profile_itself() -> None:
    """Without additions nothing changes."""
    assert add_terms(RRAM) is RRAM


def test_terms_stand_where_they_act() -> None:
    """The common component first, stuck devices after all that moves a conductance, reads last."""
    full = add_terms(PCM, stuck_at="0.01,.02", read_noise="1e-2", correlated="0.03level:tensor")
    names = [term.name for term in full.noise]
    assert names == ["added_shared", "programming", "clip", "drift", "added_stuck_at", "read", "added_read"]
    assert [t.name for t in PCM.noise] == ["programming", "clip", "drift", "read"]
    shared, stuck, read = full.noise[0], full.noise[4], full.noise[6]
    assert (shared.kind, shared.scope, shared.tile, shared.unit) == ("shared", "tensor", None, "level")
    assert (stuck.p_low, stuck.p_high) == (0.01, 0.02)
    assert (read.unit, read.sigma) == ("full_scale", ConstantLaw(kind="constant", value=0.01))


@pytest.mark.parametrize(
    ("text", "scope", "tile", "unit"),
    [
        ("0.1", "chip", None, "full_scale"),
        ("0.1:chip", "chip", None, "full_scale"),
        ("0.1relative:64x32", "tile", (64, 32), "relative"),
    ],
)
def test_scopes_of_correlated_variation(text: str, scope: str, tile: tuple[int, int], unit: str) -> None:
    """A chip unless a tensor or a size is given."""
    term = add_terms(RRAM, correlated=text).noise[0]
    assert (term.scope, term.tile, term.unit, term.sigma.value) == (scope, tile, unit, 0.1)


def test_a_table_stays_in_front() -> None:
    """A table replaces the target, so a common component comes after it."""
    data = RRAM.model_dump()
    table = {"kind": "table", "unit": "level", "samples": [[0.0], [1.0], [2.0], [3.0]]}
    profile = type(RRAM).model_validate({**data, "noise": [table]})
    assert [term.kind for term in add_terms(profile, correlated="0.1").noise] == ["table", "shared"]


def test_added_terms_can_be_switched_off_and_survive_other_bits() -> None:
    """They are terms of the profile like any other."""
    full = add_terms(override_profile(RRAM, cell_bits=1), stuck_at="0.1,0.1", read_noise="0.1level")
    point = operating_point(full, disable=["added_read"])
    assert [term.name for term in point.terms] == ["programming", "added_stuck_at"]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("stuck_at", "0.1"),
        ("stuck_at", "0.1;0.2"),
        ("stuck_at", "-0.1,0"),
        ("read_noise", "nan"),
        ("read_noise", "0.1volt"),
        ("correlated", "0.1:tile"),
        ("correlated", "0.1:0x5"),
        ("correlated", "0.1:5x5\n"),
    ],
)
def test_texts_that_are_no_additions(option: str, text: str) -> None:
    """The message names the option, what was found, and what to write."""
    with pytest.raises(OptionError, match=f"^--{option.replace('_', '-')}: got .*; use "):
        add_terms(RRAM, **{option: text})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stuck_at": "0.7,0.7"}, "p_low + p_high is 1.4; make it 1 or less"),
        ({"stuck_at": "2,0"}, "noise.1.p_low: 2.0 is too large; make it 1 or less"),
        ({"read_noise": "0.1us"}, "'us' is not the unit of the window (null); make them equal"),
    ],
)
def test_additions_that_do_not_fit(options: dict[str, str], message: str) -> None:
    """The rules of a profile hold for what is added."""
    with pytest.raises(ProfileError) as caught:
        add_terms(RRAM, **options)
    assert str(caught.value).startswith("profile 'rram' with the terms added: ")
    assert str(caught.value).endswith(message)


def test_write_verify_needs_a_normal_term() -> None:
    """Log-normal errors have no tolerance, and saying nothing would be wrong."""
    with pytest.raises(ProfileError, match=r"^write-verify: no term of kind 'normal' is switched on in "):
        operating_point(load_profile("rram_65nm"), write_verify=0.1)
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ProfileError, match=r"is not a tolerance; use a number of 0 or more$"):
            operating_point(RRAM, write_verify=wrong)


def test_a_tolerance_of_the_profile_keeps_its_unit() -> None:
    """Another unit of sigma would silently change what the profile says."""
    term = RRAM.noise[0].model_copy(update={"tolerance": 0.2})
    profile = RRAM.model_copy(update={"noise": (term,)})
    assert operating_point(profile, 0.1, "level").terms == (term,)
    with pytest.raises(ProfileError, match=r"the tolerance of the noise term 'programming'.*is in 'level'"):
        operating_point(profile, 0.1, "full_scale")


def test_compensation_needs_something_that_drifts() -> None:
    """Where nothing changes with time, or that is switched off, there is nothing to compensate."""
    assert operating_point(PCM, drift_compensation=True).drift_compensation
    for profile, disable in ((RRAM, ()), (PCM, ("drift",))):
        with pytest.raises(ProfileError, match=r"^drift-compensation: no term of profile "):
            operating_point(profile, disable=disable, drift_compensation=True)

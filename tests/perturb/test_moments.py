"""What `devices show` says of a device: closed forms and estimates agree, and match the papers."""

import numpy as np
import pytest
from noise_cases import constant, make_profile

from nvaudit.device import load_profile, operating_point, profile_names
from nvaudit.mapping.conductance import layout
from nvaudit.perturb import moments as module
from nvaudit.perturb.moments import code_moments, device_facts, level_draws, level_moments


@pytest.mark.parametrize("encoding", ["sign_magnitude", "differential", "offset"])
@pytest.mark.parametrize("name", ["rram", "fefet1", "rram_milo2021"])
def test_exact_and_sampled_moments_agree(name, encoding, monkeypatch):
    """Means and spreads are within 6 standard errors of the closed form; false alarm 1e-6 over all codes."""
    point = operating_point(load_profile(name))
    array = layout(point.profile, bits=6, encoding=encoding)
    exact = code_moments(point, array)
    monkeypatch.setattr(module, "collapse", lambda *_: None)
    monkeypatch.setattr("nvaudit.perturb.chip.collapse", lambda *_: None)
    sampled = code_moments(point, array)
    assert (exact.how, sampled.how) == ("exact", "sampled")
    draws = (1 << 20) // len(exact.code)
    assert (np.abs(sampled.mean - exact.mean) < 6 * exact.std / np.sqrt(draws)).all()
    assert (np.abs(sampled.std / exact.std - 1) < 6 / np.sqrt(2 * draws)).all()


def test_rms_over_a_tensor():
    """The root mean square spread over a tensor's codes, without the shift, is that of its list of codes."""
    noise = {"kind": "normal", "unit": "level", "sigma": constant(0.2), "mean": constant(0.1)}
    point = operating_point(make_profile(noise))
    found = code_moments(point, layout(point.profile, bits=8))
    code = np.random.default_rng(0).integers(-255, 256, (50, 3)).astype(np.int16)
    each = [found.std[c + 255] ** 2 for c in code.ravel()]
    assert found.rms(code) == pytest.approx(np.sqrt(np.mean(each)), rel=1e-12)
    assert found.rms(np.zeros((0, 3), np.int16)) == 0


def test_a_read_counts_in_the_spread():
    """One read of the device is included: variances add."""
    noise = (
        {"kind": "normal", "unit": "level", "sigma": constant(0.3)},
        {"kind": "read", "unit": "level", "sigma": constant(0.4)},
    )
    point = operating_point(make_profile(*noise))
    found = level_moments(point, layout(point.profile, bits=8))
    assert found.how == "sampled"
    assert found.std == pytest.approx(np.full(16, 0.5), rel=6 / np.sqrt(2 * 65536))


def test_weight_space_terms_act_on_no_device():
    """σ in units of max|W| leaves levels alone and shows in the weight."""
    point = operating_point(load_profile("rram"), 0.05, "weight_max")
    array = layout(point.profile, bits=8)
    assert (level_moments(point, array).std == 0).all()
    assert code_moments(point, array).std / 255 == pytest.approx(np.full(511, 0.05))


def test_draws_are_conductances_of_their_level():
    """Draws for plots lie around their target in the unit of the window."""
    point = operating_point(load_profile("rram_65nm"), 0.3)
    array = layout(point.profile, bits=8)
    draws = level_draws(point, array, np.array([0, 15]), 4000)
    assert set(draws) == {0, 15}
    for level, g in draws.items():
        wanted = array.g_min + level * array.step
        assert np.median(g) == pytest.approx(wanted, rel=0.06)
        assert (g > 0).all()


def test_rram_in_every_unit():
    """`rram` at σ_d = 0.1: a third of it in full scale, and 0.1·sqrt(1 + 16 + 256 + 4096)/255 of max|W|."""
    facts = device_facts(operating_point(load_profile("rram"), 0.1))
    assert (facts.unit, facts.bits, facts.slices, facts.how) == ("levels", 8, 4, "exact")
    assert [f.level for f in facts.levels] == [0, 1, 2, 3]
    assert [f.sigma_levels for f in facts.levels] == pytest.approx([0.1] * 4)
    assert [f.sigma_full_scale for f in facts.levels] == pytest.approx([0.1 / 3] * 4)
    assert facts.levels[0].sigma_relative is None
    assert [f.sigma_relative for f in facts.levels[1:]] == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert facts.weight.rms == pytest.approx(0.0259208, rel=1e-5)
    assert facts.weight.low == facts.weight.high == pytest.approx(facts.weight.rms)


@pytest.mark.parametrize(("name", "multiples"), [("fefet1", [1, 4, 4, 1]), ("fefet2", [1, 2, 2, 1])])
def test_fefet_levels(name, multiples):
    """The inner levels of the FeFETs are four times and twice as wide (TRICE paper, Eq. 16 and 17)."""
    facts = device_facts(operating_point(load_profile(name), 0.05))
    assert [f.sigma_levels / 0.05 for f in facts.levels] == pytest.approx(multiples)
    assert facts.weight.low < facts.weight.rms < facts.weight.high


@pytest.mark.parametrize("name", profile_names())
def test_every_bundled_device_has_facts(name):
    """Each profile's facts are finite, one list of draws per shown level, and can be written as JSON."""
    facts = device_facts(operating_point(load_profile(name)))
    assert np.isfinite([f.sigma_g for f in facts.levels]).all()
    assert set(facts.draws) == {f.level for f in facts.levels}
    assert 0 < facts.weight.low <= facts.weight.rms * (1 + 1e-12)
    assert facts.weight.rms <= facts.weight.high * (1 + 1e-12) < 1

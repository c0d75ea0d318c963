"""Write-verified weights: the same chip, bit for bit, but for the programming errors of verified weights."""

import numpy as np
import pytest
from noise_cases import constant, make_law, make_profile

from nvaudit.device import evaluate, operating_point
from nvaudit.device.law import (
    ConstantLaw,
    Log,
    PerLevel,
    Piecewise,
    Polynomial,
    Power,
    Saturating,
    scaled_law,
)
from nvaudit.mapping.quantize import dequantize
from nvaudit.perturb.cells import device_factors, draw_cells
from nvaudit.perturb.verify import Verified, Verifier, programming_terms, verified_law
from nvaudit.perturb.workload import save_array
from nvaudit.rng import stream

CODE = stream(0, "codes").integers(-15, 16, (30, 20)).astype(np.int16)
PLACE = stream(0, "order").permutation(CODE.size).astype(np.int32).reshape(CODE.shape)
KNOB = {"default": 1.0, "unit": "multiplier", "min": 0.0, "max": 4.0}

NORMAL = {"kind": "normal", "name": "write", "sigma": constant(4.0), "mean": constant(1.0), "unit": "us"}
LOGNORMAL = {
    "kind": "lognormal",
    "name": "write",
    "sigma": constant(0.3),
    "unit": "log",
    "on": "resistance",
    "preserve": "median",
}
LEVELS = {
    "kind": "table",
    "name": "write",
    "unit": "us",
    "levels": [{"level": i, "mean": 10.0 + 6.0 * i + 0.5, "std": 2.0 + 0.1 * i} for i in range(16)],
}
SAMPLES = {
    "kind": "table",
    "name": "write",
    "unit": "us",
    "samples": [[10.0 + 6.0 * i + d for d in (-3.0, 0.5, 4.0)] for i in range(16)],
}
STUCK = {"kind": "stuck_at", "p_low": 0.05, "p_high": 0.05}
READ = {"kind": "read", "sigma": constant(2.0), "unit": "us"}
DRIFT = {
    "kind": "drift",
    "nu_mean": constant(0.05),
    "nu_std": constant(0.01),
    "t0_s": 20.0,
    "nu_law": "normal",
}


def law_of(*noise, time_s=0.0, encoding="differential", **options):
    """A tensor of the test window's 16 levels with some noise."""
    point = operating_point(make_profile(*noise, encoding=encoding), time_s=time_s)
    return make_law(point, CODE, **options)


def verified(tmp_path, count, residual=0.0, terms=("write",)):
    """The first ``count`` weights."""
    return Verified((save_array(tmp_path, "order", PLACE),), count, residual, frozenset(terms))


def bits(draw):
    variance = b"" if draw.read_variance is None else draw.read_variance.tobytes()
    return draw.weights.tobytes(), variance


@pytest.mark.parametrize(
    "noise",
    [(NORMAL,), (LOGNORMAL,), (LEVELS,), (SAMPLES,), (NORMAL, STUCK, READ)],
    ids=["normal", "lognormal", "levels", "samples", "with stuck devices and reads"],
)
@pytest.mark.parametrize("residual", [0.0, 0.25])
def test_weights_that_are_not_verified_are_those_of_the_chip(tmp_path, noise, residual):
    """Outside the mask nothing changes, bit for bit; inside it everything that was in error does."""
    law = law_of(*noise)
    plain = law.draw(0, 3)
    some = Verifier().draw(law, 0, verified(tmp_path, 200, residual), 0, 3)
    mask = PLACE < 200
    assert mask.sum() == 200
    assert some.weights[~mask].tobytes() == plain.weights[~mask].tobytes()
    off = np.abs(plain.weights - CODE)[mask] > 1e-6
    assert off.mean() > 0.2
    assert bits(Verifier().draw(law, 0, verified(tmp_path, 0, residual), 0, 3)) == bits(plain)
    assert bits(Verifier().draw(law, 0, None, 0, 3)) == bits(plain)


@pytest.mark.parametrize("noise", [NORMAL, LOGNORMAL, LEVELS, SAMPLES], ids=lambda n: next(iter(n.values())))
@pytest.mark.parametrize("every_device", [False, True])
def test_verified_without_residual_holds_the_code(tmp_path, noise, every_device):
    """With nothing left and nothing else in effect the weights are the quantised ones exactly."""
    law = law_of(noise, every_device=every_device, scale=0.013)
    found = Verifier().draw(law, 0, verified(tmp_path, CODE.size), 0, 1)
    assert found.weights.tobytes() == dequantize(CODE, law.tensor.scale).tobytes()


@pytest.mark.parametrize("noise", [NORMAL, LEVELS, SAMPLES], ids=["normal", "levels", "samples"])
@pytest.mark.parametrize("every_device", [False, True])
def test_residual_is_a_share_of_each_error(tmp_path, noise, every_device):
    """An additive error, its mean shift too, is as many times smaller as the residual says."""
    law = law_of(noise, every_device=every_device)
    plain = law.draw(0, 2).weights - CODE
    found = Verifier().draw(law, 0, verified(tmp_path, CODE.size, 0.25), 0, 2).weights - CODE
    assert np.abs(plain).max() > 0.5
    np.testing.assert_allclose(found, 0.25 * plain, atol=2e-5)


def test_residual_of_a_lognormal_error_is_in_its_logarithm():
    """The exponent is as many times smaller: the law at a smaller sigma."""
    point = operating_point(make_profile({**LOGNORMAL, "unit": "sigma"}, sigma={**KNOB, "unit": "log"}), 0.8)
    smaller = operating_point(point.profile, 0.2)
    found = verified_law(make_law(point, CODE), 0.25, {"write"}).draw(0, 4)
    wanted = make_law(smaller, CODE).draw(0, 4)
    np.testing.assert_allclose(found.weights, wanted.weights, rtol=1e-6)


def test_what_cannot_be_corrected_stays(tmp_path):
    """Stuck devices, drift and the variance of reads are those of the chip on verified weights too."""
    everything = verified(tmp_path, CODE.size)
    stuck = Verifier().draw(law_of(NORMAL, STUCK), 0, everything, 0, 5).weights
    alone = law_of(STUCK, every_device=True).draw(0, 5).weights
    assert np.abs(alone - CODE).max() > 1
    np.testing.assert_array_equal(stuck, alone)
    drifted = Verifier().draw(law_of(NORMAL, DRIFT, time_s=1e6), 0, everything, 0, 5).weights
    np.testing.assert_array_equal(drifted, law_of(DRIFT, time_s=1e6).draw(0, 5).weights)
    law = law_of(NORMAL, READ)
    np.testing.assert_array_equal(
        Verifier().draw(law, 0, everything, 0, 5).read_variance, law.draw(0, 5).read_variance
    )


def test_only_named_terms_are_reduced(tmp_path):
    """An error of programming that is not named is drawn in full."""
    law = law_of(NORMAL, {**LOGNORMAL, "name": "aging"})
    assert programming_terms(law.point) == ("write", "aging")
    found = Verifier().draw(law, 0, verified(tmp_path, CODE.size), 0, 6).weights
    np.testing.assert_array_equal(found, law_of({**LOGNORMAL, "name": "aging"}).draw(0, 6).weights)


def test_noise_in_weight_space_is_reduced(tmp_path):
    """A sigma in units of the largest weight is reduced as one of the devices is."""
    law = law_of({**NORMAL, "unit": "weight_max", "sigma": constant(0.1), "mean": None})
    plain = law.draw(0, 2).weights - CODE
    found = Verifier().draw(law, 0, verified(tmp_path, CODE.size, 0.5), 0, 2).weights - CODE
    np.testing.assert_allclose(found, 0.5 * plain, atol=2e-6)


@pytest.mark.parametrize("noise", [NORMAL, LOGNORMAL], ids=["collapsed", "devices"])
def test_devices_of_crossbars_add_up_to_the_weights(tmp_path, noise):
    """Device by device, as crossbars with converters need it, the chip is the same chip."""
    law, some = law_of(noise), verified(tmp_path, 200, 0.25)
    factors = np.asarray(device_factors(law.tensor.array))
    found = Verifier().cells(law, 0, some, 0, 3)
    weights = np.tensordot(factors, found.levels, 1)
    np.testing.assert_allclose(weights, Verifier().draw(law, 0, some, 0, 3).weights, atol=2e-4)
    mask = PLACE < 200
    assert found.levels[:, ~mask].tobytes() == draw_cells(law, 0, 3).levels[:, ~mask].tobytes()


def test_a_verifier_does_not_mix_up_plans(tmp_path):
    """The same object draws other residuals, counts and points as a new one does."""
    kept, laws = Verifier(), [law_of(NORMAL), law_of(LOGNORMAL)]
    for law in (*laws, laws[0]):
        for residual, count in ((0.0, 50), (0.5, 50), (0.5, 400), (0.0, CODE.size)):
            some = verified(tmp_path, count, residual)
            assert bits(kept.draw(law, 0, some, 0, 1)) == bits(Verifier().draw(law, 0, some, 0, 1))


LAWS = [
    ConstantLaw(kind="constant", value=2.0),
    PerLevel(kind="levels", values=(0.5, 1.0, 3.0, 2.0)),
    Polynomial(kind="polynomial", coefficients=(0.2, -1.0, 0.3), of="g", min=-4.0, max=3.0),
    Log(kind="log", slope=0.4, intercept=1.0, of="rel", min=0.1),
    Power(kind="power", scale=2.0, exponent=-0.5, of="rel", max=5.0),
    Saturating(kind="saturating", amplitude=3.0, decay=2.0, of="g"),
    Piecewise(
        kind="piecewise",
        split=4.0,
        of="g",
        max=1.5,
        below=ConstantLaw(kind="constant", value=1.0),
        above=Power(kind="power", scale=1.0, exponent=2.0, of="g"),
    ),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_scaled_law(law, factor):
    """Every kind of law is multiplied as a whole, its bounds included."""
    level = np.arange(4)
    at = {"level": level, "g": 2.5 * level + 0.5, "g_max": 8.0}
    np.testing.assert_allclose(
        evaluate(scaled_law(law, factor), **at), factor * evaluate(law, **at), atol=1e-12
    )

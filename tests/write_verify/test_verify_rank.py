"""Which weights come first: the law of the ranking, exactly, where everything is known."""

from dataclasses import replace

import numpy as np
import pytest

from nvaudit.device import DeviceProfile, load_profile, operating_point
from nvaudit.errors import OptionError
from nvaudit.mapping.conductance import layout
from nvaudit.perturb.chip import MappedTensor
from nvaudit.rng import stream
from nvaudit.write_verify.correction import magnitude, noise_removed, settle_correction
from nvaudit.write_verify.measure import count_of, search_target
from nvaudit.write_verify.ranking import random_scores, ranked_places


def constant(value):
    return {"kind": "constant", "value": value}


def make_profile(*noise, window):
    """A device of 16 levels."""
    source = {"citation": "none", "where": "nowhere", "fit": "none"}
    return DeviceProfile.model_validate(
        {"schema_version": 1, "name": "test", "technology": "none", "description": "A device for tests.",
         "source": source, "cell_bits": 4, "weight_bits": 8, "encoding": "differential", "window": window,
         "valid_range": "anywhere", "noise": noise}
    )  # fmt: skip


def tensor(code, profile, scale=0.01, key="w"):
    """A weight of given codes, the largest of which stands for max|W|."""
    code = np.asarray(code, np.int16)
    return MappedTensor(
        key, code, np.asarray(scale, np.float32), layout(profile, bits=8), int(np.abs(code).max())
    )


def at(device="rram", sigma=None, **options):
    return operating_point(load_profile(device), sigma, **options)


def test_noise_of_a_quadratic_problem_is_ranked_as_calculated():
    """Loss ½ Σ h_i w_i², a spread for each level: the order is that of ½ h_i σ_i², worked out by hand."""
    point = at("fefet1", 0.2)  # levels 0 and 3: 0.2; levels 1 and 2: 0.8
    code = np.array([[0, 255, 85], [170, 3, -1]])
    spread = {0: 0.2, 1: 0.8, 2: 0.8, 3: 0.2}

    def variance(value):
        digits = [(abs(value) >> (2 * i)) & 3 for i in range(4)]
        return 0.01**2 * sum((4**i * spread[d]) ** 2 for i, d in enumerate(digits))

    hessian = np.array([[5.0, 0.5, 3.0], [0.1, 7.0, 90.0]])
    wanted = 0.5 * hessian * np.vectorize(variance)(code)
    weight = tensor(code, point.profile)
    correction = settle_correction(point, 0.0, ())
    gain = 0.5 * hessian * noise_removed(weight, point, correction)
    np.testing.assert_allclose(gain, wanted, rtol=1e-6)
    (place,) = ranked_places(lambda _: [gain], [magnitude(weight)])
    order = np.argsort(place, axis=None)
    assert order.tolist() == np.argsort(-wanted, axis=None).tolist()
    assert order.tolist() != np.argsort(-hessian, axis=None).tolist()  # the noise has a say


@pytest.mark.parametrize("residual", [0.0, 0.5, 1.0])
def test_residual_noise_is_not_counted_as_removed(residual):
    """What is removed is (1 − r²) of the squared error."""
    point = at("rram", 0.3)
    weight = tensor([[7, -200]], point.profile)
    correction = settle_correction(point, 0.3 * residual, ())
    every = 0.01**2 * 0.3**2 * sum(16**i for i in range(4))
    np.testing.assert_allclose(
        noise_removed(weight, point, correction), every * (1 - residual**2), rtol=1e-6, atol=1e-12
    )


def test_noise_that_needs_draws_is_measured():
    """Without a closed form the squared error is that of many draws, near the one that is known by hand."""
    profile = make_profile(
        {"kind": "lognormal", "name": "write", "sigma": constant(0.2), "unit": "log", "on": "conductance",
         "preserve": "mean"},
        window={"unit": "us", "min": 0.0, "max": 15.0},
    )  # fmt: skip
    point = operating_point(profile)
    array = layout(profile, bits=4)
    weight = MappedTensor("w", np.array([[15, 3, 0]], np.int16), np.float32(0.5), array, 15)
    removed = noise_removed(weight, point, settle_correction(point, 0.0, ()))
    wanted = (0.5 * np.array([15.0, 3.0, 0.0])) ** 2 * (np.exp(0.2**2) - 1)
    np.testing.assert_allclose(removed[0], wanted, rtol=0.02)


def test_ties_go_to_the_larger_weight_and_then_to_the_first():
    """Equal scores are told apart by |W|; what is equal in both keeps the order of the tensors."""
    scores = [np.array([1.0, 2.0]), np.array([[1.0, 1.0, 2.0]])]
    sizes = [np.array([5.0, 1.0]), np.array([[9.0, 5.0, 3.0]])]
    first, second = ranked_places(lambda _: scores, sizes)
    assert first.tolist() == [3, 1]
    assert second.tolist() == [[2, 4, 0]]
    assert {first.dtype, second.dtype} == {np.dtype(np.int32)}


def test_scores_are_taken_anew_after_every_cut():
    """A cut fixes the places before it; the rest is ranked by new scores, which see what is verified."""
    sizes = [np.zeros(6), np.zeros(4)]
    asked = []

    def score_of(verified):
        asked.append([mask.copy() for mask in verified])
        turned = -1.0 if len(asked) == 2 else 1.0
        return [turned * np.arange(6.0), turned * np.arange(6.0, 10.0)]

    first, second = ranked_places(score_of, sizes, (0.2, 0.5))
    order = np.argsort(np.concatenate([first, second])).tolist()
    assert order == [9, 8, 0, 1, 2, 7, 6, 5, 4, 3]
    assert [int(sum(mask.sum() for mask in masks)) for masks in asked] == [0, 2, 5]
    assert asked[1][1].tolist() == [False, False, True, True]
    once = ranked_places(lambda _: [np.arange(6.0), np.arange(6.0, 10.0)], sizes)
    same = ranked_places(lambda _: [np.arange(6.0), np.arange(6.0, 10.0)], sizes, (0.01, 0.3, 0.3))
    assert all((a == b).all() for a, b in zip(once, same, strict=True))


def test_magnitude_is_that_of_the_weight_and_not_of_the_code():
    """Over tensors of different scales |W| decides."""
    profile = load_profile("rram")
    small, large = tensor([255, -3], profile, 0.001), tensor([2, -100], profile, 0.1)
    np.testing.assert_allclose(magnitude(small), [0.255, 0.003], rtol=1e-6)
    sizes = [magnitude(small), magnitude(large)]
    first, second = ranked_places(lambda _: sizes, sizes)
    assert (first.tolist(), second.tolist()) == ([1, 3], [2, 0])


def test_random_order_comes_from_the_seed():
    """The same seed gives the same order; another seed and another name give another."""
    profile = load_profile("rram")
    code = stream(0, "c").integers(-9, 9, 50)
    (a,), (b,), (c,) = (
        random_scores([tensor(code, profile, key=key)], seed) for key, seed in (("w", 1), ("w", 1), ("w", 2))
    )
    assert (a == b).all()
    assert (a != c).all()


@pytest.mark.parametrize(
    ("device", "sigma", "left", "terms", "message"),
    [
        ("rram", 0.1, 0.2, (), r"--verify-sigma 0.2: more than the 0.1 \(level\) .* use 0 to that"),
        ("rram", 0.1, 0.0, ("write",), r"'write': the noise term is not in effect here; .* are programming"),
        ("pcm", None, 0.0, ("drift",), r"'drift': the noise term cannot be corrected by writing again"),
        ("rram_65nm", 0.2, 0.0, ("aging",), r"'aging': the noise term is not in effect here; .* are write"),
    ],
)
def test_what_verifying_cannot_do_is_refused(device, sigma, left, terms, message):
    """A larger spread than without, and terms that no writing corrects."""
    with pytest.raises(OptionError, match=message):
        settle_correction(at(device, sigma), left, terms)


def test_a_device_without_errors_of_programming_has_nothing_to_verify():
    """Where only drift and reads act, a plan makes no sense."""
    point = at("pcm")
    left = tuple(term for term in point.terms if term.name != "programming")
    with pytest.raises(OptionError, match=r"'pcm' has no error of programming in effect .* only clip, drift"):
        settle_correction(replace(point, terms=left), 0.0, ())


def test_what_verifying_leaves():
    """All errors of programming are reduced by default, the others are listed as staying."""
    found = settle_correction(at("pcm"), 0.25, ())
    assert (found.terms, found.left, found.residual) == (("programming",), ("clip", "drift", "read"), 0.25)
    aged = settle_correction(at("rram_65nm", 0.3, enable=["aging"]), 0.0, ("write",))
    assert (aged.terms, aged.left) == (("write",), ("aging",))


@pytest.mark.parametrize(
    ("threshold", "enough"), [(0, 0), (1, 1), (37, 37), (470, 470), (5000, 5000), (10_001, None)]
)
def test_search_finds_the_smallest_number(threshold, enough):
    """Between the numbers tried the search narrows down to a tenth; none is tried twice."""
    asked = []

    def reaches(count):
        asked.append(count)
        return count >= threshold

    found, short = search_target([0, 1, 100, 1000, 10_000], reaches, 10_000)
    assert len(asked) == len(set(asked)) <= 11
    if enough is None:
        assert (found, short) == (None, 10_000)
    elif enough == 0:
        assert (found, short) == (0, None)
    else:
        assert short < threshold <= found
        assert found - short <= max(1, -(-found // 10))


def test_search_does_not_trust_a_lucky_share():
    """A number counts only if all larger ones that were tried reach the target too."""
    good = {0: False, 100: True, 1000: False, 10_000: True}
    found, short = search_target(list(good), lambda count: good.get(count, True), 10_000)
    assert 1000 <= short < found


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (1e-9, 1), (0.5, 50), (1.0, 100)])
def test_a_share_above_zero_is_at_least_one_weight(share, count):
    """Small shares do not vanish."""
    assert count_of(share, 100) == count

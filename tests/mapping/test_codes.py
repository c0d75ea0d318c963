"""Codes of devices: the least noisy representation, rounding, search and allocation."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvaudit.mapping.code_search import CodeSearch, WeightDistribution, allocate, best_zero, code_error
from nvaudit.mapping.codes import Code, least_noisy_code, rounding, slice_code
from nvaudit.options import Encoding

FEFET1 = np.array([1.0, 16.0, 16.0, 1.0]) * 0.01
RRAM = np.ones(4) * 0.01
ENCODINGS: tuple[Encoding, ...] = ("sign_magnitude", "sign_per_device", "differential", "offset")

significances = st.lists(st.integers(1, 6), min_size=1, max_size=3)
variances = st.lists(st.floats(0.0, 4.0), min_size=2, max_size=3).map(np.array)


def brute(f: list[int], variance: np.ndarray, encoding: Encoding) -> dict[int, float]:
    """Least variance of every value, by trying all levels of all devices."""
    levels = range(len(variance))
    if encoding == "differential":
        choices = [(a - b, variance[a] + variance[b]) for a in levels for b in levels]
    elif encoding == "sign_per_device":
        choices = [(s * a, variance[a]) for a in levels for s in (1, -1)]
    else:
        choices = [(a, variance[a]) for a in levels]
    best: dict[int, float] = {}
    for picked in itertools.product(choices, repeat=len(f)):
        value = sum(k * step for k, (step, _) in zip(f, picked, strict=True))
        noise = sum(k * k * own for k, (_, own) in zip(f, picked, strict=True))
        best[value] = min(best.get(value, np.inf), noise)
    return best


@given(significances, variances, st.sampled_from(ENCODINGS))
@settings(max_examples=150, deadline=None)
def test_every_value_has_its_least_noisy_representation(
    f: list[int], variance: np.ndarray, encoding: Encoding
) -> None:
    """The dynamic programme finds what trying all levels of all devices finds, for every value."""
    if encoding == "offset" and len(brute(f, variance, encoding)) < 3:
        return  # no value lies inside the range
    code = least_noisy_code(f, variance, encoding)
    expected = brute(sorted(f), variance, encoding)
    found = code.value_variance(variance)
    for value in range(-code.top, code.top + 1):
        stored = value + code.zero if encoding == "offset" else abs(value)
        noise = found[value + code.top]
        assert np.isfinite(noise) == (stored in expected)
        if stored in expected:
            assert noise == pytest.approx(expected[stored], abs=1e-9)


@given(significances, variances, st.sampled_from(ENCODINGS))
@settings(max_examples=60, deadline=None)
def test_levels_of_a_value_add_up_to_it(f: list[int], variance: np.ndarray, encoding: Encoding) -> None:
    """Where a value has a code, the levels times the significances give it, and levels exist."""
    if encoding == "offset" and len(brute(f, variance, encoding)) < 3:
        return  # no value lies inside the range
    code = least_noisy_code(f, variance, encoding)
    assert np.abs(code.table).max() <= code.levels - 1
    assert encoding == "sign_per_device" or code.table.min() >= 0
    held = np.asarray(code.factors) @ code.table
    expected = brute(sorted(f), variance, encoding)
    for value in range(code.stored):
        assert held[value] == value if value in expected else held[value] in expected


@given(
    significances, variances, st.sampled_from(ENCODINGS), st.lists(st.floats(-1, 1), min_size=1, max_size=8)
)
@settings(max_examples=100, deadline=None)
def test_rounding_takes_the_value_of_least_expected_error(
    f: list[int], variance: np.ndarray, encoding: Encoding, weights: list[float]
) -> None:
    """``argmin_v (v − w/s)² + c(v)`` by the hull is the minimum over all values."""
    if encoding == "offset" and len(brute(f, variance, encoding)) < 3:
        return  # no value lies inside the range
    if encoding == "offset" and len(brute(f, variance, encoding)) < 3:
        return  # no value lies inside the range
    code = least_noisy_code(f, variance, encoding)
    noise = code.value_variance(variance)
    value = np.arange(-code.top, code.top + 1)
    scaled = np.array(weights) * code.top
    for aware in (True, False):
        cost = np.square(value - scaled[:, None]) + (
            noise if aware else np.where(np.isfinite(noise), 0, noise)
        )
        taken = rounding(code, variance if aware else None)(scaled).astype(int)
        got = cost[np.arange(len(scaled)), taken + code.top]
        np.testing.assert_allclose(got, cost.min(axis=1), rtol=1e-9, atol=1e-9)


def test_slices_are_a_code() -> None:
    """The papers' slices: significances 4^i, one digit of the code in each device (T-12)."""
    code = slice_code(8, 2, "sign_magnitude")
    assert (code.text, code.top, code.devices) == ("64,16,4,1", 255, 4)
    assert code.table[:, 0b11100100].tolist() == [0, 1, 2, 3]
    assert code.reachable.all()


def test_codes_of_equal_contents_are_equal() -> None:
    """A code is a value: equal after pickling, unequal where one level differs."""
    code = least_noisy_code([8, 4, 2, 1], FEFET1, "sign_magnitude")
    again = pickle.loads(pickle.dumps(code))
    assert again == code
    assert hash(again) == hash(code)
    table = code.table.copy()
    table[0, 3] += 1
    assert Code(code.significances, code.levels, code.encoding, table) != code


@pytest.mark.parametrize("wrong", [[], [0, 1], [-2], [6000]])
def test_impossible_significances_are_refused(wrong: list[int]) -> None:
    """None, below 1, or beyond what codes can count to."""
    with pytest.raises(ValueError, match=r"significances|more than"):
        least_noisy_code(wrong, FEFET1, "sign_magnitude")


def bell() -> WeightDistribution:
    """Weights as a trained layer has them: Laplace, cut at its largest."""
    at = np.linspace(-1, 1, 1025)
    share = np.exp(-np.abs(at) / 0.12)
    return WeightDistribution(at, share / share.sum())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_search_finds_no_worse_than_every_code_of_its_family(encoding: Encoding) -> None:
    """Powers of two on few devices: the least error of all of them, tried one by one."""
    count = 2 if encoding == "differential" else 3
    found = CodeSearch(FEFET1, encoding, bell()).best(count * (2 if encoding == "differential" else 1))
    every = itertools.combinations_with_replacement([1, 2, 4, 8, 16, 32, 64], count)
    least = min(best_zero(f, FEFET1, encoding, bell())[1].total for f in every)
    assert found.error.total == pytest.approx(least, rel=1e-6)


def test_whole_numbers_are_no_worse_than_powers_of_two_and_more_devices_no_worse_than_fewer() -> None:
    """A larger family, and a larger budget, can only help."""
    powers, whole = (
        CodeSearch(FEFET1, "sign_magnitude", bell()),
        CodeSearch(FEFET1, "sign_magnitude", bell(), "integers"),
    )
    errors = [powers.best(n).error.total for n in (1, 2, 3, 4, 5)]
    assert errors == sorted(errors, reverse=True)
    for n in (2, 4):
        assert whole.best(n).error.total <= powers.best(n).error.total + 1e-12


def test_offset_stores_zero_quietly() -> None:
    """Where inner levels are noisy, zero is put at a value whose digits avoid them."""
    middle = least_noisy_code([16, 4, 1], FEFET1, "offset")
    code, error = best_zero([16, 4, 1], FEFET1, "offset", bell())
    assert error.total < code_error(middle, FEFET1, bell(), rounded_by=FEFET1).total
    assert np.isin(code.table[:, code.zero], (0, 3)).all()


def test_devices_go_where_they_take_most_noise_away() -> None:
    """Greedy allocation is the optimum of all allocations for convex noise of equal layers."""
    power = {"a": [8.0, 4.0, 2.0, 1.0], "b": [2.0, 1.0, 0.5, 0.25], "c": [1.0, 0.5, 0.25, 0.125]}
    cost = {key: [10.0, 20.0, 30.0, 40.0] for key in power}
    for budget in (30, 60, 80, 120):
        got = allocate(power, cost, budget)
        every = [
            dict(zip(power, ks, strict=True))
            for ks in itertools.product(range(4), repeat=3)
            if sum(cost[x][k] for x, k in zip(power, ks, strict=True)) <= budget
        ]
        total = {tuple(one.items()): sum(power[x][k] for x, k in one.items()) for one in every}
        assert sum(power[x][k] for x, k in got.items()) == pytest.approx(min(total.values()))
    with pytest.raises(ValueError, match="budget"):
        allocate(power, cost, 29)


@pytest.mark.reference
@pytest.mark.parametrize(
    ("device", "variance", "default", "powers", "signed"),
    [("rram", RRAM, 0.0260, 0.0194, 0.0167), ("fefet1", FEFET1, 0.0498, 0.0239, 0.0176)],
)
def test_errors_of_a_trained_network(
    shared_data: Path, device: str, variance: np.ndarray, default: float, powers: float, signed: float
) -> None:
    """Four devices on the weights of a ResNet-20: slices, powers of two, and a sign per device."""
    from nvaudit.model import constants, load_model

    loaded = load_model(shared_data / "models" / "cifar_resnet20.onnx")
    values = [c.weight.load().values for c in constants(loaded) if c.weight is not None]
    weights = WeightDistribution.of((v, np.abs(v).max()) for v in values if v.ndim > 1)
    slices = slice_code(8, 2, "sign_magnitude")
    assert code_error(slices, variance, weights, rounded_by=None).total == pytest.approx(default, abs=1e-4)
    found = CodeSearch(variance, "sign_magnitude", weights).best(4)
    assert found.error.total == pytest.approx(powers, abs=1e-4)
    free = CodeSearch(variance, "sign_per_device", weights, "integers").best(4)
    assert free.error.total == pytest.approx(signed, abs=1e-4)


def test_sharing_out_is_never_worse_than_all_layers_alike() -> None:
    """A large layer whose next step does not fit leaves no budget lying where all alike would use it."""
    power = {"small": [4.0, 2.0, 1.0], "large": [40.0, 20.0, 10.0]}
    cost = {"small": [10.0, 20.0, 30.0], "large": [100.0, 200.0, 300.0]}
    assert allocate(power, cost, 220.0) == {"small": 1, "large": 1}
    power["small"] = [400.0, 10.0, 1.0]
    assert allocate(power, cost, 220.0) == {"small": 1, "large": 1}

"""The program for scales has the stated optimum, and clipping limits balance two errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvaudit.remapping.clip import balanced_limit, clipped, deviations_limit
from nvaudit.remapping.solve import SHARP, SOFT, ProgramTerm, noise_of, solve


def numbers(*shape, seed=0):
    return np.random.Generator(np.random.PCG64(seed)).normal(0, 1, shape)


def term(magnitude, source, result, power=1.0):
    magnitude = np.abs(magnitude)
    return ProgramTerm(magnitude, np.full(magnitude.shape, power), np.asarray(source), np.asarray(result))


def test_one_free_side_is_scaled_to_equal_ranges():
    """With only the result free, every channel fills the range, as far as a smooth maximum can tell."""
    sizes = np.array([[0.1], [1.0], [5.0]])
    one = term(sizes * np.array([[1.0, 0.5]]), np.zeros((1, 2), int), np.array([[1], [2], [3]]))
    u = solve([one], 4)
    peaks = one.magnitude.max(axis=1) / np.exp(u[1:])
    np.testing.assert_allclose(peaks, peaks.mean(), rtol=0.2)
    assert u[0] == 0


def test_a_free_source_is_scaled_to_equal_ranges_whatever_it_says():
    """With only the source free, equal ranges are best for any powers of its channels."""
    sizes = np.array([[0.1, 1.0, 5.0]])
    for power in (np.ones((1, 3)), np.array([[1.0, 0.3, 0.1]])):
        u = solve([ProgramTerm(sizes, power, np.array([[1, 2, 3]]), np.zeros((1, 1), np.int64))], 4)
        peaks = sizes * np.exp(u[1:])
        np.testing.assert_allclose(peaks, peaks.mean(), rtol=0.2)


@settings(max_examples=15)
@given(seed=st.integers(0, 100), width=st.integers(2, 6))
def test_no_worse_than_before_and_near_the_best_of_many(seed, width):
    """A chain of two weights: the noise falls, and no random choice of scales beats it by 5 %."""
    first = np.abs(numbers(width, 3, seed=seed)) * np.exp(numbers(width, 1, seed=seed + 1))
    second = np.abs(numbers(2, width, seed=seed + 2))
    middle = np.arange(1, width + 1)
    terms = [
        term(first, np.zeros((1, 3), int), middle[:, None]),
        term(second, middle[None, :], np.zeros((2, 1), int)),
    ]
    u = solve(terms, width + 1)
    total = sum(noise_of(t, u) for t in terms)
    assert total <= sum(noise_of(t, np.zeros(width + 1)) for t in terms) * 1.02
    rng = np.random.Generator(np.random.PCG64(seed))
    for _ in range(200):
        other = np.concatenate([[0.0], u[1:] + rng.normal(0, 0.3, width)])
        assert sum(noise_of(t, other) for t in terms) > 0.95 * total


@pytest.mark.parametrize("exponent", [SHARP, SOFT])
def test_silent_and_empty_weights_leave_scales_alone(exponent):
    """All-zero weights, and classes that nothing uses, keep a scale of 1."""
    silent = term(np.zeros((2, 2)), np.array([[1, 2]]), np.array([[3], [4]]))
    np.testing.assert_array_equal(solve([silent], 6, exponent=exponent), 0)


def test_limit_is_respected():
    """No scale leaves the allowed range."""
    one = term(np.array([[1e-9], [1.0]]), np.zeros((1, 1), int), np.array([[1], [2]]))
    assert np.abs(solve([one], 3, limit=2.0)).max() <= 2.0


def test_no_noise_means_no_clipping():
    """Where devices are perfect every weight stays as it is."""
    w = numbers(50)
    assert balanced_limit(w, np.ones(1), spread=0.0) == np.abs(w).max()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 500),
    spread=st.floats(1e-3, 0.5),
    caution=st.sampled_from([1.0, 4.0, 16.0]),
)
def test_balanced_limit_is_the_minimum(seed, spread, caution):
    """No other limit makes clipping error plus noise smaller."""
    w, p = numbers(60, seed=seed) ** 3, np.abs(numbers(60, seed=seed + 1))

    def cost(c):
        cut = np.maximum(np.abs(w) - c, 0)
        return caution * (p * cut**2).sum() + (spread * c) ** 2 * p.sum()

    limit = balanced_limit(w, p, spread, caution)
    assert 0 < limit <= np.abs(w).max()
    others = np.linspace(1e-3, 1, 400) * np.abs(w).max()
    assert cost(limit) <= min(map(cost, others)) * (1 + 1e-6)


def test_clipping_makes_a_new_array_of_the_same_type():
    """Half precision stays half precision, and what was passed in is not written to."""
    w = numbers(20).astype(np.float16)
    w.flags.writeable = False
    cut = clipped(w, 0.5)
    assert cut.dtype == np.float16
    assert np.abs(cut).max() <= 0.5
    np.testing.assert_array_equal(cut[np.abs(w) <= 0.5], w[np.abs(w) <= 0.5])


def test_deviations_beyond_the_range_cut_nothing():
    """A limit never exceeds the range, and constant or empty weights have no limit of their own."""
    w = numbers(20)
    assert deviations_limit(w, 100) == np.abs(w).max()
    assert deviations_limit(np.full(5, 2.0), 3) == 2.0
    assert deviations_limit(np.empty(0), 3) == 0.0

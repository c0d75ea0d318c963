"""Splitting: estimates without bias, intervals that cover, and refusals, against laws that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, norm

from nvaudit.perturb.splitting import Effort, Evaluate, Walk, evaluations_needed, split
from nvaudit.rng import MovedChip
from nvaudit.stats.splitting import SplitRun, mean_of_runs, moves_matter, rare_value, surprise

DIMENSION = 20

Law = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def linear(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return z.sum(axis=1) / DIMENSION**0.5


def quadratic(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.square(z).sum(axis=1)


def in_rounds(scores: Callable[[Sequence[MovedChip]], NDArray[np.float64]]) -> Evaluate:
    """Bring walks to their end with one call for the next chips of all."""

    def evaluate(walks: Sequence[Walk]) -> None:
        while going := [(walk, chip) for walk in walks if (chip := walk.chip) is not None]:
            for (walk, _), score in zip(going, scores([chip for _, chip in going]), strict=True):
                walk.see(float(score))

    return evaluate


def scores_of(law: Law, seed: int) -> Evaluate:
    """Evaluate a law of normals that move as those of chips do, with numbers of their own."""
    gen, seen = np.random.default_rng(seed), dict[MovedChip, NDArray[np.float64]]()

    def evaluate(chips: Sequence[MovedChip]) -> NDArray[np.float64]:
        z = gen.standard_normal((len(chips), DIMENSION))
        for place, chip in enumerate(chips):
            if chip.moves:
                keep = chip.moves[-1][0]
                before = seen[MovedChip(chip.start, chip.moves[:-1])]
                z[place] = keep * before + (1 - keep**2) ** 0.5 * z[place]
            seen[chip] = z[place]
        return law(z)

    return in_rounds(evaluate)


@pytest.mark.parametrize(
    ("law", "wanted"), [(linear, norm.isf(1e-6)), (quadratic, chi2.isf(1e-6, DIMENSION))]
)
def test_a_quantile_at_one_in_a_million_is_found(law: Law, wanted: float) -> None:
    """The interval of one estimate of 15,000 evaluations holds the true quantile, and is narrow."""
    effort = Effort(runs=10, states=120)
    found = split(scores_of(law, 3), 1e-6, effort, 3)
    value = rare_value(found.runs, 1e-6)
    assert value.low <= wanted <= value.high
    assert value.high - value.low < 0.2 * wanted
    assert found.evaluations == evaluations_needed(1e-6, effort)


def test_estimates_have_no_bias() -> None:
    """The mean of many runs at fixed levels is the probability, within four standard errors."""
    tails = []
    for seed in range(12):
        runs = split(scores_of(linear, seed), 1e-4, Effort(runs=10, states=40), seed).runs
        tails += [float(run.tail(np.array([norm.isf(1e-4)]))[0]) for run in runs]
    error = np.std(tails) / len(tails) ** 0.5
    assert abs(np.mean(tails) - 1e-4) < 4 * error
    assert error < 3e-5


@pytest.mark.slow
@pytest.mark.parametrize("law", [linear, quadratic])
def test_intervals_cover(law: Law) -> None:
    """Of 200 nominal 95 % intervals at one in a million at least 91 % hold the truth."""
    wanted = norm.isf(1e-6) if law is linear else chi2.isf(1e-6, DIMENSION)
    held = 0
    for seed in range(200):
        found = rare_value(split(scores_of(law, seed), 1e-6, Effort(states=100), seed).runs, 1e-6)
        held += found.low <= wanted <= found.high
    assert held >= 182


def test_a_tail_is_joined_of_its_pools() -> None:
    """Above a level the tail is that of the next pool times the share of the pools before."""
    run = SplitRun((2.0, 4.0), (np.array([0.0, 1, 2, 3]), np.array([2.0, 3, 4, 5]), np.array([4.0, 4, 5, 6])))
    tail = run.tail(np.array([-1.0, 1, 2, 3, 4, 5, 7]))
    np.testing.assert_allclose(tail, [1, 0.75, 0.5, 0.375, 0.25, 0.125, 0])


def test_a_run_that_died_out_counts_as_nothing() -> None:
    """A run without states above a level says 0 beyond it, and stays in the mean."""
    run = SplitRun((2.0, 4.0), (np.array([0.0, 0.5, 1, 1]),))
    np.testing.assert_allclose(run.tail(np.array([1.0, 3.0])), [0.5, 0])


def test_runs_that_differ_with_their_moves_are_told() -> None:
    """Doubled moves that shift the probability by a factor of three are seen; the same law is not."""
    gen = np.random.default_rng(5)
    level = norm.isf(0.2)

    def run(shift: float) -> SplitRun:
        first = np.sort(gen.standard_normal(400))
        return SplitRun((level,), (first, np.sort(level + shift + 0.3 * gen.standard_normal(400) ** 2)))

    same = [run(0.0) for _ in range(10)]
    assert not moves_matter(same[::2], same[1::2], level + 0.5)
    assert moves_matter(same[::2], [run(0.3) for _ in range(5)], level + 0.5)


def test_chips_that_the_runs_hold_impossible_are_a_surprise() -> None:
    """Two sampled chips of 400 where the runs say 1 in 100,000 are a surprise; one of 100,000 is none."""
    runs = split(scores_of(linear, 8), 1e-5, Effort(runs=6, states=100), 8).runs
    score = rare_value(runs, 1e-5).value
    assert surprise(runs, score, 2, 400) < 0.001
    assert surprise(runs, score, 1, 100_000) > 0.1


def test_a_score_that_comes_to_its_end_stops_the_climb() -> None:
    """Where all states are equally bad there is no next level, and the estimate is that score."""
    found = split(in_rounds(lambda chips: np.ones(len(chips))), 1e-6, Effort(runs=4, states=20), 0)
    assert len(found.ladder.levels) <= 1
    assert rare_value(found.runs, 1e-6).value == 1.0


def test_the_mean_of_runs_has_students_interval() -> None:
    """Of four runs: 3.182 standard errors to each side."""
    value, low, high = mean_of_runs(np.array([1.0, 2, 3, 4]))
    assert value == 2.5
    assert (high - value) / (np.std([1, 2, 3, 4], ddof=1) / 2) == pytest.approx(3.1824, abs=1e-4)
    assert value - low == pytest.approx(high - value)

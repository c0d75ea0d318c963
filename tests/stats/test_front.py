"""The Pareto front: throwing points out gives that of every chip of every point, at a part of the chips."""

import numpy as np
import pytest

from nvaudit.stats.front import (
    EliminationRule,
    elimination_rule,
    front_difference,
    front_range,
    known_below,
    pareto_front,
    shared_error,
    worst_chips_first,
)
from nvaudit.stats.kpp import kpp, kpp_index
from nvaudit.stats.paired import kpp_difference


def dominated(costs, values, i: int) -> bool:
    return any(
        costs[j] <= costs[i] and values[j] >= values[i] and (costs[j] < costs[i] or values[j] > values[i])
        for j in range(len(costs))
    )


@pytest.mark.parametrize("seed", range(50))
def test_a_front_is_what_nothing_dominates(seed):
    """By the definition, also with equal costs and equal values; of equals the first stands for all."""
    rng = np.random.default_rng(seed)
    costs, values = rng.integers(0, 8, 40), rng.integers(0, 8, 40) / 8
    front = pareto_front(costs, values)
    wanted = {(costs[i], values[i]) for i in range(40) if not dominated(costs, values, i)}
    assert {(costs[i], values[i]) for i in front} == wanted
    assert len(front) == len(wanted)
    assert list(costs[list(front)]) == sorted(costs[list(front)])
    assert all(
        i == min(j for j in range(40) if (costs[j], values[j]) == (costs[i], values[i])) for i in front
    )


def chips_of(rng, points: int, trials: int):
    """A synthetic space: chips of correlated quality, spreads and means that depend on the point."""
    luck = rng.normal(size=trials)
    mean = 0.9 - 0.3 * rng.random(points) ** 2
    spread = 0.03 * rng.random(points)
    own = rng.normal(size=(points, trials))
    values = mean[:, None] + spread[:, None] * (0.8 * luck + 0.6 * own)
    return np.round(np.clip(values, 0, 1), 3), rng.permutation(points) // 2  # some costs are equal


def searched(values, costs, percentile: float, rule: EliminationRule):
    """The front by elimination in ascending cost, and the chips that were looked at."""
    trials, index = values.shape[1], kpp_index(percentile, values.shape[1])
    best, seen_chips, measured, kept = -np.inf, 0, [], []
    for point in np.lexsort((np.arange(len(costs)), costs)):
        order, misses, seen = worst_chips_first([values[i] for i in measured[-1:]], trials), 0, 0
        while best > -np.inf and (size := rule.block(misses, seen)):
            chosen = order[seen : seen + size]
            misses += int(np.count_nonzero(values[point, chosen] <= best))
            seen += size
        seen_chips += seen
        if misses >= rule.need:
            continue
        seen_chips += trials
        value = float(np.sort(values[point])[index])
        if value > best:
            best = value
            measured.append(point)
            kept.append((int(costs[point]), value))
    return [(c, v) for i, (c, v) in enumerate(kept) if i + 1 == len(kept) or kept[i + 1][0] > c], seen_chips


def test_the_front_is_the_exhaustive_one():
    """On 300 synthetic spaces it is identical."""
    percentile, trials, points = 2.0, 200, 40
    rule, wrong, seen = elimination_rule(percentile, trials), 0, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        values, costs = chips_of(rng, points, trials)
        every = np.sort(values, axis=1)[:, kpp_index(percentile, trials)]
        wanted = [(int(costs[i]), float(every[i])) for i in pareto_front(costs, every)]
        found, looked = searched(values, costs, percentile, rule)
        wrong += found != wanted
        seen += looked
    assert wrong == 0
    assert seen < 300 * points * trials / 4


@pytest.mark.parametrize(
    ("percentile", "trials"), [(1, 1000), (1, 100), (5, 100), (1, 20), (50, 11), (99, 5)]
)
def test_rules_at_their_limits(percentile, trials):
    """No rule asks for more chips than there are, and clear points end after as few as it asks for."""
    rule = elimination_rule(percentile, trials)
    assert kpp_index(percentile, trials) + 1 == rule.need <= rule.trials == trials
    assert rule.block(0, 0) == rule.need
    assert rule.block(rule.need, rule.need) == 0
    assert rule.block(0, rule.trials) == 0


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_every_chip_is_looked_at_before_a_point_is_given_up(every):
    """However few miss; blocks grow with what was seen, and end with the last chip that is needed."""
    rule, seen, blocks = elimination_rule(1, 400), 0, []
    while size := rule.block(seen // every, seen):
        assert size <= max(rule.need, seen // 4)
        seen += size
        blocks.append(size)
    assert seen == rule.need if every == 1 else seen // every >= rule.need or seen == rule.trials
    assert len(blocks) < 25


def test_errors_of_any_number_of_questions_add_up():
    """Their sum stays within the whole, and the first ones take most of it."""
    assert sum(shared_error(0.05, i) for i in range(1, 5000)) < 0.05
    assert shared_error(0.05, 1) == 0.025


@pytest.mark.parametrize("seed", range(40))
def test_differences_of_cut_chips_are_no_narrower(seed):
    """What races leave open makes an interval of a KPP difference wider, and leaves its value."""
    rng = np.random.default_rng(seed)
    trials, percentile, confidence = 500, 2.0, 0.95
    luck = rng.normal(size=trials)
    first = np.round(0.9 + 0.02 * luck + 0.01 * rng.normal(size=trials), 3)
    second = np.round(first + rng.normal(0.002, 0.01) + 0.004 * rng.normal(size=trials), 3)
    whole = kpp_difference(first, second, percentile, confidence, True)
    last = front_range(percentile, trials, confidence).last

    def cut(values):
        edge = np.sort(values)[last] + rng.choice([0.001, 0.01])
        over = values > edge
        return known_below(np.where(over, edge, values), np.where(over, np.inf, values))

    found = front_difference(cut(first), cut(second), percentile, confidence)
    assert found.value == pytest.approx(whole.value)
    assert found.low <= whole.low + 1e-12
    assert found.high >= whole.high - 1e-12


def test_ranks_of_the_front_hold_its_interval():
    """The KPP and the ends of its interval come out of cut chips as they do of all."""
    rng = np.random.default_rng(5)
    for trials in (20, 100, 437, 1000):
        rank = front_range(1, trials, 0.95)
        values = rng.permutation(trials) / trials
        edge = np.sort(values)[rank.last]
        cut = known_below(np.where(values > edge, edge, values), np.where(values > edge, 1.0, values))
        whole, part = kpp(values, 1, 0.95, True), kpp(cut, 1, 0.95, True)
        assert (part.value, part.low, part.high) == (whole.value, whole.low, whole.high)


def test_the_likely_worst_come_first():
    """By the last point given; where it is silent by those before, then by their numbers."""
    assert worst_chips_first([], 3).tolist() == [0, 1, 2]
    last, before = np.array([0.5, 0.5, 0.1, 0.5]), np.array([0.9, 0.2, 0.9, 0.2])
    assert worst_chips_first([before, last], 4).tolist() == [2, 1, 3, 0]

"""The search for the front: what is thrown out, what is measured, and what it takes, on made-up points."""

from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest

from nvaudit.errors import OptionError
from nvaudit.exploration.search import (
    ImpossiblePointError,
    Judged,
    KnownChips,
    SearchedPoint,
    Wanted,
    gate_of,
    recommend,
    search_front,
    tied_with,
)
from nvaudit.stats.front import elimination_rule, pareto_front
from nvaudit.stats.kpp import kpp_index

TRIALS, PERCENTILE = 200, 2.0
INDEX = kpp_index(PERCENTILE, TRIALS)


@dataclass
class KnownPoint:
    """A point whose chips are known; it remembers which were asked for."""

    values: np.ndarray
    judged: list = field(default_factory=list)
    measured: int = 0

    @property
    def images(self) -> int:
        return len(self.judged) + 10 * self.measured

    def judge(self, trials, bar):
        self.judged += trials
        return {t: Judged(bool(self.values[t] < bar), float(self.values[t])) for t in trials}

    def measure(self, bar, enough, error, order):
        assert sorted(order) == list(range(TRIALS))
        for stop in range(20, TRIALS + 1, 20):
            self.measured = stop
            if np.count_nonzero(self.values[order[:stop]] < bar) >= enough:
                known = np.isin(np.arange(TRIALS), order[:stop])
                return KnownChips(
                    np.where(known, self.values, -np.inf), np.where(known, self.values, np.inf), False
                )
        return KnownChips(self.values, self.values, True)


def space(seed: int, points: int = 30):
    rng = np.random.default_rng(seed)
    luck = rng.normal(size=TRIALS)
    means, spreads = 0.9 - 0.2 * rng.random(points) ** 3, 0.01 + 0.01 * rng.random(points)
    values = means[:, None] + spreads[:, None] * (0.9 * luck + 0.4 * rng.normal(size=(points, TRIALS)))
    return np.round(values, 3), (rng.permutation(points) // 2).astype(float)


def found_in(values, costs, floor=-np.inf, exhaustive=False):
    points = [KnownPoint(row) for row in values]

    @contextmanager
    def opened(number):
        yield points[number]

    rule = None if exhaustive else elimination_rule(PERCENTILE, TRIALS)
    order = [int(i) for i in np.lexsort((np.arange(len(costs)), costs))]
    return search_front(order, costs, Wanted(floor, PERCENTILE, TRIALS, rule, 0.005), opened), points


@pytest.mark.parametrize("seed", range(60))
def test_the_front_is_that_of_all_chips(seed):
    """Points and KPPs, with a floor only what reaches it; every other one names what it does not beat."""
    values, costs = space(seed)
    kpps = np.sort(values, axis=1)[:, INDEX]
    for floor in (-np.inf, float(np.median(kpps))):
        found, points = found_in(values, costs, floor)
        wanted = [i for i in pareto_front(costs, kpps) if kpps[i] >= floor]
        front = [f for f in found if f.place == "front"]
        assert [f.point for f in front] == wanted
        assert [f.kpp for f in front] == [kpps[i] for i in wanted]
        for each in found:
            if each.place == "dominated":
                assert costs[each.against] <= costs[each.point]
                assert kpps[each.against] >= kpps[each.point]
            elif each.place == "below":
                assert kpps[each.point] < floor
            assert each.at_most >= kpps[each.point] - 1e-12
        looked = sum(len(set(p.judged)) + p.measured for p in points)
        assert looked < TRIALS * len(points)


def test_most_points_are_thrown_out_by_few_chips():
    """A clear point costs as many chips as its rank asks for, and not one more."""
    good, bad = np.full(TRIALS, 0.9), np.full(TRIALS, 0.5)
    found, points = found_in(np.stack([good, *[bad] * 9]), np.arange(10.0))
    assert [f.place for f in found] == ["front"] + ["dominated"] * 9
    assert [len(p.judged) for p in points] == [0] + [INDEX + 1] * 9
    assert {p.measured for p in points[1:]} == {0}


def test_the_likely_worst_chips_come_first():
    """Chips that were the worst of the front before are judged first, so that few are enough."""
    rng = np.random.default_rng(1)
    luck = rng.normal(size=TRIALS)
    values = np.stack([0.9 + 0.02 * luck, 0.899 + 0.02 * luck])
    _, points = found_in(values, [1.0, 2.0])
    assert points[1].judged == np.argsort(luck)[: INDEX + 1].tolist()


def test_exhaustive_runs_every_chip():
    """Nothing is thrown out early, and the front is the same."""
    values, costs = space(3)
    quick, _ = found_in(values, costs)
    every, points = found_in(values, costs, exhaustive=True)
    assert [f.point for f in every if f.place == "front"] == [f.point for f in quick if f.place == "front"]
    assert all(p.measured == TRIALS and not p.judged for p in points)
    assert all(f.kpp is not None for f in every)


def test_equal_costs():
    """Of points with equal cost the better one is on the front, whichever comes first."""
    low, high = np.full(TRIALS, 0.6), np.full(TRIALS, 0.8)
    for first, second, wanted in ((low, high, [1]), (high, low, [0]), (high, high, [0])):
        found, _ = found_in(np.stack([first, second]), [1.0, 1.0])
        assert [f.point for f in found if f.place == "front"] == wanted


def test_a_point_that_cannot_be_is_named():
    """What turns out to be wrong with a point when it is prepared does not end the search."""

    @contextmanager
    def opened(number):
        if number == 0:
            raise ImpossiblePointError("--code: not for this device")
        yield KnownPoint(np.full(TRIALS, 0.7))

    found = search_front([0, 1], [1.0, 2.0], Wanted(-np.inf, PERCENTILE, TRIALS, None, 0.0), opened)
    assert (found[0].place, found[0].reason) == ("invalid", "--code: not for this device")
    assert found[1].place == "front"

    @contextmanager
    def failing(number):
        raise OptionError("--dask: the cluster is gone")
        yield

    with pytest.raises(OptionError, match="the cluster is gone"):
        search_front([0], [1.0], Wanted(-np.inf, PERCENTILE, TRIALS, None, 0.0), failing)


def of(point, values):
    values = np.asarray(values, float)
    kpp = float(np.sort(values)[INDEX])
    return SearchedPoint(point, "front", kpp, kpp, None, TRIALS, 0, KnownChips(values, values, True))


def test_ties_are_said():
    """A dearer point that is better by luck is tied with the cheapest it is not surely better than."""
    rng = np.random.default_rng(0)
    base = 0.9 + 0.02 * rng.normal(size=TRIALS)
    alike = base + 1e-4 * rng.normal(size=TRIALS)
    front = [of(0, base), of(1, alike), of(2, base + 0.02)]
    assert tied_with(front[1], front, 5.0, 0.95) == 0
    assert tied_with(front[2], front, 5.0, 0.95) is None
    assert tied_with(front[0], front, 5.0, 0.95) is None
    assert tied_with(front[1], front, PERCENTILE, 0.95) is None, "too few chips for an interval"


def test_recommendation():
    """The cheapest that passes its gate, else that reaches it; without one the cheapest equal to the best."""
    values = [np.concatenate([np.full(misses, 0.5), np.full(TRIALS - misses, 0.9)]) for misses in (3, 0, 0)]
    front = [of(i, row) for i, row in enumerate(values)]
    gates = {f.point: gate_of(f, 0.8, 0.8, PERCENTILE, 0.95) for f in front}
    assert [gates[i].verdict for i in range(3)] == ["undecided", "pass", "pass"]
    choice = recommend(front, {}, gates)
    assert (choice.point, choice.passes) == (1, True)
    choice = recommend(front[:1], {}, gates)
    assert (choice.point, choice.passes) == (0, False)
    assert recommend(front, {2: 1}, {}).point == 1
    assert recommend(front, {2: None}, {}).point == 2
    assert recommend([], {}, gates) is None

"""What share of all chips and inferences a search for the front takes, and whether its front is that of all.

Backs the numbers of docs/explore.md on synthetic spaces of 240 points whose KPP grows and saturates with
cost, with scatter, on chips whose luck is partly common: 40 spaces of chips whose metric is drawn, of which
every one that is looked at counts whole; and a few of chips with samples, some harder than others, which stop
as soon as their errors suffice. No races: chips of the front see every sample. Run it with

    python benchmarks/front.py
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nvaudit.exploration.search import Judged, KnownChips, Wanted, search_front
from nvaudit.perturb.difficulty import Difficulty, estimate_difficulty
from nvaudit.perturb.race import CertainRace
from nvaudit.stats.front import elimination_rule, pareto_front
from nvaudit.stats.kpp import kpp_index

POINTS, SPACES = 240, 40
SIZES = ((100, 400, 8, -np.inf), (100, 400, 8, 0.88), (100, 1000, 4, -np.inf), (300, 400, 4, -np.inf))
"""Chips, samples, spaces and wanted KPP of those with samples."""


Floats = NDArray[np.float64]


@dataclass
class KnownPoint:
    """A point whose chips are known; it remembers which were looked at."""

    values: Floats
    seen: set[int] = field(default_factory=set)

    @property
    def images(self) -> int:
        """Chips looked at."""
        return len(self.seen)

    def judge(self, trials: Sequence[int], bar: float) -> dict[int, Judged]:
        """As a point whose chips are run on every sample."""
        self.seen.update(trials)
        return {trial: Judged(bool(self.values[trial] < bar), float(self.values[trial])) for trial in trials}

    def measure(self, bar: float, enough: int, error: float, order: Sequence[int]) -> KnownChips:
        """As a point whose chips are run on every sample, in blocks of growing length."""
        size = 8
        while True:
            chosen = order[:size]
            self.seen.update(chosen)
            known = np.isin(np.arange(len(order)), chosen)
            out = bool(np.count_nonzero(self.values[known] < bar) >= enough)
            if out or known.all():
                low = np.where(known, self.values, -np.inf)
                return KnownChips(low, np.where(known, self.values, np.inf), not out)
            size *= 2


def space_of(seed: int, trials: int) -> tuple[Floats, Floats]:
    """Costs, shape (point,), and chips, shape (point, trial), of a synthetic space."""
    rng = np.random.default_rng(seed)
    luck, costs = rng.normal(size=trials), rng.random(POINTS)
    means = 0.98 - 0.25 * np.exp(-4 * costs) * rng.random(POINTS) - 0.03 * rng.random(POINTS)
    spreads = 0.003 + 0.02 * rng.random(POINTS)
    chips = 0.8 * luck + 0.6 * rng.normal(size=(POINTS, trials))
    return costs, np.round(np.clip(means[:, None] + spreads[:, None] * chips, 0, 1), 3)


@dataclass
class SampledPoint:
    """A point whose chips have samples; it counts those that were looked at.

    Attributes
    ----------
    odds : ndarray, float32, shape (trial, sample)
        Of an error, in standard deviations: hard samples have more, and bad chips.
    difficulty : Difficulty
        From a few chips of another point.
    """

    odds: NDArray[np.float32]
    difficulty: Difficulty
    images: int = 0

    def _errors(self, trial: int) -> Floats:
        return (self.odds[trial] > 0).astype(np.float64)

    def judge(self, trials: Sequence[int], bar: float) -> dict[int, Judged]:
        """As a point whose chips stop as soon as their errors suffice."""
        return {trial: self._judged(self._errors(trial), bar) for trial in trials}

    def _judged(self, errors: Floats, bar: float) -> Judged:
        race, gap, seen = CertainRace(self.difficulty, bar), None, 0
        while gap is None and seen < len(errors):
            chosen = race.order[seen : seen + race.step(len(errors))]
            gap, seen = race.see(errors[chosen]), seen + len(chosen)
            if gap is None and race.hopeless(len(errors)):
                break
        self.images += seen
        return Judged(gap == 0, race.estimate)

    def measure(self, bar: float, enough: int, error: float, order: Sequence[int]) -> KnownChips:
        """As a point whose chips are run on every sample, in blocks of growing length."""
        samples = self.odds.shape[1]
        known = KnownPoint((samples - np.count_nonzero(self.odds > 0, axis=1)) / samples)
        found = known.measure(bar, enough, error, order)
        self.images += samples * len(known.seen)
        return found


def sampled_space(seed: int, trials: int, samples: int) -> tuple[Floats, list[SampledPoint]]:
    """Costs, and points, of a synthetic space with samples."""
    rng = np.random.default_rng(seed)
    costs = rng.random(POINTS)
    hard = rng.normal(-4.5, 2.2, samples).astype(np.float32)
    luck, same = rng.normal(size=trials), rng.normal(size=(trials, samples)).astype(np.float32)
    odds = []
    for cost in costs:
        shift = 4.5 * np.exp(-4 * cost) * rng.random() + 0.8 * rng.random()
        chip = shift + (0.2 + 0.3 * rng.random()) * (0.8 * luck + 0.6 * rng.normal(size=trials))
        own = rng.normal(size=(trials, samples)).astype(np.float32)
        odds.append(hard + chip.astype(np.float32)[:, None] + np.float32(0.7) * (same + own))
    dearest = odds[int(np.argmax(costs))][:8]
    difficulty = estimate_difficulty((dearest > 0).astype(np.float64), -hard.astype(np.float64))
    return costs, [SampledPoint(each, difficulty) for each in odds]


def report_samples(trials: int, samples: int, spaces: int, floor: float) -> None:
    """Print a line for spaces of chips with samples; KPP 1 %."""
    percentile = 1.0
    shares, fronts, sizes, same = [], [], [], 0
    for seed in range(spaces):
        costs, points = sampled_space(seed, trials, samples)

        @contextmanager
        def opened(number: int, points: list[SampledPoint] = points) -> Iterator[SampledPoint]:
            yield points[number]

        order = [int(i) for i in np.argsort(costs)]
        wanted = Wanted(floor, percentile, trials, elimination_rule(percentile, trials), 0.0)
        found = search_front(order, [float(cost) for cost in costs], wanted, opened)
        front = tuple(each.point for each in found if each.place == "front")
        worst = kpp_index(percentile, trials)
        kpps = [np.sort(1 - (p.odds > 0).mean(axis=1))[worst] for p in points]
        same += front == tuple(i for i in pareto_front(costs, kpps) if kpps[i] >= floor)
        whole = POINTS * trials * samples
        shares.append((8 * samples + sum(point.images for point in points)) / whole)
        fronts.append(len(front) / POINTS)
        sizes.append(sum(each.kpp is not None for each in found))
    share, most, alone = (100 * value for value in (np.mean(shares), max(shares), np.mean(fronts)))
    print(
        f"{trials} chips, {samples} samples, KPP from {floor:g}: {share:.1f} % of all inferences, at most "
        f"{most:.1f} %; the front alone {alone:.1f} %, {np.mean(sizes):.1f} points run whole; the same front "
        f"as of all chips in {same} of {spaces} spaces"
    )


def main() -> None:
    """Print a line for each number of chips."""
    for trials, percentile in ((100, 1.0), (300, 1.0), (1000, 1.0), (100, 5.0)):
        shares, sizes, same = [], [], 0
        rule = elimination_rule(percentile, trials)
        for seed in range(SPACES):
            costs, values = space_of(seed, trials)
            points = [KnownPoint(row) for row in values]

            @contextmanager
            def opened(number: int, points: list[KnownPoint] = points) -> Iterator[KnownPoint]:
                yield points[number]

            order = [int(i) for i in np.argsort(costs)]
            wanted = Wanted(-np.inf, percentile, trials, rule, 0.0025)
            found = search_front(order, [float(cost) for cost in costs], wanted, opened)
            front = tuple(each.point for each in found if each.place == "front")
            kpps = np.sort(values, axis=1)[:, kpp_index(percentile, trials)]
            same += front == pareto_front(costs, kpps)
            shares.append(sum(point.images for point in points) / values.size)
            sizes.append(len(front))
        print(
            f"KPP {percentile:g} % of {trials} chips: {100 * np.mean(shares):.1f} % of all chips, at most "
            f"{100 * max(shares):.1f} %; {np.mean(sizes):.1f} of {POINTS} points on the front; the same "
            f"front as of all chips in {same} of {SPACES} spaces"
        )

    for trials, samples, spaces, floor in SIZES:
        report_samples(trials, samples, spaces, floor)


if __name__ == "__main__":
    main()

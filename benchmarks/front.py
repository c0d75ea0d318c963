"""What share of all chips a search for the front looks at, and whether its front is that of all.

Backs the numbers of docs/explore.md on synthetic spaces: 40 of 240 points whose KPP grows and saturates with
cost, with scatter, on chips whose luck is partly common. No races: every chip that is looked at sees every
sample. Run it with

    python benchmarks/front.py
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nvaudit.exploration.search import Judged, KnownChips, Wanted, search_front
from nvaudit.stats.front import elimination_rule, pareto_front
from nvaudit.stats.kpp import kpp_index

POINTS, SPACES = 240, 40

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


if __name__ == "__main__":
    main()

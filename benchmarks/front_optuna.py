"""Whether an optimiser (Optuna) pays against the search for the front, on spaces whose axes have effects.

Every point of a synthetic space has a cost and chips: axes add to the log of the cost and to the quality of
a point, with interactions and scatter, so that an optimiser can learn from what it has seen. The optimiser
audits each point that it proposes whole, all chips; it is given as many chips as the search looked at, and
multiples of that. Backs the figures of docs/explore.md. Optuna is no dependency of the project:

    pip install optuna
    python benchmarks/front_optuna.py
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import optuna
from front import KnownPoint
from numpy.typing import NDArray

from nvaudit.exploration.search import Wanted, search_front
from nvaudit.stats.front import elimination_rule, pareto_front
from nvaudit.stats.kpp import kpp_index

SHAPES = ((3, 4, 5, 2, 2), (6, 4, 7, 4, 4, 3))
TRIALS, PERCENTILE, SEEDS = 100, 1.0, 3
MOST_AUDITS = 240
"""The samplers take longer with each."""

Floats = NDArray[np.float64]


class Space:
    """Costs and chips of every combination of the axes' values."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.places = list(itertools.product(*(range(size) for size in shape)))
        levels = [np.sort(rng.random(size)) for size in shape]
        weight, price = rng.random(len(shape)), rng.random(len(shape))
        x = np.array([[levels[axis][at] for axis, at in enumerate(place)] for place in self.places])
        pairs = rng.normal(0, 0.3, (len(shape), len(shape)))
        quality = x @ weight + np.einsum("ij,jk,ik->i", x, pairs, x) + rng.normal(0, 0.1, len(x))
        quality = 4 * (quality - quality.min()) / np.ptp(quality) - 0.5
        self.costs = np.exp(x @ price + rng.normal(0, 0.05, len(x)))
        luck, spread = rng.normal(size=TRIALS), 0.1 + 0.4 * rng.random(len(x))
        own = rng.normal(size=(len(x), TRIALS))
        self.chips = np.round(
            1 / (1 + np.exp(-quality[:, None] - spread[:, None] * (0.8 * luck + 0.6 * own))), 3
        )
        self.kpps = np.sort(self.chips, axis=1)[:, kpp_index(PERCENTILE, TRIALS)]
        self.front = set(pareto_front(self.costs, self.kpps))


def searched(space: Space) -> int:
    """Chips that the search looks at; it finds the whole front."""
    points = [KnownPoint(row) for row in space.chips]

    @contextmanager
    def opened(number: int) -> Iterator[KnownPoint]:
        yield points[number]

    def alike(one: int, other: int) -> int:
        return sum(a == b for a, b in zip(space.places[one], space.places[other], strict=True))

    rule = elimination_rule(PERCENTILE, TRIALS)
    order = [int(i) for i in np.argsort(space.costs, kind="stable")]
    found = search_front(
        order, list(space.costs), Wanted(-np.inf, PERCENTILE, TRIALS, rule, 0.0), opened, alike
    )
    assert {each.point for each in found if each.place == "front"} == space.front
    return sum(point.images for point in points)


def optimised(
    space: Space, shape: tuple[int, ...], audits: int, sampler: str, seed: int
) -> tuple[float, float]:
    """Share of the front that an optimiser finds with so many whole audits, and of the front's area."""
    made = {"TPE": optuna.samplers.TPESampler, "NSGA-II": optuna.samplers.NSGAIISampler}[sampler](seed=seed)
    study = optuna.create_study(directions=("minimize", "maximize"), sampler=made)
    number = {place: i for i, place in enumerate(space.places)}
    seen: set[int] = set()
    while len(seen) < audits:
        trial = study.ask()
        point = number[
            tuple(trial.suggest_int(f"axis{axis}", 0, size - 1) for axis, size in enumerate(shape))
        ]
        seen.add(point)  # what was audited before costs nothing
        study.tell(trial, (float(space.costs[point]), float(space.kpps[point])))
        if len(study.trials) > 20 * audits:
            break
    return len(seen & space.front) / len(space.front), area(space, seen) / area(space, space.front)


def area(space: Space, some: set[int]) -> float:
    """What a front dominates, in log cost and KPP."""
    top, total, best = float(np.log(space.costs.max())), 0.0, 0.0
    for point in sorted(some, key=lambda i: space.costs[i]):
        if space.kpps[point] > best:
            total += (space.kpps[point] - best) * (top - float(np.log(space.costs[point])))
            best = float(space.kpps[point])
    return total


def main() -> None:
    """Print a line for each space, sampler and budget."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for shape in SHAPES:
        spaces = [Space(shape, seed) for seed in range(SEEDS)]
        chips = [searched(space) for space in spaces]
        points = len(spaces[0].places)
        share = 100 * np.mean(chips) / points / TRIALS
        print(
            f"{points:,} points, {np.mean([len(s.front) for s in spaces]):.0f} on the front; the search "
            f"looks at {np.mean(chips):,.0f} chips ({share:.1f} %) and finds all of it"
        )
        for sampler, times in itertools.product(("TPE", "NSGA-II"), (1, 2, 4)):
            shares = []
            for seed, (space, looked) in enumerate(zip(spaces, chips, strict=True)):
                audits = min(points, times * looked // TRIALS, MOST_AUDITS)
                shares.append((audits, *optimised(space, shape, audits, sampler, seed)))
            audits, front, size = np.mean(shares, axis=0)
            print(
                f"  {sampler}, {audits:.0f} whole audits: {100 * front:.0f} % of the front, "
                f"{100 * size:.1f} % of its area"
            )


if __name__ == "__main__":
    main()

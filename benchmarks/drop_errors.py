"""How often the gate on a drop errs, and how often it decides: ``python benchmarks/drop_errors.py``.

Pairs of chips whose accuracy has a long lower tail (10,000 images, so that values tie), closely paired or
not, with a KPP that dropped by 0, 0.5, 1 or 2 points; one point is allowed. A pass of a drop above it is an
error of the first kind, a fail of one not above it one of the second; at one point exactly neither verdict
may come more often than 5 % of the time.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.gating import blocks
from nvaudit.rng import stream
from nvaudit.stats.drop import FormerChips, drop_verdict, ranks_for_drop
from nvaudit.stats.ranks import RACE_ERROR, rank_ranges

DROPS = (0.0, 0.005, 0.01, 0.02)
ALLOWED, PERCENTILE, CONFIDENCE = 0.01, 1.0, 0.95
IMAGES = 10_000
Known = Callable[[NDArray], FormerChips]
"""What is known of the chips before, by their metrics."""

SPREADS = {"narrow": 0.004, "wide": 0.008}
"""Scale of the chips' accuracies; their standard deviation is a fifth larger."""


def pairs(count: int, drop: float, spread: float, tie: float, seed: int) -> tuple[NDArray, NDArray]:
    """Accuracies of the same chips before and after; ``tie`` is the correlation of what makes them differ."""
    common, first, second = stream(seed, "drop pairs").standard_normal((3, count))
    values = [
        0.95 - spread * 2 * np.expm1(0.5 * (np.sqrt(tie) * common + np.sqrt(1 - tie) * own))
        for own in (first, second)
    ]
    before, after = (np.round(IMAGES * value) / IMAGES for value in (values[0], values[1] - drop))
    return before, after


def raced(values: NDArray, percentile: float = PERCENTILE) -> FormerChips:
    """What a report knows of chips whose races stopped all that are surely far above the percentile."""
    error = RACE_ERROR * (1 - CONFIDENCE)
    (rank,) = rank_ranges([percentile], values.size, CONFIDENCE)
    _, many = ranks_for_drop(percentile, values.size, CONFIDENCE + error)
    ordered = np.sort(values)
    stopped = values > ordered[max(rank.last, many - 1)]
    at_least = ordered[rank.decisive[1]]
    return FormerChips(
        np.where(stopped, at_least, values), np.where(stopped, np.inf, values), rank.shift, error=error
    )


def verdict(before: FormerChips, after: NDArray) -> tuple[str, int]:
    """Verdict of the gate and the chips that it drew, in the blocks of the command."""
    for stop in blocks(len(after)):
        found = drop_verdict(before.first(stop), after[:stop], ALLOWED, PERCENTILE, CONFIDENCE)
        if found != "undecided":
            return found, stop
    return "undecided", len(after)


def rates(
    count: int, drop: float, spread: float, tie: float, runs: int, known: Known = FormerChips.exact
) -> tuple[Counter[str], float]:
    """How often each verdict comes, and the median of the chips drawn."""
    made = (pairs(count, drop, spread, tie, seed) for seed in range(runs))
    found = [verdict(known(before), after) for before, after in made]
    return Counter(word for word, _ in found), float(np.median([chips for _, chips in found]))


def main() -> None:
    """Print the table of docs/ci-gate.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--chips", type=int, default=2000)
    asked = parser.parse_args()
    print("| baseline | chips' spread | pairing | drop, points | pass | undecided | fail | median chips |")
    print("|---|---|---|---|---|---|---|---|")
    baselines: dict[str, Known] = {"exhaustive": FormerChips.exact, "raced": raced}
    for (kind, known), (name, spread), tie, drop in itertools.product(
        baselines.items(), SPREADS.items(), (0.5, 0.95), DROPS
    ):
        words, chips = rates(asked.chips, drop, spread, tie, asked.runs, known)
        shares = " | ".join(
            f"{100 * words[word] / asked.runs:.1f} %" for word in ("pass", "undecided", "fail")
        )
        print(f"| {kind} | {name} | {tie:g} | {100 * drop:g} | {shares} | {chips:.0f} |", flush=True)


if __name__ == "__main__":
    main()

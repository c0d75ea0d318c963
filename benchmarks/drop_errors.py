"""How often the gate on a drop errs, and how often it decides: ``python benchmarks/drop_errors.py``.

Pairs of chips whose accuracy has a long lower tail (10,000 images, so that values tie), closely paired or
not, with a KPP that dropped by 0, 0.5, 1 or 2 points; one point is allowed. A pass of a drop above it is an
error of the first kind, a fail of one not above it one of the second; at one point exactly neither verdict
may come more often than 5 % of the time.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.gating import blocks
from nvaudit.rng import stream
from nvaudit.stats.drop import drop_verdict

DROPS = (0.0, 0.005, 0.01, 0.02)
ALLOWED, PERCENTILE, CONFIDENCE = 0.01, 1.0, 0.95
IMAGES = 10_000
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


def verdict(before: NDArray, after: NDArray) -> tuple[str, int]:
    """Verdict of the gate and the chips that it drew, in the blocks of the command."""
    for stop in blocks(len(before)):
        found = drop_verdict(before[:stop], after[:stop], ALLOWED, PERCENTILE, CONFIDENCE)
        if found != "undecided":
            return found, stop
    return "undecided", len(before)


def rates(count: int, drop: float, spread: float, tie: float, runs: int) -> tuple[Counter[str], float]:
    """How often each verdict comes, and the median of the chips drawn."""
    found = [verdict(*pairs(count, drop, spread, tie, seed)) for seed in range(runs)]
    return Counter(word for word, _ in found), float(np.median([chips for _, chips in found]))


def main() -> None:
    """Print the table of docs/ci-gate.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--chips", type=int, default=2000)
    asked = parser.parse_args()
    print("| chips' spread | pairing | drop, points | pass | undecided | fail | median chips |")
    print("|---|---|---|---|---|---|---|")
    for name, spread in SPREADS.items():
        for tie in (0.5, 0.95):
            for drop in DROPS:
                words, chips = rates(asked.chips, drop, spread, tie, asked.runs)
                shares = " | ".join(
                    f"{100 * words[word] / asked.runs:.1f} %" for word in ("pass", "undecided", "fail")
                )
                print(f"| {name} | {tie:g} | {100 * drop:g} | {shares} | {chips:.0f} |", flush=True)


if __name__ == "__main__":
    main()

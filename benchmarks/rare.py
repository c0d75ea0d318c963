"""What `--rare` finds where the truth is known: bias, width and coverage of its intervals.

Backs the numbers of docs/rare.md. On laws whose quantiles are known, 200 repeats of ten runs each:

    python benchmarks/rare.py known

On a model, against the chips of a plain audit so large that they say what is right, from reports of the
public command (the same model, data, device and sigma; each rare one with another seed):

    nvaudit audit M.onnx --data D.npz --limit 500 -n 100000 -k 1 -k 0.1 -k 0.01 --report plain.json …
    nvaudit audit M.onnx --data D.npz --limit 500 -n 4 --rare 0.01 --rare 1e-3 --rare 1e-4 --seed S …
    python benchmarks/rare.py reports plain.json rare-*.json
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import chi2, norm

import nvaudit
from nvaudit.perturb.splitting import Effort, Evaluate, Walk, split
from nvaudit.report.result import AuditReport
from nvaudit.rng import MovedChip
from nvaudit.stats.binomial import interval_ranks
from nvaudit.stats.splitting import rare_value

DIMENSION = 30
PROBABILITY = 1e-6
REPEATS = 200

Floats = NDArray[np.float64]


def linear(z: Floats) -> Floats:
    """A normal score."""
    return np.asarray(z.sum(axis=1) / DIMENSION**0.5)


def quadratic(z: Floats) -> Floats:
    """A score that is even in the normals, as more than half of that of a network is."""
    return np.asarray(np.square(z).sum(axis=1))


def mixture(z: Floats) -> Floats:
    """Two causes, of which the second grows faster, and rules from 1 chip in 30,000 on."""
    return np.maximum(z[:, 0], 1.5 * z[:, 1] - 2)


def hidden(z: Floats) -> Floats:
    """A second cause that no chip of the first pools shows, and that rules from 1 chip in 300,000 on."""
    return np.maximum(z[:, 0], 3 * z[:, 1] - 9)


def _of_two(slope: float, offset: float) -> float:
    """Quantile of the larger of z₁ and slope·z₂ − offset."""

    def beyond(t: float) -> float:
        one, other = norm.sf(t), norm.sf((t + offset) / slope)
        return float(one + other - one * other) - PROBABILITY

    return float(brentq(beyond, 3.0, 9.0, xtol=1e-9))


LAWS: dict[str, tuple[Callable[[Floats], Floats], float]] = {
    "linear": (linear, float(norm.isf(PROBABILITY))),
    "quadratic": (quadratic, float(chi2.isf(PROBABILITY, DIMENSION))),
    "mixture": (mixture, _of_two(1.5, 2.0)),
    "hidden": (hidden, _of_two(3.0, 9.0)),
}


def evaluation(law: Callable[[Floats], Floats], seed: int) -> Evaluate:
    """Score chips of a law, whose normals move as those of devices do."""
    gen, seen = np.random.default_rng(seed), dict[MovedChip, Floats]()

    def evaluate(walks: Sequence[Walk]) -> None:
        while going := [(walk, chip) for walk in walks if (chip := walk.chip) is not None]:
            z = gen.standard_normal((len(going), DIMENSION))
            for place, (_, chip) in enumerate(going):
                if chip.moves:
                    keep, before = chip.moves[-1][0], seen[MovedChip(chip.start, chip.moves[:-1])]
                    z[place] = keep * before + (1 - keep**2) ** 0.5 * z[place]
                seen[chip] = z[place]
            for (walk, _), score in zip(going, law(z), strict=True):
                walk.see(float(score))

    return evaluate


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def known(states: Sequence[int], repeats: int) -> Iterator[str]:
    """One row for each law and number of chips."""
    yield _row("law", "chips of a run", "evaluations", "holds the truth", "bias", "median width", "s")
    yield _row(*["---"] * 7)
    for name, (law, wanted) in LAWS.items():
        for count in states:
            begin, evaluations = time.perf_counter(), 0
            found = []
            for seed in range(repeats):
                runs = split(evaluation(law, seed), PROBABILITY, Effort(states=count), seed)
                evaluations += runs.evaluations
                found.append(rare_value(runs.runs, PROBABILITY))
            value, low, high = np.array(found).T
            yield _row(
                f"{name}: {wanted:.3f} at {PROBABILITY:g}",
                str(count),
                f"{evaluations / repeats:,.0f}",
                f"{np.mean((low <= wanted) & (wanted <= high)):.1%} of {repeats}",
                f"{value.mean() - wanted:+.3f}",
                f"{np.median(high - low):.3f}",
                f"{time.perf_counter() - begin:.0f}",
            )


def of_reports(plain: AuditReport, rare: Sequence[AuditReport]) -> Iterator[str]:
    """One row for each probability, in points of the metric."""
    chips = np.sort(np.asarray(plain.trials.values, np.float64))
    yield _row(
        "share", f"plain, {len(chips):,} chips", "splitting, mean", "bias", "spread of its repeats",
        "median width", "holds the plain value", "meets its interval", "no estimate", "chips evaluated",
    )  # fmt: skip
    yield _row(*["---"] * 10)
    for place, first in enumerate(rare[0].rare):
        share = first.probability
        truth = float(chips[int(share * len(chips))])
        ranks = interval_ranks(100 * share, len(chips), 0.95)
        low, high = (None if rank is None else float(chips[rank - 1]) for rank in ranks)
        every = [report.rare[place] for report in rare]
        found = [one for one in every if one.value is not None]
        values = np.array([one.value for one in found])
        lows = np.array([-np.inf if one.low is None else one.low for one in found])
        highs = np.array([np.inf if one.high is None else one.high for one in found])
        held = np.mean((lows <= truth) & (truth <= highs))
        met = np.mean((lows <= (high or np.inf)) & ((low or -np.inf) <= highs))
        yield _row(
            f"{share:g}",
            f"{100 * truth:.1f} [{_points(low)}, {_points(high)}]",
            f"{100 * values.mean():.2f}",
            f"{100 * (values.mean() - truth):+.2f}",
            f"{100 * values.std(ddof=1):.2f}",
            f"{100 * np.median(highs - lows):.1f}",
            f"{held:.0%} of {len(found)}",
            f"{met:.0%}",
            str(len(every) - len(found)),
            f"{np.mean([one.evaluations for one in found]):,.0f}",
        )


def _points(end: float | None) -> str:
    return "–" if end is None else f"{100 * end:.1f}"


def _audit(path: Path) -> AuditReport:
    report = nvaudit.load(path)
    assert isinstance(report, AuditReport), f"{path} is no report of an audit"
    return report


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("known", "reports"))
    parser.add_argument("files", nargs="*", type=Path, help="the plain report, then those with --rare")
    parser.add_argument("--states", type=int, nargs="+", default=[100])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    if options.what == "known":
        rows = known(options.states, options.repeats)
    else:
        plain, *rare = map(_audit, options.files)
        rows = of_reports(plain, rare)
    for row in rows:
        print(row, flush=True)


if __name__ == "__main__":
    main()

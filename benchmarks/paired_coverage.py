"""Claim: intervals of paired differences cover at least what they state; bootstrap intervals do not.

Synthetic pairs of chips (before, after) whose true differences are known from four million pairs. For the
difference of two KPPs: our interval, the two KPP intervals combined at (1 + confidence)/2, the paired BCa and
percentile bootstrap, and MOVER. For a mean difference: ours, Student's t, Hall's t, BCa. Prints coverage in
percent and the mean width.

    python benchmarks/paired_coverage.py --repeats 300
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from scipy import stats

from nvaudit.rng import stream
from nvaudit.stats.binomial import interval_ranks
from nvaudit.stats.kpp import kpp_index
from nvaudit.stats.paired import kpp_difference, mean_difference

CONFIDENCE = 0.95
Z = stats.norm.ppf((1 + CONFIDENCE) / 2)
SIZES = ((1000, 1), (500, 1), (1000, 5), (200, 5), (100, 10))
TRUTH = 4_000_000


def close(z, rng):
    """Accuracies that go together (correlation 0.9), on 1,000 images."""
    return 0.95 + 0.01 * z[0], 0.955 + 0.01 * (0.9 * z[0] + math.sqrt(0.19) * z[1])


def apart(z, rng):
    """Accuracies that have nothing to do with each other."""
    return 0.95 + 0.01 * z[0], 0.955 + 0.008 * z[1]


def against(z, rng):
    """Chips that are good before are bad after."""
    return 0.95 + 0.01 * z[0], 0.95 + 0.01 * (-0.8 * z[0] + 0.6 * z[1])


def skewed(z, rng):
    """A long tail of bad chips, half of it in common."""
    tail = rng.gamma(0.5, 1, z.shape[1])
    return 0.97 - 0.03 * tail, 0.97 - 0.015 * tail - 0.005 * rng.gamma(0.5, 1, z.shape[1])


def collapse(z, rng):
    """2 % of the chips fail before, a quarter of these after."""
    fate = rng.random(z.shape[1])
    common = 0.95 + 0.005 * z[0]
    return common - 0.3 * (fate < 0.02), common + 0.001 * z[1] - 0.3 * (fate < 0.005)


def nearly_equal(z, rng):
    """One chip in twenty changes."""
    before = 0.95 + 0.01 * z[0]
    return before, before + (rng.random(z.shape[1]) < 0.05) * 0.01 * z[1]


def edge(z, rng):
    """Exactly as many chips fail as the first percentile counts."""
    fate = rng.random(z.shape[1])
    return 0.95 + 0.002 * z[0] - 0.3 * (fate < 0.01), 0.95 + 0.002 * z[1] - 0.3 * (fate > 0.99)


PAIRS = (close, apart, against, skewed, collapse, nearly_equal, edge)


def draw(make, count, rng):
    """Pairs of chips, their accuracies rounded to 1,000 images."""
    before, after = make(rng.standard_normal((2, count)), rng)
    return np.rint(before * 1000) / 1000, np.rint(after * 1000) / 1000


def at(values, percentile):
    """KPP along the last axis."""
    index = kpp_index(percentile, values.shape[-1])
    return np.partition(values, index, axis=-1)[..., index]


def combined(before, after, percentile):
    """The ends of the two KPP intervals, each at (1 + confidence)/2."""
    first, last = interval_ranks(percentile, before.size, (1 + CONFIDENCE) / 2)
    a, b = np.sort(before), np.sort(after)
    return b[first - 1] - a[last - 1], b[last - 1] - a[first - 1]


def mover(before, after, percentile):
    """Variances recovered from the two KPP intervals, with the correlation of the two indicators."""
    first, last = interval_ranks(percentile, before.size, CONFIDENCE)
    a, b, i = np.sort(before), np.sort(after), kpp_index(percentile, before.size)
    low_a, low_b = before <= a[i], after <= b[i]
    r = float(np.corrcoef(low_a, low_b)[0, 1])

    def width(x, y):
        return math.sqrt(max(x * x + y * y - 2 * r * x * y, 0.0))

    d = b[i] - a[i]
    return d - width(b[i] - b[first - 1], a[last - 1] - a[i]), d + width(
        b[last - 1] - b[i], a[i] - a[first - 1]
    )


def bca(statistic, estimate, jackknife):
    """Ends of a BCa interval and of the plain percentile interval."""
    share = (np.sum(statistic < estimate) + 0.5 * np.sum(statistic == estimate)) / statistic.size
    z0 = stats.norm.ppf(min(max(share, 1 / statistic.size), 1 - 1 / statistic.size))
    u = jackknife.mean() - jackknife
    scale = np.sum(u**2) ** 1.5
    a = np.sum(u**3) / (6 * scale) if scale > 0 else 0.0
    probs = [stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in (-Z, Z)]
    return np.quantile(statistic, probs), np.quantile(statistic, stats.norm.cdf([-Z, Z]))


def leave_one_out(values, percentile):
    """KPP without each chip."""
    order, index = np.argsort(values, kind="stable"), kpp_index(percentile, values.size - 1)
    ordered, out = values[order], np.empty(values.size)
    out[order[: index + 1]], out[order[index + 1 :]] = ordered[index + 1], ordered[index]
    return out


def kpp_methods(before, after, percentile, rng):
    """Interval of the KPP difference by each method."""
    ours = kpp_difference(before, after, percentile, CONFIDENCE, higher_is_better=True)
    pick = rng.integers(0, before.size, (800, before.size))
    statistic = at(after[pick], percentile) - at(before[pick], percentile)
    jackknife = leave_one_out(after, percentile) - leave_one_out(before, percentile)
    corrected, plain = bca(statistic, ours.value, jackknife)
    return {
        "ours": (ours.low, ours.high),
        "combined": combined(before, after, percentile),
        "MOVER": mover(before, after, percentile),
        "bootstrap": plain,
        "BCa": corrected,
    }


def mean_methods(difference, rng):
    """Interval of a mean difference by each method; ours may decline."""
    n, mean = difference.size, difference.mean()
    ours = mean_difference(np.zeros(n), difference, CONFIDENCE)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * difference.std(ddof=1) / math.sqrt(n)
    statistic = rng.multinomial(n, np.full(n, 1 / n), 800) @ difference / n
    jackknife = (n * mean - difference) / (n - 1)
    return {
        "ours": None if ours.low is None else (ours.low, ours.high),
        "t": (mean - half, mean + half),
        "BCa": bca(statistic, mean, jackknife)[0] if half > 0 else (mean, mean),
    }


def line(name, n, found, truth):
    """One line of the table."""
    parts = []
    for method in found[0]:
        given = [one[method] for one in found if one[method] is not None]
        if not given:
            continue
        hits = [low - 1e-9 <= truth <= high + 1e-9 for low, high in given]
        width = 1000 * np.mean([high - low for low, high in given])
        declined = f" ({len(given)})" if len(given) < len(found) else ""
        parts.append(f"{method} {100 * np.mean(hits):5.1f} % ±{width / 2:.2f}{declined}")
    print(f"{n:5} {name:13}", "  ".join(parts), flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=300)
    repeats = parser.parse_args().repeats
    truth = {make: draw(make, TRUTH, stream(0, "truth", make.__name__)) for make in PAIRS}
    for n, percentile in SIZES:
        print(f"\nKPP {percentile} % difference; coverage, half width in thousandths")
        for make in PAIRS:
            rng = stream(1, "coverage", make.__name__, n, percentile)
            wanted = at(truth[make][1], percentile) - at(truth[make][0], percentile)
            found = [kpp_methods(*draw(make, n, rng), percentile, rng) for _ in range(repeats)]
            line(make.__name__, n, found, wanted)
    for n in (30, 100, 1000):
        print("\nmean difference; coverage, half width in thousandths; (given), where some had no interval")
        for make in PAIRS:
            rng = stream(2, "coverage", make.__name__, n)
            found = []
            for _ in range(repeats):
                before, after = draw(make, n, rng)
                found.append(mean_methods(after - before, rng))
            line(make.__name__, n, found, float(np.mean(truth[make][1] - truth[make][0])))


if __name__ == "__main__":
    main()

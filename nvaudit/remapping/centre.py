"""Means that noise and clipping shift, estimated on a few chips and calibration samples.

What is taken off a result is what its mean moved by, averaged over chips. Where devices lose conductance, all
results of a layer shrink by one gain: then the mean may shrink with them, since a network that shrinks as a
whole decides as before, and one that does not has its Relus cut off other parts.

Chips differ, so the average of a few is uncertain; a shift that is no larger than its standard error would
add more error than it takes away, and each is made smaller accordingly: δ (1 − s²/δ²)₊ (positive-part
shrinkage, James and Stein 1961).
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.model.readnoise import reseed_read_noise
from nvaudit.model.rescale.centre import Centres, watched_means
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.probe import InnerProbe
from nvaudit.perturb.session import open_session
from nvaudit.perturb.watchdog import ended_with
from nvaudit.remapping.bench import Bench, Changed

CHIPS = 16
"""Chips whose means are averaged, where time allows; others than those that rank candidates."""

SAMPLES = 64
"""Samples on which means are taken, all in one batch."""

MeanAndVariance = tuple[Floats, Floats]
"""Mean and variance of each channel."""


@dataclass(frozen=True)
class ChipMoments:
    """Mean and variance of each channel of a result on each chip; shapes (chip, channel)."""

    mean: Floats
    variance: Floats

    @property
    def pooled(self) -> MeanAndVariance:
        """Mean and variance over samples, positions and chips together."""
        # Law of total variance: variance within a chip, averaged, plus variance of the chips' means.
        return self.mean.mean(axis=0), self.variance.mean(axis=0) + self.mean.var(axis=0)

    def shift(self, clean: MeanAndVariance) -> Floats:
        """How far the mean moved, other than by a gain of all channels, and as far as that is certain."""
        mean, power = clean
        # gain: what all channels shrink by on each chip, seen in their variances, which scale with its
        # square.
        share = self.variance.mean(axis=1) / max(float(power.mean()), 1e-30)
        gain = np.sqrt(np.minimum(share, 1.0))
        rest = self.mean - gain[:, None] * mean
        moved, error = rest.mean(axis=0), rest.var(axis=0, ddof=1) / len(rest)
        # δ (1 − s²/δ²)₊ with s² = error: nothing is left of a shift within its own standard error.
        square = np.maximum(moved**2, 1e-300)
        return np.asarray(moved * np.maximum(1 - error / square, 0.0))


def clean_moments(bench: Bench, centres: Centres, *, norms: bool) -> dict[str, MeanAndVariance]:
    """Moments of every result of a structure as it is, without quantisation, clipping and noise."""
    graph, names = _graph(bench, centres, norms, None)
    return _run(bench, graph, names, bench.exact_slots({}))


def chip_moments(
    bench: Bench,
    changed: Changed,
    centres: Centres,
    clean: Mapping[str, MeanAndVariance],
    chips: int,
    *,
    norms: bool,
) -> dict[str, ChipMoments]:
    """Moments of every result on chips, each result corrected before the next layer takes it."""
    graph, names = _graph(bench, centres, norms, clean)
    threads = max(1, min(bench.conditions.threads, chips))
    engines = [bench.engine(changed) for _ in range(threads)]

    # Chips other than those that rank candidates, so that a correction is not fitted to its judges.
    def lane(first: int) -> list[dict[str, MeanAndVariance]]:
        return [_chip(bench, engines[first], graph, names, number) for number in range(first, chips, threads)]

    with ThreadPoolExecutor(threads) as pool, ended_with():
        lanes = list(pool.map(lane, range(threads)))
    rows = [lanes[number % threads][number // threads] for number in range(chips)]
    return {
        name: ChipMoments(np.stack([row[name][0] for row in rows]), np.stack([row[name][1] for row in rows]))
        for name in names
    }


def _chip(
    bench: Bench, engine: Engine, graph: bytes, names: Mapping[str, tuple[str, str]], number: int
) -> dict[str, MeanAndVariance]:
    trial = bench.conditions.chips + number
    fills = {slot.name: array for slot, array in engine.fill(0, trial)}
    proto = reseed_read_noise(graph, bench.workload.seed, trial) if bench.workload.read_noise else graph
    return _run(bench, proto, names, fills)


def _graph(
    bench: Bench, centres: Centres, norms: bool, clean: Mapping[str, MeanAndVariance] | None
) -> tuple[bytes, dict[str, tuple[str, str]]]:
    template = Path(bench.workload.template.path).read_bytes()
    return watched_means(template, centres, norms=norms, clean=clean)


def _run(
    bench: Bench, graph: bytes, names: Mapping[str, tuple[str, str]], fills: Mapping[str, NDArray[Any]]
) -> dict[str, MeanAndVariance]:
    """Mean and variance of each result on one batch."""
    workload, data = bench.workload, bench.conditions.dataset
    digital = {name: file.open() for name, file in workload.template.digital.items()}
    session = open_session(graph, {**digital, **fills}, workload.provider)
    chosen = np.linspace(0, data.count - 1, min(SAMPLES, data.count)).round().astype(np.int64)
    outputs = {name: name for pair in names.values() for name in pair}
    with np.errstate(all="ignore"):
        moments = InnerProbe(session, outputs, data.inputs, data.batch_axes).run(chosen)
    return {
        name: (moments[mean].astype(np.float64), moments[variance].astype(np.float64))
        for name, (mean, variance) in names.items()
    }

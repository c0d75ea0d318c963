"""How much of the calibration fits into its time."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from nvaudit.errors import KeptError
from nvaudit.files import write_text_atomic
from nvaudit.perturb.engine import Engine
from nvaudit.perturb.workload import Workload
from nvaudit.remapping.bench import FIRST_CHIPS, Bench, BenchConditions, subset
from nvaudit.remapping.spec import RemapSpec

_FEW, _MANY = 8, 40
"""Samples on which the model is timed."""

_ON_FIRST, _ON_ALL = 10, 3
"""Candidates that should be measured on the first chips, and on all."""

_SIDE_BY_SIDE = 0.7
"""What a thread adds where several run side by side."""

_FEWEST = ((96, 8), (64, 4))
"""Samples and chips that calibrate at least, and at the very least."""

_CHECKED = 128
"""Samples, at least, on which the nominal loss of what is chosen is measured again."""

PROBED = 128
"""Samples on which the outputs of the original and of what is written are compared."""


@dataclass(frozen=True)
class Clock:
    """The time that a calibration may take.

    Attributes
    ----------
    budget_s : float
        Seconds; 0 for no limit.
    begin : float
        When it began, by :func:`time.perf_counter`.
    """

    budget_s: float
    begin: float = field(default_factory=time.perf_counter)

    @property
    def left_s(self) -> float:
        """Seconds left; infinite without a limit."""
        if not self.budget_s:
            return float("inf")
        return max(self.begin + self.budget_s - time.perf_counter(), 0.0)


@dataclass(frozen=True)
class Cost:
    """What a chip takes on one core: so much to be set up, and so much for each sample."""

    chip_s: float
    sample_s: float


def timed(bench: Bench) -> Cost:
    """Time chips of two sizes.

    Parameters
    ----------
    bench : Bench
        The original model.
    """
    seconds, on_all_samples = [], bench.on_array({})
    for count in (_FEW, _MANY):
        workload = first_samples(on_all_samples, count)
        engine, begin = Engine(workload), time.perf_counter()
        engine.chip(bench.conditions.metric, bench.conditions.keep, 0, 0)
        seconds.append((time.perf_counter() - begin, workload.count))
    # Two sizes, one line: seconds = chip_s + samples · sample_s. Where noise of the clock turns the slope
    # negative, all of the longer run is counted as samples.
    (short, few), (long, many) = seconds
    each = max(long - short, 0.0) / max(many - few, 1) or long / many
    return Cost(max(short - few * each, 0.0), each)


def first_samples(workload: Workload, count: int) -> Workload:
    """A workload on its first samples; on all where these influence each other."""
    if workload.together:
        return workload
    count = min(count, workload.count)
    inputs = {
        name: file if file.axis is None else replace(file, count=count)
        for name, file in workload.inputs.items()
    }
    labels = None if workload.labels is None else replace(workload.labels, count=count)
    return replace(workload, inputs=inputs, labels=labels, count=count)


def fitted(conditions: BenchConditions, cost: Cost, room_s: float, seed: int) -> BenchConditions:
    """Take fewer samples, then fewer chips, until enough candidates fit into the time.

    Parameters
    ----------
    room_s : float
        Seconds for all candidates.
    seed : int
        Decides which samples stay.

    Returns
    -------
    BenchConditions
        The same ones where they fit.
    """
    samples, chips = conditions.dataset.count, conditions.chips
    # Samples first: a metric on fewer of them is only less sharp, while a worst quarter of few chips is luck.
    room_s *= max(_SIDE_BY_SIDE * conditions.threads, 1.0)
    for fewest_samples, fewest_chips in _FEWEST:
        while _seconds(cost, samples, chips) > room_s and samples > fewest_samples:
            samples = max(fewest_samples, samples * 3 // 4)
        while _seconds(cost, samples, chips) > room_s and chips > fewest_chips:
            chips = max(fewest_chips, chips * 3 // 4)
    if (samples, chips) == (conditions.dataset.count, conditions.chips):
        return conditions
    return replace(conditions, dataset=subset(conditions.dataset, samples, seed), chips=chips)


def _seconds(cost: Cost, samples: int, chips: int) -> float:
    """What enough candidates take on one core."""
    # Beside its chips a candidate takes two passes at most: without quantisation and noise, and with
    # quantisation alone.
    passes = _ON_FIRST * (FIRST_CHIPS + 2) + _ON_ALL * (chips + 2)
    return passes * (cost.chip_s + samples * cost.sample_s)


def tail_seconds(cost: Cost, samples: int) -> float:
    """Seconds to keep for what comes after the search: the check on more samples, and the written model's."""
    return 4 * cost.chip_s + cost.sample_s * (2 * min(samples, _CHECKED) + min(samples, PROBED))


def checked_samples(cost: Cost, samples: int, left_s: float) -> int:
    """On how many samples the nominal loss can be measured again."""
    if not np.isfinite(left_s):
        return samples
    return min(samples, max(_CHECKED, int(left_s / (3 * max(cost.sample_s, 1e-9)))))


_SIZES = "sizes.json"
_ASKED = ("calibration_images", "calibration_chips")


def write_sizes(folder: Path, spec: RemapSpec, conditions: BenchConditions, cost: Cost) -> None:
    """Keep on how many samples and chips a run calibrates, and what it asked for."""
    sizes = {"samples": conditions.dataset.count, "chips": conditions.chips, **asdict(cost)}
    asked = {name: getattr(spec, name) for name in (*_ASKED, "calibration_s")}
    write_text_atomic(folder / _SIZES, json.dumps({**sizes, **asked}))


def read_sizes(folder: Path, spec: RemapSpec) -> tuple[int, int, Cost] | None:
    """On how many samples and chips an earlier run calibrated, and what a chip took.

    None where there was none, or it asked for others, or had less time.

    Raises
    ------
    KeptError
        If the file is damaged.
    """
    path = folder / _SIZES
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_bytes())
        cost = Cost(float(kept["chip_s"]), float(kept["sample_s"]))
        sizes, seconds = (int(kept["samples"]), int(kept["chips"])), float(kept["calibration_s"])
        same = all(kept[name] == getattr(spec, name) for name in _ASKED)
    except (ValueError, KeyError, TypeError) as error:
        raise KeptError(f"{path}: damaged; name another folder to begin anew") from error
    return (*sizes, cost) if same and spec.calibration_s <= seconds else None

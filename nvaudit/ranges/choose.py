"""Try what may help, keep what does: candidates in a fixed order, each measured on the same chips."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.errors import ModelError
from nvaudit.mapping.conductance import layout
from nvaudit.mapping.quantize import quantize
from nvaudit.model.scaling_plan import Insert
from nvaudit.perturb.moments import code_moments
from nvaudit.ranges.bench import Bench, Conditions, Trial
from nvaudit.ranges.clip import balanced_limit, clipped, deviations_limit
from nvaudit.ranges.program import Basis, Rescaling, rescale
from nvaudit.ranges.solve import SHARP, SOFT

DEVIATIONS = (4.0, 3.5, 3.0, 2.5, 2.0, 1.75, 1.5)
"""Clipping levels that are tried for all weights at once, in standard deviations; mild ones first."""

CAUTIONS = (16.0, 4.0, 1.0)
"""Balanced limits that are tried: how much more a clipping error counts than noise."""

Tell = Callable[[str, int, int], None]
Limits = Mapping[str, float]


@dataclass(frozen=True)
class Candidate:
    """A structure with limits for its weights, and what it measures.

    Attributes
    ----------
    name : str
    bench : Bench
        The structure.
    rescaling : Rescaling
        How it came about.
    limits : mapping of str to float
        Where weights are cut off; empty for nowhere.
    trial : Trial
    seconds : float
    """

    name: str
    bench: Bench
    rescaling: Rescaling
    limits: Limits
    trial: Trial
    seconds: float

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The weights that are cut off, in their primary layout."""
        return {key: clipped(self.bench.values[key], limit) for key, limit in self.limits.items()}


@dataclass
class Search:
    """Candidates tried so far, in order, with the reasons of those that were not kept.

    Attributes
    ----------
    basis : Basis
    conditions : Conditions
    folder : Path
    allowed : float
        How much of the nominal metric may be lost.
    tell : callable
        Progress.
    """

    basis: Basis
    conditions: Conditions
    folder: Path
    allowed: float
    tell: Tell
    tried: list[Candidate] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def structures(self, inserts: tuple[Insert, ...], equalise: bool) -> None:
        """Measure the model as it is, then rescaled in every way that is allowed."""
        self._structure("original", "none", 0.0)
        if equalise:
            self._structure("equalised", "none", SHARP)
            self._structure("equalised, for clipping", "none", SOFT)
        for insert in inserts:
            what = {"columns": "factors behind weights", "both": "factors behind and before weights"}[insert]
            self._structure(what, insert, SHARP)
            self._structure(f"{what}, for clipping", insert, SOFT)

    def clippings(self, spread: Mapping[str, float]) -> None:
        """Clip the weights of the best two structures at several levels."""
        good = [c for c in self.tried if not c.limits]
        good = good[1:] or good  # what clips well as it is clips better rescaled
        ranked = sorted(good, key=_order(self.conditions.metric.higher_is_better), reverse=True)
        for structure in ranked[:2]:
            if any(spread.values()):
                self._family(structure, self._deviations(structure))
                self._family(structure, self._balanced(structure, spread))

    def best(self) -> Candidate:
        """The candidate with the best worst chips among those that cost no more than is allowed."""
        best = self.tried[0]
        for candidate in self.tried[1:]:
            if candidate.name not in self.refused and candidate.trial.beats(best.trial):
                best = candidate
        return best

    def loss(self, trial: Trial) -> float:
        """How much of the nominal metric a candidate loses."""
        lost = self.tried[0].trial.nominal - trial.nominal
        return lost if trial.higher_is_better else -lost

    def _structure(self, name: str, insert: Insert, exponent: float) -> None:
        begin = time.perf_counter()
        self.tell(name, len(self.tried), len(self.tried) + 1)
        rescaling = rescale(self.basis, insert, exponent)
        bench = Bench(rescaling.loaded, self.conditions, self.folder / f"structure-{len(self.tried)}")
        self._add(name, bench, rescaling, {}, begin)

    def _add(self, name: str, bench: Bench, rescaling: Rescaling, limits: Limits, begin: float) -> bool:
        """Measure a candidate; whether it costs no more than is allowed."""
        arrays = {key: clipped(bench.values[key], limit) for key, limit in limits.items()}
        try:
            trial = bench.measure(arrays)
        except ModelError as error:  # its outputs overflow
            self.refused[name] = str(error)
            return False
        candidate = Candidate(name, bench, rescaling, limits, trial, time.perf_counter() - begin)
        self.tried.append(candidate)
        if not np.isfinite(trial.nominal) or self.loss(trial) > self.allowed:
            self.refused[name] = "costs too much of the nominal metric"
            return False
        return True

    def _family(self, structure: Candidate, levels: Iterator[tuple[str, Limits]]) -> None:
        """Try levels until one costs too much, or does worse than none: the ones after it cut off more."""
        for what, limits in levels:
            begin = time.perf_counter()
            name = f"{structure.name}, {what}"
            self.tell(name, len(self.tried), len(self.tried) + 1)
            if limits and not self._add(name, structure.bench, structure.rescaling, limits, begin):
                return
            if limits and structure.trial.beats(self.tried[-1].trial):
                return

    def _deviations(self, structure: Candidate) -> Iterator[tuple[str, Limits]]:
        for number in DEVIATIONS:
            limits = {
                key: deviations_limit(values, number) for key, values in _clippable(structure.bench).items()
            }
            yield f"clipped at {number:g} std", _cutting(structure.bench, limits)

    def _balanced(self, structure: Candidate, spread: Mapping[str, float]) -> Iterator[tuple[str, Limits]]:
        for caution in CAUTIONS:
            limits = {}
            for key, values in _clippable(structure.bench).items():
                power = structure.rescaling.power.get(key)
                shaped = (
                    np.ones(1)
                    if power is None
                    else power.reshape(power.shape + (1,) * (values.ndim - power.ndim))
                )
                limits[key] = balanced_limit(values, shaped, spread.get(key, 0.0), caution)
            yield f"clipped, balanced {caution:g}", _cutting(structure.bench, limits)


def _order(higher_is_better: bool) -> Callable[[Candidate], tuple[float, float]]:
    sign = 1 if higher_is_better else -1
    return lambda candidate: (sign * candidate.trial.worst, sign * candidate.trial.mean)


def _clippable(bench: Bench) -> dict[str, NDArray[Any]]:
    return {key: values for key, values in bench.values.items() if bench.editable[key] is None}


def _cutting(bench: Bench, limits: Limits) -> Limits:
    """Limits that cut anything off."""
    return {
        key: limit
        for key, limit in limits.items()
        if limit < float(np.abs(bench.values[key]).max(initial=0.0))
    }


def relative_spread(bench: Bench) -> dict[str, float]:
    """Spread of each weight on the array as a fraction of its tensor's range, root mean square."""
    conditions, found = bench.conditions, {}
    known: dict[int, Any] = {}
    for key, values in bench.values.items():
        if key in bench.on_grid:
            continue
        if not known:
            array = layout(
                conditions.point.profile,
                bits=conditions.bits,
                cell_bits=conditions.cell_bits,
                encoding=conditions.encoding,
            )
            known[0] = code_moments(conditions.point, array)
        codes = quantize(values, conditions.bits)
        found[key] = known[0].rms(codes.code) / (2**conditions.bits - 1)
    return found

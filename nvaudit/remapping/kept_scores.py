"""What candidates measured, kept chip by chip: an interrupted calibration goes on where it was."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.engine import QUANTISED
from nvaudit.perturb.open_chips import OpenChips
from nvaudit.perturb.outcome import Outcome
from nvaudit.perturb.record import ChipRecord
from nvaudit.perturb.workload import ArrayFile, GraphFile, Workload

_NOT_OF_CHIPS = frozenset({"folder", "original", "ideal", "inputs", "labels", "provider"})
"""Of a workload: what no chip depends on, and the samples, which the identity of the record names."""


class KeptScores:
    """The scores of a calibration, by the content of what was run.

    A candidate's name says nothing of its weights, which depend on what was tried before and on the time that
    there was. So scores are found by a digest of all that goes into a chip: what is found again is right
    whatever the search does, and what is not found is measured.

    Attributes
    ----------
    found : int
        Scores that an earlier run measured.
    """

    def __init__(self, record: ChipRecord) -> None:
        self._record, self._lock, self.found = record, threading.Lock(), 0
        self._added: dict[tuple[int, int], Outcome] = {}

    def find(self, task: int, trial: int) -> Outcome | None:
        """The score of a chip; None where it was not measured."""
        with self._lock:
            here = self._added.get((task, trial))
            if here is not None:
                return here
            outcome = self._record.find(0, trial - QUANTISED, task)
            self.found += outcome is not None
            return outcome

    def add(self, task: int, trial: int, outcome: Outcome) -> None:
        """Keep the score of a chip that is not kept yet."""
        with self._lock:
            if (task, trial) not in self._added:
                self._added[task, trial] = outcome
                self._record.add(0, trial - QUANTISED, outcome, task)

    def score(self, task: int, measure: Callable[[], float]) -> float:
        """A score that is of no chip: as it was measured, or measured now."""
        known = self.find(task, QUANTISED)
        if known is None:
            begin = time.perf_counter()
            known = Outcome(measure(), 0, time.perf_counter() - begin)
            self.add(task, QUANTISED, known)
        return known.value


class CandidateChips:
    """The chips of a candidate: those that are kept, and those that are run.

    Attributes
    ----------
    chip_s : float
        What a chip of the last run took, several at a time counted together.
    """

    def __init__(self, opening: Callable[[], OpenChips], kept: KeptScores | None, task: int) -> None:
        self._opening, self._kept, self._task = opening, kept, task
        self._opened: OpenChips | None = None
        self.chip_s = 0.0

    def run(self, trials: Sequence[int]) -> NDArray[np.float64]:
        """Score chips by number; :data:`nvaudit.perturb.engine.QUANTISED` is the one without noise."""
        begin = time.perf_counter()
        known = {} if self._kept is None else {trial: self._kept.find(self._task, trial) for trial in trials}
        values = {trial: outcome.value for trial, outcome in known.items() if outcome is not None}
        missing = [trial for trial in trials if trial not in values]
        if missing:
            # Opened here, as what is kept needs no model; and timed with it.
            self._opened = self._opened or self._opening()
            values |= zip(missing, self._opened.run(missing, self._done).tolist(), strict=True)
            self.chip_s = (time.perf_counter() - begin) / len(missing)
        else:
            self.chip_s = float(np.mean([one.seconds for one in known.values() if one is not None]))
        return np.array([values[trial] for trial in trials])

    def _done(self, trial: int, outcome: Outcome) -> None:
        if self._kept is not None:
            self._kept.add(self._task, trial, outcome)


def task_of(workload: Workload, *more: Any) -> int:
    """Number what is run by its content: graph, codes, devices and how they are run; not the samples."""
    digest = hashlib.sha256()
    for field in fields(workload):
        if field.name not in _NOT_OF_CHIPS:
            _feed(digest, (field.name, getattr(workload, field.name)))
    _feed(digest, more)
    return int.from_bytes(digest.digest()[:8], "little")


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, GraphFile):
        digest.update(Path(value.path).read_bytes())
        value = (value.digital, value.batch)
    if isinstance(value, ArrayFile):
        value = value.open()
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value).data)
    elif isinstance(value, Mapping):
        _feed(digest, sorted(value.items()))
    elif isinstance(value, tuple | list):
        digest.update(f"({len(value)} ".encode())
        for one in value:
            _feed(digest, one)
    elif is_dataclass(value) and not isinstance(value, type):
        _feed(digest, [(field.name, getattr(value, field.name)) for field in fields(value)])
    else:
        digest.update(f"{type(value).__name__} {value!r} ".encode())

"""Monte-Carlo: many chips, side by side, in any order, with the same result."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.engine import Outcome
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.pilots import load_scores, save_scores
from nvaudit.perturb.race import RaceTask
from nvaudit.perturb.record import ChipRecord, forgiven
from nvaudit.perturb.stop import Stop
from nvaudit.perturb.workers import Pool

Progress = Callable[[str, int, int], None]
"""Told (what, done, total)."""

_TIMED_S = 1.0
"""A round of chips of at least this length tells how long one takes."""

_LONG_S = 10.0
"""Beside this, starting a worker takes no time."""

_LOOK_S = 0.2
"""How often a run that waits for a chip looks whether it is to end."""

_DRAIN_S = 10.0
"""How long a run that is to end waits for the chips that are begun."""


@dataclass(frozen=True)
class Call:
    """A chip to be run at an operating point: on every sample, or in a race."""

    point: int
    trial: int
    task: RaceTask | None = None

    @property
    def digest(self) -> int:
        """0 for a chip on every sample, else what the outcome of the race depends on."""
        return 0 if self.task is None else self.task.digest


@dataclass
class ChipRunner:
    """Runs chips on a pool, and remembers what they cost.

    Attributes
    ----------
    pool : Pool
    metric : Metric
    keep : str or None
        File of the nominal outputs that the metric compares with.
    points, trials : int
        Operating points, and chips at each, for the progress.
    progress : callable
        Told of every settled chip.
    record : ChipRecord or None
        Calls that it has are not run again; the others are entered as they finish.
    stop : Stop
        Looked at between calls. Once a run has ended early (``stopped``), nothing more is run.
    images : list of int, by operating point
        Samples that chips were run on.
    seconds : list of float
        Of every chip on all samples.
    undefined : list of int
        Of the chips run here: samples whose outputs are not numbers.
    """

    pool: Pool
    metric: Metric
    keep: str | None
    points: int
    trials: int
    progress: Progress = lambda what, done, total: None
    record: ChipRecord | None = None
    stop: Stop = field(default_factory=Stop)
    images: dict[int, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    undefined: list[int] = field(default_factory=list)
    stopped: bool = False
    begun: dict[int, int] = field(default_factory=dict)
    _known: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    _scores: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)
    _settled: set[tuple[int, int]] = field(default_factory=set)
    _raced: set[tuple[int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        if self.record is None:
            return
        rows = self.record.rows[(self.record.rows["task"] == 0) | (self.record.rows["gap"] >= 0)]
        rows = rows[rows["trial"] < self.trials]
        self._settled.update(rows[["point", "trial"]].tolist())
        if self._settled:
            self.progress("chips", len(self._settled), self.total)

    @property
    def total(self) -> int:
        """Chips that the run will settle."""
        return self.points * self.trials

    def full(self, point: int, trials: Iterable[int]) -> dict[int, float]:
        """Metric of chips over all samples; of a run that was ended early, of those that are finished."""
        found: dict[int, float] = {}
        calls = [Call(point, trial) for trial in trials]
        self.run(calls, lambda call, outcome: found.__setitem__(call.trial, outcome.value))
        return found

    def races(
        self, point: int, trials: Sequence[int], task: RaceTask
    ) -> dict[int, tuple[Outcome, float | None]]:
        """Race chips; those that stay open are run on all samples.

        Returns
        -------
        dict of int to (Outcome, float or None)
            By trial: the race, and the metric over all samples where the race was not decided. Of a run
            that was ended early, only the chips that were begun; a race that is not decided may then have
            no metric.
        """
        races: dict[int, Outcome] = {}
        values: dict[int, float] = {}

        def done(call: Call, outcome: Outcome) -> list[Call]:
            if call.task is None:
                values[call.trial] = outcome.value
                return []
            races[call.trial] = outcome
            return [] if outcome.gap is not None else [Call(point, call.trial)]

        self.run([Call(point, trial, task) for trial in trials], done)
        return {trial: (races[trial], values.get(trial)) for trial in trials if trial in races}

    def pilots(self, point: int, trials: Sequence[int]) -> tuple[list[float], NDArray[np.float32]] | None:
        """Run chips on all samples; give their metrics and scores, shape (chip, sample).

        None where the run was ended early.
        """
        known = {trial: self._known_pilot(point, trial) for trial in trials}
        told = self._scores.keys()
        futures: dict[int, Future[tuple[Outcome, NDArray[np.float32]]]] = {
            trial: self.pool.submit(f"trial {trial}", "chip_scores", self.metric, self.keep, point, trial)
            for trial, found in known.items()
            if found is None
        }
        values, scores = [], []
        for trial, found in known.items():
            if found is None and not self._wait_for(futures, trial, point):
                return None
            outcome, row = futures[trial].result() if found is None else found
            if found is None and self.record is not None:
                self._save_scores(self.record, point, trial, row)
                if self.record.find(point, trial) is None:
                    self.record.add(point, trial, outcome)
            if (point, trial) not in told:
                self._note(Call(point, trial), outcome, lambda call, outcome: None)
            self._scores[point, trial] = row
            values.append(outcome.value)
            scores.append(row)
        return values, np.stack(scores)

    @staticmethod
    def _save_scores(record: ChipRecord, point: int, trial: int, row: NDArray[np.float32]) -> None:
        with forgiven(record.path.parent):
            save_scores(record.path.parent, point, trial, row)

    def _wait_for(self, futures: Mapping[int, Future[Any]], trial: int, point: int) -> bool:
        """Wait for a chip; whether it is finished, not given up because the run ends."""
        until = math.inf
        while not futures[trial].done():
            if until == math.inf and self._must_end(point):
                self.stopped, until = True, time.monotonic() + _DRAIN_S
                for future in futures.values():
                    future.cancel()
            if time.monotonic() > until:
                return False
            wait([futures[trial]], timeout=_LOOK_S)
        return not futures[trial].cancelled()

    def _must_end(self, point: int) -> bool:
        """Whether the run is to end now: one whose time is over has at least a chip to show."""
        return self.stop.due() and (self.stop.interrupted or self.begun.get(point, 0) > 0)

    def _known_pilot(self, point: int, trial: int) -> tuple[Outcome, NDArray[np.float32]] | None:
        if (point, trial) in self._scores:
            return self._known[point, trial], self._scores[point, trial]
        outcome = None if self.record is None else self.record.find(point, trial)
        if self.record is None or outcome is None:
            return None
        scores = load_scores(self.record.path.parent, point, trial, outcome.images)
        return None if scores is None else (outcome, scores)

    def run(self, calls: Iterable[Call], done: Callable[[Call, Outcome], Iterable[Call] | None]) -> None:
        """Run calls.

        Parameters
        ----------
        calls : iterable of Call
        done : callable
            Told of every outcome, in order of completion; may give further calls, which come first.

        A run that is to end brings the chips that are begun to their end, for some seconds: in a race they
        take long because of what they are like, and without them the others would look better.
        """
        if self.stopped:
            return
        todo = deque(calls)
        running: dict[Future[Outcome], Call] = {}
        until = math.inf
        try:
            while (todo or running) and time.monotonic() < until:
                if not self.stopped and self._must_end(
                    next(iter((*running.values(), *islice(todo, 1)))).point
                ):
                    self.stopped, until = True, time.monotonic() + _DRAIN_S
                    todo = self._begun_only(todo, running)
                self._submit_some(todo, running, done)
                finished, _ = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                for future in finished:
                    call = running.pop(future)
                    outcome = future.result()
                    if self.record is not None:
                        self.record.add(call.point, call.trial, outcome, call.digest)
                    todo.extendleft(self._note(call, outcome, done))
        finally:
            for future, call in running.items():
                if not future.cancel():
                    self._begin(call)

    def _submit_some(
        self,
        todo: deque[Call],
        running: dict[Future[Outcome], Call],
        done: Callable[[Call, Outcome], Iterable[Call] | None],
    ) -> None:
        """Submit as many calls as the pool has use for; what is known already is not run again."""
        while todo and len(running) < self.pool.depth:
            call = todo.popleft()
            if call.task is None and (call.point, call.trial) in self._known:
                todo.extendleft(done(call, self._known[call.point, call.trial]) or ())
                continue
            known = None if self.record is None else self.record.find(call.point, call.trial, call.digest)
            if known is None:
                running[self._submit(call)] = call
            else:
                todo.extendleft(self._note(call, known, done))

    def _begun_only(self, todo: Iterable[Call], running: dict[Future[Outcome], Call]) -> deque[Call]:
        """Drop the calls of chips that are not begun; give those that are still to be made."""
        left = [call for call in todo if (call.point, call.trial) in self._raced]
        for future, call in list(running.items()):
            if future.cancel():
                del running[future]
                left += [call] if (call.point, call.trial) in self._raced else []
        return deque(sorted(left, key=lambda call: call.trial))

    def _begin(self, call: Call) -> None:
        self.begun[call.point] = max(self.begun.get(call.point, 0), call.trial + 1)

    def known(self, point: int, most: int) -> NDArray[np.float64]:
        """Metrics of the first chips that are known on all samples, without a gap, ``most`` of them."""
        values: list[float] = []
        while len(values) < most and (point, len(values)) in self._known:
            values.append(self._known[point, len(values)].value)
        return np.array(values)

    def _submit(self, call: Call) -> Future[Outcome]:
        what = f"trial {call.trial}"
        if call.task is None:
            return self.pool.submit(what, "chip", self.metric, self.keep, call.point, call.trial)
        return self.pool.submit(what, "race", self.metric, self.keep, call.point, call.trial, call.task)

    def _note(
        self, call: Call, outcome: Outcome, done: Callable[[Call, Outcome], Iterable[Call] | None]
    ) -> Iterable[Call]:
        self.undefined.append(outcome.undefined)
        self.images[call.point] = self.images.get(call.point, 0) + outcome.images
        self._begin(call)
        if call.task is not None:
            self._raced.add((call.point, call.trial))
        if call.task is None:
            self._known[call.point, call.trial] = outcome
            self.seconds.append(outcome.seconds)
        if call.task is None or outcome.gap is not None:
            self.settle(call.point, call.trial)
        return done(call, outcome) or ()

    def settle(self, point: int, trial: int) -> None:
        """Count a chip that needs nothing more, once."""
        before = len(self._settled)
        self._settled.add((point, trial))
        if len(self._settled) > before:
            self.progress("chips", len(self._settled), self.total)


@dataclass(frozen=True)
class TrialTable:
    """The metric of every chip, each run on all samples.

    Attributes
    ----------
    values : ndarray, float64, shape (point, trial)
    images : int
        Inferences made.
    chip_seconds : float
        Median seconds of one chip inside a worker.
    wall_seconds : float
    """

    values: NDArray[np.float64]
    images: int
    chip_seconds: float
    wall_seconds: float


def run_trials(
    pool: Pool,
    metric: Metric,
    keep: str | None,
    points: int,
    trials: int,
    progress: Progress = lambda what, done, total: None,
    order: NDArray[np.integer] | None = None,
    record: ChipRecord | None = None,
) -> TrialTable:
    """Run every chip at every operating point on all samples.

    Parameters
    ----------
    pool : Pool
        Whose workers run the chips.
    metric : Metric
        What is measured.
    keep : str or None
        File of the nominal outputs that the metric compares with.
    points, trials : int
        Operating points and chips at each.
    progress : callable
        Told of every finished chip.
    order : ndarray of int, optional
        Order in which the chips are run; it has no influence on the values.
    record : ChipRecord, optional
        Chips that it has are not run again; the others are entered as they finish.

    Returns
    -------
    TrialTable
    """
    sequence = range(points * trials) if order is None else order.tolist()
    values = np.full((points, trials), np.nan)
    runner = ChipRunner(pool, metric, keep, points, trials, progress, record)
    begin = time.perf_counter()

    def done(call: Call, outcome: Outcome) -> None:
        values[call.point, call.trial] = outcome.value

    runner.run((Call(*divmod(index, trials)) for index in sequence), done)
    return TrialTable(
        values, sum(runner.images.values()), float(np.median(runner.seconds)), time.perf_counter() - begin
    )


@dataclass(frozen=True)
class Pace:
    """How fast chips go: ``seconds`` for each, all workers together, measured on ``chips`` of them."""

    chips: int
    seconds: float


def time_chips(pool: Pool, metric: Metric, keep: str | None, point: int) -> Pace:
    """Measure how fast chips go, by a few of them.

    Parameters
    ----------
    pool, metric, keep
        As in :func:`run_trials`.
    point : int
        The operating point.

    Returns
    -------
    Pace
        The first round, one chip for each worker, starts the workers. It counts only if it takes so long
        that this does not matter; else rounds follow, each longer than the one before, up to a second.
    """
    size = pool.width
    seconds = _round(pool, metric, keep, point, size)
    if seconds < _LONG_S:
        size *= 2
        seconds = _round(pool, metric, keep, point, size)
    while seconds < _TIMED_S:
        size *= min(16, 1 + math.ceil(_TIMED_S / seconds))
        seconds = _round(pool, metric, keep, point, size)
    return Pace(size, seconds / size)


def _round(pool: Pool, metric: Metric, keep: str | None, point: int, size: int) -> float:
    """Seconds that some chips take."""
    begin = time.perf_counter()
    futures = [pool.submit(f"trial {trial}", "chip", metric, keep, point, trial) for trial in range(size)]
    for future in futures:
        future.result()
    return time.perf_counter() - begin

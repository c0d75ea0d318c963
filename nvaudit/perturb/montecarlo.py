"""Monte-Carlo: many chips, side by side, in any order, with the same result."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.engine import QUANTISED, Engine
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.outcome import Outcome
from nvaudit.perturb.race import RaceTask
from nvaudit.perturb.record import ChipRecord
from nvaudit.perturb.schedule import Ending, Progress, completed, in_order, quiet
from nvaudit.perturb.session import feed_samples
from nvaudit.perturb.stop import Stop
from nvaudit.perturb.variant import WHOLE, Variant
from nvaudit.perturb.workers import Pool
from nvaudit.perturb.workload import Workload
from nvaudit.rng import ChipAddress, chip_name

_TIMED_S = 1.0
"""A round of chips of at least this length tells how long one takes."""

_LONG_S = 10.0
"""Beside this, starting a worker takes no time."""

_RECENT = 9
"""So many calls say how long the next one takes: a machine that others use changes its pace."""


@dataclass(frozen=True)
class ChipRun:
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
    images : dict of int to int
        By operating point: samples that chips were run on.
    seconds : list of float
        Of every chip on all samples.
    undefined : list of int
        Of the chips run here: samples whose outputs are not numbers.
    begun : dict of int to int
        By operating point: the first chips up to which all were begun. Of a run that is ended early these
        are its sample: chips that were slow, and so not finished, are in it as much as the others.
    """

    pool: Pool
    metric: Metric
    keep: str | None
    points: int
    trials: int
    progress: Progress = quiet
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
    _begun_chips: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    _raced: set[tuple[int, int]] = field(default_factory=set)
    _took: dict[bool, deque[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.record is None:
            return
        # A chip is settled by a run on every sample (task 0) or by a race that was decided (gap ≥ 0).
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
        values: dict[int, float] = {}
        calls = [ChipRun(point, trial) for trial in trials]
        self.run(calls, lambda call, outcome: values.__setitem__(call.trial, outcome.value))
        return values

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

        def done(call: ChipRun, outcome: Outcome) -> list[ChipRun]:
            if call.task is None:
                values[call.trial] = outcome.value
                return []
            races[call.trial] = outcome
            return [] if outcome.gap is not None else [ChipRun(point, call.trial)]

        self.run([ChipRun(point, trial, task) for trial in trials], done)
        return {trial: (races[trial], values.get(trial)) for trial in trials if trial in races}

    def certain(self, point: int, trials: Sequence[int], task: RaceTask) -> dict[int, Outcome]:
        """Race chips until they are below a value for certain; those that are not stay open.

        Run on every sample later, a chip goes on where its race ended, unless that was recalled from a
        record, which does not have the scores.
        """
        races: dict[int, Outcome] = {}
        self.run(
            [ChipRun(point, trial, task) for trial in trials],
            lambda call, outcome: races.__setitem__(call.trial, outcome),
        )
        return races

    def pilots(self, point: int, trials: Sequence[int]) -> tuple[list[float], NDArray[np.float32]] | None:
        """Run chips on all samples; give their metrics and scores, shape (chip, sample).

        None where the run was ended early.
        """
        known = {trial: self._known_pilot(point, trial) for trial in trials}
        pilots = {trial: pilot for trial, pilot in known.items() if pilot is not None}

        def submit(call: ChipRun) -> Future[tuple[Outcome, NDArray[np.float32]]]:
            return self.pool.submit(
                f"trial {call.trial}", "chip_scores", self.metric, self.keep, point, call.trial,
                self._begun_chips.get((point, call.trial)),
            )  # fmt: skip

        def note(trial: int, pilot: tuple[Outcome, NDArray[np.float32]]) -> None:
            if (point, trial) not in self._scores:
                self._note(ChipRun(point, trial), pilot[0])
                self._scores[point, trial] = pilot[1]

        for trial, pilot in pilots.items():
            note(trial, pilot)
        todo = deque(ChipRun(point, trial) for trial in trials if trial not in pilots)
        for call, pilot, _ in completed(self.pool, todo, submit, ending=self._ending):
            pilots[call.trial] = pilot
            if self.record is not None:
                self.record.add_pilot(point, call.trial, *pilot)
            note(call.trial, pilot)
        if len(pilots) < len(trials):
            return None
        return [pilots[trial][0].value for trial in trials], np.stack([pilots[trial][1] for trial in trials])

    @property
    def _ending(self) -> Ending[ChipRun]:
        return Ending(self._ends, self._begun_only, self._begin, self.stop.drain_s)

    def _ends(self, call: ChipRun) -> bool:
        """Whether the run is to end now: one whose time is over has at least a chip to show."""
        if not self.stopped and self.stop.due(self._typical_s(call)):
            self.stopped = self.stop.interrupted or self.begun.get(call.point, 0) > 0
        return self.stopped

    def _typical_s(self, call: ChipRun) -> float:
        """Seconds of a call of this kind: none is begun that would be done too late."""
        return float(np.median(took)) if (took := self._took.get(call.task is None)) else 0.0

    def _known_pilot(self, point: int, trial: int) -> tuple[Outcome, NDArray[np.float32]] | None:
        if (point, trial) in self._scores:
            return self._known[point, trial], self._scores[point, trial]
        return None if self.record is None else self.record.find_pilot(point, trial)

    def run(
        self, calls: Iterable[ChipRun], done: Callable[[ChipRun, Outcome], Iterable[ChipRun] | None]
    ) -> None:
        """Run calls.

        Parameters
        ----------
        done : callable
            Told of every outcome, in order of completion; may give further calls, which come first.
        """
        if self.stopped:
            return
        todo = deque(calls)
        for call, outcome, known in completed(self.pool, todo, self._submit, self._recall, self._ending):
            if outcome.rest is not None:
                self._enter(ChipRun(call.point, call.trial), outcome.rest)
            if outcome.scores is not None:
                self._begun_chips[call.point, call.trial] = outcome
            if not known and self.record is not None:
                self.record.add(call.point, call.trial, outcome, call.digest)
            # The run of a chip on every sample serves several questions and its cost is counted once.
            if call.task is not None or (call.point, call.trial) not in self._known:
                self._note(call, outcome)
            # Of a race that stayed open and that is recalled, the run on every sample may be missing; it
            # follows at once.
            todo.extendleft(done(call, outcome) or ())

    def _enter(self, call: ChipRun, outcome: Outcome) -> None:
        """Keep what a race that stayed open found of a chip on every sample, if that is not known."""
        if self._recall(call) is not None:
            return
        # Before the race itself: where the run is killed in between, both are made again and counted alike.
        if self.record is not None:
            self.record.add(call.point, call.trial, outcome)
        self._note(call, outcome)

    def _recall(self, call: ChipRun) -> Outcome | None:
        """What is known of a call already, from this run or the record."""
        if call.task is None and (call.point, call.trial) in self._known:
            return self._known[call.point, call.trial]
        return None if self.record is None else self.record.find(call.point, call.trial, call.digest)

    def _begun_only(self, calls: Iterable[ChipRun]) -> Iterable[ChipRun]:
        """Drop the calls of chips that are not begun; give those that are still to be made."""
        # Chips whose race stayed open are mostly near a band. Dropped for being slow they would bias the
        # sample that is left, so their runs on every sample are still made.
        begun = (call for call in calls if (call.point, call.trial) in self._raced)
        return sorted(begun, key=lambda call: call.trial)

    def _begin(self, call: ChipRun) -> None:
        self.begun[call.point] = max(self.begun.get(call.point, 0), call.trial + 1)

    def known(self, point: int, most: int) -> NDArray[np.float64]:
        """Metrics of the first chips that are known on all samples, without a gap, ``most`` of them."""
        values: list[float] = []
        while len(values) < most and (point, len(values)) in self._known:
            values.append(self._known[point, len(values)].value)
        return np.array(values)

    def _submit(self, call: ChipRun) -> Future[Outcome]:
        what = f"trial {call.trial}"
        if call.task is None:
            begun = self._begun_chips.get((call.point, call.trial))
            return self.pool.submit(
                what, "chip", self.metric, self.keep, call.point, call.trial, WHOLE, begun
            )
        finish = (call.point, call.trial) not in self._known
        return self.pool.submit(
            what, "race", self.metric, self.keep, call.point, call.trial, call.task, finish
        )

    def _note(self, call: ChipRun, outcome: Outcome) -> None:
        took = outcome.seconds if outcome.rest is None else outcome.rest.seconds  # which holds the race's
        self._took.setdefault(call.task is None, deque(maxlen=_RECENT)).append(took)
        self.undefined.append(outcome.undefined)
        self.images[call.point] = self.images.get(call.point, 0) + outcome.images
        self._begin(call)
        if call.task is None:
            self._known[call.point, call.trial] = outcome
            self.seconds.append(outcome.seconds)
        else:
            self._raced.add((call.point, call.trial))
        if call.task is None or outcome.gap is not None:
            self._settle(call.point, call.trial)

    def _settle(self, point: int, trial: int) -> None:
        """Count a chip that needs nothing more, once."""
        before = len(self._settled)
        self._settled.add((point, trial))
        if len(self._settled) > before:
            self.progress("chips", len(self._settled), self.total)


@dataclass(frozen=True)
class VariantRunner:
    """Runs variants of chips.

    Attributes
    ----------
    keep : str or None
        File of the nominal outputs that the metric compares with.
    point : int
        The operating point.
    progress : callable
        Told (what, done, total).
    stop : Stop
        Looked at between calls.
    """

    pool: Pool
    metric: Metric
    keep: str | None
    point: int
    progress: Progress
    stop: Stop = field(default_factory=Stop)

    def scores(
        self,
        what: str,
        calls: Sequence[tuple[ChipAddress | None, Variant]],
        images: int,
        least: int = 0,
        group: int = 1,
    ) -> Iterator[NDArray[np.float64]]:
        """Score every call's samples.

        Parameters
        ----------
        what : str
            For the progress.
        calls : sequence of (ChipAddress, Variant)
            None is the unmodified model.
        images : int
            Samples of each, spread evenly over the set.
        least : int
            So many calls are made even where the time is over.
        group : int
            The calls after these are of use in groups of so many.

        Yields
        ------
        ndarray, float64, shape (images,)
            In the order of the calls, so that sums over them do not depend on who was fast; of a run that
            is ended early, of the first ones.
        """
        self.progress(what, 0, len(calls))

        def submit(call: tuple[ChipAddress | None, Variant]) -> Future[NDArray[np.float64]]:
            trial, variant = call
            who = "the unmodified model" if trial is None else chip_name(trial)
            arguments = (self.metric, self.keep, self.point, trial, variant, images)
            return self.pool.submit(who, "variant_scores", *arguments)

        begin, done = time.monotonic(), 0

        def due(number: int) -> bool:
            each = (time.monotonic() - begin) / done if done else 0.0
            # A group that would not be whole in time is dropped, so it is not begun.
            wanted = group - max(number - least, 0) % group
            return number >= least and self.stop.due(wanted * each)

        for done, (_, scores) in enumerate(in_order(self.pool, calls, submit, due, self.stop.drain_s), 1):
            self.progress(what, done, len(calls))
            yield scores


def sample_seconds(workload: Workload) -> float:
    """Measure in this process what a sample of a chip takes, by a few of them: a second or two at most.

    Small batches take longer for each sample than those of the run; larger ones are tried while these are
    quick. Samples that influence each other run as they do in the run, so many at a time: a graph may not run
    on fewer.
    """
    engine, fixed = Engine(workload), workload.template.batch
    inputs = {name: file.open() for name, file in workload.inputs.items()}
    axes = {name: file.axis for name, file in workload.inputs.items()}
    # The first one is not timed: it makes the session, and touches its memory.
    whole = fixed or workload.together
    sizes = [whole, whole] if whole else [1, 1, 8, 64]
    each = math.inf

    def batches() -> Iterator[dict[str, NDArray[Any]]]:
        for number, size in enumerate(sizes):
            if number > 1 and each * size > _TIMED_S:
                return
            count = min(size, workload.count)
            yield feed_samples(inputs, axes, slice(0, count), count, fixed)

    begin = None
    chips = engine.values([workload.output], batches(), 0, QUANTISED)
    for size, _ in zip(sizes, chips, strict=False):
        now = time.perf_counter()
        if begin is not None:
            each = (now - begin) / min(size, workload.count)
        begin = time.perf_counter()
    return each


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
        As of a :class:`ChipRunner`.

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
        # Aims a little beyond the wanted time; 16 at most, since a round of some milliseconds is a poor
        # measure.
        size *= min(16, 1 + math.ceil(_TIMED_S / seconds))
        seconds = _round(pool, metric, keep, point, size)
    return Pace(size, seconds / size)


def _round(pool: Pool, metric: Metric, keep: str | None, point: int, size: int) -> float:
    """Seconds that some chips take."""
    begin = time.perf_counter()

    def submit(trial: int) -> Future[Outcome]:
        return pool.submit(f"trial {trial}", "chip", metric, keep, point, trial)

    for _ in completed(pool, deque(range(size)), submit):
        pass
    return time.perf_counter() - begin

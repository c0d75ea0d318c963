"""How the chips of a run are measured: all on every sample, in races, or until a gate is decided."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.jobs.baselines import Baseline
from nvaudit.perturb.engine import PROBE_SAMPLES
from nvaudit.perturb.gating import FIRST_BLOCK, GateQuestion, draw_until_decided, gate_task
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.montecarlo import ChipRunner, sample_seconds
from nvaudit.perturb.racing import RaceQuestion, Scouting, first_chips, pilot_count, run_races, scout
from nvaudit.perturb.record import ChipRecord
from nvaudit.perturb.schedule import Progress
from nvaudit.perturb.stop import DEFAULT_S, Stop
from nvaudit.perturb.workers import Pool
from nvaudit.report.chips import Chips, GateCount, shift_at, worst_first
from nvaudit.report.sections import RARE_CHIP, Interrupted, TimeBox
from nvaudit.report.wording import count_text, duration_estimate
from nvaudit.session import Session, prepare
from nvaudit.sharing import shared
from nvaudit.spec import RunSpec
from nvaudit.stats.binomial import trials_for_bound
from nvaudit.stats.drop import drop_verdict, ranks_for_drop
from nvaudit.stats.gate import Verdict
from nvaudit.stats.kpp import kpp_of_ranks
from nvaudit.stats.ranks import RACE_ERROR, TOLERANCE, RankRange, rank_ranges, tail_range
from nvaudit.stats.tail import tail_chips

RACE_SAMPLES = 1000
RACE_CHIPS = 100
"""With fewer samples or chips, a session for each race costs more than the race saves."""


_FEWEST_UNLABELLED, _FEWEST_LABELLED, _FEWEST_TIMED = 32, 256, 16
"""Samples of a large model, at least: without labels, with labels, and in a time of the user's."""

_PLANNED = 0.8
"""Share of the user's time that is planned with, where a chip could not be run on all samples."""

RACED_SHARE = 0.25
"""About the share of the images that races look at."""


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes
    ----------
    chips : tuple of Chips
        Of each point that was come to: all, unless the run was ended early.
    chip_seconds : float
        Median of one on every sample.
    done, wanted : int
        Chips, all points together.
    ended : bool
        Whether the run was ended early.
    baseline : Baseline or None
        What they are compared with.
    rare_ended : tuple of int or None
        Rare chips that were evaluated, and that are wanted, where the run was ended among these.
    """

    chips: tuple[Chips, ...]
    chip_seconds: float
    notes: tuple[str, ...]
    done: int
    wanted: int
    ended: bool
    baseline: Baseline | None = None
    rare_ended: tuple[int, int] | None = None


def measure_chips(
    pool: Pool,
    session: Session,
    metric: Metric,
    keep: str | None,
    progress: Progress,
    record: ChipRecord | None,
    stop: Stop,
    minutes: float | None = None,
    baseline: Baseline | None = None,
) -> Measurement:
    """Measure the chips that a specification asks for.

    Parameters
    ----------
    keep : str or None
        File of the nominal outputs that the metric compares with.
    stop : Stop
        Ends the run early.
    minutes : float or None
        What is left of the time for all points.
    baseline : Baseline or None
        Whose chips these are compared with.

    Raises
    ------
    KeyboardInterrupt
        If the run was interrupted before the first chip was finished.
    """
    spec = session.spec
    gate = spec.draws_until_decided
    if spec.max_minutes is not None:
        progress = _limited(progress, spec.max_minutes)
    most = spec.most_trials if gate else spec.trials
    if gate and baseline is not None:
        most = min(most, baseline.chips)
    runner = ChipRunner(pool, metric, keep, len(session.points), most, progress, record, stop)
    reason = race_obstacle(session, metric) if baseline is None else "--baseline compares exact values"
    margin = None
    if reason is None and session.dataset.count >= RACE_SAMPLES and most >= RACE_CHIPS:
        margin = shared(
            session.ideal_key("margins", metric),
            lambda: pool.submit("the unmodified model", "margins", metric, keep).result(),
        )
    end = None if minutes is None else time.monotonic() + 60 * minutes
    chips, done, ended = [], 0, False
    for point in range(len(session.points)):
        if end is not None:  # every point has its share of what is left
            # What a point leaves over is shared by those after it.
            stop.end_in((end - time.monotonic()) / (len(session.points) - point))
            runner.stopped = False
        lane = _Lane(runner, session, point, margin, baseline)
        count = lane.gate(most) if gate else None
        point_chips = lane.chips(spec.trials if count is None else count.trials, count)
        ended |= runner.stopped
        if point_chips is not None:
            chips.append(point_chips)
            done += max(len(point_chips.low), 0 if count is None else count.trials)
        if stop.interrupted:
            break
    stop.end_in(None)
    if not chips:
        raise KeyboardInterrupt
    stop.time_over = ended and not stop.interrupted
    notes = _undefined(runner.undefined, session.dataset.count)
    if reason is not None and not spec.exhaustive:
        notes = (f"every chip was run on every sample: {reason}", *notes)
    seconds = float(np.median(runner.seconds)) if runner.seconds else 0.0
    wanted = len(session.points) * most if ended else done
    return Measurement(tuple(chips), seconds, notes, done, wanted, ended, baseline)


def sizes_are_free(spec: RunSpec) -> bool:
    """Whether the user has said nothing of how many chips there are, of how many samples, and of the time."""
    given = {"trials", "limit", "tail", "rare"} & spec.model_fields_set
    if any(getattr(spec, name) not in (None, ()) for name in given) or spec.max_minutes is not None:
        return False
    return not (spec.gated or spec.exhaustive)


def with_time_for(session: Session, left_s: float) -> Session:
    """A session on as many of its samples as there is time for; see :func:`fitting_samples`."""
    fewer = fitting_samples(session, left_s)
    if fewer is None:
        return session
    count, note = fewer
    folder = Path(session.workload.folder) / "fewer"
    folder.mkdir()
    spec = session.spec.model_copy(update={"limit": count})
    fitting = prepare(spec, folder, rebatching=session.rebatch.status == "rebatched")
    fitting.notes.append(note)
    fitting.events.extend(session.events)
    fitting.timing.update(session.timing)
    return fitting


def fitting_samples(session: Session, left_s: float) -> tuple[int, str] | None:
    """How many samples there is time for where all are too many, with a note; None where they are not.

    Parameters
    ----------
    left_s : float
        Of the time that the user gave; infinite without one.

    Notes
    -----
    In a time of the user's all are too many where not one chip could be done on them. By default they are
    where the fewest chips that give both ends of the interval of every KPP would take twice as long as chips
    may; their number is then a power of two, which a repeated run hardly misses. A gate asks about the
    samples as given.
    """
    spec, data = session.spec, session.dataset
    timed = math.isfinite(left_s)
    if data.together or spec.gated or not (timed or sizes_are_free(spec)):
        return None
    sample_s = sample_seconds(session.workload)
    if timed:
        needed = audit_seconds(session, sample_s, 1)
        count = max(_FEWEST_TIMED, int(_PLANNED * data.count * left_s / needed))
        if needed <= left_s or count >= data.count:
            return None
        return count, (
            f"the first {count:,} of {data.count:,} samples: there was no time for one chip on all of "
            "them (--max-minutes); these chips are not kept"
        )
    chips, room = _fewest_chips(spec), 2 * DEFAULT_S
    needed = audit_seconds(session, sample_s, chips)
    if needed <= room:
        return None
    fewest = _FEWEST_UNLABELLED if data.label_kind == "none" else _FEWEST_LABELLED
    passes = 3 + len(session.points) * chips / max(spec.workers, 1)
    count = max(fewest, 1 << int(math.log2(max(room / sample_s / passes, 1))))
    if count >= data.count:
        return None
    return count, (
        f"the first {count:,} of {data.count:,} samples: {chips:,} chips on all of them would "
        f"take about {duration_estimate(needed)}; --limit {data.count} asks for all"
    )


def audit_seconds(session: Session, sample_s: float, chips: int) -> float:
    """About how long an audit takes, by the seconds of a sample; a gate may end it sooner."""
    spec, count = session.spec, session.dataset.count
    raced = count >= RACE_SAMPLES and chips >= RACE_CHIPS and not spec.exhaustive
    before = min(count, PROBE_SAMPLES) + 2 * count  # the first batch, the unmodified and the quantised model
    # The first chip is not shared by the workers.
    each = max(chips * (RACED_SHARE if raced else 1.0) / max(spec.workers, 1), 1)
    return sample_s * (before + len(session.points) * each * count)


def _fewest_chips(spec: RunSpec) -> int:
    """Chips that give both ends of the interval of every KPP."""
    return max(trials_for_bound(k, spec.confidence, sided=2) for k in spec.percentiles)


def fit_default_chips(session: Session, metric: Metric, chip_s: float, width: int) -> None:
    """Take fewer chips of a large model where the user has said nothing of their number, and say so.

    Parameters
    ----------
    chip_s : float
        Seconds of a chip on all samples in one worker.
    width : int
        Workers.

    Notes
    -----
    Never fewer than give both ends of the interval of every KPP. The chips are the first of those that there
    would have been. A gate, which stops when it is decided, and a run with a time of its own stay as they
    are.
    """
    spec = session.spec
    raced = session.dataset.count >= RACE_SAMPLES and race_obstacle(session, metric) is None
    each = chip_s * (RACED_SHARE if raced else 1.0) * len(session.points) / max(width, 1)
    trials = max(_fewest_chips(spec), int(DEFAULT_S / max(each, 1e-9)))
    if spec.trials * each <= DEFAULT_S or trials >= spec.trials:
        return
    session.notes.append(
        f"{count_text(trials, 'chip')} instead of {spec.trials:,}, which would take about "
        f"{duration_estimate(spec.trials * each)} (these: {duration_estimate(trials * each)}); --trials "
        f"{spec.trials} asks for all, --limit for fewer samples, --max-minutes for the best in a time"
    )
    session.spec = spec.model_copy(update={"trials": trials})


def _limited(progress: Progress, minutes: float) -> Progress:
    """Say with every step that it may end before all chips are done."""
    return lambda what, done, total: progress(f"{what} (at most {minutes:g} min)", done, total)


def _as_baseline(ranges: Sequence[RankRange], trials: int, confidence: float) -> tuple[RankRange, ...]:
    """Ranks that a later gate on the drop needs of these chips too; they are wanted as the interval's are."""
    confidence += RACE_ERROR * (1 - confidence)  # whose verdict makes room for wrong stops
    wider = []
    for rank in ranges:
        few, many = ranks_for_drop(rank.percentile, trials, confidence)
        first = rank.first if rank.worst_too else max(0, min(rank.first, few - rank.shift))
        beyond = many - 1 + (0 if rank.worst_too else rank.shift)
        wider.append(replace(rank, first=first, last=min(trials - 1, max(rank.last, beyond))))
    return tuple(wider)


def _undefined(counts: list[int], samples: int) -> tuple[str, ...]:
    """Say on how many chips outputs are not numbers."""
    bad = [count for count in counts if count]
    if not bad:
        return ()
    return (
        f"outputs that are not numbers (NaN): on {len(bad)} of {count_text(len(counts), 'chip')}, for up to "
        f"{max(bad)} of {count_text(samples, 'sample')}; they count as wrong",
    )


def race_obstacle(session: Session, metric: Metric) -> str | None:
    """Say why chips cannot be stopped early; None if they can."""
    if session.spec.exhaustive:
        return "--exhaustive"
    if metric.corpus:
        return f"{metric.name} has one value for all samples together"
    if metric.kind == "error_rate":
        return "samples count by the length of their texts"
    if metric.unit != "fraction":
        return f"{metric.name} has no bounds, which races need"
    if metric.uneven:
        return "samples have different numbers of labelled positions"
    if session.workload.read_noise:
        return (
            "read noise is drawn anew at every inference, so a chip's metric depends on the order of samples"
        )
    if any(not draw.by_batch for draw in session.loaded.draws):
        return "the model draws random numbers, so a chip's metric depends on the order of samples"
    if session.rebatch.coupled:
        return "samples of a batch influence each other in this model"
    return None


@dataclass
class _Lane:
    """One operating point; without a margin every chip is run on every sample."""

    runner: ChipRunner
    session: Session
    point: int
    margin: NDArray[np.float64] | None
    baseline: Baseline | None = None
    scouting: Scouting | None = None
    pilots: int = 0

    def gate(self, most: int) -> GateCount:
        """Draw chips until the gate is decided."""
        spec = self.session.spec
        question = GateQuestion(spec.min_kpp, spec.percentiles, spec.confidence, most, spec.max_minutes)
        stop = self.runner.stop

        def time_over() -> bool:
            return not stop.interrupted and (self.runner.stopped or stop.due())

        if self.margin is not None and spec.min_kpp is not None:
            raced = self._raced(question, spec.min_kpp, self.margin)
            return draw_until_decided(question, raced, time_over=time_over)
        drawn: list[float] = []
        return draw_until_decided(
            question, self._exact(spec.min_kpp, drawn), lambda: set(self._drops(np.asarray(drawn))), time_over
        )

    def _exact(self, threshold: float | None, drawn: list[float]) -> Callable[[range], list[bool]]:
        """Judge chips by their metric, added to ``drawn`` in order up to the first that is missing."""
        better = self.runner.metric.higher_is_better

        def judge(trials: range) -> list[bool]:
            metrics = self.runner.full(self.point, trials)
            values = [metrics[trial] for trial in takewhile(metrics.__contains__, trials)]
            drawn.extend(values)
            if threshold is None:
                return [False] * len(values)
            return [value < threshold if better else value > threshold for value in values]

        return judge

    def _drops(self, after: NDArray[np.float64]) -> Iterator[Verdict]:
        """Verdicts of the gates on the drop by the chips drawn so far."""
        spec = self.session.spec
        if self.baseline is None or spec.max_drop is None:
            return
        sign = 1.0 if self.runner.metric.higher_is_better else -1.0
        chips = self.baseline.values[self.session.points[self.point].sigma]
        before = chips.first(len(after)).higher_is_better(self.runner.metric.higher_is_better)
        for percentile in spec.percentiles:
            yield drop_verdict(before, sign * after, spec.max_drop, percentile, spec.confidence)

    def _raced(
        self, question: GateQuestion, threshold: float, margin: NDArray[np.float64]
    ) -> Callable[[range], list[bool]]:
        # Few are enough to tell hard samples from easy ones: a gate may need no more chips than these.
        scouting = self._scout(FIRST_BLOCK, margin)
        if scouting is None:
            return lambda trials: []
        task = gate_task(scouting.file, scouting.identity, len(margin), question)
        pilots = len(scouting.values)

        def judge(trials: range) -> list[bool]:
            exact = [bool(v < threshold) for v in scouting.values[trials.start : trials.stop]]
            rest = trials[max(0, pilots - trials.start) :]
            raced = self.runner.races(self.point, rest, task)
            fails = exact
            for trial in rest:
                race, value = raced.get(trial, (None, None))
                if value is not None:
                    fails.append(value < threshold)
                elif race is not None and race.gap is not None:
                    fails.append(race.gap == 0)
                else:  # the run is to end
                    break
            return fails

        return judge

    def _scout(self, trials: int, margin: NDArray[np.float64]) -> Scouting | None:
        pilots = pilot_count(trials)
        if self.scouting is None or len(self.scouting.values) != pilots:
            folder = Path(self.session.workload.folder)
            self.pilots = max(self.pilots, pilots)
            self.scouting = scout(self.runner, self.point, range(pilots), margin, folder)
        return self.scouting

    def chips(self, trials: int, gate: GateCount | None) -> Chips | None:
        """Measure the first chips; None where the run was ended before the first one was finished."""
        if self.runner.stopped:  # while the gate was decided
            return self._first(gate)
        if self.margin is None or trials < RACE_CHIPS:
            self.runner.full(self.point, range(trials))
            self.pilots = trials
            return self._first(gate)
        # Races may be let off a few ranks (a tenth of the KPP's interval), which makes them cheaper. Where
        # the user bounds the width and it turns out larger, the same chips race once more for the exact
        # rank.
        tolerance = self.session.spec.tolerance
        chips = self._race(trials, self.margin, 0.0 if tolerance == 0 else TOLERANCE, gate)
        if tolerance is None or chips is None or self.runner.stopped:
            return chips
        if self._width(chips) > tolerance:
            chips = self._race(trials, self.margin, 0.0, gate)
        return chips

    def _first(self, gate: GateCount | None) -> Chips | None:
        """The first chips that were run on every sample whatever they are like."""
        judged = 0 if gate is None else gate.trials
        values = self.runner.known(self.point, judged if self.margin is None and gate else self.pilots)
        if not len(values):
            return None
        return Chips.known(values, self.runner.images[self.point], gate if judged else None)

    def _race(
        self, trials: int, margin: NDArray[np.float64], share: float, gate: GateCount | None
    ) -> Chips | None:
        spec = self.session.spec
        thresholds = spec.yield_at
        if spec.min_kpp is not None and gate is None:
            thresholds = (*thresholds, spec.min_kpp)
        ranges = _as_baseline(
            rank_ranges(spec.percentiles, trials, spec.confidence, share), trials, spec.confidence
        )
        question = RaceQuestion(
            (*ranges, tail_range(tail_chips(trials))) if spec.tail else ranges,
            tuple(dict.fromkeys(thresholds)),
            RACE_ERROR * (1 - spec.confidence),
        )
        scouting = self._scout(trials, margin)
        if scouting is None:
            return self._first(gate)
        state = run_races(self.runner, self.point, trials, question, scouting, lambda _: self.runner.stopped)
        if self.runner.stopped:
            begun = max(self.runner.begun.get(self.point, 0), state.pilots)
            chips = first_chips(state, question, min(begun, trials), spec.confidence)
            return replace(chips, images=self.runner.images[self.point], gate=gate)
        return Chips(
            state.low,
            state.high,
            self.runner.images[self.point],
            state.estimate,
            state.pilots,
            question.ranges,
            question.error,
            gate,
            decisive=(state.decisive_low, state.decisive_high),
        )

    def _width(self, chips: Chips) -> float:
        """Largest width of a KPP."""
        spec = self.session.spec
        ordered = worst_first(chips, higher_is_better=True)
        return max(
            kpp_of_ranks(ordered, k, spec.confidence, True, shift_at(chips.ranges, k)).width
            for k in spec.percentiles
        )


def how_it_ended(session: Session, measurement: Measurement, stop: Stop) -> dict[str, Any]:
    """Say that an audit was ended early, if it was: fields of its report."""
    minutes, timing = session.spec.max_minutes, session.timing
    if stop.interrupted and measurement.rare_ended is not None:
        done, wanted = measurement.rare_ended
        return {"interrupted": Interrupted(done=done, wanted=wanted, what=RARE_CHIP)}
    if stop.interrupted:
        return {"interrupted": Interrupted(done=measurement.done, wanted=measurement.wanted)}
    if measurement.rare_ended is not None and minutes is not None:
        done, wanted = measurement.rare_ended
        longer = timing["rare chips"] / done * (wanted - done) if done else None
        whole = None if longer is None else (timing["total"] + longer) / 60
        box = TimeBox(minutes=minutes, done=done, wanted=wanted, what=RARE_CHIP, whole_minutes=whole)
        return {"time_boxed": box}
    if measurement.ended and minutes is not None:
        done, wanted = measurement.done, measurement.wanted
        # Of few chips most of the time is the start of workers; of races, a chip on all samples is too much.
        pace = min(timing["chips"] / done, measurement.chip_seconds / max(1, session.spec.workers))
        whole = (timing["total"] + (wanted - done) * pace) / 60
        spec = session.spec
        asked = {
            "the rare chips": spec.rare, "the corrected chips": spec.calibrate_chips is not None,
            "the attribution": spec.attribute, "the roughness": spec.roughness,
        }  # fmt: skip
        box = TimeBox(
            minutes=minutes,
            done=done,
            wanted=wanted,
            whole_minutes=whole,
            uncounted=tuple(name for name, wanted_too in asked.items() if wanted_too),
        )
        return {"time_boxed": box}
    return {}

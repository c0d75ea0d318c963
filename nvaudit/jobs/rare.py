"""Chips far rarer than a sample holds: `--rare`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.errors import OptionError
from nvaudit.perturb.badness import badness, counts_errors, margin_scale, metric_at
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.montecarlo import VariantRunner
from nvaudit.perturb.outcome import Outcome
from nvaudit.perturb.record import ChipRecord
from nvaudit.perturb.schedule import Ending, Progress, completed
from nvaudit.perturb.splitting import Effort, Split, Walk, evaluations_needed, split
from nvaudit.perturb.stop import Stop
from nvaudit.perturb.variant import WHOLE, Variant
from nvaudit.perturb.workers import Pool
from nvaudit.report.chips import Chips
from nvaudit.report.rare import (
    ChipMove,
    RareAddress,
    RareAttribution,
    RareChip,
    RareTail,
    RareTailPoint,
    rare_attribution,
)
from nvaudit.report.sections import RARE_CHIP
from nvaudit.report.wording import count_text, value_text
from nvaudit.rng import ChipAddress, MovedChip, chip_name
from nvaudit.session import Session
from nvaudit.spec import RareOptions, RunSpec
from nvaudit.stats.binomial import interval_ranks
from nvaudit.stats.splitting import RareValue, moves_matter, rare_value, surprise

CONFIDENCE = 0.95

_KNOWN = (1e-2, 1e-3)
"""Probabilities at which the chips of the audit say what is right, where there are enough of them."""

_WORST = 10
_SURPRISE = 0.001
"""So many of the worst sampled chips are looked at, with this chance of an alarm where all is right."""

_CURVE = 4
"""Points of the tail in each factor of ten."""


class RareEnded(Exception):
    """The run is to end before all moves are made; what is finished stays in the record.

    Attributes
    ----------
    done, wanted : int
        Chips that are evaluated, and that the whole estimate would take.
    """

    def __init__(self, done: int, wanted: int) -> None:
        super().__init__(f"{done:,} of {count_text(wanted, RARE_CHIP)}")
        self.done, self.wanted = done, wanted


@dataclass(frozen=True)
class Rare:
    """What was found about rare chips."""

    chips: tuple[RareChip, ...]
    tail: RareTail
    attribution: RareAttribution | None


def check_rare(spec: RunSpec) -> None:
    """Refuse options that do not go together with rare chips.

    Raises
    ------
    OptionError
        Naming them.
    """
    if not spec.rare:
        for name, field_info in RareOptions.model_fields.items():
            if name != "rare" and getattr(spec, name) != field_info.default:
                raise OptionError(f"{spec.flag(name)} is for rare chips; give a probability with --rare")
        return
    if len(spec.sigmas) > 1:
        raise OptionError("--rare is for one operating point; give one --sigma")
    if spec.rare_runs % 2:
        raise OptionError(
            f"--rare-runs {spec.rare_runs}: give an even number; one half of the runs makes twice the moves"
        )


@dataclass
class _Evaluation:
    """Evaluates chips on the pool; what the record has is not run again."""

    pool: Pool
    metric: Metric
    keep: str | None
    scale: float
    total: int
    progress: Progress
    record: ChipRecord | None
    stop: Stop
    done: int = 0

    def __call__(self, walks: Sequence[Walk]) -> None:
        """Bring walks to their end."""
        todo = deque((walk, chip) for walk in walks if (chip := walk.chip) is not None)
        ending = Ending[tuple[Walk, MovedChip]](lambda call: self.stop.due())
        for (walk, chip), outcome, known in completed(self.pool, todo, self._submit, self._recall, ending):
            if not known and self.record is not None:
                self.record.add(0, 0, outcome, chip.digest)
            walk.see(outcome.value)
            if (following := walk.chip) is not None:
                # Next, while a worker still has the numbers that this move began at.
                todo.appendleft((walk, following))
            self.done += 1
            self.progress("rare chips", min(self.done, self.total), self.total)
        if any(walk.chip is not None for walk in walks):
            raise RareEnded(self.done, max(self.total, self.done + 1))

    def _submit(self, call: tuple[Walk, MovedChip]) -> Future[Outcome]:
        _, chip = call
        return self.pool.submit(chip_name(chip), "badness", self.metric, self.keep, 0, chip, self.scale)

    def _recall(self, call: tuple[Walk, MovedChip]) -> Outcome | None:
        return None if self.record is None else self.record.find(0, 0, call[1].digest)


def _effort(spec: RunSpec) -> Effort:
    return Effort(spec.rare_runs, spec.rare_chips, spec.rare_moves)


def chips_needed(spec: RunSpec) -> int:
    """Chips that are evaluated for all probabilities together, at most about."""
    return evaluations_needed(min(spec.rare), _effort(spec))


def unanswered(spec: RunSpec, done: int, why: str) -> tuple[RareChip, ...]:
    """Entries of a run that ended before there was an estimate; ``done``: chips that were evaluated."""
    return tuple(
        RareChip(
            probability=probability, value=None, low=None, high=None, confidence=CONFIDENCE,
            evaluations=done, runs=spec.rare_runs, note=why,
        )
        for probability in spec.rare
    )  # fmt: skip


def find_rare(
    session: Session,
    pool: Pool,
    metric: Metric,
    keep: str | None,
    chips: Chips,
    progress: Progress,
    record: ChipRecord | None,
    stop: Stop,
) -> Rare:
    """Estimate the metric of rare chips.

    Parameters
    ----------
    chips : Chips
        The plain sample, which the estimate must agree with.

    Raises
    ------
    RareEnded
        If ``stop`` ends the run.
    """
    spec, samples = session.spec, session.dataset.count
    scale = 1.0
    if counts_errors(metric):
        margins = pool.submit("the unmodified model", "margins", metric, keep).result()
        scale = margin_scale(margins)
    least = min(spec.rare)
    effort, total = _effort(spec), chips_needed(spec)
    evaluate = _Evaluation(pool, metric, keep, scale, total, progress, record, stop)
    found = split(evaluate, least, effort, spec.seed)
    wrong, compared = _disagreement(found, chips, metric, samples)
    moved = moves_matter(found.runs[::2], found.runs[1::2], rare_value(found.runs, least).value)
    results = []
    for probability in spec.rare:
        at = rare_value(found.runs, probability, CONFIDENCE)
        value, low, high = _metrics(at, metric, samples)
        note, given = _note(wrong, moved, compared), wrong is None and not moved
        if given and low == high and value is not None and counts_errors(metric):
            note += f"; its ends are equal: a chip is told to one sample in {samples:,}"
        results.append(
            RareChip(
                probability=probability,
                value=value if given else None,
                low=low if given else None,
                high=high if given else None,
                confidence=CONFIDENCE,
                evaluations=found.evaluations,
                runs=effort.runs,
                note=note,
                chip=_address(*found.nearest(at.value), metric, samples),
            )
        )
    tail = RareTail(
        points=_curve(found, least, metric, samples),
        levels=len(found.ladder.levels),
        states=effort.states,
        moves=effort.moves,
        acceptance=found.acceptance,
    )
    cause = None
    if results[spec.rare.index(least)].value is not None and {"tensors", "all"} & {*spec.attribute}:
        cause = _attribute(session, found, least, VariantRunner(pool, metric, keep, 0, progress, stop))
    return Rare(tuple(results), tail, cause)


def _attribute(
    session: Session, found: Split, probability: float, runner: VariantRunner
) -> RareAttribution | None:
    """Exchange each tensor of rare chips for that of ordinary ones, and the other way round.

    Taking noise away would make any chip better, a rare one or not: it is against ordinary noise that a
    tensor's part in what makes the chip rare shows.
    """
    rare = found.nearest_of_runs(rare_value(found.runs, probability).value)
    tensors = {i: t.key for i, t in enumerate(session.workload.tensors) if t.peak_code}
    calls: list[tuple[ChipAddress | None, Variant]] = []
    for trial, chip in enumerate(rare):
        swaps = [frozenset({index}) for index in tensors]
        calls += [(chip, WHOLE), *((chip, Variant(exchanged=(swap, trial))) for swap in swaps)]
        calls += [(trial, WHOLE), *((trial, Variant(exchanged=(swap, chip))) for swap in swaps)]
    images = session.dataset.count
    what = f"attribution of rare chips: {len(rare)} chips × {len(tensors)} tensors"
    means = [float(scores.mean()) for scores in runner.scores(what, calls, images)]
    if len(means) < len(calls):
        session.notes.append("rare chips were not attributed: the time was over or the run interrupted")
        return None
    values = np.array(means).reshape(len(rare), 2, 1 + len(tensors))
    return rare_attribution(probability, tuple(tensors.values()), values, CONFIDENCE)


def _metrics(at: RareValue, metric: Metric, samples: int) -> tuple[float | None, float | None, float | None]:
    """Value, lower and upper end in the metric's unit; None for an end that no state bounds."""
    value, good, bad = (
        metric_at(metric, score, samples) if math.isfinite(score) else None
        for score in (at.value, at.low, at.high)
    )
    return (value, bad, good) if metric.higher_is_better else (value, good, bad)


def _disagreement(
    found: Split, chips: Chips, metric: Metric, samples: int
) -> tuple[str | None, tuple[float, ...]]:
    """Say where the estimate does not agree with the sampled chips, if so, and where it was compared."""
    compared: list[float] = []
    exact, sampled = _known_worst(chips, metric.higher_is_better), len(chips.low)
    for probability in _KNOWN:
        first, last = interval_ranks(100 * probability, sampled, CONFIDENCE)
        if first is None or last is None or last > len(exact):
            continue
        compared.append(probability)
        ends = float(exact[first - 1]), float(exact[last - 1])
        _, low, high = _metrics(rare_value(found.runs, probability, CONFIDENCE), metric, samples)
        apart = (low is not None and low > max(ends)) or (high is not None and high < min(ends))
        if apart:
            here, there = (_range_text(pair, metric.unit) for pair in (sorted(ends), (low, high)))
            return f"at 1 chip in {1 / probability:,.0f} the sample gives {here}, splitting {there}", ()
    # A fault of its own that strikes few chips may lie where no move leads to: then the sample has chips
    # that are worse than the runs hold possible.
    for worse in range(1, min(_WORST, len(exact)) + 1):
        value = float(exact[worse - 1])
        if surprise(found.runs, badness(metric, value, samples), worse, sampled) < _SURPRISE / _WORST:
            return (
                f"{worse} of {sampled:,} sampled chips are at {value_text(value, metric.unit)} or worse, "
                "which by splitting are far rarer"
            ), ()
    return None, tuple(compared)


def _range_text(ends: Sequence[float | None], unit: str) -> str:
    shown = ("?" if end is None else value_text(end, unit) for end in ends)
    return " to ".join(dict.fromkeys(shown))


def _known_worst(chips: Chips, higher_is_better: bool) -> Floats:
    """Metrics of the worst chips in order, up to the first that a race has stopped."""
    # Such a chip may be better than its bound says, and the ranks behind it are then not known.
    bound = chips.low if higher_is_better else -chips.high
    order = np.argsort(bound, kind="stable")
    count = int(np.argmin(np.append(chips.exact[order], False)))
    return np.asarray(chips.low[order[:count]])


def _note(wrong: str | None, moved: bool, compared: Sequence[float]) -> str:
    advice = "use more moves (--rare-moves) or chips (--rare-chips)"
    if wrong is not None:
        return f"{wrong}; {advice}"
    if moved:
        return f"runs with twice the moves give another probability; {advice}"
    at = " and ".join(f"{1 / probability:,.0f}" for probability in compared)
    sample = f"agrees with the sampled chips at 1 in {at}" if at else "too few sampled chips to compare with"
    return f"{sample}; the same at twice the moves; the interval is asymptotic in the number of runs"


def _curve(found: Split, least: float, metric: Metric, samples: int) -> tuple[RareTailPoint, ...]:
    points = []
    count = round(_CURVE * math.log10(0.1 / least))
    for probability in (float(p) for p in np.geomspace(0.1, least, max(2, count + 1))):
        value, low, high = _metrics(rare_value(found.runs, probability, CONFIDENCE), metric, samples)
        if value is not None:
            points.append(RareTailPoint(probability=probability, value=value, low=low, high=high))
    return tuple(points)


def _address(chip: MovedChip, score: float, metric: Metric, samples: int) -> RareAddress:
    moves = tuple(ChipMove(keep=keep, towards=name) for keep, name in chip.moves)
    return RareAddress(start=chip.start, moves=moves, value=metric_at(metric, score, samples))

"""The races of an operating point: the same KPP as from every chip on every sample, for a part of the work.

Pilot chips see every sample; they tell hard samples from easy ones and where the chips lie. The others race
in blocks: a chip that is surely away from the bands of the wanted ranks stops, the others are run on every
sample. In the end the bands are checked against what was found: if too few chips turned out to lie below a
band's end, it moves and the chips between race again. Which chips are in a block and which bands they race
against depends only on earlier blocks, not on workers or order of completion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nvaudit.arrays import Floats
from nvaudit.perturb.difficulty import Difficulty, estimate_difficulty
from nvaudit.perturb.montecarlo import ChipRunner
from nvaudit.perturb.race import RACED_SHARE, Band, Edge, RaceTask
from nvaudit.report.chips import Chips
from nvaudit.stats.binomial import at_least
from nvaudit.stats.kpp import kpp_index
from nvaudit.stats.ranks import LOOSE_ERROR, RankRange, allowed_error, blocks, partial_range

_PAYS = 0.85
"""Share of the samples that chips may need on average; beyond, the rest is run on all of them."""

Reach = tuple[float, float, float, float]
"""Smallest value of a range, smallest and largest value of its decisive ranks, largest value of the range."""

_LIMITS = (-math.inf, -math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class RaceQuestion:
    """What the races of an operating point must find out.

    Attributes
    ----------
    ranges : tuple of RankRange
        Ranks that must be known exactly.
    thresholds : tuple of float
        Values of which it must be known for every chip on which side it lies.
    error : float
        Chance that any of the answers is wrong beyond its shift.
    """

    ranges: tuple[RankRange, ...]
    thresholds: tuple[float, ...] = ()
    error: float = 0.005


@dataclass
class RaceState:
    """What is known of the chips of an operating point.

    Attributes
    ----------
    low, high : ndarray, float64, shape (trial,)
        Between them lies each chip's metric: equal where the chip was run on every sample, infinite where
        nothing is known.
    decisive_low, decisive_high : ndarray, float64, shape (trial,)
        The same, only from evidence that a result may rest on.
    estimate : ndarray, float64, shape (trial,)
        Unbiased estimate of each chip's metric; that of a pilot is exact.
    pilots : int
        The first chips, each run on every sample whatever it is like.
    unraced : ndarray, bool, shape (trial,)
        Chips that were run on every sample whatever they are like: the pilots, and blocks without races.
    known : int
        Chips of which something is known, the first ones.
    raced, spent : int
        Races so far, and the samples that they took.
    reach, bands
        What the last races were run against.
    """

    low: Floats
    high: Floats
    decisive_low: Floats
    decisive_high: Floats
    estimate: Floats
    pilots: int
    unraced: NDArray[np.bool_]
    known: int = 0
    raced: int = 0
    spent: int = 0
    reach: list[Reach] = field(default_factory=list)
    bands: tuple[Band, ...] = ()

    @property
    def values(self) -> Floats:
        """Metric of each chip; NaN where it is not known exactly."""
        return np.where(self.low == self.high, self.low, np.nan)


def pilot_count(trials: int) -> int:
    """How many chips are run on every sample first."""
    return min(trials, max(16, min(100, trials // 50)))


@dataclass(frozen=True)
class Scouting:
    """What the pilots found: their metrics, and the file and identity of the samples' difficulty."""

    values: Floats
    samples: int
    file: str
    identity: int


def scout(
    runner: ChipRunner, point: int, pilots: Sequence[int], margin: Floats, folder: Path
) -> Scouting | None:
    """Run some chips on every sample.

    Parameters
    ----------
    pilots : sequence of int
        The chips.
    margin : ndarray, float64, shape (sample,)
        Of the unmodified model.
    folder : Path
        For the workers' files.

    Returns
    -------
    Scouting or None
        None where the run was ended early.
    """
    measured = runner.pilots(point, pilots)
    if measured is None:
        return None
    values, scores = measured
    difficulty: Difficulty = estimate_difficulty(1 - scores.astype(np.float64), margin)
    path = folder / f"difficulty-{point}-{len(pilots)}"
    difficulty.save(path)
    return Scouting(np.array(values), len(margin), str(path), difficulty.digest)


def run_races(
    runner: ChipRunner,
    point: int,
    trials: int,
    question: RaceQuestion,
    scouting: Scouting,
    ended: Callable[[RaceState], bool] = lambda state: False,
) -> RaceState:
    """Race the chips of an operating point.

    Parameters
    ----------
    ended : callable
        Whether the run was ended early, or what is known is enough: then no more is raced.

    Returns
    -------
    RaceState
        With the wanted ranks and sides known, but for the chance that the question allows; of a run that was
        ended early, what was found until then.
    """
    pilots = len(scouting.values)
    state = RaceState(
        low=np.full(trials, -np.inf),
        high=np.full(trials, np.inf),
        decisive_low=np.full(trials, -np.inf),
        decisive_high=np.full(trials, np.inf),
        estimate=np.full(trials, np.nan),
        pilots=pilots,
        unraced=np.arange(trials) < pilots,
    )
    for each in (state.low, state.high, state.decisive_low, state.decisive_high, state.estimate):
        each[:pilots] = scouting.values
    state.known = pilots
    most = math.ceil(RACED_SHARE * scouting.samples)

    def race(trials: Sequence[int]) -> None:
        task = RaceTask("kpp", scouting.file, scouting.identity, state.bands, most)
        _race(runner, point, trials, task, state, scouting.samples)

    # Each block is as long as all before it: bands are guessed anew only log2(trials / pilots) times, and a
    # block's bands depend on the blocks before it alone, so that workers and their speed cannot move a
    # result.
    for block in blocks(pilots, trials)[1:]:
        if ended(state):
            return state
        # Chips that cannot be told apart see most of their samples in the race, and then every one of them
        # anew: beyond this cost of an average race the rest is cheaper without.
        if state.spent > _PAYS * state.raced * scouting.samples:
            _run_all(runner, point, block, state)
            state.known = block.stop
            continue
        state.reach = _preview(state, question.ranges)
        state.bands = _bands(state, question)
        race(block)
        state.known = block.stop
    attempt = 0
    while not ended(state) and (reach := _unsettled(state, question.ranges, attempt)):
        # A chip in a band ends exact, so each round leaves fewer chips unknown; only those that may lie in
        # one of the new bands race again.
        state.reach = reach
        state.bands = _bands(state, question)
        # To race a chip again costs no further error: its samples come in the same order, in which the
        # wealth grows with the threshold, so that one bound holds for all thresholds however they are
        # chosen.
        race(_touching(state))
        attempt += 1
    return state


def _run_all(runner: ChipRunner, point: int, trials: Sequence[int], state: RaceState) -> None:
    """Run chips on every sample: where chips hardly differ, races do not pay."""
    for trial, value in runner.full(point, trials).items():
        for each in (state.low, state.decisive_low, state.decisive_high, state.high, state.estimate):
            each[trial] = value
        state.unraced[trial] = True


def _race(
    runner: ChipRunner,
    point: int,
    trials: Sequence[int],
    task: RaceTask,
    state: RaceState,
    samples: int,
) -> None:
    """Race some chips against bands and enter what was found."""
    for trial, (race, value) in runner.races(point, trials, task).items():
        state.raced += 1
        state.spent += race.images if value is None else samples
        if np.isnan(state.estimate[trial]):
            state.estimate[trial] = race.value
        if value is not None:
            for limit in (state.low, state.decisive_low, state.decisive_high, state.high):
                limit[trial] = value
        elif race.gap is not None:
            # A gap is won once all edges beside it are. The chip is then past the farthest, but only the
            # decisive edges have an error small enough for a result to rest on.
            under, over = task.bands[: race.gap], task.bands[race.gap :]
            state.low[trial] = max((band.high for band in under), default=-np.inf)
            state.high[trial] = min((band.low for band in over), default=np.inf)
            state.decisive_low[trial] = max(
                (edge.value for band in under for edge in band.above if edge.decisive), default=-np.inf
            )
            state.decisive_high[trial] = min(
                (edge.value for band in over for edge in band.below if edge.decisive), default=np.inf
            )


def first_chips(state: RaceState, question: RaceQuestion, count: int, confidence: float) -> Chips:
    """Chips of races that were ended early: the first ones, with what is known of each.

    Parameters
    ----------
    question : RaceQuestion
        Of the whole run.
    count : int
        How many chips were begun.
    confidence : float
        Of the intervals.

    Returns
    -------
    Chips
        The shift of each rank is the least that wrong stops exceed no oftener than in the whole run. Where
        the first chips are too few for it (no rank lies that far below their KPP), the error says how often.
    """
    ranges, error = [], question.error
    side = question.error / _sides(question)
    for rank in question.ranges:
        if rank.percentile == 0:  # of the tail, which then looks at the pilots
            continue
        errors = _edge_errors(rank, len(state.low), side)
        shift = next(s for s in range(count + 1) if max(_chances(rank, count, s, errors)) <= side)
        bounds = partial_range(rank.percentile, count, confidence, shift, rank.worst_too)
        error += sum(max(0.0, chance - side) for chance in _chances(rank, count, bounds.shift, errors))
        ranges.append(bounds)
    return Chips(
        state.low[:count],
        state.high[:count],
        0,
        state.estimate[:count],
        min(state.pilots, count),
        tuple(ranges),
        error,
        unraced=state.unraced[:count],
        decisive=(state.decisive_low[:count], state.decisive_high[:count]),
    )


def _chances(rank: RankRange, count: int, shift: int, errors: tuple[float, float]) -> tuple[float, float]:
    """Chances that wrong stops below, and above, falsify a KPP of the first chips by more than a shift."""
    # The edges, and so their errors, were those of the whole run, but of the first chips only those on one
    # side of the shifted rank can move it. Where all worse chips are wanted too there is no lower edge:
    # nothing is let go below, and a wrong stop makes what was found too good.
    index = kpp_index(rank.percentile, count)
    below = 0.0 if rank.worst_too else _more_than(shift, count - max(0, index - shift), errors[0])
    at_or_below = index + 1 if rank.worst_too else min(count, index + shift + 1)
    return below, _more_than(shift, at_or_below, errors[1])


def _more_than(shift: int, chips: int, chance: float) -> float:
    """P(Binomial(chips, chance) > shift)."""
    return at_least(shift + 1, chips, chance) if shift < chips else 0.0


def _edge_errors(rank: RankRange, total: int, error: float) -> tuple[float, float]:
    """Chance of a wrong stop that the decisive edges below and above a range may have."""
    # Only chips at or above the lower decisive rank can be wrongly let go below it, and only those up to the
    # upper one above it.
    return (
        allowed_error(total - rank.decisive[0], rank.shift, error),
        allowed_error(rank.decisive[1] + 1, rank.shift, error),
    )


def _sides(question: RaceQuestion) -> int:
    """Ends of bands that may each be wrong."""
    return max(1, sum(1 if r.worst_too else 2 for r in question.ranges) + 2 * len(question.thresholds))


def _preview(state: RaceState, ranges: Sequence[RankRange]) -> list[Reach]:
    """Guess, from the chips known so far, where the values of each range will lie."""
    # Rank r of all chips is expected near rank r·n/total of the first n. A guess: see _unsettled.
    n, total = state.known, len(state.low)
    low, high = np.sort(state.low[:n]), np.sort(state.high[:n])
    reaches = []
    for i, rank in enumerate(ranges):
        values = []
        for side, (wanted, fallback) in enumerate(
            zip((rank.first, rank.decisive[0], rank.decisive[1] + 1, rank.last + 1), _LIMITS, strict=True)
        ):
            # Rounded outwards: a band too wide costs some chips, one too narrow another round.
            place = wanted * n / total
            at = math.floor(place) - 1 if side < 2 else math.ceil(place)
            value = fallback if not 0 <= at < n else float(low[at] if side < 2 else high[at])
            # Of a chip that was stopped only one side is known; what it was stopped at will do.
            if state.reach and 0 <= at < n and not np.isfinite(value):
                value = state.reach[i][side]
            values.append(value)
        reaches.append((values[0], values[1], values[2], values[3]))
    return reaches


def _unsettled(state: RaceState, ranges: Sequence[RankRange], attempt: int) -> list[Reach]:
    """Give the values that each range may still take; empty once every rank is known."""
    # Why the ranks come out right whatever the blocks raced against: order statistics grow with each of their
    # arguments, so low_i ≤ a_i ≤ high_i for every chip i gives low_(r) ≤ a_(r) ≤ high_(r) for every rank r.
    # Where the sorted limits agree at r, a_(r) is known, although it may not be known which chip it is. Bands
    # that were guessed badly leave limits that do not agree, and cost another round; they never shift a rank.
    low, high = np.sort(state.low), np.sort(state.high)
    decisive_low, decisive_high = np.sort(state.decisive_low), np.sort(state.decisive_high)
    if all(
        np.array_equal(low[r.first : r.last + 1], high[r.first : r.last + 1])
        and np.array_equal(decisive_low[_span(r)], decisive_high[_span(r)])
        for r in ranges
    ):
        return []
    exact = np.unique(state.values[np.isfinite(state.values)])
    # A little further at first: every chip in a band must be run on every sample.
    share = min(1.0, 0.25 * 2**attempt)

    def bottom(lows: Floats, highs: Floats, rank: int) -> float:
        # Too few chips are known to lie so low where this is −∞: all that is known is a_(r) ≤ highs[rank],
        # and the band is let down from there towards the next value at which a chip was measured.
        if np.isfinite(lows[rank]):
            return float(lows[rank])
        value = float(highs[rank])
        beyond = exact[exact < value]
        known = beyond.size and math.isfinite(value)
        return value + (float(beyond[-1]) - value) * share if known else -math.inf

    def top(lows: Floats, highs: Floats, rank: int) -> float:
        if np.isfinite(highs[rank]):
            return float(highs[rank])
        value = float(lows[rank])
        beyond = exact[exact > value]
        known = beyond.size and math.isfinite(value)
        return value + (float(beyond[0]) - value) * share if known else math.inf

    return [
        (
            bottom(low, high, r.first),
            bottom(decisive_low, decisive_high, r.decisive[0]),
            top(decisive_low, decisive_high, r.decisive[1]),
            top(low, high, r.last),
        )
        for r in ranges
    ]


def _span(rank: RankRange) -> slice:
    return slice(rank.decisive[0], rank.decisive[1] + 1)


def _touching(state: RaceState) -> list[int]:
    """Chips that are not known exactly and may lie in a band; a stopped chip lies between its limits."""
    may = np.zeros(len(state.low), dtype=np.bool_)
    for band in state.bands:
        may |= (state.low < band.high) & (state.high > band.low)
        # Bands move from round to round: a chip that went past the former decisive edge has not shown that
        # it is past the new one. The loose edges are in low and high already.
        decisive = [[edge.value for edge in side if edge.decisive] for side in (band.below, band.above)]
        may |= (state.decisive_low < max(decisive[1], default=math.inf)) & (
            state.decisive_high > min(decisive[0], default=-math.inf)
        )
    return np.flatnonzero(may & (state.low < state.high)).tolist()


def _bands(state: RaceState, question: RaceQuestion) -> tuple[Band, ...]:
    """Bands around ranges and thresholds, joined where they meet."""
    total = len(state.low)
    # What may be wrong is a stop: a chip that a race let go although it belongs into the band. Of the n
    # chips that could be, each with a chance ε, more than s are with P(Binomial(n, ε) > s); allowed_error
    # turns that round. s wrong stops shift a rank by at most s. The error is shared out over the ends of
    # all bands (Boole).
    error = question.error / _sides(question)
    separate = []
    for rank, (first, decisive_first, decisive_last, last) in zip(question.ranges, state.reach, strict=True):
        below, above = _edge_errors(rank, total, error)
        separate.append(
            Band(
                ()
                if rank.worst_too or first == -math.inf
                else (Edge(decisive_first, below), Edge(first, LOOSE_ERROR, decisive=False)),
                ()
                if last == math.inf
                else (Edge(decisive_last, above), Edge(last, LOOSE_ERROR, decisive=False)),
            )
        )
    side = allowed_error(total, 0, error)
    separate += [Band((Edge(value, side),), (Edge(value, side),)) for value in question.thresholds]
    bands: list[Band] = []
    for band in sorted(separate, key=lambda band: (band.low, band.high)):
        # Races number the gaps between bands, which therefore must not overlap. Joined, a chip is past both
        # only when it is past every edge of either.
        if bands and band.low <= bands[-1].high:
            last_band = bands.pop()
            # A side without an edge is open: the joined band has none there either.
            below_edges = (*last_band.below, *band.below) if last_band.below and band.below else ()
            above_edges = (*last_band.above, *band.above) if last_band.above and band.above else ()
            band = Band(below_edges, above_edges)
        bands.append(band)
    return tuple(bands)

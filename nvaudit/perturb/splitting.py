"""Rare chips by splitting: subset simulation with moves in the normals that chips are drawn from.

Au and Beck, Probabilistic Engineering Mechanics 16 (2001), with the moves of Cotter et al. (2013) (see
:class:`nvaudit.rng.MovedChip`), whose mixing does not depend on how many devices there are. A pilot run
chooses the levels and how far moves go; the runs that count keep both fixed and are independent of it, so
each estimate is free of bias (:mod:`nvaudit.stats.splitting`).

A state is an address, not an array: some twenty names say which chip it is. So states cost no memory, any
worker evaluates any of them, a run that was cut off goes on, and a rare chip is drawn again from its report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.rng import MovedChip, stream
from nvaudit.stats.splitting import SplitRun


class Walk(Protocol):
    """Chips to be evaluated one after the other, since which comes next depends on the score before."""

    @property
    def chip(self) -> MovedChip | None:
        """The chip that comes next; None at the end."""

    def see(self, score: float) -> None:
        """Take the score of the chip."""


Evaluate: TypeAlias = Callable[[Sequence[Walk]], None]
"""Brings walks to their end, in any order; the worse a chip, the higher its score."""

SHARE = 0.2
"""Share of a pool that lies above the next level. Few levels with many moves and many with few cost the same
within a third between 0.1 and 0.3 (Au and Beck 2001, section 5)."""

_ACCEPTED = 0.44
"""Share of moves to be accepted: near the best for conditional normals (Papaioannou et al., Probabilistic
Engineering Mechanics 41, 2015)."""

_FIRST_STEP = 0.5
_MOST_LEVELS = 200


@dataclass(frozen=True)
class Effort:
    """How much is spent.

    Attributes
    ----------
    runs : int
        Independent runs; every second one makes twice the moves.
    states : int
        States in each pool of a run.
    moves : int
        Moves between two states that a pool keeps.
    """

    runs: int = 10
    states: int = 500
    moves: int = 1


@dataclass(frozen=True)
class Ladder:
    """What the pilot chose: levels, and what part of a chip a move at each level keeps."""

    levels: tuple[float, ...]
    keeps: tuple[float, ...]


@dataclass
class StatePool:
    """States with their scores."""

    chips: list[MovedChip]
    scores: Floats


@dataclass
class Climb:
    """One run on its way: its pools so far."""

    name: str
    moves: int
    pools: list[StatePool] = field(default_factory=list)
    tried: int = 0
    accepted: int = 0

    def nearest(self, score: float) -> tuple[MovedChip, float]:
        """Give the state whose score lies nearest to one, and its score."""
        best = min(self.pools, key=lambda pool: float(np.abs(pool.scores - score).min()))
        place = int(np.abs(best.scores - score).argmin())
        return best.chips[place], float(best.scores[place])


@dataclass(frozen=True)
class Split:
    """All runs that count.

    Attributes
    ----------
    runs : tuple of SplitRun
        Those of even number make ``moves`` moves, the others twice as many.
    climbs : tuple of Climb
        Their states.
    evaluations : int
        Chips that were evaluated, the pilot's included.
    acceptance : float
        Share of the moves that were accepted.
    """

    ladder: Ladder
    runs: tuple[SplitRun, ...]
    climbs: tuple[Climb, ...]
    evaluations: int
    acceptance: float

    def nearest(self, score: float) -> tuple[MovedChip, float]:
        """Give the state whose score lies nearest to one, and its score."""
        return min((climb.nearest(score) for climb in self.climbs), key=lambda state: abs(state[1] - score))

    def nearest_of_runs(self, score: float) -> tuple[MovedChip, ...]:
        """Give the state of each run whose score lies nearest to one: chips that share no ancestor."""
        return tuple(climb.nearest(score)[0] for climb in self.climbs)


def split(evaluate: Evaluate, probability: float, effort: Effort, seed: int) -> Split:
    """Run the pilot and the runs down to a probability.

    Parameters
    ----------
    evaluate : callable
        Scores chips. It may meet the same chip twice.
    probability : float
        The least that is asked for, above 0 and below 1.
    seed : int
        Of the choices of states; that of the chips is the evaluation's.
    """
    pilot = Climb("pilot", 2 * effort.moves)
    ladder = _pilot(evaluate, pilot, probability, effort, seed)
    climbs = [Climb(f"run {run}", effort.moves * (1 + run % 2)) for run in range(effort.runs)]
    _begin(evaluate, climbs, effort.states)
    for number, (level, keep) in enumerate(zip(ladder.levels, ladder.keeps, strict=True), 1):
        # All runs go together: their chains keep every worker busy.
        alive = [
            climb for climb in climbs if len(climb.pools) == number and climb.pools[-1].scores.max() >= level
        ]
        _raise(evaluate, alive, level, keep, effort.states, seed)
    runs = tuple(
        SplitRun(ladder.levels, tuple(np.sort(pool.scores) for pool in climb.pools)) for climb in climbs
    )
    tried, accepted = (sum(getattr(climb, what) for climb in climbs) for what in ("tried", "accepted"))
    count = (1 + len(climbs)) * effort.states + pilot.tried + tried
    return Split(ladder, runs, tuple(climbs), count, accepted / max(tried, 1))


def evaluations_needed(probability: float, effort: Effort) -> int:
    """Chips that :func:`split` evaluates for a probability, unless the score ends before."""
    levels = 0
    while SHARE ** (levels + 1) > probability:
        levels += 1
    begun, moved = effort.states, effort.states * (1 - SHARE) * effort.moves * levels
    # The pilot and every second run make twice the moves.
    return round(effort.runs * (begun + 1.5 * moved) + begun + 2 * moved)


@dataclass
class _Draw:
    """The walk of an independent chip: it ends where it begins."""

    begun: MovedChip
    scores: list[float] = field(default_factory=list)

    @property
    def chip(self) -> MovedChip | None:
        return None if self.scores else self.begun

    def see(self, score: float) -> None:
        self.scores.append(score)


def _begin(evaluate: Evaluate, climbs: Sequence[Climb], states: int) -> None:
    """Fill the first pool of each run with independent chips."""
    draws = [[_Draw(MovedChip(f"{climb.name} chip {state}")) for state in range(states)] for climb in climbs]
    evaluate([draw for own in draws for draw in own])
    for climb, own in zip(climbs, draws, strict=True):
        climb.pools.append(
            StatePool([draw.begun for draw in own], np.concatenate([draw.scores for draw in own]))
        )


@dataclass
class _Step:
    """How far the pilot's moves go, from what is accepted."""

    keep: float = (1 - _FIRST_STEP**2) ** 0.5

    def told(self, accepted: float, turn: int) -> None:
        # Robbins-Monro on the logarithm of the step's size β, keep² = 1 − β².
        size = (1 - self.keep**2) ** 0.5 * np.exp((accepted - _ACCEPTED) * 2 / (1 + turn) ** 0.5)
        self.keep = float((1 - min(size, 0.999) ** 2) ** 0.5)


def _pilot(evaluate: Evaluate, climb: Climb, probability: float, effort: Effort, seed: int) -> Ladder:
    """Choose levels so that each pool has a share of its states above the next, and how far moves go."""
    _begin(evaluate, [climb], effort.states)
    levels: list[float] = []
    keeps: list[float] = []
    step = _Step()
    # The last pool is worth SHARE^j, at least the probability: its quantile lies inside.
    while SHARE ** (len(levels) + 1) > probability and len(levels) < _MOST_LEVELS:
        level = float(np.quantile(climb.pools[-1].scores, 1 - SHARE, method="higher"))
        if levels and level <= levels[-1]:
            break  # no state is worse: the score has come to its end
        _raise(evaluate, [climb], level, step, effort.states, seed)
        levels.append(level)
        keeps.append(step.keep)
    return Ladder(tuple(levels), tuple(keeps))


@dataclass
class _Chain:
    """The walk of a chain at a level: where it is, and the states that it keeps.

    Attributes
    ----------
    turns : int
        Moves to be made in all.
    every : int
        Each such move's state is kept.
    """

    name: str
    level: float
    keep: float
    turns: int
    every: int
    states: list[tuple[MovedChip, float]]
    now: tuple[MovedChip, float]
    turn: int = 0
    accepted: int = 0

    @property
    def chip(self) -> MovedChip | None:
        if self.turn == self.turns:
            return None
        return self.now[0].moved(self.keep, f"{self.name} move {self.turn}")

    def see(self, score: float) -> None:
        chip = self.chip
        # A move keeps the law of chips, so on the condition it is accepted wherever that holds.
        if chip is not None and score >= self.level:
            self.now, self.accepted = (chip, score), self.accepted + 1
        self.turn += 1
        if self.turn % self.every == 0:
            self.states.append(self.now)


def _raise(
    evaluate: Evaluate, climbs: Sequence[Climb], level: float, keep: float | _Step, states: int, seed: int
) -> None:
    """Give each run its next pool: states at or above a level.

    Chains start at states of the last pool that lie there, chosen at random, and keep every ``moves``-th
    state. A chain's states all have the law of its start, so the pool's mean stays free of bias.
    """
    length = round(1 / SHARE)
    first = keep.keep if isinstance(keep, _Step) else keep
    chains = []
    for climb in climbs:
        begun = _seeds(climb, level, -(-states // length), seed)
        name, turns = f"{climb.name} level {len(climb.pools)} chain", (length - 1) * climb.moves
        chains.append(
            [
                _Chain(f"{name} {number}", level, first, turns, climb.moves, [start], start)
                for number, start in enumerate(zip(begun.chips, begun.scores.tolist(), strict=True))
            ]
        )
    every = [chain for own in chains for chain in own]
    if isinstance(keep, _Step):
        _learning(evaluate, every, keep)
    else:
        evaluate(every)
    for climb, own in zip(climbs, chains, strict=True):
        climb.tried += sum(one.turn for one in own)
        climb.accepted += sum(one.accepted for one in own)
        kept = [
            state for together in zip(*(chain.states for chain in own), strict=True) for state in together
        ]
        climb.pools.append(StatePool([chip for chip, _ in kept], np.array([score for _, score in kept])))


def _learning(evaluate: Evaluate, chains: Sequence[_Chain], step: _Step) -> None:
    """Move all chains together, so that each move is as long as those before have taught."""
    for turn in range(chains[0].turns):
        before = sum(one.accepted for one in chains)
        for one in chains:
            one.turns, one.keep = turn + 1, step.keep
        evaluate(chains)
        step.told((sum(one.accepted for one in chains) - before) / len(chains), turn)


def _seeds(climb: Climb, level: float, count: int, seed: int) -> StatePool:
    """Choose states at or above a level, each as likely as the others."""
    pool = climb.pools[-1]
    there = np.flatnonzero(pool.scores >= level)
    gen = stream(seed, "rare-seeds", climb.name, len(climb.pools))
    # Every state as often as any other, the remainder without replacement: any such choice keeps the mean of
    # the states, and this one adds the least spread.
    whole, rest = divmod(count, len(there))
    chosen = np.concatenate([np.tile(there, whole), gen.choice(there, rest, replace=False)]).astype(np.intp)
    return StatePool([pool.chips[index] for index in chosen], pool.scores[chosen])

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
from typing import TypeAlias

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.rng import MovedChip, stream
from nvaudit.stats.splitting import SplitRun

Evaluate: TypeAlias = Callable[[Sequence[MovedChip]], Floats]
"""Scores of chips, the worse the higher, in their order."""

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
        pools = [pool for climb in self.climbs for pool in climb.pools]
        best = min(pools, key=lambda pool: float(np.abs(pool.scores - score).min()))
        place = int(np.abs(best.scores - score).argmin())
        return best.chips[place], float(best.scores[place])


def split(evaluate: Evaluate, probability: float, effort: Effort, seed: int) -> Split:
    """Run the pilot and the runs down to a probability.

    Parameters
    ----------
    evaluate : callable
        Scores of chips. It may be called with the same chip twice.
    probability : float
        The least that is asked for, above 0 and below 1.
    seed : int
        Of the choices of states; that of the chips is the evaluation's.
    """
    count = 0

    def counted(chips: Sequence[MovedChip]) -> Floats:
        nonlocal count
        count += len(chips)
        return evaluate(chips)

    ladder = _pilot(counted, probability, effort, seed)
    climbs = [Climb(f"run {run}", effort.moves * (1 + run % 2)) for run in range(effort.runs)]
    _begin(counted, climbs, effort.states)
    for number, (level, keep) in enumerate(zip(ladder.levels, ladder.keeps, strict=True), 1):
        # All runs go together, move by move: one batch keeps every worker busy.
        alive = [
            climb for climb in climbs if len(climb.pools) == number and climb.pools[-1].scores.max() >= level
        ]
        _raise(counted, alive, level, _Step(keep), effort.states, seed)
    runs = tuple(
        SplitRun(ladder.levels, tuple(np.sort(pool.scores) for pool in climb.pools)) for climb in climbs
    )
    tried, accepted = (sum(getattr(climb, what) for climb in climbs) for what in ("tried", "accepted"))
    return Split(ladder, runs, tuple(climbs), count, accepted / max(tried, 1))


def evaluations_needed(probability: float, effort: Effort) -> int:
    """Chips that :func:`split` evaluates for a probability, unless the score ends before."""
    levels = 0
    while SHARE ** (levels + 1) > probability:
        levels += 1
    begun, moved = effort.states, effort.states * (1 - SHARE) * effort.moves * levels
    # The pilot and every second run make twice the moves.
    return round(effort.runs * (begun + 1.5 * moved) + begun + 2 * moved)


def _begin(evaluate: Evaluate, climbs: Sequence[Climb], states: int) -> None:
    """Fill the first pool of each run with independent chips."""
    chips = [[MovedChip(f"{climb.name} chip {state}") for state in range(states)] for climb in climbs]
    scores = evaluate([chip for own in chips for chip in own]).reshape(len(climbs), states)
    for climb, own, own_scores in zip(climbs, chips, scores, strict=True):
        climb.pools.append(StatePool(own, own_scores))


@dataclass
class _Step:
    """How far moves go; with ``learns`` it follows what is accepted."""

    keep: float
    learns: bool = False

    def told(self, accepted: float, turn: int) -> None:
        if self.learns:
            # Robbins-Monro on the logarithm of the step's size β, keep² = 1 − β².
            size = (1 - self.keep**2) ** 0.5 * np.exp((accepted - _ACCEPTED) * 2 / (1 + turn) ** 0.5)
            self.keep = float((1 - min(size, 0.999) ** 2) ** 0.5)


def _pilot(evaluate: Evaluate, probability: float, effort: Effort, seed: int) -> Ladder:
    """Choose levels so that each pool has a share of its states above the next, and how far moves go."""
    climb = Climb("pilot", 2 * effort.moves)
    _begin(evaluate, [climb], effort.states)
    levels: list[float] = []
    keeps: list[float] = []
    step = _Step((1 - _FIRST_STEP**2) ** 0.5, learns=True)
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
class _Walk:
    """The chains of one run at a level: where they are, and the states that they keep."""

    climb: Climb
    now: StatePool
    kept: list[StatePool]

    @classmethod
    def of(cls, climb: Climb, level: float, states: int, seed: int) -> _Walk:
        """Begin at states of the last pool; these are the first that are kept."""
        begun = _seeds(climb, level, states, seed)
        return cls(climb, StatePool(list(begun.chips), begun.scores.copy()), [begun])

    def proposals(self, keep: float, turn: int) -> list[MovedChip]:
        """Move every chain."""
        name = f"{self.climb.name} level {len(self.climb.pools)}"
        return [
            chip.moved(keep, f"{name} chain {chain} move {turn}") for chain, chip in enumerate(self.now.chips)
        ]

    def take(self, chips: Sequence[MovedChip], scores: Floats, level: float, turn: int) -> int:
        """Accept the moves that stay at or above the level; give how many."""
        # A move keeps the law of chips, so on the condition it is accepted wherever that holds.
        taken = np.flatnonzero(scores >= level)
        for chain in taken.tolist():
            self.now.chips[chain], self.now.scores[chain] = chips[chain], scores[chain]
        self.climb.tried, self.climb.accepted = (
            self.climb.tried + len(chips),
            self.climb.accepted + len(taken),
        )
        if (turn + 1) % self.climb.moves == 0:
            self.kept.append(StatePool(list(self.now.chips), self.now.scores.copy()))
        return len(taken)

    def end(self) -> None:
        """Give the run its next pool."""
        chips = [chip for pool in self.kept for chip in pool.chips]
        self.climb.pools.append(StatePool(chips, np.concatenate([pool.scores for pool in self.kept])))


def _raise(
    evaluate: Evaluate, climbs: Sequence[Climb], level: float, step: _Step, states: int, seed: int
) -> None:
    """Give each run its next pool: states at or above a level.

    Chains start at states of the last pool that lie there, chosen at random, and keep every ``moves``-th
    state. A chain's states all have the law of its start, so the pool's mean stays free of bias.
    """
    length = round(1 / SHARE)
    walks = [_Walk.of(climb, level, -(-states // length), seed) for climb in climbs]
    for turn in range((length - 1) * max((climb.moves for climb in climbs), default=0)):
        going = [walk for walk in walks if turn < (length - 1) * walk.climb.moves]
        proposed = [walk.proposals(step.keep, turn) for walk in going]
        scores = evaluate([chip for own in proposed for chip in own])
        own_scores = np.split(scores, np.cumsum([len(own) for own in proposed])[:-1])
        taken = sum(
            walk.take(own, part, level, turn)
            for walk, own, part in zip(going, proposed, own_scores, strict=True)
        )
        step.told(taken / max(len(scores), 1), turn)
    for walk in walks:
        walk.end()


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

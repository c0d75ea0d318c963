"""The metric of the same chips with more and more weights verified."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.outcome import Outcome
from nvaudit.perturb.record import ChipRecord
from nvaudit.perturb.schedule import Progress, completed
from nvaudit.perturb.variant import WHOLE, Variant
from nvaudit.perturb.verify import Verified
from nvaudit.perturb.workers import Pool
from nvaudit.perturb.workload import ArrayFile

STEPS = 6
"""Shares that the search for a target tries at most, beside those asked for."""

RESOLUTION = 0.1
"""The search ends where the share that reaches the target is known to this part of itself."""


@dataclass
class VerifiedChips:
    """Runs chips with some weights verified, each number of weights once.

    Attributes
    ----------
    keep : str or None
        File of the nominal outputs that the metric compares with.
    total : int
        Weights on the array.
    order : tuple of ArrayFile
        The ranking; see :class:`nvaudit.perturb.verify.Verified`.
    record : ChipRecord or None
        Chips that it has are not run again; the others are entered as they finish.
    task : int
        Of the record: which ranking verified weights follow; see :func:`.kept.ranking_task`.
    values : dict of int to ndarray
        By number of verified weights: the metric of every chip.
    resumed : int
        Chips that the record had.
    """

    pool: Pool
    metric: Metric
    keep: str | None
    trials: int
    total: int
    order: tuple[ArrayFile, ...]
    residual: float
    terms: frozenset[str]
    progress: Progress
    record: ChipRecord | None = None
    task: int = 0
    values: dict[int, Floats] = field(default_factory=dict)
    resumed: int = 0

    def run(self, count: int, label: str) -> Floats:
        """Score every chip with ``count`` weights verified; ``label`` is for the progress."""
        if count in self.values:
            return self.values[count]
        verified = Verified(self.order, count, self.residual, self.terms) if count else None
        variant = Variant(verified=verified) if verified else WHOLE
        what = f"chips with {100 * count / self.total:.3g} % of the weights verified{label}"
        values, task = np.full(self.trials, np.nan), self.task if count else 0  # no ranking matters for none
        # Trial t draws from the same streams at every count: shares are compared on the same chips, and what
        # differs is what was verified, not luck.
        todo = deque[int]()
        for trial in range(self.trials):
            known = None if self.record is None else self.record.find(count, trial, task)
            if known is None:
                todo.append(trial)
            else:
                values[trial] = known.value
        kept = self.trials - len(todo)
        self.resumed += kept
        self.progress(what, kept, self.trials)

        def submit(trial: int) -> Future[Outcome]:
            return self.pool.submit(f"trial {trial}", "chip", self.metric, self.keep, 0, trial, variant)

        for done, (trial, outcome, _) in enumerate(completed(self.pool, todo, submit), kept + 1):
            if self.record is not None:
                self.record.add(count, trial, outcome, task)
            values[trial] = outcome.value
            self.progress(what, done, self.trials)
        self.values[count] = values
        return values


def count_of(share: float, total: int) -> int:
    """Weights that a share is: rounded, and at least one where the share is above 0."""
    return max(round(share * total), 1 if share > 0 else 0)


def search_target(
    known: list[int], reaches: Callable[[int], bool], total: int
) -> tuple[int | None, int | None]:
    """Find the smallest number of weights that reaches a target.

    Parameters
    ----------
    known : list of int
        Numbers that are tried in any case.
    reaches : callable
        Whether a number does, measured when it is asked for.
    total : int
        Weights on the array.

    Returns
    -------
    enough : int or None
        The smallest number tried that reaches it, as all larger ones that were tried do; None if none does.
    short : int or None
        The largest below it that was tried and does not; None if ``enough`` is the smallest of all.
    """
    # What was asked for is measured in any case, and often brackets the target already.
    tried = {count: reaches(count) for count in sorted(set(known))}
    for _ in range(STEPS):
        enough, short = _edge(tried)
        if enough is None or short is None or enough - short <= max(1, math.ceil(RESOLUTION * enough)):
            break
        # Shares matter by their ratio, so the interval is halved on a logarithmic scale; from 0, where there
        # is no logarithm, or far apart, in the middle.
        middle = round(math.sqrt(short * enough)) if 4 * short > enough else (short + enough) // 2
        middle = min(max(middle, short + 1), enough - 1)
        tried[middle] = reaches(middle)
    return _edge(tried)


def _edge(tried: dict[int, bool]) -> tuple[int | None, int | None]:
    enough = None
    for count in sorted(tried, reverse=True):
        if not tried[count]:
            return enough, count
        enough = count
    return enough, None

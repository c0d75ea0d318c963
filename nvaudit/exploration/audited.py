"""One point of a design space whose chips are run: in races where that is possible, else on every sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.exploration.search import Judged, KnownChips, SearchEnded
from nvaudit.perturb.montecarlo import ChipRunner
from nvaudit.perturb.race import Band, Edge, RaceTask
from nvaudit.perturb.racing import RaceQuestion, RaceState, Scouting, pilot_count, run_races, scout
from nvaudit.stats.front import front_range
from nvaudit.stats.ranks import blocks

_FIRST_BLOCK = 8


@dataclass
class PointChips:
    """The chips of a point; larger is better, so a loss has its sign changed.

    Attributes
    ----------
    runner : ChipRunner
        Of this point alone.
    margin : ndarray or None
        Of the unmodified model on every sample; None: every chip is run on every sample.
    raced : bool
        Whether chips of the front are raced; else they are run on every sample.
    scouting : Scouting or None
        What tells hard samples from easy ones while points are thrown out, from the chips of another point.
    folder : Path
        For files of the workers, which outlive the point.
    own : Scouting or None
        The same from chips of this point, once it was measured.
    """

    runner: ChipRunner
    margin: Floats | None
    raced: bool
    scouting: Scouting | None
    percentile: float
    confidence: float
    folder: Path
    own: Scouting | None = field(default=None)

    @property
    def images(self) -> int:
        """Inferences so far."""
        return self.runner.images.get(0, 0)

    def judge(self, trials: Sequence[int], bar: float) -> dict[int, Judged]:
        """Say of chips whether their metric is below a bar; of one that stays open, that it is not."""
        if self.scouting is None:
            values = self._values(trials)
            return {trial: Judged(value < bar, value) for trial, value in values.items()}
        band = Band((Edge(bar, 0.0),), ())
        task = RaceTask("certain", self.scouting.file, self.scouting.identity, (band,), self.scouting.samples)
        races = self.runner.certain(0, trials, task)
        self._check()
        return {trial: Judged(race.gap == 0, race.value) for trial, race in races.items()}

    def measure(self, bar: float, enough: int, error: float, order: Sequence[int]) -> KnownChips:
        """Run all chips as far as the KPP needs; no further once ``enough`` of them are below the bar."""
        trials = self.runner.trials
        if self.margin is not None:
            pilots = range(pilot_count(trials)) if self.raced else order[:_FIRST_BLOCK]
            self.own = scout(self.runner, 0, pilots, self.margin, self.folder)
            if self.own is None:
                raise SearchEnded
        if not self.raced:
            low, high = np.full(trials, -np.inf), np.full(trials, np.inf)
            for block in blocks(_FIRST_BLOCK, trials):
                for trial, value in self._values([order[place] for place in block]).items():
                    low[trial] = high[trial] = value
                if np.count_nonzero(high < bar) >= enough:
                    break
            return KnownChips(low, high, bool(np.isfinite(low).all()))
        assert self.own is not None  # what is raced has margins

        def is_out(state: RaceState) -> bool:
            self._check()
            return int(np.count_nonzero(state.high < bar)) >= enough

        question = RaceQuestion((front_range(self.percentile, trials, self.confidence),), (), error)
        state = run_races(self.runner, 0, trials, question, self.own, is_out)
        return KnownChips(state.low, state.high, not is_out(state))

    def _values(self, trials: Sequence[int]) -> dict[int, float]:
        sign = 1.0 if self.runner.metric.higher_is_better else -1.0
        values = self.runner.full(0, trials)
        self._check()
        return {trial: sign * value for trial, value in values.items()}

    def _check(self) -> None:
        """Give the point up where the run of its chips was ended."""
        if self.runner.stopped:
            raise SearchEnded

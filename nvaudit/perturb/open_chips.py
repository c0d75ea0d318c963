"""Run chips of a workload side by side in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.engine import Engine
from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.outcome import Outcome
from nvaudit.perturb.watchdog import ended_with
from nvaudit.perturb.workload import Workload


class OpenChips:
    """A model with its weights settled, open for running chips side by side.

    Parameters
    ----------
    keep : str or None
        File of the nominal outputs, where the metric compares with these.
    threads : int
        Chips at a time.
    """

    def __init__(self, workload: Workload, metric: Metric, keep: str | None, threads: int) -> None:
        self.metric, self.keep = metric, keep
        self.engines = [Engine(workload) for _ in range(max(1, threads))]

    def run(
        self, trials: Sequence[int], done: Callable[[int, Outcome], None] = lambda _trial, _outcome: None
    ) -> NDArray[np.float64]:
        """Score chips by number; :data:`nvaudit.perturb.engine.QUANTISED` is the one without noise.

        Parameters
        ----------
        done : callable
            Told each chip as soon as it is scored, from the thread that ran it.
        """
        metric, keep, lanes = self.metric, self.keep, len(self.engines)

        def lane(number: int) -> list[float]:
            engine, values = self.engines[number], []
            for trial in trials[number::lanes]:
                outcome = engine.chip(metric, keep, 0, trial)
                done(trial, outcome)
                values.append(outcome.value)
            return values

        # Lane i runs chips i, i + lanes, …: a chip is the same whichever lane runs it.
        values = np.empty(len(trials))
        with ThreadPoolExecutor(lanes) as pool, ended_with():
            for number, scores in enumerate(pool.map(lane, range(lanes))):
                values[number::lanes] = scores
        return values

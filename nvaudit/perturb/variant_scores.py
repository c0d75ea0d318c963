"""Scores of many variants of chips, side by side, handed out in the order in which they were asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.montecarlo import Progress
from nvaudit.perturb.variant import Variant
from nvaudit.perturb.workers import Pool


@dataclass(frozen=True)
class VariantRunner:
    """Runs variants of chips.

    Attributes
    ----------
    pool : Pool
    metric : Metric
    keep : str or None
        File of the nominal outputs that the metric compares with.
    point : int
        The operating point.
    progress : callable
        Told (what, done, total).
    """

    pool: Pool
    metric: Metric
    keep: str | None
    point: int
    progress: Progress

    def scores(
        self, what: str, calls: Sequence[tuple[int | None, Variant]], images: int
    ) -> Iterator[NDArray[np.float64]]:
        """Score every call's samples.

        Parameters
        ----------
        what : str
            For the progress.
        calls : sequence of (trial, Variant)
            Trial None is the unmodified model.
        images : int
            Samples of each, spread evenly over the set.

        Yields
        ------
        ndarray, float64, shape (images,)
            In the order of the calls, so that sums over them do not depend on who was fast.
        """
        waiting, todo = deque[Future[NDArray[np.float64]]](), deque(calls)
        self.progress(what, 0, len(calls))
        while todo or waiting:
            while todo and len(waiting) < max(1, self.pool.depth):
                trial, variant = todo.popleft()
                who = "the unmodified model" if trial is None else f"trial {trial}"
                arguments = (self.metric, self.keep, self.point, trial, variant, images)
                waiting.append(self.pool.submit(who, "variant_scores", *arguments))
            scores = waiting.popleft().result()
            self.progress(what, len(calls) - len(todo) - len(waiting), len(calls))
            yield scores

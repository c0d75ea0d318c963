"""Scores of many variants of chips, side by side, handed out in the order in which they were asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.metrics import Metric
from nvaudit.perturb.schedule import Progress, in_order
from nvaudit.perturb.variant import Variant
from nvaudit.perturb.workers import Pool


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
        self.progress(what, 0, len(calls))

        def submit(call: tuple[int | None, Variant]) -> Future[NDArray[np.float64]]:
            trial, variant = call
            who = "the unmodified model" if trial is None else f"trial {trial}"
            arguments = (self.metric, self.keep, self.point, trial, variant, images)
            return self.pool.submit(who, "variant_scores", *arguments)

        for done, (_, scores) in enumerate(in_order(self.pool, calls, submit), 1):
            self.progress(what, done, len(calls))
            yield scores

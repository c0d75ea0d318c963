"""How likely each sample is to be wrong on a chip, and how often a race should look at it.

Estimated from pilot chips that are evaluated on every sample. It decides only how fast a race is: whatever
stands here, a race's bound holds (:mod:`nvaudit.perturb.race`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.files import write_bytes_atomic
from nvaudit.perturb.metrics import Metric, class_last, over_set, score

UNIFORM = 0.7
"""Share of the draws that does not look at difficulty: bounds what a rare error of an easy sample weighs."""

_BINS = 100
_PER_BIN = 20
_PRIOR_CHIPS = 8.0
_LEAST = 1e-4


@dataclass(frozen=True)
class Difficulty:
    """What pilot chips say of every sample.

    Attributes
    ----------
    expected : ndarray, float64, shape (sample,)
        Expected error, above 0 and below 1.
    draw : ndarray, float64, shape (sample,)
        Probability of being drawn first; sums to 1.
    """

    expected: NDArray[np.float64]
    draw: NDArray[np.float64]

    @cached_property
    def total(self) -> float:
        """Errors to be expected of all samples."""
        return float(self.expected.sum())

    @cached_property
    def sums(self) -> NDArray[np.float64]:
        """Probability of drawing a sample or one before it."""
        return np.cumsum(self.draw)

    @cached_property
    def most_right(self) -> float:
        """Largest ``(1 - expected) / draw``."""
        return float(((1 - self.expected) / self.draw).max())

    @cached_property
    def most_wrong(self) -> float:
        """Largest ``expected / draw``."""
        return float((self.expected / self.draw).max())

    @property
    def digest(self) -> int:
        """63 bits that tell one difficulty from another."""
        content = hashlib.blake2b(self.expected.tobytes() + self.draw.tobytes(), digest_size=8).digest()
        return int.from_bytes(content, "little") >> 1

    def save(self, path: Path) -> None:
        """Write to a file that :func:`load_difficulty` reads."""
        write_bytes_atomic(path, np.stack([self.expected, self.draw]).tobytes())


def load_difficulty(path: Path) -> Difficulty:
    """Read what :meth:`Difficulty.save` has written."""
    expected, draw = np.frombuffer(path.read_bytes()).reshape(2, -1)
    return Difficulty(expected, draw)


def estimate_difficulty(errors: NDArray[np.float64], margin: NDArray[np.float64]) -> Difficulty:
    """Estimate from pilot chips.

    Parameters
    ----------
    errors : ndarray, float64, shape (chip, sample)
        Error of each pilot chip on each sample, 0 to 1.
    margin : ndarray, float64, shape (sample,)
        See :func:`nominal_margin`.

    Returns
    -------
    Difficulty
        Few chips say little of one sample: samples of like margin lend each other what they know. Samples
        are drawn in proportion to the standard deviation of their error (Neyman's allocation), mixed with a
        uniform draw.
    """
    chips, count = errors.shape
    seen = errors.sum(axis=0)
    alike = np.empty(count)
    bins = max(1, min(_BINS, count // _PER_BIN))
    for members in np.array_split(np.argsort(margin, kind="stable"), bins):
        # Half an error in one look more than there were: never 0 or 1, however few errors a bin has.
        alike[members] = (seen[members].sum() + 0.5) / (len(members) * chips + 1)
    # Mean of a beta law after the pilots, the bin's rate being worth _PRIOR_CHIPS chips. Away from 0 and 1,
    # so that every sample keeps some spread.
    expected = np.clip((_PRIOR_CHIPS * alike + seen) / (_PRIOR_CHIPS + chips), _LEAST, 1 - _LEAST)
    spread = np.sqrt(expected * (1 - expected))
    # A race's Z grows as 1/q and its bets shrink with the largest Z: q ≥ UNIFORM/n keeps that
    # below n/UNIFORM.
    return Difficulty(expected, (1 - UNIFORM) * spread / spread.sum() + UNIFORM / count)


def nominal_margin(metric: Metric, output: NDArray[Any], target: NDArray[Any] | None) -> NDArray[np.float64]:
    """Margin of each sample: the smaller, the sooner noise makes it wrong.

    Parameters
    ----------
    metric : Metric
        A bounded one.
    output : ndarray, batch first
        Of the unmodified model.
    target : ndarray or None, batch first
        Labels, or the decisions that the metric compares with.

    Returns
    -------
    ndarray, float64, shape (batch,)
        The score of the wanted class less the k-th best of the others; the distance to the threshold for a
        single score column; the smallest over positions where a sample has many. It serves only to order
        samples, so its unit does not matter. A sample whose scores are not numbers comes first.
    """
    if metric.decided:  # right or wrong is all there is
        return score(over_set(metric, target), output, target)
    if metric.ignore and target is not None:
        kept = ~np.isin(target, metric.ignore)
        margin = _positions(metric, output, np.where(kept, target, 0))
        return _per_sample(np.where(kept.reshape(margin.shape), margin, np.inf))
    return _per_sample(_positions(metric, output, target))


def _positions(metric: Metric, output: NDArray[Any], target: NDArray[Any] | None) -> NDArray[np.float64]:
    """Margin at every position."""
    if metric.class_axis is None:
        edge = 0.5 if metric.scale == "probability" else 0.0
        distance = output.astype(np.float64) - edge
        if target is not None:
            distance = np.where(target.reshape(output.shape) > edge, distance, -distance)
        return np.asarray(distance)
    scores = class_last(metric, output).astype(np.float64)
    if target is None:
        wanted = scores.argmax(axis=-1)[..., None]
    else:
        wanted = target.reshape(scores.shape[:-1])[..., None].astype(np.int64)
    own = np.take_along_axis(scores, wanted, -1)[..., 0]
    # Top-k is right while fewer than k others score higher: the rival is the k-th best of them.
    others = scores.copy()
    np.put_along_axis(others, wanted, -np.inf, -1)
    k = min(metric.k, scores.shape[-1] - 1)
    if k < 1:
        return np.asarray(np.zeros(own.shape))
    rival = np.partition(others, -k, axis=-1)[..., -k]
    return np.asarray(own - rival)


def _per_sample(margin: NDArray[np.float64]) -> NDArray[np.float64]:
    worst = np.nan_to_num(margin, nan=-np.inf).reshape(len(margin), -1).min(axis=1)
    return np.asarray(worst, dtype=np.float64)

"""How safely the unmodified model gets each sample right: what tells hard samples from easy ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.perturb.metrics import Metric, class_last, over_set, score


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

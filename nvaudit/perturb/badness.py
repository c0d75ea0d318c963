"""How bad a chip is, as one number that rarely ties: what splitting climbs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from nvaudit.arrays import Floats
from nvaudit.perturb.difficulty import nominal_margin
from nvaudit.perturb.metrics import Metric


def counts_errors(metric: Metric) -> bool:
    """Whether a sample is either right or wrong, so that badness is a number of errors and a part below 1."""
    positions = math.prod(metric.row or ()) if metric.class_axis is None else 1
    single = len(metric.row or ()) <= 1 and positions == 1
    return metric.kind in ("top_k", "agreement") and single and not metric.ignore


def margin_scale(margins: Floats) -> float:
    """Margin that counts as large: the median size of the unmodified model's."""
    finite = np.abs(margins[np.isfinite(margins)])
    return float(np.median(finite)) or 1.0 if len(finite) else 1.0


def soft_errors(
    metric: Metric, output: NDArray[Any], target: NDArray[Any] | None, scale: float
) -> NDArray[np.float64]:
    """Errors of samples made smooth: near 1 far on the wrong side, near 0 far on the right one."""
    # Chips with equally many errors would tie, and a level in a tie cuts a pool anywhere but at its share.
    # The margin also says which chips lie near more errors, so moves go there.
    return np.asarray(expit(-nominal_margin(metric, output, target) / scale), np.float64)


def badness(metric: Metric, value: float, samples: int, soft: float = 0.0) -> float:
    """Badness of a chip: higher is worse.

    Parameters
    ----------
    value : float
        Its metric over the set.
    soft : float
        Sum of the soft errors of all samples, of a metric that counts errors. With 0 it is the least badness
        of chips of this metric, and above that of all better ones.
    """
    if not counts_errors(metric):
        return -value if metric.higher_is_better else value
    return round(samples * (1 - value)) + min(soft / samples, 1 - 2**-20)


def metric_at(metric: Metric, bad: float, samples: int) -> float:
    """Metric of a chip of some badness."""
    if not counts_errors(metric):
        return -bad if metric.higher_is_better else bad
    return (samples - math.floor(bad)) / samples

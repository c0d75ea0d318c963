"""Ranks of models by each measure, and how far two measures agree about the order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import get_args

import numpy as np
from pydantic import Field
from scipy.special import stdtr

from nvaudit.arrays import Floats
from nvaudit.report.sections import ReportPart
from nvaudit.spec import Measure

MEASURES: tuple[Measure, ...] = get_args(Measure)

FEW_MODELS = 5
"""With fewer models no order at all is beyond chance at 5 %."""

_EXACT_UP_TO = 8
"""Models up to which every order is tried: 8! = 40,320."""

_ROUNDING = 1e-9


class RankCorrelation(ReportPart):
    """Spearman's rank correlation of two measures over the models."""

    first: Measure
    second: Measure
    models: int = Field(ge=0, description="That have both.")
    value: float | None = Field(description="From -1 to 1; null where a measure is missing or all the same.")
    p: float | None = Field(description="Two-sided: chance of such a correlation without a connection.")
    least_p: float | None = Field(description="Smallest p that so many models can give.")
    remark: str | None = Field(default=None, description="Why there is no value, or what it cannot say.")


def places(values: Sequence[float | None], higher_is_better: bool) -> tuple[int | None, ...]:
    """Place of each value, the best first; equal values share the best of their places.

    Examples
    --------
    >>> places([0.9, 0.95, None, 0.9], higher_is_better=True)
    (2, 1, None, 2)
    """
    known = [value for value in values if value is not None]
    return tuple(
        None
        if value is None
        else 1 + sum(other > value if higher_is_better else other < value for other in known)
        for value in values
    )


def spearman(
    first: Measure, second: Measure, pairs: Sequence[tuple[float | None, float | None]]
) -> RankCorrelation:
    """Correlate the ranks of two measures.

    Parameters
    ----------
    pairs : sequence of (float or None, float or None)
        Both measures of each model.

    Returns
    -------
    RankCorrelation
        p from all orders up to 8 models, by Student's t beyond.

    References
    ----------
    C. Spearman, American Journal of Psychology 15 (1904) 72.

    Examples
    --------
    >>> found = spearman("roughness", "kpp", [(1, 9), (2, 8), (3, 8.5), (4, 7), (5, 6)])
    >>> round(found.value, 6), round(found.p, 6)
    (-0.9, 0.083333)
    """
    known = [(x, y) for x, y in pairs if x is not None and y is not None]
    n = len(known)
    least = min(1.0, 2 / math.factorial(n)) if 2 <= n <= _EXACT_UP_TO else None

    def without(why: str) -> RankCorrelation:
        return RankCorrelation(
            first=first, second=second, models=n, value=None, p=None, least_p=least, remark=why
        )

    if n < 2:
        return without("needs two models that have both")
    x, y = (_average_ranks(np.array(column, dtype=np.float64)) for column in zip(*known, strict=True))
    if not x.any() or not y.any():
        return without(f"all models have the same {first if not x.any() else second}")
    value = float(x @ y / math.sqrt(float(x @ x) * float(y @ y)))
    p = _exact_p(x, y) if n <= _EXACT_UP_TO else _student_p(value, n)
    remark = None
    if n < FEW_MODELS and least is not None:
        remark = f"{n} models say little: even a perfect order has p = {least:.2g}"
    return RankCorrelation(
        first=first, second=second, models=n, value=value, p=p, least_p=least, remark=remark
    )


def _average_ranks(values: Floats) -> Floats:
    """Ranks about their mean; equal values share the mean of their ranks."""
    # Below it, and half of its equals beside itself; the mean of all ranks, (n − 1) / 2, is taken off.
    below = (values[:, None] > values[None]).sum(axis=1)
    equal = (values[:, None] == values[None]).sum(axis=1)
    return np.asarray(below + (equal - 1) / 2 - (len(values) - 1) / 2, dtype=np.float64)


def _exact_p(x: Floats, y: Floats) -> float:
    """Share of all orders that correlate at least as strongly."""
    # Without a connection every order of the second is equally likely. One that must be as strong as what
    # was found may come out a last digit weaker, for its terms are added in another order: the tolerance.
    orders = np.array(list(permutations(range(len(x)))))
    strength = np.abs(x[orders] @ y)
    return float(np.mean(strength >= abs(float(x @ y)) - _ROUNDING))


def _student_p(value: float, n: int) -> float:
    # t would be infinite; only two of all n! orders are perfect, the one and its reverse.
    if abs(value) >= 1 - _ROUNDING:
        return 2 / math.factorial(n)
    t = abs(value) * math.sqrt((n - 2) / (1 - value * value))
    return float(2 * stdtr(n - 2, -t))

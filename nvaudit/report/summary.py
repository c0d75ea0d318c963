"""From measured numbers to the audit report: KPP, yields, gates, the line that comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nvaudit.report.binomial import standard_error
from nvaudit.report.gate import GateResult, decide, overall_verdict
from nvaudit.report.kpp import kpp, yield_at
from nvaudit.report.result import (
    AuditReport,
    DataInfo,
    MetricInfo,
    OperatingPointInfo,
    SweepPoint,
    TensorDecision,
    TrialSummary,
)
from nvaudit.report.wording import kpp_name, value_text


@dataclass(frozen=True)
class Measured:
    """What the Monte-Carlo measured.

    Attributes
    ----------
    metric, unit : str
    higher_is_better : bool
    assumed : tuple of str
    nominal, quantised : float
    values : ndarray, float64, shape (point, trial)
    images : int
        Inferences made.
    images_exhaustive : int
        Inferences that evaluating every chip on every image takes.
    sigmas : tuple of float
        One per point.
    sigma_unit : str
    """

    metric: str
    unit: str
    higher_is_better: bool
    assumed: tuple[str, ...]
    nominal: float
    quantised: float
    values: NDArray[np.float64]
    images: int
    images_exhaustive: int
    sigmas: tuple[float, ...]
    sigma_unit: str


@dataclass(frozen=True)
class Questions:
    """What is asked of the chips: percentiles, confidence, yields, and the gate's threshold."""

    percentiles: tuple[float, ...]
    confidence: float
    yield_at: tuple[float, ...]
    min_kpp: float | None


def summarise(
    measured: Measured,
    questions: Questions,
    *,
    tensors: Sequence[TensorDecision],
    data: Mapping[str, Any],
    operating_point: Mapping[str, Any],
    **rest: Any,
) -> AuditReport:
    """Make the report.

    Parameters
    ----------
    measured : Measured
    questions : Questions
    tensors : sequence of TensorDecision
    data : mapping
        Fields of ``DataInfo`` but the standard error.
    operating_point : mapping
        Fields of ``OperatingPointInfo`` but sigma and its unit.
    **rest
        Further fields of ``AuditReport``.

    Returns
    -------
    AuditReport
        Of a sweep, the point with the largest sigma stands at the top; every point must pass the gate.
    """
    points = [_point(measured, questions, i) for i in range(len(measured.sigmas))]
    worst = max(points, key=lambda point: point.sigma)
    gates = tuple(gate for point in points for gate in point.gate)
    label_free = data["label_kind"] == "none"
    return AuditReport(
        headline=_headline(measured, worst, gates, label_free, rest["device"]["name"]),
        label_free=label_free,
        verdict=overall_verdict(gates),
        metric=measured.metric,
        metric_info=MetricInfo(
            higher_is_better=measured.higher_is_better, unit=measured.unit, assumed=measured.assumed
        ),
        nominal=measured.nominal,
        quantised=measured.quantised,
        kpp=worst.kpp,
        yields=worst.yields,
        gate=gates,
        trials=worst.trials,
        sweep=tuple(points) if len(points) > 1 else (),
        tensors=tuple(tensors),
        data=DataInfo(
            **data,
            standard_error=standard_error(measured.nominal, data["count"], measured.metric, measured.unit),
        ),
        operating_point=OperatingPointInfo(**operating_point, sigma=worst.sigma, sigma_unit=worst.sigma_unit),
        **rest,
    )


def _point(measured: Measured, questions: Questions, index: int) -> SweepPoint:
    values = measured.values[index]
    better = measured.higher_is_better
    thresholds = dict.fromkeys(
        (*questions.yield_at, *(() if questions.min_kpp is None else (questions.min_kpp,)))
    )
    share = len(measured.sigmas)
    return SweepPoint(
        sigma=measured.sigmas[index],
        sigma_unit=measured.sigma_unit,
        kpp=tuple(kpp(values, k, questions.confidence, better) for k in questions.percentiles),
        yields=tuple(yield_at(values, t, questions.confidence, better) for t in thresholds),
        gate=()
        if questions.min_kpp is None
        else tuple(
            decide(values, questions.min_kpp, k, questions.confidence, better) for k in questions.percentiles
        ),
        trials=TrialSummary(
            count=len(values),
            values=tuple(values.tolist()),
            images_evaluated=measured.images // share,
            images_exhaustive=measured.images_exhaustive // share,
            exact=measured.images >= measured.images_exhaustive,
            mean=float(values.mean()),
            std=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            min=float(values.min()),
            max=float(values.max()),
        ),
    )


def _headline(
    measured: Measured,
    worst: SweepPoint,
    gates: Sequence[GateResult],
    label_free: bool,
    device: str,
) -> str:
    result = worst.kpp[0]
    text = (
        f"{kpp_name(result.percentile)} {measured.metric} {value_text(result.value, measured.unit)} "
        f"on {device}, sigma {worst.sigma:g} {worst.sigma_unit}, {result.trials} chips"
    )
    verdict = overall_verdict(gates)
    if verdict is not None:
        text = f"{verdict.upper()}: {text}"
    if label_free:
        text = f"LABEL-FREE (no labels: compared with the unperturbed model only): {text}"
    return text

"""From measured chips to the report of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nvaudit.arrays import Floats
from nvaudit.mapping.tiling import device_columns
from nvaudit.model import Weight
from nvaudit.perturb.metrics import Metric
from nvaudit.report.mapped import MappedShare
from nvaudit.report.paired import paired_difference
from nvaudit.report.sections import DataInfo, MetricInfo
from nvaudit.report.write_verify.result import (
    VerifyChoice,
    VerifyPoint,
    VerifyReport,
    VerifyTensor,
    verify_report,
)
from nvaudit.session import Session
from nvaudit.stats.binomial import standard_error
from nvaudit.stats.kpp import kpp
from nvaudit.tensor_table import measured_late
from nvaudit.write_verify.correction import VerifiedSpread
from nvaudit.write_verify.ranking import RankedWeights
from nvaudit.write_verify.spec import VerifySpec


@dataclass(frozen=True)
class MeasuredPlan:
    """What a run of a plan has measured.

    Attributes
    ----------
    values : mapping of int to ndarray
        By number of verified weights, 0 among them: the metric of every chip.
    plan : Path or None
        The file of masks, if one was written.
    """

    metric: Metric
    nominal: float
    quantised: float
    correction: VerifiedSpread
    ranked: RankedWeights
    values: Mapping[int, Floats]
    choice: VerifyChoice | None
    weights: Mapping[str, Weight]
    plan: Path | None
    mapped: MappedShare


def _point(spec: VerifySpec, measured: MeasuredPlan, count: int) -> VerifyPoint:
    ranked, values, better = measured.ranked, measured.values[count], measured.metric.higher_is_better
    devices, every = ranked.devices(count), ranked.devices(ranked.total)
    # Paired: chip t has the same draws with and without verified weights.
    difference = None
    if count:
        none, confidence = measured.values[0], spec.run.confidence
        difference = paired_difference(none, values, spec.percentile, confidence, better)
    return VerifyPoint(
        share=count / ranked.total,
        weights=count,
        devices=devices,
        saved=every - devices,
        kpp=kpp(values, spec.percentile, spec.run.confidence, better),
        mean=float(values.mean()),
        worst=float(values.min() if better else values.max()),
        difference=difference,
        values=tuple(values.tolist()),
    )


def _tensors(session: Session, measured: MeasuredPlan) -> list[VerifyTensor]:
    ranked = measured.ranked
    count = max(measured.values) if measured.choice is None else measured.choice.weights
    return [
        VerifyTensor(
            name=tensor.key,
            op=measured.weights[tensor.key].op,
            shape=measured.weights[tensor.key].stored_shape,
            stored=measured.weights[tensor.key].origin,
            weights=(held := int(np.count_nonzero(place < ranked.total))),
            devices=held * device_columns(tensor.array),
            verified=int(np.count_nonzero(place < count)),
        )
        for tensor, place in zip(ranked.tensors, ranked.place, strict=True)
    ]


def plan_report(spec: VerifySpec, session: Session, measured: MeasuredPlan) -> VerifyReport:
    """Make the report of a plan."""
    data, point, metric = session.dataset, session.points[0], measured.metric
    ranked, correction = measured.ranked, measured.correction
    return verify_report(
        [_point(spec, measured, count) for count in sorted(measured.values)],
        measured.choice,
        label_free=data.label_kind == "none",
        ranking=spec.own.ranking,
        ranked_by=ranked.basis,
        **session.header(),
        sigma=point.sigma,
        sigma_unit=point.sigma_unit,
        time_s=point.time_s,
        verify_sigma=correction.sigma,
        reduced=correction.terms,
        left=correction.left,
        metric=metric.name,
        metric_info=MetricInfo.model_validate(metric, from_attributes=True),
        nominal=measured.nominal,
        quantised=measured.quantised,
        mapped=measured.mapped,
        require_mapped=spec.run.require_mapped,
        weights=ranked.total,
        devices=ranked.devices(ranked.total),
        target=spec.own.target_kpp,
        tensors=tuple(_tensors(session, measured)),
        plan=None if measured.plan is None else str(measured.plan),
        data=DataInfo(
            **data.facts(),
            standard_error=standard_error(measured.nominal, data.count, metric.name, metric.unit),
        ),
        run={**spec.dump(), "batch_size": session.spec.batch_size},
        notes=tuple(_notes(spec, session, measured)),
    )


def _notes(spec: VerifySpec, session: Session, measured: MeasuredPlan) -> list[str]:
    notes = [*session.notes, *measured_late(session.points[0].profile)]
    if measured.correction.sigma == 0:
        notes.append(
            "verified devices hold their targets exactly, which is the most that verifying can give; "
            "--verify-sigma says what a real loop leaves"
        )
    if spec.own.ranking == "swim" and spec.own.sensitivity_data is None:
        notes.append(
            "the ranking looked at samples that the chips are scored on, though not at their labels; "
            "--sensitivity-data gives it others"
        )
    folded = [
        tensor.key for tensor in measured.ranked.tensors if measured.weights[tensor.key].origin == "folded"
    ]
    if folded:
        notes.append(
            "computed in the graph, so that the mask is that of the computed value: " + ", ".join(folded)
        )
    if measured.choice is None:
        notes.append("no plan was written, because no share reaches the target")
    return notes

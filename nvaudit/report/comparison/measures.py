"""The measures of a comparison: from a report to a number, and from numbers to places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nvaudit.errors import OptionError
from nvaudit.report.comparison.ranks import MEASURES, places
from nvaudit.report.comparison.result import ModelSize, RoughnessScore
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import TensorDecision
from nvaudit.spec import Measure


def one_gate(reports: Mapping[str, AuditReport]) -> bool:
    """Whether all have the same gate, of the chips, of the share on the array, or both."""
    gates = {
        (
            frozenset((g.threshold, g.percentile) for g in report.gate),
            None if report.mapped_gate is None else report.mapped_gate.required,
        )
        for report in reports.values()
    }
    return len(gates) == 1 and gates != {(frozenset(), None)}


def common_thresholds(reports: Mapping[str, AuditReport]) -> tuple[float, ...]:
    """Thresholds at which every model has a yield, in the order of the first."""
    every = [[item.threshold for item in report.yields] for report in reports.values()]
    return tuple(dict.fromkeys(t for t in every[0] if all(t in other for other in every)))


def common_percentiles(reports: Mapping[str, AuditReport]) -> tuple[float, ...]:
    """Percentiles of which every model has the KPP, in the order of the first."""
    every = [[item.percentile for item in report.kpp] for report in reports.values()]
    return tuple(k for k in every[0] if all(k in other for other in every))


def roughness_scores(
    reports: Mapping[str, AuditReport],
) -> tuple[dict[str, RoughnessScore | None], tuple[str, ...]]:
    """Roughness of each model, and a remark where they cannot be ranked by it."""
    scores: dict[str, RoughnessScore | None] = {}
    settings = set()
    for name, report in reports.items():
        roughness = report.roughness
        if roughness is None:
            scores[name] = None
            continue
        scores[name] = RoughnessScore(value=roughness.value, standard_error=roughness.standard_error)
        settings.add((roughness.loss, roughness.grid, roughness.span, roughness.images, roughness.batch_norm))
    if len(settings) > 1:
        return dict.fromkeys(reports), (
            "the roughnesses were measured with different settings (loss, grid, span, images, batch norm) "
            "and are left out",
        )
    return scores, ()


def measures_of(
    report: AuditReport, roughness: RoughnessScore | None, thresholds: Sequence[float]
) -> dict[Measure, float | None]:
    """Give the value of each measure."""
    shares = {item.threshold: item.share for item in report.yields}
    return {
        "kpp": report.kpp[0].value,
        "mean": report.trials.mean,
        "nominal": report.nominal,
        "yield": shares[thresholds[0]] if thresholds else None,
        "roughness": None if roughness is None else roughness.value,
        "size": size_of(report.tensors).devices,
    }


def size_of(tensors: Sequence[TensorDecision]) -> ModelSize:
    """Count what is on the array."""
    mapped = [tensor for tensor in tensors if tensor.decision == "mapped"]
    return ModelSize(
        weights=sum(math.prod(tensor.shape) for tensor in mapped),
        devices=sum(tensor.devices or 0 for tensor in mapped),
        crossbars=sum(tensor.crossbars or 0 for tensor in mapped),
    )


def rank_models(
    reports: Mapping[str, AuditReport], measures: Mapping[str, Mapping[Measure, float | None]]
) -> dict[str, dict[Measure, int | None]]:
    """Place of each model by each measure."""
    better = next(iter(reports.values())).metric_info.higher_is_better
    more: dict[Measure, bool] = {
        "kpp": better, "mean": better, "nominal": better, "yield": True, "roughness": False, "size": False,
    }  # fmt: skip
    ranks: dict[str, dict[Measure, int | None]] = {name: {} for name in measures}
    for measure in MEASURES:
        model_places = places([values[measure] for values in measures.values()], more[measure])
        for name, place in zip(measures, model_places, strict=True):
            ranks[name][measure] = place
    return ranks


def check_measure(rank_by: Measure, ranks: Mapping[str, Mapping[Measure, int | None]]) -> None:
    """Refuse a measure that no model has.

    Raises
    ------
    OptionError
        Saying what would give it.
    """
    if any(own[rank_by] is not None for own in ranks.values()):
        return
    cure = {
        "yield": "give a threshold with --yield-at, the same for all",
        "roughness": "measure it with the same settings for all",
    }
    raise OptionError(f"--rank {rank_by}: no model has it; {cure.get(rank_by, 'choose another measure')}")


def sort_key(own: Mapping[Measure, int | None], rank_by: Measure) -> tuple[float, float]:
    """Sort by the measure, equal ones by KPP; what has no value goes last."""
    place, kpp = own[rank_by], own["kpp"]
    return math.inf if place is None else place, math.inf if kpp is None else kpp

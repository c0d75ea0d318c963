"""The tables of a comparison as records."""

from __future__ import annotations

from nvaudit.report.comparison.ranks import MEASURES
from nvaudit.report.comparison.result import ComparedModel, ComparisonReport
from nvaudit.report.records import Cell, Records, Tables, flat, records_of

_KPP_FIELDS = ("value", "low", "high")


def tables(report: ComparisonReport) -> Tables:
    """The models, their differences from the baseline, and how measures agree about the order."""
    models = Records(tuple(_heading(report)), tuple(tuple(_row(report, model)) for model in report.models))
    return {
        "models": models,
        "differences": records_of(flat(item) for item in report.differences),
        "correlations": records_of(flat(item) for item in report.correlations),
    }


def _heading(report: ComparisonReport) -> list[str]:
    first = report.models[0]
    percentiles = [f"kpp_{found.percentile:.10g}" for found in first.kpp]
    return [
        "place", "model", "path", "metric", "nominal", "quantised", "mean", "std",
        *(
            f"{name}{'' if part == 'value' else '_' + part}"
            for name in percentiles
            for part in _KPP_FIELDS
        ),
        *(
            f"yield_{item.threshold:.10g}{suffix}"
            for item in first.yields
            for suffix in ("", "_low", "_high")
        ),
        "verdict", "roughness", "roughness_standard_error", "weights", "devices", "crossbars", "images",
        "trials", "seconds", "share_converted", *(f"place_by_{measure}" for measure in MEASURES),
        "kpp_difference", "kpp_difference_low", "kpp_difference_high",
        "share_of_products", "share_of_weights",
    ]  # fmt: skip


def _row(report: ComparisonReport, model: ComparedModel) -> list[Cell]:
    difference = next((item.kpp for item in report.differences if item.model == model.name), None)
    rough = model.roughness
    return [
        model.place, model.name, model.model, report.metric,
        model.nominal, model.quantised, model.mean, model.std,
        *(cell for found in model.kpp for cell in (found.value, found.low, found.high)),
        *(cell for item in model.yields for cell in (item.share, item.low, item.high)),
        model.verdict, None if rough is None else rough.value,
        None if rough is None else rough.standard_error,
        model.size.weights, model.size.devices, model.size.crossbars, model.images, model.trials,
        model.seconds, model.share_converted, *(model.places[measure] for measure in MEASURES),
        *((None,) * 3 if difference is None else (difference.value, difference.low, difference.high)),
        *((None,) * 2 if model.mapped is None
          else (model.mapped.share_of_products, model.mapped.share_of_weights)),
    ]  # fmt: skip

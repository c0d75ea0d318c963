"""The tables of a comparison as records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nvaudit.report.cases import gate_numbers, kpp_numbers, kpp_text, question_text, wanted_text
from nvaudit.report.comparison.ranks import MEASURES
from nvaudit.report.comparison.result import ComparedModel, ComparisonReport
from nvaudit.report.records import Check, Records, RecordValue, Tables, flat, records_of, share_check
from nvaudit.report.wording import kpp_name

_KPP_FIELDS = ("value", "low", "high")
_COSTS = ("energy_j", "latency_s", "edp_js", "area_m2")


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
    percentiles = [f"kpp_{kpp.percentile:.10g}" for kpp in first.kpp]
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
        "share_of_products", "share_of_weights", "code", "devices_per_weight",
        *(_COSTS if any(model.cost is not None for model in report.models) else ()),
    ]  # fmt: skip


def _row(report: ComparisonReport, model: ComparedModel) -> list[RecordValue]:
    difference = next((item.kpp for item in report.differences if item.model == model.name), None)
    rough = model.roughness
    return [
        model.place, model.name, model.model, report.metric,
        model.nominal, model.quantised, model.mean, model.std,
        *(cell for kpp in model.kpp for cell in (kpp.value, kpp.low, kpp.high)),
        *(cell for item in model.yields for cell in (item.share, item.low, item.high)),
        model.verdict, None if rough is None else rough.value,
        None if rough is None else rough.standard_error,
        model.size.weights, model.size.devices, model.size.crossbars, model.images, model.trials,
        model.seconds, model.share_converted, *(model.places[measure] for measure in MEASURES),
        *((None,) * 3 if difference is None else (difference.value, difference.low, difference.high)),
        *((None,) * 2 if model.mapped is None
          else (model.mapped.share_of_products, model.mapped.share_of_weights)),
        *((None,) * 2 if model.codes is None
          else (model.codes.name, model.codes.devices_per_weight)),
        *(
            tuple(None if model.cost is None else getattr(model.cost, name) for name in _COSTS)
            if any(other.cost is not None for other in report.models) else ()
        ),
    ]  # fmt: skip


def checks(report: ComparisonReport) -> list[Check]:
    """Ask every model for every percentile; one that fails is no failure where another one was chosen."""
    return [check for model in report.models for check in _checks_of(model, report)]


def _checks_of(model: ComparedModel, report: ComparisonReport) -> Iterator[Check]:
    info = report.metric_info
    for kpp in model.kpp:
        gate = next((gate for gate in model.gate if gate.percentile == kpp.percentile), None)
        name, lines = f"{kpp_name(kpp.percentile)} of {report.metric}", [kpp_text(kpp, info.unit)]
        numbers = kpp_numbers(kpp) | {"chips": model.trials, "mean": model.mean}
        if gate is not None:
            name += f" {wanted_text(gate, info)}"
            lines.insert(0, f"{gate.verdict.upper()}: {question_text(gate, info)}: {gate.reason}")
            numbers |= gate_numbers(gate)
        check = Check(name, None if gate is None else gate.verdict, tuple(lines), numbers)
        yield _of_model(check, model, report)
    if model.mapped_gate is not None:
        yield _of_model(share_check(model.mapped_gate, model.mapped), model, report)


def _of_model(check: Check, model: ComparedModel, report: ComparisonReport) -> Check:
    needed = check.verdict in ("fail", "undecided") and report.verdict == "pass"
    return replace(check, name=f"{model.name}: {check.name}", verdict="skipped" if needed else check.verdict)

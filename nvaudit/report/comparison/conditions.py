"""What must be equal of audits that are compared, and what is worth a remark where it is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import JsonValue

from nvaudit.errors import OptionError
from nvaudit.report.comparison.difference import Relation
from nvaudit.report.jsontext import short_repr
from nvaudit.report.result import AuditReport

ConditionValues: TypeAlias = Mapping[str, Any]

# Options in which runs may differ without a word: what the models are, and how they are run.
_OWN = frozenset({"model", "data", "workers", "dask", "output_name", "batch_size", "provider"})


def conditions_of(report: AuditReport) -> ConditionValues:
    """Give what audits must share to be compared."""
    point = report.operating_point
    return {
        **point_conditions(report.device, point.sigma, point.sigma_unit, point.time_s, point.terms),
        "percentile": report.kpp[0].percentile,
        "confidence": report.kpp[0].confidence,
        "metric": report.metric,
        "unit of the metric": report.metric_info.unit,
        "labels": "none" if report.label_free else "there",
    }


def point_conditions(
    device: Mapping[str, JsonValue], sigma: float, unit: str, time_s: float, terms: Sequence[str]
) -> dict[str, Any]:
    """Give the part of it that is known before a run."""
    return {
        "device": device.get("name"),
        **{f"device: {key}": value for key, value in device.items() if key != "name"},
        "sigma": sigma,
        "unit of sigma": unit,
        "time": time_s,
        "noise terms": list(terms),
    }


def check_same(first: str, mine: ConditionValues, second: str, other: ConditionValues) -> None:
    """Refuse audits under different conditions.

    Parameters
    ----------
    first, second : str
        Names, for the message.
    mine, other : mapping
        Only what both have is compared.

    Raises
    ------
    OptionError
        Naming the first difference.
    """
    for key, value in mine.items():
        if key in other and other[key] != value:
            raise OptionError(
                f"{first} and {second} cannot be compared: {key}: {short_repr(value)} and "
                f"{short_repr(other[key])}; audit both under the same conditions"
            )


def option_notes(reports: Mapping[str, AuditReport]) -> Iterator[str]:
    """Say in which other options the runs differ."""
    runs = {name: report.run for name, report in reports.items()}
    keys = dict.fromkeys(key for run in runs.values() for key in run)
    for key in keys:
        values = {name: run.get(key) for name, run in runs.items()}
        if key in _OWN or len({repr(value) for value in values.values()}) == 1:
            continue
        shown = ", ".join(f"{name} {short_repr(value)}" for name, value in values.items())
        yield f"the runs differ in {key.replace('_', ' ')}: {shown}"


def chip_relation(first: AuditReport, second: AuditReport) -> Relation:
    """Find out what the chips of two audits share.

    The noise of a tensor is addressed by seed, chip and the tensor's name.
    """
    if first.run.get("seed") != second.run.get("seed"):
        return "independent"
    arrays = [
        {(t.path, t.name): (t.shape, t.bits, t.slices) for t in report.tensors if t.decision == "mapped"}
        for report in (first, second)
    ]
    if arrays[0].keys().isdisjoint(arrays[1]):
        return "independent"
    return "same" if arrays[0] == arrays[1] else "partly_shared"

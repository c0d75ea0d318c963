"""What must be equal of audits that are compared, and what is worth a remark where it is not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import JsonValue

from nvaudit.errors import OptionError
from nvaudit.report.comparison.difference import Relation
from nvaudit.report.result import AuditReport
from nvaudit.report.wording import converters_text, duration_text, sigma_text

ConditionValues: TypeAlias = Mapping[str, Any]

_DESCRIBES = frozenset({"schema_version", "technology", "description", "source", "valid_range"})
"""Keys of a profile that say where it comes from; chips do not depend on them."""

# Options in which runs may differ without a word: what the models are, and how they are run.
_OWN = frozenset({"model", "data", "workers", "dask", "output_name", "batch_size", "provider",
                  "max_minutes"})  # fmt: skip


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
        **{f"device: {key}": value for key, value in _physics(device).items()},
        "sigma": sigma,
        "unit of sigma": unit,
        "time": time_s,
        "noise terms": list(terms),
    }


def _physics(device: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What of a profile makes its chips what they are."""
    return {key: value for key, value in device.items() if key not in _DESCRIBES and key != "name"}


def differences(mine: ConditionValues, theirs: ConditionValues) -> dict[str, tuple[str, str] | None]:
    """Give both values in words of every condition that differs, by its name; None where they are too long.

    Where the devices are others, what their profiles say is not named too.
    """
    differing = {key: value for key, value in mine.items() if key in theirs and theirs[key] != value}
    if "device" in differing:
        differing = {key: value for key, value in differing.items() if key not in _of_device(mine)}
    return {key: _both_texts(value, theirs[key]) for key, value in differing.items()}


def _of_device(conditions: ConditionValues) -> set[str]:
    """Conditions that follow from the device."""
    return {key for key in conditions if key.startswith("device: ")} | {"unit of sigma", "noise terms"}


def _both_texts(first: object, second: object) -> tuple[str, str] | None:
    texts = _option_text(first), _option_text(second)
    return None if texts[0] is None or texts[1] is None or texts[0] == texts[1] else (texts[0], texts[1])


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
    for key, texts in differences(mine, other).items():
        what = f"{key} differs" if texts is None else f"{key}: {texts[0]} and {texts[1]}"
        raise OptionError(
            f"{first} and {second} cannot be compared: {what}; audit both under the same conditions"
        )


_MUST_AGREE = ("percentile", "confidence", "metric", "unit of the metric", "labels")
"""Without these numbers cannot stand in one table."""


def check_comparable(first: str, mine: ConditionValues, second: str, other: ConditionValues) -> None:
    """Refuse reports whose numbers are not of one kind; device, sigma, time and converters may differ.

    Raises
    ------
    OptionError
        Naming the first difference.
    """
    check_same(first, {key: mine[key] for key in _MUST_AGREE}, second, other)


def named_differences(reports: Mapping[str, AuditReport]) -> dict[str, dict[str, str]]:
    """Give of every report, in words, the conditions in which they differ; none where they do not."""
    of = {name: _in_words(report) for name, report in reports.items()}
    first = next(iter(of.values()))
    differing = [key for key in first if len({words[key] for words in of.values()}) > 1]
    if "device" in differing and "profile" in differing:
        differing.remove("profile")  # another device has another profile
    return {name: {key: words[key] for key in differing} for name, words in of.items()}


def _in_words(report: AuditReport) -> dict[str, str]:
    point, run = report.operating_point, report.run
    converters = {"--adc-bits": run.get("adc_bits"), "--dac-bits": run.get("dac_bits")}
    if run.get("adc_bits") is not None:
        converters |= {"--adc-range": run.get("adc_range"), "--crossbar": run.get("crossbar")}
    words = {
        "device": str(report.device.get("name")),
        "σ": sigma_text(point.sigma, point.sigma_unit).removeprefix("sigma "),
        "time": duration_text(point.time_s),
        "noise terms": ", ".join(point.terms) or "none",
        "converters": converters_text(converters if run.get("adc_bits") is not None else None),
    }
    physics = sorted(_physics(report.device).items())
    return {**words, "profile": hashlib.sha256(repr(physics).encode()).hexdigest()[:8]}


def option_notes(reports: Mapping[str, AuditReport]) -> Iterator[str]:
    """Say in which other options the runs differ."""
    runs = {name: report.run for name, report in reports.items()}
    keys = dict.fromkeys(key for run in runs.values() for key in run)
    for key in keys:
        values = {name: run.get(key) for name, run in runs.items()}
        if key in _OWN or len({repr(value) for value in values.values()}) == 1:
            continue
        texts = {name: _option_text(value) for name, value in values.items()}
        shown = ", ".join(f"{name} {text}" for name, text in texts.items())
        about = f": {shown}" if None not in texts.values() else ""
        yield f"the runs differ in {key.replace('_', ' ')}{about}"


def _option_text(value: object) -> str | None:
    """Show the value of an option as its user would say it; None where it is too long for a sentence."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
        value = " ".join(map(str, value))
    return str(value) if isinstance(value, str | int | float) and len(str(value)) < 60 else None


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

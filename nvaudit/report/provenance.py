"""The part of the terminal report that says what the result rests on and how to get it again."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text

from nvaudit.report.result import AuditReport
from nvaudit.report.sections import runtime_text
from nvaudit.report.terminal import heading, sentence
from nvaudit.report.wording import (
    count_text,
    difference_text,
    duration_text,
    roughness_text,
)

_HASH_DIGITS = 12

LABELS = {
    "class": "class labels",
    "reference": "reference outputs",
    "multilabel": "several labels a sample",
    "none": "no labels",
}
"""What the data hold beside the inputs, in words."""


def provenance(report: AuditReport, width: int) -> Iterable[Text]:
    """Render roughness, events, notes, and how the audit was run.

    Parameters
    ----------
    report : AuditReport
    width : int
        Columns of the terminal.

    Yields
    ------
    rich.text.Text
    """
    for title, lines in (
        ("Loss landscape", _roughness(report)),
        ("Events", report.events),
        ("Notes", _notes(report)),
        ("How it was run", _run(report)),
    ):
        if lines:
            yield heading(title, width)
            for line in lines:
                yield sentence(line, width, "  ", "    ")


def _roughness(report: AuditReport) -> list[str]:
    found = report.roughness
    if found is None:
        return []
    return [
        f"Roughness {roughness_text(found.value, found.standard_error)} (lower is more stable; "
        f"{found.loss.replace('_', '-')}, {count_text(found.pairs, 'direction pair')}, {found.grid} × "
        f"{found.grid} points, span ±{found.span:g}, {count_text(found.images, 'image')})"
    ]


def _notes(report: AuditReport) -> list[str]:
    skipped = [f"left out of the data: {': '.join(item)}" for item in report.data.skipped]
    assumed = [f"assumed: {text}" for text in report.metric_info.assumed]
    return [*report.notes, *assumed, *report.data.notes, *skipped]


def _run(report: AuditReport) -> list[str]:
    point, model, data = report.operating_point, report.model, report.data
    name = report.device.get("name", "unnamed device")
    terms = ", ".join(point.terms) or "none"
    lines = [
        f"nvaudit {report.nvaudit_version}",
        f"Model: {model.path} (opset {model.opset}; {', '.join(model.inputs)} → {', '.join(model.outputs)}; "
        f"{model.batching})",
        f"Data: {data.source}, {count_text(data.count, 'image')}, {LABELS[data.label_kind]}",
        f"Device: {name} at {point.sigma_text}, t = {duration_text(point.time_s)}; noise terms: {terms}",
        *runtime_text(report.runtime),
        _trials(report),
    ]
    lines += dict.fromkeys(f"KPP: {result.definition}" for result in report.kpp)
    if report.timing:
        times = (f"{key.removesuffix('_s')} {value:.3g} s" for key, value in report.timing.items())
        lines.append(f"Time: {', '.join(times)}".replace("_", " "))
    hashes = report.hashes
    lines.append(
        "SHA-256: "
        f"model {hashes.model[:_HASH_DIGITS]}, data {hashes.data[:_HASH_DIGITS]}, "
        f"device {hashes.device[:_HASH_DIGITS]}"
    )
    return lines


def _trials(report: AuditReport) -> str:
    trials = report.trials
    seed = report.run.get("seed")
    text = f"Trials: {count_text(trials.count, 'chip')}" + ("" if seed is None else f", seed {seed}")
    share = trials.images_evaluated / trials.images_exhaustive if trials.images_exhaustive else 1.0
    if share == 1:
        text += f", every chip on every image ({trials.images_evaluated:,} images)"
    else:
        text += (
            f", {trials.images_evaluated:,} of {trials.images_exhaustive:,} images evaluated "
            f"({100 * share:.3g} %)"
        )
    race = trials.race
    if race is None:
        return text
    what = "the KPP is the one of every chip on every image" if trials.exact else "the KPP is exact within"
    if not trials.exact:
        unit = report.metric_info.unit
        what += f" {difference_text(max(k.width for k in report.kpp), unit).lstrip('+')}"
    return f"{text}; {what}, but for a chance of {100 * race.error:.3g} %"

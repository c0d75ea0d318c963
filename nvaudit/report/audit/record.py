"""What a reader should know, what went in, how to run it again, and how to cite it."""

from __future__ import annotations

import json

from nvaudit.report.cases import deciding_point, remedy_lines
from nvaudit.report.document import (
    FILES,
    PAGE,
    Block,
    Bullets,
    CodeBlock,
    Paragraph,
    Section,
    Table,
    at_sigma,
    file_name,
    short,
)
from nvaudit.report.parts import model_row, record_section
from nvaudit.report.rerun import remedy_command, rerun_command
from nvaudit.report.result import AuditReport
from nvaudit.report.wording import amount_text, count_text, duration_text, images_text

_LABELS = {
    "class": "class labels",
    "reference": "reference outputs",
    "multilabel": "several labels a sample",
    "none": "no labels",
    "text": "text labels",
    "boxes": "boxes as labels",
    "ragged": "lists as labels",
}
"""What the data hold beside the inputs, in words."""


def resume_section(report: AuditReport) -> Section | None:
    """The command that goes on with a run that was cut off."""
    cut = report.interrupted
    if cut is None or cut.command is None:
        return None
    return Section("resume", "To go on", (CodeBlock(cut.command, "Command line that goes on"),))


def remedy_section(report: AuditReport) -> Section | None:
    """What to try where the gate does not hold."""
    command = remedy_command(report)
    if command is None:
        return None
    blocks: list[Block] = [
        Paragraph("In a minute and without training:"),
        CodeBlock(command, "Command line of the remedy"),
    ]
    point, coded = deciding_point(report), remedy_command(report, code="auto")
    if point is not None:
        blocks += [Paragraph(f"{line}.") for line in remedy_lines(report, point)]
    if report.remedy is not None and report.remedy.code is not None and coded is not None:
        blocks.append(CodeBlock(coded, "Command line of the remedy with another code"))
    return Section("remedy", "Try first", tuple(blocks))


def notes_section(report: AuditReport) -> Section | None:
    """What a reader should know, and what happened on the way."""
    assumed = [f"Assumed: {text}" for text in report.metric_info.assumed]
    skipped = [f"Left out of the data: {': '.join(item)}" for item in report.data.skipped]
    notes = (*report.notes, *assumed, *report.data.notes, *skipped)
    blocks: list[Block] = [Bullets(notes)] if notes else []
    if report.events:
        blocks += [Paragraph("What happened on the way:"), Bullets(report.events)]
    return Section("notes", "Notes", tuple(blocks)) if blocks else None


def audit_record(report: AuditReport) -> Section:
    """What went in, with versions, hashes and times."""
    model, data, point = report.model, report.data, report.operating_point
    name = short(str(report.device.get("name", "unnamed device")))
    terms = ", ".join(point.terms) or "none"
    rows = [
        model_row(model),
        ("Inputs", "; ".join(map(short, model.inputs))),
        ("Outputs", "; ".join(map(short, model.outputs))),
        ("Data", f"{short(data.source)}, {count_text(data.count, 'image')}, {_LABELS[data.label_kind]}"),
        ("Device", f"{name} at {point.sigma_text}, t = {duration_text(point.time_s)}; noise terms: {terms}"),
        *_baseline_row(report),
        ("Trials", _trials_text(report)),
        *(("KPP", text) for text in dict.fromkeys(result.definition for result in report.kpp)),
    ]
    return record_section(report, rows)


def _baseline_row(report: AuditReport) -> list[tuple[str, str]]:
    """What it was held against."""
    held = report.baseline
    if held is None:
        return []
    text = f"{held.path}: {held.model}, SHA-256 {held.model_sha256[:12]}, nvaudit {held.nvaudit_version}"
    return [("Baseline", text)]


def _trials_text(report: AuditReport) -> str:
    """How many inferences the chips took, and what stopping some early may have changed."""
    trials, seed = report.trials, report.run.get("seed")
    text = count_text(trials.count, "chip") + ("" if seed is None else f", seed {seed}")
    done, most = trials.images_evaluated, trials.images_exhaustive
    if done == most or not most:
        text += f", every chip on every image ({count_text(done, 'image')})"
    else:
        text += f", {images_text(done, most)}"
    if trials.race is None:
        return text
    what = "is the one of every chip on every image"
    if not trials.exact:
        width = amount_text(max(k.width for k in report.kpp), report.metric_info.unit)
        what = f"is exact within {width}"
    return f"{text}; the KPP {what}, but for a chance of {100 * trials.race.error:.3g} %"


def rerun_section(report: AuditReport) -> Section:
    """The command line and the full specification."""
    rows = tuple(
        (name.replace("_", " "), json.dumps(value, ensure_ascii=False)) for name, value in report.run.items()
    )
    return Section(
        "rerun",
        "Run it again",
        (
            Paragraph(
                "Equal model, data, device and options give equal numbers, on any machine with any number of "
                "workers. Every option is written out, so that later defaults change nothing."
            ),
            CodeBlock(rerun_command(report), "Command line of this audit"),
            Paragraph("The worst of these chips as a model of its own, from the saved report.json:"),
            CodeBlock("nvaudit replay report.json --worst -o chip.onnx", "Command line of the worst chip"),
            Table("spec", "The full specification", ("option", "value"), rows, media=PAGE),
        ),
        folded=True,
        media=FILES,
    )


def cite_section(report: AuditReport) -> Section:
    """How to cite the result, and what it rests on."""
    name = str(report.device.get("name", "unnamed device"))
    text = (
        f"nvaudit {report.nvaudit_version}, audit of {file_name(report.model.path)} "
        f"(SHA-256 {report.hashes.model[:12]}) on device {name} (SHA-256 {report.hashes.device[:12]}) at "
        f"{at_sigma(report.operating_point)}, {count_text(report.trials.count, 'chip')}, "
        f"seed {report.run.get('seed', 'unknown')}."
    )
    papers = [
        "KPP and its estimation: Z. Yan et al., Improving Realistic Worst-Case Performance of NVCiM DNN "
        "Accelerators through Training with Right-Censored Gaussian Noise, ICCAD 2023, "
        "doi:10.1109/ICCAD57390.2023.10323830."
    ]
    source = report.device.get("source")
    if isinstance(source, dict) and source.get("citation"):
        doi = f", doi:{source['doi']}" if source.get("doi") else ""
        papers.append(f"The device: {source['citation']}{doi}.")
    blocks = (CodeBlock(text, "Citation of this audit"), Paragraph("It rests on:"), Bullets(tuple(papers)))
    return Section("cite", "How to cite", blocks, media=PAGE)

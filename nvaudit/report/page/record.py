"""What a reader should know, how to run it again, what went in, and how to cite it."""

from __future__ import annotations

import json

from nvaudit.report.document import (
    Block,
    Bullets,
    Code,
    Facts,
    Paragraph,
    Section,
    Table,
    at_sigma,
    short,
)
from nvaudit.report.provenance import LABELS
from nvaudit.report.record import runtime_rows
from nvaudit.report.rerun import rerun_command
from nvaudit.report.result import AuditReport
from nvaudit.report.wording import count_text


def notes_section(report: AuditReport) -> Section:
    """Say what a reader should know.

    Parameters
    ----------
    report : AuditReport
    """
    assumed = [f"Assumed: {text}" for text in report.metric_info.assumed]
    skipped = [f"Left out of the data: {': '.join(item)}" for item in report.data.skipped]
    definitions = [f"KPP: {text}" for text in dict.fromkeys(result.definition for result in report.kpp)]
    notes = (*report.notes, *assumed, *report.data.notes, *skipped, *definitions, _cost(report))
    blocks: list[Block] = [Bullets(notes)]
    if report.events:
        blocks += [Paragraph("What happened on the way:"), Bullets(report.events)]
    return Section("notes", "Notes", tuple(blocks))


def _cost(report: AuditReport) -> str:
    """Say how many inferences the chips took, and what that may have changed."""
    trials = report.trials
    text = (
        f"{trials.images_evaluated:,} inferences were made for the chips of this point; every chip on every "
        f"image would take {trials.images_exhaustive:,}"
    )
    if trials.race is None:
        return text
    how = "the KPP is that of every chip on every image"
    if not trials.exact:
        how = "the KPP differs from that of every chip on every image by at most its width in report.json"
    return f"{text}; {how}, but for a chance of {100 * trials.race.error:.3g} %"


def rerun_section(report: AuditReport) -> Section:
    """Give the command line and the full specification.

    Parameters
    ----------
    report : AuditReport
    """
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
            Code(rerun_command(report), "Command line of this audit"),
            Paragraph("The worst of these chips as a model of its own, from the saved report.json:"),
            Code("nvaudit replay report.json --worst -o chip.onnx", "Command line of the worst chip"),
            Table("spec", "The full specification", ("option", "value"), rows),
        ),
    )


def inputs_section(report: AuditReport) -> Section:
    """Say what went in, with versions, hashes and times.

    Parameters
    ----------
    report : AuditReport
    """
    model, data, hashes = report.model, report.data, report.hashes
    rows = [
        ("nvaudit", report.nvaudit_version),
        ("Model", f"{short(model.path)} (opset {model.opset}; {model.batching})"),
        ("Inputs", "; ".join(map(short, model.inputs))),
        ("Outputs", "; ".join(map(short, model.outputs))),
        ("Data", f"{short(data.source)}, {count_text(data.count, 'image')}, {LABELS[data.label_kind]}"),
        *runtime_rows(report.runtime),
        ("SHA-256 of the model", hashes.model),
        ("SHA-256 of the data", hashes.data),
        ("SHA-256 of the device", hashes.device),
    ]
    if report.timing:
        times = (
            f"{key.removesuffix('_s').replace('_', ' ')} {value:.4g} s"
            for key, value in report.timing.items()
        )
        rows.append(("Time", ", ".join(times)))
    return Section("inputs", "Versions and hashes", (Facts(tuple(rows)),))


def cite_section(report: AuditReport) -> Section:
    """Say how to cite the result.

    Parameters
    ----------
    report : AuditReport
    """
    point, trials = report.operating_point, report.trials
    name = str(report.device.get("name", "unnamed device"))
    text = (
        f"nvaudit {report.nvaudit_version}, audit of {short(report.model.path.rsplit('/', 1)[-1])} "
        f"(SHA-256 {report.hashes.model[:12]}) on device {name} (SHA-256 {report.hashes.device[:12]}) at "
        f"{at_sigma(point)}, {count_text(trials.count, 'chip')}, "
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
    return Section(
        "cite",
        "How to cite",
        (Code(text, "Citation of this audit"), Paragraph("It rests on:"), Bullets(tuple(papers))),
    )

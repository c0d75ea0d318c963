"""What `nvaudit inspect` says."""

from __future__ import annotations

from collections.abc import Sequence

from nvaudit.report.codes import codes_blocks, codes_number
from nvaudit.report.document import (
    Bullets,
    Cell,
    Document,
    Facts,
    Hero,
    KeyFigure,
    Number,
    Section,
    Table,
    file_name,
    short,
)
from nvaudit.report.inspection.result import InspectReport, counts_text
from nvaudit.report.mapped import gate_lines
from nvaudit.report.parts import share_blocks, share_numbers, warnings
from nvaudit.report.sections import TensorDecision
from nvaudit.report.tensors import count_cell, mapped_text, tensor_name
from nvaudit.report.wording import capitalised, count_text, shape_text


def inspect_document(report: InspectReport) -> Document:
    """Say what is mapped and what stays digital: every constant with its reason."""
    mapped = [tensor for tensor in report.tensors if tensor.decision == "mapped"]
    digital = [tensor for tensor in report.tensors if tensor.decision == "digital"]
    gate = report.mapped_gate
    counts = counts_text(len(mapped), len(report.tensors))
    tables = [
        Section(name, f"{title}: {count_text(len(rows), 'tensor')}", (_table(name, rows),))
        for name, title, rows in (("array", "On the array", mapped), ("digital", "Stays digital", digital))
        if rows
    ]
    return Document(
        title=report.headline,
        subject=file_name(report.model.path),
        subtitle=f"what is on the array of {short(report.device_name)}",
        hero=Hero(
            role="none" if gate is None else gate.verdict,
            word="" if gate is None else gate.verdict.upper(),
            title=counts if gate is None else _gate_title(report),
            lines=tuple(f"{line}." for line in (mapped_text(mapped), *gate_lines(gate, report.mapped)[1:])),
            numbers=(
                KeyFigure("tensors on the array", f"{len(mapped):,}", f"{len(digital):,} stay digital"),
                *codes_number(report.codes),
                *share_numbers(report.mapped),
            ),
            warnings=warnings(report, report.mapped),
        ),
        sections=(
            *tables,
            *([] if report.codes is None else [Section("codes", "Codes", tuple(codes_blocks(report.codes)))]),
            Section("products", "Products", tuple(share_blocks(report.mapped))),
            Section("notes", "Notes", (Bullets(report.notes),) if report.notes else ()),
            _record(report),
        ),
        version=report.nvaudit_version,
    )


def _gate_title(report: InspectReport) -> str:
    """The first line of the gate without its verdict, which stands before it."""
    first = gate_lines(report.mapped_gate, report.mapped)[0]
    text = first.partition(": ")[2]
    return capitalised(text)


def _table(name: str, tensors: Sequence[TensorDecision]) -> Table:
    """All constants of one decision; a column that none of them fills is left out.

    Devices are summed up at the top: with a column of their own the reasons would not fit a terminal.
    """
    columns = ["tensor", "operator", "shape", "type"]
    rows: list[list[Cell]] = [
        [tensor_name(t), t.op or "", Number(None, shape_text(t.shape)), t.dtype] for t in tensors
    ]
    for column in ("products", "bits", "slices", "crossbars"):
        values = [getattr(tensor, column) for tensor in tensors]
        if any(value is not None for value in values):
            columns.append(column)
            for row, value in zip(rows, values, strict=True):
                row.append(count_cell(value))
    for row, tensor in zip(rows, tensors, strict=True):
        row.append(tensor.reason)
    return Table(
        f"{name}-tensors", "Every constant with its reason.", (*columns, "reason"),
        tuple(tuple(row) for row in rows), numeric=tuple(range(4, len(columns))), sortable=True,
        all_rows=True,
    )  # fmt: skip


def _record(report: InspectReport) -> Section:
    model, device = report.model, report.device
    cells = f"{device['cell_bits']} bits per cell" if device.get("cell_bits") else "analog cells"
    bits = f"{device.get('weight_bits')} weight bits, " if report.codes is None else ""
    encoding = device.get("encoding") if report.codes is None else "codes"
    rows = (
        ("Model", f"{model.path}: opset {model.opset}, IR {report.ir_version}, {model.batching}"),
        (
            "Device",
            f"{report.device_name}: {bits}{cells}, "
            f"{encoding}, crossbars of {report.crossbar[0]}x{report.crossbar[1]}",
        ),
        ("nvaudit", report.nvaudit_version),
    )
    return Section("record", "How it was counted", (Facts(rows),))

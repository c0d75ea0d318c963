"""What `nvaudit inspect` says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich.console import Console

from nvaudit.report.codes import codes_blocks, codes_number
from nvaudit.report.document import (
    FILES,
    MEDIA,
    Bullets,
    Cell,
    Document,
    Facts,
    Hero,
    KeyFigure,
    Medium,
    Number,
    Section,
    Table,
    file_name,
    short,
)
from nvaudit.report.inspection.result import InspectReport, counts_text
from nvaudit.report.mapped import gate_lines
from nvaudit.report.parts import share_blocks, share_numbers, warnings
from nvaudit.report.render.terminal import print_document
from nvaudit.report.sections import TensorDecision
from nvaudit.report.tensors import count_cell, digital_reasons, mapped_text, tensor_name
from nvaudit.report.wording import capitalised, count_text, shape_text

_FEW = 40
"""A terminal lists each of so many constants; of more the sums, and those that matter."""

_MOST = 12
_TERMINAL: frozenset[Medium] = frozenset(("terminal",))


def print_all(report: InspectReport, console: Console) -> None:
    """Print every constant, however many there are."""
    print_document(inspect_document(report, every=True), console)


def inspect_document(report: InspectReport, every: bool = False) -> Document:
    """Say what is mapped and what stays digital: every constant with its reason.

    ``every``: also on a terminal where there are many.
    """
    mapped = [tensor for tensor in report.tensors if tensor.decision == "mapped"]
    digital = [tensor for tensor in report.tensors if tensor.decision == "digital"]
    gate = report.mapped_gate
    counts = counts_text(len(mapped), len(report.tensors))
    summed_up = len(report.tensors) > _FEW and not every
    tables = [
        Section(
            name,
            f"{title}: {count_text(len(rows), 'tensor')}",
            (_table(name, rows), *([] if summed_up else [_narrow_table(name, rows)])),
            media=FILES if summed_up else MEDIA,
        )
        for name, title, rows in (("array", "On the array", mapped), ("digital", "Stays digital", digital))
        if rows
    ]
    if summed_up:
        tables = [*_summary(mapped, digital), *tables]
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
        media=FILES,
    )  # fmt: skip


def _narrow_table(name: str, tensors: Sequence[TensorDecision]) -> Table:
    """The same for a terminal: names have the room of what is the same everywhere or plain."""
    texts = {
        "operator": [tensor.op or "" for tensor in tensors],
        "shape": [shape_text(tensor.shape) for tensor in tensors],
        "type": [tensor.dtype for tensor in tensors],
        "reason": [tensor.reason for tensor in tensors],
    }
    plain = name == "digital" or all(t.reason.startswith(f"weight of {t.op}") for t in tensors)
    columns = ["operator", "shape"] if name == "array" else ["shape"]
    columns += [] if set(texts["type"]) == {"float32"} else ["type"]
    for column in ("products", "bits", "slices", "crossbars"):
        values = [getattr(tensor, column) for tensor in tensors]
        if any(values) and (column in ("products", "crossbars") or len(set(values)) > 1):
            columns.append(column)
    columns += ["reason"] if name == "digital" or not plain else []
    rows: list[tuple[Cell, ...]] = [
        (
            tensor_name(tensor),
            *(texts[c][place] if c in texts else count_cell(getattr(tensor, c)) for c in columns),
        )
        for place, tensor in enumerate(tensors)
    ]
    numeric = tuple(place for place, column in enumerate(columns, 1) if column not in texts)
    reason = "with its reason" if "reason" in columns else "as a weight of its operator"
    return Table(f"{name}-terminal", f"Every constant {reason}.", ("tensor", *columns), tuple(rows),
                 numeric=numeric, all_rows=True, media=_TERMINAL)  # fmt: skip


def _summary(mapped: Sequence[TensorDecision], digital: Sequence[TensorDecision]) -> Iterator[Section]:
    """Many constants on a terminal: sums by operator, those with the most products, reasons with counts."""
    yield _section("operators", "By operator", "Constants of each operator.", _by_operator(mapped, digital))
    if mapped:
        # Where products are not known, shapes vary: then weights say most.
        measure = "products" if any(tensor.products for tensor in mapped) else "weights"
        first = sorted(mapped, key=lambda tensor: -_measured(tensor, measure))[:_MOST]
        columns = ("tensor", "operator", "shape", measure, "crossbars")
        rows = [
            (tensor_name(t), t.op or "", shape_text(t.shape), count_cell(_measured(t, measure)),
             count_cell(t.crossbars))
            for t in first
        ]  # fmt: skip
        title = f"On the array: the {len(first)} of {len(mapped):,} with the most {measure}"
        caption = "--all lists every one, as do --csv, --html and --report."
        yield _section("most", title, caption, (columns, rows))
    if digital:
        reasons = [(reason, count_cell(count)) for reason, count in digital_reasons(digital)]
        title = f"Stays digital: {count_text(len(digital), 'tensor')}"
        yield _section("reasons", title, "By reason.", (("reason", "tensors"), reasons))


def _section(
    name: str, title: str, caption: str, table: tuple[Sequence[str], Sequence[tuple[Cell, ...]]]
) -> Section:
    """A section for a terminal that is one table; what is a number in its first row is set as one."""
    columns, rows = table
    numeric = tuple(i for i, cell in enumerate(rows[0]) if isinstance(cell, Number))
    shown = Table(name, caption, tuple(columns), tuple(rows), numeric, all_rows=True, media=_TERMINAL)
    return Section(name, title, (shown,), media=_TERMINAL)


def _measured(tensor: TensorDecision, measure: str) -> int:
    return tensor.products or 0 if measure == "products" else math.prod(tensor.shape)


def _by_operator(
    mapped: Sequence[TensorDecision], digital: Sequence[TensorDecision]
) -> tuple[Sequence[str], Sequence[tuple[Cell, ...]]]:
    """Columns and rows of the sums, those with the most on the array first."""
    sums: dict[str, list[int]] = {}
    for tensor in (*mapped, *digital):
        row = sums.setdefault(tensor.op or "none", [0, 0, 0, 0])
        if tensor.decision == "mapped":
            row[0] += 1
            row[1] += _measured(tensor, "weights")
            row[2] += _measured(tensor, "products")
        else:
            row[3] += 1
    order = sorted(sums.items(), key=lambda item: (-item[1][2], -item[1][1], -item[1][3]))
    return ("operator", "on the array", "weights", "products", "digital"), [
        # Where products are not known, shapes vary.
        (name, *(count_cell(count or (None if place == 2 else 0)) for place, count in enumerate(row)))
        for name, row in order
    ]


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

"""What is on the array and what stays digital: summed up, or every constant with its reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Console
from rich.text import Text

from nvaudit.report.mapped import MappedGate, MappedShare, coverage_text
from nvaudit.report.mapped_text import off_table, share_gate_lines, share_warning_lines
from nvaudit.report.result import TensorDecision
from nvaudit.report.terminal import Kind, heading, sentence, show, table
from nvaudit.report.wording import count_text, shape_text

_NAME = re.compile(r" '[^']*'")
_MAX_REASONS = 12
_WIDE = 100
"""Columns of a terminal that has room for everything."""


def render_inspect(
    tensors: Sequence[TensorDecision],
    header: str | Sequence[str],
    console: Console,
    mapped: MappedShare | None = None,
    gate: MappedGate | None = None,
) -> None:
    """Print what is mapped and what stays digital, complete: cells fold, nothing is cut.

    Parameters
    ----------
    tensors : sequence of TensorDecision
        Shown in this order, mapped ones first.
    header : str or sequence of str
        Lines above the tables, e.g. model and device.
    console : rich.console.Console
    mapped : MappedShare, optional
        How much of the model's products is on the array; None where it was not counted.
    gate : MappedGate, optional
    """
    width = console.width
    on_array = [tensor for tensor in tensors if tensor.decision == "mapped"]
    digital = [tensor for tensor in tensors if tensor.decision == "digital"]
    lines = header.splitlines() if isinstance(header, str) else header
    parts: list[Text] = [sentence(line, width, style="bold") for line in lines]
    for title, rows in (("On the array", on_array), ("Stays digital", digital)):
        if rows:
            parts += [heading(f"{title}: {count_text(len(rows), 'tensor')}", width), _table(rows, width)]
    if mapped is not None and mapped.off:
        parts += [heading("Products off the array", width), *off_table(mapped, width)]
    parts += [Text(), sentence(_summary(on_array, digital), width, hanging="  ")]
    if mapped is not None:
        parts.append(sentence(coverage_text(mapped), width, hanging="  "))
    parts += [*share_warning_lines(mapped, width), *share_gate_lines(gate, mapped, width)]
    show(console, parts)


def _table(tensors: Sequence[TensorDecision], width: int) -> Text:
    columns: list[tuple[str, Kind]] = [("name", "fold"), ("op", "fold"), ("shape", "fold")]
    columns += [("dtype", "left"), ("decision", "left")]
    rows: list[tuple[str, ...]] = [_common(tensor) for tensor in tensors]
    if any(tensor.products is not None for tensor in tensors):
        if width < _WIDE:  # the heading says the decision
            del columns[-1]
            rows = [row[:-1] for row in rows]
        columns.append(("products", "right"))
        rows = [(*row, _number(t.products)) for row, t in zip(rows, tensors, strict=True)]
    if tensors[0].decision == "mapped":
        columns += [("bits", "right"), ("slices", "right"), ("crossbars", "right")]
        rows = [
            (*row, _number(t.bits), _number(t.slices), _number(t.crossbars))
            for row, t in zip(rows, tensors, strict=True)
        ]
    rows = [(*row, t.reason) for row, t in zip(rows, tensors, strict=True)]
    return table([*columns, ("reason", "fold")], rows, width)


def _common(tensor: TensorDecision) -> tuple[str, str, str, str, str]:
    name = f"{tensor.name} (in {tensor.path})" if tensor.path else tensor.name
    return name, tensor.op or "", shape_text(tensor.shape), tensor.dtype, tensor.decision


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _summary(mapped: Sequence[TensorDecision], digital: Sequence[TensorDecision]) -> str:
    rest = f"; digital: {count_text(len(digital), 'tensor')}" if digital else ""
    return f"{mapped_text(mapped)}{rest}"


def mapping_section(
    tensors: Iterable[TensorDecision], width: int, mapped: MappedShare | None = None
) -> Iterable[Text]:
    """Sum up what is mapped with its share of the products, and count what stays digital by its reason."""
    tensors = tuple(tensors)
    yield heading("What is on the array", width)
    yield sentence(mapped_text(tensors), width, "  ", "    ")
    if mapped is not None:
        yield sentence(coverage_text(mapped), width, "  ", "    ")
        yield from off_table(mapped, width)
    reasons = digital_reasons(tensors)
    if not reasons:
        return
    yield sentence(f"Stays digital: {count_text(sum(count for _, count in reasons), 'tensor')}", width, "  ")
    for reason, count in reasons[:_MAX_REASONS]:
        yield sentence(f"{count:>5,}  {reason}", width, "  ", " " * 9)
    if len(reasons) > _MAX_REASONS:
        rest = sum(count for _, count in reasons[_MAX_REASONS:])
        yield sentence(f"{rest:>5,}  other reasons; `nvaudit inspect` lists all", width, "  ", " " * 9)


def digital_reasons(tensors: Iterable[TensorDecision]) -> list[tuple[str, int]]:
    """Count what stays digital by its reason, the most common first."""
    # Without the nodes' names: "scale of BatchNormalization", nineteen times.
    return Counter(_NAME.sub("", row.reason) for row in tensors if row.decision == "digital").most_common()


def mapped_text(tensors: Iterable[TensorDecision]) -> str:
    """Sum up what is mapped: tensors, weights, devices, crossbars, bits and the spread of a weight."""
    mapped = [tensor for tensor in tensors if tensor.decision == "mapped"]
    weights = sum(int(np.prod(tensor.shape, dtype=object)) for tensor in mapped)
    parts = [count_text(len(mapped), "tensor"), count_text(weights, "weight")]
    for noun in ("device", "crossbar"):
        known = [getattr(tensor, f"{noun}s") for tensor in mapped]
        if known and None not in known:
            parts.append(count_text(sum(known), noun))
    text = "Mapped: " + ", ".join(parts)
    layouts = Counter((t.bits, t.slices) for t in mapped if t.bits is not None and t.slices is not None)
    words = [f"{count_text(bits, 'bit')} in {count_text(slices, 'slice')}" for bits, slices in layouts]
    text += f"; {' or '.join(words)}" if words else ""
    spreads = [tensor.weight_sigma for tensor in mapped if tensor.weight_sigma is not None]
    if spreads:
        low, high = f"{100 * min(spreads):.3g}", f"{100 * max(spreads):.3g}"
        text += f"; spread of a weight: {low if low == high else f'{low} to {high}'} % of max|W|"
    return text

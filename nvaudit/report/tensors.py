"""The constants of a model in words and tables: what is on the array, and what stays digital and why."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from nvaudit.report.document import Cell, Number, Table, limited, short
from nvaudit.report.sections import TensorDecision
from nvaudit.report.wording import count_text, shape_text

_NODE_NAME = re.compile(r" '[^']*'")


def mapped_text(tensors: Iterable[TensorDecision]) -> str:
    """Sum up what is mapped: tensors, weights, devices, crossbars, bits and the spread of a weight."""
    mapped = [tensor for tensor in tensors if tensor.decision == "mapped"]
    parts = [
        count_text(len(mapped), "tensor"),
        count_text(sum(math.prod(tensor.shape) for tensor in mapped), "weight"),
    ]
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


def digital_reasons(tensors: Iterable[TensorDecision]) -> list[tuple[str, int]]:
    """Count what stays digital by its reason, the most common first."""
    # Without the nodes' names: "scale of BatchNormalization", nineteen times.
    reasons = (_NODE_NAME.sub("", row.reason) for row in tensors if row.decision == "digital")
    return Counter(reasons).most_common()


def tensor_name(tensor: TensorDecision) -> str:
    """Name a constant, with the subgraph that holds it."""
    return f"{tensor.name} (in {tensor.path})" if tensor.path else tensor.name


def tensor_table(name: str, caption: str, tensors: Sequence[TensorDecision]) -> Table:
    """Every given constant, with its decision where there are both; sorted and filtered on a page."""
    rows: list[tuple[Cell, ...]] = [_row(tensor) for tensor in tensors]
    shown, cut = limited(rows)
    columns = ("tensor", "decision", "reason", "operator", "shape", "type", "bits", "slices", "devices",
               "crossbars", "products", "σ, % of max|W|")  # fmt: skip
    return Table(
        name, f"{caption}{cut}", columns, shown, numeric=(6, 7, 8, 9, 10, 11), sortable=True, choices=1
    )


def _row(tensor: TensorDecision) -> tuple[Cell, ...]:
    sigma = None if tensor.weight_sigma is None else 100 * tensor.weight_sigma
    return (
        short(tensor_name(tensor)), tensor.decision, short(tensor.reason), short(tensor.op or ""),
        Number(float(math.prod(tensor.shape)), shape_text(tensor.shape)), tensor.dtype,
        *(count_cell(value) for value in (tensor.bits, tensor.slices, tensor.devices, tensor.crossbars)),
        count_cell(tensor.products),
        Number(sigma, "" if sigma is None else f"{sigma:.3g}"),
    )  # fmt: skip


def count_cell(value: int | None) -> Number:
    """Show a count; nothing where there is none."""
    return Number(value, "" if value is None else f"{value:,}")

"""What is on the array, and what its devices do."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import JsonValue

from nvaudit.report.crossbar import CrossbarInfo
from nvaudit.report.crossbar_text import COLUMNS, crossbar_text, layer_row
from nvaudit.report.device_levels import DeviceLevels
from nvaudit.report.document import (
    Block,
    Cell,
    Facts,
    Figure,
    Number,
    Paragraph,
    Section,
    Table,
    at_sigma,
    limited,
    short,
)
from nvaudit.report.groups import zero_groups_text
from nvaudit.report.inspection import mapped_text
from nvaudit.report.page.share import share_blocks
from nvaudit.report.plots.levels import levels_figure
from nvaudit.report.result import AuditReport, TensorDecision
from nvaudit.report.wording import count_text, duration_text, shape_text

_ENCODINGS = {
    "sign_magnitude": "sign and magnitude: the sign is kept digitally",
    "differential": "differential: two devices for each slice",
    "offset": "offset: codes shifted above zero, a reference subtracted",
}


def mapping_section(report: AuditReport) -> Section:
    """Show what is mapped and what stays digital, with reasons.

    Parameters
    ----------
    report : AuditReport
    """
    mapped = [tensor for tensor in report.tensors if tensor.decision == "mapped"]
    digital = [tensor for tensor in report.tensors if tensor.decision == "digital"]
    rows: list[tuple[Cell, ...]] = [_row(tensor) for tensor in (*mapped, *digital)]
    shown, cut = limited(rows)
    columns = ("tensor", "decision", "reason", "operator", "shape", "type", "bits", "slices", "devices",
               "crossbars", "products", "σ, % of max|W|")  # fmt: skip
    size = report.run.get("crossbar")
    of = f" of {size[0]} × {size[1]}" if isinstance(size, list) and len(size) == 2 else ""
    text = f"{mapped_text(report.tensors)}. {count_text(len(digital), 'tensor')} stay digital."
    if not digital:
        text = f"{mapped_text(report.tensors)}. Nothing stays digital."
    if report.zero_groups is not None:
        text += f" {zero_groups_text(report.zero_groups)}."
    return Section(
        "mapping", "What is on the array",
        (
            Paragraph(text, "lead"),
            *share_blocks(report.mapped),
            Table(
                "tensors", f"Every constant of the model; crossbars{of}.{cut}", columns, shown,
                numeric=(6, 7, 8, 9, 10, 11), sortable=True, choices=1,
            ),
        ),
    )  # fmt: skip


def crossbar_section(info: CrossbarInfo | None) -> Section | None:
    """Show the crossbars and converters; None without them.

    Parameters
    ----------
    info : CrossbarInfo or None
    """
    if info is None:
        return None
    rows: list[tuple[Cell, ...]] = [
        (short(layer.name), *layer_row(layer)[1:]) for layer in info.layers if layer.reason is None
    ]
    shown, cut = limited(rows)
    whole = [f"{layer.name}: {layer.reason}" for layer in info.whole]
    text = crossbar_text(info)
    if whole:
        text += f" Not split, with ideal converters: {'; '.join(whole)}."
    caption = f"Crossbars of {info.rows} × {info.cols}; the ADC range in inputs × levels.{cut}"
    return Section(
        "crossbars",
        "Crossbars and converters",
        (
            Paragraph(text, "lead"),
            Table("crossbar-layers", caption, COLUMNS, shown, numeric=(1, 2, 3, 4, 5, 6)),
        ),
    )


def _row(tensor: TensorDecision) -> tuple[Cell, ...]:
    name = f"{tensor.name} (in {tensor.path})" if tensor.path else tensor.name
    size = 1.0
    for side in tensor.shape:
        size *= side
    sigma = None if tensor.weight_sigma is None else 100 * tensor.weight_sigma
    return (
        short(name), tensor.decision, short(tensor.reason), short(tensor.op or ""),
        Number(size, shape_text(tensor.shape)), tensor.dtype,
        *(_count(value) for value in (tensor.bits, tensor.slices, tensor.devices, tensor.crossbars)),
        _count(tensor.products),
        Number(sigma, "" if sigma is None else f"{sigma:.3g}"),
    )  # fmt: skip


def _count(value: int | None) -> Number:
    return Number(value, "" if value is None else f"{value:,}")


def device_section(report: AuditReport, levels: DeviceLevels | None) -> Section:
    """Show the device and the law of each of its levels.

    Parameters
    ----------
    report : AuditReport
    levels : DeviceLevels or None
        None where the report does not have them.
    """
    device, point = report.device, report.operating_point
    blocks: list[Block] = []
    if description := _text(device.get("description")):
        blocks.append(Paragraph(description, "lead"))
    if levels is not None:
        blocks.append(_levels(levels, at_sigma(point)))
    terms = ", ".join(point.terms) or "none"
    rows = [
        ("Profile", _text(device.get("name"))),
        ("Technology", _text(device.get("technology"))),
        ("Operating point", f"{at_sigma(point)}, "
                            f"{duration_text(point.time_s)} after programming"),
        ("Noise terms in effect", terms),
        ("Cells", _cells(device)),
        ("Window", _window(device.get("window"))),
        ("Signs", _ENCODINGS.get(_text(device.get("encoding")), _text(device.get("encoding")))),
        ("Valid range", _text(device.get("valid_range"))),
        ("Source", _source(device.get("source"))),
    ]  # fmt: skip
    blocks.append(Facts(tuple((name, value) for name, value in rows if value)))
    noise = device.get("noise")
    if isinstance(noise, list) and noise:
        blocks.append(_terms(noise, set(point.terms)))
    return Section("device", "The device", tuple(blocks))


def _levels(levels: DeviceLevels, at: str) -> Figure:
    figure = levels_figure(levels.levels, levels.unit)
    widest = max(levels.levels, key=lambda level: level.std)
    least = min(levels.levels, key=lambda level: level.std)
    words = (
        f"Where the devices of each level end up, {at}: bars hold 50 % and "
        f"90 % of {count_text(levels.draws, 'simulated device')} for each level, the orange line is what "
        f"was aimed at. The standard deviation is from {least.std:.3g} {levels.unit} at level {least.level} "
        f"to {widest.std:.3g} {levels.unit} at level {widest.level}."
    )
    columns = ("level", f"target, {levels.unit}", "mean", "std", "5 %", "25 %", "median", "75 %", "95 %")
    rows = tuple(
        (
            Number(level.level, str(level.level)),
            *(Number(v, f"{v:.4g}") for v in (level.g, level.mean, level.std, *level.quantiles)),
        )
        for level in levels.levels
    )
    numbers = Table(
        "level-numbers", f"Conductance of each level, {levels.unit}", columns, rows, tuple(range(9))
    )
    return Figure("levels", words, lambda: figure, numbers)


def _terms(noise: list[JsonValue], active: set[str]) -> Table:
    rows = []
    for term in noise:
        if isinstance(term, dict):
            name = _text(term.get("name") or term.get("kind"))
            law = {
                k: _given(v)
                for k, v in term.items()
                if k not in ("name", "kind", "enabled") and v is not None
            }
            text = json.dumps(law, ensure_ascii=False).strip("{}").replace('"', "")
            text = text if len(text) <= 400 else f"{text[:399]}…"
            rows.append((short(name), _text(term.get("kind")), "on" if name in active else "off", text))
    return Table(
        "terms",
        "Noise terms of the profile, in the order in which they act",
        ("term", "kind", "state", "law"),
        tuple(rows),
    )


def _given(value: JsonValue) -> JsonValue:
    """Leave out what a profile leaves open."""
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items() if item is not None}
    return value


def _cells(device: Mapping[str, JsonValue]) -> str:
    bits, total = device.get("cell_bits"), device.get("weight_bits")
    cell = f"{bits} bits per cell" if isinstance(bits, int) else "analog cells (one holds the whole code)"
    return f"{cell}, {total} bits per weight" if isinstance(total, int) else cell


def _window(window: JsonValue) -> str:
    if not isinstance(window, dict):
        return "in units of the level spacing"
    unit = {"us": "µS", "na": "nA"}.get(_text(window.get("unit")), _text(window.get("unit")))
    return f"{window.get('min')} to {window.get('max')} {unit}"


def _source(source: JsonValue) -> str:
    if not isinstance(source, dict):
        return ""
    doi = f", doi:{source['doi']}" if source.get("doi") else ""
    return f"{_text(source.get('citation'))} ({_text(source.get('where'))}){doi}"


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""

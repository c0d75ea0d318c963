"""Parts that the documents of several kinds of report share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence

from nvaudit.report.codes import codes_warning
from nvaudit.report.crossbar import LAYER_COLUMNS, CrossbarInfo, crossbar_text, layer_row
from nvaudit.report.document import (
    MAX_ROWS,
    Block,
    Bullets,
    Cell,
    Facts,
    KeyFigure,
    Paragraph,
    Section,
    Table,
    limited,
    short,
)
from nvaudit.report.header import Header
from nvaudit.report.mapped import MappedShare, coverage_text, off_columns, off_rows, part_text, share_warning
from nvaudit.report.sections import InputHashes, ModelInfo, TensorDecision, runtime_text
from nvaudit.report.wording import LABEL_FREE_CHIPS, difference_text, si_text, value_text


def warnings(report: Header, mapped: MappedShare | None) -> tuple[str, ...]:
    """What a reader must know before anything else: on labels, on the share on the array, on the codes."""
    labels, share = LABEL_FREE_CHIPS if report.label_free else None, share_warning(mapped)
    codes = codes_warning(report.codes, report.device_name)
    return tuple(text for text in (labels, None if share is None else f"{share}.", codes) if text)


def share_numbers(mapped: MappedShare | None) -> list[KeyFigure]:
    """The share on the array as a number that stands out; none where it is not known."""
    if mapped is None or mapped.share is None:
        return []
    if mapped.share_of_products is not None and mapped.products_total is not None:
        note = f"{mapped.products:,} of {mapped.products_total:,} products"
    else:
        note = f"{mapped.weights:,} of {mapped.weights_total:,} {mapped.noun}"
    return [KeyFigure("on the array", part_text(mapped.share), note)]


def outlier_numbers(tensors: Sequence[TensorDecision]) -> list[KeyFigure]:
    """The weights of tensors on the array that are digital; none without any."""
    digital = sum(tensor.outliers or 0 for tensor in tensors)
    if not digital:
        return []
    every = sum(math.prod(tensor.shape) for tensor in tensors if tensor.decision == "mapped")
    note = f"{digital:,} of {every:,} weights on the array, the largest; exact, and counted as mapped below"
    return [KeyFigure("digital outliers", f"{100 * digital / every:.3g} %", note)]


def share_blocks(mapped: MappedShare | None) -> list[Block]:
    """How much is on the array, and what is not."""
    if mapped is None:
        return []
    blocks: list[Block] = [Paragraph(f"{coverage_text(mapped)}.")]
    if rows := off_rows(mapped, MAX_ROWS):
        shown = tuple((short(name), products, weights, why) for name, products, weights, why in rows)
        caption = "Operators with a weight whose products the array does not do, the most products first."
        blocks.append(Table("off-array", caption, off_columns(), shown, numeric=(1, 2)))
    return blocks


def crossbar_section(info: CrossbarInfo | None) -> Section | None:
    """How layers lie on crossbars and what their converters reach; None without them."""
    if info is None:
        return None
    rows: list[tuple[Cell, ...]] = [
        (short(layer.name), *layer_row(layer)[1:]) for layer in info.layers if layer.reason is None
    ]
    shown, cut = limited(rows)
    blocks: list[Block] = [Paragraph(crossbar_text(info), "lead")]
    if shown:
        caption = f"Crossbars of {info.rows} × {info.cols}; the ADC range in inputs × levels.{cut}"
        blocks.append(
            Table("crossbar-layers", caption, LAYER_COLUMNS, shown, numeric=(1, 2, 3, 4, 5, 6), sortable=True)
        )
    if ideal := tuple(
        f"Not split, ideal converters: {layer.name}: {layer.reason}" for layer in info.unsplit_layers
    ):
        blocks.append(Bullets(ideal))
    return Section("crossbars", "Crossbars and converters", tuple(blocks))


def change_title(name: str, change: float, unit: str) -> str:
    """Say in a line what became of a number.

    Examples
    --------
    >>> change_title("KPP 1 %", 0.125, "fraction")
    'KPP 1 % raised by 12.50 points'
    >>> change_title("KPP 1 %", 0.0, "fraction")
    'KPP 1 % is what it was'
    """
    if change == 0:
        return f"{name} is what it was"
    return (
        f"{name} {'raised' if change > 0 else 'lowered'} by {difference_text(abs(change), unit).lstrip('+')}"
    )


def before_after(name: str, before: float, after: float, unit: str, *, main: bool = False) -> KeyFigure:
    """Show a number as it is now, and what it was; ``main`` is the largest on a page."""
    change = difference_text(after - before, unit)
    return KeyFigure(name, value_text(after, unit), f"before: {value_text(before, unit)}; {change}", main)


def record_section(
    report: Header,
    rows: Iterable[tuple[str, str]] = (),
    *,
    before: tuple[Block, ...] = (),
    after: tuple[Block, ...] = (),
    hashes: InputHashes | None = None,
) -> Section:
    """How a report was made: its own rows between the version and what it ran on, times and hashes.

    ``hashes``: where the report keeps them elsewhere than in its header.
    """
    facts = (
        ("nvaudit", report.nvaudit_version),
        *rows,
        *(("Run on", line.removeprefix("Run on: ")) for line in runtime_text(report.runtime)),
        *_time_rows(report.timing),
        *_hash_rows(hashes or report.hashes),
    )
    return Section("record", "How it was run", (*before, Facts(facts), *after), folded=True)


def notes_section(lines: Iterable[str]) -> Section:
    """What a reader should know; no section where there is nothing."""
    notes = tuple(lines)
    return Section("notes", "Notes", (Bullets(notes),) if notes else ())


def model_row(model: ModelInfo) -> tuple[str, str]:
    """The file of a model, and what of it decides how it runs."""
    return "Model", f"{short(model.path)} (opset {model.opset}; {model.batching})"


def _time_rows(timing: Mapping[str, float]) -> list[tuple[str, str]]:
    """Name the seconds of each step; no row where none was measured."""
    times = []
    for key, value in timing.items():
        took = si_text(value, "s") if value < 1 else f"{value:.4g} s" if value < 1e4 else f"{value:,.0f} s"
        times.append(f"{key.removesuffix('_s').replace('_', ' ')} {took}")
    return [("Time", ", ".join(times))] if timing else []


def _hash_rows(hashes: InputHashes | None) -> list[tuple[str, str]]:
    """Give the SHA-256 of what went in."""
    given = {} if hashes is None else hashes.model_dump()
    return [
        (f"SHA-256 of the {what.replace('_', ' ')}", value)
        for what, value in given.items()
        if value is not None
    ]


def options_text(run: Mapping[str, object]) -> str:
    """Write the full specification in a line."""
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in run.items())


def headlines_section(audits: Sequence[tuple[str, Header]]) -> Section:
    """Under which conditions each of several audits, by its name, stands: its headline."""
    rows = tuple((short(name), audit.headline) for name, audit in audits)
    return Section("conditions", "Under which conditions", (Facts(rows),), folded=True)


def joint_notes_section(audits: Sequence[tuple[str, Header]]) -> Section | None:
    """Notes of several audits, each once, with the audits that they are of."""
    of: dict[str, list[str]] = {}
    for name, audit in audits:
        for note in dict.fromkeys((*audit.notes, *audit.events)):
            of.setdefault(note, []).append(name)
    lines = [
        f"{'every audit' if len(names) == len(audits) else '; '.join(names)}: {note}"
        for note, names in of.items()
    ]
    return Section("notes", "Notes", (Bullets(tuple(lines)),), folded=True) if lines else None

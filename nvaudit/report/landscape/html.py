"""A loss landscape as one page that opens offline."""

from __future__ import annotations

import json

import numpy as np

from nvaudit.report.landscape.result import LandscapeReport
from nvaudit.report.page.content import (
    Big,
    Block,
    Bullets,
    Facts,
    Hero,
    Number,
    Page,
    Paragraph,
    Section,
    Table,
    file_name,
    limited,
    short,
)
from nvaudit.report.page.surface import roughness_words, surface_figures
from nvaudit.report.wording import count_text, roughness_text

_LABEL_FREE = (
    "Label-free: there were no labels, so the loss is taken against the unmodified model's own outputs. It "
    "says nothing about accuracy."
)


def landscape_page(report: LandscapeReport) -> Page:
    """Work out what stands on the page of a landscape.

    Parameters
    ----------
    report : LandscapeReport
    """
    name = file_name(report.model.path)
    return Page(
        title=report.headline,
        subject=name,
        subtitle=f"loss landscape, {report.loss.name.replace('_', '-')}",
        hero=_hero(report),
        sections=(_surface(report), _pairs(report), _record(report)),
        version=report.nvaudit_version,
    )


def _hero(report: LandscapeReport) -> Hero:
    found, loss = report.roughness, report.loss
    note = "one direction pair"
    if found.standard_error is not None:
        note = f"standard error {1e3 * found.standard_error:.2g} ×10⁻³, {found.pairs} direction pairs"
    numbers = (
        Big("Roughness", roughness_text(found.value), note, main=True),
        Big("Loss of the model", f"{loss.nominal:.4g} {loss.unit}", f"against {loss.against}"),
        Big("Weights moved", f"{report.moved_numbers:,}", f"in {count_text(len(report.moved), 'tensor')}"),
    )
    return Hero("none", "", "How rough the loss is around the weights", (roughness_words(found),), numbers,
                warning=_LABEL_FREE if report.label_free else None)  # fmt: skip


def _surface(report: LandscapeReport) -> Section:
    names = [f"pair {i}: {roughness_text(fit.roughness)}" for i, fit in enumerate(report.fits)]
    loss = f"{report.loss.name.replace('_', '-')}, {report.loss.unit}"
    axis, losses = np.array(report.surface.axis), np.array(report.surface.losses)
    return Section("landscape", "Loss around the trained weights", surface_figures(axis, losses, names, loss))


def _pairs(report: LandscapeReport) -> Section:
    rows = [
        (
            Number(i, str(i)),
            *(Number(v, f"{v:.4g}") for v in (1e3 * fit.roughness, fit.lowest, fit.highest)),
        )
        for i, fit in enumerate(report.fits)
    ]
    shown, cut = limited(list(rows))
    columns = ("pair", "roughness ×10⁻³", "lowest loss", "highest loss")
    table = Table(
        "pairs", f"Every pair of random directions.{cut}", columns, shown, (0, 1, 2, 3), len(rows) > 8
    )
    return Section("pairs-section", "Direction pairs", (table,))


def _record(report: LandscapeReport) -> Section:
    """Say what it rests on."""
    options = (f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in report.run.items())
    rows = (
        ("nvaudit", report.nvaudit_version),
        ("Model", f"{short(report.model.path)} (opset {report.model.opset})"),
        ("Data", f"{short(report.data.source)}, {count_text(report.data.count, 'image')}"),
        ("SHA-256 of the model", report.hashes.model),
        ("SHA-256 of the data", report.hashes.data),
        ("Specification", ", ".join(options)),
    )
    fixed = [f"Not moved: {short(name)}: {reason}" for name, reason in list(report.fixed.items())[:100]]
    assumed = [f"Assumed: {text}" for text in report.loss.assumed]
    notes = (*report.notes, *report.events, *assumed, *fixed)
    blocks: list[Block] = [Paragraph("Equal inputs and options give equal numbers."), Facts(rows)]
    if notes:
        blocks.append(Bullets(notes))
    return Section("record", "What it rests on", tuple(blocks))

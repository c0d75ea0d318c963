"""What the report of a loss landscape says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nvaudit.report.document import (
    PAGE,
    Document,
    Hero,
    KeyFigure,
    Number,
    Paragraph,
    Section,
    Table,
    file_name,
    limited,
    short,
)
from nvaudit.report.landscape.figures import roughness_words, surface_figures
from nvaudit.report.landscape.result import LandscapeReport
from nvaudit.report.parts import model_row, notes_section, options_text, record_section
from nvaudit.report.wording import count_text, roughness_text, wrap

_SHADES = " .:-=+*#%@"
_MAX_ROWS = 21
_MAX_FIXED = 100

_LABEL_FREE = (
    "Label-free: there were no labels, so the loss is taken against the unmodified model's own outputs. It "
    "says nothing about accuracy."
)


def landscape_document(report: LandscapeReport) -> Document:
    """Say what a landscape found."""
    return Document(
        title=report.headline,
        subject=file_name(report.model.path),
        subtitle=f"loss landscape, {report.loss.name.replace('_', '-')}",
        hero=_hero(report),
        sections=(_surface(report), _pairs(report), _notes(report), _record(report)),
        version=report.nvaudit_version,
    )


def _hero(report: LandscapeReport) -> Hero:
    roughness, loss = report.roughness, report.loss
    note = "one direction pair"
    if roughness.standard_error is not None:
        note = f"standard error {1e3 * roughness.standard_error:.2g} ×10⁻³, {roughness.pairs} direction pairs"
    moved = f"in {count_text(len(report.moved), 'tensor')}"
    numbers = (
        KeyFigure("Roughness", roughness_text(roughness.value), note, main=True),
        KeyFigure("Loss of the model", f"{loss.nominal:.4g} {loss.unit}", f"against {loss.against}"),
        KeyFigure("Weights moved", f"{report.moved_numbers:,}", moved),
    )
    boxed = () if report.time_boxed is None else (report.time_boxed.text,)
    lines = (roughness_words(roughness), *boxed)
    return Hero("none", "", "How rough the loss is around the weights", lines,
                numbers, warnings=(_LABEL_FREE,) if report.label_free else ())  # fmt: skip


def _surface(report: LandscapeReport) -> Section:
    names = [f"pair {i}: {roughness_text(fit.roughness)}" for i, fit in enumerate(report.fits)]
    loss = f"{report.loss.name.replace('_', '-')}, {report.loss.unit}"
    axis, losses = np.array(report.surface.axis), np.array(report.surface.losses)
    median = median_pair(report)
    sketch = partial(map_lines, losses[median])
    figures = surface_figures(axis, losses, names, loss, sketch, median)
    return Section("landscape", "Loss around the trained weights", figures)


def median_pair(report: LandscapeReport) -> int:
    """Choose the pair to sketch: the one in the middle by roughness (of two, the smoother)."""
    order = np.argsort([fit.roughness for fit in report.fits], kind="stable")
    return int(order[(len(order) - 1) // 2])


def map_lines(losses: NDArray[np.float64], width: int) -> Sequence[str]:
    """Draw a surface in shades, darker where the loss is higher.

    Parameters
    ----------
    losses : ndarray, float64, shape (a, b)
        First along x, then along y; x goes to the right and y up.
    width : int
        Columns at hand.

    Returns
    -------
    list of str
        One framed line for each row of points, then the scale; a large grid is drawn with fewer points.
    """
    most = max(2, min(_MAX_ROWS, (width - 2) // 2))
    step = -(-len(losses) // most)
    few = losses[::step, ::step].T[::-1]
    low, high = float(losses.min()), float(losses.max())
    top = len(_SHADES) - 1
    scale = (few - low) / (high - low) if high > low else np.zeros_like(few)
    shade = np.ceil(scale * top).astype(int)
    lines = ["|" + "".join(2 * _SHADES[i] for i in row) + "|" for row in shade]
    return [*lines, *wrap(f"'{_SHADES[0]}' {low:.4g} … '{_SHADES[-1]}' {high:.4g}, in equal steps", width)]


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


def _notes(report: LandscapeReport) -> Section:
    """What a reader should know."""
    few = list(report.fixed.items())[:_MAX_FIXED]
    fixed = [f"Not moved: {short(name)}: {reason}" for name, reason in few]
    assumed = [f"Assumed: {text}" for text in report.loss.assumed]
    skipped = [f"Left out of the data: {': '.join(item)}" for item in report.data.skipped]
    return notes_section((*report.notes, *report.data.notes, *skipped, *report.events, *assumed, *fixed))


def _record(report: LandscapeReport) -> Section:
    """Say what it rests on."""
    rows = (
        model_row(report.model),
        ("Data", f"{short(report.data.source)}, {count_text(report.data.count, 'image')}"),
        ("Directions and images", f"seed {report.run.get('seed')}, batch norm {report.roughness.batch_norm}"),
    )
    options = Paragraph(f"Options: {options_text(report.run)}", media=PAGE)
    return record_section(report, rows, after=(options,))

"""A loss landscape on a terminal: the roughness first, then the surface as a map of shades."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from nvaudit.report.landscape.result import LandscapeReport
from nvaudit.report.sections import runtime_text
from nvaudit.report.terminal import heading, sentence, show, table
from nvaudit.report.wording import count_text

_SHADES = " .:-=+*#%@"
_MAX_ROWS = 21
_MAX_PAIRS = 12
_HASH_DIGITS = 12


def render_landscape(report: LandscapeReport, console: Console) -> None:
    """Print a landscape for a person; the first line is the headline.

    Parameters
    ----------
    report : LandscapeReport
    console : rich.console.Console
        Nothing is cut at any width; a console that cannot encode Unicode gets ASCII.
    """
    width = console.width
    parts = [
        sentence(report.headline, width, style="bold"),
        *_pairs(report, width),
        *_map(report, width),
        *_basis(report, width),
    ]
    show(console, parts)


def _pairs(report: LandscapeReport, width: int) -> Iterable[Text]:
    rows = [
        (str(i), f"{1e3 * fit.roughness:.4g}", f"{fit.lowest:.4g}", f"{fit.highest:.4g}")
        for i, fit in enumerate(report.fits[:_MAX_PAIRS])
    ]
    yield heading("Direction pairs", width)
    yield table(
        [("pair", "right"), ("roughness ×10⁻³", "right"), ("lowest loss", "right"), ("highest", "right")],
        rows,
        width,
        "  ",
    )
    left = len(report.fits) - len(rows)
    if left > 0:
        yield sentence(f"… and {left} more in the JSON and .npz", width, "  ")


def median_pair(report: LandscapeReport) -> int:
    """Choose the pair to show: the one in the middle by roughness (of two, the smoother)."""
    order = np.argsort([fit.roughness for fit in report.fits], kind="stable")
    return int(order[(len(order) - 1) // 2])


def map_lines(losses: NDArray[np.float64], width: int) -> list[str]:
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
        One line for each row of points; a large grid is drawn with fewer points.
    """
    most = max(2, min(_MAX_ROWS, width // 2))
    step = -(-len(losses) // most)
    few = losses[::step, ::step].T[::-1]
    low, high = float(losses.min()), float(losses.max())
    top = len(_SHADES) - 1
    scale = (few - low) / (high - low) if high > low else np.zeros_like(few)
    shade = np.ceil(scale * top).astype(int)
    return ["".join(2 * _SHADES[i] for i in row) for row in shade]


def _map(report: LandscapeReport, width: int) -> Iterable[Text]:
    pair = median_pair(report)
    span, fit = report.roughness.span, report.fits[pair]
    losses = np.array(report.surface.losses[pair])
    lines = map_lines(losses, width - 8)
    of = f"pair {pair}, the median" if len(report.fits) > 1 else "the pair"
    yield heading(f"Loss around the trained weights ({of}; x and y from {-span:g} to {span:g})", width)
    # Of an odd number of points one is the trained weights themselves.
    middle = f"; {losses[len(losses) // 2, len(losses) // 2]:.4g} in the middle" if len(losses) % 2 else ""
    framed = ["  |" + line + "|" for line in lines]
    yield Text("\n".join(framed))
    yield sentence(
        f"'{_SHADES[0]}' {fit.lowest:.4g} … '{_SHADES[-1]}' {fit.highest:.4g}, in equal steps{middle}",
        width,
        "  ",
    )


def _basis(report: LandscapeReport, width: int) -> Iterable[Text]:
    for title, lines in (
        ("Events", list(report.events)),
        ("Notes", _notes(report)),
        ("How it was run", _run(report)),
    ):
        if lines:
            yield heading(title, width)
            for line in lines:
                yield sentence(line, width, "  ", "    ")


def _notes(report: LandscapeReport) -> list[str]:
    skipped = [f"left out of the data: {': '.join(item)}" for item in report.data.skipped]
    return [*report.notes, *report.data.notes, *skipped]


def _run(report: LandscapeReport) -> list[str]:
    found, loss, data = report.roughness, report.loss, report.data
    against = "labels" if loss.against == "labels" else "the unmodified model"
    lines = [
        f"Loss: {loss.name.replace('_', '-')} against {against}, {loss.nominal:.4g} of the unmodified model; "
        f"{'; '.join(loss.assumed)}",
        f"Moved: {count_text(len(report.moved), 'weight')}, {count_text(report.moved_numbers, 'number')}; "
        "everything else is fixed" + (f", also {', '.join(report.fixed)}" if report.fixed else ""),
        f"Grid: {found.grid} × {found.grid} points, span ±{found.span:g}, "
        f"{count_text(found.pairs, 'direction pair')}, {count_text(found.images, 'image')} of "
        f"{data.count:,}, seed {report.run.get('seed')}, batch norm {found.batch_norm}",
        f"Model: {report.model.path} ({report.model.batching})",
        f"Data: {data.source}",
        *runtime_text(report.runtime),
        f"nvaudit {report.nvaudit_version}",
    ]
    if report.timing:
        times = (f"{key} {value:.3g} s" for key, value in report.timing.items())
        lines.append(f"Time: {', '.join(times)}".replace("_", " "))
    hashes = report.hashes
    lines.append(f"SHA-256: model {hashes.model[:_HASH_DIGITS]}, data {hashes.data[:_HASH_DIGITS]}")
    return lines

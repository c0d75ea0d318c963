"""What an audit says of chips that were read back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from nvaudit.report.deployment.result import CrossbarOnChip, DeviceErrors, MeasuredChip
from nvaudit.report.document import (
    FILES,
    MEDIA,
    PAGE,
    Block,
    Bullets,
    Cell,
    Figure,
    Number,
    Paragraph,
    Section,
    Table,
    limited,
    short,
)
from nvaudit.report.plots import SURFACE_COLOURS, axis, label, layout, plotly_graphs
from nvaudit.report.result import AuditReport
from nvaudit.report.wording import confidence_text, count_text, difference_text, value_text

_MOST_CHIPS = 8
"""Chips whose crossbars are drawn."""


def measured_section(report: AuditReport) -> Section | None:
    """Each chip that was read back: what it reaches, its place among simulated ones, and where it errs."""
    measured = report.measured_chips
    if measured is None:
        return None
    info, several = report.metric_info, len(measured.chips) > 1
    simulated = count_text(measured.chips[0].simulated, "simulated chip")
    text = (
        f"The very chips of {measured.source}, beside {simulated}. A "
        f"percentile says how many simulated chips are worse, of equal ones half; its interval holds with "
        f"{confidence_text(measured.confidence)} confidence. Errors are measured less programmed, in level "
        "spacings."
    )
    blocks: list[Block] = [
        Paragraph(text),
        Table(
            "read-back", "Every chip that was read back.",
            ("chip", report.metric, "percentile", "interval", "rms error", "mean error", "dead rows",
             "dead columns"),
            tuple(_chip_row(chip, info.unit) for chip in measured.chips), numeric=(1, 2, 3, 4, 5, 6, 7),
        ),
    ]  # fmt: skip
    empty = tuple(said for chip in measured.chips if (said := _says_nothing(chip, report.data.count)))
    if empty:
        blocks.append(Bullets(empty))
    outside = [chip for chip in measured.chips if chip.outside]
    if outside:
        names = ", ".join(chip.name for chip in outside)
        blocks.append(Bullets((f"The profile does not predict {names}: surely among the rarest 0.5 %.",)))
    for number, chip in enumerate(measured.chips):
        blocks += _of_chip(chip, number, several, info.unit, measured.images)
    return Section("read-back", "Chips that were read back", tuple(blocks))


def _says_nothing(chip: MeasuredChip, samples: int) -> str:
    """Why the value of a chip is not what this chip reaches; empty: it is."""
    if chip.missing == chip.errors.devices:
        return (
            f"{chip.name}: none of its devices was measured (NaN), so its value is that of the quantised "
            "model and says nothing of this chip."
        )
    if chip.undefined == samples:
        return (
            f"{chip.name}: its outputs are not numbers (NaN) on every sample, so each counts as wrong: its "
            "value and its percentile say that it does not compute, not how well."
        )
    return ""


def _chip_row(chip: MeasuredChip, unit: str) -> tuple[Cell, ...]:
    rows = sum(len(one.dead_rows) for one in chip.crossbars)
    columns = sum(len(one.dead_columns) for one in chip.crossbars)
    return (
        short(chip.name),
        Number(chip.value, value_text(chip.value, unit)),
        Number(chip.percentile, f"{chip.percentile:.3g} %"),
        f"{chip.percentile_low:.3g} to {chip.percentile_high:.3g} %",
        _number(chip.errors.rms),
        _number(chip.errors.mean),
        Number(rows, f"{rows:,}"),
        Number(columns, f"{columns:,}"),
    )


def _number(value: float | None) -> Number:
    return Number(value, "" if value is None else f"{value:.3g}")


def _of_chip(chip: MeasuredChip, number: int, several: bool, unit: str, images: int) -> list[Block]:
    of = f" of {short(chip.name)}" if several else ""
    shown, cut = limited([_tensor_row(one.name, one.crossbars, one.errors, one.cost, unit)
                          for one in chip.tensors])  # fmt: skip
    media = MEDIA if number == 0 else FILES
    blocks: list[Block] = [
        Table(
            f"read-back-tensors-{number}",
            f"Tensors{of}, and what the metric gains with one of them as it should be, on "
            f"{count_text(images, 'sample')}.{cut}",
            ("tensor", "crossbars", "rms error", "mean error", "largest", "costs"),
            shown, numeric=(1, 2, 3, 4, 5), sortable=True, media=media,
        ),
        Table(
            f"read-back-worst-{number}", f"Rows and columns{of} with the largest errors, dead ones first.",
            ("tensor", "crossbar", "line", "rms error", "times usual", ""),
            tuple(
                (short(place.tensor), place.file.rpartition("/")[2], f"{place.line} {place.index}",
                 _number(place.rms), _number(place.times), "dead" if place.dead else "")
                for place in chip.worst
            ),
            numeric=(3, 4), media=media,
        ),
    ]  # fmt: skip
    if number < _MOST_CHIPS:
        blocks += [_figure(chip.crossbars, number, of, line) for line in ("row", "column")]
    return blocks


def _tensor_row(
    name: str, crossbars: int, errors: DeviceErrors, cost: float | None, unit: str
) -> tuple[Cell, ...]:
    costs = Number(cost, "" if cost is None else difference_text(cost, unit))
    numbers = (_number(errors.rms), _number(errors.mean), _number(errors.largest))
    return (short(name), Number(crossbars, f"{crossbars:,}"), *numbers, costs)


def _figure(crossbars: Sequence[CrossbarOnChip], number: int, of: str, line: str) -> Figure:
    worst = max(crossbars, key=lambda one: one.errors.rms or 0.0)
    dead = sum(len(getattr(one, f"dead_{line}s")) for one in crossbars)
    caption = (
        f"Errors by {line}{of}: the rms over every {line} of each crossbar. The largest rms of a crossbar is "
        f"{worst.errors.rms or 0:.3g}, of {short(worst.tensor)}; "
        f"{count_text(dead, f'{line} is', f'{line}s are')} dead."
    )
    return Figure(
        f"errors-by-{line}-{'abcdefgh'[number]}", caption, draw=partial(error_map, crossbars, line),
        tall=True, media=PAGE,
        legend="A crossbar is a line of the picture; its devices begin at the left.",
    )  # fmt: skip


MOST_DRAWN = 64
"""Crossbars of a picture: those with the largest errors."""

_ROW, _REST = 14, 110
"""Height of a crossbar and of what surrounds them, in pixels."""


def error_map(crossbars: Sequence[CrossbarOnChip], line: str) -> Any:
    """Draw the rms error of every row, or column, of each crossbar as a heat map.

    Parameters
    ----------
    line : str
        ``row`` or ``column``.
    """
    go = plotly_graphs()
    kept = sorted(crossbars, key=lambda one: -(one.errors.rms or 0.0))[:MOST_DRAWN]
    drawn = [one for one in crossbars if one in kept]
    values = [getattr(one, f"{line}_rms") for one in drawn]
    width = max(map(len, values), default=0)
    grid = np.full((len(drawn), width), np.nan)
    for number, one in enumerate(values):
        grid[number, : len(one)] = [np.nan if value is None else value for value in one]
    names = [label(f"{one.tensor} {one.file.rpartition('/')[2].lstrip('0') or '0'}", 30) for one in drawn]
    figure = go.Figure(
        go.Heatmap(
            z=grid, x=list(range(width)), y=list(range(len(drawn))), customdata=[[n] * width for n in names],
            colorscale=SURFACE_COLOURS, zmin=0, zmax=float(np.nanmax(grid, initial=1e-12)),
            colorbar={"title": {"text": "rms error, levels", "side": "right"}, "thickness": 14},
            hovertemplate=f"%{{customdata}}<br>{line} %{{x}}: %{{z:.3g}}<extra></extra>",
        )
    )  # fmt: skip
    every = max(1, len(drawn) // 24)
    ticks = list(range(0, len(drawn), every))
    figure.update_layout(
        **layout(
            height=_REST + _ROW * max(len(drawn), 8),
            xaxis=axis(f"{line} of the crossbar"),
            yaxis=axis(
                "", tickvals=ticks, ticktext=[names[tick] for tick in ticks], range=[len(drawn) - 0.5, -0.5]
            ),
        )
    )
    return figure

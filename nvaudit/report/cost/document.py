"""What is said of the cost of hardware: by `nvaudit cost`, and in the report of an audit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from nvaudit.report.cost.result import (
    COMPONENT_NAMES,
    ChipEnergies,
    CostFigures,
    CostInfo,
    CostReport,
    totals_text,
)
from nvaudit.report.document import (
    Block,
    Bullets,
    Cell,
    Document,
    Facts,
    Figure,
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
from nvaudit.report.parts import model_row, record_section
from nvaudit.report.plots import axis, colour, label, layout, plotly_graphs
from nvaudit.report.wording import count_text, share_text, si_scale, si_text

_MODES = {
    "bit_serial": "bit after bit",
    "parallel": "as one voltage",
    "pwm": "as one pulse",
}


def cost_document(report: CostReport) -> Document:
    """Say what a model costs."""
    sections = (
        Section("components", "Where it goes", tuple(_component_blocks(report))),
        Section("layers", "Layers", (_layers(report),)),
        *chips_section(report),
        Section("limits", "What these numbers rest on", tuple(_limits(report))),
        Section("notes", "Notes", (Bullets(report.notes),) if report.notes else ()),
        _record(report),
    )
    return Document(
        title=report.headline,
        subject=file_name(report.model.path),
        subtitle=f"hardware cost on {short(report.device_name)} with {short(report.technology_name)}",
        hero=Hero(
            role="none",
            word="",
            title=f"{si_text(report.totals.energy_j, 'J')} an inference",
            lines=(f"{design_text(report)}.", band_text(report)),
            numbers=tuple(_numbers(report)),
            warnings=tuple(f"{text}." for text in report.warnings),
        ),
        sections=tuple(section for section in sections if section.blocks),
        version=report.nvaudit_version,
    )


def cost_section(info: CostInfo | None) -> Section | None:
    """The cost as a section of another report; None where it was not asked for."""
    if info is None:
        return None
    blocks = (
        Paragraph(f"{totals_text(info)}: {design_text(info)}.", "lead"),
        Paragraph(band_text(info)),
        Facts(tuple((number.label, f"{number.value}; {number.note}") for number in _numbers(info))),
        *_component_blocks(info),
        _layers(info),
        *(block for section in chips_section(info) for block in section.blocks),
        *_limits(info),
    )
    return Section("cost", "Hardware cost", blocks)


def costs_table(name: str, head: str, rows: Sequence[tuple[Cell, CostFigures | None]]) -> list[Block]:
    """The costs of several models, or numbers of levels, beside each other; empty where none was asked for.

    Parameters
    ----------
    head : str
        Heading of the first column.
    """
    costs = [cost for _, cost in rows if cost is not None]
    if not costs:
        return []
    names = ", ".join(dict.fromkeys(cost.technology for cost in costs))
    caption = f"Hardware cost of an inference with {names}; absolute numbers within ×/÷ {costs[0].factor:g}."
    cells = tuple((cell, *_figures_cells(cost)) for cell, cost in rows)
    columns = (head, "energy", "latency", "energy · delay", "area, mm²")
    return [Table(name, caption, columns, cells, numeric=(1, 2, 3, 4), sortable=True)]


def _figures_cells(cost: CostFigures | None) -> tuple[Cell, ...]:
    if cost is None:
        return (Number(None, "-"),) * 4
    return (
        Number(cost.energy_j, si_text(cost.energy_j, "J")),
        Number(cost.latency_s, si_text(cost.latency_s, "s")),
        Number(cost.edp_js, si_text(cost.edp_js, "Js")),
        Number(cost.area_m2, f"{1e6 * cost.area_m2:.3g}"),
    )


def design_text(info: CostInfo) -> str:
    """Say what was costed."""
    design, (rows, cols) = info.design, info.design.crossbar
    mode = f"{design.input_bits}-bit inputs {_MODES[design.input_mode]}"
    copies = "" if design.copies == 1 else f", up to {design.copies} copies of a layer"
    pace = "layers work on different samples at a time" if design.pipelined else "layer after layer"
    return (
        f"{count_text(info.totals.crossbars, 'crossbar')} of {rows}x{cols} in "
        f"{count_text(info.totals.tiles, 'tile')}, {design.adc_bits}-bit ADCs, {mode}, {pace}{copies}"
    )


def band_text(info: CostInfo) -> str:
    """Say how far the numbers may be off."""
    band = info.band
    low, high = (si_text(value, "J") for value in band.energy_j)
    return (
        f"Absolute numbers hold within a factor of {band.factor:g} ({low} to {high}): respected models "
        "differ by as much. Two designs of this technology that differ by less than "
        f"{100 * band.ranking:g} % tie."
    )


def _numbers(info: CostInfo) -> list[KeyFigure]:
    totals = info.totals
    rate = totals.inferences_per_s
    each_second = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    return [
        KeyFigure("energy", si_text(totals.energy_j, "J"), "of one inference", main=True),
        KeyFigure("latency", si_text(totals.latency_s, "s"), f"{each_second} inferences/s"),
        KeyFigure("energy · delay", si_text(totals.edp_js, "Js"), f"{si_text(totals.power_w, 'W')} in use"),
        KeyFigure("area", f"{1e6 * totals.area_m2:.3g} mm²", count_text(totals.crossbars, "crossbar")),
        KeyFigure(
            "operations", si_text(1e12 * totals.tops, "OPS"),
            f"{totals.tops_per_w:.3g} TOPS/W, {si_text(1e12 * totals.tops_per_mm2, 'OPS/mm²')}",
        ),
        KeyFigure("devices in use", share_text(totals.utilisation), "of those of the crossbars"),
    ]  # fmt: skip


def _component_blocks(info: CostInfo) -> list[Block]:
    totals = info.totals
    rows: list[tuple[Cell, ...]] = []
    for name, words in COMPONENT_NAMES.items():
        part = info.components[name]
        share = part.energy_j / totals.energy_j if totals.energy_j else 0.0
        rows.append(
            (
                words,
                Number(part.energy_j, si_text(part.energy_j, "J")),
                Number(share, share_text(share), share),
                Number(part.latency_s, si_text(part.latency_s, "s")),
                Number(part.area_m2, f"{1e6 * part.area_m2:.3g}"),
            )
        )
    table = Table(
        "components-table", "Every component: of one inference, and of the chip.",
        ("component", "energy", "share", "latency", "area, mm²"), tuple(rows), numeric=(1, 2, 3, 4),
        all_rows=True,
    )  # fmt: skip
    figure = Figure(
        "cost-by-layer", "Energy of an inference by layer and component.", partial(cost_figure, info),
        tall=True, media=frozenset(("page",)),
    )  # fmt: skip
    return [table, figure]


def _layers(info: CostInfo) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, layer in info.layers.items():
        share = layer.energy_j / info.totals.energy_j if info.totals.energy_j else 0.0
        rows.append(
            (
                short(name),
                Number(layer.crossbars, f"{layer.crossbars:,}"),
                Number(layer.utilisation, share_text(layer.utilisation)),
                Number(layer.energy_j, si_text(layer.energy_j, "J")),
                Number(share, share_text(share)),
                Number(layer.latency_s, si_text(layer.latency_s, "s")),
                Number(layer.area_m2, f"{1e6 * layer.area_m2:.3g}"),
            )
        )
    shown, cut = limited(rows)
    columns = ("layer", "crossbars", "in use", "energy", "share", "latency", "area, mm²")
    return Table(
        "cost-layers", f"Every layer, in the order in which they run.{cut}", columns, shown,
        numeric=(1, 2, 3, 4, 5, 6), sortable=True,
    )  # fmt: skip


def chips_section(info: CostInfo) -> tuple[Section, ...]:
    """Energy over the chips; empty where it was not asked for."""
    blocks: list[Block] = []
    if info.chips is not None:
        blocks.append(Paragraph(_chips_text(info.chips)))
    if info.measured_chips:
        programmed = si_text(info.totals.energy_j, "J", 5)
        rows = [
            (chip.name, Number(chip.energy_j, si_text(chip.energy_j, "J", 5)),
             Number(chip.change, f"{100 * chip.change:+.2f} %".replace("-", "−")))
            for chip in info.measured_chips
        ]  # fmt: skip
        caption = f"Chips that were read back; as programmed an inference takes {programmed}."
        blocks.append(Table("measured-energy", caption, ("chip", "energy", "change"), tuple(rows), (1, 2)))
    return (Section("chips", "Energy over the chips", tuple(blocks)),) if blocks else ()


def _chips_text(chips: ChipEnergies) -> str:
    """Say how the energy of simulated chips spreads."""
    spread = chips.std / chips.mean if chips.mean else 0.0
    text = (
        f"Over {count_text(len(chips.values), 'simulated chip')} an inference takes "
        f"{si_text(chips.mean, 'J', 5)} on average, {si_text(chips.low, 'J', 5)} to "
        f"{si_text(chips.high, 'J', 5)}; the standard deviation is {share_text(spread)} of the mean."
    )
    if chips.correlation is not None:
        text += f" Its correlation with the metric of the same chips is {chips.correlation:+.2f}."
    return text.replace("-", "−")


def _limits(info: CostInfo) -> list[Block]:
    measured = () if not info.images else (
        f"Inputs of the layers were measured on {count_text(info.images, 'sample')}.",
    )  # fmt: skip
    blocks: list[Block] = []
    for title, items in (
        ("Not modelled", info.not_modelled),
        ("Assumed", info.assumptions),
        ("Measured", measured),
    ):
        if items:
            blocks.append(Bullets(tuple(f"{title}: {item.removesuffix('.')}." for item in items)))
    return blocks


def _record(report: CostReport) -> Section:
    design = report.design
    cells = f"{design.cell_bits} bits per cell" if design.cell_bits else "analog cells"
    technology = report.technology
    rows: Sequence[tuple[str, str]] = (
        model_row(report.model),
        ("Device", f"{report.device_name}: {design.weight_bits} weight bits, {cells}, {design.encoding}"),
        ("Technology", f"{report.technology_name}: {technology.get('description')}"),
        ("Valid for", str(technology.get("valid_range"))),
    )
    return record_section(report, rows)


_ROLES = (
    "chips",
    "band",
    "second",
    "worst",
    "undecided",
    "worst-band",
    "muted",
    "pass",
    "fail",
    "ideal",
    "line",
)
_ROW, _REST, _MOST = 22, 150, 60


def cost_figure(info: CostInfo) -> Any:
    """Draw the layers from first to last, each a bar of its components."""
    go = plotly_graphs()
    names = list(info.layers)[:_MOST]
    places = list(range(len(names)))
    scale, unit = si_scale(max((info.layers[name].energy_j for name in names), default=0.0), "J")
    figure = go.Figure()
    for role, (part, words) in zip(_ROLES, COMPONENT_NAMES.items(), strict=True):
        values = [
            scale * info.layers[name].components[part].energy_j
            if part in info.layers[name].components
            else 0.0
            for name in names
        ]
        if any(values):
            figure.add_bar(
                x=values, y=places, orientation="h", name=words, marker={"color": colour(role)},
                hovertemplate=f"{words}: %{{x:.4~g}} {unit}<extra></extra>",
            )  # fmt: skip
    figure.update_layout(
        **layout(
            barmode="stack",
            height=_REST + _ROW * len(names),
            xaxis=axis(f"energy of an inference, {unit}", nticks=7),
            yaxis=axis(
                "", tickvals=places, ticktext=[label(name, 32) for name in names],
                range=[len(names) - 0.5, -0.5],
            ),
            showlegend=True,
            legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom",
                    "traceorder": "normal"},
            margin={"l": 8, "r": 12, "t": 96, "b": 8},
        )
    )  # fmt: skip
    return figure

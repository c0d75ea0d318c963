"""A hardening on a terminal: the result first, then before and after, then how it was done."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from nvaudit.report.crossbar_text import crossbar_section
from nvaudit.report.groups import zero_groups_section
from nvaudit.report.hardening import HardenReport, TrainingInfo
from nvaudit.report.terminal import Kind, heading, sentence, show, table
from nvaudit.report.verify_text import curve_and_tensors
from nvaudit.report.wording import (
    count_text,
    difference_text,
    duration_text,
    interval_text,
    kpp_name,
    limit_text,
    value_text,
)

_MOST_EPOCHS = 12


def render_hardening(report: HardenReport, console: Console) -> None:
    """Print a hardening for a person; the first line is the headline.

    Parameters
    ----------
    report : HardenReport
    console : rich.console.Console
    """
    width = console.width
    parts = [
        sentence(report.headline, width, style="bold"),
        *_sides(report, width),
        *zero_groups_section(report.zero_groups, width),
        *crossbar_section(report.crossbar, width),
        *_training(report, width),
        *_verify(report, width),
        *_basis(report, width),
    ]
    show(console, parts)


def _sides(report: HardenReport, width: int) -> Iterable[Text]:
    unit, before, after = report.metric_info.unit, report.before, report.after
    rows = [
        (name, value_text(a, unit), value_text(b, unit), difference_text(b - a, unit))
        for name, a, b in (
            ("without noise", before.nominal, after.nominal),
            ("quantised", before.quantised, after.quantised),
            ("mean of the chips", before.mean, after.mean),
            (kpp_name(report.difference.percentile), before.kpp.value, after.kpp.value),
        )
    ]
    for a, b in zip(before.yields, after.yields, strict=True):
        name = f"yield at {limit_text(round(a.threshold, 6), unit)}"
        first, second = (value_text(side.share, "fraction") for side in (a, b))
        rows.append((name, first, second, difference_text(b.share - a.share, "fraction")))
    if before.roughness is not None and after.roughness is not None:
        cells = [f"{1e3 * value:.4g} ×10⁻³" for value in (before.roughness, after.roughness)]
        change = f"{1e3 * (after.roughness - before.roughness):+.4g} ×10⁻³".replace("-", "−", 1)
        rows.append(("roughness", cells[0], cells[1], change))
    yield heading(f"{report.metric} on the same {count_text(report.difference.chips, 'chip')}", width)
    yield table([("", "left"), ("before", "right"), ("after", "right"), ("", "right")], rows, width, "  ")
    for name, side in (("before", before), ("after", after)):
        ends = interval_text(side.kpp.low, side.kpp.high, unit)
        confidence = f"{100 * side.kpp.confidence:g} %"
        yield sentence(
            f"{kpp_name(side.kpp.percentile)} {name}: {confidence} interval {ends}", width, "  ", "    "
        )
    missing = report.difference.kpp.missing
    if missing is not None:
        yield sentence(f"No interval of the difference of the KPP: {missing} (--trials)", width, "  ", "    ")


def _training(report: HardenReport, width: int) -> Iterable[Text]:
    found = report.training
    if found is None:
        return
    yield heading("Training", width)
    yield from _candidates(found, report, width)
    noise = "" if found.sigma is None else f", sigma {found.sigma:.4g} max|W|"
    yield sentence(
        f"{report.method}{noise}; the device makes {found.device_sigma:.4g} max|W|; {found.loss}; "
        f"{count_text(found.samples, 'sample')}, {count_text(found.validation_samples, 'sample')} held out",
        width,
        "  ",
        "    ",
    )
    yield from _through_crossbars(found, width)
    rows = found.history
    step = max(1, -(-len(rows) // _MOST_EPOCHS))
    shown = [row for i, row in enumerate(rows) if (i + 1) % step == 0 or i + 1 == len(rows)]
    unit = report.metric_info.unit
    cells = [
        (
            str(row.epoch),
            " ".join(f"{value:.4g}" for value in row.sigma),
            " ".join(f"{value:.4g}" for value in row.loss),
            " ".join(value_text(value, unit) for value in row.kpp),
        )
        for row in shown
    ]
    if cells:
        yield table(
            [("epoch", "right"), ("sigma", "left"), ("loss", "left"), ("KPP", "left")], cells, width, "  "
        )


def _through_crossbars(found: TrainingInfo, width: int) -> Iterable[Text]:
    """Say that training was hardware-aware, and which weights were left out."""
    info = found.hardware_aware
    if info is None:
        return
    through = sum(layer.reason is None for layer in info.layers)
    yield sentence(
        f"Hardware-aware: {through} of {count_text(len(info.layers), 'weight')} trained through crossbars of "
        f"{info.rows} × {info.cols} with {info.adc_bits}-bit ADCs",
        width,
        "  ",
        "    ",
    )
    for layer in info.layers:
        if layer.reason is not None:
            yield sentence(f"Trained whole: {layer.name}: {layer.reason}", width, "  ", "    ")


def _verify(report: HardenReport, width: int) -> Iterable[Text]:
    plan = report.verify_plan
    if plan is not None:
        yield heading("Write-verify plan of the hardened model", width)
        yield sentence(plan.headline, width, "  ", "    ")
        yield from curve_and_tensors(plan, width)


def _candidates(found: TrainingInfo, report: HardenReport, width: int) -> Iterable[Text]:
    """The candidates of stability-vat, the one that was kept marked."""
    if not found.candidates:
        return
    unit = report.metric_info.unit
    rows = []
    for place, one in enumerate(found.candidates):
        spread = "" if one.spread is None else f" ± {1e3 * one.spread:.2g}"
        rows.append(
            (
                "start" if one.sigma is None else f"{one.sigma:g}",
                "" if one.loss is None else f"{one.loss:.4g}",
                value_text(one.clean, unit),
                value_text(one.kpp, unit),
                f"{1e3 * one.roughness:.4g}{spread}",
                "kept" if place == found.kept_candidate else "",
            )
        )
    columns: list[tuple[str, Kind]] = [("sigma", "left"), ("loss", "right"), ("without noise", "right")]
    columns += [(kpp_name(report.difference.percentile), "right"), ("roughness ×10⁻³", "right"), ("", "left")]
    yield table(columns, rows, width, "  ")
    yield sentence(
        "On validation samples; the least rough one is kept, whatever its KPP on the audited device.",
        width,
        "  ",
        "    ",
    )


def _basis(report: HardenReport, width: int) -> Iterable[Text]:
    run = [
        f"Model: {report.model}",
        f"Device: {report.device}, {report.operating_point}",
        f"Audited on {count_text(report.data.count, 'sample')}; seed {report.run.get('seed')}",
        "Time: " + ", ".join(f"{name} {duration_text(value)}" for name, value in report.timing.items()),
        f"nvaudit {report.nvaudit_version}",
    ]
    for title, lines in (("Events", report.events), ("Notes", report.notes), ("How it was run", run)):
        if lines:
            yield heading(title, width)
            for line in lines:
                yield sentence(line, width, "  ", "    ")

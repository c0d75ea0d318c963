"""A write-verify plan on a terminal: the result first, then the curve, the tensors, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from nvaudit.report.mapped_text import share_gate_lines, share_warning_lines
from nvaudit.report.terminal import Kind, heading, sentence, show, table
from nvaudit.report.verify.result import VerifyPoint, VerifyReport, share_words
from nvaudit.report.verify.words import choice_text, condition_rows, gain_lines
from nvaudit.report.wording import (
    count_text,
    difference_text,
    interval_text,
    kpp_name,
    shape_text,
    value_text,
)


def render_verify(report: VerifyReport, console: Console) -> None:
    """Print a plan for a person; the first line is the headline.

    Parameters
    ----------
    report : VerifyReport
    console : rich.console.Console
    """
    width = console.width
    parts = [
        sentence(report.headline, width, style="bold"),
        *share_warning_lines(report.mapped, width),
        *share_gate_lines(report.mapped_gate, report.mapped, width),
        *curve_and_tensors(report, width),
        *_rest(report, width),
    ]
    show(console, parts)


def curve_and_tensors(report: VerifyReport, width: int) -> list[Text]:
    """What a plan says, without what it rests on."""
    return [*_curve(report, width), *_choice(report, width), *_tensors(report, width)]


def _curve(report: VerifyReport, width: int) -> Iterable[Text]:
    unit, first = report.metric_info.unit, report.curve[0]
    chips = count_text(first.kpp.trials, "chip")
    yield heading(f"{report.metric} of the same {chips} with a share of the weights verified", width)
    columns: list[tuple[str, Kind]] = [
        (name, "right")
        for name in ("share", "weights", kpp_name(first.kpp.percentile), "interval", "gain", "mean", "worst")
    ]
    yield table(columns, [_row(point, unit) for point in report.curve], width, "  ")
    for line in gain_lines(report):
        yield sentence(line, width, "  ", "    ")


def _row(point: VerifyPoint, unit: str) -> tuple[str, ...]:
    gain = "" if point.difference is None else difference_text(point.difference.kpp.value, unit)
    return (
        share_words(point.share),
        f"{point.weights:,}",
        value_text(point.kpp.value, unit),
        interval_text(point.kpp.low, point.kpp.high, unit),
        gain,
        value_text(point.mean, unit),
        value_text(point.worst, unit),
    )


def _choice(report: VerifyReport, width: int) -> Iterable[Text]:
    yield heading("Plan", width)
    yield sentence(choice_text(report), width, "  ", "    ")


def _tensors(report: VerifyReport, width: int) -> Iterable[Text]:
    yield heading("Weights to verify, by tensor", width)
    rows = [
        (
            row.name,
            row.op,
            shape_text(row.shape),
            f"{row.verified:,}",
            f"{row.weights:,}",
            share_words(row.verified / row.weights if row.weights else 0.0),
        )
        for row in report.tensors
    ]
    yield table(
        [("tensor", "fold"), ("operator", "left"), ("stored as", "left"), ("verify", "right"),
         ("of", "right"), ("share", "right")],
        rows, width, "  ",
    )  # fmt: skip


def _rest(report: VerifyReport, width: int) -> Iterable[Text]:
    run = [
        *(f"{name}: {value}" for name, value in condition_rows(report)),
        f"nvaudit {report.nvaudit_version}",
    ]
    for title, lines in (("Events", report.events), ("Notes", report.notes), ("How it was run", run)):
        if lines:
            yield heading(title, width)
            for line in lines:
                yield sentence(line, width, "  ", "    ")

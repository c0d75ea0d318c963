"""A write-verify plan on a terminal: the result first, then the curve, the tensors, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from nvaudit.report.paired import Difference
from nvaudit.report.terminal import Kind, heading, sentence, show, table
from nvaudit.report.verify import VerifyPoint, VerifyReport, share_words
from nvaudit.report.wording import (
    confidence_text,
    count_text,
    difference_text,
    duration_text,
    interval_text,
    kpp_name,
    limit_text,
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
    last = report.curve[-1].difference
    if last is not None:
        gains = ", ".join(
            f"{name} {difference_text(found.value, unit)}{_ends(found, unit)}"
            for name, found in ((kpp_name(last.percentile), last.kpp), ("mean", last.mean))
        )
        confidence = confidence_text(last.confidence)
        yield sentence(
            f"{share_words(report.curve[-1].share)} against none, {confidence}: {gains}", width, "  ", "    "
        )
        if last.kpp.missing is not None:
            yield sentence(
                f"No interval of gains of the KPP: {last.kpp.missing} (--trials)", width, "  ", "    "
            )
    yield sentence(
        f"without noise {value_text(report.quantised, unit)} (as given {value_text(report.nominal, unit)})",
        width, "  ", "    ",
    )  # fmt: skip


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


def _ends(found: Difference, unit: str) -> str:
    if found.low is None or found.high is None:
        return ""
    return f" ({difference_text(found.low, unit)} to {difference_text(found.high, unit)})"


def _choice(report: VerifyReport, width: int) -> Iterable[Text]:
    yield heading("Plan", width)
    choice, unit = report.choice, report.metric_info.unit
    if choice is None:
        assert report.target is not None
        text = f"none: no share that was tried reaches {limit_text(report.target, unit)}"
        yield sentence(f"{text}; a smaller --verify-sigma, harden or remap may", width, "  ", "    ")
        return
    short = "" if choice.short is None else f"; {share_words(choice.short)} is not enough"
    yield sentence(
        f"verify {share_words(choice.share)}, {choice.weights:,} of {count_text(report.weights, 'weight')}, "
        f"{choice.devices:,} of {count_text(report.devices, 'device')}: {choice.why}{short}",
        width, "  ", "    ",
    )  # fmt: skip


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
    left = f"; {', '.join(report.left)} {'stays' if len(report.left) == 1 else 'stay'}" if report.left else ""
    kept = (
        "nothing of it"
        if report.verify_sigma == 0
        else f"sigma {report.verify_sigma:g} of {report.sigma:g} ({report.sigma_unit})"
    )
    run = [
        f"Device: {report.device}, sigma {report.sigma:g} ({report.sigma_unit}), time "
        f"{duration_text(report.time_s)}",
        f"Verifying reduces {', '.join(report.reduced)} and leaves {kept}{left}",
        f"Ranking: {report.ranking}: {report.ranked_by}",
        f"Data: {report.data.source}, {count_text(report.data.count, 'sample')}; "
        f"seed {report.run.get('seed')}",
        f"Time: {', '.join(f'{name} {value:.3g} s' for name, value in report.timing.items())}",
        f"nvaudit {report.nvaudit_version}",
    ]
    for title, lines in (("Events", report.events), ("Notes", report.notes), ("How it was run", run)):
        if lines:
            yield heading(title, width)
            for line in lines:
                yield sentence(line, width, "  ", "    ")

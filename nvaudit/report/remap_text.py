"""A remapping on a terminal: what was gained, what was tried, what became of every weight."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from nvaudit.report.remap import RemapReport, RemapTensor
from nvaudit.report.terminal import heading, sentence, show, table
from nvaudit.report.wording import difference_text, interval_text, kpp_name, value_text

_PLAIN = ("another is better", "the start")
"""Reasons that the numbers say by themselves."""


def render_remap(report: RemapReport, console: Console) -> None:
    """Print a remapping for a person; the first line is the headline.

    Parameters
    ----------
    report : RemapReport
    console : rich.console.Console
        Nothing is cut at any width; a console that cannot encode Unicode gets ASCII.
    """
    width = console.width
    parts = [
        sentence(report.headline, width, style="bold"),
        *_pair(report, width),
        *_steps(report, width),
        *_tensors(report, width),
        *(sentence(note, width, "  ", "    ") for note in report.notes),
    ]
    show(console, parts)


def _pair(report: RemapReport, width: int) -> Iterable[Text]:
    before, after, difference = report.before, report.after, report.difference
    if before is None or after is None or difference is None:
        return
    unit = report.unit
    rows = [
        ("ideal", *_values(before.nominal, after.nominal, unit), ""),
        ("quantised", *_values(before.quantised, after.quantised, unit), ""),
        (
            "mean",
            *_values(before.mean, after.mean, unit),
            interval_text(difference.mean.low, difference.mean.high, unit),
        ),
        (
            kpp_name(report.percentile),
            *_values(before.kpp, after.kpp, unit),
            interval_text(difference.kpp.low, difference.kpp.high, unit),
        ),
    ]
    yield heading(f"The same {difference.chips:,} chips before and after", width)
    yield table(
        [
            ("", "left"),
            ("before", "right"),
            ("after", "right"),
            ("change", "right"),
            ("interval of the change", "fold"),
        ],
        rows,
        width,
        "  ",
    )


def _values(before: float, after: float, unit: str) -> tuple[str, str, str]:
    return value_text(before, unit), value_text(after, unit), difference_text(after - before, unit)


def _steps(report: RemapReport, width: int) -> Iterable[Text]:
    unit = report.unit
    rows = [
        (
            "kept" if step.kept else "",
            step.name,
            f"{step.chips:,}",
            value_text(step.nominal, unit),
            *("—" if value is None else value_text(value, unit) for value in (step.quantised, step.kpp)),
            "—" if step.mean is None else value_text(step.mean, unit),
            "" if step.kept or step.reason in _PLAIN else step.reason,
        )
        for step in report.steps
    ]
    yield heading("Tried on the calibration images", width)
    yield sentence(report.calibration, width, "  ")
    yield table(
        [
            ("", "left"),
            ("step", "fold"),
            ("chips", "right"),
            ("ideal", "right"),
            ("quantised", "right"),
            (kpp_name(report.percentile), "right"),
            ("mean", "right"),
            ("", "fold"),
        ],
        rows,
        width,
        "  ",
    )
    for name in report.not_tried:
        yield sentence(f"not tried: {name}", width, "  ", "    ")


def _tensors(report: RemapReport, width: int) -> Iterable[Text]:
    yield heading("Weights", width)
    yield table(
        [
            ("weight", "fold"),
            ("operator", "left"),
            ("noise", "right"),
            ("scales", "fold"),
            ("clip, mean", "fold"),
        ],
        [_tensor(tensor) for tensor in report.tensors],
        width,
        "  ",
    )


def _tensor(tensor: RemapTensor) -> tuple[str, ...]:
    scales = tensor.scales if not tensor.scales_reason else f"{tensor.scales}: {tensor.scales_reason}"
    clip = tensor.clip_reason
    if tensor.clip is not None:
        clip = f"at {100 * tensor.clip:.0f} % of the range ({tensor.clipped:,} weights)"
    if tensor.corrected:
        clip = f"{clip}; mean corrected"
    noise = "" if tensor.noise is None else f"×{tensor.noise:.2f}"
    return tensor.name, tensor.op, noise, scales, clip

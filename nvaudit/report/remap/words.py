"""What a terminal and a page both say of a remapping."""

from __future__ import annotations

from nvaudit.report.remap.result import RemapReport, RemapStep, RemapTensor
from nvaudit.report.wording import count_text, difference_text, interval_text, kpp_name, value_text

PAIR_COLUMNS = ("", "before", "after", "change", "interval of the change")
TENSOR_COLUMNS = ("weight", "operator", "noise", "scales", "clip, mean")

_PLAIN = ("another is better", "the start")
"""Reasons that the numbers say by themselves."""


def pair_rows(report: RemapReport) -> list[tuple[str, ...]]:
    """Both sides of the paired audit in the order of ``PAIR_COLUMNS``; none without one."""
    before, after, difference = report.before, report.after, report.difference
    if before is None or after is None or difference is None:
        return []
    unit = report.unit
    mean, kpp = (interval_text(d.low, d.high, unit) for d in (difference.mean, difference.kpp))
    rows = (
        ("ideal", before.nominal, after.nominal, ""),
        ("quantised", before.quantised, after.quantised, ""),
        ("mean", before.mean, after.mean, mean),
        (kpp_name(report.percentile), before.kpp, after.kpp, kpp),
    )
    return [
        (name, value_text(a, unit), value_text(b, unit), difference_text(b - a, unit), ends)
        for name, a, b, ends in rows
    ]


def step_columns(report: RemapReport) -> tuple[str, ...]:
    """Names of what is known of a candidate."""
    return "", "step", "chips", "ideal", "quantised", kpp_name(report.percentile), "mean", ""


def step_row(step: RemapStep, unit: str) -> tuple[str, ...]:
    """A candidate in the order of ``step_columns``."""
    measured = (step.quantised, step.kpp, step.mean)
    return (
        "kept" if step.kept else "",
        step.name,
        f"{step.chips:,}",
        value_text(step.nominal, unit),
        *("—" if value is None else value_text(value, unit) for value in measured),
        "" if step.kept or step.reason in _PLAIN else step.reason,
    )


def tensor_row(tensor: RemapTensor) -> tuple[str, ...]:
    """What became of a weight, in the order of ``TENSOR_COLUMNS``."""
    scales = tensor.scales if not tensor.scales_reason else f"{tensor.scales}: {tensor.scales_reason}"
    clip = tensor.clip_reason
    if tensor.clip is not None:
        clip = f"at {100 * tensor.clip:.0f} % of the range ({count_text(tensor.clipped, 'weight')})"
    if tensor.corrected:
        clip = f"{clip}; mean corrected"
    noise = "" if tensor.noise is None else f"×{tensor.noise:.2f}"
    return tensor.name, tensor.op, noise, scales, clip

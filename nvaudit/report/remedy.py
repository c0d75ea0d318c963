"""What another code of the weights would give where a gate fails: what a report holds, and in words."""

from __future__ import annotations

from pydantic import Field

from nvaudit.report.codes import CodeErrors
from nvaudit.report.sections import MetricInfo, ReportPart
from nvaudit.report.wording import count_text, kpp_name, limit_text, value_text
from nvaudit.stats.kpp import KppResult


class RemedyChips(ReportPart):
    """Chips of the audit, with another code of the weights and nothing else changed."""

    values: tuple[float, ...] = Field(min_length=1, description="Of the first chips, every one whole.")
    samples: int = Field(ge=1, description="That each was run on.")
    mean: float
    worst: float
    missed: int = Field(ge=0, description="Chips that miss the gate's threshold.")


class Remedy(ReportPart):
    """What ``harden --method remap --code auto`` begins with: the code that it would choose, by itself.

    Rescaling and rounding, which it does besides, are not part of these numbers.
    """

    sigma: float
    code: str | None = Field(description="Significances, most first; null: there is none, or no time.")
    encoding: str | None
    devices_per_weight: float = Field(gt=0, description="As many as the slices have.")
    errors: CodeErrors | None = Field(description="Expected of the weights on the code; null without one.")
    slices: CodeErrors | None = Field(description="Expected of them on their slices.")
    chips: RemedyChips | None = Field(description="Null: there was no time to measure any.")
    why_not: str | None = Field(description="Why there are no chips, or no code; null where there are.")


def remedy_text(remedy: Remedy, info: MetricInfo, before: tuple[KppResult, float], threshold: float) -> str:
    """Say what another code would give.

    Parameters
    ----------
    before : tuple of KppResult and float
        KPP and mean of the audit's chips.
    threshold : float
        Of the gate.
    """
    devices = f"{remedy.devices_per_weight:g} devices per weight, as now"
    if remedy.code is None or remedy.errors is None or remedy.slices is None:
        return f"What another code on {devices} would give is not known: {remedy.why_not}"
    text = f"Where the hardware can weigh its devices otherwise: with the code {remedy.code} ({devices})"
    spread = (
        f"the rms error expected of a weight is {remedy.errors.total:.4f} of max|W| instead of "
        f"{remedy.slices.total:.4f}"
    )
    chips = remedy.chips
    if chips is None:
        return f"{text} {spread}; what chips reach was not measured: {remedy.why_not}"
    shown = [value_text(value, info.unit) for value in (chips.worst, chips.mean, before[0].value, before[1])]
    side = "below" if info.higher_is_better else "above"
    count = count_text(len(chips.values), "chip")
    return (
        f"{text} and nothing else changed the worst of {count} has {shown[0]} and their mean is {shown[1]} "
        f"({count_text(chips.samples, 'sample')} each; {chips.missed} {side} "
        f"{limit_text(threshold, info.unit)}), against {kpp_name(before[0].percentile)} {shown[2]} and mean "
        f"{shown[3]} with slices; {spread}. Remapping with it does more"
    )

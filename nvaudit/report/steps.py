"""From the unmodified model to a noisy chip: what each step makes of the metric, the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from nvaudit.report.result import AuditReport
from nvaudit.report.wording import difference_text, share_of_weights_text


@dataclass(frozen=True)
class MetricStep:
    """A step without noise.

    Attributes
    ----------
    value : float
        The metric after it.
    cause : str
        What it is, or what it costs and by what.
    """

    name: str
    value: float
    cause: str


def noiseless_steps(report: AuditReport) -> list[MetricStep]:
    """The unmodified model, its quantised weights, and its converters where it has any.

    ``report.quantised`` is the value after all of them: with converters what the mapping alone costs is that
    of the quantised weights with ideal converters.
    """
    unit, crossbar = report.metric_info.unit, report.crossbar
    mapped = report.quantised if crossbar is None else crossbar.quantised_ideal
    cost = difference_text(mapped - report.nominal, unit)
    steps = [
        MetricStep("ideal", report.nominal, "the unmodified model"),
        MetricStep("quantised", mapped, f"{cost} by mapping"),
    ]
    if crossbar is not None:
        cost = difference_text(report.quantised - mapped, unit)
        converters = f"{crossbar.adc_bits}-bit ADCs"
        if crossbar.dac_bits is not None:
            converters += f" and {crossbar.dac_bits}-bit DACs"
        converters += share_of_weights_text(crossbar.share_of_weights)
        steps.append(MetricStep("converted", report.quantised, f"{cost} by {converters}"))
    return steps

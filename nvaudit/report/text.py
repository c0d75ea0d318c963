"""The audit report on a terminal: the result first, then what it rests on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from rich.console import Console
from rich.text import Text

from nvaudit.report.attribution.text import attribution_section
from nvaudit.report.cases import deciding_point, ended_text, verdict_word
from nvaudit.report.crossbar_text import crossbar_section
from nvaudit.report.gates import GateResult
from nvaudit.report.groups import zero_groups_section
from nvaudit.report.histogram import Marker, bin_values, histogram_lines
from nvaudit.report.inspection import mapping_section, render_inspect
from nvaudit.report.mapped_text import share_gate_lines, share_warning_lines
from nvaudit.report.provenance import provenance
from nvaudit.report.rerun import remedy_command
from nvaudit.report.result import AuditReport, SweepPoint, TrialSummary
from nvaudit.report.steps import noiseless_steps
from nvaudit.report.tail_text import tail_lines
from nvaudit.report.terminal import Kind, heading, sentence, show, table
from nvaudit.report.wording import (
    confidence_text,
    count_text,
    difference_text,
    interval_text,
    kpp_name,
    limit_text,
    missing_bound_text,
    reach_text,
    share_text,
    value_text,
)
from nvaudit.stats.gate import Verdict

__all__ = ["render_inspect", "render_text"]

_STYLE: dict[Verdict, str] = {"pass": "bold green", "fail": "bold red", "undecided": "bold yellow"}
_MAX_COLUMNS = 64
_MAX_ROWS = 12


def render_text(report: AuditReport, console: Console) -> None:
    """Print a report for a person; the first line is the headline.

    Parameters
    ----------
    report : AuditReport
    console : rich.console.Console
        Nothing is cut at any width; colour never carries meaning by itself; a console that cannot encode
        Unicode gets ASCII.
    """
    width = console.width
    show(
        console,
        [
            sentence(report.headline, width, style="bold"),
            *share_warning_lines(report.mapped, width),
            *_verdict(report, width),
            *_numbers(report, width),
            *_chips(report, width),
            *_sweep(report, width),
            *_attribution(report, width),
            *mapping_section(report.tensors, width, report.mapped),
            *zero_groups_section(report.zero_groups, width),
            *crossbar_section(report.crossbar, width),
            *provenance(report, width),
        ],
    )


def _verdict(report: AuditReport, width: int) -> Iterable[Text]:
    info = report.metric_info
    side = "below" if info.higher_is_better else "above"
    ended = ended_text(report)
    if ended is not None:
        word = "INTERRUPTED  " if report.interrupted is not None else ""
        line = sentence(f"{word}{ended}", width, hanging="  ")
        line.stylize("bold yellow", 0, len(word))
        yield Text()
        yield line
    for where, gate in _gates_to_show(report):
        word = verdict_word(gate, report)
        question = (
            f"{word}  at most {gate.percentile:g} % of chips may be {side} "
            f"{limit_text(gate.threshold, info.unit)} ({confidence_text(gate.confidence)} confidence){where}"
        )
        line = sentence(question, width, hanging="  ")
        line.stylize(_STYLE[gate.verdict], 0, len(word))
        yield Text()
        yield line
        yield sentence(gate.reason, width, "  ")
        if gate.needed:
            yield sentence(f"To decide: {gate.needed}.", width, "  ")
    yield from share_gate_lines(report.mapped_gate, report.mapped, width)
    remedy = remedy_command(report)
    if remedy is not None:
        yield sentence(f"Try first, in a minute and without training: {remedy}", width, "  ")


def _gates_to_show(report: AuditReport) -> list[tuple[str, GateResult]]:
    """Gates to spell out: all, but of a sweep those of the point that settles the verdict."""
    point = deciding_point(report)
    if point is None:
        return []
    where = f" at σ = {point.sigma:g} {point.sigma_unit}; the sweep below has every σ" if report.sweep else ""
    return [(where, gate) for gate in point.gate]


def _numbers(report: AuditReport, width: int) -> Iterable[Text]:
    info, trials = report.metric_info, report.trials
    unit = info.unit
    better = "higher is better" if info.higher_is_better else "lower is better"
    rows = [
        *((step.name, value_text(step.value, unit), step.cause) for step in noiseless_steps(report)),
        ("noisy", _mean_text(trials, unit), _trials_text(trials)),
    ]
    for result in report.kpp:
        interval = interval_text(result.low, result.high, unit)
        note = f"{interval}, {confidence_text(result.confidence)} confidence"
        if result.width:
            note += f"; exact within {difference_text(result.width, unit).lstrip('+')}"
        rows.append((kpp_name(result.percentile), value_text(result.value, unit), note))
    measure = better if unit == "fraction" else f"{better}, {unit}"
    yield heading(f"{report.metric} ({measure}){_at(report)}", width)
    yield table([("", "left"), ("", "right"), ("", "fold")], rows, width, "  ")
    for text in _caveats(report):
        yield sentence(text, width, "  ", "    ")


def _at(report: AuditReport) -> str:
    """Of a sweep, say which point stands at the top."""
    point = report.operating_point
    return f" at σ = {point.sigma:g} {point.sigma_unit}" if report.sweep else ""


def _caveats(report: AuditReport) -> Iterable[str]:
    info, data = report.metric_info, report.data
    missing = (missing_bound_text(result, info.higher_is_better) for result in report.kpp)
    yield from filter(None, missing)
    for item in report.yields:
        reach = reach_text(item.direction)
        yield (
            f"Yield: {share_text(item.share)} of the chips {reach} {limit_text(item.threshold, info.unit)} "
            f"[{share_text(item.low)}, {share_text(item.high)}], "
            f"{confidence_text(item.confidence)} confidence"
        )
    for tail in report.tail:
        yield from tail_lines(tail, info.unit)
    if data.standard_error is not None:
        yield (
            f"The evaluation set is finite too: the standard error of the ideal {report.metric} on "
            f"{count_text(data.count, 'image')} is {value_text(data.standard_error, info.unit)}; "
            "the intervals above do not contain it."
        )


def _mean_text(trials: TrialSummary, unit: str) -> str:
    if trials.count == 1:
        return value_text(trials.mean, unit)
    if unit == "fraction":
        return f"{100 * trials.mean:.2f} ± {value_text(trials.std, unit)}"
    return f"{value_text(trials.mean, unit)} ± {trials.std:.2g}"


def _trials_text(trials: TrialSummary) -> str:
    return "the only chip" if trials.count == 1 else f"mean ± std of {count_text(trials.count, 'chip')}"


def _chips(report: AuditReport, width: int) -> Iterable[Text]:
    unit = report.metric_info.unit
    every = np.asarray(report.trials.values, dtype=np.float64)  # null becomes NaN
    values = every[np.isfinite(every)]
    weights = None
    if report.trials.weights is not None:
        weights = np.asarray(report.trials.weights)[np.isfinite(every)]
    lowest, highest = float(values.min()), float(values.max())
    yield heading(f"{report.metric} of {count_text(every.size, 'chip')}", width)
    if lowest == highest:
        each = "The chip has" if values.size == 1 else "All chips have the same value,"
        yield sentence(f"{each} {value_text(lowest, unit)}.", width, "  ")
        return
    columns = max(10, min(_MAX_COLUMNS, width - 4))
    markers = [Marker(k.value, f"{kpp_name(k.percentile)}  {value_text(k.value, unit)}") for k in report.kpp]
    thresholds = dict.fromkeys([*(g.threshold for g in report.gate), *(y.threshold for y in report.yields)])
    markers += [Marker(value, f"threshold  {limit_text(value, unit)}") for value in thresholds]
    # A threshold far away must not squeeze the chips into one column.
    near = highest - lowest
    shown = [m.value for m in markers if lowest - near <= m.value <= highest + near]
    bins = bin_values(values, columns, _resolution(values, report), shown, weights)
    ends = (value_text(min([lowest, *shown]), unit), value_text(max([highest, *shown]), unit))
    lines = histogram_lines(bins, markers, ends, columns)
    yield Text("\n".join("  " + line for line in lines))
    race = report.trials.race
    if race is not None:
        stopped = f"{race.stopped:,} chips were stopped early: they surely do not matter for the KPP."
        yield sentence(
            f"{stopped} Where they lie the picture is drawn from {count_text(race.pilots, 'chip')} run on "
            "every image.",
            width,
            "  ",
        )


def _resolution(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], report: AuditReport) -> float:
    """Find the step of an accuracy over n images, 0 where the values are not such multiples."""
    count = report.data.count
    if report.metric_info.unit != "fraction" or not bool(((values >= 0) & (values <= 1)).all()):
        return 0.0
    steps = values * count
    return 1 / count if np.allclose(steps, np.rint(steps), rtol=0, atol=1e-6) else 0.0


def _sweep(report: AuditReport, width: int) -> Iterable[Text]:
    if not report.sweep:
        return
    first = report.sweep[0]
    columns: list[tuple[str, Kind]] = [("σ", "right"), ("mean ± std", "right"), ("KPP", "left")]
    columns += [("value", "right"), ("interval", "fold")]
    columns += [(f"yield {limit_text(y.threshold, report.metric_info.unit)}", "right") for y in first.yields]
    columns += [("verdict", "left")] if any(point.gate for point in report.sweep) else []
    rows = [row for point in report.sweep for row in _sweep_rows(point, report.metric_info.unit)]
    yield heading(f"Sweep (σ in {first.sigma_unit}, the same chips at every σ)", width)
    yield table(columns, [row[: len(columns)] for row in rows], width, "  ")


def _sweep_rows(point: SweepPoint, unit: str) -> Iterable[list[str]]:
    """Give a row for each percentile; what belongs to all of them is said once."""
    verdicts = {gate.percentile: gate.verdict for gate in point.gate}
    for index, result in enumerate(point.kpp):
        row = [
            f"{point.sigma:g}",
            _mean_text(point.trials, unit),
            f"{result.percentile:.10g} %",
            value_text(result.value, unit),
            interval_text(result.low, result.high, unit),
            *(share_text(item.share) for item in point.yields),
        ]
        if index:
            row[:2], row[5:] = ["", ""], [""] * len(point.yields)
        yield [*row, verdicts.get(result.percentile, "")]


def _attribution(report: AuditReport, width: int) -> Iterable[Text]:
    if report.attribution_detail is not None:
        yield from attribution_section(report.attribution_detail, report.metric_info, width)
        return
    if not report.attribution:
        return
    costs = sorted(report.attribution.items(), key=lambda item: -abs(item[1]))
    unit = report.metric_info.unit
    rows = [(name, difference_text(cost, unit)) for name, cost in costs[:_MAX_ROWS]]
    if len(costs) > _MAX_ROWS:
        rows.append((f"… and {len(costs) - _MAX_ROWS} smaller ones", "in the JSON report"))
    yield heading("KPP cost of each by itself", width)
    yield table([("", "fold"), ("", "right")], rows, width, "  ")

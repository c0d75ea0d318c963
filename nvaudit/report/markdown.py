"""The audit as Markdown: the summary of a GitHub Actions step, a comment on a change, a wiki page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nvaudit.report.cases import Case, cases_of, deciding_point, ended_text, question_text, verdict_word
from nvaudit.report.inspection import digital_reasons, mapped_text
from nvaudit.report.mapped import coverage_text, gate_lines, off_columns, off_rows, share_warning
from nvaudit.report.rerun import remedy_command, rerun_command
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import runtime_text
from nvaudit.report.steps import noiseless_steps
from nvaudit.report.wording import (
    clean,
    confidence_text,
    count_text,
    difference_text,
    interval_text,
    kpp_name,
    limit_text,
    missing_bound_text,
    roughness_text,
    shape_text,
    share_text,
    value_text,
)

_SIGN = {"pass": "✅ ", "fail": "❌ ", "undecided": "⚠️ "}
_MOST_ROWS = 100
"""Of a table: GitHub takes a mebibyte for a step."""
_LONGEST = 200
"""Characters of a name or a note."""


def render_markdown(report: AuditReport) -> str:
    """Write an audit as GitHub-flavoured Markdown.

    Parameters
    ----------
    report : AuditReport

    Returns
    -------
    str
        Without a final newline. Text from files is literal: no name can become markup, a link or a cell.
    """
    parts = [
        f"## {_SIGN.get(_sign_of(report), '')}{literal(report.headline)}",
        *_ended(report),
        *_warning(report),
        *_verdicts(report),
        *_remedy(report),
        _numbers(report),
        *_caveats(report),
        *_sweep(report),
        *_attribution(report),
        _mapping(report),
        _how(report),
    ]
    return "\n\n".join(parts)


def _warning(report: AuditReport) -> Iterable[str]:
    """What a reader must know before anything else."""
    text = share_warning(report.mapped)
    if text is not None:
        yield f"> ⚠️ **Warning:** {literal(text, None)}"


def literal(text: str, longest: int | None = _LONGEST) -> str:
    """Make text from outside mean itself, in a paragraph, a table cell and within HTML; cut if it is long.

    Examples
    --------
    >>> literal("a|b <i> `c`")
    'a&#124;b &#60;i&#62; &#96;c&#96;'
    """
    shown = clean(text)
    if longest is not None and len(shown) > longest:
        shown = f"{shown[: longest - 1]}…"
    # Entities never open markup. A colon or a full stop would only after "http" or "www".
    shown = re.sub(r"[!\"#$&'*<>@\[\\\]^_`{|}~]", lambda match: f"&#{ord(match[0])};", shown)
    return re.sub(r"(?i)(?<=\b(?:www))\.|:(?=//)", lambda match: f"&#{ord(match[0])};", shown)


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; columns are (heading, ``left`` or ``right``), cells are Markdown."""
    rule = {"left": "---", "right": "---:"}
    lines = [
        _row([heading for heading, _ in columns]),
        _row([rule[side] for _, side in columns]),
        *(_row(row) for row in rows),
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shortened(rows: Sequence[Sequence[str]], columns: int) -> list[Sequence[str]]:
    """Keep as many rows as a summary can hold, and say how many are missing."""
    if len(rows) <= _MOST_ROWS:
        return list(rows)
    rest = f"… and {len(rows) - _MOST_ROWS:,} more, in report.json"
    return [*rows[:_MOST_ROWS], [rest, *[""] * (columns - 1)]]


def _sign_of(report: AuditReport) -> str:
    return "undecided" if report.interrupted is not None else report.verdict or ""


def _ended(report: AuditReport) -> Iterable[str]:
    """Say that a run was ended early."""
    text, cut = ended_text(report, command=False), report.interrupted
    if text is not None:
        yield f"**INTERRUPTED**: {literal(text)}." if cut is not None else f"{literal(text)}."
    if cut is not None and cut.command is not None:
        yield f"To go on:\n\n{_fenced(cut.command)}"


def _verdicts(report: AuditReport) -> Iterable[str]:
    """Spell out the gates; of a sweep those of the point that settles the verdict."""
    point = deciding_point(report)
    gated = [case for case in cases_of(report) if case.gate is not None]
    if report.sweep:
        gated = [case for case in gated if case.point is point]
    for case in gated[:_MOST_ROWS]:
        yield _verdict(case, report)
    for text in gate_lines(report.mapped_gate, report.mapped):
        word, colon, rest = text.partition(": ")
        yield f"**{word}**{colon}{literal(rest, None)}"


def _verdict(case: Case, report: AuditReport) -> str:
    gate = case.gate
    assert gate is not None
    where = f" at σ = {case.point.sigma:g} {literal(case.point.sigma_unit)}" if report.sweep else ""
    text = (
        f"**{verdict_word(gate, report)}**{where}: {question_text(gate, report.metric_info)}. {gate.reason}."
    )
    return f"{text}\\\n**To decide:** {gate.needed}." if gate.needed else text


def _remedy(report: AuditReport) -> Iterable[str]:
    command = remedy_command(report)
    if command is not None:
        yield f"**Try first**, in a minute and without training:\n\n{_fenced(command)}"


def _numbers(report: AuditReport) -> str:
    info, trials = report.metric_info, report.trials
    unit = info.unit
    chips = count_text(trials.count, "chip")
    spread = f", std {difference_text(trials.std, unit).lstrip('+')}" if trials.count > 1 else ""
    rows = [
        *([step.name, value_text(step.value, unit), step.cause] for step in noiseless_steps(report)),
        ["noisy, mean", value_text(trials.mean, unit), f"{chips}{spread}"],
    ]
    for kpp in report.kpp:
        interval = f"{interval_text(kpp.low, kpp.high, unit)}, {confidence_text(kpp.confidence)} confidence"
        if kpp.width:
            interval += f"; exact within {difference_text(kpp.width, unit).lstrip('+')}"
        rows.append([f"**{kpp_name(kpp.percentile)}**", f"**{value_text(kpp.value, unit)}**", interval])
    for item in report.yields:
        side = "at least" if item.direction == "at_least" else "at most"
        interval = f"[{share_text(item.low)}, {share_text(item.high)}]"
        name = f"yield, {side} {limit_text(item.threshold, unit)}"
        rows.append(
            [name, share_text(item.share), f"{interval}, {confidence_text(item.confidence)} confidence"]
        )
    rows += [*_tails(report), *_roughness(report)]
    better = "higher is better" if info.higher_is_better else f"lower is better, {literal(unit)}"
    point = report.operating_point
    where = f" at σ = {point.sigma:g} {literal(point.sigma_unit)}" if report.sweep else ""
    heading = f"{literal(report.metric)} ({better}){where}"
    return table([(heading, "left"), ("", "right"), ("", "left")], rows)


def _tails(report: AuditReport) -> Iterable[list[str]]:
    unit = report.metric_info.unit
    for tail in report.tail:
        name = f"extrapolated {kpp_name(tail.percentile)}"
        if tail.value is None:
            reason = "" if tail.refusal is None else tail.refusal.reason
            yield [name, "refused", literal(reason)]
        else:
            yield [name, value_text(tail.value, unit), interval_text(tail.low, tail.high, unit)]


def _roughness(report: AuditReport) -> Iterable[list[str]]:
    found = report.roughness
    if found is not None:
        pairs = count_text(found.pairs, "direction pair")
        setting = f"span ±{found.span:g}, {found.grid} × {found.grid} points, {pairs}"
        value = roughness_text(found.value, found.standard_error)
        yield ["roughness", value, f"lower is more stable; {setting}"]


def _caveats(report: AuditReport) -> Iterable[str]:
    info, data = report.metric_info, report.data
    lines = [text for kpp in report.kpp if (text := missing_bound_text(kpp, info.higher_is_better))]
    if data.standard_error is not None:
        lines.append(
            f"Standard error of the ideal value on {count_text(data.count, 'sample')}: "
            f"{value_text(data.standard_error, info.unit)}; the intervals do not contain it."
        )
    lines += [literal(text) for text in (*report.events, *report.notes)]
    if lines:
        yield "\n".join(f"- {line}" for line in lines[:_MOST_ROWS])


def _sweep(report: AuditReport) -> Iterable[str]:
    if not report.sweep:
        return
    unit, first = report.metric_info.unit, report.sweep[0]
    columns = [(f"σ, {literal(first.sigma_unit)}", "right"), ("mean", "right"), ("KPP", "left")]
    columns += [("value", "right"), ("interval", "left")]
    columns += [(f"yield {limit_text(item.threshold, unit)}", "right") for item in first.yields]
    gated = any(point.gate for point in report.sweep)
    columns += [("verdict", "left")] if gated else []
    cases = cases_of(report)
    rows = [_sweep_row(case, unit)[: len(columns)] for case in cases]
    yield "### Sweep\n\nThe same chips at every σ.\n\n" + table(columns, _shortened(rows, len(columns)))


def _sweep_row(case: Case, unit: str) -> list[str]:
    kpp, point = case.kpp, case.point
    verdict = "" if case.gate is None else f"{_SIGN[case.gate.verdict]}{case.gate.verdict}"
    return [
        f"{point.sigma:g}",
        value_text(point.trials.mean, unit),
        f"{kpp.percentile:.10g} %",
        value_text(kpp.value, unit),
        interval_text(kpp.low, kpp.high, unit),
        *(share_text(item.share) for item in point.yields),
        verdict,
    ]


def _attribution(report: AuditReport) -> Iterable[str]:
    """Say which tensors and terms cost most."""
    costs = sorted((report.attribution or {}).items(), key=lambda item: -item[1])
    if not costs:
        return
    unit = report.metric_info.unit
    rows = [[_code(name), difference_text(cost, unit)] for name, cost in costs]
    kpp = kpp_name(report.kpp[0].percentile)
    yield _details(
        f"What each tensor and noise term costs ({kpp})",
        table([("", "left"), ("given back where it alone is ideal", "right")], _shortened(rows, 2)),
    )


def _code(name: str) -> str:
    return f"<code>{literal(name)}</code>"


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def _mapping(report: AuditReport) -> str:
    tensors = report.tensors
    mapped = [row for row in tensors if row.decision == "mapped"]
    columns = [("tensor", "left"), ("op", "left"), ("shape", "left"), ("bits", "right"), ("slices", "right")]
    rows = [
        [
            _code(row.name),
            literal(row.op or ""),
            shape_text(row.shape),
            *("" if number is None else str(number) for number in (row.bits, row.slices)),
        ]
        for row in mapped
    ]
    body = table(columns, _shortened(rows, len(columns))) if rows else "Nothing is on the array."
    if report.mapped is not None:
        body = f"{literal(coverage_text(report.mapped), None)}.\n\n{body}"
    if off := [[literal(cell) for cell in row] for row in off_rows(report.mapped, _MOST_ROWS)]:
        sides = ("left", "right", "right", "left")
        body += f"\n\n{table(list(zip(off_columns(), sides, strict=True)), off)}"
    reasons = digital_reasons(tensors)
    count = count_text(sum(number for _, number in reasons), "tensor")
    if reasons:
        why = _shortened([[f"{number:,}", literal(reason)] for reason, number in reasons], 2)
        body += f"\n\nStays digital: {count}\n\n{table([('', 'right'), ('why', 'left')], why)}"
    return _details(f"{mapped_text(tensors)}; {count} digital", body)


def _how(report: AuditReport) -> str:
    command = _fenced(rerun_command(report))
    point, data, hashes = report.operating_point, report.data, report.hashes
    rows = [
        ["nvaudit", literal(report.nvaudit_version), ""],
        ["model", _code(report.model.path), f"<code>{literal(hashes.model)}</code>"],
        ["data", f"{_code(data.source)}, {count_text(data.count, 'sample')}", _code(hashes.data)],
        [
            "device",
            f"{_code(str(report.device.get('name', '')))}, σ = {point.sigma:g} {literal(point.sigma_unit)}",
            _code(hashes.device),
        ],
    ]
    rows += [["run on", literal(line.removeprefix("Run on: ")), ""] for line in runtime_text(report.runtime)]
    seconds = report.timing.get("total")
    if seconds is not None:
        rows.append(["time", f"{seconds:.3g} s", ""])
    body = table([("", "left"), ("", "left"), ("SHA-256", "left")], rows)
    return _details("How to run it again", f"{command}\n\n{body}")


def _fenced(command: str) -> str:
    """A command as a block of its own."""
    longest = max((len(run) for run in re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{command}\n{fence}"

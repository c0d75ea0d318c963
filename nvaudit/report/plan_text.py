"""A plan as text for a person."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from nvaudit.report.plan import MOST_TRIALS, Need, PercentilePlan, Plan
from nvaudit.report.terminal import Kind, heading, sentence, show, table
from nvaudit.report.wording import confidence_text, count_text, kpp_name, value_text

_COLUMNS: list[tuple[str, Kind]] = [
    ("for", "fold"),
    ("chips", "right"),
    ("images", "right"),
    ("time", "right"),
]
_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def render_plan(plan: Plan, console: Console) -> None:
    """Print a plan; the first line says that nothing was audited.

    Parameters
    ----------
    plan : Plan
    console : rich.console.Console
        As in :func:`nvaudit.report.text.render_text`.
    """
    width = console.width
    parts = [sentence(_headline(plan), width, style="bold")]
    for item in plan.percentiles:
        parts += _percentile(plan, item, width)
    parts += [Text(), *(sentence(line, width, "", "  ") for line in _small_print(plan))]
    show(console, parts)


def _headline(plan: Plan) -> str:
    free = "LABEL-FREE " if plan.label_free else ""
    sweep = f" at each of {plan.points} sigmas" if plan.points > 1 else ""
    return (
        f"{free}PLAN (nothing was audited): {plan.metric} on {plan.device}, "
        f"{count_text(plan.trials, 'chip')}{sweep}, {count_text(plan.images, 'image')}"
    )


def _percentile(plan: Plan, item: PercentilePlan, width: int) -> Iterable[Text]:
    yield heading(f"{kpp_name(item.percentile)}, {confidence_text(plan.confidence)} confidence", width)
    yield sentence(f"{count_text(plan.trials, 'chip')}: {_interval(item)}.", width, "  ", "    ")
    yield sentence(f"{count_text(plan.trials, 'chip')}: {_gate(item, plan.trials)}.", width, "  ", "    ")
    yield Text()
    rows = [_row("this run", plan.given), _row("an interval with a bound on the worst side", item.interval)]
    for gate in item.gates:
        rows.append(_row(f"a gate that passes with {count_text(gate.failures, 'failing chip')}", gate.need))
    yield table(_COLUMNS, rows, width, "  ")


def _interval(item: PercentilePlan) -> str:
    ends = [
        f"no bound on the {side} side" if rank is None else _ordinal(rank)
        for rank, side in ((item.worst_rank, "worst"), (item.best_rank, "best"))
    ]
    return f"the KPP is the {_ordinal(item.rank)} chip, its interval is [{ends[0]}, {ends[1]}]"


def _ordinal(rank: int) -> str:
    ending = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return "worst" if rank == 1 else f"{rank:,}{ending} worst"


def _gate(item: PercentilePlan, trials: int) -> str:
    most, fewest = item.gate_passes_up_to, item.gate_fails_from
    if most is None and fewest is None:
        return "a gate is always undecided"
    passes, fails = "a gate cannot pass", "cannot fail"
    if most is not None:
        passes = f"a gate passes with at most {count_text(most, 'failing chip')}"
    if fewest is not None:
        fails = f"fails with {fewest:,}{' or more' if fewest < trials else ''}"
    return f"{passes}, {fails}, and is undecided otherwise"


def _row(label: str, need: Need) -> list[str]:
    if need.trials is None or need.images is None or need.seconds is None:
        return [label, f"more than {MOST_TRIALS:,}", "", ""]
    return [label, f"{need.trials:,}", f"{need.images:,}", about(need.seconds)]


def _small_print(plan: Plan) -> Iterable[str]:
    timing = plan.timing
    where = count_text(timing.workers, "worker") if timing.workers else "this process"
    yield (
        f"Times are estimated from {count_text(timing.chips, 'chip')} run with {where}: "
        f"{_pace(timing.seconds_per_chip)} a chip, and {timing.seconds_before_chips:.2g} s before the first."
    )
    yield (
        "Images and times are those of every chip on every image (--exhaustive). With many images chips stop "
        "as soon as they surely do not matter, which mostly leaves a tenth to a quarter of both."
    )
    for item in plan.percentiles:
        if item.gate_draws is not None:
            yield (
                f"The figures of a gate are for a fixed number of chips (--all-trials). By default it draws "
                f"chips until it is decided: {item.gate_draws:,} if none fails, fewer if many do"
                f"{'' if len(plan.percentiles) == 1 else f' ({kpp_name(item.percentile)})'}."
            )
    if plan.points > 1:
        yield f"Images and times are those of all {plan.points} sigmas together."
    if plan.standard_error is not None:
        yield (
            f"The evaluation set is finite too: the standard error of the ideal {plan.metric}, "
            f"{value_text(plan.nominal, plan.unit)}, on {count_text(plan.images, 'image')} is "
            f"{value_text(plan.standard_error, plan.unit)}; more chips do not make it smaller."
        )


def _pace(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{1e3 * seconds:.3g} ms"


def about(seconds: float) -> str:
    """Show an estimated time, rounded up to the two units that matter.

    Examples
    --------
    >>> about(0.2), about(75), about(7260), about(200_000)
    ('1 s', '1 min 15 s', '2 h 1 min', '2 d 8 h')
    """
    for (unit, size), (minor, step) in itertools.pairwise(_UNITS):
        steps = math.ceil(seconds / step)
        if steps >= size // step:
            whole, rest = divmod(steps, size // step)
            return f"{whole} {unit} {rest} {minor}" if rest else f"{whole} {unit}"
    return f"{math.ceil(seconds)} s"

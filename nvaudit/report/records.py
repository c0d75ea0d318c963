"""What programs read of a report: its tables as records, for CSV, and its questions as checks, for JUnit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel

from nvaudit.report.mapped import MappedGate, MappedShare, coverage_text, gate_lines, gate_name
from nvaudit.stats.gate import Verdict
from nvaudit.stats.kpp import KppResult, YieldResult

RecordValue: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True)
class Records:
    """A table; every row has a cell for each column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[RecordValue, ...], ...]


Tables: TypeAlias = Mapping[str, Records]
"""The tables of a report by name, its main one first."""


def records_of(rows: Iterable[Mapping[str, RecordValue]]) -> Records:
    """Line rows up under the columns that any of them has, in the order of their first appearance.

    Examples
    --------
    >>> records_of([{"a": 1}, {"a": 2, "b": 3}])
    Records(columns=('a', 'b'), rows=((1, None), (2, 3)))
    """
    rows = list(rows)
    named = dict.fromkeys(name for row in rows for name in row)
    # A part that only some rows have is one empty cell in the others, and columns of its own in these.
    parts = {name for name in named if any(other.startswith(f"{name}_") for other in named)}
    empty = {name for name in parts if all(row.get(name) is None for row in rows)}
    columns = tuple(name for name in named if name not in empty)
    return Records(columns, tuple(tuple(row.get(name) for name in columns) for row in rows))


def flat(item: BaseModel, without: Sequence[str] = ()) -> dict[str, RecordValue]:
    """Give the numbers and words of a part of a report as one row.

    Parts of a part get its name before theirs; a KPP is ``kpp_1`` with ``_low`` and ``_high``, a yield
    ``yield_0.9`` likewise. A shape is written ``3x3``, words in a list are joined by semicolons. Lists of
    numbers and of parts have no place in a row and are left out, as are tables of options.
    """
    return dict(_cells(item, "", frozenset(without)))


def _cells(item: BaseModel, prefix: str, without: frozenset[str]) -> Iterator[tuple[str, RecordValue]]:
    for name in type(item).model_fields:
        if name not in without:
            yield from _cell(f"{prefix}{name}", getattr(item, name))


def _cell(name: str, value: Any) -> Iterator[tuple[str, RecordValue]]:
    if value is None or isinstance(value, str | int | float):
        yield name, value
    elif isinstance(value, KppResult):
        yield from _interval(f"{name}_{value.percentile:.10g}", value.value, value)
    elif isinstance(value, YieldResult):
        yield from _interval(f"{name}_{value.threshold:.10g}", value.share, value)
    elif isinstance(value, BaseModel):
        yield from _cells(value, f"{name}_", frozenset())
    elif isinstance(value, tuple) and value:
        if isinstance(value[0], KppResult | YieldResult):
            for one in value:
                yield from _cell(name.removesuffix("s"), one)
        elif name.endswith("shape"):
            yield name, "x".join(map(str, value))
        elif all(isinstance(one, str) for one in value):
            yield name, "; ".join(value)


def _interval(name: str, value: float, result: KppResult | YieldResult) -> Iterator[tuple[str, RecordValue]]:
    yield name, value
    yield f"{name}_low", result.low
    yield f"{name}_high", result.high


@dataclass(frozen=True)
class Check:
    """A question with its answer: a test case on a build server.

    Attributes
    ----------
    name : str
        The same in every run with the same options.
    verdict : {"pass", "fail", "undecided", "skipped", "interrupted"} or None
        None: nothing was demanded, the numbers are only recorded. Skipped: it does not hold, and need not,
        since another candidate is the result.
    lines : tuple of str
        The answer in words; where there is a verdict the first line says it with its reason.
    message : str
        What lists of test cases show where it does not hold; empty: the first line.
    subject : tuple of str
        What is asked, such as model and device, where that is not what the whole report is of.
    seconds : float or None
        That its answer took; None where only the time of the whole report is known.
    """

    name: str
    verdict: Verdict | Literal["skipped", "interrupted"] | None
    lines: tuple[str, ...]
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    message: str = ""
    subject: tuple[str, ...] = ()
    seconds: float | None = None


def share_check(gate: MappedGate, mapped: MappedShare | None) -> Check:
    """Ask for the share of the products that must be on the array."""
    lines = [*gate_lines(gate, mapped), *([] if mapped is None else [coverage_text(mapped)])]
    return Check(gate_name(gate), gate.verdict, tuple(lines))


def number_text(value: float | None) -> str:
    """Write a number exactly, for a place that holds text."""
    return "none" if value is None else repr(value)

"""Tables and checks of every kind of report, as CSV and JUnit."""

import csv
import fnmatch
import io
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from junitparser import JUnitXml
from test_junit import wrong_places

from nvaudit.errors import OptionError
from nvaudit.report.comparison.result import checks
from nvaudit.report.gates import GateResult
from nvaudit.report.kinds import KINDS, csv_of, junit_of, read_any
from nvaudit.report.records import flat, records_of
from nvaudit.report.sections import ReportPart

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/report.json"))
ASKS = {kind.name for kind in KINDS} - {
    *("landscape", "plan", "device", "devices", "cost", "technology", "technologies"),
    *("calibrate", "config", "fit"),
}


def golden(case):
    """The kind and the report of a golden case."""
    return read_any((GOLDEN / case / "report.json").read_text(encoding="utf-8"), case)


def tables_of(kind, report):
    return kind.records.tables(report)


@pytest.mark.parametrize("case", CASES)
def test_every_table(case):
    """Each has the name that its command offers, and a CSV reader finds the same cells in it."""
    kind, report = golden(case)
    tables = tables_of(kind, report)
    assert list(tables) == [name for name in kind.tables if name in tables]
    assert next(iter(tables)) == kind.tables[0]
    for name, table in tables.items():
        assert len(set(table.columns)) == len(table.columns)
        rows = list(csv.DictReader(io.StringIO(csv_of(report, name))))
        assert len(rows) == len(table.rows)
        for row, cells in zip(rows, table.rows, strict=True):
            for column, cell in zip(table.columns, cells, strict=True):
                if isinstance(cell, float):
                    assert float(row[column]) == cell
                elif cell is None:
                    assert row[column] == ""


def test_every_table_that_is_offered_exists_somewhere():
    """No kind offers the name of a table that none of the golden reports has."""
    found: dict[str, set[str]] = {kind.name: set() for kind in KINDS}
    for case in CASES:
        kind, report = golden(case)
        found[kind.name] |= set(tables_of(kind, report))
    written = {
        "inspect",
        "device",
        "devices",
        "technology",
        "technologies",
    }  # as commands among the golden cases
    found["cost"].add("measured_chips")  # of chips that were read back: tests of `nvaudit cost --chip`
    assert found == {kind.name: set() if kind.name in written else set(kind.tables) for kind in KINDS}


def test_a_table_that_is_not_there():
    """An audit without an attribution has no table of it; the error names those that there are."""
    _, report = golden("audit_plain")
    with pytest.raises(
        OptionError, match="'attribution_terms': this report has points, chips, tensors; name"
    ):
        csv_of(report, "attribution_terms")


def test_the_chips_of_a_sweep_are_all_there():
    """A row for each chip at each sigma, with its value as the report has it."""
    _, report = golden("audit_sweep")
    rows = list(csv.DictReader(io.StringIO(csv_of(report, "chips"))))
    for point in report.sweep:
        mine = [row["value"] for row in rows if float(row["sigma"]) == point.sigma]
        assert [float(value) if value else None for value in mine] == list(point.trials.values)
    assert len(rows) == sum(point.trials.count for point in report.sweep)


@pytest.mark.parametrize("case", CASES)
def test_every_kind_as_junit(case):
    """Valid, with a name of its own for each case; what asks nothing of the chips is refused."""
    kind, report = golden(case)
    if kind.name not in ASKS:
        with pytest.raises(OptionError, match=f"--junit: a report of {kind.command} asks nothing"):
            junit_of(report)
        return
    text = junit_of(report).encode()
    assert wrong_places(ET.fromstring(text)) == []
    (suite,) = JUnitXml.fromstring(text)
    names = [case.name for case in suite]
    assert suite.name == kind.command
    assert len(set(names)) == len(names) == suite.tests


def test_a_target_that_no_share_reaches_is_a_failure():
    """As the exit code of verify-plan says."""
    _, report = golden("write_verify")
    missed = report.model_copy(update={"choice": None, "target": 0.999})
    (suite,) = JUnitXml.fromstring(junit_of(missed).encode())
    assert (suite.tests, suite.failures) == (1, 1)
    (case,) = suite
    assert case.name == "KPP 1 % of top1 with write-verify at least 99.9 %"
    assert case.result[0].message == "FAIL: no share that was tried reaches it"


def gate(verdict):
    return GateResult(
        threshold=0.9, percentile=1.0, confidence=0.95, verdict=verdict, failures=0, trials=40,
        failure_low=0.0, failure_high=0.1, reason="0 of 40 chips", needed=None, sequential=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "whole", "found"),
    [
        (("pass", "fail"), "pass", ["pass", "skipped"]),
        (("fail", "undecided"), "undecided", ["fail", "undecided"]),
        (("pass", "pass"), "pass", ["pass", "pass"]),
    ],
)
def test_a_model_that_fails_beside_one_that_passes_is_skipped(verdicts, whole, found):
    """The gate of a comparison is that a model passes: the exit code is 0 then, and no case fails."""
    _, report = golden("compare")
    models = tuple(
        model.model_copy(update={"gate": (gate(verdict),), "verdict": verdict})
        for model, verdict in zip(report.models, verdicts, strict=True)
    )
    report = report.model_copy(update={"models": models, "verdict": whole})
    assert [check.verdict for check in checks(report)] == found
    (suite,) = JUnitXml.fromstring(junit_of(report).encode())
    assert suite.skipped == found.count("skipped")
    assert suite.failures == sum(verdict in ("fail", "undecided") for verdict in found)


class Inner(ReportPart):
    value: float | None


class Outer(ReportPart):
    name: str
    inner: Inner | None
    shape: tuple[int, ...] = ()
    words: tuple[str, ...] = ()
    values: tuple[float, ...] = ()


def test_parts_of_parts_are_columns():
    """A part that only some rows have leaves cells empty, not a column of its own."""
    rows = [
        Outer(name="a", inner=None, shape=(3, 3), words=("x", "y"), values=(1.0,)),
        Outer(name="b", inner=Inner(value=0.5)),
    ]
    found = records_of(flat(row) for row in rows)
    assert found.columns == ("name", "shape", "words", "inner_value")
    assert found.rows == (("a", "3x3", "x; y", None), ("b", None, None, 0.5))


def test_figures_are_those_that_a_kind_offers():
    """Each figure of a golden report has a name that its kind offers, and each that is offered exists."""
    offered = {(kind.name, name) for kind in KINDS for name in kind.figures}
    seen = set()
    for case in CASES:
        kind, report = golden(case)
        for figure in report.figures:
            matching = {(kind.name, name) for name in kind.figures if fnmatch.fnmatchcase(figure, name)}
            assert matching, (case, figure)
            seen |= matching
    # Of commands among the golden cases, and of a training with candidates to choose from.
    assert offered - seen == {("device", "levels"), ("harden", "candidates")}

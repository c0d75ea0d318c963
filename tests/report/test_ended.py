"""A run that was ended early says so in every form, and never passes."""

import io
import xml.etree.ElementTree as ET

import pytest
from pydantic import ValidationError
from report_samples import full_report
from rich.console import Console

from nvaudit.report.cases import ended_text
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import document_of, junit_of, print_report
from nvaudit.report.render.markdown import markdown_document
from nvaudit.report.result import AuditReport, from_json, with_command
from nvaudit.report.sections import Interrupted, TimeBox

COMMAND = "nvaudit audit model.onnx -n 5000"


def cut_off(command: str | None = COMMAND) -> AuditReport:
    report = full_report()
    content = report.model_dump() | {"verdict": None, "interrupted": Interrupted(done=40, wanted=5000)}
    content["headline"] = f"INTERRUPTED: {report.headline}"
    return with_command(AuditReport.model_validate(content), command)


def text_of(report: AuditReport) -> str:
    console = Console(file=io.StringIO(), width=400)
    print_report(report, console)
    return console.file.getvalue()


def test_text_and_markdown_say_it_in_the_verdicts_place():
    """How far it came, how to go on; the gates only say what the chips say so far."""
    report = cut_off()
    text, markdown = text_of(report), markdown_document(document_of(report))
    lines = text.splitlines()
    assert lines[2].startswith("INTERRUPTED  400 chips at σ = 0.2 level spacings")
    assert lines[3].startswith("  40 of 5,000 chips were done")
    assert f"To go on\n  {COMMAND}\n" in text
    assert "SO FAR " in text
    assert "**INTERRUPTED**: 400 chips at σ = 0.2 level spacings\n\n- 40 of 5,000 chips were done" in markdown
    assert f"\n{COMMAND}\n" in markdown
    assert "- SO FAR " in markdown
    assert "To go on" not in text_of(cut_off(None))


def test_the_page_shows_no_verdict():
    """The word at the top is INTERRUPTED, in no colour of a verdict that holds."""
    top = document_of(cut_off()).hero
    assert top.word == "INTERRUPTED"
    assert top.role == "undecided"
    assert top.lines[0].startswith("40 of 5,000 chips were done")


def test_junit_neither_passes_nor_fails():
    """Every case is an error that says how to go on."""
    top = ET.fromstring(junit_of(cut_off()))
    cases = top.findall(".//testcase")
    assert top.get("errors") == str(len(cases))
    assert top.get("failures") == "0"
    for case in cases:
        error = case.find("error")
        assert error.get("type") == "interrupted"
        assert COMMAND in error.get("message")
        assert case.find("failure") is None


def test_a_cut_off_report_has_no_verdict():
    """Read back it is the same; with a verdict it is refused."""
    report = cut_off()
    assert from_json(to_json(report), "report.json") == report
    with pytest.raises(ValidationError, match="of a run that was interrupted; give null"):
        AuditReport.model_validate(report.model_dump() | {"verdict": "pass"})


def test_what_was_cut_off_is_named():
    """Where all chips were done, it is not said that these are what is missing."""
    assert Interrupted(done=40, wanted=40).text == "all 40 chips were done; the notes say what is missing"
    assert Interrupted(done=32, wanted=484, what="rare chip").text == (
        "32 of 484 rare chips were done: there is no estimate of rare chips (--rare); the numbers are of all "
        "other chips"
    )


def test_a_time_box_is_marked():
    """The numbers are the answer, and what they are of is said."""
    content = full_report().model_dump() | {"time_boxed": TimeBox(minutes=1.5, done=40, wanted=5000)}
    report = AuditReport.model_validate(content)
    assert ended_text(report).startswith("Time-boxed: 40 of 5,000 chips were done within 1.5 min")
    assert "Time-boxed: 40 of 5,000 chips" in text_of(report)
    assert "Time-boxed: 40 of 5,000 chips" in markdown_document(document_of(report))
    assert document_of(report).hero.lines[0].startswith("Time-boxed")


def test_a_time_box_says_what_its_estimate_leaves_out():
    """The pace of chips says nothing of rare chips; and where nothing is done there are no numbers."""
    box = TimeBox(
        minutes=1, done=25, wanted=100, whole_minutes=4, uncounted=("the rare chips", "the roughness")
    )
    assert "All would take about 4 min without the rare chips and the roughness, and make" in box.text
    assert TimeBox(minutes=1, done=0, wanted=4, what="point").text == (
        "Time-boxed: none of 4 points was done within 1 min (--max-minutes); give it more time"
    )

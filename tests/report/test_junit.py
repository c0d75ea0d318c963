"""The audit as JUnit XML: valid for the strictest reader, complete for the laxest."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import Failure, JUnitXml
from report_samples import accuracies, full_report, report

from nvaudit.report.cases import case_name, cases_of
from nvaudit.report.check.result import AuditName, NamedAudit, check_report
from nvaudit.report.kinds import junit_of
from nvaudit.report.result import AuditReport
from nvaudit.report.sections import ModelInfo

# What junit-10.xsd of Jenkins' xUnit plugin lets stand where: required and other attributes, children.
SCHEMA = {
    "testsuites": ((), {"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}),
    "testsuite": (
        ("tests",),
        {"name", "failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "package"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": ((), set(), {"property"}),
    "property": (("name", "value"), set(), set()),
    "testcase": (
        ("name",),
        {"time", "timestamp", "classname", "status", "file", "line"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": ((), {"type", "message"}, set()),
    "error": ((), {"type", "message"}, set()),
    "skipped": ((), {"type", "message"}, set()),
    "system-out": ((), set(), set()),
}  # fmt: skip
HOSTILE = "evil\x00\x1b[2J\r\n\x85]]><b a='\"'>&amp;\ufffe\ud800\u202e😀.onnx"


def wrong_places(element: ET.Element) -> list[str]:
    """Everything below an element that the schema does not allow where it stands."""
    required, optional, children = SCHEMA[element.tag]
    wrong = [f"{element.tag} without {name}" for name in required if name not in element.attrib]
    wrong += [f"{element.tag}@{name}" for name in set(element.attrib) - set(required) - optional]
    for child in element:
        wrong += wrong_places(child) if child.tag in children else [f"{element.tag}/{child.tag}"]
    return wrong


def parsed(audit: AuditReport) -> ET.Element:
    """The document, as any XML parser reads its bytes."""
    return ET.fromstring(junit_of(audit).encode("utf-8"))


def verdicts(values: np.ndarray) -> tuple[str, str, list[Failure]]:
    """Verdict of the report, and name and results of its only case in a real consumer."""
    audit = report(values)
    (suite,) = JUnitXml.fromstring(junit_of(audit).encode())
    (case,) = suite
    return audit.verdict, case.name, list(case.result)


AUDITS = {
    "pass": lambda: report(accuracies(300)),
    "fail": lambda: report(np.linspace(0.5, 1, 50)),
    "undecided": lambda: report(np.array([0.95, 0.96])),
    "no gate": lambda: report(gate=(), verdict=None, yields=()),
    "loss": lambda: report(np.linspace(0.1, 0.3, 300), higher=False, unit="nats"),
    "sweep": full_report,
    "hostile": lambda: report(
        headline=HOSTILE,
        model=ModelInfo(path=HOSTILE, opset=17, inputs=(), outputs=(), batching=""),
        metric=HOSTILE,
    ),
}


def test_times_of_several_audits():
    """Each audit's questions share its own seconds; they are not those of all audits by their number."""
    audits = [report(accuracies(300)).model_copy(update={"timing": {"total": s}}) for s in (24.0, 2.5)]
    audits.append(full_report().model_copy(update={"timing": {"total": 6.0}}))
    named = [
        NamedAudit(name=AuditName(model=str(i), device="d", condition=""), gated=True, report=audit)
        for i, audit in enumerate(audits)
    ]
    named.append(named[0].model_copy(update={"report": None, "why_not": "no time"}))
    matrix = check_report(named, interrupted=False, nvaudit_version="1", timing={"total": 44.0})
    cases = ET.fromstring(junit_of(matrix)).iter("testcase")
    seconds: dict[str, float] = {}
    for case in cases:
        seconds[case.attrib["classname"]] = seconds.get(case.attrib["classname"], 0) + float(
            case.attrib["time"]
        )
    assert list(seconds.values()) == pytest.approx([24, 2.5, 6], abs=0.01)


@pytest.mark.parametrize("audit", AUDITS.values(), ids=AUDITS.keys())
def test_fits_the_schema(audit):
    """Every element and attribute is one that Jenkins' schema has in that place, also for hostile names."""
    root = parsed(audit())
    assert root.tag == "testsuites"
    assert wrong_places(root) == []


def test_the_schema_check_can_fail():
    """The check sees an element, an attribute and a missing attribute that do not belong."""
    wrong = "<testsuite><testcase name='a' colour='b'><properties/></testcase></testsuite>"
    found = ["testsuite without tests", "testcase@colour", "testcase/properties"]
    assert wrong_places(ET.fromstring(wrong)) == found


@pytest.mark.parametrize("audit", AUDITS.values(), ids=AUDITS.keys())
def test_counts_agree(audit):
    """A real consumer counts the same tests and failures as the attributes say, and the same time."""
    text = junit_of(audit()).encode()
    stated = JUnitXml.fromstring(text)
    counted = JUnitXml.fromstring(text)
    for suite in counted:
        suite.update_statistics()
    counted.update_statistics()
    assert (stated.tests, stated.failures, stated.errors) == (counted.tests, counted.failures, 0)
    (one,), (other,) = stated, counted
    assert (one.tests, one.failures, one.errors, one.skipped) == (other.tests, other.failures, 0, 0)
    assert one.time == pytest.approx(other.time, abs=0.001 * one.tests)


def test_a_gate_that_holds_is_a_passing_case():
    """The case passes, and its output has the numbers."""
    verdict, name, results = verdicts(accuracies(300))
    assert verdict == "pass"
    assert name == "KPP 1 % of top1 at least 90 %, sigma 0.1 level spacings"
    assert results == []
    (case,) = parsed(report()).iter("testcase")
    out = case.findtext("system-out")
    assert out.splitlines()[0] == report().headline
    assert "PASS: at most 1 % of chips may be below 90 % (95 % confidence): 0 of 300 chips" in out
    assert re.search(r"KPP 1 % 92\.\d\d % \[no bound, 92\.\d\d %\], 95 % confidence, 300 chips", out)


def test_a_gate_that_does_not_hold_is_a_failure_with_its_numbers():
    """Message and text say what was asked, what was found, and how many chips missed it."""
    verdict, _, (failure,) = verdicts(np.linspace(0.5, 1, 50))
    assert (verdict, failure.type) == ("fail", "fail")
    for text in (failure.message, failure.text):
        assert "FAIL: at most 1 % of chips may be below 90 %" in text
        assert "40 of 50 chips are below 0.9" in text
    assert "ideal 97.56 %" in failure.text


def test_undecided_is_a_failure_of_its_own_type():
    """A consumer can tell it from a failure, and both message and text say what would decide it."""
    verdict, _, (failure,) = verdicts(np.array([0.95, 0.96]))
    assert (verdict, failure.type) == ("undecided", "undecided")
    for text in (failure.message, failure.text):
        assert "To decide: 297 more trials without a failure would pass (299 in all)" in text


def test_without_a_gate_the_numbers_are_recorded():
    """One passing case, whose numbers are in the suite's properties to the last digit."""
    audit = report(gate=(), verdict=None, yields=())
    (suite,) = JUnitXml.fromstring(junit_of(audit).encode())
    (case,) = suite
    assert case.is_passed
    assert case.name == "KPP 1 % of top1, sigma 0.1 level spacings"
    properties = {item.name: item.value for item in suite.properties()}
    assert float(properties[f"{case.name}: kpp"]) == audit.kpp[0].value
    assert properties[f"{case.name}: kpp_low"] == "none"
    assert float(properties["nominal"]) == audit.nominal
    assert properties["model_sha256"] == audit.hashes.model
    assert properties["device_sha256"] == audit.hashes.device
    assert properties["data_sha256"] == audit.hashes.data
    assert properties["nvaudit_version"] == audit.nvaudit_version
    assert properties["verdict"] == "none"
    assert f"{case.name}: threshold" not in properties


def test_a_sweep_has_a_case_for_each_percentile_at_each_sigma():
    """The names are all different: GitLab drops cases whose name is there already."""
    audit = full_report()
    (suite,) = JUnitXml.fromstring(junit_of(audit).encode())
    names = [case.name for case in suite]
    assert len(set(names)) == len(names) == 6
    assert names == [case_name(case, audit) for case in cases_of(audit)]
    failed = [case.name for case in suite if case.result]
    assert failed == ["KPP 1 % of top1 at least 90 %, sigma 0.2 level spacings, 1 d after programming"]
    assert {case.classname for case in suite} == {"nvaudit.digits_cnn.fefet1"}


def test_names_do_not_depend_on_what_was_found():
    """A history of the case survives another result: its name has only what was asked."""
    assert verdicts(accuracies(300))[1] == verdicts(np.linspace(0.5, 1, 50))[1]


def test_of_a_loss_the_gate_is_an_upper_bound():
    """Names and messages read right where lower is better."""
    (case,) = parsed(AUDITS["loss"]()).iter("testcase")
    assert case.get("name").startswith("KPP 1 % of cross_entropy at most 0.4, ")
    assert "may be above 0.4" in case.findtext("system-out")


def test_label_free_is_said():
    """A case that compares with the unperturbed model only says so."""
    (case,) = parsed(report(label_free=True)).iter("testcase")
    assert "LABEL-FREE: there were no labels" in case.findtext("system-out")


def test_hostile_names_stay_text():
    """Characters that XML does not know are shown as escapes, and markup is only text."""
    root = parsed(AUDITS["hostile"]())
    model = next(p.get("value") for p in root.iter("property") if p.get("name") == "model")
    assert model == r"evil\x00\x1b[2J\r\n\x85]]><b a='" + '"' + r"'>&amp;\ufffe\ud800\u202e😀.onnx"
    assert len(list(root.iter("testcase"))) == 1
    assert len(list(root.iter("b"))) == 0


@settings(max_examples=30)
@given(st.text())
def test_any_name_gives_xml(name):
    """Whatever a file is called, the document parses and is the same after its line breaks."""
    audit = report(headline=name, model=ModelInfo(path=name, opset=1, inputs=(), outputs=(), batching=""))
    text = junit_of(audit)
    assert ET.fromstring(text.encode("utf-8")).find("testsuite") is not None
    assert junit_of(audit) == text

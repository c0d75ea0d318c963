"""The audit as JUnit XML, for Jenkins, GitLab and everything else that reads test results.

Only elements and attributes of the schema that Jenkins checks against (``junit-10.xsd``) are used. It has no
properties of a test case, so that a case's numbers stand in the suite's properties, under the case's name,
and in the text of the case.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import PurePosixPath

from nvaudit.report.cases import Case, answer_lines, case_name, cases_of, ended_text
from nvaudit.report.mapped import MappedGate, coverage_text, gate_lines, gate_name
from nvaudit.report.result import AuditReport
from nvaudit.report.wording import clean


def render_junit(report: AuditReport) -> str:
    r"""Write an audit as JUnit XML.

    Parameters
    ----------
    report : AuditReport

    Returns
    -------
    str
        One test suite with a test case for each percentile at each sigma, and one for the share of the
        products that must be on the array if that was asked for; without a final newline. A gate
        that does not hold is a failure of type ``fail``, one that could not be decided a failure of type
        ``undecided``; without a gate the cases pass and record the numbers. Of a run that was interrupted
        every case is an error of type ``interrupted``: it says neither. Characters that XML does not
        know are written as escapes such as ``\x1b``.
    """
    cases = cases_of(report)
    cut = report.interrupted is not None
    seconds = report.timing.get("total", sum(report.timing.values()))
    share = report.mapped_gate
    tests = len(cases) + (share is not None)
    failed = 0 if cut else sum(_failed(case) for case in cases)
    failed += share is not None and share.verdict != "pass"  # counted before any chip is drawn
    counts = {
        "tests": str(tests),
        "failures": str(failed),
        "errors": str(len(cases) if cut else 0),
        "time": _time(seconds),
    }
    top = ET.Element("testsuites", {"name": "nvaudit", **counts})
    suite = ET.SubElement(top, "testsuite", {"name": "nvaudit audit", **counts, "skipped": "0"})
    properties = ET.SubElement(suite, "properties")
    for name, value in (*_run_properties(report), *_case_properties(report, cases)):
        ET.SubElement(properties, "property", {"name": clean(name), "value": clean(value)})
    for case in cases:
        suite.append(_testcase(case, report, seconds / tests))
    if share is not None:
        suite.append(_share_case(share, report, seconds / tests))
    ET.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(top, encoding="unicode")


def _failed(case: Case) -> bool:
    return case.gate is not None and case.gate.verdict != "pass"


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"


def _testcase(case: Case, report: AuditReport, seconds: float) -> ET.Element:
    attributes = {
        "classname": _class_name(report),
        "name": clean(case_name(case, report)),
        "time": _time(seconds),
    }
    element = ET.Element("testcase", attributes)
    lines = [clean(line) for line in answer_lines(case, report)]
    text = "\n".join([clean(report.headline), *lines])
    if report.interrupted is not None:
        message = clean(f"INTERRUPTED: {ended_text(report)}")
        ET.SubElement(element, "error", {"type": "interrupted", "message": message}).text = text
    elif case.gate is not None and _failed(case):
        # The message is what lists show; GitLab shows the text alone, so it says all of it again.
        first = f"{lines[0]}. {lines[1]}" if case.gate.needed else lines[0]
        failure = ET.SubElement(element, "failure", {"type": case.gate.verdict, "message": first})
        failure.text = text
    else:
        ET.SubElement(element, "system-out").text = text
    return element


def _share_case(gate: MappedGate, report: AuditReport, seconds: float) -> ET.Element:
    """The gate of the share that is on the array."""
    attributes = {"classname": _class_name(report), "name": gate_name(gate), "time": _time(seconds)}
    element = ET.Element("testcase", attributes)
    lines = [clean(line) for line in gate_lines(gate, report.mapped)]
    lines += [] if report.mapped is None else [clean(coverage_text(report.mapped))]
    text = "\n".join([clean(report.headline), *lines])
    if gate.verdict != "pass":
        ET.SubElement(element, "failure", {"type": gate.verdict, "message": lines[0]}).text = text
    else:
        ET.SubElement(element, "system-out").text = text
    return element


def _class_name(report: AuditReport) -> str:
    """Model and device, dotted as a class is: what stands before the last dot is shown as the package."""
    model = PurePosixPath(report.model.path.replace("\\", "/")).stem
    parts = (model, str(report.device.get("name", "device")))
    return ".".join(["nvaudit", *(clean(part).replace(".", "_") for part in parts)])


def _run_properties(report: AuditReport) -> Iterable[tuple[str, str]]:
    yield "nvaudit_version", report.nvaudit_version
    yield "model", report.model.path
    yield "model_sha256", report.hashes.model
    yield "device", str(report.device.get("name", ""))
    yield "device_sha256", report.hashes.device
    yield "data", report.data.source
    yield "data_sha256", report.hashes.data
    yield "samples", str(report.data.count)
    yield "label_free", str(report.label_free).lower()
    yield "seed", str(report.run.get("seed", ""))
    yield "verdict", report.verdict or "none"
    yield "metric", report.metric
    yield "unit", report.metric_info.unit
    yield "nominal", repr(report.nominal)
    yield "quantised", repr(report.quantised)
    if report.crossbar is not None:
        yield "adc_bits", str(report.crossbar.adc_bits)
        yield "share_of_weights_converted", _number(report.crossbar.share_of_weights)
        yield "not_converted", ", ".join(layer.name for layer in report.crossbar.whole) or "none"
        yield "quantised_ideal", repr(report.crossbar.quantised_ideal)
    if report.mapped is not None:
        yield "share_of_products", _number(report.mapped.share_of_products)
        yield "share_of_weights", _number(report.mapped.share_of_weights)
    if report.roughness is not None:
        yield "roughness", repr(report.roughness.value)
        yield "roughness_standard_error", _number(report.roughness.standard_error)


def _case_properties(report: AuditReport, cases: Iterable[Case]) -> Iterable[tuple[str, str]]:
    for case in cases:
        name, trials, gate = case_name(case, report), case.point.trials, case.gate
        numbers: dict[str, float | None] = {
            "kpp": case.kpp.value,
            "kpp_low": case.kpp.low,
            "kpp_high": case.kpp.high,
            "confidence": case.kpp.confidence,
            "chips": trials.count,
            "mean": trials.mean,
        }
        if gate is not None:
            numbers |= {
                "threshold": gate.threshold,
                "gate_failures": gate.failures,
                "gate_chips": gate.trials,
                "failure_low": gate.failure_low,
                "failure_high": gate.failure_high,
            }
        for key, number in numbers.items():
            yield f"{name}: {key}", _number(number)


def _number(value: float | None) -> str:
    return "none" if value is None else repr(value)

"""The checks of a report as JUnit XML, for Jenkins, GitLab and everything else that reads test results.

Only elements and attributes of the schema that Jenkins checks against (``junit-10.xsd``) are used. It has no
properties of a test case, so that a case's numbers stand in the suite's properties, under the case's name,
and in the text of the case.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from nvaudit.report.header import Header
from nvaudit.report.records import Check, number_text
from nvaudit.report.wording import clean


def junit_text(
    report: Header, command: str, checks: Sequence[Check], facts: Iterable[tuple[str, str]] = ()
) -> str:
    r"""Write a report as JUnit XML.

    Parameters
    ----------
    command : str
        That wrote it: the name of the suite.
    checks : sequence of Check
        Its questions: a test case each.
    facts : iterable of (str, str)
        What the suite's properties say besides what stands in the header.

    Returns
    -------
    str
        One test suite, without a final newline. A check that does not hold is a failure of type ``fail``, one
        that could not be decided a failure of type ``undecided``; where nothing was demanded the case passes
        and records the numbers. A check that an interrupted run does not answer is an error of type
        ``interrupted``. Characters that XML does not know are written as escapes such as ``\x1b``.
    """
    seconds = report.timing.get("total", sum(report.timing.values()))
    verdicts = Counter(check.verdict for check in checks)
    counts = {
        "tests": str(len(checks)),
        "failures": str(verdicts["fail"] + verdicts["undecided"]),
        "errors": str(verdicts["interrupted"]),
        "time": f"{seconds:.3f}",
    }
    top = ET.Element("testsuites", {"name": "nvaudit", **counts})
    suite = ET.SubElement(top, "testsuite", {"name": command, **counts, "skipped": str(verdicts["skipped"])})
    properties = ET.SubElement(suite, "properties")
    numbers = (
        (f"{check.name}: {key}", number_text(number))
        for check in checks
        for key, number in check.numbers.items()
    )
    for name, value in (*_header_properties(report), *facts, *numbers):
        ET.SubElement(properties, "property", {"name": clean(name), "value": clean(value)})
    for check in checks:
        own = seconds / len(checks) if check.seconds is None else check.seconds
        suite.append(_testcase(check, report, own))
    ET.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(top, encoding="unicode")


def _testcase(check: Check, report: Header, seconds: float) -> ET.Element:
    attributes = {
        "classname": _class_name(check, report),
        "name": clean(check.name),
        "time": f"{seconds:.3f}",
    }
    element = ET.Element("testcase", attributes)
    text = "\n".join(clean(line) for line in (report.headline, *check.lines))
    message = clean(check.message or check.lines[0])
    if check.verdict == "interrupted":
        ET.SubElement(element, "error", {"type": "interrupted", "message": message}).text = text
    elif check.verdict in ("fail", "undecided"):
        ET.SubElement(element, "failure", {"type": str(check.verdict), "message": message}).text = text
    else:
        if check.verdict == "skipped":
            ET.SubElement(element, "skipped", {"message": message})
        ET.SubElement(element, "system-out").text = text
    return element


def _class_name(check: Check, report: Header) -> str:
    """Model and device, dotted as a class is: what stands before the last dot is shown as the package."""
    path = report.kind if report.model is None else report.model.path
    parts = check.subject or (PurePosixPath(path.replace("\\", "/")).stem, report.device_name)
    return ".".join(["nvaudit", *(clean(part).replace(".", "_") for part in parts)])


def _header_properties(report: Header) -> Iterable[tuple[str, str]]:
    yield "nvaudit_version", report.nvaudit_version
    hashes, data, info = report.hashes, report.data, report.metric_info
    for what, value in (
        ("model", None if report.model is None else report.model.path),
        ("device", None if report.device is None else report.device_name),
        ("data", None if data is None else data.source),
    ):
        if value is not None:
            yield what, value
        if (digest := getattr(hashes, what, None)) is not None:
            yield f"{what}_sha256", digest
    if data is not None:
        yield "samples", str(data.count)
    yield "label_free", str(report.label_free).lower()
    yield "seed", str(report.run.get("seed", ""))
    yield "verdict", getattr(report, "verdict", None) or "none"
    if report.metric is not None:
        yield "metric", report.metric
    if info is not None:
        yield "unit", info.unit

"""`nvaudit check`: one table, one JUnit, one summary, one page; and the exit code of a gate."""

import csv
import io
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from nvaudit.errors import EXIT_BAD_INPUT, EXIT_GATE, EXIT_INTERRUPTED, EXIT_OK
from nvaudit.jobs import several
from nvaudit.report.check.result import CheckReport
from nvaudit.report.sections import Interrupted

MATRIX = """
trials = 80
percentile = 10
limit = 30
data = "m.npz"
[check]
min-kpp = 0.05
models = ["m.onnx", {path = "m.onnx", name = "strict", min-kpp = 0.999}]
[[check.devices]]
profile = "rram"
[[check.conditions]]
name = "fresh"
[[check.conditions]]
name = "noisy"
sigma = 0.2
"""


@pytest.fixture
def matrix(example, tmp_path, monkeypatch) -> Path:
    """A folder with a model, its data and a matrix of four audits, two of which fail."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    shutil.copy(example, "m.onnx")
    shutil.copy(example.with_suffix(".npz"), "m.npz")
    Path("nvaudit.toml").write_text(MATRIX, encoding="utf-8")
    return tmp_path


def test_times_and_reasons(command, matrix):
    """A test case has the seconds of its audit, as the table; what is left out, the reason."""
    with Path("nvaudit.toml").open("a", encoding="utf-8") as file:
        file.write('[[check.exceptions]]\nmodel = "strict"\ncondition = "noisy"\nskip = true\n')
    ran = command("check", "-j", 0, "-q", "-o", "c.json", "--junit", "j.xml", "--only", "* / fresh")
    assert "Left out by skip = true: strict / rram / noisy." in ran.out
    assert "Left out by --only: m / rram / noisy." in ran.out
    report = CheckReport.model_validate_json(Path("c.json").read_text(encoding="utf-8"))
    wanted = [audit.timing["total"] for audit in report.reports]
    cases = ET.parse("j.xml").getroot().iter("testcase")
    assert [float(case.attrib["time"]) for case in cases] == pytest.approx(wanted, abs=6e-4)


def test_everything_of_a_matrix(command, matrix):
    """The table, JUnit, summary, page, CSV and JSON say the same; the exit code is that of a gate."""
    pytest.importorskip("plotly")
    ran = command("check", "-j", 0, "-q", "-o", "c.json", "--junit", "j.xml", "--markdown", "s.md",
                  "--html", "c.html", "--csv", "c.csv")  # fmt: skip
    assert ran.code == EXIT_GATE
    assert ran.out.startswith("FAIL: of 4 audits, 2 fail, 2 pass (2 models, 1 device, 2 conditions)")
    report = CheckReport.model_validate_json(Path("c.json").read_text(encoding="utf-8"))
    verdicts = {named.name.text: named.verdict for named in report.audits}
    assert verdicts == {
        "m / rram / fresh": "pass",
        "m / rram / noisy": "pass",
        "strict / rram / fresh": "fail",
        "strict / rram / noisy": "fail",
    }
    suite = ET.parse("j.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.get("failures") == "2"
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert len(cases) == 4
    failed = cases["strict / rram / noisy: KPP 10 % of top1 at least 99.9 %, sigma 0.2 level spacings"]
    assert failed.get("classname") == "nvaudit.strict.rram"
    assert failed.find("failure") is not None
    rows = list(csv.DictReader(io.StringIO(Path("c.csv").read_text(encoding="utf-8"))))
    assert [(row["model"], row["condition"], row["verdict"]) for row in rows] == [
        ("m", "fresh", "pass"), ("m", "noisy", "pass"),
        ("strict", "fresh", "fail"), ("strict", "noisy", "fail"),
    ]  # fmt: skip
    summary = Path("s.md").read_text(encoding="utf-8")
    assert "strict / rram / noisy" in summary
    assert "❌" in summary
    page = Path("c.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert "strict / rram / noisy" in page


def test_passes(command, matrix):
    """Where every audit holds the exit code is 0; what is typed holds for every audit."""
    ran = command("check", "-j", 0, "-q", "--min-kpp", 0.05, "--only", "* / fresh")
    assert ran.code == EXIT_OK, ran.err
    assert ran.out.startswith("PASS: of 2 audits, 2 pass")
    assert "from nvaudit.toml: data, limit, trials" in ran.err
    assert "Left out by --only: m / rram / noisy; strict / rram / noisy." in " ".join(ran.out.split())


def test_undecided_is_no_pass(command, matrix):
    """An audit that the chips leave open fails the job, and says what would decide it."""
    ran = command("check", "-j", 0, "-q", "--only", "m / rram / fresh", "--max-trials", 20)
    assert ran.code == EXIT_GATE
    assert ran.out.startswith("UNDECIDED: of 1 audit, 1 is undecided")
    assert "without a failure would pass" in " ".join(ran.out.split())


def test_of_a_report(command, matrix):
    """`nvaudit report` makes every form from the JSON again."""
    command("check", "-j", 0, "-q", "-o", "c.json", "--only", "m / rram / fresh", "--junit", "a.xml")
    assert command("report", "c.json", "--junit", "b.xml").code == EXIT_OK
    assert Path("a.xml").read_text(encoding="utf-8") == Path("b.xml").read_text(encoding="utf-8")


def test_without_a_file(command, tmp_path, monkeypatch):
    """Without a file, or one without models, it says what to write."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    ran = command("check")
    assert ran.code == EXIT_BAD_INPUT
    assert 'write one with a table [check] and models = ["model.onnx"]' in ran.err
    Path("pyproject.toml").write_text("[tool.nvaudit.check]\nmin-kpp = 0.5\n", encoding="utf-8")
    ran = command("check")
    assert ran.code == EXIT_BAD_INPUT
    assert "pyproject.toml: [tool.nvaudit.check] has no models" in ran.err


def test_bad_input_of_an_audit(command, matrix):
    """An audit with options that make no sense is named before anything runs."""
    text = Path("nvaudit.toml").read_text(encoding="utf-8")
    Path("nvaudit.toml").write_text(text + "max-trials = 5\nexhaustive = true\n", encoding="utf-8")
    ran = command("check", "-o", "c.json")
    assert ran.code == EXIT_BAD_INPUT
    assert "m / rram / noisy: --max-trials and --exhaustive" in ran.err
    assert not Path("c.json").exists()


def test_output_that_is_an_input(command, matrix):
    """No output may replace a model or its data."""
    ran = command("check", "-o", "m.npz")
    assert ran.code == EXIT_BAD_INPUT
    assert "-o m.npz: this is the data of m / rram / fresh" in ran.err


def test_interrupted(command, matrix, monkeypatch):
    """Ctrl-C hands out the audits that are done and says how to go on; the rest is named."""
    run, seen = several.run_audit, []

    def cut(spec, progress, resume, stop):
        seen.append(spec)
        report = run(spec, progress, resume, stop)
        if len(seen) == 2:
            stop.interrupted = True
            return report.model_copy(update={"verdict": None, "interrupted": Interrupted(done=5, wanted=80)})
        return report

    monkeypatch.setattr(several, "run_audit", cut)
    ran = command("check", "-j", 0, "-q", "--resume", "kept", "-o", "c.json", "--junit", "j.xml")
    assert ran.code == EXIT_INTERRUPTED
    assert ran.out.startswith("INTERRUPTED: of 4 audits")
    assert "run the same command again to go on:\nnvaudit check" in ran.err
    found = json.loads(Path("c.json").read_text(encoding="utf-8"))
    assert found["verdict"] is None
    assert [named["why_not"] for named in found["audits"]] == ["", "", *["the run was interrupted"] * 2]
    suite = ET.parse("j.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.get("errors") == "3"

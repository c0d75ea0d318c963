"""`nvaudit report` of what commands other than `audit` have written."""

import json
import shutil

import pytest
from junitparser import JUnitXml

from nvaudit.errors import EXIT_BAD_INPUT, EXIT_OK
from nvaudit.report.kinds import read_any

FEW = ("--device", "fefet1", "-n", 4, "-j", 0, "-q")
MADE = {
    "nvaudit compare": (
        "compare", "{model}", "{other}", "--data", "{data}", *FEW, "--limit", 20, "--no-roughness",
        "-o", "{report}",
    ),
    "nvaudit roofline": ("roofline", "{model}", *FEW, "--limit", 20, "--cell-bits", "1,2", "-o", "{report}"),
    "nvaudit landscape": (
        "landscape", "{model}", "--grid", 5, "--pairs", 2, "--images", 16, "-j", 0, "-q", "--json",
    ),
    "nvaudit harden": (
        "harden", "{model}", *FEW, "--limit", 60, "--epochs", 1, "--no-roughness", "-o", "{out}", "--report",
        "{report}",
    ),
    "nvaudit harden --method remap": (
        "harden", "{model}", *FEW, "-m", "remap", "--limit", 60, "-o", "{out}", "--report", "{report}",
    ),
    "nvaudit verify-plan": (
        "verify-plan", "{model}", *FEW, "--limit", 20, "--ranking", "magnitude", "--shares", "0.1,1",
        "--report", "{report}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("made_by", MADE)
def test_every_report_is_shown_again(command, example, tmp_path, made_by):
    """The text and the page of a saved report are those of the command that wrote it."""
    pytest.importorskip("plotly")
    if made_by == "nvaudit harden":
        pytest.importorskip("torch")
    report, page, again = (tmp_path / name for name in ("r.json", "page.html", "again.html"))
    words = {"{model}": example, "{report}": report, "{out}": tmp_path / "h.onnx"}
    words |= {"{data}": example.with_suffix(".npz"), "{other}": shutil.copy(example, tmp_path / "other.onnx")}
    given = [words.get(word, word) for word in MADE[made_by]]
    ran = command(*given, "--html", page)
    assert ran.code == EXIT_OK, ran.err
    if made_by == "nvaudit landscape":
        report.write_text(ran.out, encoding="utf-8")
    summary = tmp_path / "summary.md"
    later = command("report", report, "--html", again, "--markdown", summary, "--text")
    assert later.code == EXIT_OK, later.err
    assert again.read_text(encoding="utf-8").rstrip() == page.read_text(encoding="utf-8").rstrip()
    headline = json.loads(report.read_text(encoding="utf-8"))["headline"]
    first, *_ = summary.read_text(encoding="utf-8").splitlines()
    assert first.startswith("## ")
    assert headline.split(":")[0] in first.replace("&#95;", "_")
    assert headline.split()[0] in later.out
    if made_by != "nvaudit landscape":
        assert ran.out.startswith(later.out.split(f"page: {again}")[0].rstrip("\n"))
    ran = command("report", report, "--junit", tmp_path / "j.xml", "--csv", tmp_path / "t.csv")
    if made_by == "nvaudit landscape":
        assert ran.code == EXIT_BAD_INPUT
        assert "--junit: a report of nvaudit landscape asks nothing of the chips; leave it out" in ran.err
        assert not (tmp_path / "t.csv").exists()
    else:
        assert ran.code == EXIT_OK, ran.err
        (suite,) = JUnitXml.fromfile(str(tmp_path / "j.xml"))
        assert suite.name == made_by
        assert suite.tests == len(list(suite)) > 0
        assert suite.failures == 0
        assert len((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()) > 1


def test_a_wrong_report_is_measured_by_its_own_kind(command, tmp_path):
    """The message names the field, and the command whose report it should be."""
    path = tmp_path / "r.json"
    path.write_text('{"schema_version": 1, "hardened": 3}', encoding="utf-8")
    ran = command("report", path)
    assert ran.code == EXIT_BAD_INPUT
    assert "give a report.json of nvaudit harden" in ran.err


def test_a_report_of_an_audit_stays_one(command, example, tmp_path):
    """It is read as before."""
    path = tmp_path / "r.json"
    assert command("audit", example, *FEW, "--limit", 20, "--no-roughness", "-o", path).code == EXIT_OK
    kind, _ = read_any(path.read_text(encoding="utf-8"), "r.json")
    assert kind.command == "nvaudit audit"

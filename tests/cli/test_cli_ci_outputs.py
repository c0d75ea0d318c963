"""`--junit` and `--markdown` of `nvaudit audit`, and `nvaudit report`, as a build server uses them."""

import json
import os
import re
import shlex
import stat
import xml.etree.ElementTree as ET

import pytest
from junitparser import JUnitXml

from nvaudit.cli.outputs import EXTRAS
from nvaudit.errors import EXIT_BAD_INPUT
from nvaudit.report.kinds import document_of, junit_of
from nvaudit.report.render.markdown import markdown_document
from nvaudit.report.result import from_json

FEW = ("-n", 4, "-j", 0, "--limit", 8, "--no-roughness")
TEXT = ("junit", "markdown")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, example):
    """A report.json of a gate that does not hold."""
    from nvaudit.cli import run

    path = tmp_path_factory.mktemp("saved") / "report.json"
    arguments = [
        "audit",
        example,
        "-n",
        60,
        "-j",
        0,
        "--limit",
        8,
        "--sigma",
        0.4,
        "--min-kpp",
        1,
        "-o",
        path,
    ]
    assert run([str(argument) for argument in arguments]) == 1
    return path


@pytest.mark.parametrize(
    ("threshold", "trials", "code", "verdict"),
    [(0.2, 400, 0, "pass"), (1.0, 60, 1, "fail"), (0.2, 5, 1, "undecided"), (None, 4, 0, None)],
)
def test_files_are_written_whatever_the_verdict(command, example, tmp_path, threshold, trials, code, verdict):
    """All are there when the gate holds, fails, stays undecided or is not asked; the exit code stays."""
    files = {name: tmp_path / name for name in ("report.json", "junit.xml", "summary.md")}
    gate = () if threshold is None else ("--min-kpp", threshold)
    ran = command(
        "audit", example, "-n", trials, "-j", 0, "--limit", 8, "--no-roughness", "--sigma", 0.4, *gate,
        "-o", files["report.json"], "--junit", files["junit.xml"], "--markdown", files["summary.md"],
    )  # fmt: skip
    assert ran.code == code, ran.err
    report = from_json(files["report.json"].read_text(encoding="utf-8"), "report.json")
    assert report.verdict == verdict
    assert files["junit.xml"].read_text(encoding="utf-8") == junit_of(report) + "\n"
    assert files["summary.md"].read_text(encoding="utf-8") == markdown_document(document_of(report)) + "\n"
    (suite,) = JUnitXml.fromfile(str(files["junit.xml"]))
    assert [result.type for case in suite for result in case.result] == [verdict] * (code == 1)
    said = [
        f"report: {files['report.json']}",
        f"JUnit: {files['junit.xml']}",
        f"Markdown: {files['summary.md']}",
    ]
    assert ran.out.splitlines()[-3:] == said
    assert sorted(tmp_path.iterdir()) == sorted(files.values())


def test_the_step_summary_of_github(command, example, tmp_path):
    """The file that GitHub gives is there, empty, and is replaced."""
    summary = tmp_path / "step_summary_1"
    summary.touch()
    assert command("audit", example, *FEW, "--markdown", summary).code == 0
    assert summary.read_text(encoding="utf-8").startswith("## KPP 1 % top1 ")
    ran = command("audit", example, *FEW, "--markdown", "")
    assert ran.code == 2
    assert "it is empty; name a file" in ran.err


@pytest.mark.parametrize("option", TEXT)
def test_a_dash_is_standard_output(command, example, option):
    """The text moves to standard error, so that a pipe gets only the file."""
    ran = command("audit", example, *FEW, f"--{option}", "-")
    assert ran.code == 0
    if option == "junit":
        assert ET.fromstring(ran.out.encode()).tag == "testsuites"
    else:
        assert ran.out.startswith("## KPP 1 % top1 ")
        assert ran.out.endswith("</details>\n")
    assert ran.err.startswith("KPP 1 % top1 ")


@pytest.mark.parametrize("option", EXTRAS)
def test_paths_are_checked_before_the_run(command, example, tmp_path, option):
    """A missing folder, an input, a path given twice: refused, and nothing has run."""
    if option in ("svg", "pdf"):
        pytest.importorskip("matplotlib", reason="matplotlib draws for paper; pip install 'nvaudit[paper]'")
    profile = tmp_path / "device.json"
    profile.write_text("{}")
    wanted = f"--{option}"
    cases = [
        ((wanted, tmp_path / "no" / "file"), "its folder does not exist"),
        ((wanted, tmp_path), "it is a folder"),
        ((wanted, example), f"{wanted} {example}: this is the model"),
        ((wanted, example.with_suffix(".npz")), "this is the data"),
        ((wanted, profile, "--device", profile), "this is the device profile"),
        ((wanted, tmp_path / "a", "-o", tmp_path / "a"), f"-o and {wanted}: both are"),
        ((wanted, "-", "-o", "-"), f"-o and {wanted}: both are standard output"),
    ]
    for arguments, message in cases:
        ran = command("audit", example, "-n", 10**6, "-j", 0, *arguments)
        assert ran.code == 2, ran.err
        assert message in ran.err
        assert ran.out == ""


def test_files_of_resume_are_safe(command, example, tmp_path):
    """The record of finished chips cannot be overwritten by an output."""
    kept = tmp_path / "kept"
    assert command("audit", example, *FEW, "--resume", kept).code == 0
    for path in kept.iterdir():
        before = path.read_bytes()
        ran = command("audit", example, *FEW, "--resume", kept, "--junit", path)
        assert ran.code == 2
        assert "this is a file of --resume" in ran.err
        assert path.read_bytes() == before


def test_links_count_as_what_they_lead_to(command, example, tmp_path):
    """Two names of one file are one file."""
    (tmp_path / "b").symlink_to(tmp_path / "a")
    ran = command("audit", example, *FEW, "--junit", tmp_path / "a", "--markdown", tmp_path / "b")
    assert ran.code == 2
    assert "--junit and --markdown: both are" in ran.err


def test_a_plan_has_no_result(command, example, tmp_path):
    """`--plan` with a result's file is refused."""
    ran = command("audit", example, "--plan", "--junit", tmp_path / "a.xml")
    assert ran.code == 2
    assert "--plan and --junit: choose one" in ran.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(command, example, tmp_path):
    """It is found out before the run."""
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    ran = command("audit", example, *FEW, "--junit", tmp_path / "a.xml")
    assert ran.code == 2
    assert "permission denied" in ran.err


def test_a_report_in_other_forms(command, saved, tmp_path):
    """`nvaudit report` writes what `audit` would have written; its exit code is not the verdict."""
    audit = from_json(saved.read_text(encoding="utf-8"), "report.json")
    ran = command("report", saved, "--junit", tmp_path / "j.xml", "--markdown", tmp_path / "m.md")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"JUnit: {tmp_path / 'j.xml'}\nMarkdown: {tmp_path / 'm.md'}\n"
    assert (tmp_path / "j.xml").read_text(encoding="utf-8") == junit_of(audit) + "\n"
    assert (tmp_path / "m.md").read_text(encoding="utf-8") == markdown_document(document_of(audit)) + "\n"


def test_a_report_as_text(command, saved, tmp_path):
    """Without a file, or with --text, the text is printed as `audit` prints it."""
    plain = command("report", saved)
    assert plain.code == 0
    assert plain.out.startswith("FAIL: KPP 1 % top1 ")
    both = command("report", saved, "--text", "--junit", tmp_path / "j.xml")
    assert both.out == f"{plain.out}JUnit: {tmp_path / 'j.xml'}\n"


def test_a_report_from_standard_input(command, saved, monkeypatch):
    """`nvaudit audit -o - | nvaudit report - --markdown -` works."""
    with saved.open(encoding="utf-8") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        ran = command("report", "-", "--markdown", "-")
    assert ran.code == 0
    assert ran.out.startswith("## ❌ FAIL: KPP 1 % top1 ")
    assert ran.err == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"{}", "schema_version: missing"),
        (b"[1", "is no JSON at line 1, column 3"),
    ],
)
def test_what_is_no_report(command, tmp_path, content, message):
    """A missing or foreign file is named, with what to give."""
    path = tmp_path / "other.json"
    if content is not None:
        path.write_bytes(content)
    ran = command("report", path, "--junit", tmp_path / "j.xml")
    assert ran.code == 2
    assert str(path) in ran.err
    assert message in ran.err
    assert "give the JSON" in ran.err
    assert not (tmp_path / "j.xml").exists()


def test_a_report_is_not_overwritten(command, saved):
    """The report that is read cannot be an output."""
    before = saved.read_bytes()
    ran = command("report", saved, "--markdown", saved)
    assert ran.code == 2
    assert "this is the report" in ran.err
    assert saved.read_bytes() == before


def test_the_rerun_command_of_the_summary_runs(command, saved):
    """What the summary tells to run gives the same values."""
    ran = command("report", saved, "--markdown", "-")
    line = re.search(r"^nvaudit audit .*$", ran.out, re.MULTILINE)[0]
    again = command(*shlex.split(line)[1:], "-j", 0, "-o", "-")
    assert again.code == 1
    assert json.loads(again.out)["trials"] == json.loads(saved.read_text())["trials"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--svg", "f.svg", "--figure", "histogrm"),
            "--figure: there is no 'histogrm'; use one of histogram, ",
        ),
        (("--svg", "f.pdf"), "--svg f.pdf: it writes a .svg file; name one, or use --pdf"),
        (("--pdf", "f.png"), "--pdf f.png: it writes a .pdf file; name one"),
        (("-o", "r.html"), "-o r.html: it writes a .json file; name one, or use --html"),
        (("--html", "r.json"), "--html r.json: it writes a .html file; name one, or use --report"),
        (("--csv", "t.xlsx"), "--csv t.xlsx: it writes a .csv file; name one"),
        (("--svg", "none/f.svg"), "none/f.svg: "),
    ],
)
def test_outputs_are_checked_before_the_run(command, example, tmp_path, monkeypatch, words, said):
    """A figure that there is not, a file called as one of another form, a folder that is not there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nvaudit.jobs.auditing.run_audit", lambda *_, **__: pytest.fail("it ran"))
    ran = command("audit", example, *FEW, *words)
    assert ran.code == EXIT_BAD_INPUT
    assert said in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_product_is_not_written_under_the_name_of_a_report(command, example, tmp_path):
    """``harden -o report.json`` would put a model where a report is looked for."""
    ran = command("harden", example, "-m", "remap", "-o", tmp_path / "report.json")
    assert ran.code == EXIT_BAD_INPUT
    assert "report.json: it writes a .onnx file; name one, or use --report" in ran.err
    ran = command("map", example, "-o", tmp_path / "map", "--svg", tmp_path / "f.svg")
    assert ran.code == EXIT_BAD_INPUT
    assert "--svg: this command has no figures; --html writes a page" in ran.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("harden", "-m", "remap"), "this is the data; choose another path"),
        (("map",), "this is the data; choose another path"),
        # What it is scored on is beside the model by default; the command names no data.
        (("calibrate", "--chip", "chips"), "it writes a .onnx file; name one"),
    ],
)
def test_a_product_does_not_replace_the_data(command, example, words, said):
    """``-o MODEL.npz`` is refused before anything is read."""
    data = example.with_suffix(".npz")
    before = data.read_bytes()
    ran = command(words[0], example, *words[1:], "-o", data)
    assert ran.code == EXIT_BAD_INPUT
    assert f"-o {data}: {said}" in ran.err
    assert data.read_bytes() == before

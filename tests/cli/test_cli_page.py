"""`--html` of `nvaudit audit` and `nvaudit report`: the page, and what is refused before the run."""

import html
import json
import sys

import pytest

from nvaudit.errors import EXIT_BAD_INPUT, EXIT_GATE, EXIT_OK
from nvaudit.report import from_json

QUICK = ("--device", "fefet1", "-n", 4, "--limit", 20, "-j", 0, "--no-roughness", "-q")


def test_audit_writes_the_page(command, example, tmp_path):
    """The page goes with the report, also where the gate fails; `report` makes the same one of it later."""
    pytest.importorskip("plotly")
    page, again, report = tmp_path / "page.html", tmp_path / "again.html", tmp_path / "report.json"
    ran = command("audit", example, *QUICK, "--sigma", 0.4, "--min-kpp", 1.0, "--html", page, "-o", report)
    assert ran.code == EXIT_GATE
    assert f"page: {page}" in ran.out
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    headline = from_json(report.read_text(encoding="utf-8"), "").headline
    assert headline.replace(" %", "\N{NO-BREAK SPACE}%") in text
    later = command("report", report, "--html", again)
    assert later.code == EXIT_OK
    assert again.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("verb", ["audit", "report"])
def test_without_plotly(command, example, tmp_path, monkeypatch, verb):
    """Without plotly nothing runs, and one line says what to install."""
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    subject = (example, *QUICK) if verb == "audit" else (tmp_path / "absent.json",)
    ran = command(verb, *subject, "--html", tmp_path / "page.html")
    assert ran.code == EXIT_BAD_INPUT
    assert ran.err == "nvaudit: error: --html needs plotly; run: pip install 'nvaudit[report]'\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [("--epochs", 1, "--no-roughness"), ("-m", "remap")])
def test_harden_writes_the_page(command, example, tmp_path, how):
    """With and without training, beside the model and the JSON."""
    pytest.importorskip("plotly")
    pytest.importorskip("torch")
    model, page, report = tmp_path / "h.onnx", tmp_path / "page.html", tmp_path / "report.json"
    given = ("harden", example, "--limit", 60, "-n", 4, "-j", 0, "-q", *how, "-o", model)
    ran = command(*given, "--html", page, "--report", report)
    assert ran.code == EXIT_OK
    assert f"page: {page}" in ran.out
    assert f"hardened model: {model}" in ran.out
    headline = json.loads(report.read_text(encoding="utf-8"))["headline"]
    text = page.read_text(encoding="utf-8")
    assert headline.replace(" %", "\N{NO-BREAK SPACE}%") in html.unescape(text)


def test_what_harden_refuses(command, example, tmp_path):
    """Before any training: the model's own path, an input, a path twice."""
    pytest.importorskip("plotly")
    pytest.importorskip("torch")
    model, both = tmp_path / "h.onnx", tmp_path / "both"
    for flags, problem in (
        (("--html", model), f"-o and --html: both are {model}; choose two paths"),
        (("--html", example), "--html"),
        (("--html", both, "--report", both), f"--report and --html: both are {both}; choose two paths"),
    ):
        ran = command("harden", example, "-q", "-o", model, *flags)
        assert ran.code == EXIT_BAD_INPUT
        assert problem in ran.err
        assert ran.out == ""
    assert list(tmp_path.glob("*.onnx")) in ([], [example])


def test_what_is_refused(command, example, tmp_path):
    """A folder that is not there, an input, and the path of another output are refused before the run."""
    pytest.importorskip("plotly")
    before = example.read_bytes()
    for path, problem in (
        (tmp_path / "absent" / "page.html", "its folder does not exist"),
        (example, "this is the model; choose another path"),
        (tmp_path, "it is a folder; name a file"),
    ):
        ran = command("audit", example, *QUICK, "--html", path)
        assert ran.code == EXIT_BAD_INPUT
        assert problem in ran.err
        assert ran.out == ""
    both = tmp_path / "both"
    ran = command("audit", example, *QUICK, "--html", both, "-o", both)
    assert ran.code == EXIT_BAD_INPUT
    assert "choose two paths" in ran.err
    assert example.read_bytes() == before

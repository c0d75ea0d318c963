"""Every kind of report in every form, as files under ``tests/golden``.

A case is a folder with what is rendered: ``report.json``, written by a small run once and read by every
version since, or ``command.txt``, the words of a command that gives the same everywhere. Beside it stands
each form of it. To add a case, add a folder with one of the two; to accept a change that is meant, run

    pytest tests/report/test_golden.py --rewrite-goldens

and read the difference that git shows.
"""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from nvaudit._version import __version__
from nvaudit.cli.outputs import render_page
from nvaudit.report.jsontext import to_json
from nvaudit.report.kinds import csv_of, document_of, print_report, read_any
from nvaudit.report.render.markdown import markdown_document

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
WIDTH = 80


def forms_of(case: str, command: Callable[..., object]) -> dict[str, str]:
    """Every form of a case, by the name of its file."""
    folder = GOLDEN / case
    if (folder / "command.txt").exists():
        return forms_of_command((folder / "command.txt").read_text(encoding="utf-8").split(), command)
    source = (folder / "report.json").read_text(encoding="utf-8")
    buffer = io.StringIO()
    _, report = read_any(source, f"{case}/report.json")
    print_report(report, Console(file=buffer, width=WIDTH))
    return {
        "terminal.txt": buffer.getvalue(),
        "markdown.md": markdown_document(document_of(report)) + "\n",
        "page.html": without_libraries(render_page(report)) + "\n",
        "written.json": to_json(report) + "\n",
        "table.csv": csv_of(report) + "\n",
    }


OPTIONS = {
    "terminal.txt": (),
    "markdown.md": ("--markdown", "-"),
    "page.html": ("--html", "-"),
    "written.json": ("--report", "-"),
    "table.csv": ("--csv", "-"),
}


def forms_of_command(words: list[str], command: Callable[..., object]) -> dict[str, str]:
    forms = {}
    for name, options in OPTIONS.items():
        ran = command(*words, *options)
        assert ran.code == 0, ran.err
        text = without_libraries(ran.out) if name == "page.html" else ran.out
        text = re.sub(r'"libraries": {.*?}', '"libraries": {}', text, flags=re.S)  # those of this machine
        forms[name] = text.replace(__version__, "VERSION")
    return forms


def without_libraries(page: str) -> str:
    """A page without what is the same in every page; of each chart what it is of, not its coordinates."""
    page = re.sub(r"<style>.*?</style>", "<style></style>", page, flags=re.S)
    page = re.sub(r"sha256-[\w+/=]*", "sha256", page)
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, flags=re.S)
    charts = "" if found is None else json.dumps(json.loads(found[1])["figures"])
    page = re.sub(r"<script.*?</script>", "<script></script>", page, flags=re.S)
    return page.replace("<script></script>", f"<!-- charts:\n{charts_text(charts)}-->", 1)


def charts_text(charts: str) -> str:
    """Names of charts with their traces, axes and what is written in them."""
    lines = []
    for name, figure in json.loads(charts or "{}").items():
        traces = ", ".join(f"{trace['type']} {trace.get('name', '')}".strip() for trace in figure["data"])
        layout = figure["layout"]
        axes = [
            (axis.get("title") or {}).get("text", "") for key, axis in layout.items() if "axis" in key[1:6]
        ]
        notes = [note.get("text", "") for note in layout.get("annotations", ())]
        lines += [f"{name}: {traces}", *(f"  {text}" for text in (*axes, *notes) if text)]
    return "".join(f"{line}\n" for line in lines).replace("--", "- -")


@pytest.mark.parametrize("case", CASES)
def test_golden(case, command, example, monkeypatch, request):
    """Every form is what the file says, and there is no file of a form that does not exist."""
    monkeypatch.chdir(example.parents[1])
    forms, folder = forms_of(case, command), GOLDEN / case
    if request.config.getoption("--rewrite-goldens"):
        for name, text in forms.items():
            (folder / name).write_text(text, encoding="utf-8")
    written = {path.name for path in folder.iterdir()} - {"report.json", "command.txt"}
    assert written == set(forms)
    for name, text in forms.items():
        assert text == (folder / name).read_text(encoding="utf-8"), f"{case}/{name}"

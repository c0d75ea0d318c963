"""`nvaudit landscape`: what it prints and writes, and what it refuses."""

import json
import re
import sys

import numpy as np
import pytest

from nvaudit.errors import EXIT_BAD_INPUT, EXIT_OK
from nvaudit.report.landscape.result import LandscapeReport
from nvaudit.stats.roughness import roughness

FEW = ("--grid", 5, "--pairs", 2, "--images", 16, "-j", 0)


def test_text(command, example):
    """The first line is the roughness; then the pairs, a map of the surface, and what it rests on."""
    ran = command("landscape", example, *FEW)
    assert ran.code == EXIT_OK
    first = ran.out.splitlines()[0]
    assert re.match(r"Roughness [\d.]+ ± [\d.]+ ×10⁻³ \(cross_entropy; mean and standard error of 2 ", first)
    maps = [line for line in ran.out.splitlines() if line.startswith("  |")]
    assert len(maps) == 5
    assert {len(line) for line in maps} == {14}
    assert "@@" in "".join(maps)
    text = " ".join(ran.out.split())
    assert "Weights moved 18,248 in 4 tensors" in text
    assert (
        "5 × 5 points from −0.3 to 0.3 filter lengths along 2 pairs of random directions, 16 images" in text
    )
    assert "Directions and images seed 0, batch norm stored" in text
    assert "nats against labels" in text
    assert "Assumed: class scores on axis 1 (10 classes)" in text
    assert "Assumed: the scores are logits" in text


def test_json_and_surface_agree(command, example, tmp_path):
    """The JSON on standard output and the .npz hold the same surface, and the roughness follows from it."""
    path = tmp_path / "surface.npz"
    ran = command("landscape", example, *FEW, "--json", "--surface", path)
    assert ran.code == EXIT_OK
    report = LandscapeReport.model_validate_json(ran.out, strict=True)
    assert report.roughness.pairs == 2
    with np.load(path, allow_pickle=False) as stored:
        surface = {name: stored[name] for name in stored.files}
    assert surface["losses"].shape == (2, 5, 5)
    assert surface["losses"].tolist() == [[list(row) for row in pair] for pair in report.surface.losses]
    assert surface["alphas"].tolist() == surface["betas"].tolist() == list(report.surface.axis)
    score = roughness(surface["alphas"], surface["betas"], surface["losses"])
    assert score.value == report.roughness.value
    assert score.spread == report.roughness.spread
    assert surface["roughness"].tolist() == [fit.mse for fit in score.fits]
    assert surface["fits"].tolist() == [list(fit.coefficients) for fit in score.fits]
    meta = json.loads(str(surface["meta"]))
    assert meta["run"]["grid"] == 5
    assert meta["hashes"] == json.loads(ran.out)["hashes"]


def test_equal_runs_print_equal_json(command, example):
    """Apart from times, two runs print the same."""
    reports = [json.loads(command("landscape", example, *FEW, "--json").out) for _ in range(2)]
    assert all(report.pop("timing") for report in reports)
    assert reports[0] == reports[1]


def test_page(command, example, tmp_path):
    """The page holds plotly and both drawings, refers to no other file, and stays below 6 MB."""
    pytest.importorskip("plotly")
    page = tmp_path / "landscape.html"
    ran = command("landscape", example, *FEW, "--html", page)
    assert ran.code == EXIT_OK
    assert f"page: {page}" in ran.out
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 6_000_000
    assert text.startswith("<!DOCTYPE html>")
    assert text.count('role="img"') == 2
    assert '"type":"surface"' in text
    assert '"type":"contour"' in text
    head = text[: text.index("plotly.js v")]
    assert "src=" not in head
    assert re.findall(r'href="([^#])', head) == []


def test_page_without_plotly(command, example, tmp_path, monkeypatch):
    """Without plotly the run does not begin, and one line says what to install."""
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    ran = command("landscape", example, *FEW, "--html", tmp_path / "page.html")
    assert ran.code == EXIT_BAD_INPUT
    assert ran.err == "nvaudit: error: --html needs plotly; run: pip install 'nvaudit[report]'\n"
    assert not (tmp_path / "page.html").exists()


def test_ascii_terminal(command, example, monkeypatch):
    """A terminal without Unicode gets ASCII."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    from rich.console import Console

    from nvaudit import landscape
    from nvaudit.report.landscape.document import landscape_document
    from nvaudit.report.render.terminal import print_document

    report = landscape(example, grid=5, pairs=1, images=8)
    console = Console(width=60, file=open(1, "w", encoding="ascii", closefd=False))  # noqa: SIM115
    with console.capture() as captured:
        print_document(landscape_document(report), console)
    assert captured.get().isascii()


def test_without_data(command, unlabelled):
    """Without labels the first line says so."""
    ran = command("landscape", unlabelled, *FEW)
    assert ran.code == EXIT_OK
    assert ran.out.startswith("LABEL-FREE (no labels: the unmodified model is the reference): Roughness")


def test_resume_and_progress(command, example, tmp_path):
    """A folder keeps finished points; a second run reads them."""
    first = command("landscape", example, *FEW, "--resume", tmp_path / "kept", "--json")
    again = command("landscape", example, *FEW, "--resume", tmp_path / "kept", "--json")
    assert json.loads(first.out)["surface"] == json.loads(again.out)["surface"]
    assert (tmp_path / "kept" / "chips.record").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--span", "0"), "--span: got 0.0; use a number above 0, at most 100"),
        (("--span", "nan"), "--span: got nan; use a number above 0, at most 100"),
        (("--grid", "2"), "--grid: got 2; use a whole number from 3 to 1001"),
        (("--pairs", "0"), "--pairs: got 0; use a whole number from 1 to 10000"),
        (("--images", "0"), "--images: got 0; use a whole number, 1 or more"),
        (
            ("--loss", "hinge"),
            "--loss: got 'hinge'; use one of cross_entropy, mse, binary_cross_entropy",
        ),
        (("--output-name", "nope"), "--output-name 'nope' is not an output; the model has logits"),
        (("--class-axis", "7"), "--class-axis 7: the output has shape [16, 10] (axis 0 is the batch)"),
        (("--data", "nowhere.npz"), "nowhere.npz: no such file or folder"),
        (("--data", ""), "--data: got ''; use a path, in UTF-8"),
        (("-o", "no/folder/s.npz"), "no/folder/s.npz: cannot be written: its folder does not exist"),
        (("--surface", "-"), "--surface -: a surface is binary; name a file"),
        (("-o", "same", "--html", "same"), "-o and --html: both are same; choose two paths"),
        (("--seed", "99999999999999999999"), "--seed: got 99999999999999999999; use a whole number from 0"),
    ],
)
def test_wrong_options(command, example, options, message, tmp_path, monkeypatch):
    """Each ends with exit code 2 and its own message; nothing is written."""
    monkeypatch.chdir(tmp_path)
    few = [(name, value) for name, value in zip(FEW[::2], FEW[1::2], strict=True) if name not in options]
    ran = command("landscape", example, *(word for pair in few for word in pair), *options)
    assert ran.code == EXIT_BAD_INPUT
    assert message in " ".join(ran.err.split())
    assert ran.out == ""
    assert list(tmp_path.iterdir()) == []


def test_inputs_are_not_overwritten(command, example, tmp_path):
    """Naming the model or its data as output is refused before anything runs."""
    for name in ("digits_cnn.onnx", "digits_cnn.npz"):
        (tmp_path / name).write_bytes((example.parent / name).read_bytes())
    model, data = tmp_path / "digits_cnn.onnx", tmp_path / "digits_cnn.npz"
    for path, what in ((model, "the model"), (data, "the data")):
        before = path.read_bytes()
        ran = command("landscape", model, *FEW, "--surface", path)
        assert ran.code == EXIT_BAD_INPUT
        assert f"--surface {path}: this is {what}; choose another path" in ran.err
        assert path.read_bytes() == before

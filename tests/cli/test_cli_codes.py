"""Codes on the command line: what is refused, what is said, and that no file is destroyed."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nvaudit.cli import run as nvaudit_command


@dataclass
class Result:
    """What a command left behind."""

    exit_code: int
    output: str


def run(*arguments: str) -> Result:
    """Run a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = nvaudit_command(list(arguments))
    return Result(code, out.getvalue() + err.getvalue())


@pytest.fixture
def model(example: Path, tmp_path: Path) -> Path:
    """The example in a folder of its own."""
    for suffix in (".onnx", ".npz"):
        shutil.copy(example.with_suffix(suffix), tmp_path / f"m{suffix}")
    return tmp_path / "m.onnx"


def mapped(model: Path, path: Path) -> dict[str, Any]:
    """Write a mapping file, and give what it holds."""
    result = run(
        "inspect", str(model), "--device", "fefet1", "--code", "8,4,2,1", "--write-mapping", str(path)
    )
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_mapping_file_takes_no_other_files_place(model: Path) -> None:
    """Neither the model's nor a report's; what was there is as it was."""
    before = model.read_bytes()
    base = ("inspect", str(model), "--device", "fefet1", "--code", "8,4,2,1", "--write-mapping")
    result = run(*base, str(model))
    assert (result.exit_code, model.read_bytes()) == (2, before)
    assert "this is the model" in result.output
    report = model.with_name("r.json")
    result = run(*base, str(report), "-o", str(report))
    assert (result.exit_code, report.exists()) == (2, False)


def test_a_report_does_not_replace_the_mapping_file(model: Path) -> None:
    """Given, or found beside the model."""
    beside = model.with_name("m.mapping.json")
    mapped(model, beside)
    before = beside.read_bytes()
    for given in ((), ("--mapping", str(beside))):
        for command in ("audit", "inspect"):
            result = run(command, str(model), "--device", "fefet1", *given, "-o", str(beside))
            assert (result.exit_code, beside.read_bytes()) == (2, before)
            assert "this is the mapping file" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bits", "6"), "--bits and the mapping file"),
        (("--top-slice", "lowest"), "--top-slice and the mapping file"),
        (("--encoding", "offset"), "--code slices leaves it out"),
    ],
)
def test_options_of_slices_are_not_ignored_with_a_mapping(
    model: Path, options: tuple[str, str], message: str
) -> None:
    """Found beside the model, as well."""
    mapped(model, model.with_name("m.mapping.json"))
    result = run("inspect", str(model), "--device", "fefet1", *options)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_weights_that_a_mapping_leaves_out_are_named(model: Path) -> None:
    """They lie on slices, and the report says so; a mapping of no weight is none."""
    path = model.with_name("part.json")
    data = mapped(model, path)
    left = data["tensors"].pop()["name"]
    path.write_text(json.dumps(data))
    result = run("inspect", str(model), "--device", "fefet1", "--mapping", str(path))
    assert result.exit_code == 0, result.output
    assert f"lie on slices: {left}" in " ".join(result.output.split())
    path.write_text(json.dumps({**data, "tensors": []}))
    result = run("inspect", str(model), "--device", "fefet1", "--mapping", str(path))
    assert result.exit_code == 2
    assert "tensors: names no weight, and there are no digital_outliers" in " ".join(result.output.split())


def test_a_weight_has_a_limited_number_of_devices(model: Path) -> None:
    """As with --devices-per-weight; pairs count twice."""
    for encoding, most in (("sign_magnitude", 64), ("differential", 32)):
        base = ("inspect", str(model), "--device", "fefet1", "--encoding", encoding, "--code")
        assert run(*base, ",".join(["1"] * most)).exit_code == 0
        result = run(*base, ",".join(["1"] * (most + 1)))
        assert result.exit_code == 2
        assert f"give at most {most}" in " ".join(result.output.split())


def test_the_code_stands_beside_the_headline(model: Path) -> None:
    """With the devices per weight."""
    result = run("inspect", str(model), "--device", "fefet1", "--code", "8,4,2,1")
    top = " ".join(result.output.split("On the array")[0].split())
    assert "8,4,2,1 4 devices per weight, sign_magnitude" in top


QUICK = ("--trials", "2", "--limit", "20", "--workers", "1", "-q")


def top_of(result: Result) -> str:
    """What stands before the first heading, on one line."""
    return " ".join(result.output.split("\n\n")[0].split()) + " ".join(result.output.split("\n\n")[1].split())


@pytest.mark.parametrize("command", ["audit", "verify-plan", "roofline", "compare"])
def test_every_command_says_the_code_beside_the_headline(model: Path, command: str) -> None:
    """And warns where a file's codes were chosen for another device; the JSON holds both facts."""
    mapped(model, model.with_name("m.mapping.json"))
    models = (str(model),)
    if command == "compare":
        for suffix in (".onnx", ".npz"):
            shutil.copy(model.with_suffix(suffix), model.with_name(f"other{suffix}"))
        models = (*models, str(model.with_name("other.onnx")))
    more = {"verify-plan": ("--ranking", "magnitude", "--shares", "0.5"), "roofline": ()}
    own = (*QUICK, *more.get(command, ("--no-roughness",)))
    report = model.with_name("r.json")
    for device, warned in (("fefet1", False), ("rram", True)):
        result = run(command, *models, "--device", device, *own, "--report", str(report))
        assert result.exit_code == 0, result.output
        top = top_of(result)
        assert "8,4,2,1" in top
        assert ("were chosen for fefet1 at sigma 0.1, not for rram" in top) is warned
        data = json.loads(report.read_text())
        part = {"roofline": "levels", "compare": "models"}.get(command)
        found = data if part is None else next(one for one in data[part] if one["codes"] is not None)
        assert found["codes"]["made_for"] == {"device": "fefet1", "sigma": 0.1}
        assert found["hashes"]["mapping"] is not None


def test_codes_for_other_levels_are_refused_with_what_to_do(model: Path) -> None:
    """A device of two levels has no use for codes of four."""
    mapped(model, model.with_name("m.mapping.json"))
    for command in ("audit", "verify-plan", "inspect"):
        quick = () if command == "inspect" else QUICK
        result = run(command, str(model), "--device", "fefet1", "--cell-bits", "1", *quick)
        text = " ".join(result.output.split())
        assert (result.exit_code, "for devices of 4 levels (fefet1)" in text) == (2, True), result.output
        assert "--code auto" in text
        assert "--code slices" in text


def test_a_roofline_leaves_out_levels_that_a_mapping_is_not_for(model: Path) -> None:
    """It runs the others, and says why; where none is left it is refused."""
    mapped(model, model.with_name("m.mapping.json"))
    report = model.with_name("r.json")
    result = run("roofline", str(model), "--device", "fefet1", *QUICK, "-o", str(report))
    assert result.exit_code == 0, result.output
    data = json.loads(report.read_text())
    assert [one["levels"] for one in data["levels"]] == [4]
    assert [one["levels"] for one in data["skipped"]] == [2]
    assert "for devices of 4 levels" in data["skipped"][0]["reason"]
    result = run("roofline", str(model), "--device", "fefet1", "--cell-bits", "1", *QUICK)
    assert (result.exit_code, "for devices of 4 levels" in " ".join(result.output.split())) == (2, True)
    result = run("roofline", str(model), "--device", "fefet1", "--code", "slices", *QUICK, "-o", str(report))
    assert [one["levels"] for one in json.loads(report.read_text())["levels"]] == [2, 4]


def test_replay_refuses_another_mapping_file(model: Path) -> None:
    """The chip would be another one."""
    beside, report = model.with_name("m.mapping.json"), model.with_name("r.json")
    mapped(model, beside)
    assert run("audit", str(model), "--device", "fefet1", *QUICK, "-o", str(report)).exit_code == 0
    chip = model.with_name("chip.onnx")
    again = ("replay", str(report), "--trial", "1", "-o", str(chip))
    assert run(*again).exit_code == 0
    chip.unlink()
    run("inspect", str(model), "--device", "fefet1", "--code", "4,4,2,1", "--write-mapping", str(beside))
    result = run(*again)
    assert (result.exit_code, chip.exists()) == (2, False)
    assert "the mapping is not the one of the report" in " ".join(result.output.split())


def test_a_finished_model_of_a_comparison_keeps_its_mapping(model: Path) -> None:
    """It is not run again as long as model, data and mapping file are the same; another file is refused."""
    beside, kept = model.with_name("m.mapping.json"), model.with_name("kept")
    mapped(model, beside)
    for suffix in (".onnx", ".npz"):
        shutil.copy(model.with_suffix(suffix), model.with_name(f"other{suffix}"))
    base = ("compare", str(model), str(model.with_name("other.onnx")), "--device", "fefet1", *QUICK)
    base = (*base, "--no-roughness", "--resume", str(kept))
    assert run(*base).exit_code == 0
    (report,) = kept.glob("m-*/report.json")
    before = report.stat().st_mtime_ns
    assert run(*base).exit_code == 0
    assert report.stat().st_mtime_ns == before
    run("inspect", str(model), "--device", "fefet1", "--code", "4,4,2,1", "--write-mapping", str(beside))
    result = run(*base)
    assert (result.exit_code, report.stat().st_mtime_ns) == (2, before)
    assert "mapping" in result.output

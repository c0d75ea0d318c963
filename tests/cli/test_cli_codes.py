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
    assert "tensors" in result.output


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

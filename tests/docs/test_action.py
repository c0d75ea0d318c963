"""The GitHub action and the pre-commit hooks: valid, and their scripts do what they say."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from nvaudit.cli import run

ROOT = Path(__file__).parents[2]
ACTION, HOOKS = ROOT / "action.yml", ROOT / ".pre-commit-hooks.yaml"
MATRIX = 'trials = 80\nlimit = 30\npercentile = 10\n[check]\nmin-kpp = {gate}\nmodels = ["m.onnx"]\n'


def loaded(path: Path) -> Any:
    """A YAML file."""
    return YAML(typ="safe", pure=True).load(path)


def step(name: str) -> dict[str, Any]:
    """A step of the action."""
    return next(found for found in loaded(ACTION)["runs"]["steps"] if found["name"] == name)


@pytest.fixture
def repository(tmp_path, example) -> Path:
    """A git repository with a model, its data and a matrix."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    shutil.copy(example, tmp_path / "m.onnx")
    shutil.copy(example.with_suffix(".npz"), tmp_path / "m.npz")
    (tmp_path / "nvaudit.toml").write_text(MATRIX.format(gate=0.05), encoding="utf-8")
    return tmp_path


def ran(name: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a step as GitHub does."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    files = {key: str(folder / f"{key.lower()}.txt") for key in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    asked = {
        "ARGUMENTS": "-j 0",
        "CONFIG": "",
        "BASELINE": "",
        "MAX_DROP": "0.01",
        "WANTED": "",
        "SOURCE": "",
    }
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail"],
        input=step(name)["run"], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": path, **files, **asked, "FOLDER": str(folder / "kept"), **variables},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "schema"), [(ACTION, "vendor.github-actions"), (HOOKS, "vendor.pre-commit-hooks")]
)
def test_valid(path, schema):
    """The published schema accepts the file, where the checker has it."""
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "not a valid choice" in done.stderr or "is not one of" in done.stderr:
        pytest.skip(f"check_jsonschema has no {schema}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_input_is_used():
    """No input is without effect, and every one that is used is declared."""
    text = ACTION.read_text(encoding="utf-8")
    for name in loaded(ACTION)["inputs"]:
        assert f"inputs.{name} " in text, name


def test_check_passes(repository):
    """The step passes where the matrix does; summary, outputs and files are there."""
    done = ran("Check", repository)
    assert done.returncode == 0, done.stderr
    assert "PASS: of 1 audit" in (repository / "github_step_summary.txt").read_text(encoding="utf-8")
    outputs = (repository / "github_output.txt").read_text(encoding="utf-8").split()
    assert outputs == [f"report={repository}/kept/check.json", "verdict=pass"]
    assert {path.name for path in (repository / "kept").iterdir()} == {
        "check.json", "junit.xml", "summary.md", "check.html",
    }  # fmt: skip


def test_check_fails(repository):
    """The step fails with the exit code of the gate, and hands out the files all the same."""
    (repository / "nvaudit.toml").write_text(MATRIX.format(gate=0.999), encoding="utf-8")
    done = ran("Check", repository)
    assert done.returncode == 1
    assert "verdict=fail" in (repository / "github_output.txt").read_text(encoding="utf-8")
    (repository / "nvaudit.toml").write_text("trails = 1\n", encoding="utf-8")
    done = ran("Check", repository, FOLDER=str(repository / "none"))
    assert done.returncode == 2
    assert "did you mean trials?" in done.stderr


def test_inputs_reach_the_command(repository):
    """Arguments with blanks stay whole; the file and the baseline are handed on."""
    done = ran("Check", repository, ARGUMENTS="-j 0 --only 'no / such'")
    assert done.returncode == 2
    assert "no audit is left to run" in done.stderr
    done = ran("Check", repository, CONFIG="other.toml", BASELINE="last.json")
    assert "other.toml: cannot be read" in done.stderr
    done = ran("Check", repository, BASELINE="last.json")
    assert done.returncode == 2
    assert "last.json: cannot be read" in done.stderr


def test_install_names_what_is_to_be_had(tmp_path):
    """The script installs this repository with extras that it has, or what it is told."""
    said = tmp_path / "python"
    said.write_text('#!/bin/sh\nprintf "%s\\n" "$*"\n', encoding="utf-8")
    said.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = ran("Install", tmp_path, SOURCE="/the/action", PATH=path)
    assert done.stdout == "-m pip install --quiet /the/action[cpu,report]\n"
    done = ran("Install", tmp_path, WANTED="-r pins.txt", PATH=path)
    assert done.stdout == "-m pip install --quiet -r pins.txt\n"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cpu", "report"} <= set(extras["optional-dependencies"])


@pytest.mark.parametrize("hook", loaded(HOOKS), ids=lambda hook: hook["id"])
def test_hooks_run(hook, repository, monkeypatch):
    """The command of each hook passes in a repository that is right, and fails in one that is not."""
    monkeypatch.chdir(repository)
    words = [*hook["entry"].split()[1:], *(["-j", "0"] if "check" in hook["entry"] else [])]
    assert run(words) == 0
    Path("nvaudit.toml").write_text("[check]\nmodls = []\n", encoding="utf-8")
    assert run(words) == 2

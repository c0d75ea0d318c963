"""The page on continuous integration: its files are valid, are those in examples/, and do what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml
from ruamel.yaml import YAML

from nvaudit import __version__
from nvaudit.stats.anytime import sequential_verdict

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ci-gate.md").read_text(encoding="utf-8")
FILES = ROOT / "examples" / "ci"
GITHUB, GITLAB = FILES / "github-workflow.yml", FILES / "gitlab-ci.yml"
PINS = FILES / "nvaudit-requirements.txt"
INPUTS = {"model.onnx", "d.npz", "nvaudit-requirements.txt"}
SCHEMAS = {
    GITHUB: ("vendor.github-workflows",),
    GITLAB: ("vendor.gitlab-ci", "--data-transform", "gitlab-ci"),
}


def loaded(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path)


def step(job: str, name: str) -> dict[str, Any]:
    """A step of the GitHub workflow."""
    (found,) = [one for one in loaded(GITHUB)["jobs"][job]["steps"] if one.get("name") == name]
    return found


def valid(path: Path, *schema: str) -> subprocess.CompletedProcess[str]:
    """The check of SchemaStore's schema, which the package brings along."""
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", *schema, str(path)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", [GITHUB, GITLAB, PINS], ids=lambda path: path.name)
def test_the_page_shows_the_files(path):
    """A file in examples/ci stands in the page as it is."""
    blocks = re.findall(r"^```(?:yaml|text)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert path.read_text(encoding="utf-8") in blocks


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_the_files_are_valid(path):
    """The published schema of the build server accepts the file."""
    done = valid(path, *SCHEMAS[path])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [(GITHUB, "runs-on:", "run-on:"), (GITLAB, "when: always", "when: sometimes")],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_invalid_file_is_seen(path, right, wrong, tmp_path):
    """The check can fail."""
    text = path.read_text(encoding="utf-8")
    broken = tmp_path / path.name
    broken.write_text(text.replace(right, wrong), encoding="utf-8")
    assert broken.read_text(encoding="utf-8") != text
    assert valid(broken, *SCHEMAS[path]).returncode == 1


@pytest.fixture
def here(tmp_path, example, monkeypatch):
    """A repository with the model and its data, and the commands of this environment."""
    for name in ("model.onnx", "d.npz"):
        shutil.copy(example.with_suffix(Path(name).suffix), tmp_path / name)
    for path, name in ((PINS, PINS.name), (GITLAB, ".gitlab-ci.yml")):
        shutil.copy(path, tmp_path / name)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    return tmp_path


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a job's script as the build server does, with fewer chips and samples."""
    quick = script.replace("--quiet", "--quiet -j 0 --limit 200 --no-roughness")
    quick = quick.replace("--trials 5000", "--trials 300 --attribution-trials 5 --attribution-images 20")
    assert quick.count("--limit") == 1
    variables = {**os.environ, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail"],
        input=quick, cwd=folder, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


def check_files(folder: Path, chips: int) -> None:
    """Report, JUnit and summary are there and agree."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "pass"
    assert report["trials"]["count"] == chips
    (suite,) = JUnitXml.fromfile(str(folder / "junit.xml"))
    assert [case.is_passed for case in suite] == [True]
    assert (folder / "summary.md").read_text(encoding="utf-8").startswith("## ✅ PASS: KPP 1 % top1 ")


def test_the_gate_of_github_runs(here):
    """The command of the pull request passes, and leaves the files that are kept and the summary."""
    done = run(step("gate", "Gate")["run"], here)
    assert done.returncode == 0, done.stderr
    check_files(here, 320)  # drawn in blocks; 307 are enough
    for job in ("gate", "nightly"):
        kept = step(job, "Keep the reports")["with"]["path"].split()
        assert kept == ["report.json", "junit.xml"]


def test_the_nightly_audit_of_github_goes_on(here):
    """The command of the night keeps its chips in the folder that is cached, and finds them again."""
    script = step("nightly", "Audit")["run"]
    for found in (0, 300):
        done = run(script, here)
        assert done.returncode == 0, done.stderr
        events = json.loads((here / "report.json").read_text(encoding="utf-8"))["events"]
        assert events == ([f"resumed: {found} of 300 chips were read from kept"] if found else [])
    check_files(here, 300)
    assert (here / "kept").is_dir()
    for name in ("Fetch finished chips", "Keep finished chips"):
        assert step("nightly", name)["with"]["path"] == "kept"


def test_the_cache_of_github_knows_what_the_chips_depend_on():
    """Model, data, versions and the workflow itself, whose name the page gives, are in the key."""
    cache = step("nightly", "Fetch finished chips")
    hashed, rest = re.fullmatch(r"nvaudit-\$\{\{ hashFiles\((.*)\) \}\}-(.*)", cache["with"]["key"]).groups()
    assert {name.strip(" '") for name in hashed.split(",")} == INPUTS | {".github/workflows/nvaudit.yml"}
    assert rest == "${{ github.run_id }}"
    assert cache["with"]["restore-keys"].strip() == cache["with"]["key"].removesuffix(rest)
    assert "`.github/workflows/nvaudit.yml`" in PAGE
    saved = step("nightly", "Keep finished chips")
    assert saved["with"]["key"] == f"${{{{ steps.{cache['id']}.outputs.cache-primary-key }}}}"


def test_the_jobs_of_gitlab_run(here):
    """Both scripts pass and leave the files that are collected; the folder of chips belongs to the inputs."""
    jobs = loaded(GITLAB)
    files = jobs[".nvaudit"]["artifacts"]
    assert (files["paths"], files["reports"]) == (["report.json", "summary.md"], {"junit": "junit.xml"})
    for job, chips in (("gate", 320), ("nightly", 300)):
        done = run("\n".join(jobs[job]["script"]), here)
        assert done.returncode == 0, done.stderr
        check_files(here, chips)
    (first,) = (here / "kept").iterdir()
    (here / PINS.name).write_text("other\n", encoding="utf-8")
    run("\n".join(jobs["nightly"]["script"]), here)
    assert len(set((here / "kept").iterdir()) - {first}) == 1
    assert "kept/" in jobs["nightly"]["cache"]["paths"]


def test_the_jobs_exclude_each_other():
    """Every job runs on what the other does not."""
    conditions = {name: job["if"] for name, job in loaded(GITHUB)["jobs"].items()}
    events = {name: set(re.findall(r"event_name == '(\w+)'", text)) for name, text in conditions.items()}
    assert set.union(*events.values()) == set(loaded(GITHUB)["on"])
    assert not set.intersection(*events.values())


def test_pins_are_the_versions_of_this_repository():
    """The pinned versions are those that the tests run with."""
    pins = dict(line.split("==") for line in PINS.read_text(encoding="utf-8").split())
    assert pins.pop("nvaudit[cpu]") == __version__
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for name, version in pins.items():
        assert f"{name}=={version}" in constraints


def test_the_numbers_of_chips_are_right():
    """307 chips without a failure pass, 100 never do, and two failures of two fail."""
    assert "307 chips without a failure pass" in PAGE
    assert [sequential_verdict(0, n, 1, 0.95) for n in (100, 306, 307)] == ["undecided", "undecided", "pass"]
    assert sequential_verdict(2, 2, 1, 0.95) == "fail"

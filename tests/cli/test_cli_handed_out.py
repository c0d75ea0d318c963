"""Finished work is not lost at the end: the text comes first, each file stands for itself."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nvaudit.cli import outputs
from nvaudit.errors import EngineError
from nvaudit.files import writing
from nvaudit.perturb.lock import lock_folder

FEW = ("-n", "4", "-j", "0", "--limit", "8", "--no-roughness", "-q")
FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


def audit(example, *more: object, stdout=subprocess.PIPE) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "nvaudit", "audit", example, *FEW, *more]
    return subprocess.run(
        [str(word) for word in words], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )


def test_the_text_comes_before_a_report_that_cannot_be_written(example):
    """Exit code 3 and the path, after the whole text."""
    ran = audit(example, "-o", FULL)
    assert ran.returncode == 3
    assert ran.stdout.startswith("KPP 1 % top1")
    assert "SHA-256" in ran.stdout
    assert "report: " not in ran.stdout
    assert ran.stderr.startswith("nvaudit: error: /dev/full: cannot be written: the disk is full")


def test_the_other_files_are_written(example, tmp_path):
    """Before it and after it; what could not be written is named, everything of it."""
    ran = audit(example, "--html", FULL, "-o", tmp_path / "r.json", "--junit", tmp_path / "j.xml")
    assert ran.returncode == 3
    assert json.loads((tmp_path / "r.json").read_text())["trials"]["count"] == 4
    assert (tmp_path / "j.xml").read_text().startswith("<?xml")
    assert f"report: {tmp_path / 'r.json'}" in ran.stdout
    assert ran.stderr.startswith("nvaudit: error: /dev/full: cannot be written")


def test_a_full_standard_output_keeps_no_file_back(example, tmp_path):
    """The report is written although the text cannot be printed."""
    with FULL.open("w") as full:
        ran = audit(example, "-o", tmp_path / "r.json", stdout=full)
    assert ran.returncode == 3
    assert "standard output cannot be written: No space left on device" in ran.stderr
    assert json.loads((tmp_path / "r.json").read_text())["trials"]["count"] == 4


def test_a_page_that_fails_keeps_no_file_back(command, example, tmp_path, monkeypatch):
    """A fault of our own in one form is said at the end; text and other forms are there."""

    def broken(report):
        raise ZeroDivisionError("a fault")

    monkeypatch.setitem(
        outputs.EXTRAS, "html", outputs.Extra("page", broken, "Write the report as one page.")
    )
    ran = command("audit", example, "-n", 2, "-j", 0, "--limit", 8, "--html", tmp_path / "p.html", "-o",
                  tmp_path / "r.json", "--junit", tmp_path / "j.xml")  # fmt: skip
    assert ran.code == 3
    assert ran.out.startswith("KPP 1 %")
    assert "ZeroDivisionError: a fault" in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j.xml", "r.json"]


def test_a_table_that_the_report_does_not_have_is_bad_input(command, example, tmp_path):
    """The report itself is written: only then it is known which tables it has."""
    ran = command("audit", example, "-n", 2, "-j", 0, "--limit", 8, "-o", tmp_path / "r.json", "--csv",
                  tmp_path / "t.csv", "--csv-table", "attribution_tensors")  # fmt: skip
    assert ran.code == 2
    assert "--csv-table 'attribution_tensors': this report has points, chips, tensors; name one" in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json"]


def _copy(example, folder):
    for suffix in (".onnx", ".npz"):
        shutil.copy(example.with_suffix(suffix), folder)
    return folder / example.name


@pytest.mark.parametrize(("target", "what"), [
    ("r.json", "the report"), ("digits_cnn.onnx", "the model"), ("digits_cnn.npz", "the data"),
])  # fmt: skip
def test_replay_replaces_nothing_that_it_reads(command, example, tmp_path, target, what):
    """The report, the model and the data stay as they are."""
    model, report = _copy(example, tmp_path), tmp_path / "r.json"
    assert command("audit", model, "-n", 2, "-j", 0, "--limit", 8, "-o", report).code == 0
    before = (tmp_path / target).read_bytes()
    ran = command("replay", report, "-o", tmp_path / target)
    assert ran.code == 2
    assert f"{target}: this is {what}; choose another path" in ran.err
    assert (tmp_path / target).read_bytes() == before


def test_nothing_that_is_read_is_replaced(command, example, tmp_path):
    """Measurements, mapping files, samples of a calibration; a model by its own report neither."""
    model, mapping, other = _copy(example, tmp_path), tmp_path / "m.json", tmp_path / "o.npz"
    shutil.copy(model.with_suffix(".npz"), other)
    assert command("inspect", model, "--code", "8,4,2,1", "--write-mapping", mapping).code == 0
    table = tmp_path / "measured.csv"
    table.write_text("level,mean,std\n0,1,0.1\n1,2,0.1\n", encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for words, message in [
        (("devices", "fit", table, "-o", table), "this is the measurements"),
        (("audit", model, "--mapping", mapping, "-o", mapping), "this is --mapping"),
        (("audit", model, "--calibrate-chips", 8, "--calibrate-data", other, "--csv", other),
         "this is --calibrate-data"),
        (("roofline", model, "--mapping", mapping, "--html", mapping), "this is --mapping"),
        (("verify-plan", model, "--mapping", mapping, "-o", mapping), "this is --mapping"),
        (("inspect", model, "--code", "8,4,2,1", "--write-mapping", model), "this is the model"),
        (("inspect", model, "--code", "8,4,2,1", "--write-mapping", "x", "--csv", "x"), "both are x"),
        (("harden", model, "-m", "remap", "-o", "h.onnx", "--report", "h.onnx"), "both are h.onnx"),
        (("harden", model, "-o", "h.onnx", "--csv", "h.onnx"), "both are h.onnx"),
    ]:  # fmt: skip
        ran = command(*words)
        assert (ran.code, message in ran.err) == (2, True), ran.err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"schema_version": 1, "a": 2}', '{"kind": "x", "schema_version": 1}']
)
def test_what_is_no_report_is_refused(command, tmp_path, text):
    """`nvaudit report` says what to give."""
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    ran = command("report", path)
    assert ran.code == 2
    assert ran.err.rstrip().endswith("give the JSON report of a command of nvaudit")


def test_a_full_disk_is_named_with_its_path(tmp_path, monkeypatch):
    """Also where the system's own error has none: the lock's process id, a working file."""

    def full(*_):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        wanted = pytest.raises(EngineError, match=r"kept.lock: cannot be written: the disk is full")
        with wanted, lock_folder(tmp_path / "kept"):
            pass
    wanted = pytest.raises(EngineError, match=r"codes.npy: cannot be written: the disk is full")
    with wanted, writing(tmp_path / "codes.npy"):
        raise OSError("1024 requested and 0 written")  # as ndarray.tofile says it

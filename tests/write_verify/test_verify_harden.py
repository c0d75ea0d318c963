"""`nvaudit harden --verify-plan`: the plan of the hardened model in the report of the hardening."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

FEW = ("--epochs", 1, "--audit-images", 40, "-n", 4, "-j", 0, "--no-roughness", "-q")


def test_plan_of_the_hardened_model(command, example, tmp_path, monkeypatch):
    """The plan is for the hardened weights and the audit's chips; without the flag there is none."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(example, "m.onnx")
    shutil.copy(example.with_suffix(".npz"), "m.npz")
    ran = command("harden", "m.onnx", *FEW, "--verify-plan", "-o", "h.onnx", "--report", "r.json")
    assert ran.code == 0, ran.err
    assert "Write-verify plan of the hardened model" in ran.out.splitlines()
    found = json.loads(Path("r.json").read_text(encoding="utf-8"))
    plan = found["verify_plan"]
    assert plan["curve"][0]["values"] == found["after"]["values"]
    assert plan["hashes"]["model"] == found["hashes"]["hardened"]
    assert plan["ranking"] == "swim"
    assert plan["headline"] in " ".join(ran.out.split())
    plain = command("harden", "m.onnx", *FEW, "-o", "h2.onnx", "--report", "-")
    assert json.loads(plain.out)["verify_plan"] is None

"""`--require-mapped` on the command line, and the share in what commands write."""

import json
import xml.etree.ElementTree as ET

import pytest

from nvaudit.testing import assert_kpp

QUICK = ("--device", "fefet1", "--trials", "4", "--limit", "40", "--quiet", "-j", "0")
SHARE = 1 - 16384 / 95360
"""Without fc1."""


@pytest.mark.parametrize(("required", "code", "word"), [("0.8", 0, "PASS"), ("0.95", 1, "FAIL")])
def test_the_audit_is_a_gate(required, code, word, command, example, tmp_path):
    """Exit 1 with a verdict line where the share is below; every file is written all the same."""
    files = {name: tmp_path / f"r.{name}" for name in ("json", "xml", "md")}
    ran = command(
        *("audit", example, *QUICK, "--digital", "fc1.weight", "--require-mapped", required),
        *("-o", files["json"], "--junit", files["xml"], "--markdown", files["md"]),
    )
    assert ran.code == code, ran.err
    assert ran.out.startswith(f"{word}: KPP 1 %")
    assert "; 82.8 % of the products on the array" in " ".join(ran.out.splitlines()[:2])
    assert f"{word}: at least {100 * float(required):g} % of the products must be on the array" in ran.out
    found = json.loads(files["json"].read_text())
    assert found["mapped"]["share_of_products"] == pytest.approx(SHARE)
    assert found["mapped"]["off"][0]["reason"] == "kept digital by --digital fc1.weight"
    assert found["mapped_gate"]["verdict"] == word.lower()
    assert {row["name"]: row["products"] for row in found["tensors"]}["fc1.weight"] == 16384
    suite = ET.parse(files["xml"]).getroot().find("testsuite")
    assert (suite.get("tests"), suite.get("failures")) == ("2", str(code))
    assert f"\n- {word}: at least" in files["md"].read_text()


@pytest.mark.parametrize("value", ["95", "-0.1", "nan", "1.01"])
@pytest.mark.parametrize("name", ["audit", "inspect", "verify-plan"])
def test_a_share_is_from_0_to_1(name, value, command, example):
    """Anything else is a usage error that says what to write."""
    ran = command(name, example, "--require-mapped", value)
    assert ran.code == 2
    assert "--require-mapped" in ran.err
    assert "0.95" in ran.err
    assert ran.out == ""


def test_inspect_counts_and_gates(command, example):
    """A column of products, the summary with its warning, and the gate without any data."""
    ran = command("inspect", example, "--digital", "fc1.weight", "--require-mapped", "0.9")
    assert ran.code == 1
    words = " ".join(ran.out.split())
    assert "82.8 % of the products on the array: 78,976 of 95,360 multiply-accumulates of 1 sample" in words
    assert "WARNING: 17.2 % of the products" in words
    rows = json.loads(command("inspect", example, "--json").out)
    assert {row["name"]: row["products"] for row in rows if row["products"]} == {
        "conv1.weight": 4608, "conv2.weight": 73728, "fc1.weight": 16384, "fc2.weight": 640,
    }  # fmt: skip
    assert command("inspect", example, "--require-mapped", "1").code == 0


def test_a_plan_is_a_gate_too(command, example, tmp_path):
    """verify-plan: the share in headline and report, exit 1 where it is below."""
    out = tmp_path / "plan.json"
    ran = command(
        *("verify-plan", example, *QUICK, "--ranking", "magnitude", "--shares", "0,1"),
        *("--digital", "fc1.weight", "--require-mapped", "0.9", "--report", out),
    )
    assert ran.code == 1, ran.err
    assert ran.out.startswith("FAIL: ")
    assert json.loads(out.read_text())["mapped_gate"]["verdict"] == "fail"


def test_a_comparison_chooses_among_models_with_enough_on_the_array(command, example, tmp_path):
    """The verdict of each model is that of its share; the column and the warning say why."""
    twin = tmp_path / "twin.onnx"
    twin.write_bytes(example.read_bytes())
    out = tmp_path / "c.json"
    ran = command(
        *("compare", example, twin, *QUICK, "--no-roughness", "--data", example.with_suffix(".npz")),
        *("--digital", "fc1.weight", "--require-mapped", "0.9", "-o", out),
    )
    assert ran.code == 1, ran.err
    words = " ".join(ran.out.split())
    assert "at least 90 % of the products on the array; 0 of 2 models pass" in words
    assert "WARNING: twin: 17.2 % of the products" in words
    models = json.loads(out.read_text())["models"]
    assert [model["verdict"] for model in models] == ["fail", "fail"]
    assert models[0]["mapped"]["products_total"] == 95360


def test_assert_kpp_demands_a_share(example):
    """require_mapped= fails a test with the share and what is off the array."""
    options = {"device": "fefet1", "at_least": 0.1, "trials": 400, "limit": 20, "digital": ("fc1.weight",)}
    with pytest.raises(AssertionError, match=r"at least 95 % of the products must be on the array, 82.8 %"):
        assert_kpp(example, require_mapped=0.95, **options)
    assert assert_kpp(example, require_mapped=0.8, **options).mapped_gate.verdict == "pass"
